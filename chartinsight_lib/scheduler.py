"""Runs the jobs when they are due: one slot, one run, however many schedulers stand on the database.

A scheduler keeps nothing of its own: what is due follows from the calendar, what has been done from `ops.slots`. One that was
killed, slept or was set back goes on as another would. What went wrong is said, recorded with the run, and tried again by the
job's rule; nothing of it ends the scheduler.
"""

import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from chartinsight_lib import alerts, ledger, retention, slots
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clock import system_clock
from chartinsight_lib.db import heartbeat
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.due import Due, Passed, Waiting, due, lacks, parameters, waits_for
from chartinsight_lib.errors import BeyondHorizon, DatabaseError, Fenced, RunFailed, SlotRefused
from chartinsight_lib.jobs import read_list
from chartinsight_lib.runner import Run, SlotRequest, Warm, declared, give_up_lost, run_job
from chartinsight_lib.settings import Settings
from chartinsight_lib.sources import LIVE

AT_A_TIME = 4
"""Runs of one scheduler under way at a time."""
BEAT_S, REAP_S, ALERTS_S, TOLD_AGAIN_S = 5.0, 2.0, 60.0, 3600.0
PATIENCE_S = 20.0
"""So long a scheduler that is told to end waits for its runs to be interrupted."""
NO_DATABASE = "the database does not answer; it is tried again"

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass
class _Ticks:
    """Which of the things that are done now and then is due; by this machine's time, whatever the market's clock says."""

    last: dict[str, float] = field(default_factory=dict)

    def due(self, what: str, every_s: float) -> bool:
        now = monotonic()
        if now - self.last.get(what, -every_s) < every_s:
            return False
        self.last[what] = now
        return True


class Scheduler:
    """Runs what is due of the jobs that a source allows. Use it in a `with`: the runs under way end with it."""

    def __init__(
        self, database: Database, settings: Settings, source: str, market: str, say: Say, *, engine: str = "scheduler"
    ) -> None:
        """`engine`: what its runs are recorded as started by. Raises ConfigError for a wrong list of jobs."""
        listed = read_list(settings.project)
        self.name = f"{platform.node()}:{os.getpid()}:{market}"
        self._database, self._settings, self._source, self._market = database, settings, source, market
        self._say, self._by = say, engine
        self._pools = listed.pools
        self._jobs = {name: job for name, job in listed.jobs.items() if job.suits(market, live=source in LIVE)}
        self._calendar = calendar(market)
        self._stop = threading.Event()
        self._running: dict[str, Future[None]] = {}
        self._failures: dict[str, str] = {}
        self._ticks = _Ticks()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._engine = self._database.engine(Role.LOADER)
            stack.callback(self._engine.dispose)
            self._warm = stack.enter_context(Warm(self._database, self._settings))
            self._threads = ThreadPoolExecutor(AT_A_TIME + 1, thread_name_prefix="run")  # and one for notices
            stack.callback(self._leave)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def run(self, ended: Callable[[float], bool], *, every_s: float = 1.0) -> None:
        """Go round after round until `ended(seconds)`, which waits for up to so long, says so."""
        while not ended(every_s):
            self.round()

    def catch_up(self, ended: Callable[[float], bool], *, first: bool = False, every_s: float = 0.2) -> list[str]:
        """Run what is due at this moment, each once; return the messages of what failed. Raises nothing, as `round`.

        Args:
            first: nothing is held yet: leave out the jobs on request, and those that follow the running day, which would only
                take the others' time.
        """
        due_now: set[tuple[str, datetime]] = set()
        with self._patient():
            planned = self._plan(self._now(), first=first)
            due_now = {(step.job.name, step.slot) for step in planned if isinstance(step, Due)}
        while due_now and not ended(every_s):
            self.round(first=first)
            with self._patient():
                due_now = {one for one in due_now if not self._has_ended(*one)}
        return [self._failures[name] for name in self._jobs if name in self._failures]

    def round(self, *, first: bool = False) -> None:
        """Start what is due and can start; look after what was started. Raises nothing that a later round could mend."""
        self._running = {name: future for name, future in self._running.items() if not future.done()}
        with self._patient():
            now = self._now()
            self._tidy()
            for step in self._plan(now, first=first):
                if isinstance(step, Passed):
                    self._leave_out(step, now)
                elif (reason := lacks(step.job, self._settings)) is not None:
                    self._leave_out(Passed(step.job, (*step.covers, step.slot), reason), now)
                elif step.job.name not in self._running and len(self._running) < AT_A_TIME:
                    self._running[step.job.name] = self._threads.submit(self._attempt, step)
        self._warm.refill()

    @contextmanager
    def _patient(self) -> Iterator[None]:
        """Say what a later round may mend, and go on."""
        try:
            yield
        except BeyondHorizon as error:
            # Nobody knows any more when something is due; to guess would be to ask on holidays.
            self._tell("NOTHING IS RUN ANY MORE", error)
        except (DatabaseError, SQLAlchemyError) as error:
            self._tell(NO_DATABASE, error)

    def _has_ended(self, name: str, slot: datetime) -> bool:
        with self._engine.connect() as conn:
            state = slots.state(conn, name, self._market, slot)
        return state not in {None, "running"} and (state != "retrying" or name in self._failures)

    def _now(self) -> datetime:
        return self._settings.clock().astimezone(self._calendar.zone)

    def _plan(self, now: datetime, *, first: bool) -> list[Due | Passed]:
        jobs = {name: job for name, job in self._jobs.items() if not (first and (job.live or job.on_request))}
        with self._engine.connect() as conn:
            newest = slots.newest(conn, self._market, jobs)
            waiting = [Waiting(row.job, row.slot, row.next_try) for row in slots.waiting(conn, self._market)]
        return due(jobs.values(), self._calendar, now, newest, waiting)

    def _tidy(self) -> None:
        if self._ticks.due("reap", REAP_S):
            for run_id in give_up_lost(self._database, self._settings):
                self._say(f"  run {run_id.hex[:8]} was cut off; its record says so, and its slot is tried again")
        if self._ticks.due("beat", BEAT_S):
            with self._engine.begin() as conn:
                heartbeat.beat(conn, name=self.name, market=self._market, running=len(self._running))
        if self._ticks.due("alerts", ALERTS_S):
            self._threads.submit(self._check_alerts)

    def _check_alerts(self) -> None:
        try:
            alerts.check(self._database, self._settings, self._market, self._say)
        except (DatabaseError, SQLAlchemyError) as error:
            self._tell(NO_DATABASE, error)
        except Exception as error:  # the edge: what cannot be told keeps nobody from running
            _log.exception("the notices could not be checked")
            self._tell("the notices could not be checked", error)

    def _leave_out(self, step: Passed, now: datetime) -> None:
        with self._engine.begin() as conn:
            slots.skip(conn, step.job, self._market, step.slots, reason=step.reason, by=self.name, now=now)
        first, last = step.slots[0], step.slots[-1]
        which = f"{first:%m-%d %H:%M}" + (f" to {last:%m-%d %H:%M}" if len(step.slots) > 1 else "")
        self._say(f"  {step.job.name:<17} skipped {which}: {step.reason}")

    def _attempt(self, step: Due) -> None:
        """Run one slot, in a thread of its own; every end of it is said, and nothing of it ends the other jobs."""
        name, started = step.job.name, monotonic()
        try:
            run = self._run(step)
        except SlotRefused as refusal:
            if refusal.why == slots.Why.SKIPPED:
                self._say(f"  {name:<17} skipped {step.slot:%m-%d %H:%M}: {refusal.reason}")
        except RunFailed as error:
            self._failed(name, error, " (it is tried again)" if error.temporary else "")
        except Fenced as error:  # somebody else has recorded it, and taken its slot
            self._failed(name, error, "")
        except (DatabaseError, SQLAlchemyError) as error:
            self._tell(NO_DATABASE, error)
        except Exception as error:  # the edge: of a slot that could not even be started, too, it is recorded why
            _log.exception("%s could not be started", name)
            self._failed(name, error, "")
            reason = f"it could not be started: {type(error).__name__}: {error}"
            with self._patient():
                self._leave_out(Passed(step.job, (step.slot,), reason), self._now())
        else:
            self._failures.pop(name, None)
            self._say(
                f"  {name:<17} {monotonic() - started:4.1f} s  {step.slot:%m-%d %H:%M} {ledger.rows_text(run.rows)}"
            )
            with self._patient():  # copies age by this machine's time
                retention.prune_copies(self._engine, self._settings.runs, step.job, now=system_clock())

    def _run(self, step: Due) -> Run:
        request = SlotRequest(
            step.slot, by=self.name, pools=self._pools, covers=step.covers,
            waits_for=waits_for(self._jobs, step.job, self._calendar, step.slot),
        )  # fmt: skip
        told = parameters(step.job, declared(step.job.notebook), self._calendar, step.slot, self._source)
        return run_job(
            self._database, self._settings, step.job, told, engine=self._by, market=self._market, slot=request,
            warm=self._warm, stop=self._stop,
        )  # fmt: skip

    def _failed(self, name: str, error: Exception, retried: str) -> None:
        if not self._stop.is_set():
            message = str(error).splitlines()[0]
            self._failures[name] = message
            self._say(f"  {name:<17} FAILED, going on with what is stored{retried}: {message}")

    def _tell(self, what: str, error: Exception) -> None:
        if self._ticks.due(what, TOLD_AGAIN_S):
            self._say(f"  {what}: {str(error).splitlines()[0]}")

    def _leave(self) -> None:
        self._stop.set()
        for future in self._running.values():
            with suppress(Exception):  # each said it in its own thread
                future.result(PATIENCE_S)
        self._threads.shutdown(wait=True, cancel_futures=True)
        with suppress(SQLAlchemyError), self._engine.begin() as conn:
            heartbeat.leave(conn, self.name)

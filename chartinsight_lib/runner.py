"""Runs one notebook as one recorded run.

Parameters are checked against the notebook before anything starts. The notebook runs in processes of its own, which die with us
and are ended at a limit. The executed copy appears under `runs/` whole or not at all, also when the run fails: it is where the
error is read. How it ended is recorded together with what becomes of its slot.
"""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from chartinsight_lib import ledger, slots
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, DatabaseError, Fenced, RunFailed, SlotRefused
from chartinsight_lib.jobs import Job
from chartinsight_lib.processes import kill_marked
from chartinsight_lib.running import executed_copy, provenance
from chartinsight_lib.running.job_environment import job_environment
from chartinsight_lib.running.lease import PATIENCE_S, Lease
from chartinsight_lib.running.notebook_process import EXIT_S, RUN_ID, NotebookProcess
from chartinsight_lib.running.outcome import INTERRUPTED, Failure
from chartinsight_lib.running.parameters import check_parameters, declared, parse_parameters
from chartinsight_lib.running.secrecy import redact, redact_file, secrets_of
from chartinsight_lib.running.warm import Warm
from chartinsight_lib.running.watch import GRACE_S, Watch
from chartinsight_lib.settings import Settings

__all__ = [
    "Run", "SlotRequest", "Warm", "check_parameters", "declared", "give_up_lost", "parse_parameters", "run_job",
]  # fmt: skip

MARGIN_S = GRACE_S + 2 * EXIT_S + PATIENCE_S + 30
"""So long after its time a run may still be busy ending and being recorded; then it is lost, whatever it does."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that succeeded: `output` is the executed notebook, `rows` the sums over its items."""

    run_id: UUID
    output: Path
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """Which slot a run is to be for; handed to `slots.claim`, which says what each means. `slot` is tz-aware."""

    slot: datetime
    by: str
    pools: Mapping[str, int] = field(default_factory=dict)
    waits_for: Mapping[str, datetime] = field(default_factory=dict)
    covers: tuple[datetime, ...] = ()
    again: bool = False


def run_job(
    database: Database,
    settings: Settings,
    job: Job,
    parameters: Mapping[str, Any],
    *,
    engine: str = "person",
    market: str | None = None,
    slot: SlotRequest | None = None,
    warm: Warm | None = None,
    stop: threading.Event | None = None,
    replay_of: UUID | None = None,
) -> Run:
    """Run a job's notebook and record it.

    Args:
        parameters: beside those that the job sets itself, and before them.
        engine: what starts it: person, up, scheduler or airflow.
        slot: for which slot of `market` it is; it is claimed, and settled when the run has ended.
        warm: where a process may wait that has everything imported.
        stop: when set, the run is interrupted.
        replay_of: the run of which this one is a repetition.
    Raises:
        ConfigError: a parameter is unknown, ill-typed or secret, or the runs folder cannot be written; nothing was started.
        SlotRefused: the slot is not to be run, or not now; a skip is recorded.
        RunFailed: the notebook failed or passed a limit; the message names cell, error and executed copy.
        Fenced: the run was given up by others while it ran; it was ended.
        DatabaseError: the database was away when its end was to be recorded.
    """
    if slot is not None and market is None:
        raise ConfigError(f"{job.name}: a slot is one of a market. Name the market.")
    told = {**job.parameters, **parameters}
    secrets = secrets_of(settings, database)
    check_parameters(job.notebook, told, secrets)
    spare = warm.take() if warm is not None else None
    pool = database.engine(Role.LOADER)
    try:
        run_id = UUID(spare.mark) if spare is not None else uuid4()
        output = executed_copy.place(settings.runs, job.name, settings.clock(), run_id)
        attempt = _Attempt(database, settings, job, told, run_id, output, secrets)
        conn = pool.connect()
        try:
            attempt.begin(conn, engine, market, slot, replay_of)
        except BaseException:
            conn.close()  # a pool that is disposed of leaves open what is in use, here for as long as the error is held
            raise
        process, spare = spare, None
        return attempt.carry_out(Lease(pool, conn, run_id), process, stop)
    finally:
        if spare is not None and warm is not None:
            warm.give_back(spare)
        pool.dispose()


def give_up_lost(database: Database, settings: Settings) -> list[UUID]:
    """Say of runs whose process died, or had its time, that they are lost; return them.

    What is left of one on this machine is ended, and what is whole of its executed copy kept; what that showed of a secret is
    taken out, as whoever ran it would have done. So is that of earlier ones, over which somebody may have been killed.
    """
    with database.transaction(Role.LOADER) as conn:
        lost = ledger.reap(conn, settings.clock)
        left = executed_copy.unfinished(settings.runs)
        left_over = ledger.ended(conn, left) if left else []
    secrets = secrets_of(settings, database)
    for run_id in {*lost, *left_over}:
        kill_marked(RUN_ID, str(run_id))
        for path in executed_copy.left_by(settings.runs, run_id):
            redact_file(path, secrets)
        executed_copy.settle_unfinished(settings.runs, run_id)
    return lost


@dataclass(slots=True)
class _Attempt:
    """One run, from its record's beginning to its end."""

    database: Database
    settings: Settings
    job: Job
    told: Mapping[str, Any]
    run_id: UUID
    output: Path
    secrets: Mapping[str, str]
    number: int = 1
    shown: set[str] = field(default_factory=set)
    given_up: bool = False

    @property
    def log(self) -> Path:
        """What the run's processes say beside the executed copy."""
        return self.output.with_suffix(".log")

    def begin(
        self, conn: Connection, engine: str, market: str | None, wanted: SlotRequest | None, replay_of: UUID | None
    ) -> None:
        """Claim the slot and record the start: both or neither. Raises SlotRefused."""
        project, now = self.settings.project, self.settings.clock
        code, lock = provenance.code_version(project), provenance.lock_hash(project)
        refusal = None
        with conn.begin():
            if wanted is not None and market is not None:
                found = slots.claim(
                    conn, self.job, market, wanted.slot, run_id=self.run_id, now=now(), by=wanted.by, pools=wanted.pools,
                    waits_for=wanted.waits_for, covers=wanted.covers, again=wanted.again,
                )  # fmt: skip
                if isinstance(found, slots.Refusal):
                    refusal = found
                else:
                    self.number = found.attempt
            if refusal is None:
                stamp = ledger.Stamp(
                    engine=engine, market=market, slot=wanted.slot if wanted else None, attempt=self.number,
                    limit_s=self.job.timeout_s + MARGIN_S, code_version=code, lock_hash=lock, replay_of=replay_of,
                )  # fmt: skip
                ledger.begin(conn, run_id=self.run_id, job=self.job.name, parameters=self.told, clock=now, stamp=stamp)
        if refusal is not None:  # said after the commit: that a slot is skipped is recorded
            raise SlotRefused(f"{self.job.name}: {refusal.reason}.", why=refusal.why, reason=refusal.reason)

    def carry_out(self, lease: Lease, spare: NotebookProcess | None, stop: threading.Event | None) -> Run:
        """Execute the notebook and record how it ended. Raises RunFailed, Fenced, DatabaseError."""
        try:
            failure = self._execute(lease, spare, stop)
            rows = self._record(lease, failure)
        except (Fenced, DatabaseError):  # whoever ended the run has recorded it; or nobody can
            raise
        except BaseException as interruption:
            with suppress(Fenced):  # it came while the end was recorded
                self._record(lease, Failure(f"interrupted: {type(interruption).__name__}", INTERRUPTED))
            raise
        finally:
            lease.close()
        if failure is not None:
            kept = f" The executed copy: {self.output}" if self.output.exists() else ""
            raise RunFailed(
                f"{self.job.name}: {str(failure).rstrip('.')}.{kept}", error_class=failure.error_class, run_id=self.run_id,
                temporary=failure.temporary(self.number) and not self.given_up,
            )  # fmt: skip
        return Run(self.run_id, self.output, rows)

    def _execute(self, lease: Lease, spare: NotebookProcess | None, stop: threading.Event | None) -> Failure | None:
        """Run the notebook and leave its executed copy, which shows no secret; return what went wrong, or None."""
        try:
            failure = None
            if spare is not None:
                spare.move_log(self.log)
                failure = self._watched(spare, lease, stop)
            if spare is None or (failure is not None and failure.never_began):
                environment = job_environment(self.database, self.settings, self.run_id)
                cold = NotebookProcess(environment, project=self.settings.project, log=self.log)
                failure = self._watched(cold, lease, stop)
        finally:  # before the copy has its name: whoever is killed here, or whose run was given up, leaves none either
            left = (executed_copy.part_of(self.output), self.log)
            self.shown = {name for path in left for name in redact_file(path, self.secrets)}
            executed_copy.publish(self.output)
        if failure is None:
            return None
        return replace(failure, error=redact(failure.error, self.secrets)[0])

    def _watched(self, process: NotebookProcess, lease: Lease, stop: threading.Event | None) -> Failure | None:
        process.order(
            notebook=str(self.job.notebook), output=str(executed_copy.part_of(self.output)), parameters=dict(self.told),
            job=self.job.name,
        )  # fmt: skip
        return Watch(self.job, process, lease.lost, stop).wait()

    def _record(self, lease: Lease, failure: Failure | None) -> Mapping[str, int]:
        """Record how it ended, with what becomes of its slot, and return the rows; what is recorded holds no secret."""
        if self.log.exists() and not self.log.stat().st_size:
            self.log.unlink()
        hidden = (
            f"The value of {' and '.join(sorted(self.shown))} stood in what it left, and was taken out."
            if self.shown
            else None
        )
        error = " ".join(filter(None, (str(failure) if failure else None, hidden))) or None
        interrupted = failure is not None and failure.error_class == INTERRUPTED
        outcome = slots.Outcome.LOST if interrupted else slots.Outcome.FAILED if failure else slots.Outcome.SUCCEEDED
        again = failure is not None and failure.temporary(self.number)
        now = self.settings.clock

        def write(conn: Connection) -> Mapping[str, int]:
            rows = ledger.finish(
                conn, self.run_id, state="failed" if failure else "succeeded", clock=now,
                output=str(self.output) if self.output.exists() else None,
                log=str(self.log) if self.log.exists() else None, error=error,
                error_class=failure.error_class if failure else None, error_cell=failure.cell if failure else None,
            )  # fmt: skip
            state = slots.settle(
                conn, self.run_id, outcome, now=now(), reason=str(failure) if failure else None,
                retry_after=timedelta(seconds=self.job.retry_after_s) if again else None,
            )  # fmt: skip
            self.given_up = state == "failed"
            return rows

        return lease.record(write)

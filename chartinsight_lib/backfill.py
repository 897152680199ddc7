"""Runs slots of the past that a person names: those that nothing stood for, those that failed, or all of a stretch."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from chartinsight_lib import slots
from chartinsight_lib.calendars import Calendar, calendar
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.due import parameters
from chartinsight_lib.errors import ConfigError, RunFailed, SlotRefused
from chartinsight_lib.jobs import Job
from chartinsight_lib.ledger import rows_text
from chartinsight_lib.runner import SlotRequest, declared, run_job
from chartinsight_lib.settings import Settings

WANTED = {"missing": {"none", "skipped"}, "failed": {"failed"}, "all": None}
"""What `--only` chooses, by the state of a slot; None: whatever it is."""


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a backfill: its slot, the state in which that is, and the older slots for which it stands."""

    slot: datetime
    state: str
    covers: tuple[datetime, ...] = ()


def plan(
    job: Job, known: Calendar, states: Mapping[datetime, str], first: datetime, last: datetime, *, only: str = "missing"
) -> list[Step]:
    """Return the runs that fill the slots from `first` to `last`, both included; of a job that catches up by its newest slot, one.

    Args:
        states: {slot: its state} of those that have a record.
        only: missing, failed or all.
    Raises:
        ConfigError: the job has no schedule.
    """
    if job.schedule is None:
        raise ConfigError(
            f"backfill: {job.name} has no schedule, and so no slots. Run it: `chartinsight run {job.name}`."
        )
    wanted = WANTED[only]
    found = [
        (slot, states.get(slot, "none")) for slot in job.schedule.slots(known, first - timedelta(microseconds=1), last)
    ]
    chosen = [Step(slot, state) for slot, state in found if wanted is None or state in wanted]
    if job.catch_up == "all" or not chosen:
        return chosen
    return [Step(chosen[-1].slot, chosen[-1].state, tuple(step.slot for step in chosen[:-1]))]


def backfill(
    database: Database,
    settings: Settings,
    job: Job,
    steps: list[Step],
    *,
    source: str,
    market: str,
    pools: Mapping[str, int],
    say: Callable[[str], None],
    stop: threading.Event | None = None,
) -> list[str]:
    """Run the steps of a plan, oldest first; one that fails keeps nobody from the others. Return the failures."""
    known, failures = calendar(market), []
    for step in steps:
        when = f"{step.slot:%Y-%m-%d %H:%M}"
        request = SlotRequest(step.slot, by="backfill", pools=pools, waits_for={}, covers=step.covers, again=True)
        told = parameters(job, declared(job.notebook), known, step.slot, source)
        try:
            run = run_job(database, settings, job, told, market=market, slot=request, stop=stop)
        except (RunFailed, SlotRefused) as error:
            failures.append(f"{job.name} {when}: {error}")
            say(f"  {when}  FAILED: {error}")
            continue
        say(f"  {when}  {rows_text(run.rows) or 'nothing to count'}")
    return failures


def states(database: Database, job: Job, market: str, first: datetime, last: datetime) -> dict[datetime, str]:
    """Return what is recorded of a job's slots from `first` to `last`: {slot: state}."""
    with database.transaction(Role.READER) as conn:
        return slots.between(conn, job.name, market, first, last)

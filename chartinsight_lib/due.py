"""What is due: which slots of which jobs are to be run, and which are not run any more. Worked out, nothing is done.

A slot that passed while nothing ran is not forgotten: by the job's rule it has its own run, is covered by the newest one, or is
left out with a reason.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from chartinsight_lib.calendars import Calendar
from chartinsight_lib.jobs import Job
from chartinsight_lib.settings import Settings

FIRST_LOOK = timedelta(days=14)
"""So far back a job that never ran is looked for its newest slot."""
MOST = timedelta(days=400)
"""So far back slots that passed while nothing ran are recorded."""


@dataclass(frozen=True, slots=True)
class Due:
    """A slot to be run, and the older ones for which its run stands."""

    job: Job
    slot: datetime
    covers: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """Slots that are left out because it is too late for them."""

    job: Job
    slots: tuple[datetime, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A slot that is to be tried again, from `next_try` on."""

    job: str
    slot: datetime
    next_try: datetime


def due(
    jobs: Iterable[Job], known: Calendar, now: datetime, newest: Mapping[str, datetime], waiting: Iterable[Waiting]
) -> list[Due | Passed]:
    """Return what is to be done at `now`, in the order of the jobs, a job's older slots first.

    Args:
        newest: {job: its newest slot that has a record}.
        waiting: the slots that are to be tried again.
    Raises:
        BeyondHorizon: the calendar does not reach to now.
    """
    again: dict[str, list[Waiting]] = {}
    for one in waiting:
        again.setdefault(one.job, []).append(one)
    found: list[Due | Passed] = []
    for job in jobs:
        if job.schedule is None:
            continue
        since = newest.get(job.name)
        missed = list(job.schedule.slots(known, max(since, now - MOST) if since else now - FIRST_LOOK, now))
        if (
            since is None
        ):  # what never ran has missed nothing: it begins with its newest slot, if it is not too late for that
            missed = [slot for slot in missed[-1:] if not _too_late(job, slot, now)]
        found += _of_job(job, known, now, missed, again.get(job.name, []))
    return found


def _of_job(
    job: Job, known: Calendar, now: datetime, missed: list[datetime], again: list[Waiting]
) -> Iterable[Due | Passed]:
    ready = {one.slot.astimezone(known.zone) for one in again if one.next_try <= now}
    passed = [slot for slot in sorted({*missed, *ready}) if _too_late(job, slot, now)]
    rest = sorted({*missed, *ready} - set(passed))
    if passed:
        yield Passed(job, tuple(passed), f"nothing ran within {job.within_min} minutes after it")
    if job.catch_up == "all":
        yield from (Due(job, slot) for slot in rest)
    elif rest:
        # Also what waits for its next try: the newer run does the same, and is not to be followed by it.
        older = {*rest[:-1], *(one.slot.astimezone(known.zone) for one in again if one.slot < rest[-1])} - set(passed)
        yield Due(job, rest[-1], tuple(sorted(older)))


def _too_late(job: Job, slot: datetime, now: datetime) -> bool:
    return job.within_min is not None and now - slot > timedelta(minutes=job.within_min)


def waits_for(jobs: Mapping[str, Job], job: Job, known: Calendar, slot: datetime) -> dict[str, datetime]:
    """Return which slots of other jobs come before a slot: {job: its newest slot of the same day, not after this one}."""
    slot = slot.astimezone(known.zone)
    morning = datetime.combine(slot.date(), time.min, known.zone) - timedelta(microseconds=1)
    found: dict[str, datetime] = {}
    for name in job.after:
        schedule = jobs[name].schedule
        for earlier in schedule.slots(known, morning, slot) if schedule else ():
            found[name] = earlier
    return found


def lacks(job: Job, settings: Settings) -> str | None:
    """Say which setting a job lacks, and how to give it; None: nothing."""
    for name in job.needs:
        if not getattr(settings, name):
            return f"it needs CHARTINSIGHT_{name.upper()}, which is not set"
    return None


def parameters(job: Job, declared: Iterable[str], known: Calendar, slot: datetime, source: str) -> dict[str, Any]:
    """Return what a slot's run is told, of what its notebook declares: the source and the market; `as_of`, the newest trading
    day that had ended at the slot."""
    told = {"source": source, "market": known.market, "as_of": known.last_ended(slot).isoformat()}
    return {name: value for name, value in told.items() if name in set(declared) and name not in job.parameters}

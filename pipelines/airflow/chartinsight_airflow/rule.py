"""Which slot is next by a job's rule. Pure: Airflow is not needed, and no clock is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from chartinsight_lib.errors import BeyondHorizon
from chartinsight_lib.schedule import At, Cron, Every, Schedule, newest_slot, next_slot, parse_schedule

if TYPE_CHECKING:
    from chartinsight_lib.calendars import Calendar
    from chartinsight_lib.jobs import Job

FIRST_LOOK = timedelta(days=14)
"""So far back a job that never ran is looked for its newest slot; so does our own scheduler."""
AHEAD = timedelta(days=400)
"""So far ahead the next slot is looked for. A calendar that ends before has none."""
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """When a job is due, and what becomes of slots that passed.

    `every_slot`: each has its run; otherwise the newest stands for all. `within`: later than this a slot is left out.
    """

    schedule: Schedule
    every_slot: bool = False
    within: timedelta | None = None

    @classmethod
    def of(cls, job: Job) -> Rule:
        """Return the rule of a job that has a schedule."""
        if job.schedule is None:
            raise ValueError(f"{job.name}: it has no schedule")
        within = None if job.within_min is None else timedelta(minutes=job.within_min)
        return cls(job.schedule, job.catch_up == "all", within)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as `from_json` reads it; the schedule as it stands in `jobs.yaml`."""
        within = None if self.within is None else self.within.total_seconds() / 60
        return {"schedule": _told(self.schedule), "every_slot": self.every_slot, "within_min": within}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Rule:
        """Read what `to_json` gave."""
        within = None if told["within_min"] is None else timedelta(minutes=told["within_min"])
        return cls(parse_schedule(told["schedule"]), told["every_slot"], within)


def next_run(
    rule: Rule,
    known: Calendar,
    *,
    now: datetime,
    last: datetime | None = None,
    earliest: datetime | None = None,
    latest: datetime | None = None,
    every_slot: bool | None = None,
) -> datetime | None:
    """Return the slot that is to be run next, in the market's zone; it may have passed already. None: there is none.

    A job that never ran has missed nothing: it begins with its newest slot.

    Args:
        last: the newest slot that had a run.
        earliest, latest: bounds, both included. With `earliest` a person asks for a range, and no slot is too old for it.
        every_slot: instead of the rule's.
    Raises:
        BeyondHorizon: the calendar does not reach to where the slot would be.
    """
    every = rule.every_slot if every_slot is None else every_slot
    if earliest is not None and every:
        after = earliest - _INSTANT if last is None else max(last, earliest - _INSTANT)
    else:
        after = last if every and last is not None else _before_newest(rule, known, now, last)
        if rule.within is not None:
            after = max(after, now - rule.within - _INSTANT)
        if earliest is not None:
            after = max(after, earliest - _INSTANT)
    found = _next(rule.schedule, known, after)
    if found is None and after + AHEAD > _end(known):
        raise BeyondHorizon(
            f"calendar of {known.market}: it ends on {known.horizon}, and no slot is left before. Update ChartInsight Studio."
        )
    return None if found is None or (latest is not None and found > latest) else found


def stands_in(rule: Rule, known: Calendar, slot: datetime, now: datetime) -> datetime | None:
    """Return the next slot if it is due and its run stands for this one; None: this one is run."""
    newer = None if rule.every_slot else _next(rule.schedule, known, slot)
    return newer if newer is not None and newer <= now else None


def _before_newest(rule: Rule, known: Calendar, now: datetime, last: datetime | None) -> datetime:
    newest = newest_slot(rule.schedule, known, now, within=FIRST_LOOK)
    floor = now if newest is None else newest - _INSTANT
    return floor if last is None else max(floor, last)


def _next(schedule: Schedule, known: Calendar, after: datetime) -> datetime | None:
    """Return the first slot after a moment that the calendar knows of; None: there is none."""
    return next_slot(schedule, known, after, within=min(AHEAD, _end(known) - after)) if after < _end(known) else None


def _end(known: Calendar) -> datetime:
    return datetime.combine(known.horizon, time.max, known.zone)


def _told(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as it is written in `jobs.yaml`."""
    if isinstance(schedule, At):
        return {"at": str(schedule.moment)}
    if isinstance(schedule, Every):
        minutes = round(schedule.step.total_seconds() / 60)
        return {"every": minutes, "from": str(schedule.first), "until": str(schedule.last)}
    if isinstance(schedule, Cron):
        return {"cron": schedule.line, "days": schedule.days}
    raise TypeError(f"{type(schedule).__name__}: how it is written in jobs.yaml is not known here")

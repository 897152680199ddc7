"""When a job is due: slots, which are moments worked out from a market's calendar alone.

A schedule has one of three forms, its times those of the market's zone:

    {at: open-30}                              30 minutes before the opening of each trading day
    {every: 5, from: begin-10, until: end+10}  each five minutes while the market trades
    {cron: "0 2 * * 6", days: all}             as cron; `days: trading`, the default, leaves out days without trading

The moments of a day: `begin`, its first price; `open` and `close` of the regular session; `end`, its last price, that of the
after-market where there is one. They follow the calendar, so that half days and exam days need no line of their own.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from cronsim import CronSim, CronSimError

from chartinsight_lib.calendars import Calendar, Session

EVENTS = ("begin", "open", "close", "end")
_MOMENT = re.compile(rf"({'|'.join(EVENTS)})\s*(?:([+-])\s*(\d{{1,4}}))?")
_FORMS = 'expected {at: open-30}, {every: 5, from: begin-10, until: end+10} or {cron: "0 2 * * 6", days: trading|all}'


@dataclass(frozen=True, slots=True)
class Moment:
    """So long after (or, negative, before) an event of a trading day."""

    event: str
    offset: timedelta

    def of(self, session: Session) -> datetime:
        """Return when it is on a day, tz-aware, in the market's zone."""
        at = {"begin": session.begins, "open": session.opens, "close": session.closes, "end": session.ends}[self.event]
        return at + self.offset

    def __str__(self) -> str:
        minutes = round(self.offset.total_seconds() / 60)
        return f"{self.event}{minutes:+d}" if minutes else self.event


class Schedule(ABC):
    """Anything that has slots."""

    __slots__ = ()

    @abstractmethod
    def slots(self, known: Calendar, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the slots in (after, until], ascending, tz-aware, in the market's zone. Raises BeyondHorizon."""


@dataclass(frozen=True, slots=True)
class At(Schedule):
    """Once on each trading day."""

    moment: Moment

    def slots(self, known: Calendar, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Schedule`."""
        for session in _sessions(known, after, until):
            if after < (slot := self.moment.of(session)) <= until:
                yield slot

    def __str__(self) -> str:
        return f"at {self.moment}"


@dataclass(frozen=True, slots=True)
class Every(Schedule):
    """Again and again on each trading day, from one moment of it until another, which is included."""

    step: timedelta
    first: Moment
    last: Moment

    def slots(self, known: Calendar, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Schedule`."""
        for session in _sessions(known, after, until):
            start, end = self.first.of(session), min(self.last.of(session), until)
            slot = start if start > after else start + ((after - start) // self.step + 1) * self.step
            while slot <= end:
                yield slot
                slot += self.step

    def __str__(self) -> str:
        return f"every {self.step.total_seconds() / 60:g} min from {self.first} until {self.last}"


@dataclass(frozen=True, slots=True)
class Cron(Schedule):
    """As Debian's cron does it, changes of the clock included."""

    line: str
    days: Literal["trading", "all"] = "trading"

    def slots(self, known: Calendar, after: datetime, until: datetime) -> Iterator[datetime]:
        """See `Schedule`."""
        for slot in CronSim(self.line, after.astimezone(known.zone)):
            if slot > until:
                return
            if self.days == "all" or known.is_trading_day(slot.date()):
                yield slot

    def __str__(self) -> str:
        return f"cron {self.line}" + (" on trading days" if self.days == "trading" else "")


def parse_schedule(told: Any) -> Schedule:
    """Read a schedule as it is written in `jobs.yaml`. Raises ValueError."""
    if not isinstance(told, dict):
        raise ValueError(_FORMS)
    keys = set(told)
    if keys == {"at"}:
        return At(_moment(told["at"]))
    if keys == {"every", "from", "until"}:
        minutes = told["every"]
        if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= 1440:
            raise ValueError(f"every: expected a whole number of minutes, 1 to 1440, and {minutes!r} is none")
        return Every(timedelta(minutes=minutes), _moment(told["from"]), _moment(told["until"]))
    if "cron" in keys and keys <= {"cron", "days"}:
        if (days := told.get("days", "trading")) not in {"trading", "all"}:
            raise ValueError(f"days: expected trading or all, and {days!r} is neither")
        try:
            CronSim(str(told["cron"]), datetime(2024, 1, 1))  # noqa: DTZ001 - only looks at the line
        except CronSimError as error:
            raise ValueError(f"cron: {told['cron']!r} is no cron line of five fields ({error})") from error
        return Cron(str(told["cron"]), days)
    raise ValueError(_FORMS)


def newest_slot(schedule: Schedule, known: Calendar, now: datetime, *, within: timedelta) -> datetime | None:
    """Return the newest slot at or before `now`, not older than `within`; None where there is none."""
    newest = None
    for newest in schedule.slots(known, now - within, now):  # noqa: B007 - the last one is wanted
        pass
    return newest


def next_slot(schedule: Schedule, known: Calendar, now: datetime, *, within: timedelta) -> datetime | None:
    """Return the first slot after `now`, not later than `within`; None where there is none."""
    return next(schedule.slots(known, now, now + within), None)


def _moment(text: Any) -> Moment:
    found = _MOMENT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no moment of a day. Expected {', '.join(EVENTS)}, and minutes, as in open-30")
    event, sign, minutes = found.groups()
    return Moment(event, timedelta(minutes=int(f"{sign or ''}{minutes or 0}")))


def _sessions(known: Calendar, after: datetime, until: datetime) -> Iterator[Session]:
    """Yield the trading days whose moments may lie in (after, until]; an offset is a few days at the most."""
    slack, until_day = timedelta(days=7), until.astimezone(known.zone).date()
    first = max(after.astimezone(known.zone).date() - slack, known.first)
    last: date = max(until_day, min(until_day + slack, known.horizon))  # a day beyond the horizon is refused by `days`
    for day in known.days(first, last):
        yield known.session(day.item())

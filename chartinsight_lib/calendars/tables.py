"""The tables behind the calendars: regular hours, what exchange_calendars publishes, our corrections; and the days they make.

Wall times are those of the market's zone. Sources: KRX's hours since 1987 as exchange_calendars quotes them; its Saturdays
were mornings, until 1998-12-05 (hankyung.com 1998080301961). The first trading day of a year opens an hour late for a ceremony
(asiae.co.kr 2025121810433063463), on an exam day everything is an hour late, only the last phase ends as always
(heraldcorp.com 10615007). That was so of KRX's trading after hours, whose place the after-market took on 2026-09-14. Nextrade:
since 2025-03-04, without its pre-market when KRX opens late (the same two, and ajunews.com 20251030175930009).
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from functools import cache
from importlib import resources
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.errors import SchemaError

Days = NDArray[np.datetime64]
Minutes = NDArray[np.timedelta64]
Marks = NDArray[np.bool_]
Hours = tuple[time, time]

CLOSED, OPEN, EXAM, HOURS = "closed", "open", "exam", "hours"
"""What a line says of its day: no trading; trading after all; an hour later; other hours than the regular ones."""
LATE = np.timedelta64(60, "m")
_CORRECTIONS = {"XKRX": "xkrx.csv"}


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds of a venue on a day that no table names; `regular` and `saturdays` are {since when: (opens, closes)}.

    `first` and `horizon` are the days between which the tables were checked or follow from what is in force.
    """

    exchange: str
    first: date
    horizon: date
    regular: Mapping[date, Hours]
    saturdays: Mapping[date, Hours] = field(default_factory=dict)
    saturdays_until: date = date.min
    late_first_day: bool = False
    before: Hours | None = None
    after: Hours | None = None
    after_since: date = date.min


class Line(NamedTuple):
    """One line of a table; `opens` and `closes` are None where the regular ones hold."""

    day: date
    change: str
    opens: time | None = None
    closes: time | None = None


class Phases(NamedTuple):
    """Trading days, ascending (datetime64[D]), and the moments of each (datetime64[us], UTC; NaT: no such phase)."""

    days: Days
    opens: Days
    closes: Days
    before_opens: Days
    before_closes: Days
    after_opens: Days
    after_closes: Days


_KOREAN = date(2028, 12, 31)
"""All holidays to here follow from laws in force and terms of office that are running. Elections after it do not, nor is there
an almanac of 2029; what the law does not say, a temporary holiday or an exam put off, is added when it is announced."""

RULES = {
    "XKRX": Rules(
        exchange="XKRX",
        first=date(1990, 1, 1),  # earlier days could be compared with no bars
        horizon=_KOREAN,
        regular={
            date(1987, 3, 1): (time(9, 40), time(15, 20)),
            date(1995, 1, 1): (time(9, 30), time(15)),
            date(1998, 12, 7): (time(9), time(15)),
            date(2016, 8, 1): (time(9), time(15, 30)),
        },
        saturdays={date(1987, 3, 1): (time(9, 40), time(11, 40)), date(1995, 1, 1): (time(9, 30), time(11, 30))},
        saturdays_until=date(1998, 12, 5),
        late_first_day=True,
        after=(time(16), time(20)),
        after_since=date(2026, 9, 14),
    ),
    "NXT": Rules(
        exchange="XKRX",
        first=date(2025, 3, 4),
        horizon=_KOREAN,
        regular={date(2025, 3, 4): (time(9), time(15, 20))},
        late_first_day=True,
        before=(time(8), time(8, 50)),
        after=(time(15, 30), time(20)),
    ),
    "XNYS": Rules(
        exchange="XNYS",
        first=date(1985, 9, 30),  # since then it opens at 09:30; the package knows no other opening
        horizon=date(2028, 12, 31),  # announced to here on 2025-12-23
        regular={date(1985, 9, 30): (time(9, 30), time(16))},
    ),
}


def phases(name: str, zone: ZoneInfo) -> Phases:
    """Work out the trading days of RULES[name] and the moments of their phases."""
    rules = RULES[name]
    lines = {line.day: line for line in [*published(rules.exchange), *corrections(rules.exchange)]}
    days, opens, closes, exam, late = regular_session(rules, lines)
    before, after = _phase(days, rules.before), _phase(days, rules.after)
    before[:, late] = np.timedelta64("NaT")
    after[:, days < np.datetime64(rules.after_since, "D")] = np.timedelta64("NaT")
    after[0, exam] += LATE
    return Phases(days, *(_utc(days, wall, zone) for wall in (opens, closes, *before, *after)))


def regular_session(rules: Rules, lines: Mapping[date, Line]) -> tuple[Days, Minutes, Minutes, Marks, Marks]:
    """Return the trading days, the wall times at which each opens and closes, which are exam days, and which open late."""
    lines = {day: line for day, line in lines.items() if rules.first <= day <= rules.horizon}
    days = np.arange(np.datetime64(rules.first, "D"), np.datetime64(rules.horizon, "D") + 1)
    trades = np.is_busday(days) | (_saturday(days) & (days <= np.datetime64(rules.saturdays_until, "D")))
    days = days[(trades & ~np.isin(days, _days_of(lines, CLOSED))) | np.isin(days, _days_of(lines, OPEN, EXAM, HOURS))]
    opens, closes = np.where(
        _saturday(days), _since(days, rules.saturdays or rules.regular), _since(days, rules.regular)
    )
    exam = np.isin(days, _days_of(lines, EXAM))
    late = exam | (_first_of_year(days) if rules.late_first_day else False)
    opens[late] += LATE
    closes[exam] += LATE
    for line in lines.values():
        if line.change == HOURS:
            at = np.searchsorted(days, np.datetime64(line.day, "D"))
            opens[at] = _minutes(line.opens) if line.opens else opens[at]
            closes[at] = _minutes(line.closes) if line.closes else closes[at]
    return days, opens, closes, exam, late


@cache
def published(exchange: str) -> tuple[Line, ...]:
    """Read what exchange_calendars says of an exchange, where it differs from RULES[exchange]."""
    return tuple(_line(row, "published.csv") for row in _rows("published.csv") if row["exchange"] == exchange)


@cache
def corrections(exchange: str) -> tuple[Line, ...]:
    """Read our corrections; they stand over what is published."""
    name = _CORRECTIONS.get(exchange)
    return tuple(_line(row, name) for row in _rows(name)) if name else ()


def _rows(name: str) -> Iterator[dict[str, str]]:
    written = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return csv.DictReader(line for line in written.splitlines() if not line.startswith("#"))


def _line(row: Mapping[str, str], name: str) -> Line:
    try:
        opens, closes = (time.fromisoformat(row[key]) if row[key] else None for key in ("opens", "closes"))
        line = Line(date.fromisoformat(row["day"]), row["change"], opens, closes)
    except (KeyError, ValueError) as error:
        raise SchemaError(f"calendars/{name}: {dict(row)} cannot be read ({error}).") from error
    if line.change not in (CLOSED, OPEN, EXAM, HOURS) or (line.change == HOURS) != bool(opens or closes):
        raise SchemaError(
            f"calendars/{name}: {line.day} is said to be {line.change!r}. Expected closed, open, exam or hours."
        )
    return line


def _days_of(lines: Mapping[date, Line], *changes: str) -> Days:
    return np.array(sorted(line.day for line in lines.values() if line.change in changes), "datetime64[D]")


def _since(days: Days, hours: Mapping[date, Hours]) -> Minutes:
    at = np.searchsorted(np.array(list(hours), "datetime64[D]"), days, side="right") - 1
    return np.array([[_minutes(one) for one in pair] for pair in hours.values()], "timedelta64[m]")[at].T


def _phase(days: Days, hours: Hours | None) -> Minutes:
    wall = [_minutes(one) for one in hours] if hours else [np.timedelta64("NaT", "m")] * 2
    return np.repeat(np.array(wall, "timedelta64[m]")[:, None], len(days), axis=1)


def _saturday(days: Days) -> Marks:
    return np.is_busday(days, weekmask="0000010")


def _first_of_year(days: Days) -> Marks:
    years = days.astype("datetime64[Y]")
    first: Marks = np.r_[True, years[1:] != years[:-1]]
    # A calendar that begins within a year does not know that year's first day.
    first[0] = days[0] - years[0].astype("datetime64[D]") < np.timedelta64(7, "D")
    return first


def _minutes(wall: time) -> np.timedelta64:
    return np.timedelta64(wall.hour * 60 + wall.minute, "m")


def _utc(days: Days, wall: Minutes, zone: ZoneInfo) -> Days:
    local = pd.DatetimeIndex((days + wall).astype("datetime64[us]")).tz_localize(zone)
    return local.tz_convert("UTC").tz_localize(None).to_numpy()

"""KRX trading days and hours, 2010 to 2028: a table of closed days and the rules of late openings. KST.

Days up to 2026-05 are as KRX held them; later ones follow from the law on public holidays and KRX's custom of closing on the
last weekday of a year. An election or a temporary holiday that is called later is not in the table.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import cache

import numpy as np

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.model import AFTER_MARKET_SINCE, KST, Days, Session

# Weekdays without trading, MMDD. Source: KRX's yearly notices of closed days; from 2026-06 on worked out from the law.
_CLOSED = {
    2010: "0101 0215 0301 0505 0521 0602 0921 0922 0923 1231",
    2011: "0202 0203 0204 0301 0505 0510 0606 0815 0912 0913 1003 1230",
    2012: "0123 0124 0301 0411 0501 0528 0606 0815 1001 1003 1219 1225 1231",
    2013: "0101 0211 0301 0501 0517 0606 0815 0918 0919 0920 1003 1009 1225 1231",
    2014: "0101 0130 0131 0501 0505 0506 0604 0606 0815 0908 0909 0910 1003 1009 1225 1231",
    2015: "0101 0218 0219 0220 0501 0505 0525 0814 0928 0929 1009 1225 1231",
    2016: "0101 0208 0209 0210 0301 0413 0505 0506 0606 0815 0914 0915 0916 1003 1230",
    2017: "0127 0130 0301 0501 0503 0505 0509 0606 0815 1002 1003 1004 1005 1006 1009 1225 1229",
    2018: "0101 0215 0216 0301 0501 0507 0522 0606 0613 0815 0924 0925 0926 1003 1009 1225 1231",
    2019: "0101 0204 0205 0206 0301 0501 0506 0606 0815 0912 0913 1003 1009 1225 1231",
    2020: "0101 0124 0127 0415 0430 0501 0505 0817 0930 1001 1002 1009 1225 1231",
    2021: "0101 0211 0212 0301 0505 0519 0816 0920 0921 0922 1004 1011 1231",
    2022: "0131 0201 0202 0301 0309 0505 0601 0606 0815 0909 0912 1003 1010 1230",
    2023: "0123 0124 0301 0501 0505 0529 0606 0815 0928 0929 1002 1003 1009 1225 1229",
    2024: "0101 0209 0212 0301 0410 0501 0506 0515 0606 0815 0916 0917 0918 1001 1003 1009 1225 1231",
    2025: "0101 0127 0128 0129 0130 0303 0501 0505 0506 0603 0606 0815 1003 1006 1007 1008 1009 1225 1231",
    2026: "0101 0216 0217 0218 0302 0501 0505 0525 0603 0717 0817 0924 0925 1005 1009 1225 1231",
    2027: "0101 0208 0209 0301 0503 0505 0513 0719 0816 0914 0915 0916 1004 1011 1227 1231",
    2028: "0126 0127 0128 0301 0412 0501 0502 0505 0606 0717 0815 1002 1003 1004 1005 1009 1225 1229",
}

# Days of the university entrance exam; everything is an hour later. In 2017 an earthquake moved the exam by a week when the
# late opening of the first day had been announced already. Later exams: the third Thursday of November.
_EXAMS = {
    date(2010, 11, 18), date(2011, 11, 10), date(2012, 11, 8), date(2013, 11, 7), date(2014, 11, 13), date(2015, 11, 12),
    date(2016, 11, 17), date(2017, 11, 16), date(2017, 11, 23), date(2018, 11, 15), date(2019, 11, 14), date(2020, 12, 3),
    date(2021, 11, 18), date(2022, 11, 17), date(2023, 11, 16), date(2024, 11, 14), date(2025, 11, 13), date(2026, 11, 19),
    date(2027, 11, 18), date(2028, 11, 16),
}  # fmt: skip

_LONGER_SINCE = date(2016, 8, 1)  # the close moved from 15:00 to 15:30
FIRST_YEAR, LAST_YEAR = min(_CLOSED), max(_CLOSED)


@cache
def closed_days() -> frozenset[date]:
    """Return the weekdays of 2010 to 2028 on which KRX does not trade."""
    return frozenset(date(year, int(day[:2]), int(day[2:])) for year, days in _CLOSED.items() for day in days.split())


def trading_days(first: date, last: date) -> Days:
    """Return the trading days from `first` to `last`, both included, ascending.

    Raises:
        ConfigError: the days reach beyond the table, or `last` is before `first`.
    """
    if first.year < FIRST_YEAR or last.year > LAST_YEAR or last < first:
        raise ConfigError(
            f"simulator: trading days from {first} to {last} are not known. Expected a first day before the last, and both "
            f"in {FIRST_YEAR} to {LAST_YEAR}."
        )
    days = np.arange(np.datetime64(first, "D"), np.datetime64(last, "D") + 1)
    return days[np.is_busday(days, holidays=np.array(sorted(closed_days()), "datetime64[D]"))]


def session(day: date, *, after_market_since: date | None = AFTER_MARKET_SINCE) -> Session:
    """Return the hours of a day on which there is trading; whether there is any, `trading_days` knows.

    Args:
        after_market_since: the first day with an after-market; None: there is none.
    """
    late = timedelta(hours=1)
    exam = day in _EXAMS
    opens = _at(day, 9)
    closes = _at(day, 15, 30) if day >= _LONGER_SINCE else _at(day, 15)
    if exam or day == _first_of_year(day.year):
        opens += late
    if exam:
        closes += late
    after = after_market_since is not None and day >= after_market_since
    return Session(
        day=day,
        opens=opens,
        auction=closes - timedelta(minutes=10),
        closes=closes,
        after_opens=max(_at(day, 16), closes) if after else None,
        after_closes=_at(day, 20) if after else None,
    )


def _at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime.combine(day, time(hour, minute), KST)


@cache
def _first_of_year(year: int) -> date:
    day = date(year, 1, 2)
    while day.weekday() >= 5 or day in closed_days():
        day += timedelta(days=1)
    return day

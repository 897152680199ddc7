"""A market of few days and instruments, written by hand, so that every expected answer can be worked by hand.

Days: Monday 2026-09-07 to Friday 2026-09-18, without Thursday 2026-09-10 (a holiday made up here). The after-market begins on
Monday 2026-09-14. Instruments:

    000100  가나전자, KOSPI, on NXT. 1:5 split effective 2026-09-09 (50,000 -> 10,000); renamed on 2026-09-15.
    000200  KOSDAQ. Halted on 2026-09-09 and 2026-09-11; a rights issue effective 2026-09-16 (base 900 of 1,000).
    0000D0  an ETF on KOSPI. Listed on 2026-09-15.
    000400  delisted on 2026-09-11.
    000500  a REIT; 000600 an ETN; 000700 an infrastructure fund: never halted, always 5,000 won.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from chartinsight_lib.simulator.model import (
    AFTER_MARKET_SINCE,
    KST,
    DailyBars,
    Event,
    Flows,
    Listing,
    MinuteBars,
    Sector,
    Session,
    empty_minutes,
)

DAYS = [date(2026, 9, n) for n in (7, 8, 9, 11, 14, 15, 16, 17, 18)]
LONG_AGO = date(2020, 1, 2)

# open, high, low, close, volume; then the after-market's last price and volume, where it is another.
Day = tuple[int, ...]
SPLIT_STOCK: dict[date, Day] = {
    DAYS[0]: (49_000, 51_000, 48_500, 50_500, 1_000),
    DAYS[1]: (50_500, 50_500, 49_500, 50_000, 2_003),
    DAYS[2]: (10_000, 10_400, 9_900, 10_300, 12_000),
    DAYS[3]: (10_300, 10_500, 10_200, 10_400, 9_000),
    DAYS[4]: (10_400, 10_600, 10_300, 10_500, 8_000, 10_700, 400),
    DAYS[5]: (10_500, 10_550, 10_000, 10_100, 16_000, 10_050, 100),
    DAYS[6]: (10_100, 10_200, 10_000, 10_150, 4_000),
    DAYS[7]: (10_150, 10_300, 10_100, 10_300, 4_400),
    DAYS[8]: (10_300, 10_300, 10_100, 10_200, 4_000),
}
RIGHTS_STOCK: dict[date, Day] = {
    DAYS[0]: (1_000, 1_020, 990, 1_010, 100),
    DAYS[1]: (1_010, 1_010, 1_000, 1_005, 333),
    DAYS[2]: (1_005, 1_005, 1_005, 1_005, 0),
    DAYS[3]: (1_005, 1_005, 1_005, 1_005, 0),
    DAYS[4]: (1_005, 1_100, 1_000, 1_060, 400),
    DAYS[5]: (1_060, 1_060, 990, 1_000, 800),
    DAYS[6]: (900, 1_170, 900, 1_170, 1_000),
    DAYS[7]: (1_170, 1_200, 1_150, 1_160, 500),
    DAYS[8]: (1_160, 1_160, 1_100, 1_150, 500),
}
NEW_ETF: dict[date, Day] = dict.fromkeys(DAYS[5:], (20000, 20100, 19900, 20050, 700))
FLAT: dict[date, Day] = dict.fromkeys(DAYS, (5_000, 5_000, 5_000, 5_000, 10))
GONE: dict[date, Day] = dict.fromkeys(DAYS[:3], (300, 310, 290, 300, 5))
INDEX: dict[date, Day] = {
    day: (250_000 + n * 100, 250_500 + n * 100, 249_500 + n * 100, 250_050 + n * 100, 400_000)
    for n, day in enumerate(DAYS)
}

_LISTINGS = [
    Listing("0000D0", "KOSPI", "etf", ((DAYS[5], "가나 ETF"),), "", "", DAYS[5], None, ((DAYS[5], 1_000_000),)),
    Listing(
        "000100", "KOSPI", "stock", ((LONG_AGO, "가나전자"), (DAYS[5], "가나반도체")), "013", "대형주", LONG_AGO, None,
        ((LONG_AGO, 100_000), (DAYS[2], 500_000)), nxt=True,
    ),
    Listing(
        "000200", "KOSDAQ", "stock", ((LONG_AGO, "다라소재"),), "", "", LONG_AGO, None, ((LONG_AGO, 200_000),),
        warnings=((DAYS[4], None, "관리종목"),),
    ),
    Listing("000400", "KOSPI", "stock", ((LONG_AGO, "사라짐"),), "", "", LONG_AGO, DAYS[3], ((LONG_AGO, 1_000),)),
    Listing("000500", "KOSPI", "reit", ((LONG_AGO, "마바리츠"),), "", "", LONG_AGO, None, ((LONG_AGO, 1_000),)),
    Listing("000600", "KOSPI", "etn", ((LONG_AGO, "사아 ETN"),), "", "", LONG_AGO, None, ((LONG_AGO, 1_000),)),
    Listing("000700", "KOSPI", "fund", ((LONG_AGO, "자차인프라"),), "", "", LONG_AGO, None, ((LONG_AGO, 1_000),)),
]  # fmt: skip
_BARS = {
    "000100": SPLIT_STOCK, "000200": RIGHTS_STOCK, "0000D0": NEW_ETF, "000400": GONE, "000500": FLAT, "000600": FLAT,
    "000700": FLAT, "001": INDEX, "013": INDEX, "101": INDEX,
}  # fmt: skip
_EVENTS = {
    "000100": (Event(DAYS[2], 10_000, 50_000, "split"),),
    "000200": (Event(DAYS[6], 900, 1_000, "rights"),),
}


class HandmadeMarket:
    """The market above; `days` may be another calendar, whose further days are as the last but one."""

    def __init__(self, sessions: dict[date, Session] | None = None) -> None:
        self.sessions = sessions or {}

    label = "handmade"
    days = np.array(DAYS, "datetime64[D]")
    listings = _LISTINGS
    sectors = (
        Sector("001", "종합(KOSPI)", "KOSPI"),
        Sector("013", "전기/전자", "KOSPI"),
        Sector("101", "종합(KOSDAQ)", "KOSDAQ"),
    )

    def session(self, day: date) -> Session | None:
        if day in self.sessions:
            return self.sessions[day]
        return session_of(day) if day in DAYS else None

    def daily(self, code: str) -> DailyBars:
        return bars_of(_BARS[code])

    index = daily

    def minutes(self, code: str, day: date) -> MinuteBars:
        """Four bars: 09:00 has the open, high and low and all but a half of the volume; 09:01 and 15:19 one share each at
        the open; 15:30 the close and the rest. A fifth at 16:05 has the after-market."""
        row, session = _BARS[code].get(day), self.session(day)
        if row is None or session is None or row[4] == 0:
            return empty_minutes()
        open_, high, low, close, volume = row[:5]
        half = volume // 2
        first = session.opens
        bars = [
            (first, open_, high, low, open_, volume - half - 2),
            (first + timedelta(minutes=1), open_, open_, open_, open_, 1),
            (session.closes - timedelta(minutes=11), open_, open_, open_, open_, 1),
            (session.closes, close, close, close, close, half),
        ]
        if len(row) > 5 and session.after_opens:
            late, late_volume = row[5:]
            bars.append((session.after_opens + timedelta(minutes=5), late, late, late, late, late_volume))
        start, *numbers = zip(*bars, strict=True)
        columns: list[Any] = [np.array(column, np.int64) for column in numbers]
        value = columns[3] * columns[4]
        return MinuteBars(np.array([at.replace(tzinfo=None) for at in start], "datetime64[m]"), *columns, value)

    def events(self, code: str) -> tuple[Event, ...]:
        return _EVENTS.get(code, ())

    def flows(self, code: str) -> Flows:
        days = np.array(list(_BARS[code]), "datetime64[D]")
        net = np.arange(len(days), dtype=np.int64) * 100 - 300
        return Flows(days, {"ind_invsr": net, "frgnr_invsr": -net})


def session_of(day: date, opens: int = 9, closes: tuple[int, int] = (15, 30)) -> Session:
    """The hours of a day, the plain ones unless told."""
    close = at(day, *closes)
    after = day >= AFTER_MARKET_SINCE
    after_opens = max(at(day, 16), close + timedelta(minutes=0)) if after else None
    return Session(
        day, at(day, opens), close - timedelta(minutes=10), close, after_opens, at(day, 20) if after else None
    )


def at(day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
    """A KST wall time."""
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=KST)


def bars_of(rows: dict[date, Day]) -> DailyBars:
    """Daily bars; half of the volume at the open and half at the close, as in the minutes, makes the value."""
    day = np.array(list(rows), "datetime64[D]")
    open_, high, low, close, volume = (np.array([row[n] for row in rows.values()], np.int64) for n in range(5))
    late = np.array([row[5] if len(row) > 5 else row[3] for row in rows.values()], np.int64)
    late_volume = np.array([row[6] if len(row) > 5 else 0 for row in rows.values()], np.int64)
    half = volume // 2
    value = open_ * (volume - half) + close * half
    return DailyBars(
        day, open_, high, low, close, volume, value, volume == 0,
        late, np.maximum(high, late), np.minimum(low, late), late_volume, late * late_volume,
    )  # fmt: skip


LONG_DAYS = [day for n in range(1_819, -1, -1) if (day := DAYS[-1] - timedelta(days=n)).weekday() < 5]


class LongMarket(HandmadeMarket):
    """1,300 days up to 2026-09-18 of one stock, 000900, at 1,000 won: 100 shares in each of a day's 381 minutes."""

    days = np.array(LONG_DAYS, "datetime64[D]")
    listings = (
        Listing("000900", "KOSPI", "stock", ((LONG_AGO, "긴주식"),), "", "", LONG_AGO, None, ((LONG_AGO, 10**6),)),
    )

    def session(self, day: date) -> Session | None:
        return session_of(day) if np.datetime64(day) in self.days else None

    def daily(self, code: str) -> DailyBars:
        return bars_of(dict.fromkeys(self.days.astype(object).tolist(), (1_000, 1_000, 1_000, 1_000, 38_100)))

    index = daily

    def minutes(self, code: str, day: date) -> MinuteBars:
        session = self.session(day)
        if session is None:
            return empty_minutes()
        opens, closes = (np.datetime64(at.replace(tzinfo=None), "m") for at in (session.opens, session.closes))
        start = np.append(np.arange(opens, closes - np.timedelta64(10, "m")), closes)
        price, volume = np.full(len(start), 1_000), np.full(len(start), 100)
        return MinuteBars(start, price, price, price, price, volume, price * volume)

    def events(self, code: str) -> tuple[Event, ...]:
        return ()

    def flows(self, code: str) -> Flows:
        return Flows(self.days, {})

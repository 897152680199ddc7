"""The simulator's nouns: what a market is to the server that shows it as Kiwoom does. Knows no wire, no client, no database.

Prices are whole won (indices: points times 100), volume is shares, value is won. Days are KRX trading dates; wall times are
KST. A market knows its future: the server cuts what it shows at its clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

KST = ZoneInfo("Asia/Seoul")
AFTER_MARKET_SINCE = date(2026, 9, 14)
"""The first day of the KRX after-market, 16:00 to 20:00."""

Ints = NDArray[np.int64]
Days = NDArray[np.datetime64]


class Session(NamedTuple):
    """The hours of one trading day, tz-aware in KST."""

    day: date
    opens: datetime
    """09:00; 10:00 on the first trading day of a year and on the day of the university entrance exam."""
    auction: datetime
    """Continuous trading ends and the closing auction gathers orders: ten minutes before `closes`."""
    closes: datetime
    """The closing auction prints: 15:30; 16:30 on the exam day."""
    after_opens: datetime | None
    """16:00 (16:30 on an exam day), or None where there is no after-market."""
    after_closes: datetime | None
    """20:00, or None."""


class Event(NamedTuple):
    """A corporate action: from `ex_day` on prices are on another basis, base_price / previous_close times the old one."""

    ex_day: date
    base_price: int
    """기준가 of the ex-day, won, on the tick grid."""
    previous_close: int
    """Raw official close of the trading day before, won."""
    kind: str
    """split, reverse, rights or bonus."""


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument for as long as it exists."""

    code: str
    board: str
    """KOSPI or KOSDAQ."""
    kind: str
    """stock, etf, etn, reit or fund (infrastructure fund)."""
    names: tuple[tuple[date, str], ...]
    """(from when on, name), ascending; a rename is a second entry."""
    sector: str
    """Code of a `Sector` of its board, three digits; "" for none."""
    size: str
    """대형주, 중형주, 소형주 or ""."""
    listed_on: date
    delisted_on: date | None
    """The first day on which it is no longer listed."""
    shares: tuple[tuple[date, int], ...]
    """(from when on, listed shares), ascending; a split is a later entry."""
    nxt: bool = False
    """Also traded on NXT."""
    warnings: tuple[tuple[date, date | None, str], ...] = ()
    """(first day, first day after it or None, state text as 관리종목)."""

    def name_on(self, day: date) -> str:
        """Return the name in force on a day."""
        return [name for since, name in self.names if since <= day or since == self.names[0][0]][-1]

    def shares_on(self, day: date) -> int:
        """Return the listed shares in force on a day."""
        return [count for since, count in self.shares if since <= day or since == self.shares[0][0]][-1]

    def listed(self, day: date) -> bool:
        """Whether it is listed on a day."""
        return self.listed_on <= day and (self.delisted_on is None or day < self.delisted_on)


class Sector(NamedTuple):
    """An index of a board or of one of its sectors."""

    code: str
    name: str
    board: str


@dataclass(frozen=True, slots=True)
class DailyBars:
    """One instrument's raw days, ascending, one entry per trading day on which it was listed; arrays of one length.

    `close` is the official close of the regular session. On a halted day all prices are the previous close, volume 0. The
    after-market's numbers are on top of the regular session's: where nothing traded after hours, or there is no after-market,
    `after_close` = close, `after_high` = high, `after_low` = low and `after_volume` = `after_value` = 0.
    """

    day: Days
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    value: Ints
    halted: NDArray[np.bool_]
    after_close: Ints
    after_high: Ints
    after_low: Ints
    after_volume: Ints
    after_value: Ints


@dataclass(frozen=True, slots=True)
class MinuteBars:
    """One instrument's raw one-minute bars of one day, ascending in `start`; minutes without a trade have none.

    They add up to the day's bar: the first open, highest high, lowest low of the regular session, its close in the bar at
    `Session.closes`, its volume and value in sum; likewise the after-market's.
    """

    start: Days
    """datetime64[m], KST wall time of the bar's start."""
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    value: Ints


@dataclass(frozen=True, slots=True)
class Flows:
    """Net buys of the kinds of investors per day, in shares; each column sums to zero over the kinds ind, frgnr, orgn, etc."""

    day: Days
    columns: dict[str, Ints] = field(default_factory=dict)
    """{name of the investor column as in the specification (`ind_invsr`, `frgnr_invsr`, `orgn`, …): net shares}."""


class Market(Protocol):
    """A whole market, past and future, the same whenever it is asked."""

    @property
    def label(self) -> str:
        """What it is, for `source` and for people: "seed 7", "replay of krx.parquet"."""
        ...

    @property
    def days(self) -> Days:
        """Every trading day it knows, ascending, datetime64[D]."""
        ...

    @property
    def listings(self) -> Sequence[Listing]:
        """Everything that was or will be listed, ascending and unique in code."""
        ...

    @property
    def sectors(self) -> Sequence[Sector]:
        """Indices and sectors, among them 001 (KOSPI) and 101 (KOSDAQ); ascending in code."""
        ...

    def session(self, day: date) -> Session | None:
        """Return the hours of a day; None: no trading on it."""
        ...

    def daily(self, code: str) -> DailyBars:
        """Return an instrument's whole life. Raises KeyError for a code that never exists."""
        ...

    def minutes(self, code: str, day: date) -> MinuteBars:
        """Return the one-minute bars of a day; empty when halted, not listed or no trading day. Raises KeyError."""
        ...

    def events(self, code: str) -> tuple[Event, ...]:
        """Return the corporate actions of an instrument, ascending. Raises KeyError."""
        ...

    def index(self, code: str) -> DailyBars:
        """Return the daily bars of an index or sector, points times 100, volume in thousand shares. Raises KeyError."""
        ...

    def flows(self, code: str) -> Flows:
        """Return the investors' net buys of an instrument. Raises KeyError."""
        ...


def empty_minutes() -> MinuteBars:
    """Return no minutes."""
    nothing: dict[str, Any] = {
        name: np.empty(0, np.int64) for name in ("open", "high", "low", "close", "volume", "value")
    }
    return MinuteBars(start=np.empty(0, "datetime64[m]"), **nothing)

"""The market as it can be seen at the clock: the past whole, the running day so far, the future not at all.

A minute is seen in four steps, 15 s apart: its open, its two extremes, its close, each with a quarter more of its volume. A
price of the closing auction is one print. The running day is the sum of what is seen of its minutes, so that the daily row,
the minute rows and the frames of the WebSocket agree at every moment.

NXT is a stand-in, since the market holds KRX trades alone: `_NX` shows 45 % of KRX's volume and closes at another price, and
`_AL` is the sum of both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np

from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.model import DailyBars, Days, Event, Ints, Market, MinuteBars, Session, empty_minutes
from chartinsight_lib.simulator.options import Options

NXT_SINCE = np.datetime64("2025-03-04")
STEPS = 4
STEP = timedelta(seconds=60 // STEPS)
_MINUTE = timedelta(minutes=1)
_Found = TypeVar("_Found")


class Symbol(NamedTuple):
    """A code as asked for: with the suffix of its exchange, "" for KRX, NX or AL."""

    code: str
    suffix: str = ""

    def __str__(self) -> str:
        return f"{self.code}_{self.suffix}" if self.suffix else self.code


class Rows(NamedTuple):
    """Days as they are shown, ascending, raw: `close` is the last price, the after-market's where there is one."""

    day: Days
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    value: Ints
    base: Ints
    """기준가, won: what the day's changes and signs refer to."""
    official: Ints
    """The close of the regular session; on the running day before it, the last price."""

    def cut(self, start: int, stop: int) -> Rows:
        """Return the rows of a range."""
        return self.each(lambda column: column[start:stop])

    def newest_first(self) -> Rows:
        """Return the rows the other way round."""
        return self.each(lambda column: column[::-1])

    def each(self, change: Callable[[Any], Any]) -> Rows:
        """Return the rows with every column changed."""
        return Rows(*map(change, self))


class Memory:
    """The newest few results of a calculation."""

    def __init__(self, keep: int) -> None:
        """Keep so many."""
        self._keep, self._found = keep, OrderedDict[Hashable, Any]()

    def get(self, key: Hashable, make: Callable[[], _Found]) -> _Found:
        """Return what was found for `key` before, or find it."""
        if key in self._found:
            self._found.move_to_end(key)
        else:
            self._found[key] = make()
            if len(self._found) > self._keep:
                self._found.popitem(last=False)
        found: _Found = self._found[key]
        return found


class World:
    """A market at a clock."""

    def __init__(self, market: Market, clock: SimulatedClock, options: Options) -> None:
        """Look at `market` as of `clock`."""
        self.market, self.clock, self.options = market, clock, options
        self.listings = {listing.code: listing for listing in market.listings}
        self.sectors = {sector.code: sector for sector in market.sectors}
        self._lives, self._minutes, self._sessions = Memory(256), Memory(4096), Memory(4096)

    def now(self) -> datetime:
        """Return the simulated time, KST."""
        return self.clock.now()

    def session(self, day: date) -> Session | None:
        """Return the hours of a day."""
        return self._sessions.get(day, lambda: self.market.session(day))

    def newest_day(self, now: datetime, *, lead: timedelta = timedelta(0)) -> date | None:
        """Return the last trading day whose session has opened, or will within `lead`."""
        at = int(np.searchsorted(self.market.days, np.datetime64(now.date()), side="right"))
        if at and self.market.days[at - 1] == np.datetime64(now.date()):
            session = self.session(now.date())
            at -= session is None or now < session.opens - lead
        return _date(self.market.days[at - 1]) if at else None

    def events(self, code: str, until: date) -> list[Event]:
        """Return the corporate actions in force on a day."""
        return [event for event in self.market.events(code) if event.ex_day <= until]

    def bars(self, code: str) -> DailyBars:
        """Return an instrument's whole life as the market has it."""
        return self._lives.get(("bars", code), lambda: self.market.daily(code))

    def life(self, code: str) -> Rows:
        """Return every day that an instrument will ever have, as it is shown once over. Never shown as such."""
        return self._lives.get(code, lambda: self._life(code))

    def daily(self, symbol: Symbol, now: datetime, until: date) -> Rows:
        """Return the days of an instrument up to `until`, the running one as far as it is seen at `now`."""
        rows = self._shown(self.life(symbol.code), now, lambda today: self._running(symbol.code, today, now))
        return _on_exchange(_until(rows, until), symbol.suffix)

    def index(self, code: str, now: datetime, until: date) -> Rows:
        """Return the days of an index up to `until`; prices are points times 100. Raises KeyError."""
        life = self._lives.get(("index", code), lambda: self._index_life(code))
        return _until(self._shown(life, now, lambda today: self._running_index(life, today, now)), until)

    def minutes(self, symbol: Symbol, day: date, now: datetime) -> MinuteBars:
        """Return the one-minute bars of a day that are seen at `now`; the newest may be a part of itself."""
        if day > now.date():
            return empty_minutes()
        bars = self.whole_minutes(symbol, day)
        return self._seen(bars, now) if day == now.date() else bars

    def whole_minutes(self, symbol: Symbol, day: date) -> MinuteBars:
        """Return the one-minute bars that a day will have had. Never shown as such."""
        return self._minutes.get(
            (symbol, day), lambda: _minutes_on_exchange(self.market.minutes(symbol.code, day), symbol.suffix)
        )

    def base(self, code: str, day: date) -> int:
        """Return an instrument's 기준가 of a day: the previous official close, or that of a corporate action."""
        life = self.life(code)
        at = int(np.searchsorted(life.day, np.datetime64(day)))
        if at < len(life.day):
            return int(life.base[at])
        return int(life.official[-1]) if at else 0

    def _life(self, code: str) -> Rows:
        bars = self.bars(code)
        base = np.concatenate([bars.open[:1], bars.close[:-1]])
        for event in self.market.events(code):
            at = int(np.searchsorted(bars.day, np.datetime64(event.ex_day)))
            if at < len(bars.day) and bars.day[at] == np.datetime64(event.ex_day):
                base[at] = event.base_price
        return Rows(
            bars.day,
            bars.open,
            np.maximum(bars.high, bars.after_high),
            np.minimum(bars.low, bars.after_low),
            bars.after_close,
            bars.volume + bars.after_volume,
            bars.value + bars.after_value,
            base,
            bars.close,
        )

    def _index_life(self, code: str) -> Rows:
        bars = self.market.index(code)
        base = np.concatenate([bars.open[:1], bars.close[:-1]])
        return Rows(bars.day, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.value, base, bars.close)

    def _shown(self, life: Rows, now: datetime, running: Callable[[int], Rows | None]) -> Rows:
        """Cut a life at `now`; `running` gives the row of today, at its place in the life, as far as it has come."""
        today = np.datetime64(now.date())
        at = int(np.searchsorted(life.day, today))
        past = life.cut(0, at)
        if at == len(life.day) or life.day[at] != today or (row := running(at)) is None:
            return past
        columns = iter(row)
        return past.each(lambda column: np.concatenate([column, next(columns)]))

    def _running(self, code: str, at: int, now: datetime) -> Rows | None:
        session, whole = self.session(now.date()), self.life(code).cut(at, at + 1)
        if session is None or now < session.opens:
            return None
        bars = self.bars(code)
        if bars.halted[at] or now >= (session.after_closes or session.closes) + _MINUTE:
            return whole
        closed = now >= session.closes + _MINUTE
        if closed and session.after_opens and now <= session.after_opens:
            regular = {name: getattr(bars, name)[at : at + 1] for name in ("high", "low", "close", "volume", "value")}
            return whole._replace(**regular)
        seen = self.minutes(Symbol(code), now.date(), now)
        if not len(seen.start):
            return whole if closed else None
        official = whole.official if now > session.closes else seen.close[-1:]
        return whole._replace(
            open=seen.open[:1],
            high=seen.high.max(keepdims=True),
            low=seen.low.min(keepdims=True),
            close=seen.close[-1:],
            volume=seen.volume.sum(keepdims=True),
            value=seen.value.sum(keepdims=True),
            official=official,
        )

    def _running_index(self, life: Rows, at: int, now: datetime) -> Rows | None:
        session, whole = self.session(now.date()), life.cut(at, at + 1)
        if session is None or now <= session.opens:
            return None
        if now > session.closes:
            return whole
        open_, high, low, close = (int(column[0]) for column in (whole.open, whole.high, whole.low, whole.close))
        road = _road(open_, high, low, close)
        gone = (now - session.opens) / (session.closes - session.opens) * (len(road) - 1)
        leg = min(int(gone), len(road) - 2)
        level = round(road[leg] + (road[leg + 1] - road[leg]) * (gone - leg))
        been = [*road[: leg + 1], level]
        part = gone / (len(road) - 1)
        return whole._replace(
            high=np.array([max(been)]),
            low=np.array([min(been)]),
            close=np.array([level]),
            official=np.array([level]),
            volume=(whole.volume * part).astype(np.int64),
            value=(whole.value * part).astype(np.int64),
        )

    def _seen(self, bars: MinuteBars, now: datetime) -> MinuteBars:
        """Cut a running day's bars: those that have begun, the newest as far as its steps have come."""
        moment = np.datetime64(now.replace(tzinfo=None), "us")
        count = int(np.searchsorted(bars.start, moment))  # a bar is seen after its start, not at it
        columns = [getattr(bars, name)[:count] for name in MinuteBars.__slots__]
        if not count or moment - bars.start[count - 1] > np.timedelta64(60 * 1_000_000, "us"):
            return MinuteBars(*columns)
        gone: Any = (moment - bars.start[count - 1]).astype("timedelta64[us]").astype(np.int64)
        step = -(-int(gone) // (60 * 1_000_000 // STEPS))
        steps = self.steps(bars, count - 1, now.date())
        if step >= len(steps):
            return MinuteBars(*columns)
        prices = [price for price, _, _ in steps[:step]]
        newest = (prices[0], max(prices), min(prices), prices[-1], *steps[step - 1][1:])
        for place, number in enumerate(newest, start=1):
            columns[place] = np.append(columns[place][:-1], number)
        return MinuteBars(*columns)

    def steps(self, bars: MinuteBars, at: int, day: date) -> list[tuple[int, int, int]]:
        """Return how a minute comes about: (price, its volume so far, its value so far) at each of its steps."""
        open_, high, low, close, volume, value = (int(getattr(bars, name)[at]) for name in MinuteBars.__slots__[1:])
        session = self.session(day)
        auction = session is not None and np.datetime64(session.closes.replace(tzinfo=None), "m") == bars.start[at]
        road = list(_road(open_, high, low, close))
        if auction or volume < STEPS:  # one print; and few shares cannot be traded at more prices than there are
            road = [price for price, before in zip(road, [None, *road], strict=False) if price != before]
        shares = [-(-volume * k // len(road)) for k in range(1, len(road) + 1)]
        return [(price, n, value * n // volume if volume else 0) for price, n in zip(road, shares, strict=True)]


def _road(open_: int, high: int, low: int, close: int) -> tuple[int, int, int, int]:
    """Return the way of a price: against its later direction first, as most bars go."""
    return (open_, low, high, close) if close >= open_ else (open_, high, low, close)


def _until(rows: Rows, day: date) -> Rows:
    return rows.cut(0, int(np.searchsorted(rows.day, np.datetime64(day), side="right")))


def _on_exchange(rows: Rows, suffix: str) -> Rows:
    if not suffix:
        return rows
    first = int(np.searchsorted(rows.day, NXT_SINCE))
    if suffix == "NX":
        rows = rows.cut(first, len(rows.day))
        return rows._replace(close=_nxt_close(rows), volume=rows.volume * 45 // 100, value=rows.value * 45 // 100)
    on = rows.day >= NXT_SINCE
    return rows._replace(
        close=np.where(on, _nxt_close(rows), rows.close),
        volume=rows.volume + np.where(on, rows.volume * 45 // 100, 0),
        value=rows.value + np.where(on, rows.value * 45 // 100, 0),
    )


def _nxt_close(rows: Rows) -> Ints:
    """Return NXT's last price: another one that was traded on the day, where there is one."""
    return np.where(rows.close != rows.open, rows.open, np.where(rows.high != rows.close, rows.high, rows.low))


def _minutes_on_exchange(bars: MinuteBars, suffix: str) -> MinuteBars:
    if not suffix:
        return bars
    share = 45 if suffix == "NX" else 145
    prices = (bars.open, bars.high, bars.low, bars.close)
    return MinuteBars(bars.start, *prices, bars.volume * share // 100, bars.value * share // 100)


def _date(day: np.datetime64) -> date:
    found: date = day.astype("datetime64[D]").astype(object)
    return found

"""A market that never was: companies, prices and events, made from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache

import numpy as np

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator import sessions
from chartinsight_lib.simulator.flows import invented_flows
from chartinsight_lib.simulator.intraday import day_of, index_minutes, minute_bars
from chartinsight_lib.simulator.model import (
    AFTER_MARKET_SINCE,
    DailyBars,
    Days,
    Event,
    Flows,
    Listing,
    MinuteBars,
    Sector,
    Session,
    empty_minutes,
)
from chartinsight_lib.simulator.names import SECTORS
from chartinsight_lib.simulator.prices import WON_GRID, frozen, generator, grid_of
from chartinsight_lib.simulator.series import Life, factors, index_bars, live
from chartinsight_lib.simulator.universe import Plan, calendar, universe

FEWEST, MOST = 12, 5_000
_AFTER = {"after_close": "close", "after_high": "high", "after_low": "low"}


class GeneratedMarket:
    """A `model.Market` from a seed: the same in every process and in whatever order it is asked.

    A code's prices are made when they are asked for, and the latest are kept; the horizon only cuts what is shown, so markets
    of one seed and size agree on the days they share. Instruments that do not live within the horizon are left out. Arrays
    are read-only. Safe to use from several threads.
    """

    def __init__(
        self,
        seed: int,
        *,
        instruments: int = 300,
        first_day: date = date(2016, 1, 4),
        last_day: date = date(2027, 12, 31),
        after_market_since: date | None = AFTER_MARKET_SINCE,
        keep_days: int = 400,
        keep_minutes: int = 1_500,
    ) -> None:
        """Plan the market; prices come later.

        Args:
            instruments: how many live within 2016 to 2027, delisted and young ones included.
            after_market_since: the first day with an after-market; None: there is none.
            keep_days, keep_minutes: of how many instruments the days, and how many days' minutes, are kept in memory;
                some 300 kB and 30 kB each.

        Raises:
            ConfigError: the horizon is not within 2010 to 2028, or the seed or number is out of range.
        """
        if seed < 0 or not FEWEST <= instruments <= MOST:
            raise ConfigError(
                f"simulator: seed {seed} with {instruments} instruments. Expected a seed of 0 or more, and {FEWEST} to "
                f"{MOST} instruments."
            )
        self._seed, self._after_market_since = seed, after_market_since
        self._days = frozen(sessions.trading_days(first_day, last_day))
        if not len(self._days):
            raise ConfigError(f"simulator: there is no trading day from {first_day} to {last_day}. Ask for more days.")
        self._first, self._end = (
            int(np.searchsorted(calendar(), day) + more) for day, more in ((self._days[0], 0), (self._days[-1], 1))
        )
        plans = [plan for plan in universe(seed, instruments) if plan.first < self._end and plan.last > self._first]
        self._plans: dict[str, Plan] = {plan.listing.code: plan for plan in plans}
        self._factors = factors(seed)
        self._life = lru_cache(keep_days)(self._make_life)
        self._minutes = lru_cache(keep_minutes)(self._make_minutes)
        self._index = lru_cache(len(SECTORS))(self._make_index)

    @property
    def label(self) -> str:
        """Return the seed in words."""
        return f"seed {self._seed}"

    @property
    def days(self) -> Days:
        """Return the trading days of the horizon."""
        return self._days

    @property
    def listings(self) -> Sequence[Listing]:
        """Return everything that is listed at some time of the horizon, ascending in code."""
        return [plan.listing for plan in self._plans.values()]

    @property
    def sectors(self) -> Sequence[Sector]:
        """Return the indices and sectors, ascending in code."""
        return SECTORS

    def session(self, day: date) -> Session | None:
        """Return the hours of a day; None: no trading on it, or beyond the horizon."""
        return sessions.session(day, after_market_since=self._after_market_since) if self._trades(day) else None

    def daily(self, code: str) -> DailyBars:
        """Return an instrument's days within the horizon. Raises KeyError for a code that never exists."""
        return self._life(code).bars

    def minutes(self, code: str, day: date) -> MinuteBars:
        """Return the minutes of a day, of an instrument or of an index; none when nothing traded. Raises KeyError."""
        if code not in self._plans:
            self.index(code)
        return self._minutes(code, day)

    def events(self, code: str) -> tuple[Event, ...]:
        """Return the corporate actions within the horizon. Raises KeyError."""
        return self._life(code).events

    def index(self, code: str) -> DailyBars:
        """Return the days of an index or sector: points times 100, thousand shares. Raises KeyError.

        It is the factor that moves the instruments, not an average of them; nothing of it changes after hours.
        """
        if code not in self._factors.returns:
            raise KeyError(code)
        return self._index(code)

    def flows(self, code: str) -> Flows:
        """Return the investors' net buys. Raises KeyError."""
        plan = self._plans[code]
        # Of the whole life, so that a day's flows do not depend on the horizon.
        whole = invented_flows(live(plan, self._factors, self._seed).bars, generator(self._seed, code, "flows"))
        rows = self._rows(plan.first)
        return Flows(whole.day[rows], {name: column[rows] for name, column in whole.columns.items()})

    def _trades(self, day: date) -> bool:
        at = int(np.searchsorted(self._days, np.datetime64(day, "D")))
        return at < len(self._days) and bool(self._days[at] == np.datetime64(day, "D"))

    def _make_life(self, code: str) -> Life:
        plan = self._plans[code]
        life = live(plan, self._factors, self._seed)
        bars = self._without_after_market(self._cut(life.bars, plan.first))
        # A bar before the action is needed for anything to be adjusted by it.
        events = [event for event in life.events if bars.day[0] < np.datetime64(event.ex_day) <= bars.day[-1]]
        return Life(bars, tuple(events))

    def _make_minutes(self, code: str, day: date) -> MinuteBars:
        bars = self.daily(code) if code in self._plans else self.index(code)
        row = int(np.searchsorted(bars.day, np.datetime64(day, "D")))
        session = self.session(day)
        if session is None or row == len(bars.day) or bars.day[row] != np.datetime64(day, "D"):
            return empty_minutes()
        rng = generator(self._seed, code, "minutes", day.toordinal())
        if code not in self._plans:
            return index_minutes(day_of(bars, row), session, rng, WON_GRID)
        return minute_bars(day_of(bars, row), session, rng, grid_of(self._plans[code].listing.kind))

    def _make_index(self, code: str) -> DailyBars:
        return self._cut(index_bars(code, self._factors, self._seed), 0)

    def _rows(self, first: int) -> slice:
        return slice(max(self._first - first, 0), max(self._end - first, 0))

    def _cut(self, bars: DailyBars, first: int) -> DailyBars:
        """Return the bars within the horizon; their first is that of the calendar's day number `first`."""
        rows = self._rows(first)
        names = DailyBars.__dataclass_fields__
        # Copies: a slice would keep the whole life in memory.
        return DailyBars(**{name: frozen(getattr(bars, name)[rows].copy()) for name in names})

    def _without_after_market(self, bars: DailyBars) -> DailyBars:
        """Return the bars with an after-market only on days that have one."""
        since = self._after_market_since
        none = bars.day < np.datetime64(since) if since is not None else np.ones(len(bars.day), bool)
        prices = {
            late: frozen(np.where(none, getattr(bars, name), getattr(bars, late))) for late, name in _AFTER.items()
        }
        sums = {name: frozen(np.where(none, 0, getattr(bars, name))) for name in ("after_volume", "after_value")}
        return replace(bars, **prices, **sums)

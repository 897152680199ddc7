"""The radar: `scan` joins a day's analyses over a whole market and stores them; `Radar` is what a dashboard reads.

Only final bars are analysed: what a scan says of a day does not change when later bars arrive. A bar that is still forming is
shown, hollow, and takes no part.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from chartinsight_lib import ledger
from chartinsight_lib.analysis import indicators
from chartinsight_lib.analysis.pivots import Pivots, swings
from chartinsight_lib.analysis.trend import TREND_NAMES, dow_trend, trend_start
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clock import Clock
from chartinsight_lib.db import bars, query, store
from chartinsight_lib.db.bars import Panel
from chartinsight_lib.db.engine import open_engine
from chartinsight_lib.db.query import Instrument
from chartinsight_lib.db.roles import Role
from chartinsight_lib.db.rows import Changes
from chartinsight_lib.domain import MARKETS, Flag
from chartinsight_lib.errors import BeyondHorizon, ConfigError, NotEnoughHistory
from chartinsight_lib.settings import Settings

SWING_ATR = 3.0
"""A swing is a turn of this many average true ranges; `LONG_SWING_ATR` gives the wide swings of the long trend."""
LONG_SWING_ATR = 6.0
FRESH_DAYS = 1
"""A scan refuses data that are older than this many trading days, unless the day is named."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found: `snapshot` is what was stored, `seconds` says where the time went."""

    market: str
    as_of: date
    snapshot: pd.DataFrame
    changes: Changes
    seconds: dict[str, float]

    def table(self, top: int = 20) -> pd.DataFrame:
        """The instruments nearest to their 52-week high, for the last cell of a notebook."""
        columns = ["code", "name", "day", "close", "change_pct", "trend", "high_52w_pct", "rsi_14"]
        found = self.snapshot.assign(trend=self.snapshot["trend"].map(TREND_NAMES))
        return found.sort_values("high_52w_pct", ascending=False, na_position="last")[columns].head(top)


def scan(
    engine: Engine, *, market: str, as_of: date | None, clock: Clock, run_id: UUID, cache: Path | None = None
) -> Scan:
    """Analyse every instrument of a market as known at the end of `as_of`, and store the snapshot.

    Args:
        as_of: a trading date; None: the newest final day, which must then be fresh.
        cache: a directory for copies of whole markets; see `bars.panel`.
    Raises:
        NotEnoughHistory: nothing is held for that day, it is still to come, or, without `as_of`, what is held is stale.
        BeyondHorizon: without `as_of`, when the calendar does not reach to now.
    """
    started = time.perf_counter()
    with engine.begin() as conn:
        newest = query.last_final_day(conn, market)
        if newest is None:
            raise NotEnoughHistory(
                f"scan {market}: no final daily bar is held. Collect first: `chartinsight run collect_daily`."
            )
        if as_of is None and (age := calendar(market).days_begun(newest, clock())) > FRESH_DAYS:
            raise NotEnoughHistory(
                f"scan {market}: the newest final bar is of {newest}, {age:,} trading days old. "
                f"Collect first, or name the day: as_of={newest}."
            )
        if as_of is not None and as_of > newest:
            # The bars to come would change what is said of that day, and its scan would hide newer ones.
            raise NotEnoughHistory(
                f"scan {market}: as_of={as_of} is later than the newest final bar, of {newest}. "
                "Collect first, or name a day that is held."
            )
        day = as_of or newest
        panel = bars.panel(conn, market, as_of=day, cache=cache)
        listed = query.instruments(conn, market)[["code", "name"]].join(query.bar_sources(conn, market, "1d", day))
        read = time.perf_counter()
        snapshot = _snapshot(panel, listed, day)
        if snapshot.empty:
            raise NotEnoughHistory(
                f"scan {market}: no final bar is held up to {day}. Choose a later day, or collect further back."
            )
        computed = time.perf_counter()
        stored = snapshot.drop(columns=["code", "name"]).assign(scanned_at=clock(), run_id=str(run_id))
        changes = store.save_snapshot(conn, stored)
    done = time.perf_counter()
    seconds = {"read": read - started, "compute": computed - read, "write": done - computed, "total": done - started}
    return Scan(market, day, snapshot, changes, seconds)


def scan_market(
    engine: Engine, *, market: str, as_of: str, clock: Clock, run_id: UUID, cache: Path | None = None
) -> Scan:
    """As `scan`, from what a person writes: market "" is the one collected last, as_of "" the newest final day.

    Raises:
        ConfigError: the date cannot be read, or there is no such market; and what `scan` raises.
    """
    with engine.begin() as conn:
        held = query.markets(conn)
        chosen = market or next(iter(held), "")
        if chosen not in held:
            raise ConfigError(
                f"scan: nothing is held of market {market!r}. Held are {', '.join(held) or 'none; collect first'}."
            )
        try:
            day = date.fromisoformat(as_of) if as_of else None
        except ValueError as error:
            raise ConfigError(f"scan: as_of {as_of!r} is no date. Write it as in 2024-08-05.") from error
    result = scan(engine, market=chosen, as_of=day, clock=clock, run_id=run_id, cache=cache)
    rows = {"read": len(result.snapshot), **asdict(result.changes)}
    with engine.begin() as conn:
        ledger.record_item(conn, run_id, f"{chosen} {result.as_of}", rows=rows, clock=clock, market=chosen)
    return result


@dataclass(frozen=True, slots=True)
class Status:
    """What a page says of its data. `stale` is a sentence when they are not fresh, else None."""

    as_of: date | None = None
    source: str = ""
    market: str = ""
    zone: str = "UTC"
    instruments: int = 0
    scanned: int = 0
    scanned_at: datetime | None = None
    collected_at: datetime | None = None
    last_bar: date | None = None
    provisional: int = 0
    stale: str | None = None
    simulated: bool = False
    complete: float | None = None
    missing: int = 0
    late: int = 0
    run_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ChartData:
    """One instrument's bars in one timeframe, and what the analysis says of each; see `charts.Chartable`."""

    instrument: Instrument
    timeframe: str
    candles: pd.DataFrame
    pivots: Pivots
    trend: NDArray[np.int8]
    as_of: date
    source: str
    basis: str


class Radar:
    """What a dashboard reads: the newest scan of one market, its status, and any chart. Holds a read-only engine."""

    def __init__(self, engine: Engine, clock: Clock, market: str | None = None) -> None:
        self._engine, self._clock, self._market = engine, clock, market

    def status(self) -> Status:
        """Return what is held and how fresh it is, as of now."""
        with self._engine.connect() as conn:
            market = self._shown(conn)
            if not market:
                return Status(stale="Nothing has been collected yet. Run `./studio up`.")
            held = query.health(conn, market)
            last_final = query.last_final_day(conn, market)
        if last_final is None:
            return Status(
                market=market, stale="Instruments are known, but no final bar is held yet. Run `./studio up`."
            )
        stale = self._stale(market, held, last_final)
        return Status(**held, market=market, zone=str(MARKETS[market].zone), stale=stale)

    def _shown(self, conn: Connection) -> str:
        """The market asked for, else the one collected last; "" where nothing was collected."""
        return self._market or next(iter(query.markets(conn)), "")

    def _stale(self, market: str, held: Mapping[str, Any], last_final: date) -> str | None:
        """Say what is old: the scan, while newer final bars are held, or everything; None when nothing is."""
        if held["as_of"] is None:
            return "No scan has been made yet. Run `./studio up`, or `chartinsight scan`."
        if held["as_of"] < last_final:
            return (
                f"The scan is of {held['as_of']}, and newer final bars are held, up to {last_final}. "
                "Run `./studio up`, or `chartinsight scan`."
            )
        try:
            age = calendar(market).days_begun(held["as_of"], self._clock())
        except BeyondHorizon as error:
            return f"How old the data are is not known. {error}"
        if age <= FRESH_DAYS:
            return None
        return f"Historical data: the newest final bar is of {held['as_of']}, {age:,} trading days old."

    def table(self) -> pd.DataFrame:
        """Return the newest scan, one row per instrument; index instrument_id, sorted by code."""
        with self._engine.connect() as conn:
            table = query.radar_table(conn, self._shown(conn))
        for name in ("trend", "trend_long"):
            table[name] = table[name].map(TREND_NAMES)
        return table

    def find(self, code: str, market: str | None = None) -> int:
        """Return the id of an instrument by its code, which `chart` takes. Raises NotFound."""
        with self._engine.connect() as conn:
            return query.find_instrument(conn, code, market or self._market).id

    def chart(self, instrument_id: int, timeframe: str) -> ChartData:
        """Return everything held of one instrument in one timeframe. Raises NotFound, NotEnoughHistory."""
        with self._engine.connect() as conn:
            found = query.instrument(conn, instrument_id)
            daily = bars.candles(conn, instrument_id)
            candles = daily if timeframe == "1d" else bars.candles(conn, instrument_id, timeframe)
            source, events = query.provenance(conn, instrument_id)
        if daily.empty:
            raise NotEnoughHistory(f"{found.code}: no bar is held. Collect it first.")
        pivots, trend = analyse(candles)
        basis = (
            f"raw prices, {events} corporate action{'s' if events > 1 else ''} undone"
            if events
            else "prices as the source gave them"
        )
        return ChartData(found, timeframe, candles, pivots, trend, daily.index[-1].date(), source, basis)


def open_radar(settings: Settings | None = None) -> Radar:
    """Return a radar on the database of the settings, read-only."""
    settings = settings or Settings.from_env()
    return Radar(open_engine(settings, Role.READER), settings.clock, settings.market)


def analyse(candles: pd.DataFrame) -> tuple[Pivots, NDArray[np.int8]]:
    """Find pivots and trend of one instrument's bars, from the final ones only.

    Returns: pivots with positions in `candles`, and the trend at each bar; an unfinished bar repeats the state before it.
    """
    final = np.flatnonzero((candles["flags"].to_numpy() & int(Flag.PROVISIONAL)) == 0)
    high, low, close = (candles[name].to_numpy("float64")[final] for name in ("high", "low", "close"))
    found = swings(high, low, close, multiple=SWING_ATR)
    states = dow_trend(close, found)
    before = np.searchsorted(final, np.arange(len(candles)), side="right") - 1
    trend = np.where(before >= 0, states[np.maximum(before, 0)] if len(states) else 0, 0).astype(np.int8)
    return Pivots(final[found.at], final[found.known_at], found.price, found.kind), trend


def _snapshot(panel: Panel, instruments: pd.DataFrame, as_of: date) -> pd.DataFrame:
    rows = [_row(panel, k) for k in range(len(panel.ids))]
    snapshot = pd.DataFrame(rows)
    if snapshot.empty:
        return snapshot
    return snapshot.join(instruments, on="instrument_id").assign(as_of=as_of, timeframe="1d")


def _row(panel: Panel, k: int) -> dict[str, Any]:
    """The radar's numbers of one instrument, at its last bar."""
    rows = panel.rows(k)
    high, low, close, volume, value = (
        panel.columns[name][rows] for name in ("high", "low", "close", "volume", "value")
    )
    states = dow_trend(close, swings(high, low, close, multiple=SWING_ATR))
    long_states = dow_trend(close, swings(high, low, close, multiple=LONG_SWING_ATR))
    high_52w = float(indicators.rolling_high(high)[-1])
    return {
        "instrument_id": int(panel.ids[k]),
        "day": panel.ts[rows.stop - 1].date(),
        "close": float(close[-1]),
        "change_pct": float(close[-1] / close[-2] - 1) * 100 if len(close) > 1 else None,
        "volume": int(volume[-1]),
        "value": float(value[-1]),
        "trend": int(states[-1]),
        "trend_bars": len(states) - trend_start(states),
        "trend_long": int(long_states[-1]),
        "high_52w": high_52w,
        "high_52w_pct": (float(close[-1]) / high_52w - 1) * 100,
        "bars_52w": int(indicators.bars_covered(len(close))[-1]),
        "sma_20": float(indicators.sma(close, 20)[-1]),
        "rsi_14": float(indicators.rsi(close, 14)[-1]),
        "atr_14": float(indicators.atr(high, low, close, 14)[-1]),
        "bars": len(close),
    }

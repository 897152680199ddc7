"""Candles and factors -> frames and arrays: one instrument's bars, or a whole market's, as known on a day."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psycopg2 import extensions
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_out, from_wire_time
from chartinsight_lib.db.query import instrument
from chartinsight_lib.domain import COLLECTED, DERIVED, MARKETS, NUMBERS, PRICES, Flag
from chartinsight_lib.timeframes import aggregate

BAR = {
    "ts": "timestamptz", "open": "float8", "high": "float8", "low": "float8", "close": "float8", "volume": "int8",
    "value": "float8", "flags": "int2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Panel:
    """The bars of many instruments in one set of columns, sorted by instrument and time.

    Instrument `ids[k]` owns the rows `bounds[k] : bounds[k + 1]` of every column.
    """

    ids: NDArray[np.int64]
    bounds: NDArray[np.int64]
    ts: pd.DatetimeIndex
    columns: dict[str, NDArray[np.float64]]

    def rows(self, k: int) -> slice:
        """The rows of instrument number `k`."""
        return slice(int(self.bounds[k]), int(self.bounds[k + 1]))


def candles(conn: Connection, instrument_id: int, timeframe: str = "1d", *, as_of: date | None = None) -> pd.DataFrame:
    """Return one instrument's bars, events undone (all but dividends), in any timeframe that is stored or can be derived.

    Args:
        as_of: the last trading date to know of, bars and events; None: everything held.
    Returns:
        index `ts` (UTC, ascending, unique); open, high, low, close in the currency; volume in shares; value in the
        currency, NaN where the source gives none; flags (domain.Flag). Empty when nothing is held.
    Raises:
        NotFound: the timeframe is unknown.
    """
    base = DERIVED.get(timeframe, timeframe)
    # A daily bar is stamped with its date; a shorter one belongs to the date of its market's zone.
    zone = ZoneInfo("UTC") if base == "1d" else MARKETS[instrument(conn, instrument_id).market].zone
    held = copy_out(
        _cursor(conn),
        """
        SELECT ts, open, high, low, close, volume, COALESCE(value, 'NaN') AS value, flags
        FROM   live.candles
        WHERE  instrument_id = %(id)s AND timeframe = %(timeframe)s AND ts < %(until)s
        ORDER  BY ts
        """,
        {"id": instrument_id, "timeframe": base, "until": _until(as_of, zone)},
        BAR,
    )
    ts = from_wire_time(held.pop("ts"))
    _undo_events(held, ts, _factors(conn, [instrument_id], as_of).get(instrument_id, []), slice(None), zone)
    frame = pd.DataFrame(held, index=ts.rename("ts"))[[*NUMBERS, "flags"]]
    return frame if timeframe in COLLECTED else aggregate(frame, timeframe)


def panel(
    conn: Connection, market: str, *, timeframe: str = "1d", as_of: date | None = None, final_only: bool = True
) -> Panel:
    """Return the bars of all instruments of a market, events undone, known at the end of `as_of`; as `candles`."""
    held = copy_out(
        _cursor(conn),
        """
        SELECT c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, COALESCE(c.value, 'NaN') AS value, c.flags
        FROM   live.candles AS c
        JOIN   live.instruments AS i ON i.id = c.instrument_id
        WHERE  i.market = %(market)s AND c.timeframe = %(timeframe)s AND c.ts < %(until)s AND (c.flags & %(unwanted)s) = 0
        ORDER  BY c.instrument_id, c.ts
        """,
        {
            "market": market,
            "timeframe": timeframe,
            "until": _until(as_of),
            "unwanted": int(Flag.PROVISIONAL) if final_only else 0,
        },
        {"instrument_id": "int4", **BAR},
    )
    ids, first = np.unique(held.pop("instrument_id"), return_index=True)
    ts = from_wire_time(held.pop("ts"))
    result = Panel(ids.astype("int64"), np.append(first, len(ts)).astype("int64"), ts, held)
    factors = _factors(conn, [int(number) for number in ids], as_of)
    for k, number in enumerate(result.ids):
        if events := factors.get(int(number)):
            rows = result.rows(k)
            _undo_events(result.columns, ts[rows], events, rows)
    return result


def _factors(conn: Connection, ids: list[int], as_of: date | None) -> dict[int, list[tuple[date, float, float]]]:
    rows = conn.execute(
        text("""
            SELECT instrument_id, ex_date, price_factor, volume_factor
            FROM   api.factors
            WHERE  instrument_id = ANY(:ids) AND kind <> 'dividend' AND ex_date <= :day
            ORDER  BY instrument_id, ex_date
        """),
        {"ids": ids, "day": as_of or date.max},
    )
    found: dict[int, list[tuple[date, float, float]]] = {}
    for number, ex_date, price, volume in rows:
        found.setdefault(number, []).append((ex_date, price, volume))
    return found


def _undo_events(
    columns: dict[str, NDArray[np.float64]],
    ts: pd.DatetimeIndex,
    events: list[tuple[date, float, float]],
    rows: slice,
    zone: tzinfo = UTC,
) -> None:
    """Multiply, in place, the bars before each ex-date by its factors, as api.candles does; `ts` are the times of `rows`."""
    if not events:
        return
    price, volume = np.ones(len(ts)), np.ones(len(ts))
    for ex_date, price_factor, volume_factor in events:
        before = int(ts.searchsorted(pd.Timestamp(ex_date, tz=zone)))
        price[:before] *= price_factor
        volume[:before] *= volume_factor
    for name in PRICES:
        columns[name][rows] *= price
    # 1e-9: the product of factors is a float, and what should end in a half must not fall below it.
    columns["volume"][rows] = np.floor(columns["volume"][rows] * volume + 0.5 + 1e-9)


def _until(as_of: date | None, zone: tzinfo = UTC) -> datetime:
    """The first moment after `as_of`: in the stamps of daily bars, or of shorter ones in their market's zone."""
    if as_of is None or as_of.year == date.max.year:
        return datetime(9999, 12, 31, tzinfo=UTC)
    return datetime(as_of.year, as_of.month, as_of.day, tzinfo=zone) + timedelta(days=1)


def _cursor(conn: Connection) -> extensions.cursor:
    return conn.connection.cursor()

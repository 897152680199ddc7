"""Stored bars and the corporate actions that move their prices -> arrays, as they are stored: nothing is undone here.

Bars, actions and the watermark come by one statement: one journey, and one snapshot, so that no bar is read from before a
change and its factor from after it. Actions travel as rows with a negative flag.
"""

from collections.abc import Mapping
from datetime import date, datetime, tzinfo
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection

from chartinsight_lib.db.copy import EPOCH, copy_out
from chartinsight_lib.db.rows import driver_cursor
from chartinsight_lib.domain import NUMBERS, PRICES
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.timeframes import Series

Basis = Literal["raw", "price", "price+dividend"]
"""raw: as traded; price: splits, rights and bonus issues undone; price+dividend: dividends too, where a source tells of them."""

EVENT, DIVIDEND, UNKNOWN = 1, 2, 3
"""Kinds of an action: one that moves the base price; a dividend; one of which nobody can tell by how much."""
_VERSION = 9

_ROW = {
    "instrument_id": "int4", "ts": "timestamptz", "open": "float8", "high": "float8", "low": "float8", "close": "float8",
    "volume": "int8", "value": "float8", "flags": "int2",
}  # fmt: skip


class Events(NamedTuple):
    """Corporate actions: rows ascending in (instrument, ex_date, kind); bars before ex_date are multiplied by the factors."""

    instrument: NDArray[np.int64]
    ex_date: NDArray[np.datetime64]
    price: NDArray[np.float64]
    volume: NDArray[np.float64]
    kind: NDArray[np.int8]


class Held(NamedTuple):
    """What is stored of one timeframe: instrument `ids[k]` owns the rows of `bars` that its bounds say; ids ascending.

    `version` is the watermark of the market, None where it has none or was not asked for.
    """

    ids: NDArray[np.int64]
    bars: Series
    events: Events
    version: int | None = None


# A bar that was replaced after a moment was, at that moment, what the earliest such replacement put away.
_STORED = {
    False: """
        SELECT c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, COALESCE(c.value, 'NaN') AS value, c.flags
        FROM   live.candles AS c {join}
        WHERE  {which} AND c.timeframe = %(timeframe)s AND c.ts < %(until)s
        ORDER  BY c.instrument_id, c.ts
    """,
    True: """
        SELECT DISTINCT ON (c.instrument_id, c.ts)
               c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, COALESCE(c.value, 'NaN') AS value, c.flags
        FROM   (SELECT instrument_id, timeframe, ts, open, high, low, close, volume, value, flags, 'infinity' AS replaced_at
                FROM   live.candles
                UNION  ALL
                SELECT instrument_id, timeframe, ts, open, high, low, close, volume, value, flags, replaced_at
                FROM   live.revisions WHERE replaced_at > %(known_at)s) AS c {join}
        WHERE  {which} AND c.timeframe = %(timeframe)s AND c.ts < %(until)s
        ORDER  BY c.instrument_id, c.ts, c.replaced_at
    """,
}
_EVENTS = """
    UNION  ALL
    SELECT instrument_id, ex_date::timestamp AT TIME ZONE 'UTC', price_factor, volume_factor, 0, 0, 0, 0,
           (CASE kind WHEN 'dividend' THEN -2 WHEN 'unknown' THEN -3 ELSE -1 END)::int2
    FROM   api.factors WHERE {which}
"""
_WATERMARK = """
    UNION  ALL
    SELECT 0, 'epoch', 0, 0, 0, 0, version, 0, -9::int2
    FROM   live.watermarks WHERE market = %(market)s AND timeframe = %(timeframe)s
"""
# Only text of this module is put together; every value is bound.
_ONE, _MANY = (
    {
        revised: "(" + stored.format(join=join, which=which) + ")" + _EVENTS.format(which=events) + more
        for revised, stored in _STORED.items()
    }
    for join, which, events, more in (
        ("", "c.instrument_id = %(id)s", "instrument_id = %(id)s", ""),
        (
            "JOIN live.instruments AS i ON i.id = c.instrument_id",
            "i.market = %(market)s",
            "market = %(market)s",
            _WATERMARK,
        ),
    )
)


def read_one(
    conn: Connection, instrument_id: int, timeframe: str, *, until: datetime, known_at: datetime | None = None
) -> Held:
    """Return one instrument's bars that begin before `until`, and all its actions; `known_at`: as they stood then."""
    return _read(conn, _ONE, {"id": instrument_id, "timeframe": timeframe, "until": until, "known_at": known_at})


def read_market(
    conn: Connection, market: str, timeframe: str, *, until: datetime, known_at: datetime | None = None
) -> Held:
    """Return a market's bars that begin before `until`, its actions and its watermark; `known_at`: as they stood then."""
    return _read(conn, _MANY, {"market": market, "timeframe": timeframe, "until": until, "known_at": known_at})


def undo(held: Held, basis: Basis, *, day: date | None, zone: tzinfo | None) -> Held:
    """Multiply the bars before each ex-date up to `day` by its factors, as api.candles does; the given arrays are changed.

    Bars before an action of which nobody can tell by how much it moved the price are left out.

    Args:
        day: the last date to know of; None: all.
        zone: of the market, for intraday bars; None for daily ones, which are stamped with their date.
    Raises:
        ConfigError: no such basis.
    """
    if basis not in get_args(Basis):
        raise ConfigError(f"basis {basis!r}: there is none of this name. Choose one of {', '.join(get_args(Basis))}.")
    events = held.events
    if basis == "raw" or not len(events.instrument):
        return held
    wanted = np.isin(events.instrument, held.ids)
    if basis == "price":
        wanted &= events.kind != DIVIDEND
    if day is not None:
        wanted &= events.ex_date <= np.datetime64(day, "D")
    if not wanted.any():
        return held
    events = _those(events, wanted)
    moments = _midnights(events.ex_date, zone)
    first = np.flatnonzero(np.diff(events.instrument, prepend=-1))
    stops = np.append(first[1:], len(events.instrument))
    owners = np.searchsorted(held.ids, events.instrument[first])
    ts, bounds, columns = held.bars.ts, held.bars.bounds, held.bars.columns
    keep = np.ones(len(ts), bool)
    for k, start, stop in zip(owners.tolist(), first.tolist(), stops.tolist(), strict=True):
        rows = slice(int(bounds[k]), int(bounds[k + 1]))
        before = np.searchsorted(ts[rows], moments[start:stop])
        price, volume = np.ones(rows.stop - rows.start), np.ones(rows.stop - rows.start)
        for number, end in zip(range(start, stop), before.tolist(), strict=True):
            if events.kind[number] == UNKNOWN:
                keep[rows.start : rows.start + end] = False
            price[:end] *= events.price[number]
            volume[:end] *= events.volume[number]
        for name in PRICES:
            columns[name][rows] *= price
        # 1e-9: the product of factors is a float, and what should end in a half must not fall below it.
        columns["volume"][rows] = np.floor(columns["volume"][rows] * volume + 0.5 + 1e-9)
    return held if keep.all() else select(held, keep)


def select(held: Held, keep: NDArray[np.bool_]) -> Held:
    """Return the rows for which `keep` is true, in arrays of their own; instruments stay, also those without a row."""
    kept = np.concatenate([[0], np.cumsum(keep)])
    columns = {name: column[keep] for name, column in held.bars.columns.items()}
    return held._replace(bars=Series(held.bars.ts[keep], columns, kept[held.bars.bounds]))


def _those(events: Events, wanted: NDArray[Any]) -> Events:
    return Events(
        events.instrument[wanted],
        events.ex_date[wanted],
        events.price[wanted],
        events.volume[wanted],
        events.kind[wanted],
    )


def _midnights(days: NDArray[np.datetime64], zone: tzinfo | None) -> NDArray[np.datetime64]:
    if zone is None:
        return days.astype("datetime64[us]")
    return pd.DatetimeIndex(days).tz_localize(zone).tz_convert("UTC").tz_localize(None).to_numpy("datetime64[us]")


def _read(conn: Connection, statements: Mapping[bool, str], parameters: Mapping[str, Any]) -> Held:
    statement = statements[parameters["known_at"] is not None]
    rows = copy_out(driver_cursor(conn), statement, parameters, _ROW)
    rows["ts"] = EPOCH + rows["ts"].astype("timedelta64[us]")
    is_bar = rows["flags"] >= 0
    others = {name: column[~is_bar] for name, column in rows.items()}
    if len(others["ts"]):
        bars = int(is_bar.sum())
        at_the_end = bool(is_bar[:bars].all())  # as the parts of the statement stand; SQL does not promise it
        rows = {name: column[:bars] if at_the_end else column[is_bar] for name, column in rows.items()}
    ids, ts = rows.pop("instrument_id").astype(np.int64), rows.pop("ts")
    later = (ids[1:] > ids[:-1]) | ((ids[1:] == ids[:-1]) & (ts[1:] > ts[:-1]))
    if not later.all():
        order = np.lexsort((ts, ids))
        ids, ts, rows = ids[order], ts[order], {name: column[order] for name, column in rows.items()}
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    bounds = np.append(first, len(ids)).astype(np.int64)
    version = others["volume"][others["flags"] == -_VERSION]
    return Held(
        ids[first],
        Series(ts, {name: rows[name] for name in [*NUMBERS, "flags"]}, bounds),
        _events(others),
        int(version[0]) if len(version) else None,
    )


def _events(rows: Mapping[str, NDArray[Any]]) -> Events:
    found = Events(
        rows["instrument_id"].astype(np.int64),
        rows["ts"].astype("datetime64[D]"),
        rows["open"],
        rows["high"],
        (-rows["flags"]).astype(np.int8),
    )
    found = _those(found, found.kind != _VERSION)
    return _those(found, np.lexsort((found.kind, found.ex_date, found.instrument)))

"""Bars that came beside the bars that are held, row by row, as arrays; and from there into live.candles.

From staging to commit one load waits for another, so that what it compares with stays. What is held of the staged instruments,
in the staged span of time, is read once and compared here: new rows go in by COPY, and the database sees of the others only
those that changed. A repeated load writes nothing. A final bar is never replaced by a provisional one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_in, copy_out, from_wire_time, to_wire_time
from chartinsight_lib.db.factors import FOUND, OPEN
from chartinsight_lib.db.rows import Changes, driver_cursor, numbers_of
from chartinsight_lib.db.store import RAW_FILES
from chartinsight_lib.domain import NUMBERS, PRICES, Flag

_LOAD_LOCK = 0x10AD  # one load of bars at a time, whoever writes
PROVISIONAL = int(Flag.PROVISIONAL)
WIRE = {
    "instrument_id": "int4",
    "ts": "timestamptz",
    **dict.fromkeys(NUMBERS, "float8"),
    "volume": "int8",
    "flags": "int2",
}

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Stage:
    """Bars of one timeframe that came, ascending in (instrument, time), and those held of the same instruments and span.

    columns: instrument_id; ts, microseconds since 2000 UTC; the numbers of a candle, value NaN where there is none; flags.
    rows: which row of the frame each was. held: the same columns of what is held, and `own`, 1 where it is of the raw source.
    at: which row of `held` each bar meets; -1: none. came: the keys of all bars, also of those left out since.
    """

    timeframe: str
    raw_source: str | None
    columns: dict[str, NDArray[Any]]
    rows: NDArray[np.intp]
    held: dict[str, NDArray[Any]]
    at: NDArray[np.intp]
    came: NDArray[np.int64]

    @property
    def ids(self) -> NDArray[np.int32]:
        """The instruments, ascending and unique."""
        return np.unique(self.columns["instrument_id"])

    def keys(self) -> NDArray[np.int64]:
        """Return one number per bar, ascending."""
        return _keys(self.columns["instrument_id"], self.columns["ts"])

    def met(self, name: str) -> NDArray[Any]:
        """Return what is held in the place of each bar; meaningless where none is."""
        return self.held[name][np.maximum(self.at, 0)] if len(self.held["ts"]) else self.columns[name]

    def final(self) -> Mask:
        """Return which bars are final and meet one that is."""
        either: NDArray[np.int16] = self.met("flags") | self.columns["flags"]
        return np.asarray((self.at >= 0) & ((either & PROVISIONAL) == 0))

    def leave_out(self, rows: NDArray[np.intp]) -> None:
        """Take bars out, named by their rows of the frame: they will not be stored."""
        if len(rows):
            keep = ~np.isin(self.rows, rows)
            self.columns = {name: values[keep] for name, values in self.columns.items()}
            self.rows, self.at = self.rows[keep], self.at[keep]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A staged instrument that may be on another price basis than what is held of it: of `overlap` final bars in common
    `differing` have another close; none in common says nothing at all."""

    id: int
    code: str
    overlap: int
    differing: int


def stage_candles(
    conn: Connection, candles: pd.DataFrame, ids: pd.Series, timeframe: str, *, raw_source: str | None = None
) -> Stage:
    """Put a candle frame beside what is held; wait for other loads to end.

    From here on the transaction moves the market's watermark itself: it ends with `store.move_watermark` if it changed anything.

    Args:
        candles: domain.CANDLE columns of one market, unique in (code, ts).
        ids: {code: instrument id}.
        raw_source: the name of a source whose prices have one basis for ever; held bars of its own are what it corrects.
    Raises:
        SchemaError: a code has no instrument.
    """
    number, ts = numbers_of(candles["code"], ids), to_wire_time(candles["ts"])
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOAD_LOCK})
    conn.execute(text("SELECT set_config('chartinsight.moves_watermark', 'itself', true)"))
    columns: dict[str, NDArray[Any]] = {
        "instrument_id": number,
        "ts": ts,
        **{name: candles[name].to_numpy("float64") for name in [*PRICES, "value"]},
        "volume": candles["volume"].to_numpy("int64"),
        "flags": candles["flags"].to_numpy("int16"),
    }
    keys = _keys(number, ts)
    rows = np.arange(len(keys))
    if not np.all(keys[1:] > keys[:-1]):
        rows = np.argsort(keys, kind="stable")
        keys, columns = keys[rows], {name: values[rows] for name, values in columns.items()}
    held = _held(conn, columns["instrument_id"], columns["ts"], timeframe, raw_source)
    at = _match(keys, _keys(held["instrument_id"], held["ts"]))
    return Stage(timeframe, raw_source, columns, rows, held, at, came=keys)


def _held(
    conn: Connection, number: NDArray[np.int32], ts: NDArray[np.int64], timeframe: str, raw_source: str | None
) -> dict[str, NDArray[Any]]:
    """Return what is held of each instrument from its first to its last staged moment. OFFSET 0 keeps the planner to one range
    of the key per instrument: it would read the whole table for every large batch."""
    ids, first = np.unique(number, return_index=True)
    last = np.append(first[1:], len(ts))[: len(first)] - 1
    return copy_out(
        driver_cursor(conn),
        """
        SELECT c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, COALESCE(c.value, 'NaN') AS value, c.flags,
               COALESCE(c.source = %(raw_source)s OR c.source LIKE %(raw_files)s, false)::int::int2 AS own
        FROM   unnest(%(ids)s::int[], %(first)s::bigint[], %(last)s::bigint[]) AS n (id, first, last)
        CROSS  JOIN LATERAL (
            SELECT * FROM live.candles AS b
            WHERE  b.instrument_id = n.id AND b.timeframe = %(timeframe)s
            AND    b.ts BETWEEN timestamptz '2000-01-01 00:00:00+00' + n.first * interval '1 microsecond'
                        AND     timestamptz '2000-01-01 00:00:00+00' + n.last * interval '1 microsecond'
            ORDER  BY b.ts OFFSET 0
        ) AS c
        """,
        {
            "ids": ids.tolist(), "first": ts[first].tolist(), "last": ts[last].tolist(), "timeframe": timeframe,
            "raw_source": raw_source, "raw_files": RAW_FILES if raw_source else None,
        },
        {**WIRE, "own": "int2"},
    )  # fmt: skip


def suspects(conn: Connection, stage: Stage) -> list[Suspect]:
    """Return the instruments whose final closes differ from those held, that have no final bar in common with any, that have a
    seam whose factor nobody has told yet, or one between the bars in common and those that are new; by code.

    Of a raw source, which tells its events itself: those with any seam among its bars, which may stand for such an event.
    """
    numbers, place = np.unique(stage.columns["instrument_id"], return_inverse=True)
    final = stage.final()
    differs = final & (stage.met("close") != stage.columns["close"])
    if len(stage.held["ts"]):
        differs &= stage.met("own") == 0
    overlap = np.bincount(place[final], minlength=len(numbers))
    differing = np.bincount(place[differs], minlength=len(numbers))
    rows = conn.execute(
        text("""
            SELECT i.id, i.code FROM live.instruments AS i
            WHERE  i.id = ANY(:differing)
            OR    (i.id = ANY(:all) AND EXISTS (
                       SELECT FROM live.factors AS f WHERE f.instrument_id = i.id AND f.kind = ANY(:open)))
            OR     i.id IN (
                       SELECT s.id
                       FROM   unnest(CAST(:crossing AS int[]), CAST(:met_first AS date[]), CAST(:met_last AS date[]),
                                     CAST(:new_first AS date[]), CAST(:new_last AS date[]))
                              AS s (id, met_first, met_last, new_first, new_last)
                       JOIN   live.factors AS f ON f.instrument_id = s.id AND f.kind = ANY(:found)
                       WHERE  f.ex_date > s.new_first AND f.ex_date <= s.met_last
                       OR     f.ex_date > s.met_first AND f.ex_date <= s.new_last)
            OR    (i.id = ANY(:apart) AND (  -- bars are held, and none of the raw source's own, which these would go on from
                       SELECT bool_and(COALESCE(c.source <> :raw_source AND c.source NOT LIKE :raw_files, true))
                       FROM   live.candles AS c
                       WHERE c.instrument_id = i.id AND c.timeframe = :timeframe AND (c.flags & :provisional) = 0))
            ORDER  BY i.code
        """),
        {
            "differing": numbers[differing > 0].tolist(),
            "all": [] if stage.raw_source else numbers.tolist(),
            **_crossing(stage, numbers, place, final),
            "apart": numbers[overlap == 0].tolist(),
            "open": list(OPEN),
            "found": list(FOUND) if stage.raw_source else ["restatement"],
            "raw_source": stage.raw_source,
            "raw_files": RAW_FILES if stage.raw_source else None,
            "timeframe": stage.timeframe,
            "provisional": PROVISIONAL,
        },
    )
    places = [(row, int(np.searchsorted(numbers, row.id))) for row in rows]
    return [Suspect(row.id, row.code, int(overlap[at]), int(differing[at])) for row, at in places]


def _crossing(
    stage: Stage, numbers: NDArray[np.int32], place: NDArray[np.intp], final: NDArray[np.bool_]
) -> dict[str, list[Any]]:
    """Return the instruments that have final bars in common and others besides, and the first and last date of each; of a raw
    source all instruments, and twice the first and last date of all its bars."""
    found: dict[str, list[Any]] = {name: [] for name in ("crossing", "met_first", "met_last", "new_first", "new_last")}
    met, new = (final, ~final) if stage.raw_source is None else (np.ones(len(final), bool),) * 2
    common, others = (np.bincount(place[which], minlength=len(numbers)) for which in (met, new))
    both = np.flatnonzero((common > 0) & (others > 0))
    found["crossing"] = numbers[both].tolist()
    for name, which in (("met", met), ("new", new)) if len(both) else ():
        rows = np.flatnonzero(which)  # ascending in (instrument, ts)
        owner = place[rows]
        first, last = np.searchsorted(owner, both, "left"), np.searchsorted(owner, both, "right") - 1
        for end, at in (("first", first), ("last", last)):
            found[f"{name}_{end}"] = from_wire_time(stage.columns["ts"][rows[at]]).date.tolist()
    return found


def keep_official_closes(stage: Stage) -> None:
    """Give bars whose close is not known to be the official one the official close that is held of the same bar."""
    official = int(Flag.OFFICIAL_CLOSE)
    theirs, ours = stage.met("flags"), stage.columns["flags"]
    rows = np.flatnonzero((stage.at >= 0) & ((ours & official) == 0) & ((theirs & official) != 0))
    if not len(rows):
        return
    close = stage.met("close")[rows]
    changed = {name: stage.columns[name].copy() for name in ("close", "high", "low", "flags")}
    changed["close"][rows] = close
    changed["high"][rows] = np.maximum(changed["high"][rows], close)
    changed["low"][rows] = np.minimum(changed["low"][rows], close)
    changed["flags"][rows] = (changed["flags"][rows] & ~int(Flag.AFTER_MARKET)) | official
    stage.columns |= changed


def upsert_staged(conn: Connection, stage: Stage, *, source: str, run_id: UUID, now: datetime) -> Changes:
    """Store the bars: insert new ones, overwrite revised ones, leave equal ones alone. A traded value that is held stays where the
    same bar comes without one: who does not tell takes nothing away.

    What a final bar said before it was revised is kept in live.revisions, as having stood until `now` (tz-aware).
    """
    found = stage.at >= 0
    same = found & (stage.met("close") == stage.columns["close"]) & (stage.met("volume") == stage.columns["volume"])
    untold = same & np.isnan(stage.columns["value"])
    stage.columns["value"] = np.where(untold, stage.met("value"), stage.columns["value"])
    differs = np.zeros(len(found), dtype=bool)
    for name in (*NUMBERS, "flags"):
        ours, theirs = stage.columns[name], stage.met(name)
        differs |= (ours != theirs) & ~((ours != ours) & (theirs != theirs))  # noqa: PLR0124 - NaN is no change of NaN
    unfinished = ((stage.met("flags") & PROVISIONAL) == 0) & ((stage.columns["flags"] & PROVISIONAL) != 0)
    revised = found & differs & ~unfinished
    cursor = driver_cursor(conn)
    constants = {"timeframe": stage.timeframe, "source": source, "run_id": run_id}
    _copy(cursor, "live.candles", stage, ~found, constants)
    if revised.any():
        _revise(conn, stage, revised, constants, now)
    inserted, updated = int((~found).sum()), int(revised.sum())
    return Changes(inserted, updated, len(found) - inserted - updated)


def _revise(conn: Connection, stage: Stage, revised: Mask, constants: dict[str, Any], now: datetime) -> None:
    cursor = driver_cursor(conn)
    cursor.execute("DROP TABLE IF EXISTS revised")
    cursor.execute("""
        CREATE TEMPORARY TABLE revised (instrument_id int, ts timestamptz, open float8, high float8, low float8, close float8,
                                        volume int8, value float8, flags int2) ON COMMIT DROP
    """)
    _copy(cursor, "revised", stage, revised, {})
    cursor.execute("ANALYZE revised")
    told = {**constants, "now": now, "provisional": PROVISIONAL}
    conn.execute(
        text("""
            INSERT INTO live.revisions
            SELECT c.instrument_id, c.timeframe, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags, c.source,
                   c.run_id, :now, :run_id
            FROM   revised AS r JOIN live.candles AS c
                   ON c.instrument_id = r.instrument_id AND c.timeframe = :timeframe AND c.ts = r.ts
            WHERE  (c.flags & :provisional) = 0
            ON CONFLICT DO NOTHING
        """),
        told,
    )
    conn.execute(
        text("""
            UPDATE live.candles AS c
            SET    open = r.open, high = r.high, low = r.low, close = r.close, volume = r.volume, value = r.value,
                   flags = r.flags, source = :source, run_id = :run_id
            FROM   revised AS r
            WHERE  c.instrument_id = r.instrument_id AND c.timeframe = :timeframe AND c.ts = r.ts
        """),
        told,
    )


def close_gaps(conn: Connection, stage: Stage) -> None:
    """Forget the explained gaps for which a bar came; a missing or late bar that came final is kept as resolved."""
    gaps = copy_out(
        driver_cursor(conn),
        """
        SELECT instrument_id, ts, (kind IN ('halted', 'no-trade'))::int::int2 AS explained FROM ops.gaps
        WHERE  timeframe = %(timeframe)s AND instrument_id = ANY(%(ids)s) AND state <> 'resolved'
        ORDER  BY instrument_id, ts
        """,
        {"timeframe": stage.timeframe, "ids": stage.ids.tolist()},
        {"instrument_id": "int4", "ts": "timestamptz", "explained": "int2"},
    )
    at = _match(_keys(gaps["instrument_id"], gaps["ts"]), stage.keys())
    came = at >= 0
    explained = gaps["explained"] != 0
    final = came & ((stage.columns["flags"][np.maximum(at, 0)] & PROVISIONAL) == 0 if len(stage.rows) else came)
    _at_keys(conn, "DELETE FROM ops.gaps AS g", stage.timeframe, gaps, came & explained)
    _at_keys(
        conn, "UPDATE ops.gaps AS g SET state = 'resolved', next_try = NULL", stage.timeframe, gaps, final & ~explained
    )


def drop_untold(
    conn: Connection,
    stage: Stage,
    gaps: pd.DataFrame,
    ids: pd.Series,
    asked: Mapping[int, date],
    before: datetime,
    *,
    source: str,
) -> int:
    """Take back what a source does not say any more, although it was asked for that time again: provisional bars from before
    `before`, which never became one, and its own explanations of holes. Returns how many bars were dropped.

    Args:
        gaps: domain.GAP columns, the holes that it explains now; ids: {code: instrument id}.
        asked: {instrument id: from which date on it was asked}.
    """
    numbers = sorted(asked)
    said = copy_out(
        driver_cursor(conn),
        """
        WITH asked AS (SELECT * FROM unnest(%(ids)s::int[], %(since)s::date[]) AS a (id, since))
        SELECT c.instrument_id, c.ts, 0::int2 AS gap
        FROM   asked AS a JOIN live.candles AS c ON c.instrument_id = a.id AND c.timeframe = %(timeframe)s
               AND c.ts >= a.since AND c.ts < %(before)s
        WHERE  (c.flags & %(provisional)s) <> 0
        UNION  ALL
        SELECT g.instrument_id, g.ts, 1::int2
        FROM   asked AS a JOIN ops.gaps AS g ON g.instrument_id = a.id AND g.timeframe = %(timeframe)s
               AND g.ts >= a.since AND g.ts < %(before)s
        WHERE  g.state = 'explained' AND g.source = %(source)s
        """,
        {
            "ids": numbers, "since": [asked[number] for number in numbers], "timeframe": stage.timeframe, "before": before,
            "provisional": PROVISIONAL, "source": source,
        },
        {"instrument_id": "int4", "ts": "timestamptz", "gap": "int2"},
    )  # fmt: skip
    keys = _keys(said["instrument_id"], said["ts"])
    told = np.sort(_keys(numbers_of(gaps["code"], ids), to_wire_time(gaps["ts"]))) if len(gaps) else keys[:0]
    gone, hole = _match(keys, stage.came) < 0, said["gap"] != 0
    _at_keys(conn, "DELETE FROM ops.gaps AS g", stage.timeframe, said, gone & hole & (_match(keys, told) < 0))
    return _at_keys(conn, "DELETE FROM live.candles AS g", stage.timeframe, said, gone & ~hole)


def _at_keys(conn: Connection, statement: str, timeframe: str, keys: dict[str, NDArray[Any]], chosen: Mask) -> int:
    """Run a statement of ours on the rows `g` at some keys; return how many there were."""
    if not chosen.any():
        return 0
    found = conn.execute(
        text(f"""
            {statement} {"USING" if statement.startswith("DELETE") else "FROM"}
            unnest(CAST(:ids AS int[]), CAST(:ts AS bigint[])) AS k (id, ts)
            WHERE  g.instrument_id = k.id AND g.timeframe = :timeframe
            AND    g.ts = timestamptz '2000-01-01 00:00:00+00' + k.ts * interval '1 microsecond'
        """),
        {"ids": keys["instrument_id"][chosen].tolist(), "ts": keys["ts"][chosen].tolist(), "timeframe": timeframe},
    )
    return int(found.rowcount)


def _copy(cursor: Any, table: str, stage: Stage, chosen: Mask, constants: dict[str, Any]) -> None:
    if chosen.any():
        rows = slice(None) if chosen.all() else np.flatnonzero(chosen)
        columns = {name: (kind, stage.columns[name][rows]) for name, kind in WIRE.items()}
        copy_in(cursor, table, columns, constants=constants, nullable="value")


def _keys(instrument_id: NDArray[Any], ts: NDArray[Any]) -> NDArray[np.int64]:
    """Return one number per (instrument, second), in their order."""
    seconds = ts // 1_000_000 + (1 << 32)
    keys: NDArray[np.int64] = (instrument_id.astype(np.int64) << 33) | seconds
    return keys


def _match(keys: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where each key lies among ascending ones; -1: nowhere."""
    if not len(among):
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    return np.where(among[at] == keys, at, -1)

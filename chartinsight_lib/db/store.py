"""Frames -> tables. The caller owns the transaction, so rows and their record are kept or dropped together.

Bulk rows are staged by COPY, compared with what is there, and the new and the changed are upserted sorted by key: a
repeated load writes nothing. From staging to commit one load waits for another, so that what it compares with stays.
A final bar is never replaced by a provisional one.
"""

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from psycopg2 import sql
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_in, to_wire_time
from chartinsight_lib.db.rows import Changes, driver_cursor, upsert_rows
from chartinsight_lib.domain import PRICES, Flag
from chartinsight_lib.errors import SchemaError

_LOAD_LOCK = 0x10AD  # one load of bars at a time, whoever writes


@dataclass(frozen=True, slots=True)
class Restated:
    """An instrument whose past a source tells differently now: of `overlap` bars, `differing` have another close; `ratio`
    is the median of new / held."""

    code: str
    overlap: int
    differing: int
    ratio: float


def stage_candles(conn: Connection, candles: pd.DataFrame, ids: pd.Series) -> None:
    """Put a candle frame into the transaction's temporary table `stage`, sorted by key; wait for other loads to end.

    Args:
        candles: domain.CANDLE columns of one market, unique in (code, ts).
        ids: {code: instrument id}.
    Raises:
        SchemaError: a code has no instrument.
    """
    number = _numbers(candles["code"], ids)
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOAD_LOCK})
    ts = to_wire_time(candles["ts"])
    order = np.lexsort((ts, number.to_numpy("int64")))
    cursor = driver_cursor(conn)
    cursor.execute("DROP TABLE IF EXISTS stage, held")
    cursor.execute("""
        CREATE TEMPORARY TABLE stage (instrument_id int, ts timestamptz, open float8, high float8, low float8, close float8,
                                      volume int8, value float8, flags int2) ON COMMIT DROP
    """)
    columns: dict[str, tuple[str, Any]] = {
        "instrument_id": ("int4", number.to_numpy("int32")[order]),
        "ts": ("timestamptz", ts[order]),
        **{name: ("float8", candles[name].to_numpy("float64")[order]) for name in [*PRICES, "value"]},
        "volume": ("int8", candles["volume"].to_numpy("int64")[order]),
        "flags": ("int2", candles["flags"].to_numpy("int16")[order]),
    }
    copy_in(cursor, "stage", columns)
    cursor.execute("ANALYZE stage")


def _find_held(conn: Connection, timeframe: str) -> None:
    """Put what is held of the staged instruments in the staged span of time into the temporary table `held`, once.

    Joined to live.candles itself, the stage makes the planner read the whole table for every large batch, because it expects
    to find most of the stage in it; OFFSET 0 keeps it to one range of the key per instrument.
    """
    if conn.execute(text("SELECT to_regclass('pg_temp.held')")).scalar_one() is not None:
        return
    conn.execute(
        text("""
            CREATE TEMPORARY TABLE held ON COMMIT DROP AS
            SELECT c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags, c.source
            FROM   (SELECT instrument_id, min(ts) AS first, max(ts) AS last FROM stage GROUP BY instrument_id) AS span
            CROSS  JOIN LATERAL (
                SELECT * FROM live.candles AS b
                WHERE  b.instrument_id = span.instrument_id AND b.timeframe = :timeframe AND b.ts BETWEEN span.first AND span.last
                OFFSET 0
            ) AS c
        """),
        {"timeframe": timeframe},
    )
    conn.execute(text("ANALYZE held"))


def restated(
    conn: Connection, timeframe: str, *, raw_source: str | None = None, tolerated: float = 0.1
) -> list[Restated]:
    """Compare final bars, staged and held; return the instruments of which more than the `tolerated` share differ.

    `raw_source`: the name of a source whose prices have one basis for ever; held bars of its own are left out of it.

    Such a source has moved to another price basis (a split, a rights issue): its bars must not stand beside the old ones.
    Where few bars overlap one correction is a large share of them: that is refused too, because nothing tells the two apart.
    """
    _find_held(conn, timeframe)
    rows = conn.execute(
        text("""
            SELECT i.code, count(*) AS overlap, count(*) FILTER (WHERE s.close <> c.close) AS differing,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY s.close / c.close) AS ratio
            FROM   stage AS s
            JOIN   held AS c ON c.instrument_id = s.instrument_id AND c.ts = s.ts
            JOIN   live.instruments AS i ON i.id = s.instrument_id
            WHERE  ((c.flags | s.flags) & :provisional) = 0 AND c.source IS DISTINCT FROM :raw_source
            GROUP  BY i.code
            HAVING count(*) FILTER (WHERE s.close <> c.close) > :tolerated * count(*)
            ORDER  BY i.code
        """),
        {"provisional": int(Flag.PROVISIONAL), "tolerated": tolerated, "raw_source": raw_source},
    )
    return [Restated(*row) for row in rows]


def keep_official_closes(conn: Connection, timeframe: str) -> None:
    """Give staged bars whose close is not known to be the official one the official close that is held of the same bar."""
    _find_held(conn, timeframe)
    conn.execute(
        text("""
            UPDATE stage AS s
            SET    close = c.close, high = GREATEST(s.high, c.close), low = LEAST(s.low, c.close),
                   flags = (s.flags & ~CAST(:after AS smallint)) | :official
            FROM   held AS c
            WHERE  c.instrument_id = s.instrument_id AND c.ts = s.ts
            AND    (s.flags & :official) = 0 AND (c.flags & :official) <> 0
        """),
        {"after": int(Flag.AFTER_MARKET), "official": int(Flag.OFFICIAL_CLOSE)},
    )


def drop_staged(conn: Connection, instrument_ids: list[int]) -> None:
    """Take instruments out of `stage`: their rows will not be stored."""
    conn.execute(text("DELETE FROM stage WHERE instrument_id = ANY(:ids)"), {"ids": instrument_ids})


def upsert_staged(conn: Connection, timeframe: str, *, source: str, run_id: UUID) -> Changes:
    """Store what lies in `stage`: insert new bars, overwrite revised ones, leave equal ones alone."""
    _find_held(conn, timeframe)
    staged, inserted, written = conn.execute(
        text("""
            WITH staged AS (  -- COPY brought a missing value as NaN
                SELECT instrument_id, ts, open, high, low, close, volume, NULLIF(value, 'NaN') AS value, flags
                FROM   stage
            ), fresh AS (
                SELECT s.* FROM staged AS s
                LEFT   JOIN held AS c ON c.instrument_id = s.instrument_id AND c.ts = s.ts
                WHERE  c.instrument_id IS NULL
                   OR  ((c.open, c.high, c.low, c.close, c.volume, c.value, c.flags)
                        IS DISTINCT FROM (s.open, s.high, s.low, s.close, s.volume, s.value, s.flags)
                        AND NOT ((c.flags & :provisional) = 0 AND (s.flags & :provisional) <> 0))
            ), written AS (
                INSERT INTO live.candles AS c
                       (instrument_id, timeframe, ts, open, high, low, close, volume, value, flags, source, run_id)
                SELECT instrument_id, :timeframe, ts, open, high, low, close, volume, value, flags, :source, :run_id
                FROM   fresh
                ORDER  BY instrument_id, ts
                ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE  -- somebody else may have been faster
                SET    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
                       volume = excluded.volume, value = excluded.value, flags = excluded.flags,
                       source = excluded.source, run_id = excluded.run_id
                WHERE  NOT ((c.flags & :provisional) = 0 AND (excluded.flags & :provisional) <> 0)
                RETURNING (xmax = 0) AS inserted
            )
            SELECT (SELECT count(*) FROM stage), count(*) FILTER (WHERE inserted), count(*) FROM written
        """),
        {"timeframe": timeframe, "source": source, "run_id": run_id, "provisional": int(Flag.PROVISIONAL)},
    ).one()
    return Changes(inserted, written - inserted, staged - written)


def drop_unfinished(conn: Connection, timeframe: str) -> None:
    """Drop provisional bars of days that turned out to be gaps: what was forming then never became a bar."""
    conn.execute(
        text("""
            DELETE FROM live.candles AS c USING ops.gaps AS g
            WHERE  g.timeframe = :timeframe AND c.instrument_id = g.instrument_id AND c.timeframe = g.timeframe
            AND    g.kind IN ('halted', 'no-trade')  -- a bar that is late is the provisional one itself
            AND    c.ts = g.ts AND (c.flags & :provisional) <> 0
        """),
        {"timeframe": timeframe, "provisional": int(Flag.PROVISIONAL)},
    )


def drop_phantoms(conn: Connection, timeframe: str, before: datetime) -> None:
    """Drop provisional bars from before `before` that a source, which was asked for that time again, did not bring: what was
    forming then never became a bar."""
    conn.execute(
        text("""
            DELETE FROM live.candles AS c
            USING  (SELECT instrument_id, min(ts) AS first FROM stage GROUP BY instrument_id) AS span
            WHERE  c.instrument_id = span.instrument_id AND c.timeframe = :timeframe AND c.ts >= span.first AND c.ts < :before
            AND    (c.flags & :provisional) <> 0
            AND    NOT EXISTS (SELECT 1 FROM stage AS s WHERE s.instrument_id = c.instrument_id AND s.ts = c.ts)
        """),
        {"timeframe": timeframe, "before": before, "provisional": int(Flag.PROVISIONAL)},
    )


def close_gaps(conn: Connection, timeframe: str) -> None:
    """Forget the explained gaps for which `stage` brought a bar; a missing or late bar that came final is kept as resolved."""
    conn.execute(
        text("""
            WITH told AS (
                DELETE FROM ops.gaps AS g USING stage AS s
                WHERE  g.instrument_id = s.instrument_id AND g.timeframe = :timeframe AND g.ts = s.ts
                AND    g.kind IN ('halted', 'no-trade')
            )
            UPDATE ops.gaps AS g SET state = 'resolved', next_try = NULL
            FROM   stage AS s
            WHERE  g.instrument_id = s.instrument_id AND g.timeframe = :timeframe AND g.ts = s.ts
            AND    g.kind IN ('missing', 'late') AND g.state <> 'resolved' AND (s.flags & :provisional) = 0
        """),
        {"timeframe": timeframe, "provisional": int(Flag.PROVISIONAL)},
    )


def forget_factors(
    conn: Connection, factors: pd.DataFrame, spans: pd.DataFrame, ids: pd.Series, *, source: str
) -> None:
    """Drop the factors of a source that it does not tell of any more.

    Args:
        factors: domain.FACTOR columns, what the source tells of now.
        spans: code, first, last (dates): the days that `factors` were learnt from; a factor outside them is left alone.
        ids: {code: instrument id}.
    """
    if spans.empty:
        return
    conn.execute(
        text("""
            DELETE FROM live.factors AS f
            USING  unnest(CAST(:ids AS int[]), CAST(:first AS date[]), CAST(:last AS date[])) AS s (id, first, last)
            WHERE  f.instrument_id = s.id AND f.source = :source AND f.ex_date > s.first AND f.ex_date <= s.last
            AND    (f.instrument_id, f.ex_date) NOT IN (SELECT * FROM unnest(CAST(:told AS int[]), CAST(:days AS date[])))
        """),
        {
            "source": source,
            "ids": _numbers(spans["code"], ids).tolist(),
            "first": spans["first"].tolist(),
            "last": spans["last"].tolist(),
            "told": _numbers(factors["code"], ids).tolist(),
            "days": factors["ex_date"].tolist(),
        },
    )


def factors_held(conn: Connection, ids: pd.Series, *, source: str) -> dict[str, dict[date, float]]:
    """Return {code: {ex-date: price factor}} of what a source has told of; `ids`: {code: instrument id}."""
    rows = conn.execute(
        text("SELECT instrument_id, ex_date, price_factor FROM live.factors WHERE source = :source"), {"source": source}
    )
    codes = {number: code for code, number in ids.items()}
    found: dict[str, dict[date, float]] = {}
    for number, ex_date, factor in rows:
        if number in codes:
            found.setdefault(str(codes[number]), {})[ex_date] = factor
    return found


def upsert_factors(
    conn: Connection, factors: pd.DataFrame, ids: pd.Series, *, source: str, detected_at: datetime, run_id: UUID
) -> Changes:
    """Insert new factors, overwrite revised ones. `factors`: domain.FACTOR columns; unitless multipliers."""
    factors = factors.assign(instrument_id=_numbers(factors["code"], ids)).sort_values(["instrument_id", "ex_date"])
    return upsert_rows(
        conn,
        """
        INSERT INTO live.factors AS f
               (instrument_id, ex_date, price_factor, volume_factor, kind, source, detected_at, run_id)
        VALUES %s
        ON CONFLICT (instrument_id, ex_date, source) DO UPDATE
        SET    price_factor = excluded.price_factor, volume_factor = excluded.volume_factor, kind = excluded.kind,
               detected_at = excluded.detected_at, run_id = excluded.run_id
        WHERE  (f.price_factor, f.volume_factor, f.kind)
               IS DISTINCT FROM (excluded.price_factor, excluded.volume_factor, excluded.kind)
        RETURNING (xmax = 0)
        """,
        factors[["instrument_id", "ex_date", "price_factor", "volume_factor", "kind"]],
        source,
        detected_at,
        str(run_id),
    )


def upsert_gaps(
    conn: Connection, gaps: pd.DataFrame, ids: pd.Series, timeframe: str, *, source: str, run_id: UUID
) -> Changes:
    """Record bars that do not exist and why. `gaps`: domain.GAP columns, unique in (code, ts)."""
    gaps = gaps.assign(instrument_id=_numbers(gaps["code"], ids)).sort_values(["instrument_id", "ts"])
    return upsert_rows(
        conn,
        """
        INSERT INTO ops.gaps AS g (instrument_id, ts, kind, timeframe, source, run_id) VALUES %s
        ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE
        SET    kind = excluded.kind, state = 'explained', next_try = NULL, reason = NULL,
               source = excluded.source, run_id = excluded.run_id
        WHERE  g.kind <> excluded.kind
        RETURNING (xmax = 0)
        """,
        gaps[["instrument_id", "ts", "kind"]],
        timeframe,
        source,
        str(run_id),
    )


def add_quarantine(
    conn: Connection, rows: pd.DataFrame, timeframe: str, *, market: str, source: str, item: str, run_id: UUID
) -> Changes:
    """Keep rows that break a rule, with their payload; one that is known already is left alone.

    `rows`: code, ts (may be missing), rule, action, row (number in the item), payload (a JSON text); `item`: the portion
    of the source, such as a file.
    """
    rows = rows.assign(payload=rows["payload"].map(_jsonb))
    return upsert_rows(
        conn,
        """
        INSERT INTO ops.quarantine
               (code, ts, rule, action, source_row, payload, market, timeframe, source, item, run_id)
        VALUES %s
        ON CONFLICT (source, item, source_row, rule, digest) DO NOTHING
        RETURNING true
        """,
        rows[["code", "ts", "rule", "action", "row", "payload"]],
        market,
        timeframe,
        source,
        item,
        str(run_id),
    )


def save_snapshot(conn: Connection, snapshot: pd.DataFrame) -> Changes:
    """Insert or overwrite the rows of one scan. `snapshot`: columns of radar.snapshot, its key among them."""
    key = ["as_of", "timeframe", "instrument_id"]
    data = [name for name in snapshot.columns if name not in key]
    compared = [name for name in data if name not in ("scanned_at", "run_id")]  # the same finding again is no change

    def listed(names: list[str], form: str) -> sql.Composed:
        return sql.SQL(", ").join(sql.SQL(form).format(sql.Identifier(name)) for name in names)

    statement = sql.SQL("""
        INSERT INTO radar.snapshot AS s ({columns}) VALUES %s
        ON CONFLICT (as_of, timeframe, instrument_id) DO UPDATE
        SET    ({data}) = ROW ({new})
        WHERE  ({old_compared}) IS DISTINCT FROM ({new_compared})
        RETURNING (xmax = 0)
    """).format(
        columns=listed(key + data, "{}"),
        data=listed(data, "{}"),
        new=listed(data, "excluded.{}"),
        old_compared=listed(compared, "s.{}"),
        new_compared=listed(compared, "excluded.{}"),
    )
    return upsert_rows(conn, statement.as_string(driver_cursor(conn)), snapshot[key + data].sort_values(key))


def _jsonb(payload: str) -> str:
    """Return a JSON text that jsonb takes: one with an infinity or a zero byte, which it knows not, as a string."""
    return json.dumps(payload) if "Infinity" in payload or "\\u0000" in payload else payload


def _numbers(codes: pd.Series, ids: pd.Series) -> pd.Series:
    """Return the instrument ids of codes. Raises SchemaError for a code that is no instrument."""
    numbers = codes.map(ids)
    if numbers.isna().any():
        unknown = sorted(codes[numbers.isna()].unique())
        raise SchemaError(
            f"store: {len(unknown)} codes are no instruments yet ({', '.join(unknown[:5])}). Sync instruments first."
        )
    return numbers

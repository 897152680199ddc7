"""Frames -> tables. The caller owns the transaction, so rows and their record are kept or dropped together.

Bars go in by `stage`; here is what is kept beside them. Everything can be repeated: the second time changes no row.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import pandas as pd
from numpy.typing import NDArray
from psycopg2 import sql
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_out
from chartinsight_lib.db.rows import Changes, driver_cursor, numbers_of, upsert_rows
from chartinsight_lib.domain import AS_TRADED, COLLECTED, Flag

RAW_FILES = f"files:%{AS_TRADED}"
"""The names, as LIKE has them, of files whose prices are as they were traded: of a raw source they are own."""


def final_closes(
    conn: Connection, instrument_ids: Sequence[int], timeframe: str, *, but_of: str | None = None
) -> dict[str, NDArray[Any]]:
    """Return the final bars held of some instruments, those of the raw source `but_of` and of raw files left out: instrument_id, ts
    (microseconds since 2000, UTC), close, volume; ascending in (instrument_id, ts)."""
    return copy_out(
        driver_cursor(conn),
        """
        SELECT instrument_id, ts, close, volume FROM live.candles
        WHERE  instrument_id = ANY(%(ids)s) AND timeframe = %(timeframe)s AND (flags & %(provisional)s) = 0
        AND    COALESCE(source <> %(but_of)s AND source NOT LIKE %(raw_files)s, true)
        ORDER  BY instrument_id, ts
        """,
        {
            "ids": list(instrument_ids),
            "timeframe": timeframe,
            "provisional": int(Flag.PROVISIONAL),
            "but_of": but_of,
            "raw_files": RAW_FILES if but_of else None,
        },
        {"instrument_id": "int4", "ts": "timestamptz", "close": "float8", "volume": "int8"},
    )


def move_watermark(conn: Connection, market: str, timeframes: Sequence[str] = COLLECTED) -> None:
    """Say that bars of a market changed, or, of all its timeframes, its factors: copies of them that lie elsewhere are outdated
    when this commits."""
    conn.execute(
        text("""
            INSERT INTO live.watermarks (market, timeframe, version)
            SELECT :market, timeframe, live.next_watermark() FROM unnest(CAST(:timeframes AS text[])) AS t (timeframe)
            ON CONFLICT (market, timeframe) DO UPDATE SET version = excluded.version
        """),
        {"market": market, "timeframes": sorted(timeframes)},
    )


def keep_cursors(
    conn: Connection, asked: Mapping[int, date], until: datetime, timeframe: str, *, source: str, run_id: UUID
) -> None:
    """Record what a source was asked: {instrument id: from which date on}, up to the moment `until` (tz-aware).

    A cursor has no hole: where the days between what was asked before and what is asked now were not asked for, or its last day
    was still forming, it begins anew.
    """
    numbers = sorted(asked)
    conn.execute(
        text("""
            INSERT INTO ops.cursors AS c (instrument_id, timeframe, source, asked_from, asked_until, run_id)
            SELECT a.id, :timeframe, :source, a.since, :until, :run_id
            FROM   unnest(CAST(:ids AS int[]), CAST(:since AS date[])) AS a (id, since)
            ON CONFLICT (instrument_id, timeframe, source) DO UPDATE
            SET    asked_from = CASE WHEN excluded.asked_from >= CAST(c.asked_until AS date) THEN excluded.asked_from
                                     ELSE LEAST(c.asked_from, excluded.asked_from) END,
                   asked_until = GREATEST(c.asked_until, excluded.asked_until), run_id = excluded.run_id
            WHERE  excluded.asked_from < c.asked_from OR excluded.asked_until > c.asked_until
        """),
        {
            "ids": numbers, "since": [asked[number] for number in numbers], "until": until, "timeframe": timeframe,
            "source": source, "run_id": run_id,
        },
    )  # fmt: skip


def asked_later(conn: Connection, market: str, timeframe: str, since: date, *, source: str) -> set[str]:
    """Return the codes that a source has been asked about, but not from as early as `since`."""
    rows = conn.execute(
        text("""
            SELECT i.code FROM ops.cursors AS c JOIN live.instruments AS i ON i.id = c.instrument_id
            WHERE  i.market = :market AND c.timeframe = :timeframe AND c.source = :source AND c.asked_from > :since
        """),
        {"market": market, "timeframe": timeframe, "source": source, "since": since},
    )
    return set(rows.scalars())


def add_restatements(conn: Connection, rows: pd.DataFrame, timeframe: str, *, source: str, run_id: UUID) -> Changes:
    """Record that a source tells the past of instruments differently; what is known already is left alone.

    `rows`: instrument_id, verdict, ex_date (may be missing), ratio, overlap, differing, detail, detected_at.
    """
    return upsert_rows(
        conn,
        """
        INSERT INTO ops.restatements
               (instrument_id, verdict, ex_date, ratio, overlap, differing, detail, detected_at, timeframe, source, run_id)
        VALUES %s
        ON CONFLICT (instrument_id, timeframe, source, verdict, ex_date, ratio, overlap, differing) DO NOTHING
        RETURNING true
        """,
        rows[["instrument_id", "verdict", "ex_date", "ratio", "overlap", "differing", "detail", "detected_at"]],
        timeframe,
        source,
        str(run_id),
    )


def upsert_gaps(
    conn: Connection, gaps: pd.DataFrame, ids: pd.Series, timeframe: str, *, source: str, run_id: UUID
) -> Changes:
    """Record bars that do not exist and why. `gaps`: domain.GAP columns, unique in (code, ts)."""
    gaps = gaps.assign(instrument_id=numbers_of(gaps["code"], ids)).sort_values(["instrument_id", "ts"])
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


def drop_unfinished(conn: Connection, timeframe: str, ids: Sequence[int]) -> int:
    """Drop provisional bars of days that turned out to be gaps: what was forming then never became a bar. Returns how many."""
    return conn.execute(
        text("""
            DELETE FROM live.candles AS c USING ops.gaps AS g
            WHERE  g.timeframe = :timeframe AND g.instrument_id = ANY(:ids)
            AND    g.kind IN ('halted', 'no-trade')  -- a bar that is late is the provisional one itself
            AND    c.instrument_id = g.instrument_id AND c.timeframe = g.timeframe AND c.ts = g.ts
            AND    (c.flags & :provisional) <> 0
        """),
        {"timeframe": timeframe, "ids": list(ids), "provisional": int(Flag.PROVISIONAL)},
    ).rowcount


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

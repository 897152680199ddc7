"""Frames -> tables. The caller owns the transaction, so rows and their record are kept or dropped together.

Bulk rows are staged by COPY, compared with what is there, and the new and the changed are upserted sorted by key: a
repeated load writes nothing. From staging to commit one load waits for another, so that what it compares with stays.
A final bar is never replaced by a provisional one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psycopg2 import sql
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_in, copy_out, to_wire_time
from chartinsight_lib.db.rows import Changes, driver_cursor, numbers_of, upsert_rows
from chartinsight_lib.domain import COLLECTED, PRICES, Flag

_LOAD_LOCK = 0x10AD  # one load of bars at a time, whoever writes


@dataclass(frozen=True, slots=True)
class Suspect:
    """A staged instrument that may be on another price basis than what is held of it: of `overlap` final bars in common
    `differing` have another close; none in common says nothing at all."""

    id: int
    code: str
    overlap: int
    differing: int


def stage_candles(conn: Connection, candles: pd.DataFrame, ids: pd.Series) -> None:
    """Put a candle frame into the transaction's temporary table `stage`, sorted by key; wait for other loads to end.

    From here on the transaction moves the market's watermark itself: it ends with `move_watermark` if it changed anything.

    Args:
        candles: domain.CANDLE columns of one market, unique in (code, ts).
        ids: {code: instrument id}.
    Raises:
        SchemaError: a code has no instrument.
    """
    number = numbers_of(candles["code"], ids)
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOAD_LOCK})
    conn.execute(text("SELECT set_config('chartinsight.moves_watermark', 'itself', true)"))
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
            SELECT c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags, c.source, c.run_id
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


def suspects(conn: Connection, timeframe: str, *, raw_source: str | None = None) -> list[Suspect]:
    """Compare final bars, staged and held, and return the instruments whose closes differ, that have none in common, or that
    have a seam whose factor nobody has told yet; by code.

    `raw_source`: the name of a source whose prices have one basis for ever; held bars of its own are what it corrects.
    """
    _find_held(conn, timeframe)
    rows = conn.execute(
        text("""
            SELECT o.instrument_id, i.code, o.overlap, o.differing
            FROM  (SELECT s.instrument_id, count(c.ts) AS overlap,
                          count(*) FILTER (WHERE c.close <> s.close AND c.source IS DISTINCT FROM :raw_source) AS differing
                   FROM   stage AS s
                   LEFT   JOIN held AS c ON c.instrument_id = s.instrument_id AND c.ts = s.ts
                                        AND ((c.flags | s.flags) & :provisional) = 0
                   GROUP  BY s.instrument_id) AS o
            JOIN   live.instruments AS i ON i.id = o.instrument_id
            WHERE  o.differing > 0
               OR  EXISTS (SELECT FROM live.factors AS f
                           WHERE f.instrument_id = o.instrument_id AND f.kind IN ('unknown', 'assumed'))
               OR (o.overlap = 0 AND (  -- bars are held, and none of the raw source's own, which these would go on from
                       SELECT bool_and(b.source IS DISTINCT FROM :raw_source) FROM live.candles AS b
                       WHERE b.instrument_id = o.instrument_id AND b.timeframe = :timeframe AND (b.flags & :provisional) = 0))
            ORDER  BY i.code
        """),
        {"provisional": int(Flag.PROVISIONAL), "timeframe": timeframe, "raw_source": raw_source},
    )
    return [Suspect(*row) for row in rows]


def final_closes(
    conn: Connection, instrument_ids: Sequence[int], timeframe: str, *, but_of: str | None = None
) -> dict[str, NDArray[Any]]:
    """Return the final bars held of some instruments, those of the source `but_of` left out: instrument_id, ts (microseconds
    since 2000, UTC), close, volume; ascending in (instrument_id, ts)."""
    return copy_out(
        driver_cursor(conn),
        """
        SELECT instrument_id, ts, close, volume FROM live.candles
        WHERE  instrument_id = ANY(%(ids)s) AND timeframe = %(timeframe)s AND (flags & %(provisional)s) = 0
        AND    source IS DISTINCT FROM %(but_of)s
        ORDER  BY instrument_id, ts
        """,
        {"ids": list(instrument_ids), "timeframe": timeframe, "provisional": int(Flag.PROVISIONAL), "but_of": but_of},
        {"instrument_id": "int4", "ts": "timestamptz", "close": "float8", "volume": "int8"},
    )


def unstage(conn: Connection, instrument_ids: NDArray[np.int32], ts: NDArray[np.int64]) -> None:
    """Take single bars out of `stage`: their rows will not be stored. `ts` as in `final_closes`."""
    if not len(ts):
        return
    cursor = driver_cursor(conn)
    cursor.execute("CREATE TEMPORARY TABLE unwanted (instrument_id int, ts timestamptz) ON COMMIT DROP")
    copy_in(cursor, "unwanted", {"instrument_id": ("int4", instrument_ids), "ts": ("timestamptz", ts)})
    cursor.execute("DELETE FROM stage AS s USING unwanted AS u WHERE u.instrument_id = s.instrument_id AND u.ts = s.ts")
    cursor.execute("DROP TABLE unwanted")


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


def upsert_staged(conn: Connection, timeframe: str, *, source: str, run_id: UUID, now: datetime) -> Changes:
    """Store what lies in `stage`: insert new bars, overwrite revised ones, leave equal ones alone.

    What a final bar said before it was revised is kept in live.revisions, as having stood until `now` (tz-aware).
    """
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
            ), revised AS (
                INSERT INTO live.revisions
                SELECT c.instrument_id, :timeframe, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags, c.source,
                       c.run_id, :now, :run_id
                FROM   fresh AS s JOIN held AS c ON c.instrument_id = s.instrument_id AND c.ts = s.ts
                WHERE  (c.flags & :provisional) = 0
                ON CONFLICT DO NOTHING
            ), written AS (
                INSERT INTO live.candles AS c
                       (instrument_id, timeframe, ts, open, high, low, close, volume, value, flags, source, run_id)
                SELECT instrument_id, :timeframe, ts, open, high, low, close, volume, value, flags, :source, :run_id
                FROM   fresh
                ORDER  BY instrument_id, ts
                ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE
                SET    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
                       volume = excluded.volume, value = excluded.value, flags = excluded.flags,
                       source = excluded.source, run_id = excluded.run_id
                RETURNING (xmax = 0) AS inserted
            )
            SELECT (SELECT count(*) FROM stage), count(*) FILTER (WHERE inserted), count(*) FROM written
        """),
        {
            "timeframe": timeframe, "source": source, "run_id": run_id, "now": now, "provisional": int(Flag.PROVISIONAL)
        },
    ).one()  # fmt: skip
    return Changes(inserted, written - inserted, staged - written)


def move_watermark(conn: Connection, market: str) -> None:
    """Say that bars or factors of a market changed: copies of them that lie elsewhere are outdated when this commits."""
    conn.execute(
        text("""
            INSERT INTO live.watermarks (market, timeframe, version)
            SELECT :market, timeframe, nextval('live.watermark') FROM unnest(CAST(:timeframes AS text[])) AS t (timeframe)
            ON CONFLICT (market, timeframe) DO UPDATE SET version = excluded.version
        """),
        {"market": market, "timeframes": sorted(COLLECTED)},
    )


def keep_cursors(
    conn: Connection, asked: Mapping[int, date], until: datetime, timeframe: str, *, source: str, run_id: UUID
) -> None:
    """Record what a source was asked: {instrument id: from which date on}, up to the moment `until` (tz-aware)."""
    numbers = sorted(asked)
    conn.execute(
        text("""
            INSERT INTO ops.cursors AS c (instrument_id, timeframe, source, asked_from, asked_until, run_id)
            SELECT a.id, :timeframe, :source, a.since, :until, :run_id
            FROM   unnest(CAST(:ids AS int[]), CAST(:since AS date[])) AS a (id, since)
            ON CONFLICT (instrument_id, timeframe, source) DO UPDATE
            SET    asked_from = LEAST(c.asked_from, excluded.asked_from),
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


def drop_unfinished(conn: Connection, timeframe: str) -> int:
    """Drop provisional bars of days that turned out to be gaps: what was forming then never became a bar. Returns how many."""
    return conn.execute(
        text("""
            DELETE FROM live.candles AS c USING ops.gaps AS g
            WHERE  g.timeframe = :timeframe AND c.instrument_id = g.instrument_id AND c.timeframe = g.timeframe
            AND    g.kind IN ('halted', 'no-trade')  -- a bar that is late is the provisional one itself
            AND    c.ts = g.ts AND (c.flags & :provisional) <> 0
        """),
        {"timeframe": timeframe, "provisional": int(Flag.PROVISIONAL)},
    ).rowcount


def drop_phantoms(conn: Connection, timeframe: str, before: datetime) -> int:
    """Drop provisional bars from before `before` that a source, which was asked for that time again, did not bring: what was
    forming then never became a bar. Returns how many."""
    return conn.execute(
        text("""
            DELETE FROM live.candles AS c
            USING  (SELECT instrument_id, min(ts) AS first FROM stage GROUP BY instrument_id) AS span
            WHERE  c.instrument_id = span.instrument_id AND c.timeframe = :timeframe AND c.ts >= span.first AND c.ts < :before
            AND    (c.flags & :provisional) <> 0
            AND    NOT EXISTS (SELECT 1 FROM stage AS s WHERE s.instrument_id = c.instrument_id AND s.ts = c.ts)
        """),
        {"timeframe": timeframe, "before": before, "provisional": int(Flag.PROVISIONAL)},
    ).rowcount


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

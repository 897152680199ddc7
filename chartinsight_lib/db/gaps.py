"""The gap ledger: what is held and expected of a market out of the database, and holes and coverage into it.

What a source says about a hole (`halted`, `no-trade`) is stored with its bars (`store.upsert_gaps`). Here are the holes that
nobody explains, found by `quality.check`. The caller owns the transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_in, copy_out, from_wire_time, to_wire_time
from chartinsight_lib.db.rows import driver_cursor, upsert_rows
from chartinsight_lib.domain import Flag

LEDGER = ["instrument_id", "ts", "kind"]
"""Columns of a frame of unexplained holes: int, tz-aware time, text."""
BACKOFF = (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1))
"""How long to wait after the first, second and third try before the next; after the one that follows them, it is given up."""
COUNTS = ["expected", "present", "explained", "missing", "late"]


def collected(conn: Connection, market: str, timeframe: str) -> pd.DataFrame:
    """Return a market's instruments and what is known of their collection.

    Returns: index instrument_id, ascending; code, board ("" where it is not known), listed_on, delisted_on (dates or None);
        source of the newest bar ("" where none is held); asked_from (date or None), asked_until (tz-aware or
        None) over all sources.
    """
    rows = conn.execute(
        text("""
            SELECT i.id, i.code, COALESCE(i.board, '') AS board, i.listed_on, i.delisted_on,
                   COALESCE(b.source, '') AS source, c.asked_from, c.asked_until
            FROM   live.instruments AS i
            LEFT   JOIN LATERAL (
                SELECT source FROM live.candles WHERE instrument_id = i.id AND timeframe = :timeframe
                ORDER  BY ts DESC LIMIT 1
            ) AS b ON true
            LEFT   JOIN (SELECT instrument_id, min(asked_from) AS asked_from, max(asked_until) AS asked_until
                         FROM ops.cursors WHERE timeframe = :timeframe GROUP BY instrument_id) AS c ON c.instrument_id = i.id
            WHERE  i.market = :market
            ORDER  BY i.id
        """),
        {"market": market, "timeframe": timeframe},
    )
    frame = pd.DataFrame(rows.all(), columns=["instrument_id", *list(rows.keys())[1:]], dtype=object)
    return frame.astype({"instrument_id": "int64", "code": "str", "source": "str"}).set_index("instrument_id")


def bar_times(conn: Connection, ids: Sequence[int], timeframe: str) -> dict[str, NDArray[Any]]:
    """Return the bars of some instruments: instrument_id; ts (datetime64[us], UTC); flags; volume."""
    held = copy_out(
        driver_cursor(conn),
        """
        SELECT c.instrument_id, c.ts, c.flags, c.volume
        FROM   live.candles AS c
        WHERE  c.instrument_id = ANY(%(ids)s) AND c.timeframe = %(timeframe)s
        """,
        {"ids": list(ids), "timeframe": timeframe},
        {"instrument_id": "int4", "ts": "timestamptz", "flags": "int2", "volume": "int8"},
    )
    return {**held, "ts": from_wire_time(held["ts"]).tz_localize(None).to_numpy("datetime64[us]")}


def explained(conn: Connection, ids: Sequence[int], timeframe: str) -> dict[str, NDArray[Any]]:
    """Return the holes that a source explains: instrument_id; ts (datetime64[us], UTC); halted (else nothing was traded)."""
    found = copy_out(
        driver_cursor(conn),
        """
        SELECT instrument_id, ts, (kind = 'halted')::int::int2 AS halted FROM ops.gaps
        WHERE  instrument_id = ANY(%(ids)s) AND timeframe = %(timeframe)s AND state = 'explained'
        """,
        {"ids": list(ids), "timeframe": timeframe},
        {"instrument_id": "int4", "ts": "timestamptz", "halted": "int2"},
    )
    ts = from_wire_time(found["ts"]).tz_localize(None).to_numpy("datetime64[us]")
    return {"instrument_id": found["instrument_id"], "ts": ts, "halted": found["halted"].astype(bool)}


def keep_ledger(
    conn: Connection,
    market: str,
    timeframe: str,
    found: pd.DataFrame,
    *,
    sources: Mapping[int, str],
    reasons: Mapping[str, str],
    patient: Collection[int],
    now: datetime,
    run_id: Any,
) -> dict[str, int]:
    """Bring a market's unexplained holes up to what a check found.

    A hole that is new is open and due at once, or in an hour if it is late; one that was known keeps its tries; one that has
    its bar now is resolved; one that is not expected any more is forgotten. What a source explained is left alone.

    Args:
        found: columns LEDGER, unique in (instrument_id, ts): everything that is missing or late now, and what the check
            itself explains (halted).
        sources: {instrument id: whose bars stand about the hole}.
        reasons: {kind: what the ledger says about it}.
        patient: instruments whose source is not asked again at once: it gave all that it has just now.
    Returns: how many holes are new, known, resolved, dropped.
    """
    cursor = driver_cursor(conn)
    cursor.execute("DROP TABLE IF EXISTS found")
    cursor.execute(
        "CREATE TEMPORARY TABLE found (instrument_id int, ts timestamptz, number int2, PRIMARY KEY (instrument_id, ts)) "
        "ON COMMIT DROP"
    )
    kinds = sorted(reasons)
    found = found.sort_values(["instrument_id", "ts"])
    columns = {
        "instrument_id": ("int4", found["instrument_id"].to_numpy("int32")),
        "ts": ("timestamptz", to_wire_time(found["ts"]) if len(found) else np.empty(0, np.int64)),
        "number": ("int2", found["kind"].map({kind: at for at, kind in enumerate(kinds)}).to_numpy("int16")),
    }
    copy_in(cursor, "found", columns)
    cursor.execute("ANALYZE found")
    values = {
        "timeframe": timeframe, "market": market, "now": now, "run_id": run_id, "provisional": int(Flag.PROVISIONAL),
        "kinds": kinds, "reasons": [reasons[kind] for kind in kinds],
        "ids": list(sources), "sources": list(sources.values()),
        "later": now + BACKOFF[0], "dues": [now + BACKOFF[0] * (number in patient) for number in sources],
    }  # fmt: skip
    resolved, dropped = conn.execute(
        text("""
            WITH gone AS (
                SELECT g.instrument_id, g.ts, EXISTS (  -- of a day that lacked all its bars, any is enough
                           SELECT FROM live.candles AS c
                           WHERE  c.instrument_id = g.instrument_id AND c.timeframe = :timeframe
                           AND    c.ts >= g.ts AND c.ts < g.ts + interval '1 day' AND (c.flags & :provisional) = 0) AS came
                FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id
                WHERE  i.market = :market AND g.timeframe = :timeframe AND g.state IN ('open', 'repairing', 'given_up')
                AND    NOT EXISTS (SELECT FROM found AS f WHERE f.instrument_id = g.instrument_id AND f.ts = g.ts)
            ), kept AS (
                UPDATE ops.gaps AS g SET state = 'resolved', next_try = NULL, last_checked = :now
                FROM   gone WHERE gone.came AND g.timeframe = :timeframe
                AND    g.instrument_id = gone.instrument_id AND g.ts = gone.ts
                RETURNING 1
            ), forgotten AS (
                DELETE FROM ops.gaps AS g USING gone
                WHERE  NOT gone.came AND g.timeframe = :timeframe AND g.instrument_id = gone.instrument_id AND g.ts = gone.ts
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM forgotten)
        """),
        values,
    ).one()
    new, known = conn.execute(
        text("""
            WITH kinds AS (
                SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:reasons AS text[])) WITH ORDINALITY AS k (kind, reason, n)
            ), sources AS (
                SELECT * FROM unnest(CAST(:ids AS int[]), CAST(:sources AS text[]), CAST(:dues AS timestamptz[]))
                       AS s (id, source, due)
            ), written AS (
                INSERT INTO ops.gaps AS g (instrument_id, timeframe, ts, kind, state, first_seen, last_checked, next_try,
                                           reason, source, run_id)
                SELECT f.instrument_id, :timeframe, f.ts, k.kind, CASE k.kind WHEN 'halted' THEN 'explained' ELSE 'open' END,
                       :now, :now, CASE k.kind WHEN 'halted' THEN NULL WHEN 'late' THEN :later ELSE s.due END,
                       k.reason, s.source, :run_id
                FROM   found AS f JOIN kinds AS k ON k.n = f.number + 1 JOIN sources AS s ON s.id = f.instrument_id
                WHERE  NOT EXISTS (  -- it may have come since it was looked for
                           SELECT FROM live.candles AS c
                           WHERE  c.instrument_id = f.instrument_id AND c.timeframe = :timeframe AND c.ts = f.ts
                           AND    (c.flags & :provisional) = 0)
                ORDER  BY f.instrument_id, f.ts
                ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE
                SET    kind = excluded.kind, last_checked = excluded.last_checked, source = excluded.source,
                       run_id = excluded.run_id,
                       state = CASE g.state WHEN 'resolved' THEN excluded.state ELSE g.state END,
                       tries = CASE g.state WHEN 'resolved' THEN 0 ELSE g.tries END,
                       next_try = CASE g.state WHEN 'resolved' THEN excluded.next_try ELSE g.next_try END,
                       reason = CASE WHEN g.state = 'resolved' OR g.tries = 0 THEN excluded.reason ELSE g.reason END
                WHERE  g.state <> 'explained'
                RETURNING (xmax = 0) AS inserted
            )
            SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written
        """),
        values,
    ).one()
    return {"new": new, "known": known, "resolved": resolved, "dropped": dropped}


def keep_coverage(
    conn: Connection,
    market: str,
    timeframe: str,
    instruments: pd.DataFrame,
    days: pd.DataFrame,
    *,
    now: datetime,
    run_id: Any,
) -> None:
    """Store what a check counted.

    Args:
        instruments: instrument_id, first, last (dates or None), and COUNTS in days.
        days: day (date), and COUNTS in instruments; other days of the market are forgotten.
    """
    upsert_rows(
        conn,
        """
        INSERT INTO ops.coverage (instrument_id, first, last, expected, present, explained, missing, late, timeframe,
                                  checked_at, run_id)
        VALUES %s
        ON CONFLICT (instrument_id, timeframe) DO UPDATE
        SET    first = excluded.first, last = excluded.last, expected = excluded.expected, present = excluded.present,
               explained = excluded.explained, missing = excluded.missing, late = excluded.late,
               checked_at = excluded.checked_at, run_id = excluded.run_id
        RETURNING (xmax = 0)
        """,
        instruments[["instrument_id", "first", "last", *COUNTS]],
        timeframe,
        now,
        str(run_id),
    )
    conn.execute(
        text("DELETE FROM ops.coverage_days WHERE market = :market AND timeframe = :timeframe AND day <> ALL(:days)"),
        {"market": market, "timeframe": timeframe, "days": days["day"].tolist()},
    )
    upsert_rows(
        conn,
        """
        INSERT INTO ops.coverage_days (day, expected, present, explained, missing, late, market, timeframe, checked_at)
        VALUES %s
        ON CONFLICT (market, timeframe, day) DO UPDATE
        SET    expected = excluded.expected, present = excluded.present, explained = excluded.explained,
               missing = excluded.missing, late = excluded.late, checked_at = excluded.checked_at
        RETURNING (xmax = 0)
        """,
        days[["day", *COUNTS]],
        market,
        timeframe,
        now,
    )


def due(conn: Connection, market: str, timeframe: str, *, now: datetime, most: int) -> pd.DataFrame:
    """Return the instruments whose holes are to be asked for again, those with the oldest hole first, `most` at the most.

    Returns: index code; instrument_id, first, last (tz-aware: their due holes), holes.
    """
    rows = conn.execute(
        text("""
            SELECT i.code, i.id AS instrument_id, min(g.ts) AS first, max(g.ts) AS last, count(*) AS holes
            FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id
            WHERE  i.market = :market AND g.timeframe = :timeframe AND g.state IN ('open', 'repairing') AND g.next_try <= :now
            GROUP  BY i.code, i.id ORDER BY min(g.ts), i.code LIMIT :most
        """),
        {"market": market, "timeframe": timeframe, "now": now, "most": most},
    )
    return pd.DataFrame(rows.all(), columns=list(rows.keys())).set_index("code")


def begin_tries(conn: Connection, ids: Sequence[int], timeframe: str, *, now: datetime) -> None:
    """Count a try of the due holes of some instruments before it is made: who dies in the midst of it has tried, too."""
    conn.execute(
        text("""
            UPDATE ops.gaps
            SET    state = 'repairing', tries = tries + 1,
                   next_try = CAST(:now AS timestamptz)
                              + (CAST(:waits AS interval[]))[LEAST(tries + 1, cardinality(CAST(:waits AS interval[])))]
            WHERE  instrument_id = ANY(:ids) AND timeframe = :timeframe AND state IN ('open', 'repairing') AND next_try <= :now
        """),
        {"ids": list(ids), "timeframe": timeframe, "now": now, "waits": list(BACKOFF)},
    )


def end_tries(
    conn: Connection, ids: Sequence[int], timeframe: str, *, now: datetime, why: Mapping[int, str], otherwise: str
) -> dict[str, int]:
    """Say how the tries under way ended for the holes that are left: open for a next try, or given up after the last.

    Args:
        why: {instrument id: why it could not be asked}; `otherwise`: the reason for all others.
    Returns: how many holes are to be tried again, and how many were given up.
    """
    rows = conn.execute(
        text("""
            UPDATE ops.gaps AS g
            SET    state = CASE WHEN g.tries > :most THEN 'given_up' ELSE 'open' END, last_checked = :now,
                   next_try = CASE WHEN g.tries > :most THEN NULL ELSE g.next_try END,
                   reason = 'tried ' || g.tries || ' times: ' || COALESCE(w.reason, :otherwise)
            FROM   unnest(CAST(:ids AS int[]), CAST(:why AS text[])) AS w (id, reason)
            WHERE  g.instrument_id = w.id AND g.timeframe = :timeframe AND g.state = 'repairing'
            RETURNING g.state
        """),
        {
            "ids": list(ids),
            "why": [why.get(number) for number in ids],
            "otherwise": otherwise,
            "timeframe": timeframe,
            "now": now,
            "most": len(BACKOFF),
        },
    )
    states = list(rows.scalars())
    return {"tried": states.count("open"), "given_up": states.count("given_up")}


def reopen(conn: Connection, market: str, timeframe: str, *, now: datetime) -> int:
    """Open again what was given up; return how many holes that are."""
    rows = conn.execute(
        text("""
            UPDATE ops.gaps AS g SET state = 'open', tries = 0, next_try = :now
            FROM   live.instruments AS i
            WHERE  i.id = g.instrument_id AND i.market = :market AND g.timeframe = :timeframe AND g.state = 'given_up'
            RETURNING 1
        """),
        {"market": market, "timeframe": timeframe, "now": now},
    )
    return len(rows.all())


def listed(conn: Connection, market: str, timeframe: str, *, codes: Sequence[str], most: int) -> pd.DataFrame:
    """Return holes for a person to read, runs of days of one kind and state as one row: those that nobody explains first,
    from the oldest on. Columns code, name, kind, state, first, last (dates), holes, tries, reason. `codes`: empty for all."""
    rows = conn.execute(
        text("""
            SELECT code, name, kind, state, min(day) AS first, max(day) AS last, count(*) AS holes, max(tries) AS tries,
                   COALESCE(max(reason), '') AS reason
            FROM  (SELECT g.*, count(*) FILTER (WHERE changed) OVER (PARTITION BY code ORDER BY ts) AS run
                   FROM (SELECT a.*, (kind, state) IS DISTINCT FROM lag((kind, state)) OVER (PARTITION BY code ORDER BY ts)
                                AS changed
                         FROM   api.gaps AS a
                         WHERE  market = :market AND timeframe = :timeframe
                         AND   (:all OR code = ANY(CAST(:codes AS text[])))) AS g) AS r
            GROUP  BY code, name, kind, state, run
            ORDER  BY state = 'explained', min(ts), code LIMIT :most
        """),
        {"market": market, "timeframe": timeframe, "codes": list(codes), "all": not codes, "most": most},
    )
    return pd.DataFrame(rows.all(), columns=list(rows.keys()))


def stamps(days: NDArray[np.datetime64]) -> pd.DatetimeIndex:
    """Return the stamps of the daily bars of some days: 00:00 UTC."""
    return pd.DatetimeIndex(days.astype("datetime64[us]")).tz_localize(UTC)

"""What is recorded of jobs, quotas and completeness -> rows, for whoever asks how things stand; read as the reader.

Datetimes are tz-aware. What holds of each is said in the views of the schema `api`.
"""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, text


def newest_slots(conn: Connection, market: str, jobs: Iterable[str], *, settled: bool = False) -> dict[str, Row[Any]]:
    """Return the newest slot of each job that has one; `settled`: the newest whose attempts are over, or wait for another.

    Returns: {job: slot, state, reason, attempts, most, next_try}.
    """
    rows = conn.execute(
        text("""
            SELECT s.job, s.slot, s.state, s.reason, s.attempts, s.most, s.next_try
            FROM   unnest(CAST(:jobs AS text[])) AS j (job)
            CROSS  JOIN LATERAL (
                SELECT * FROM ops.slots WHERE job = j.job AND market = :market
                AND    (NOT :settled OR state IN ('succeeded', 'failed', 'skipped', 'retrying'))
                ORDER  BY slot DESC LIMIT 1) AS s
        """),
        {"jobs": list(jobs), "market": market, "settled": settled},
    )
    return {row.job: row for row in rows}


def slots_between(
    conn: Connection, market: str, jobs: Iterable[str], first: datetime, last: datetime
) -> dict[tuple[str, datetime], str]:
    """Return {(job, slot): state} of the slots from `first` to `last`, both included."""
    rows = conn.execute(
        text("""
            SELECT job, slot, state FROM ops.slots
            WHERE  job = ANY(CAST(:jobs AS text[])) AND market = :market AND slot BETWEEN :first AND :last
        """),
        {"jobs": list(jobs), "market": market, "first": first, "last": last},
    )
    return {(row.job, row.slot): row.state for row in rows}


def newest_runs(conn: Connection, market: str, jobs: Iterable[str], *, succeeded: bool = False) -> dict[str, Row[Any]]:
    """Return the newest run of each job that has one, of the market or of none; `succeeded`: the newest that did.

    Returns: {job: run_id, state, engine, started_at, finished_at, rows, error, error_class, error_cell}.
    """
    rows = conn.execute(
        text("""
            SELECT r.job, r.run_id, r.state, r.engine, r.started_at, r.finished_at, r.rows, r.error, r.error_class, r.error_cell
            FROM   unnest(CAST(:jobs AS text[])) AS j (job)
            CROSS  JOIN LATERAL (
                SELECT * FROM ops.runs WHERE job = j.job AND COALESCE(market, :market) = :market
                AND    (NOT :succeeded OR state = 'succeeded')
                ORDER  BY started_at DESC LIMIT 1) AS r
        """),
        {"jobs": list(jobs), "market": market, "succeeded": succeeded},
    )
    return {row.job: row for row in rows}


def told_last(conn: Connection, market: str, jobs: Iterable[str], *, runs: int = 50) -> datetime | None:
    """Return when one of the jobs stored an item of a market last, among the newest `runs` runs of each; None: none did."""
    found: datetime | None = conn.execute(
        text("""
            SELECT max(i.finished_at)
            FROM   unnest(CAST(:jobs AS text[])) AS j (job)
            CROSS  JOIN LATERAL (
                SELECT run_id FROM ops.runs WHERE job = j.job AND COALESCE(market, :market) = :market
                ORDER  BY started_at DESC LIMIT :runs) AS r
            JOIN   ops.run_items AS i USING (run_id)
            WHERE  i.market = :market AND i.state = 'done'
        """),
        {"market": market, "jobs": list(jobs), "runs": runs},
    ).scalar_one()
    return found


def newest_bar(conn: Connection, market: str, timeframe: str) -> datetime | None:
    """Return the start of the newest bar of a market, final or not; None: there is none."""
    found: datetime | None = conn.execute(
        text("""
            SELECT max(b.ts) FROM live.instruments AS i
            CROSS  JOIN LATERAL (
                SELECT ts FROM live.candles WHERE instrument_id = i.id AND timeframe = :timeframe ORDER BY ts DESC LIMIT 1) AS b
            WHERE  i.market = :market
        """),
        {"market": market, "timeframe": timeframe},
    ).scalar_one()
    return found


def quality(conn: Connection, market: str, timeframe: str = "1d") -> Row[Any] | None:
    """Return the row of api.quality of a market; None before the first check."""
    return conn.execute(
        text("SELECT * FROM api.quality WHERE market = :market AND timeframe = :timeframe"),
        {"market": market, "timeframe": timeframe},
    ).one_or_none()


def completeness(conn: Connection, market: str, days: int, timeframe: str = "1d") -> list[Row[Any]]:
    """Return the newest `days` days that were checked, newest first: day, expected, present, explained, missing, late."""
    return list(
        conn.execute(
            text("""
                SELECT day, expected, present, explained, missing, late, completeness FROM api.completeness
                WHERE  market = :market AND timeframe = :timeframe ORDER BY day DESC LIMIT :days
            """),
            {"market": market, "timeframe": timeframe, "days": days},
        )
    )


def paces(conn: Connection) -> list[Row[Any]]:
    """Return the quotas in use within a day: owner (a fingerprint), key, interval_s, backlog_s; by owner and key."""
    return list(
        conn.execute(
            text(r"""
                SELECT regexp_replace(key, ':[^:]*$', '') AS owner, substring(key FROM '[^:]*$') AS key, interval_s,
                       GREATEST(extract(epoch FROM next_at - clock_timestamp()), 0)::float8 AS backlog_s
                FROM   ops.pace WHERE next_at > clock_timestamp() - interval '1 day' ORDER BY 1, 2
            """)
        )
    )


def allowances(conn: Connection, day: date) -> list[Row[Any]]:
    """Return what was used of a day's requests: owner (a fingerprint), used; by owner."""
    return list(
        conn.execute(
            text(r"""
                SELECT regexp_replace(key, ':[^:]*$', '') AS owner, sum(used)::int AS used
                FROM   ops.allowances WHERE day = :day GROUP BY 1 ORDER BY 1
            """),
            {"day": day},
        )
    )


def open_alerts(conn: Connection, market: str) -> list[Row[Any]]:
    """Return the conditions that hold, of a market or of none, the gravest first: level, subject, opened_at."""
    return list(
        conn.execute(
            text("""
                SELECT level, subject, opened_at FROM api.alerts
                WHERE  market IN (:market, '') AND standing AND resolved_at IS NULL
                ORDER  BY array_position(ARRAY['critical', 'warning', 'info'], level), opened_at
            """),
            {"market": market},
        )
    )


def database_bytes(conn: Connection) -> int:
    """Return the size of the database on the server's disk."""
    return int(conn.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

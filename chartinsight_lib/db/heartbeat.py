"""Who runs jobs: a scheduler says every few seconds that it is alive. The server's clock alone counts; the caller owns the
transaction."""

import os
import platform
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

ALIVE_S = 30.0
"""A scheduler that was not heard of for longer is not alive; it beats each five seconds."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What is known of a scheduler: `running` jobs at its last beat, which was `age_s` seconds ago. Datetimes are UTC."""

    name: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime
    running: int
    age_s: float


def beat(conn: Connection, *, name: str, market: str, running: int) -> None:
    """Say that the scheduler `name`, which is this process, is alive and has so many jobs under way."""
    conn.execute(
        text("""
            INSERT INTO ops.schedulers AS s (name, market, host, pid, started_at, seen_at, jobs_running)
            VALUES (:name, :market, :host, :pid, clock_timestamp(), clock_timestamp(), :running)
            ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, jobs_running = excluded.jobs_running
        """),
        {"name": name, "market": market, "host": platform.node(), "pid": os.getpid(), "running": running},
    )
    conn.execute(text("DELETE FROM ops.schedulers WHERE seen_at < clock_timestamp() - interval '7 days'"))


def leave(conn: Connection, name: str) -> None:
    """Say that a scheduler has ended, in good order."""
    conn.execute(text("DELETE FROM ops.schedulers WHERE name = :name"), {"name": name})


def heard(conn: Connection, market: str) -> list[Beat]:
    """Return all that did not end in good order, alive or not, the one heard of last first."""
    rows = conn.execute(
        text("""
            SELECT name, host, pid, started_at, seen_at, jobs_running, age_s
            FROM   api.schedulers WHERE market = :market ORDER BY seen_at DESC, name
        """),
        {"market": market},
    )
    return [Beat(*row) for row in rows]


def alive(conn: Connection, market: str, within_s: float = ALIVE_S) -> list[Beat]:
    """Return those heard of within so many seconds, the one heard of last first."""
    return [one for one in heard(conn, market) if one.age_s <= within_s]

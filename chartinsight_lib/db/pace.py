"""The slots of a quota in `ops.pace`, and what a day allows in `ops.allowances`: shared by every process on every machine
that uses the database.

One statement reserves; the row's lock makes the others wait their turn, and the server's clock is the only one. A program
that dies leaves at most the slots it had reserved unused.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import CursorResult, Engine, TextClause, text
from sqlalchemy.exc import DBAPIError

from chartinsight_lib.errors import DatabaseError
from chartinsight_lib.pace import RECOVERY, SLOWER, SLOWEST

FARTHEST = "2 minutes"
"""A slot farther away than this is no queue but a clock that was set back."""

_RESERVE = text("""
    INSERT INTO ops.pace AS p (key, next_at, interval_s)
    SELECT :key, clock_timestamp() + make_interval(secs => :count * CAST(:interval AS float8)), CAST(:interval AS float8)
    FROM   set_config('synchronous_commit', 'off', true)  -- a slot that a crash forgets is no loss, and the disk is slow
    ON CONFLICT (key) DO UPDATE
    SET    interval_s = GREATEST(:interval, p.interval_s * power(CAST(:recovery AS float8), :count)),
           next_at = GREATEST(LEAST(p.next_at, clock_timestamp() + CAST(:farthest AS interval)), clock_timestamp())
                     + make_interval(secs => :count * GREATEST(:interval, p.interval_s * power(CAST(:recovery AS float8), :count)))
    RETURNING extract(epoch FROM next_at - clock_timestamp()) - :count * interval_s, interval_s
""")
_SLOW_DOWN = text("""
    UPDATE ops.pace
    SET    next_at = GREATEST(next_at, clock_timestamp() + make_interval(secs => :wait)),
           interval_s = CASE WHEN slowed_at > clock_timestamp() - make_interval(secs => :ago) THEN interval_s
                             ELSE LEAST(interval_s * :slower, :interval * :slowest) END,
           slowed_at = CASE WHEN slowed_at > clock_timestamp() - make_interval(secs => :ago) THEN slowed_at
                            ELSE clock_timestamp() END
    WHERE  key = :key
""")
_TAKE = text("""
    INSERT INTO ops.allowances AS a (key, day, used)
    SELECT :key, CAST(:day AS date), 1
    FROM   set_config('synchronous_commit', 'off', true)
    ON CONFLICT (key, day) DO UPDATE SET used = a.used + 1 WHERE a.used < :limit
    RETURNING used
""")
_USE_UP = text("""
    INSERT INTO ops.allowances AS a (key, day, used) VALUES (:key, :day, :limit)
    ON CONFLICT (key, day) DO UPDATE SET used = GREATEST(a.used, excluded.used)
""")


class SharedSlots:
    """`pace.Slots` in the database, under keys that begin with `owner`, a fingerprint. For use by any number of threads."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._owner = owner

    def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
        """Reserve the next `count` slots of a key; see `pace.Slots`. Raises DatabaseError."""
        return self._run(_RESERVE, key, count=count, interval=interval_s, recovery=RECOVERY, farthest=FARTHEST)

    def slow_down(self, key: str, interval_s: float, *, wait_s: float, sent_ago_s: float) -> None:
        """Hold a key's slots and set them further apart, unless the last slow-down is newer than the refused request."""
        self._run(_SLOW_DOWN, key, interval=interval_s, wait=wait_s, ago=sent_ago_s, slower=SLOWER, slowest=SLOWEST)

    def _run(self, statement: TextClause, key: str, **values: object) -> tuple[float, float]:
        rows = _run(self._engine, statement, key=f"{self._owner}:{key}", **values)
        return (float(rows[0][0]), float(rows[0][1])) if rows else (0.0, 0.0)


class SharedAllowance:
    """`pace.Allowance` in the database, under keys that begin with `owner`, a fingerprint. For use by any number of threads."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._owner = owner

    def take(self, key: str, day: date, limit: int) -> bool:
        """Count one request of a key's day, if it is within the limit; see `pace.Allowance`. Raises DatabaseError."""
        return bool(_run(self._engine, _TAKE, key=f"{self._owner}:{key}", day=day, limit=limit))

    def use_up(self, key: str, day: date, limit: int) -> None:
        """Tell that a key's day is used up; see `pace.Allowance`. Raises DatabaseError."""
        _run(self._engine, _USE_UP, key=f"{self._owner}:{key}", day=day, limit=limit)


def _run(engine: Engine, statement: TextClause, **values: object) -> list[tuple[Any, ...]]:
    for last in (False, True):
        try:
            with engine.connect() as conn:
                result: CursorResult[Any] = conn.execute(statement, values)
                return [tuple(row) for row in result] if result.returns_rows else []
        except DBAPIError as error:
            if last or not error.connection_invalidated:  # a server that was restarted is there again at once
                raise DatabaseError(f"pace: the shared quota cannot be kept ({type(error.orig).__name__}).") from error
    raise AssertionError("unreachable")

"""What the tests of backups share: connections that commit, bars with their watermark, and ways to damage a file."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holding import hold
from sqlalchemy import Connection, text

from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role

NOW = datetime(2026, 11, 25, 3, 20, 11, tzinfo=UTC)
CLOCK = fixed_clock(NOW)


@contextmanager
def acting(database: Database, role: Role = Role.OWNER) -> Iterator[Connection]:
    """A connection whose statements are committed at the end."""
    engine = database.engine(role)
    with engine.begin() as conn:
        yield conn
    engine.dispose()


def bars(conn: Connection, code: str, held: Mapping[str, tuple], *, market: str = "KRX", timeframe: str = "1d") -> None:
    """Hold bars of an instrument that is known, and move the watermark, as a collection does."""
    hold(conn, code, held, market=market, timeframe=timeframe)
    conn.execute(
        text(
            "INSERT INTO live.watermarks VALUES (:market, :timeframe, live.next_watermark()) "
            "ON CONFLICT (market, timeframe) DO UPDATE SET version = excluded.version"
        ),
        {"market": market, "timeframe": timeframe},
    )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))

"""What the tests of backups share: rows to be kept, ways to compare, to hold up and to damage."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from holding import hold
from sqlalchemy import Connection, Engine, text

from chartinsight_lib.backup.manifest import Backup
from chartinsight_lib.backup.restore import restore
from chartinsight_lib.backup.tools import environment, find_tools
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings

NOW = datetime(2026, 11, 25, 3, 20, 11, tzinfo=UTC)
CLOCK = fixed_clock(NOW)
CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
RUN = UUID(int=7)
NASTY = "'; DROP TABLE live.candles; -- \\ \t\n한국 \\."
CANARY = "canary-token-5f2a"


def acting(database: Database, role: Role = Role.OWNER) -> AbstractContextManager[Connection]:
    """A connection whose statements are committed at the end."""
    return database.transaction(role)


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


# Rows that a careless copy would change: digits, infinities, arrays, JSON, quotes, line ends, years.
FILL = (
    "INSERT INTO live.instruments (market, code, name, kind, currency, states, listed_on, source, run_id) VALUES "
    "('KRX', '005930', :nasty, 'stock', 'KRW', '{halted,NULL,\"a,b\"}', '0001-01-01', 'test', :run), "
    "('KRX', '000660', '', 'stock', 'KRW', NULL, NULL, 'test', :run)",
    "INSERT INTO live.candles SELECT i.id, '1d', '2024-08-05 00:00+00', 0.1 + 0.2, 'Infinity', 1e-300, 1.0 / 3, "
    "9223372036854775807, -0.0, 8, 'test', :run FROM live.instruments AS i",
    "INSERT INTO live.watermarks VALUES ('KRX', '1d', live.next_watermark())",
    "INSERT INTO ops.quarantine (market, code, timeframe, ts, rule, action, source, item, source_row, payload, run_id) "
    "VALUES ('KRX', NULL, '1d', '9999-12-31 23:59:59.999999+00', 'r', 'rejected', 's', :nasty, 1, "
    "jsonb_build_object('k', CAST(:nasty AS text)), :run)",
    "INSERT INTO ops.tokens VALUES ('finger', CAST(:canary AS text)::bytea, now())",
    "INSERT INTO ops.allowances SELECT 'k' || n, '2024-08-05', n FROM generate_series(1, 500) AS n",
)


def fill(engine: Engine) -> None:
    with engine.begin() as conn:
        for statement in FILL:
            conn.execute(text(statement), {"nasty": NASTY, "run": RUN, "canary": CANARY})


NOT_COMPARED = {"ops.tokens", "ops.identity", "live.watermarks"}
"""What a restored database has otherwise than the one that was backed up."""


def contents(database: Database, *leaving: str) -> dict[str, str]:
    """{table: MD5 over its sorted rows}, by a statement that shares nothing with the product's."""
    with acting(database) as conn:
        names = conn.execute(
            text("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('live', 'ops', 'radar')")
        ).scalars()
        return {
            name: conn.exec_driver_sql(
                f'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text COLLATE "C")) FROM {name} AS t'
            ).scalar_one()
            for name in sorted(set(names) - NOT_COMPARED - set(leaving))
        }


def definitions(database: Database) -> str:
    """Everything but rows, as pg_dump writes it."""
    command = [find_tools(0, reads=18).path("pg_dump"), "--schema-only", "--schema=live", "--schema=ops",
               "--schema=radar", "--schema=api"]  # fmt: skip
    done = subprocess.run(
        command, env=environment(database, Role.OWNER), capture_output=True, text=True, check=True
    ).stdout
    return re.sub(r"\\(un)?restrict .*", "", done)


def restored(target: Database, made: Backup, tmp_path: Path, **options: Any) -> Any:
    options = {"replace": False, "aside": tmp_path / "aside", "clock": CLOCK, "say": lambda _: None} | options
    return restore(target, made, **options)


def until(condition: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def held_up(
    database: Database, table: str = "ops.allowances", mode: str = "ACCESS EXCLUSIVE"
) -> Iterator[Callable[[], None]]:
    """A table is locked within the `with`; gives what waits until pg_dump (or psql) stands in front of it."""
    engine = database.engine(Role.OWNER)
    with engine.begin() as conn, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
        conn.exec_driver_sql(f"LOCK TABLE {table} IN {mode} MODE")

        def waiting() -> bool:
            return bool(
                watching.exec_driver_sql(
                    "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
                    "WHERE NOT l.granted AND a.application_name IN ('pg_dump', 'psql')"
                ).scalar_one()
            )

        yield lambda: until(waiting)
    engine.dispose()


def command(settings: Settings, *arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [CHARTINSIGHT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        env={**os.environ, "CHARTINSIGHT_HOME": str(settings.home)}, **options,
    )  # fmt: skip

"""How long a backup of a store of candles takes, its check, its rehearsal and its restoring; and what compression costs.

    python benchmarks/backup.py [--bars 1000000]

Candles of 400 made-up instruments are put into an embedded server of the benchmark's own.
"""

# ruff: noqa: T201 - it prints: that is what it is for
from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import text

from chartinsight_lib.backup import make
from chartinsight_lib.backup.make import backup
from chartinsight_lib.backup.restore import restore
from chartinsight_lib.backup.verify import rehearse, verify
from chartinsight_lib.clock import system_clock
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings

INSTRUMENTS = 400
T = TypeVar("T")


def fill(database: Database, bars: int) -> None:
    engine = database.engine(Role.LOADER)
    with engine.begin() as conn:
        conn.execute(
            text("""
                INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id)
                SELECT 'KRX', to_char(n, 'FM000000'), 'n' || n, 'stock', 'KRW', 'made up', gen_random_uuid()
                FROM   generate_series(1, :instruments) AS n
            """),
            {"instruments": INSTRUMENTS},
        )
        conn.execute(
            text("""
                INSERT INTO live.candles
                SELECT i.id, '1d', '2000-01-01 00:00+00'::timestamptz + d * interval '1 day', 100 + random(), 102, 99,
                       100 + random(), (random() * 1e6)::int, random() * 1e9, 8, 'made up', gen_random_uuid()
                FROM   live.instruments AS i, generate_series(1, :days) AS d
            """),
            {"days": bars // INSTRUMENTS},
        )
    engine.dispose()


def timed(what: str, work: Callable[[], T]) -> T:
    began = time.monotonic()
    found = work()
    print(f"  {what:<44} {time.monotonic() - began:7.1f} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bars", type=int, default=1_000_000)
    bars = parser.parse_args().bars
    home = Path(tempfile.mkdtemp(prefix="chartinsight-benchmark-"))
    home.chmod(0o755)
    try:
        with open_database(Settings(home=home, _env_file=None)) as database:  # type: ignore[call-arg]
            upgrade(database)
            fill(database, bars)
            print(f"{bars:,} candles")
            for level in (6, 1):
                make.COMPRESSION = level
                made = timed(f"backup, gzip {level}", lambda: backup(database, home / "backups", system_clock))
                print(f"  {'':<44} {made.manifest.bytes / 2**20:7.1f} MB")
            timed("check: SHA-256, contents", lambda: verify(made))
            timed("check --restore: on a server of its own", lambda: rehearse(made))
            options = {"replace": True, "aside": home / "backups", "clock": system_clock, "say": lambda _: None}
            timed("restore --replace, a backup before", lambda: restore(database, made, **options))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()

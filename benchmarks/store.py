"""How fast bars are stored and read, beside other ways of doing it, in one run on one machine: printed, with the goals.

    python benchmarks/store.py [--rows 1000000] [--instruments 2700] [--days 300] [--repeat 3]

An embedded PostgreSQL of its own is filled and thrown away. Writing: `--rows` daily bars of instruments with 2,500 days each,
into an empty keyed table and again, unchanged: `store` (staging, comparison, upsert, watermark, commit), pandas' `to_sql`,
psycopg2's `execute_values` with ON CONFLICT DO UPDATE, and a bare COPY of ready-made rows. The others write into a table of the
same columns and key, without our triggers. Reading, adjusted, on a warm connection: one instrument of 500 and of 2,500 bars, and a
market, against `pd.read_sql` of the plain rows; weeks made of days against weeks that are stored. It takes about four minutes.

Exit code 1: a goal is missed. A machine that is busy disturbs it: the load stands at the end.
"""

# ruff: noqa: T201, S608 - it prints: that is what it is for; and the names it puts into statements are its own
from __future__ import annotations

import argparse
import gc
import io
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from _stage import fresh_home, load
from psycopg2.extras import execute_values
from sqlalchemy import Connection, Engine, text

from chartinsight_lib.db import bars, stage, store
from chartinsight_lib.db.copy import copy_in, copy_out, from_wire_time, to_wire_time
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.factors import upsert_factors
from chartinsight_lib.db.instruments import instrument_ids, upsert_instruments
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import CANDLE, FACTOR, INSTRUMENT, NUMBERS
from chartinsight_lib.settings import Settings

RUN, NOW = UUID(int=1), datetime(2024, 8, 20, tzinfo=UTC)
LONG, SHORT = 2_500, 500
COLUMNS = ["instrument_id", "timeframe", "ts", *NUMBERS, "flags", "source", "run_id"]
WEEK = {
    "instrument_id": "int4",
    "ts": "timestamptz",
    **dict.fromkeys(NUMBERS, "float8"),
    "volume": "int8",
    "flags": "int2",
}

OTHERS = """
CREATE SCHEMA bench;
CREATE TABLE bench.candles (LIKE live.candles, PRIMARY KEY (instrument_id, timeframe, ts),
                            CHECK (low > 0 AND low <= open AND low <= close AND high >= open AND high >= close));
GRANT USAGE ON SCHEMA bench TO chartinsight_loader, chartinsight_reader;
GRANT SELECT, INSERT, UPDATE, TRUNCATE ON bench.candles TO chartinsight_loader;
GRANT SELECT ON bench.candles TO chartinsight_reader;
"""


class Results:
    """What was measured; `goal` judges a ratio or a time and prints it."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, what: str, found: str, note: str = "") -> None:
        """Print a measure that has no goal."""
        print(f"  {what:<58} {found:>16}   {note}")

    def goal(self, what: str, found: float, least: float, unit: str, *, at_most: bool = False) -> None:
        """Print a measure beside its goal."""
        good = found <= least if at_most else found >= least
        self.missed += not good
        shown = f"{found:,.0f}{unit}" if found >= 1000 else f"{found:.2f}{unit}"
        wanted = f"goal {'≤' if at_most else '≥'} {least:,.4g}{unit}"
        self.say(what, shown, f"{wanted:<22} {'reached' if good else 'MISSED'}")


def main() -> int:
    """Run everything, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="bars to write [1000000]")
    parser.add_argument("--instruments", type=int, default=2_700, help="of the market that is read [2700]")
    parser.add_argument("--days", type=int, default=300, help="of each of them [300]")
    parser.add_argument("--repeat", type=int, default=3, help="of each fast measure; the median counts [3]")
    asked = parser.parse_args()
    results = Results()
    with fresh_home() as home, open_database(Settings(_env_file=None, home=home)) as database:
        upgrade(database)
        owner = database.engine(Role.OWNER)
        with owner.begin() as conn:
            conn.execute(text(OTHERS))
        _write(database, owner, asked, results)
        _read(database, owner, asked, home / "cache", results)
        owner.dispose()
    print(f"\n{load()}\n" + (f"{results.missed} GOALS MISSED" if results.missed else "goals reached"))
    return 1 if results.missed else 0


# Writing.


def _write(database: Database, owner: Engine, asked: argparse.Namespace, results: Results) -> None:
    loader = database.engine(Role.LOADER)
    writing = _Writing(loader, max(asked.rows // LONG, 1))

    def speed(table: str, write: Callable[[], None], repeat: int) -> float:
        """Return rows a second into a table that is emptied before, or with "" into what the last one left."""
        seconds = []
        for _ in range(repeat):
            _prepare(owner, f"TRUNCATE {table}" if table else "")
            gc.collect()
            start = time.perf_counter()
            write()
            seconds.append(time.perf_counter() - start)
        return len(writing.frame) / float(np.median(seconds))

    print(f"\nwriting {len(writing.frame):,} bars, rows a second")
    to_sql = speed("bench.candles", writing.by_to_sql, 1)
    results.say("to_sql, fresh", f"{to_sql:,.0f}")
    values = speed("bench.candles", writing.by_values, 1)
    results.say("execute_values, fresh", f"{values:,.0f}")
    results.say("execute_values, again", f"{speed('', writing.by_values, 1):,.0f}")
    copied = speed("bench.candles", writing.by_copy, asked.repeat)
    results.say("bare COPY into the keyed table", f"{copied:,.0f}")
    fresh = speed("live.candles", writing.ours, asked.repeat)
    results.say("store, fresh", f"{fresh:,.0f}")
    results.goal("store, again", speed("", writing.ours, asked.repeat), 1e6, "")
    results.goal("store, fresh, to to_sql", fresh / to_sql, 8, " x")
    results.goal("store, fresh, to a bare COPY", fresh / copied, 0.45, " x")
    results.say("store, fresh, to execute_values", f"{fresh / values:.2f} x")
    _prepare(owner, "TRUNCATE live.candles, live.instruments, live.watermarks, bench.candles RESTART IDENTITY")
    loader.dispose()


class _Writing:
    """The ways to write one frame of bars, each in a transaction of its own."""

    def __init__(self, loader: Engine, instruments: int) -> None:
        codes = [f"{n:06}" for n in range(instruments)]
        self.loader, self.frame = loader, _made(codes, LONG)
        with loader.begin() as conn:
            _know(conn, codes)
            self.ids = instrument_ids(conn, "KRX")
        numbered = self.frame.assign(instrument_id=self.frame["code"].map(self.ids), timeframe="1d", source="bench")
        self.rows = numbered.assign(run_id=str(RUN))[COLUMNS].sort_values(["instrument_id", "ts"], ignore_index=True)
        self.payload = _payload(loader, self.rows)

    def ours(self) -> None:
        """As a collection stores them."""
        with self.loader.begin() as conn:
            staged = stage.stage_candles(conn, self.frame, self.ids, "1d")
            stage.upsert_staged(conn, staged, source="bench", run_id=RUN, now=NOW)
            store.move_watermark(conn, "KRX")

    def by_to_sql(self) -> None:
        """As pandas does by default; it knows no upsert."""
        with self.loader.begin() as conn:
            self.rows.to_sql("candles", conn, schema="bench", if_exists="append", index=False)

    def by_values(self) -> None:
        """As psycopg2's many-row INSERT."""
        names, new = ", ".join(COLUMNS), ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[3:])
        statement = f"INSERT INTO bench.candles ({names}) VALUES %s ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE SET {new}"
        with self.loader.begin() as conn:
            execute_values(_cursor(conn), statement, list(self.rows.itertuples(index=False, name=None)), page_size=1000)

    def by_copy(self) -> None:
        """As fast as the table takes them: the rows lie ready in COPY's own form."""
        statement = f"COPY bench.candles ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
        with self.loader.begin() as conn:
            _cursor(conn).copy_expert(statement, io.BytesIO(self.payload))


def _payload(loader: Engine, rows: pd.DataFrame) -> bytes:
    """Return rows in COPY's own form, as the database writes it: a bare COPY has nothing to prepare."""
    buffer = io.BytesIO()
    with loader.connect() as conn:
        cursor = _cursor(conn)
        cursor.execute("CREATE TEMPORARY TABLE plain (instrument_id int, ts timestamptz, open float8, high float8, low float8, "
                       "close float8, volume int8, value float8, flags int2)")  # fmt: skip
        columns: dict[str, tuple[str, Any]] = {
            "instrument_id": ("int4", rows["instrument_id"].to_numpy()),
            "ts": ("timestamptz", to_wire_time(rows["ts"])),
            **{name: ("int8" if name == "volume" else "float8", rows[name].to_numpy()) for name in NUMBERS},
            "flags": ("int2", rows["flags"].to_numpy()),
        }
        copy_in(cursor, "plain", columns)
        cursor.copy_expert(
            "COPY (SELECT instrument_id, '1d', ts, open, high, low, close, volume, value, flags, 'bench', "
            f"'{RUN}'::uuid FROM plain ORDER BY instrument_id, ts) TO STDOUT (FORMAT binary)",
            buffer,
        )
    return buffer.getvalue()


# Reading.


def _read(database: Database, owner: Engine, asked: argparse.Namespace, cache: Path, results: Results) -> None:
    _stock(database, owner, asked)
    reader = database.engine(Role.READER)
    with reader.connect() as conn:
        ids = instrument_ids(conn, "KRX")
        print("\nreading one instrument, adjusted, ms")
        for code, count in (("short", SHORT), ("long", LONG)):
            number = int(ids[code])
            ours = _milliseconds(lambda: bars.candles(conn, number), 300)  # noqa: B023
            plain = _milliseconds(lambda: _by_read_sql(conn, number), 100)  # noqa: B023
            _expect(len(bars.candles(conn, number)), count)
            results.goal(f"candles, {count:,} bars, p50", float(np.median(ours)), 3, " ms", at_most=True)
            results.say(f"candles, {count:,} bars, p95", f"{np.quantile(ours, 0.95):.2f} ms")
            results.say(f"pd.read_sql of the plain rows, {count:,} bars, p50", f"{np.median(plain):.2f} ms")
        weeks = _milliseconds(lambda: bars.candles(conn, number, "1w"), 100)
        stored = _milliseconds(lambda: _stored_weeks(conn, "instrument_id = %(id)s", {"id": number}), 100)
        results.say(f"weeks made of {LONG:,} days, p50", f"{np.median(weeks):.2f} ms")
        results.say(
            "the same weeks, stored, p50",
            f"{np.median(stored):.2f} ms",
            f"{np.median(weeks) / np.median(stored):.1f} x",
        )

        total = asked.instruments * asked.days + SHORT + LONG
        print(f"\nreading a market of {total:,} bars, adjusted, ms")
        plain = _milliseconds(lambda: _by_read_sql(conn), 2)
        first = _milliseconds(lambda: bars.panel(conn, "KRX", cache=cache), 1, warm=False)
        copied = _milliseconds(lambda: bars.panel(conn, "KRX", cache=cache), 15)
        rows = _milliseconds(lambda: bars.panel(conn, "KRX"), asked.repeat)
        past = _milliseconds(lambda: bars.panel(conn, "KRX", cache=cache, as_of=date(2024, 6, 3)), 15)
        _expect(len(bars.panel(conn, "KRX", cache=cache).ts), total)
        results.say("pd.read_sql of the plain rows", f"{np.median(plain):,.0f} ms")
        results.say(
            "panel, from the database",
            f"{np.median(rows):,.0f} ms",
            f"{np.median(plain) / np.median(rows):.1f} x as fast",
        )
        results.say("panel, from the database, and its copy made", f"{first[0]:,.0f} ms")
        results.say("panel, from the copy", f"{np.median(copied):,.0f} ms")
        results.say("panel, from the copy, as of a day", f"{np.median(past):,.0f} ms")
        results.goal("panel from the copy, to pd.read_sql", float(np.median(plain) / np.median(copied)), 10, " x")
        weeks = _milliseconds(lambda: bars.panel(conn, "KRX", timeframe="1w", cache=cache), 7)
        stored = _milliseconds(lambda: _stored_weeks(conn, "true", {}), asked.repeat)
        results.say("weeks made of days, from the copy", f"{np.median(weeks):,.0f} ms")
        results.say(
            "the same weeks, stored", f"{np.median(stored):,.0f} ms", f"{np.median(weeks) / np.median(stored):.2f} x"
        )
    reader.dispose()


def _stock(database: Database, owner: Engine, asked: argparse.Namespace) -> None:
    """Store a market, one instrument in seven with a split; and its weeks, as if they had been collected."""
    loader = database.engine(Role.LOADER)
    codes = [f"{n:06}" for n in range(asked.instruments)]
    frames = [_made(codes, asked.days), _made(["short"], SHORT), _made(["long"], LONG)]
    with loader.begin() as conn:
        _know(conn, [*codes, "short", "long"])
        ids = instrument_ids(conn, "KRX")
        for frame in frames:
            staged = stage.stage_candles(conn, frame, ids, "1d")
            stage.upsert_staged(conn, staged, source="bench", run_id=RUN, now=NOW)
        splits = pd.DataFrame(
            [(code, date(2024, 5, 2), 0.5, 2.0, "split") for code in [*codes[::7], "short", "long"]], columns=FACTOR
        )
        upsert_factors(conn, splits, ids, source="bench", detected_at=NOW, run_id=RUN)
        store.move_watermark(conn, "KRX")
    with loader.begin() as conn:
        weeks = bars.panel(conn, "KRX", timeframe="1w", final_only=False)
        cursor = _cursor(conn)
        cursor.execute("CREATE TEMPORARY TABLE weeks (instrument_id int, ts timestamptz, open float8, high float8, low float8, "
                       "close float8, volume int8, value float8, flags int2)")  # fmt: skip
        columns: dict[str, tuple[str, Any]] = {
            "instrument_id": ("int4", np.repeat(weeks.ids, np.diff(weeks.bounds))),
            "ts": ("timestamptz", to_wire_time(pd.Series(weeks.ts))),
            **{name: (WEEK[name], weeks.columns[name]) for name in [*NUMBERS, "flags"]},
        }
        copy_in(cursor, "weeks", columns)
        cursor.execute("INSERT INTO bench.candles SELECT instrument_id, '1w', ts, open, high, low, close, volume, value, flags, "
                       "'bench', %s FROM weeks ORDER BY instrument_id, ts", [str(RUN)])  # fmt: skip
    loader.dispose()
    _prepare(owner)


def _by_read_sql(conn: Connection, number: int | None = None) -> pd.DataFrame:
    statement = """
        SELECT c.instrument_id, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags
        FROM   live.candles AS c JOIN live.instruments AS i ON i.id = c.instrument_id
        WHERE  i.market = 'KRX' AND c.timeframe = '1d' AND (:id IS NULL OR c.instrument_id = :id)
        ORDER  BY c.instrument_id, c.ts
    """
    if number is not None:
        statement = statement.replace("(:id IS NULL OR c.instrument_id = :id)", "c.instrument_id = :id")
        return pd.read_sql(text(statement), conn, params={"id": number})
    return pd.read_sql(text(statement.replace("AND (:id IS NULL OR c.instrument_id = :id)", "")), conn)


def _stored_weeks(conn: Connection, which: str, parameters: dict[str, Any]) -> pd.DataFrame:
    """Read weeks that lie in a table, by the fastest road there is."""
    statement = f"""
        SELECT instrument_id, ts, {", ".join(NUMBERS)}, flags FROM bench.candles
        WHERE  {which} AND timeframe = '1w' ORDER BY instrument_id, ts
    """
    found = copy_out(_cursor(conn), statement, parameters, WEEK)
    return pd.DataFrame(found, index=from_wire_time(found.pop("ts")), copy=False)


# Both.


def _made(codes: list[str], days: int) -> pd.DataFrame:
    """Return daily bars up to 30 July 2024, made by chance, as a candle frame."""
    chance = np.random.default_rng(days)
    count = len(codes) * days
    stamps = pd.bdate_range(end="2024-07-30", periods=days, tz="UTC").as_unit("us")
    prices = np.sort(chance.integers(1_000, 90_000, (count, 4)).astype("float64"), axis=1)
    return pd.DataFrame(
        {
            "code": np.repeat(codes, days),
            "ts": np.tile(stamps.tz_localize(None).to_numpy(), len(codes)),
            "open": prices[:, 1],
            "high": prices[:, 3],
            "low": prices[:, 0],
            "close": prices[:, 2],
            "volume": chance.integers(0, 10**7, count),
            "value": prices[:, 2] * 1000,
            "flags": np.zeros(count, "int16"),
        }
    ).assign(ts=lambda frame: frame["ts"].dt.tz_localize("UTC"))[CANDLE]


def _know(conn: Connection, codes: list[str]) -> None:
    frame = pd.DataFrame({"code": codes}).assign(
        market="KRX", name="bench", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
    )
    upsert_instruments(conn, frame[INSTRUMENT], source="bench", run_id=RUN)


def _expect(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{found:,} bars were read, and {expected:,} are expected")


def _milliseconds(read: Callable[[], object], repeat: int, *, warm: bool = True) -> list[float]:
    if warm:
        read()
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        read()
        found.append((time.perf_counter() - start) * 1000)
    return found


def _prepare(owner: Engine, statement: str = "") -> None:
    """Run a statement, then give every measure the same start: nothing to vacuum."""
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        if statement:
            conn.exec_driver_sql(statement)
        conn.exec_driver_sql("VACUUM ANALYZE live.candles")
        conn.exec_driver_sql("VACUUM ANALYZE bench.candles")


def _cursor(conn: Connection) -> Any:
    return conn.connection.cursor()


if __name__ == "__main__":
    sys.exit(main())

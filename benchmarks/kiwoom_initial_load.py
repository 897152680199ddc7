"""How long the first load of a whole market takes, and where the time goes.

    python benchmarks/kiwoom_initial_load.py [--instruments 2700] [--years 10] [--speed 100] [--latency-ms 0]

A simulator shows a market, its clock and quota running `--speed` times as fast as the real ones; list and daily bars of all
instruments are collected into a fresh PostgreSQL, and then once more. Printed are: bars stored, calls made (by the server's
own log) and the fewest that would do (by the market's own days), refusals, time, memory, where the time went, what the same
calls take at the real quota, and what the second collection changed.

At x100 the quota's second is 10 ms long, so that a few requests that an operating system delays are refused and asked again;
whether the real quota is kept is what kiwoom_quota.py tells.

It takes some minutes and 2 GB of memory. Exit code 1: an instrument failed, a day of the market is neither stored nor accounted
for, more than 1 % more calls were made than needed, or the second collection changed a bar of a day that had ended.
"""
# ruff: noqa: T201 - it prints: that is what it is for

from __future__ import annotations

import argparse
import functools
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import UUID

import pandas as pd
import psutil
from _stage import DAILY, LIST, PAGE, TOKEN, Show, Simulator, cpu_seconds, fresh_home, load, settings_for, simulator
from sqlalchemy import Engine, text

from chartinsight_lib import collect, ledger, normalise, normalise_kiwoom, sources
from chartinsight_lib.clients._http import JsonHttp
from chartinsight_lib.clients.base import Batch, Source
from chartinsight_lib.clients.kiwoom_source import KINDS
from chartinsight_lib.db import factors, stage, store
from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.pace import SHARE, Pacer
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.options import REAL_QUOTA
from chartinsight_lib.simulator.process import START

MORE_CALLS = 1.01
FETCHING = {
    "wait for a place in the quota": (Pacer, "wait"),
    "request, answer, JSON": (JsonHttp, "post"),
    "records to frames": (normalise_kiwoom, "daily"),
}
STORING = {
    "normalise": (normalise, "daily"),
    "learn factors": (collect, "_factors"),
    "compare with what is held": (stage, "stage_candles"),
    "join price bases": (collect, "join_staged"),
    "upsert bars": (stage, "upsert_staged"),
    "gaps": (store, "upsert_gaps"),
    "factors": (factors, "upsert_factors"),
    "forget factors": (factors, "forget_factors"),
}


class Times:
    """Seconds per name, added up over threads."""

    def __init__(self) -> None:
        self._lock, self._seconds = threading.Lock(), defaultdict[str, float](float)

    def __getitem__(self, name: str) -> float:
        return self._seconds[name]

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed."""

        @functools.wraps(call)
        def timing(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                with self._lock:
                    self._seconds[name] += took

        return timing

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the steps of FETCHING and STORING for the length of a `with`."""
        with ExitStack() as stack:
            for name, (where, what) in (FETCHING | STORING).items():
                stack.enter_context(patch.object(where, what, self.timed(name, getattr(where, what))))
            yield


class Watched:
    """A source of which is timed how long its batches keep the caller waiting."""

    def __init__(self, source: Source, times: Times) -> None:
        self._source, self._times = source, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        """Yield the source's batches."""
        batches = iter(self._source.daily(held))
        following = self._times.timed("wait for bars", lambda: next(batches, None))
        while (batch := following()) is not None:
            yield batch


class Round(NamedTuple):
    """One collection: what it took and what it did."""

    run_id: UUID
    seconds: float
    times: Times
    requests: list[dict[str, Any]]
    processors: dict[str, float]
    rows: pd.Series
    errors: dict[str, str]

    def calls(self, api_id: str) -> int:
        """Return how often a TR was asked."""
        return sum(one["api_id"] == api_id for one in self.requests)

    @property
    def refused(self) -> int:
        """Requests that were one too many."""
        return sum(one["status"] == 429 for one in self.requests)


def main() -> int:
    """Load twice, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, default=2700, help="that live at some time from 2016 to 2027 [2700]")
    parser.add_argument("--years", type=int, default=10, help="how far back [10]")
    parser.add_argument("--speed", type=float, default=100.0, help="simulated seconds per second [100]")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of the server [0]")
    asked = parser.parse_args()
    show = Show(asked.instruments, START, asked.speed, asked.latency_ms / 1000)
    with fresh_home() as home, simulator(show) as running:
        settings = settings_for(
            home, running, kiwoom_rate=REAL_QUOTA * asked.speed, kiwoom_years=asked.years, source="simulated"
        )
        with open_database(settings) as database:
            upgrade(database)
            engine = database.engine(Role.LOADER)
            try:
                return 0 if _both(engine, settings, running, asked.speed) else 1
            finally:
                engine.dispose()


def _both(engine: Engine, settings: Settings, running: Simulator, speed: float) -> bool:
    began, today = settings.clock(), START.date()
    first = _round(engine, settings, running)
    memory = _peak_mb()
    since = today - timedelta(days=round(365.25 * settings.kiwoom_years))
    days = running.rows(KINDS, since, today)
    fewest = 1 + 2 + sum(2 * max(1, -(-count // PAGE)) for count in days.values())
    calls = len(first.requests)
    with engine.connect() as conn:
        accounted = {code: int(held) for code, held in conn.execute(_ACCOUNTED)}
        bars = conn.execute(text("SELECT count(*) FROM live.candles")).scalar_one()
    missing = {
        code: count for code, count in days.items() if accounted.get(code, 0) < count - 1
    }  # today's may not trade
    _print_first(first, bars, len(days), fewest, memory, speed)
    print(f"  days of the market not accounted for   {len(missing)} instruments")

    second = _round(engine, settings, running)
    with engine.connect() as conn:
        values = {"run": second.run_id, "today": today}
        changed, past = conn.execute(_CHANGED, values).one()
    print(f"\nonce more, {(settings.clock() - began) / timedelta(hours=1):.1f} h of the simulation later")
    print(f"  calls                    {len(second.requests):>12,}   in {second.seconds:.1f} s")
    print(f"  rows read                {second.rows['read']:>12,}")
    print(f"  bars changed             {changed:>12,}   of them of days that had ended: {past}")
    _print_times(second)
    print(f"\n{load()}")
    errors = first.errors | second.errors
    for code, error in list(errors.items())[:3]:
        print(f"  {code}: {error}")
    good = not (errors or missing or past or calls > fewest * MORE_CALLS)
    print("goals reached" if good else "GOALS MISSED")
    return good


_ACCOUNTED = text("""
    SELECT i.code, (SELECT count(*) FROM live.candles AS c WHERE c.instrument_id = i.id AND c.timeframe = '1d')
                 + (SELECT count(*) FROM ops.gaps AS g WHERE g.instrument_id = i.id AND g.timeframe = '1d')
                 + (SELECT count(*) FROM ops.quarantine AS q WHERE q.code = i.code AND q.action = 'rejected')
    FROM   live.instruments AS i
""")
_CHANGED = text("""
    SELECT count(*), count(*) FILTER (WHERE ts < CAST(:today AS date)) FROM live.candles WHERE run_id = :run
""")


def _round(engine: Engine, settings: Settings, running: Simulator) -> Round:
    """Collect list and daily bars, as `collect` does, in a run of its own."""
    times, before = Times(), len(running.requests())
    processors = {"simulator": psutil.Process(running.pid), "PostgreSQL": _server(engine)}
    used = {name: cpu_seconds(process) for name, process in processors.items()}
    own, began = time.process_time(), time.perf_counter()
    with times.watching(), ledger.notebook_run(engine, None, job="benchmark", clock=settings.clock) as run_id:
        source: Any = Watched(sources.open_source("simulated", settings, engine), times)
        sync_instruments(engine, source, run_id=run_id, clock=settings.clock)
        report = collect.collect_daily(engine, source, run_id=run_id, clock=settings.clock)
    seconds = time.perf_counter() - began
    taken = {"this process": time.process_time() - own}
    taken |= {name: cpu_seconds(process) - used[name] for name, process in processors.items()}
    return Round(
        run_id, seconds, times, running.requests()[before:], taken, report.table().iloc[-1], dict(report.errors)
    )


def _print_first(found: Round, bars: int, instruments: int, fewest: int, memory: float, speed: float) -> None:
    calls, pages = len(found.requests), found.calls(DAILY)
    other = Counter(one["status"] for one in found.requests if one["status"] not in {200, 429})
    real = timedelta(seconds=round(calls / (REAL_QUOTA * SHARE)))
    print(f"first load; {load()}")
    print(f"  instruments              {instruments:>12,}")
    print(f"  bars stored              {bars:>12,}   {bars / found.seconds:,.0f} a second")
    print(
        f"  calls                    {calls:>12,}   {found.calls(TOKEN)} token, {found.calls(LIST)} lists, {pages:,} pages"
    )
    print(f"  fewest calls possible    {fewest:>12,}   made: {calls / fewest:.4f} times as many")
    print(f"  refused (429)            {found.refused:>12,}   other failures: {sum(other.values())}")
    print(f"  time                     {found.seconds:>10,.1f} s   {pages / found.seconds:.0f} pages a second; "
          f"the quota at x{speed:g} allows {REAL_QUOTA * speed:.0f}")  # fmt: skip
    print(f"  at the real quota        {real!s:>12}   {REAL_QUOTA} calls a second, of which {SHARE:.0%} are used")
    print(f"  peak memory              {memory:>9,.0f} MB")
    _print_times(found)


def _print_times(found: Round) -> None:
    times, waiting = found.times, found.times["wait for bars"]
    print(f"  the collecting thread    {found.seconds:>10,.1f} s")
    print(f"    wait for bars          {waiting:>10,.1f} s   {waiting / found.seconds:.0%}")
    known = sum(times[name] for name in STORING)
    for name in STORING:
        print(f"    {name:<27}{times[name]:>6,.1f} s   {times[name] / found.seconds:.0%}")
    rest = found.seconds - waiting - known
    print(f"    {'rest (commits, records)':<27}{rest:>6,.1f} s   {rest / found.seconds:.0%}")
    print("  the fetching threads, together")
    for name in FETCHING:
        print(f"    {name:<30}{times[name]:>7,.1f} s")
    print("  processor time: " + ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in found.processors.items()))


def _peak_mb() -> float:
    """Return the most memory that this process ever had (VmHWM), in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _server(engine: Engine) -> psutil.Process:
    """Return the PostgreSQL server's main process."""
    with engine.connect() as conn:
        backend = psutil.Process(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
    server = backend.parent()
    assert server is not None  # noqa: S101 - a backend has a parent
    return server


if __name__ == "__main__":
    sys.exit(main())

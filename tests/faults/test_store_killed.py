"""kill -9 of a collecting process, at every step and at any moment, and of the PostgreSQL server under it: nothing is lost,
nothing is twice, no batch is there by half, and to put it right it is simply run again.

What the tables may say after a kill is known: the state after each commit of a run in which nobody was killed. There is no
other state, so that every batch is there as a whole, with its gaps, factors, cursors and record, or not at all.

    FAULT_RUNS=100 pytest tests/faults/test_store_killed.py -s      every step before and after, and a hundred moments
    FAULT_SEED=…                                                   the same moments again, by the seed that was printed
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil
import pytest
from killed_collector import NOW, Point, State, collect, collect_in, prepare, state, undisturbed
from made_market import MOMENTS
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from steps import STEPS, at

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.embedded import read_state
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.layout import find_layout
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings

RUNS = int(os.environ.get("FAULT_RUNS", "5"))
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**9))
ALL = RUNS >= 100
"""Whether each step is met before and after; a few runs meet it on one side only."""
GONE_WITHIN_S = 30.0

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are forked, and their end noticed, as Linux does"
)


class Kept:
    """One database, what it says after each commit of an undisturbed run, and processes that are killed in the midst of one."""

    def __init__(self, engine: Engine, url: str, processes: ForkServerContext) -> None:
        self.engine, self.url, self.processes = engine, url, processes
        self.states, self.calls = undisturbed(engine)
        self.ended: Counter[str] = Counter()

    def killed(self, point: Point | None, after_s: float | None = None) -> None:
        """Start a process that kills itself, or is killed after a while; look at what it left, and run it again."""
        prepare(self.engine)
        process = self.processes.Process(target=collect_in, args=(self.url, point))
        process.start()
        process.join(after_s)
        process.kill()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if point else process.exitcode)
        assert process.exitcode in {0, -signal.SIGKILL}
        died = process.exitcode != 0
        lost = self.lost(1 if died else 0)
        left = state(self.engine)
        assert left in self.states, f"{point or after_s}: {difference(self.states, left)}"
        self.ended[f"after commit {self.states.index(left)}" if died else "by itself"] += 1
        collect(self.engine)
        assert state(self.engine).tables == self.states[-1].tables
        assert self.lost(0) == []
        assert len(lost) <= 1

    def lost(self, expected: int) -> list[Any]:
        """Reap until as many runs as expected are lost; a process killed before its run began has none."""
        clock, deadline = fixed_clock(MOMENTS[NOW]), time.monotonic() + GONE_WITHIN_S
        while True:
            with self.engine.begin() as conn:
                found = ledger.reap(conn, clock)
            with self.engine.connect() as conn:
                running = conn.exec_driver_sql("SELECT count(*) FROM ops.runs WHERE state = 'running'").scalar_one()
            if found or not running or not expected:
                assert running == 0
                return found
            assert time.monotonic() < deadline, "the server still holds the lock of a process that is gone"
            time.sleep(0.01)


def difference(states: list[State], left: State) -> str:
    """Say what fits no state: for each, which tables differ."""
    return "; ".join(
        f"{number}: "
        + ", ".join(
            f"{name} ({len(getattr(left.tables, name))} of {len(getattr(known.tables, name))})"
            for name in ("candles", "factors", "gaps", "quarantine", "read")
            if getattr(known.tables, name) != getattr(left.tables, name)
        )
        + ", ".join(name for name in ("instruments", "cursors", "items") if getattr(known, name) != getattr(left, name))
        for number, known in enumerate(states)
    )


@pytest.fixture(scope="module")
def kept(database: Database, emptied: Callable[[], None]) -> Iterator[Kept]:
    # The server that forks has everything imported, and no connection; a process is there in a moment.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        ["pytest", "chartinsight_lib.collect", "chartinsight_lib.listing", "chartinsight_lib.db.bars"]
    )
    engine = database.engine(Role.LOADER)
    found = Kept(engine, database.urls[Role.LOADER].render_as_string(hide_password=False), processes)
    yield found
    print(f"\nkilled {found.ended.total()} times: {dict(sorted(found.ended.items()))}")  # noqa: T201 - for `pytest -s`
    engine.dispose()
    emptied()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_a_collection_leaves_whole_batches_and_is_run_again(kept, step):
    chance = random.Random(f"{SEED} {step}")  # noqa: S311 - chaos, not a secret
    times = kept.calls[step]
    assert times
    for when in ("before", "after") if ALL else (chance.choice(["before", "after"]),):
        kept.killed(Point(step, when, chance.randint(1, times)))


def test_killed_at_any_moment_a_collection_leaves_whole_batches_and_is_run_again(kept):
    print(f"seed {SEED}: repeat with FAULT_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(SEED)  # noqa: S311 - chaos, not a secret
    whole = 0.0
    for _ in range(2):  # with the first the server that forks is started
        prepare(kept.engine)
        process = kept.processes.Process(target=collect_in, args=(kept.url, None))
        started = time.monotonic()
        process.start()
        process.join()
        whole = time.monotonic() - started
        assert process.exitcode == 0
        assert state(kept.engine).tables == kept.states[-1].tables
    for _ in range(RUNS):
        kept.killed(None, chance.uniform(0, whole))


def test_the_server_killed_in_the_midst_of_an_upsert_comes_back_with_whole_batches_and_the_rest_is_collected(
    empty_home: Path,
):
    settings = Settings(home=empty_home, runs_dir=empty_home / "runs", _env_file=None)
    told = find_layout(empty_home).state
    with open_database(settings) as first:
        upgrade(first)
        engine = first.engine(Role.LOADER)
        states, calls = undisturbed(engine)
        engine.dispose()
    for number, when in ((2, "after"), (calls["upsert"] - 1, "before")):
        with open_database(settings) as database:
            engine = database.engine(Role.LOADER)
            prepare(engine)
            server = psutil.Process(read_state(told)["pid"])
            with pytest.raises(SQLAlchemyError), at(engine, "upsert", when, number, server.kill):
                collect(engine)
            engine.dispose()
        with open_database(settings) as database:
            engine = database.engine(Role.LOADER)
            # The list is committed, and the batches before the one that was being stored; that one left nothing.
            with engine.begin() as conn:
                assert len(ledger.reap(conn, fixed_clock(MOMENTS[NOW]))) == 1
            left = state(engine)
            assert left == states[number], difference(states, left)
            collect(engine)
            assert state(engine).tables == states[-1].tables
            engine.dispose()

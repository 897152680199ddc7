"""The process that is killed: it lists and collects two sources in one run, and may kill itself at a step. What it stores is
known batch by batch, from a run in which nobody was killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any

from made_market import DAYS, MOMENTS, AdjustingVendor, RawVendor, Tables, Vendor, empty, tables
from sqlalchemy import Engine, make_url, text
from steps import at, committed, counted

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily, collect_quotes
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.listing import sync_instruments

MARKET = 0
"""The seed of a market in which every step has something to do."""
CODES = ("000010", "000020", "000030", "0000A0", "0000A1", "0000A2")
BEFORE, NOW = 14, 43
"""Moments: until then everything was collected; and when the killed one collects."""


@dataclass(frozen=True)
class Point:
    """Where the process kills itself: `before` or `after` call number `number` of a step."""

    step: str
    when: str
    number: int


def source(kind: type[Vendor], moment: int, since: date = DAYS[0]) -> Vendor:
    """Return a source as it is asked at a moment."""
    return kind(MARKET, MOMENTS[moment], fixed_clock(MOMENTS[moment]), CODES, since)


def prepare(engine: Engine) -> None:
    """Leave behind what an earlier evening collected, and the quotes of a morning since."""
    with engine.begin() as conn:
        for table in ("instruments", "instrument_history"):
            conn.execute(text(f"DELETE FROM live.{table}"))
    empty(engine)
    clock = fixed_clock(MOMENTS[BEFORE])
    with ledger.notebook_run(engine, None, job="earlier", clock=clock) as run_id:
        sync_instruments(engine, source(RawVendor, BEFORE), run_id=run_id, clock=clock)
        collect_daily(engine, source(AdjustingVendor, BEFORE), run_id=run_id, clock=clock).check()
        collect_daily(engine, source(RawVendor, BEFORE, DAYS[2]), run_id=run_id, clock=clock).check()
        collect_quotes(engine, source(RawVendor, BEFORE + 3), run_id=run_id, clock=clock)


def collect(engine: Engine) -> None:
    """Do what the killed process does."""
    clock = fixed_clock(MOMENTS[NOW])
    with ledger.notebook_run(engine, None, job="killed", clock=clock) as run_id:
        sync_instruments(engine, source(RawVendor, NOW), run_id=run_id, clock=clock)
        for kind in (AdjustingVendor, RawVendor):
            collect_daily(engine, source(kind, NOW), run_id=run_id, clock=clock, again=kind is RawVendor).check()


def collect_in(url: str, point: Point | None) -> None:
    """The same in a process of its own: `url` of the database, for the loader."""
    engine = Database({Role.LOADER: make_url(url)}).engine(Role.LOADER)
    with ExitStack() as stack:
        if point:
            stack.enter_context(at(engine, point.step, point.when, point.number, kill_me))
        collect(engine)


def kill_me() -> None:
    """Be no more."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class State:
    """Everything that was committed: the tables, and what the runs say they did."""

    tables: Tables
    instruments: list[tuple[Any, ...]]
    cursors: list[tuple[Any, ...]]
    items: list[tuple[Any, ...]]


def state(engine: Engine) -> State:
    """Read everything."""
    queries = {
        "instruments": "SELECT code, name FROM live.instruments ORDER BY 1",
        "cursors": "SELECT code, c.source, asked_from, asked_until FROM ops.cursors AS c "
        "JOIN live.instruments ON id = instrument_id ORDER BY 1, 2",
        "items": "SELECT item, i.state, i.rows::text, i.error FROM ops.run_items AS i JOIN ops.runs AS r USING (run_id) "
        "WHERE job = 'killed' ORDER BY started_at, 1",
    }
    with engine.connect() as conn:
        found = {name: [tuple(row) for row in conn.exec_driver_sql(query)] for name, query in queries.items()}
    return State(tables(engine), **found)


def undisturbed(engine: Engine) -> tuple[list[State], Counter[str]]:
    """Collect, and return the state after each commit, and how often each step was taken."""
    prepare(engine)
    states = [state(engine)]
    calls: Counter[str] = Counter()
    with counted(engine, calls), committed(engine, lambda: states.append(state(engine))):
        collect(engine)
    return states, calls

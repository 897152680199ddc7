"""Whatever comes in between, the table ends as that of one clean collection.

Loads, increments after any silence, quotes and files of several sources; batches that fail or that the database refuses;
connections that are cut, sources that give up, rows that are garbled; runs that die or are given up and go on; clocks that
are minutes off: in any order, against a real PostgreSQL. Then one more collection, undisturbed.

    FAULT_RUNS=10000 pytest tests/faults/test_interleavings.py -s      what the design promises; the suite makes fewer

Hypothesis prints the smallest sequence that fails, and a blob with which `@reproduce_failure` repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interleaving import AT_A_BATCH, AT_A_STEP, Action, Fault, Story, World
from made_market import CODES, DAYS, EVENING, MOMENTS, MORNING, RawVendor, Tables, known, stock
from steps import IN_A_TRANSACTION

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.listing import sync_instruments

RUNS = int(os.environ.get("FAULT_RUNS", "60"))
SEEDS = 100
"""So many markets; of each the clean tables are made once for each moment."""
ENDS = [
    number for number, moment in enumerate(MOMENTS)
    if moment.time() in {MORNING, EVENING} and moment.date() in DAYS[5::2]
]  # fmt: skip


faults = st.one_of(
    st.builds(Fault, st.sampled_from(AT_A_BATCH), st.integers(1, 2)),
    st.builds(
        Fault, st.sampled_from(AT_A_STEP), st.integers(1, 2), st.sampled_from(IN_A_TRANSACTION),
        st.sampled_from(["before", "after"]),
    ),
    st.builds(Fault, st.just("killed"), st.integers(1, 2), st.just("commit"), st.sampled_from(["before", "after"])),
)  # fmt: skip


def actions(*who: str) -> st.SearchStrategy[Action]:
    return st.builds(
        Action,
        who=st.sampled_from(who),
        later=st.sampled_from([0, 1, 2, 3, 5, 8, 12, 16, 20]),
        skew=st.sampled_from([0, 0, -5, 5]),
        again=st.integers(0, 4).map(lambda chance: chance == 4),
        codes=st.sampled_from([CODES, CODES, CODES[:1], CODES[1:]]),
        first=st.sampled_from([0, 0, 0, 3, 6]),
        pieces=st.integers(1, 3),
        fault=st.one_of(st.none(), st.none(), faults),
        inside=st.sampled_from(["", "", "", *who]),
    )


def stories(*who: str) -> st.SearchStrategy[Story]:
    return st.builds(
        Story,
        st.integers(0, SEEDS - 1),
        st.one_of(*(st.tuples(*[actions(*who)] * length) for length in (1, 2, 3, 3))),
        st.sampled_from(ENDS),
    )


@pytest.fixture(scope="module")
def world(database: Database, emptied: Callable[[], None]) -> Iterator[World]:
    engine = database.engine(Role.LOADER)
    found = World(engine)
    with ledger.notebook_run(engine, None, job="sync", clock=fixed_clock(MOMENTS[-1])) as run_id:
        everybody = RawVendor(0, MOMENTS[-1], fixed_clock(MOMENTS[-1]))
        sync_instruments(engine, everybody, run_id=run_id, clock=everybody.clock)
    yield found
    met = ", ".join(f"{name} {count}" for name, count in (found.stories + found.met).most_common())
    print(f"\n{found.stories.total()} stories: {met}")  # noqa: T201 - for `pytest -s`
    engine.dispose()
    emptied()


def runs(share: float) -> Callable[[Any], Any]:
    return settings(
        max_examples=max(int(RUNS * share), 1), deadline=None, derandomize=False, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@runs(0.4)
@given(story=stories("raw", "quotes"))
def test_a_source_of_raw_prices_ends_in_the_tables_of_one_clean_collection(world, story):
    clean = world.told(story, "raw")
    garbled = any(action.fault and action.fault.kind == "garbled" for action in story.actions)
    found = world.finished(story, Action("raw", again=garbled))
    assert found.candles == clean.candles
    assert found.factors == clean.factors
    assert found.gaps == clean.gaps
    assert found.read == clean.read
    assert set(found.quarantine) >= set(clean.quarantine)
    assert len(set(found.quarantine)) == len(found.quarantine)
    if not garbled:
        assert found.quarantine == clean.quarantine


@runs(0.3)
@given(story=stories("adjusting"))
def test_a_source_that_restates_its_past_ends_in_the_prices_of_one_clean_collection_on_one_basis(world, story):
    clean = world.told(story, "adjusting")
    garbled = any(action.fault and action.fault.kind == "garbled" for action in story.actions)
    found = world.finished(story, Action("adjusting", again=garbled))
    assert found.gaps == clean.gaps
    assert keys(found.candles) == keys(clean.candles)
    assert found.read.keys() == clean.read.keys()
    assert rules(found) >= rules(clean)
    if not garbled:
        assert rules(found) == rules(clean)
    for code in CODES:
        compare(code, story, found, clean)


@runs(0.3)
@given(story=stories("raw", "quotes", "adjusting", "adjusting", "files"))
def test_several_sources_of_one_market_end_in_the_tables_of_one_clean_collection_of_raw_prices(world, story):
    clean = world.told(story, "raw")
    found = world.finished(story, Action("raw", again=True))
    assert found.candles == clean.candles
    # What another source explained in the morning, and nobody knows better, it has to take back itself.
    assert [row for row in found.gaps if DAYS.index(row[1]) not in stock(story.seed, row[0]).bad] == clean.gaps
    assert found.factors == clean.factors
    assert found.read == clean.read
    mine = [row for row in found.quarantine if row[0] == "raw"]
    assert set(mine) >= set(clean.quarantine)


def keys(candles: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return (code, ts, flags)."""
    return [(row[0], row[1], row[-1]) for row in candles]


def rules(found: Tables) -> set[tuple[Any, ...]]:
    """Return what was rejected, and why; what the row said changes with every restatement."""
    return {row[:5] for row in found.quarantine}


def compare(code: str, story: Story, found: Tables, clean: Tables) -> None:
    """Adjusted prices are those of the clean table on one scale, but for what each was rounded by on the basis on which it was
    told; exactly so where no event was told of."""
    held = {day: row for (one, day), row in found.read.items() if one == code}
    if not held:
        return
    newest = known(MOMENTS[story.end])[0]
    factors = {at: factor for at, factor in stock(story.seed, code).factors.items() if at <= newest}
    if not factors:
        assert held == {day: row for (one, day), row in clean.read.items() if one == code}
        return
    # Of an event after the newest bar the clean telling knows, and nothing that is held.
    scale = float(np.prod([factor for at, factor in factors.items() if DAYS[at] > max(held)]))
    ratio = held[max(held)][3] / clean.read[code, max(held)][3]
    stored = {row[1].date(): row[2:6] for row in found.candles if row[0] == code}
    lowest = min(
        *(price for row in stored.values() for price in row), *(price for row in held.values() for price in row[:4])
    )
    scale = scale if abs(ratio * scale - 1) < abs(ratio - 1) else 1.0
    for day, row in held.items():
        for mine, its, kept in zip(row[:4], clean.read[code, day][:4], stored[day], strict=True):
            # Half a won on either side; and so much that the factors, learnt from rounded closes, may miss.
            slack = 1 / kept + 1 / its + len(factors) * 4 / lowest
            assert mine * scale / its == pytest.approx(1, abs=slack), (code, day, factors)

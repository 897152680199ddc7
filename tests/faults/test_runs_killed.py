"""Everyone who takes part in a run is killed while it runs: what is left is whole, what is recorded is true, nobody is left.

Two schedulers run jobs on one database without a pause. At moments of chance one is killed of: the schedulers, papermill's
child, its kernel, a process that the notebook started, the process that waits, a connection, the whole server, `chartinsight
run`. What a run really did is told by marks that its notebook leaves, and when it ended by a trigger; see `kill_place`.

    FAULT_RUNS=500 pytest tests/faults/test_runs_killed.py -s      so many kills
    FAULT_SEED=…                                                  the same choice again, by the seed that was printed
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kill_place import GONE_WITHIN_S, NOTEBOOKS, Killer, Place

from chartinsight_lib import retention
from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.settings import Settings

KILLS = int(os.environ.get("FAULT_RUNS", "11"))
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**9))
CUT_OFF = {"DeadKernelError", "ProcessDied", "Interrupted", "Lost", "OperationalError", "InterfaceError", "Fenced"}
LOST_SIGNAL = re.compile(r"Exception ignored in: (?s:.*?)\nKeyboardInterrupt: SIG\w+\n")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are found, and their parents' end noticed, as Linux does"
)


@pytest.fixture
def place(empty_home: Path, tmp_path: Path) -> Iterator[Place]:
    settings = Settings(home=empty_home, _env_file=None)
    with open_database(settings) as database:
        upgrade(database)
        found = Place(database, tmp_path)
        try:
            yield found
        finally:
            found.close()


def kinds(chance: random.Random) -> Iterator[str]:
    """Every kind in turn, each turn in another order."""
    while True:
        yield from chance.sample(Killer.KINDS, len(Killer.KINDS))


def test_whoever_is_killed_the_copies_are_whole_and_the_records_true(place):
    print(f"seed {SEED}: repeat with FAULT_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(SEED)  # noqa: S311 - chaos, not a secret
    killer, order = Killer(place, chance), kinds(chance)
    for _ in range(KILLS):
        killer.kill(next(order), at_once=chance.random() < 0.6)

    # Whoever is left goes on, and each job has a success after the last kill.
    (since,) = place.ask("SELECT clock_timestamp() AS now")
    place.until(
        lambda: {
            name
            for (name,) in place.ask(
                "SELECT DISTINCT job FROM ops.runs AS r JOIN kills.ended AS e USING (run_id) "
                "WHERE e.state = 'succeeded' AND e.at > :since",
                since=since.now,
            )
        }
        == set(NOTEBOOKS),
        seconds=90, said="each job succeeds again",
    )  # fmt: skip
    place.until(
        lambda: all(hit.true_s is not None and hit.gone_s is not None for hit in place.hits), seconds=60,
        said="every kill has had its consequences",
    )  # fmt: skip
    print(summary(place))  # noqa: T201 - for `pytest -s`
    end_in_good_order(place)

    assert len(place.hits) == KILLS
    records_are_true(place)
    copies_are_whole(place)
    # A signal may come where Python cannot raise anything: it says so, and the signal comes again.
    said = {
        path.name: LOST_SIGNAL.sub("", path.read_text(errors="replace")) for path in place.folder.glob("said-*.log")
    }
    assert {name: text for name, text in said.items() if "Traceback" in text} == {}


def end_in_good_order(place: Place) -> None:
    """Tell the schedulers to end; nobody is left, and no record is open."""
    place.scheduling = False
    for scheduler in place.schedulers:
        scheduler.send_signal(signal.SIGTERM)  # the other one would be ignored where the tests run in the background
    assert [scheduler.wait(60) for scheduler in place.schedulers] == [130] * len(place.schedulers), place.said()
    place.until(lambda: not place.left(), seconds=GONE_WITHIN_S, said=f"nothing is left: {place.left()}")
    assert place.running() == set()
    assert place.ask("SELECT * FROM ops.slots WHERE state = 'running'") == []


def records_are_true(place: Place) -> None:
    """Compare the records with the marks."""
    runs = {run.run_id: run for run in place.ask("SELECT * FROM ops.runs")}
    done = {mark.run_id for mark in place.ask("SELECT run_id FROM kills.marks WHERE last")}
    succeeded = {run_id for run_id, run in runs.items() if run.state == "succeeded"}
    assert succeeded - done == set(), "it is said to have succeeded, and its last mark is not there"
    others = [runs[run_id] for run_id in done - succeeded]
    assert [run for run in others if run.error_class not in CUT_OFF] == [], "it has done all, and is not said to have"
    assert all(
        run.finished_at is not None and (run.error is None) == (run.state == "succeeded") for run in runs.values()
    )

    late = place.ask("""
        SELECT m.run_id, m.step, m.at, e.state, e.at AS ended_at FROM kills.marks AS m JOIN kills.ended AS e USING (run_id)
        WHERE  m.at >= e.at
    """)
    assert late == [], "written after the run had ended"
    assert place.ask("SELECT run_id FROM kills.ended GROUP BY run_id HAVING count(*) > 1") == [], "ended twice"
    # An item is recorded with its mark or not at all.
    counted = dict(place.ask("SELECT run_id, count(*) FROM ops.run_items GROUP BY run_id"))
    assert counted == dict(place.ask("SELECT run_id, count(*) FROM kills.marks GROUP BY run_id"))
    assert {run_id: runs[run_id].rows for run_id in succeeded} == {
        run_id: {"inserted": counted[run_id]} for run_id in succeeded
    }

    slots = place.ask("SELECT * FROM ops.slots")
    by_slot = Counter((run.job, run.market, run.slot) for run in runs.values() if run.slot and run.state == "succeeded")
    assert {slot: count for slot, count in by_slot.items() if count > 1} == {}, "succeeded twice"
    assert set(by_slot) == {(one.job, one.market, one.slot) for one in slots if one.state == "succeeded"}
    assert all(one.run_id in succeeded for one in slots if one.state == "succeeded")


def copies_are_whole(place: Place) -> None:
    """Read every file that a notebook was written to."""
    written = [path for path in place.runs.rglob("*") if path.is_file()]
    unfinished = [path for path in written if ".part" in path.name or path.suffix == ".tmp"]
    assert unfinished == []
    copies = {str(path): whole(path) for path in written if path.suffix == ".ipynb"}
    kept = Counter(Path(path).parent.name for path in copies)
    for run in place.ask("SELECT job, state, output_path FROM ops.runs"):
        if run.output_path is None:
            assert run.state != "succeeded"
            continue
        if run.output_path not in copies:
            assert kept[run.job] >= retention.DEFAULT.simulated_copies, "it did not have to give way to newer ones"
            continue
        if run.state == "succeeded":
            cells = copies[run.output_path].cells
            # The parameters cell is papermill's, and counts.
            assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
            assert len(cells) >= len(NOTEBOOKS[run.job]) + 3


def whole(path: Path) -> Any:
    """Return a notebook that is one. Raises what is wrong with it."""
    notebook = nbformat.reads(json.dumps(json.loads(path.read_bytes())), as_version=4)
    nbformat.validate(notebook)
    return notebook


def summary(place: Place) -> str:
    """Say, for each kind of victim, how often it was killed, and the worst seconds until records were true and all was gone."""
    lines = [f"{'victim':<28} kills  running  worst s until true  until gone"]
    for kind in Killer.KINDS:
        hits = [hit for hit in place.hits if hit.kind == kind]
        if hits:
            true, gone = max(hit.true_s or 0 for hit in hits), max(hit.gone_s or 0 for hit in hits)
            lines.append(
                f"{kind:<28} {len(hits):5}  {sum(len(hit.runs) for hit in hits):7}  {true:18.1f}  {gone:10.1f}"
            )
    states = dict(place.ask("SELECT state, count(*) FROM ops.runs GROUP BY state"))
    classes = dict(
        place.ask("SELECT error_class, count(*) FROM ops.runs WHERE state <> 'succeeded' GROUP BY error_class")
    )
    slots = dict(place.ask("SELECT state, count(*) FROM ops.slots GROUP BY state"))
    copies = [path.read_text(encoding="utf-8") for path in place.runs.rglob("*.ipynb")]
    fenced = sum('"ename": "Fenced"' in copy for copy in copies)
    return "\n".join([
        *lines, f"runs {states}; errors {classes}; slots {slots}; executed copies {len(copies)}, of which {fenced} met the fence"
    ])  # fmt: skip

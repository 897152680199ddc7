"""Schedulers run real notebooks on a real database while a clock is moved: each slot once, whatever happens to them."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib.clock import running_text, write_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.scheduler import Scheduler
from chartinsight_lib.settings import Settings

KST = ZoneInfo("Asia/Seoul")
SOON = 60.0


class Place:
    """A project of its own, with a list of jobs, small notebooks, and a clock that stands until it is moved."""

    def __init__(self, database: Database, settings: Settings, folder: Path) -> None:
        self.database, self.folder, self.said = database, folder, []
        self._clock = folder / "clock"
        self.settings = settings.model_copy(
            update={"project": folder, "runs_dir": folder / "runs", "now": f"@{self._clock}"}
        )

    def now(self, when: str) -> None:
        """Set the clock: a time of October or November 2026 in Seoul."""
        moment = datetime.fromisoformat(f"2026-{when}").replace(tzinfo=KST)
        write_clock(self._clock, running_text(moment, 0.0, moment))

    def jobs(self, listed: str, **notebooks: str) -> None:
        """Write the list of jobs, and a notebook for each name: its cell after `as_of`."""
        (self.folder / "pipelines").mkdir(exist_ok=True)
        (self.folder / "pipelines" / "jobs.yaml").write_text(listed)
        for name, cell in notebooks.items():
            made = nbformat.v4.new_notebook(
                metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
            )
            made.cells = [
                nbformat.v4.new_code_cell('as_of: str = ""', metadata={"tags": ["parameters"]}),
                nbformat.v4.new_code_cell(cell),
            ]
            nbformat.write(made, self.folder / f"{name}.ipynb")

    def scheduler(self) -> Scheduler:
        return Scheduler(self.database, self.settings, "kiwoom", "KRX", self.said.append)


@pytest.fixture
def place(database: Database, settings: Settings, tmp_path: Path, loader: Engine) -> Place:
    return Place(database, settings, tmp_path)


@pytest.fixture
def slots(loader: Engine) -> Callable[[], list[tuple[str, str, str]]]:
    """What is recorded: (job, slot in Seoul, state), by job and slot."""

    def read() -> list[tuple[str, str, str]]:
        with loader.connect() as conn:
            rows = conn.execute(text("SELECT job, slot, state FROM ops.slots ORDER BY job, slot")).all()
        return [(job, f"{slot.astimezone(KST):%m-%d %H:%M}", state) for job, slot, state in rows]

    return read


@pytest.fixture
def runs(loader: Engine) -> Callable[[], list[Any]]:
    def read() -> list[Any]:
        with loader.connect() as conn:
            return list(conn.execute(text("SELECT * FROM ops.runs ORDER BY job, slot, attempt")))

    return read


def until(scheduler: Scheduler, holds: Callable[[], bool]) -> None:
    """Go round after round until something holds."""
    waited = threading.Event()
    for _ in range(int(SOON / 0.1)):
        scheduler.round()
        if holds():
            return
        waited.wait(0.1)
    raise AssertionError("it did not happen in time")


def settled(slots: Callable[[], list[tuple[str, str, str]]], count: int) -> Callable[[], bool]:
    """Whether so many slots have a record and none of them is open."""
    return lambda: len(found := slots()) >= count and not {state for *_, state in found} & {"running", "retrying"}


DAY = """
jobs:
  collect: {notebook: collect.ipynb, timeout_s: 60, schedule: {at: begin-30}}
  scan: {notebook: scan.ipynb, timeout_s: 60, schedule: {at: begin-30}, after: {collect: ended}, catch_up: all}
"""


def test_what_is_due_is_run_once_in_its_order_and_days_that_were_missed_are_caught_up_with(place, slots, runs):
    place.jobs(DAY, collect="as_of", scan="as_of")
    place.now("10-12 08:30")  # a Monday after a holiday
    with place.scheduler() as scheduler:
        assert scheduler.catch_up(lambda s: threading.Event().wait(s)) == []
        assert slots() == [("collect", "10-12 08:30", "succeeded"), ("scan", "10-12 08:30", "succeeded")]
        first = {run.job: run for run in runs()}
        assert first["collect"].finished_at <= first["scan"].started_at
        assert first["scan"].parameters == {"as_of": "2026-10-08"}
        assert (first["scan"].engine, first["scan"].market) == ("scheduler", "KRX")

        for _ in range(3):
            scheduler.round()
        assert len(runs()) == 2

        place.now("10-15 20:00")  # three days later
        until(scheduler, settled(slots, 8))
    days = ["10-12", "10-13", "10-14", "10-15"]
    collected = ["succeeded", "covered", "covered", "succeeded"]
    assert slots() == [
        *(("collect", f"{day} 08:30", state) for day, state in zip(days, collected, strict=True)),
        *(("scan", f"{day} 08:30", "succeeded") for day in days),
    ]
    assert [run.parameters["as_of"] for run in runs() if run.job == "scan"] == [
        *("2026-10-08", "2026-10-12", "2026-10-13", "2026-10-14"),
    ]


def test_two_schedulers_on_one_database_run_each_slot_once(place, slots, runs):
    place.jobs(
        "jobs:\n  cycle: {notebook: cycle.ipynb, timeout_s: 60, schedule: {every: 5, from: open, until: close}}\n",
        cycle="as_of",
    )
    place.now("10-12 10:00")
    with place.scheduler() as one, place.scheduler() as other:
        for minute in (0, 5, 10):
            place.now(f"10-12 10:{minute:02}")
            until_both = settled(slots, minute // 5 + 1)
            until(one, lambda: other.round() or until_both())  # noqa: B023 - called before it changes
    assert slots() == [("cycle", f"10-12 10:{minute:02}", "succeeded") for minute in (0, 5, 10)]
    assert len(runs()) == 3


def test_a_failure_that_may_pass_is_tried_again_and_one_that_does_not_ends_the_slot(place, slots, runs):
    place.jobs(
        "jobs:\n"
        "  weak: {notebook: weak.ipynb, timeout_s: 60, schedule: {at: open}, retries: 2, retry_after_s: 60}\n"
        "  wrong: {notebook: wrong.ipynb, timeout_s: 60, schedule: {at: open}, retries: 2, retry_after_s: 60}\n"
        "  strict: {notebook: weak.ipynb, timeout_s: 60, schedule: {at: open}, after: {wrong: succeeded}}\n",
        weak=f"from pathlib import Path\nfrom chartinsight_lib.errors import Unavailable\n"
        f"seen = Path({str(place.folder / 'seen')!r})\n"
        "if not seen.exists():\n    seen.touch()\n    raise Unavailable('closed for maintenance')",
        wrong="raise ValueError('asked wrongly')",
    )
    place.now("10-12 09:00")
    with place.scheduler() as scheduler:
        until(scheduler, lambda: {state for *_, state in slots()} == {"retrying", "failed", "skipped"})
        assert slots() == [
            ("strict", "10-12 09:00", "skipped"), ("weak", "10-12 09:00", "retrying"), ("wrong", "10-12 09:00", "failed"),
        ]  # fmt: skip
        place.now("10-12 09:01")
        until(scheduler, settled(slots, 3))
    assert ("weak", "10-12 09:00", "succeeded") in slots()
    assert [(run.job, run.attempt, run.state) for run in runs()] == [
        ("weak", 1, "failed"), ("weak", 2, "succeeded"), ("wrong", 1, "failed"),
    ]  # fmt: skip
    said = "\n".join(place.said)
    assert (
        "weak              FAILED, going on with what is stored (it is tried again): weak: cell 3: Unavailable" in said
    )
    assert "strict            skipped 10-12 09:00: wrong of 2026-10-12 09:00 failed" in said


def test_a_scheduler_that_ends_interrupts_its_runs_and_the_next_one_takes_their_slots(place, slots, runs):
    started = place.folder / "started"
    place.jobs(
        "jobs:\n  long: {notebook: long.ipynb, timeout_s: 300, schedule: {at: open}}\n",
        long=f"from pathlib import Path\nimport time\nstarted = Path({str(started)!r})\n"
        "if not started.exists():\n    started.touch()\n    time.sleep(300)",
    )
    place.now("10-12 09:00")
    with place.scheduler() as scheduler:
        until(scheduler, started.exists)
    assert slots() == [("long", "10-12 09:00", "retrying")]
    (run,) = runs()
    assert run.state == "failed"
    assert run.error == "cell 3: interrupted: whoever ran it was told to end"
    with place.scheduler() as scheduler:
        until(scheduler, settled(slots, 1))
    assert [(run.attempt, run.state) for run in runs()] == [(1, "failed"), (2, "succeeded")]


def test_a_source_that_knows_no_running_day_has_no_jobs_of_it(place, slots):
    place.jobs(
        "jobs:\n"
        "  quotes: {notebook: a.ipynb, timeout_s: 60, schedule: {at: open}, live: true}\n"
        "  filings: {notebook: a.ipynb, timeout_s: 60, schedule: {at: open}, needs: [dart_key]}\n",
        a="as_of",
    )
    place.now("10-12 09:00")
    with Scheduler(place.database, place.settings, "krx", "KRX", place.said.append) as scheduler:
        until(scheduler, settled(slots, 1))
    assert slots() == [("filings", "10-12 09:00", "skipped")]
    assert place.said == ["  filings           skipped 10-12 09:00: it needs CHARTINSIGHT_DART_KEY, which is not set"]


def test_beyond_the_calendar_nothing_is_run_and_that_is_said_once(place, slots):
    place.jobs(DAY, collect="as_of", scan="as_of")
    write_clock(place.folder / "clock", running_text(moment := datetime(2029, 1, 2, 10, tzinfo=KST), 0.0, moment))
    with place.scheduler() as scheduler:
        for _ in range(3):
            scheduler.round()
    assert slots() == []
    (line,) = [line for line in place.said if "NOTHING IS RUN" in line]
    assert line.startswith("  NOTHING IS RUN ANY MORE: calendar of KRX: 2029-01-02 is not known")


@pytest.fixture
def _leaves_nothing(place: Place) -> Iterator[None]:
    yield
    assert not list(place.folder.rglob("*.part.ipynb"))
    for path in place.folder.rglob("runs/*/*.ipynb"):
        json.loads(path.read_text())


pytestmark = pytest.mark.usefixtures("_leaves_nothing")

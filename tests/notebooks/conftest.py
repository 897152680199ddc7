"""Fixtures of the tests of runs."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from running import NOW, made_job, processes_of

from chartinsight_lib.db.engine import Database
from chartinsight_lib.jobs import Job
from chartinsight_lib.runner import Warm
from chartinsight_lib.running import watch
from chartinsight_lib.settings import Settings


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a runs folder of the test's own and the clock standing still."""
    return settings.model_copy(update={"runs_dir": tmp_path / "runs", "now": NOW.isoformat()})


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Job]:
    """Makes a job of cells; see `made_job`."""
    return partial(made_job, tmp_path)


@pytest.fixture
def warm(database: Database, place: Settings) -> Iterator[Warm]:
    """Where a process may wait; none does before `refill`."""
    with Warm(database, place) as found:
        yield found


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], str]:
    """Gives a line of code by which a cell lets so many seconds pass, for whoever watches it: how long anything takes on a busy
    machine decides no test."""
    passed = tmp_path / "passed"
    passed.touch()
    monkeypatch.setattr(watch, "monotonic", lambda: time.monotonic() + passed.stat().st_size)
    return lambda seconds: f"with open({str(passed)!r}, 'ab') as file: file.write(b'.' * {seconds})\n"


@pytest.fixture
def nothing_is_left(place: Settings) -> Iterator[None]:
    """After every run, however it ended, no process works for it; asked at once, not after a while."""
    yield
    assert processes_of(place) == []

"""Fixtures of the tests of runs."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from running import NOW, made_job, processes_of

from chartinsight_lib.jobs import Job
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
def nothing_is_left(place: Settings) -> Iterator[None]:
    """After every run, however it ended, no process works for it; asked at once, not after a while."""
    yield
    assert processes_of(place) == []

"""`up` is killed, interrupted and started twice: nothing stays behind, and the next `up` puts everything right.

The embedded PostgreSQL, its supervisor, papermill's child, the kernels and Voila all belong to one `up`. Whoever of them
lives is found by the data directory, or by a password of its database, in the command line, environment or working folder.

The tests share a data directory to save time. Each stands on its own also on an empty one.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from sqlalchemy import text

from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.layout import find_layout
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
GONE_WITHIN_S = 15.0
# New York's trading days from the first of each (FB: 2012-05-18, GOOG: 2004-08-19, else 2000-03-01) to 2013-03-01.
SAMPLE = {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}
STANDS = "Ctrl-C here stops everything."

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")


class Up:
    """One `chartinsight up` after another on a data directory of their own."""

    def __init__(self, home: Path) -> None:
        self.home, self.runs, self.log = home, home / "runs", home / "up.log"
        self.data = find_layout(home).data
        self.settings = Settings(home=home, runs_dir=self.runs, _env_file=None)
        self.process: subprocess.Popen[bytes] | None = None
        self._said_before = 0

    def start(self, *options: str, nohup: bool = False) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "CHARTINSIGHT_HOME": str(self.home), "CHARTINSIGHT_RUNS_DIR": str(self.runs)}
        environment["CHARTINSIGHT_SOURCE"] = "sample"
        self._said_before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(["nohup"] if nohup else []), CHARTINSIGHT, "up", "--no-browser", *options],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self.process

    @property
    def said(self) -> str:
        """What the newest `up` has said so far."""
        return self.log.read_bytes()[self._said_before :].decode()

    def until(self, condition: Callable[[], Any], *, seconds: float) -> Any:
        """Wait for something while `up` runs."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not happen within {seconds} s; `up` said:\n{self.said}"
            assert self.process is None or self.process.poll() is None, f"`up` ended:\n{self.said}"
            time.sleep(0.02)
        return found

    def marks(self) -> set[str]:
        """What only this `up`'s processes know: its folders, and its database's passwords."""
        credentials = self.home / "postgres" / "credentials.json"
        passwords = json.loads(credentials.read_text()).values() if credentials.exists() else ()
        return {str(self.home), str(self.data), *passwords}

    def family(self) -> list[psutil.Process]:
        """The living processes with one of the marks."""
        marks, found = self.marks(), []
        for process in psutil.process_iter():
            try:
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                known = [*process.cmdline(), *process.environ().values(), process.cwd()]
            except psutil.Error:
                continue
            if any(mark in text for mark in marks for text in known):
                found.append(process)
        return found

    def left(self) -> list[str]:
        found = []
        for process in self.family():
            try:
                found.append(f"{process.pid}: {' '.join(process.cmdline())}")
            except psutil.Error:
                continue
        return found

    def all_gone(self) -> None:
        deadline = time.monotonic() + GONE_WITHIN_S
        while left := self.left():
            assert time.monotonic() < deadline, f"left after {GONE_WITHIN_S} s: {left}; `up` said:\n{self.said}"
            time.sleep(0.1)

    def query(self, statement: str) -> list[Any]:
        with open_database(self.settings) as database:
            engine = database.engine(Role.READER)
            with engine.connect() as conn:
                rows = list(conn.execute(text(statement)).all())
            engine.dispose()
        return rows


@pytest.fixture(scope="module")
def place() -> Iterator[Up]:
    if Settings.from_env().database_url is not None:
        pytest.fail("the project's .env sets DATABASE_URL, and this test would write to that database: move it away")
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    found = Up(home)
    yield found
    shutil.rmtree(found.data, ignore_errors=True)  # elsewhere than in `home` where root's temporary folder is private
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def up(place: Up) -> Iterator[Up]:
    """No process of an earlier test is there, and none stays."""
    assert place.left() == []
    yield place
    for process in place.family():
        process.kill()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_up_killed_at_any_moment_leaves_nothing_and_the_next_one_puts_it_right(up):
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 10**6))
    print(f"seed {seed}: repeat with CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)  # noqa: S311 - chaos, not a secret

    # The very first start, in the middle of making the data directory.
    process = up.start("--once")
    up.until(lambda: list(up.data.parent.glob("data*.part*/base")), seconds=30)
    process.kill()
    process.wait()
    up.all_gone()

    # One moment in each fifth, so that every part of the road is met; the radar's server is among the killed.
    for fifth in range(5):
        moment = 0.5 + (fifth + chance.random()) * 2.3
        process = up.start("--port", free_port())
        time.sleep(moment)
        assert process.poll() is None, up.said
        process.kill()
        process.wait()
        print(f"killed after {moment:.2f} s; it had said: {[line[:22].strip() for line in up.said.splitlines()]}")  # noqa: T201
        up.all_gone()

    process = up.start("--once")
    assert process.wait(timeout=60) == 0, up.said
    up.all_gone()
    assert list(up.data.parent.glob("data*")) == [up.data]

    stored = up.query("SELECT code, count(*), count(DISTINCT day) FROM api.candles_raw WHERE final GROUP BY code")
    assert {code: (bars, days) for code, bars, days in stored} == {code: (n, n) for code, n in SAMPLE.items()}
    assert up.query("SELECT count(*) FROM live.candles") == [(12_154,)]
    runs = up.query("SELECT job, state, finished_at, output_path, error FROM ops.runs ORDER BY started_at")
    assert [(run.job, run.state) for run in runs[-4:]] == [
        ("sync_instruments", "succeeded"), ("collect_daily", "succeeded"), ("repair_gaps", "succeeded"),
        ("scan_radar", "succeeded"),
    ]  # fmt: skip
    cut_off = [run for run in runs if run.state != "succeeded"]
    assert len(cut_off) <= 5
    assert all(run.state in {"lost", "failed"} and run.finished_at and run.error for run in cut_off), cut_off
    kept = [path for path in up.runs.rglob("*.ipynb") if not path.name.endswith(".part.ipynb")]
    for path in kept:
        nbformat.validate(nbformat.read(path, as_version=4))
    assert {run.output_path for run in runs if run.state == "succeeded"} <= {str(path) for path in kept}


def test_a_second_up_on_the_same_data_is_refused_and_ctrl_c_ends_the_first(up):
    process = up.start("--port", free_port())
    up.until(lambda: "tradesmart (embedded" in up.said, seconds=60)
    second = subprocess.run(
        [CHARTINSIGHT, "up", "--once"], env={**os.environ, "CHARTINSIGHT_HOME": str(up.home)}, capture_output=True,
        text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.startswith(f"chartinsight: up: it is running already on {up.home} (process {process.pid}). ")
    assert second.stderr.count("\n") == 1

    up.until(lambda: STANDS in up.said, seconds=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=GONE_WITHIN_S) == 130
    assert up.said.endswith("\nstopped; nothing is left running.\n")
    assert "Traceback" not in up.said
    assert up.left() == []


def test_sigterm_in_the_middle_of_a_job_ends_everything_and_the_run_is_recorded_as_failed(up):
    process = up.start("--once")
    up.until(lambda: any("ipykernel" in line for line in up.left()), seconds=60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=GONE_WITHIN_S) == 130
    assert "Traceback" not in up.said
    assert up.left() == []
    (newest,) = up.query("SELECT state, error FROM ops.runs ORDER BY started_at DESC LIMIT 1")
    assert tuple(newest) == ("failed", "interrupted: KeyboardInterrupt")


def test_up_says_so_and_ends_when_the_radars_server_ends_by_itself(up):
    process = up.start("--port", free_port())
    up.until(lambda: "scan_radar" in up.said and STANDS in up.said.partition("scan_radar")[2], seconds=90)
    (server,) = [found for found in up.family() if any("lib.dashboard" in word for word in found.cmdline())]
    server.kill()
    assert process.wait(timeout=GONE_WITHIN_S) == 1
    assert up.said.splitlines()[-1].startswith("chartinsight: radar: its server ended by itself.")
    up.all_gone()


def test_a_closed_terminal_ends_up_but_not_under_nohup(up):
    process = up.start("--once", nohup=True)
    up.until(lambda: "tradesmart (embedded" in up.said, seconds=60)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=90) == 0, up.said

    process = up.start("--once")
    up.until(lambda: "tradesmart (embedded" in up.said, seconds=60)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=GONE_WITHIN_S) == 130
    assert up.left() == []


def test_a_killed_up_takes_its_simulated_market_along_and_the_next_one_goes_on_in_it(up):
    for job in ("collect_daily", "collect_quotes"):
        process = up.start("--once", "--source", "simulated")
        up.until(lambda job=job: any("simulate" in line for line in up.left()) and job in up.said, seconds=90)
        process.kill()
        process.wait()
        up.all_gone()
    process = up.start("--once", "--source", "simulated")
    assert process.wait(timeout=90) == 0, up.said
    up.all_gone()
    (row,) = up.query(
        "SELECT count(*), count(DISTINCT (code, ts)) FROM api.candles_raw WHERE market = 'SIM' AND timeframe = '1d'"
    )
    assert row[0] == row[1] > 100_000
    # What is real lies beside it, and is none of it.
    assert up.query("SELECT DISTINCT market FROM api.candles_raw WHERE source LIKE 'simulated%'") == [("SIM",)]

"""What the benchmarks of the Kiwoom client stand on: a simulator in a process of its own, a fresh PostgreSQL, and the
simulator's request log, which is the judge. Everything lies in a folder that is removed at the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from pydantic import SecretStr

from chartinsight_lib.settings import PREFIX, Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.process import START
from chartinsight_lib.simulator.server import SimulatorServer

APPKEY, SECRETKEY = "simulated-appkey", "simulated-secretkey"
DAILY, LIST, TOKEN = "ka10081", "ka10099", "au10001"
PAGE = 600
"""Rows on a page of daily bars."""

processes = multiprocessing.get_context("spawn")


class Show(NamedTuple):
    """What a simulator shows, and how."""

    instruments: int = 300
    start: datetime = START
    """Simulated time to start at."""
    speed: float = 1.0
    latency_s: float = 0.0


class Simulator:
    """A simulated Kiwoom in a process of its own. It ends with this one, however this one ends."""

    def __init__(self, show: Show, folder: Path) -> None:
        self.log, self.clock = folder / "requests.jsonl", folder / "clock"
        self._pipe, theirs = processes.Pipe()
        self._process = processes.Process(target=_simulate, args=(show, self.log, self.clock, theirs), name="simulator")
        self._process.start()
        theirs.close()
        self.url: str = self._pipe.recv()

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._process.pid or 0)

    def rows(self, kinds: frozenset[str], since: date, until: date) -> dict[str, int]:
        """Return how many days each instrument of some kinds, listed on `until`, has from `since` to `until`: asked of the
        market itself, not over HTTP."""
        self._pipe.send((kinds, since, until))
        return dict(self._pipe.recv())

    def requests(self) -> list[dict[str, Any]]:
        """Return what was asked so far, as the simulator wrote it down."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def simulator(show: Show) -> Iterator[Simulator]:
    """Run a simulator for the length of a `with`; its log and clock are removed with it."""
    with _folder() as folder:
        running = Simulator(show, folder)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def fresh_home() -> Iterator[Path]:
    """Give a data directory for an embedded PostgreSQL, and remove it."""
    with _folder() as folder:
        yield folder


def settings_for(home: Path, running: Simulator, **others: Any) -> Settings:
    """Return settings that know a simulator and nothing of this machine's user."""
    for name in [name for name in os.environ if name.startswith(PREFIX) or name == "DATABASE_URL"]:
        del os.environ[name]
    return Settings(
        _env_file=None, home=home, now=f"@{running.clock}", kiwoom_url=running.url, kiwoom_appkey=SecretStr(APPKEY),
        kiwoom_secretkey=SecretStr(SECRETKEY), **others,
    )  # fmt: skip


def load() -> str:
    """Return the machine's load average and cores, for a reader who wonders whether others disturbed a run."""
    return f"load average {os.getloadavg()[0]:.2f} of {os.cpu_count()} cores"


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process and of those below it, ended ones included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + (times.children_user + times.children_system if one == process else 0)
    return total


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="chartinsight-benchmark-"))
    folder.chmod(0o755)  # PostgreSQL's user has to get through, where this runs as root
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _simulate(show: Show, log: Path, clock_file: Path, pipe: Connection) -> None:
    """Serve until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    market = GeneratedMarket(7, instruments=show.instruments, keep_days=show.instruments)
    for listing in market.listings:  # Kiwoom's prices exist before they are asked for, too
        market.daily(listing.code)
    clock = SimulatedClock(show.start, speed=show.speed, published=clock_file)
    options = Options(keys={APPKEY: SECRETKEY}, latency_s=show.latency_s, request_log=log)
    with SimulatorServer(market, clock, options) as server, suppress(EOFError):
        pipe.send(server.url)
        while True:
            kinds, since, until = pipe.recv()
            pipe.send({one.code: _days(market, one.code, since, until) for one in market.listings
                       if one.kind in kinds and one.listed(until)})  # fmt: skip


def _days(market: Any, code: str, since: date, until: date) -> int:
    first, end = np.searchsorted(market.daily(code).day, np.array([since, until + timedelta(1)], "datetime64[D]"))
    return int(end - first)

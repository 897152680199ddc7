"""Where a simulated week is lived through: a simulator and schedulers, each a process of its own, and the clock they follow.

The jobs are those of pipelines/jobs.yaml that collect a market and scan it, as they stand there, in a project folder of the
week's own. Every process is known by that folder, which stands in its environment, and is ended by its id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.jobs import JobList, read_list
from chartinsight_lib.settings import PREFIX, PROJECT, Settings
from chartinsight_lib.simulator.model import KST

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
JOBS = (
    "sync_instruments", "collect_daily", "collect_quotes", "collect_intraday", "official_closes", "repair_gaps", "scan_radar",
    "collect_financials",
)  # fmt: skip
SEED, INSTRUMENTS = 32, 24
WATCHED = ("212580", "003630", "360200")
"""The first of them stands still from 17 to 19 November 2026, and has a fifth of its shares on the 20th."""
FAST, SLOW = 600.0, 10.0
RATE = 4 * SLOW
"""Requests a second, which is less than Kiwoom's quota at either speed."""
GONE_WITHIN_S = 20.0


class Place:
    """A market under way, and who runs its jobs."""

    def __init__(
        self, database: Database, folder: Path, start: datetime, *, limits: Mapping[str, int] | None = None
    ) -> None:
        """Lay everything out; `limits`: other seconds for the runs of some jobs."""
        self.database, self.folder, self._port = database, folder, free_port()
        self._clock, self._start = folder / "clock", start
        self._simulator: subprocess.Popen[bytes] | None = None
        self.schedulers: list[subprocess.Popen[bytes]] = []
        self.killed = 0
        project = folder / "project"
        (project / "pipelines").mkdir(parents=True)
        (project / "notebooks").symlink_to(PROJECT / "notebooks", target_is_directory=True)
        listed = yaml.safe_load((PROJECT / "pipelines" / "jobs.yaml").read_text(encoding="utf-8"))
        listed["jobs"] = {
            name: job | ({"timeout_s": limits[name]} if limits and name in limits else {})
            for name, job in listed["jobs"].items()
            if name in JOBS
        }
        (project / "pipelines" / "jobs.yaml").write_text(yaml.safe_dump(listed, sort_keys=False), encoding="utf-8")
        told = {
            "home": folder / "home", "project": project, "runs_dir": folder / "runs", "now": f"@{self._clock}",
            "kiwoom_url": f"http://127.0.0.1:{self._port}", "kiwoom_appkey": "simulated-appkey",
            "kiwoom_secretkey": "simulated-secretkey", "kiwoom_rate": RATE, "kiwoom_years": 1, "watchlist": ",".join(WATCHED),
        }  # fmt: skip
        self.settings = Settings(**told, _env_file=None)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            **{PREFIX + name.upper(): str(value) for name, value in told.items()},
            "DATABASE_URL": database.url(Role.LOADER),
        }

    @property
    def listed(self) -> JobList:
        """The jobs of this week."""
        return read_list(self.settings.project)

    # The market.

    def open_market(self) -> None:
        """Start the simulator, slow, at the start."""
        self._simulator = self._spawn(
            "simulate", f"--port={self._port}", f"--seed={SEED}", f"--instruments={INSTRUMENTS}", "--skip-closed",
            f"--start={self._start.isoformat()}", f"--speed={SLOW:g}", f"--clock-file={self._clock}", log="simulator.log",
        )  # fmt: skip

        def answers() -> bool:
            with suppress(httpx.HTTPError):
                return bool(httpx.get(self._control(), timeout=2, trust_env=False).json()["label"])
            return False

        self.until(answers, seconds=60)

    def now(self) -> datetime:
        """What time it is there."""
        return self.settings.clock().astimezone(KST)

    def move_to(self, moment: datetime) -> None:
        """Let time pass at once; where it has passed meanwhile, there is nothing to do."""
        if not self._tell({"move_to": moment.isoformat()}):
            assert self.now() >= moment

    def speed(self, speed: float) -> None:
        """Let time run faster or slower."""
        assert self._tell({"speed": speed})

    def _tell(self, what: Mapping[str, Any]) -> bool:
        return httpx.post(self._control("/clock"), json=what, timeout=30, trust_env=False).is_success

    def _control(self, path: str = "") -> str:
        return f"{self.settings.kiwoom_url}/_simulator{path}"

    # The schedulers.

    def start(self, count: int = 1) -> None:
        """Start so many schedulers more."""
        for _ in range(count):
            number = len(list(self.folder.glob("scheduler-*.log")))
            self.schedulers.append(self._spawn("scheduler", "--source=simulated", log=f"scheduler-{number:02}.log"))

    def kill(self, scheduler: subprocess.Popen[bytes]) -> None:
        """kill -9 of one of them; what it had started has to be gone soon."""
        family = family_of(scheduler.pid)
        scheduler.kill()
        scheduler.wait()
        self.schedulers.remove(scheduler)
        self.killed += 1
        _, alive = psutil.wait_procs(family, timeout=GONE_WITHIN_S)
        assert not alive, f"left {GONE_WITHIN_S} s after their scheduler was killed: {alive}"

    def kill_all(self) -> None:
        """kill -9 of all at once; afterwards nothing works here."""
        for scheduler in self.schedulers:
            scheduler.kill()
        for scheduler in self.schedulers:
            scheduler.wait()
        self.killed += len(self.schedulers)
        self.schedulers.clear()
        self.until(lambda: not self.left(), seconds=GONE_WITHIN_S)

    def end_schedulers(self) -> None:
        """Tell all to end, which they do in good order; afterwards nothing works here."""
        for scheduler in self.schedulers:
            scheduler.send_signal(signal.SIGINT)
        codes = [scheduler.wait(60) for scheduler in self.schedulers]
        assert codes == [130] * len(codes), self.said()
        self.schedulers.clear()
        assert self.left() == []

    def left(self) -> list[str]:
        """What works here beside the simulator."""
        found = []
        for process in self._processes():
            with suppress(psutil.Error):
                if self._simulator is None or process.pid != self._simulator.pid:
                    found.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())}")
        return found

    def until(self, holds: Callable[[], Any], *, seconds: float) -> None:
        """Wait for something while none of the processes ends by itself."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"it did not happen within {seconds} s.\n{self.said()}"
            ended = [process.pid for process in self.schedulers if process.poll() is not None]
            assert not ended, f"schedulers ended by themselves: {ended}\n{self.said()}"
            time.sleep(0.25)

    def said(self) -> str:
        """What the schedulers have said."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(encoding='utf-8', errors='replace')}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def close(self) -> None:
        """End every process, whatever has happened."""
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()
        for process in (*self.schedulers, *filter(None, [self._simulator])):
            process.wait()

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(f"{PREFIX}HOME") == str(self.settings.home):
                    found.append(process)
        return found

    def _spawn(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                [CHARTINSIGHT, *command], env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip


def family_of(pid: int) -> list[psutil.Process]:
    """Return the processes below one."""
    with suppress(psutil.Error):
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    return []


def off(place: Place, how_long: timedelta) -> None:
    """Nobody is there for so long."""
    until = place.now() + how_long
    place.kill_all()
    place.move_to(until)

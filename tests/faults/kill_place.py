"""Where runs are killed: a server that may be killed, too, schedulers with small jobs, and who of them can be hit.

All processes are found by what stands in their environment: the folder of this place, and a run's id. Each is killed by its id.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil
from sqlalchemy import Row, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from chartinsight_lib.clock import running_text, system_clock, write_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import PREFIX, Settings
from chartinsight_lib.simulator.model import KST

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
SCHEDULERS = 2
TRUE_WITHIN_S = 60.0
GONE_WITHIN_S = 20.0
START, SPEED = datetime(2026, 10, 12, 10, tzinfo=KST), 60.0
"""A slot of each job comes every second, so that there is always one to be run."""

NOTEBOOKS = {
    "rows": ("marks.leave(2)", "marks.leave(3)", "marks.leave(4, last=True)"),
    "shows": ("kill_marks.show_much()", "marks.leave(2, last=True)"),
    "busy": ("kill_marks.work_in_c()", "marks.leave(2, last=True)"),
    "parent": ("kill_marks.leave_a_child()", "marks.leave(2)", "marks.leave(3, last=True)"),
}
"""The cells of each job, after those that all of them begin with."""

_SCHEMA = """
CREATE SCHEMA kills;
CREATE TABLE kills.marks (run_id uuid NOT NULL, step int NOT NULL, last boolean NOT NULL,
                          at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE kills.ended (run_id uuid NOT NULL, state text NOT NULL, at timestamptz NOT NULL);
CREATE FUNCTION kills.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO kills.ended VALUES (NEW.run_id, NEW.state, clock_timestamp());
    RETURN NEW;
END $$;
CREATE TRIGGER ended AFTER UPDATE ON ops.runs FOR EACH ROW WHEN (OLD.state = 'running' AND NEW.state <> 'running')
    EXECUTE FUNCTION kills.note();
GRANT USAGE ON SCHEMA kills TO chartinsight_loader;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA kills TO chartinsight_loader;
"""


@dataclass(slots=True)
class Hit:
    """One kill, until what it did is recorded and gone. `must_end`: its runs cannot go on."""

    kind: str
    runs: set[str] = field(default_factory=set)
    family: list[psutil.Process] = field(default_factory=list)
    must_end: bool = False
    at: float = field(default_factory=time.monotonic)
    true_s: float | None = None
    gone_s: float | None = None


class Place:
    """A project, its server and its schedulers."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder, self.home, self.runs = database, folder, folder / "home", folder / "runs"
        self.schedulers: list[subprocess.Popen[bytes]] = []
        self.others: list[subprocess.Popen[bytes]] = []
        self.hits: list[Hit] = []
        self._started, self.scheduling = 0, True
        owner = database.engine(Role.OWNER)
        with owner.begin() as conn:
            conn.exec_driver_sql(_SCHEMA)
        owner.dispose()
        # Its own connections are killed, too: none is kept.
        self._engine = create_engine(database.urls[Role.LOADER], poolclass=NullPool)
        _write_project(folder / "project")
        write_clock(folder / "clock", running_text(START, SPEED, system_clock()))
        told = {
            "home": self.home, "project": folder / "project", "runs_dir": self.runs, "now": f"@{folder / 'clock'}",
            "kiwoom_url": "http://127.0.0.1:9", "kiwoom_appkey": "appkey-of-nobody", "kiwoom_secretkey": "secretkey-of-nobody",
        }  # fmt: skip
        self.settings = Settings(**told, _env_file=None)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            **{PREFIX + name.upper(): str(value) for name, value in told.items()},
            "DATABASE_URL": database.url(Role.LOADER),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        }

    # The processes.

    def keep_scheduling(self) -> None:
        """Start schedulers in the place of those that are gone: also one ends that met a dying server while it started."""
        for scheduler in [one for one in self.schedulers if one.poll() is not None]:
            self.schedulers.remove(scheduler)
        while len(self.schedulers) < SCHEDULERS:
            self.schedulers.append(self.spawn("scheduler", "--source=simulated"))

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command of ours."""
        self._started += 1
        with (self.folder / f"said-{self._started:03}.log").open("wb") as out:
            return subprocess.Popen(
                [CHARTINSIGHT, *command], env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def processes(self) -> Iterator[tuple[psutil.Process, str, str]]:
        """Yield what works here: process, its command line, the id of its run or ''."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                if environment.get(f"{PREFIX}HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, " ".join(process.cmdline()), environment.get(f"{PREFIX}RUN_ID", "")

    def left(self) -> list[str]:
        """What works here, in words."""
        return [f"{process.pid} {line}" for process, line, _ in self.processes()]

    def said(self) -> str:
        """What the last schedulers have said."""
        logs = sorted(self.folder.glob("said-*.log"))[-6:]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs)

    def close(self) -> None:
        """End everything, whatever has happened."""
        for process, _, _ in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for one in (*self.schedulers, *self.others):
            one.kill()
            one.wait()
        self._engine.dispose()

    # The database.

    def ask(self, statement: str, **values: Any) -> list[Row[Any]]:
        """Return what the database says, also one that is just starting again."""
        until = time.monotonic() + 60
        while True:
            try:
                with self._engine.begin() as conn:
                    return list(conn.execute(text(statement), values).all())
            except DBAPIError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def running(self) -> set[str]:
        """The runs whose record says `running`."""
        return {str(run_id) for (run_id,) in self.ask("SELECT run_id FROM ops.runs WHERE state = 'running'")}

    def _locked(self) -> set[int]:
        rows = self.ask(
            "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
        return {int(key) for (key,) in rows}

    # What a kill led to.

    def look(self) -> None:
        """See which kills have had all their consequences; a copy that is being written is read, too."""
        open_hits = [hit for hit in self.hits if hit.true_s is None or hit.gone_s is None]
        if open_hits:
            running, locked = self.running(), self._locked()
            marked = {run_id for _, line, run_id in self.processes() if "papermill_child" in line}
            held = {run_id for run_id in running & marked if int(run_id.replace("-", ""), 16) >> 65 in locked}
            now = time.monotonic()
            for hit in open_hits:
                untrue = hit.runs & running if hit.must_end else (hit.runs & running) - held
                if hit.true_s is None and not untrue:
                    hit.true_s = now - hit.at
                if hit.gone_s is None and not any(_lives(process) for process in hit.family):
                    hit.gone_s = now - hit.at
                assert hit.true_s is not None or now - hit.at < TRUE_WITHIN_S, f"{hit}: {untrue}\n{self.said()}"
                assert hit.gone_s is not None or now - hit.at < GONE_WITHIN_S, f"{hit}\n{self.said()}"
        for part in list(self.runs.glob("*/*.part.ipynb"))[:1]:
            with suppress(FileNotFoundError):
                json.loads(part.read_bytes())

    def until(self, holds: Callable[[], Any], *, seconds: float, said: str) -> Any:
        """Look, again and again, until something holds; there are always schedulers meanwhile, unless they were told to end."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {said}\n{self.said()}"
            self.look()
            if self.scheduling:
                self.keep_scheduling()
            time.sleep(0.2)
        return found


class Killer:
    """Kills, at moments and of a choice that chance decides."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place, self._chance = place, chance

    KINDS = (
        "scheduler", "scheduler, told to end", "every scheduler", "papermill's child", "kernel", "grandchild",
        "process that waits", "connection that holds a run", "any connection", "whole server", "`chartinsight run`",
    )  # fmt: skip

    def kill(self, kind: str, *, at_once: bool) -> None:
        """Kill one of a kind, as soon as there is one; `at_once`: while the kill before is still felt."""
        find = {
            "scheduler": self._scheduler, "scheduler, told to end": lambda: self._scheduler(signal.SIGTERM),
            "every scheduler": self._every_scheduler, "papermill's child": lambda: self._of_run("papermill_child"),
            "kernel": lambda: self._of_run("ipykernel_launcher"), "grandchild": lambda: self._of_run("sleep 600"),
            "process that waits": self._waiting, "connection that holds a run": self._holding,
            "any connection": self._connection, "whole server": self._server, "`chartinsight run`": self._run,
        }[kind]  # fmt: skip
        place = self._place
        if not at_once:
            place.until(place.running, seconds=60, said="a run is under way")
        moment = time.monotonic() + self._chance.uniform(0, 0.2 if at_once else 1.0)
        place.until(lambda: time.monotonic() >= moment, seconds=10, said="a moment passed")
        hit = place.until(find, seconds=60, said=f"there is a {kind}")
        hit.kind = kind
        place.hits.append(hit)

    def _kill(self, process: psutil.Process, hit: Hit, number: signal.Signals = signal.SIGKILL) -> Hit | None:
        """Send the signal; None where the process has ended by itself meanwhile."""
        with suppress(psutil.Error):
            hit.family += [process, *process.children(recursive=True)]
            hit.at = time.monotonic()
            process.send_signal(number)
            return hit
        return None

    def _runs_of(self, pid: int) -> set[str]:
        rows = self._place.ask(
            "SELECT run_id FROM ops.slots WHERE state = 'running' AND claimed_by LIKE '%:' || :pid || ':%'", pid=pid
        )
        return {str(run_id) for (run_id,) in rows}

    def _scheduler(self, number: signal.Signals = signal.SIGKILL) -> Hit | None:
        """One that is running something, or, one time in four, whichever: also one that is just starting."""
        runs = {victim.pid: self._runs_of(victim.pid) for victim in self._place.schedulers}
        pids = [pid for pid, held in runs.items() if held] if self._chance.random() < 0.75 else list(runs)
        if not pids:
            return None
        pid = self._chance.choice(pids)
        return self._kill(psutil.Process(pid), Hit("", runs[pid], must_end=True), number)

    def _every_scheduler(self) -> Hit | None:
        hit = Hit("", must_end=True)
        for victim in self._place.schedulers:
            hit.runs |= self._runs_of(victim.pid)
            self._kill(psutil.Process(victim.pid), hit)
        for victim in self._place.schedulers:
            victim.wait()
        return hit

    def _of_run(self, called: str) -> Hit | None:
        running = self._place.running()
        found = [
            (process, run_id)
            for process, line, run_id in self._place.processes()
            if called in line and run_id in running
        ]
        if not found:
            return None
        process, run_id = self._chance.choice(found)
        return self._kill(process, Hit("", {run_id}, must_end=called != "sleep 600"))

    def _waiting(self) -> Hit | None:
        running = self._place.running()
        found = [
            (process, run_id)
            for process, line, run_id in self._place.processes()
            if "papermill_child" in line and "--warm" in line and run_id not in running
        ]
        if not found:
            return None
        process, run_id = self._chance.choice(found)
        return self._kill(process, Hit("", {run_id}))

    def _holding(self) -> Hit | None:
        # Of whoever held its lock a run may be lost, and has to be ended, or have it again.
        running = self._place.running()
        rows = self._place.ask("""
            SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
            ORDER BY random() LIMIT 1
        """)
        return Hit("", running) if rows else None

    def _connection(self) -> Hit | None:
        running = self._place.running()
        rows = self._place.ask("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE  usename = current_user AND backend_type = 'client backend' AND pid <> pg_backend_pid()
            AND    pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') ORDER BY random() LIMIT 1
        """)
        return Hit("", running) if rows else None

    def _server(self) -> Hit | None:
        running = self._place.running()
        rows = self._place.ask("""
            SELECT pid FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1
        """)
        for (pid,) in rows:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # the server takes all the others down, and starts again
                return Hit("", running)
        return None

    def _run(self) -> Hit | None:
        """A person's run has no slot; what is left of it, a scheduler sees to."""
        place, job = self._place, self._chance.choice(sorted(NOTEBOOKS))
        person = place.spawn("run", job)
        place.others.append(person)

        def own() -> set[str]:
            below = {process.pid for process in _below(person.pid)}
            return {run_id for process, _, run_id in place.processes() if process.pid in below and run_id}

        place.until(lambda: own() or person.poll() is not None, seconds=60, said="a person's run is under way")
        moment = time.monotonic() + self._chance.uniform(0, 3.0)
        place.until(lambda: time.monotonic() >= moment, seconds=10, said="a moment passed")
        hit = self._kill(psutil.Process(person.pid), Hit("", own(), must_end=True)) if person.poll() is None else None
        person.wait()
        return hit


def _below(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _write_project(project: Path) -> None:
    (project / "pipelines").mkdir(parents=True)
    (project / "pipelines" / "jobs.yaml").write_text(
        "jobs:\n"
        + "".join(
            f"  {name}: {{notebook: {name}.ipynb, timeout_s: 60, schedule: {{every: 1, from: begin, until: end}}, "
            "catch_up: all, retries: 3, retry_after_s: 30}\n"
            for name in NOTEBOOKS
        ),
        encoding="utf-8",
    )
    for name, cells in NOTEBOOKS.items():
        made = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        )
        first = "import kill_marks\nmarks = kill_marks.Marks()"
        made.cells = [nbformat.v4.new_code_cell('as_of: str = ""', metadata={"tags": ["parameters"]})]
        made.cells += [nbformat.v4.new_code_cell(cell) for cell in (first, "marks.leave(1)", *cells)]
        nbformat.write(made, project / f"{name}.ipynb")

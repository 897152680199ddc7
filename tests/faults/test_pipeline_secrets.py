"""A canary in every secret there is, and jobs that do their worst: they show their environment and settings, fail with them in
the message, log them, and are killed in the midst of it. All commands that tell of runs are used afterwards. Then the canaries are
looked for, also as an address and as base64 spell them: in every file, table, answer, notice and command line.
"""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import nbformat
import psutil
import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import URL, text
from watching import Watcher

from chartinsight_lib.backup.tools import find_tools
from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.layout import find_layout
from chartinsight_lib.db.roles import DATABASE, Role
from chartinsight_lib.settings import PREFIX, Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.model import KST
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
LOGIN = "canary_login"
MAY_FAIL = {"status --json", "alerts check"}
"""What is red, and whether the dead channel's turn has come again, depends on how far the schedulers got."""
NOW = datetime(2026, 10, 12, 10, tzinfo=KST)
SETTING = {"kiwoom_appkey", "kiwoom_secretkey", "dart_key", "radar_token"}
JOBS = """
jobs:
  shows: {notebook: shows.ipynb, timeout_s: 60, on_request: true}
  fails: {notebook: fails.ipynb, timeout_s: 60, on_request: true}
  breaks: {notebook: breaks.ipynb, timeout_s: 60, schedule: {at: open}}
  waits: {notebook: waits.ipynb, timeout_s: 300, schedule: {at: open}}
"""
SHOWS = """
import logging, os, sys
from chartinsight_lib.db.engine import open_engine
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings
settings = Settings.from_env()
engine = open_engine(settings, Role.LOADER)
told = [value.get_secret_value() for value in dict(settings).values() if hasattr(value, "get_secret_value")]
print(dict(os.environ), settings, settings.model_dump(), told, engine.url.render_as_string(hide_password=False))
for value in told:
    os.write(2, value.encode())
    logging.getLogger("chartinsight_lib.made").warning("it is %s", value)
os.environ
"""
FAILS = SHOWS + "\nraise RuntimeError(f\"{os.environ['DATABASE_URL']} {told}\")"
BREAKS = SHOWS + "\nopen_engine(settings.model_copy(update={'database_url': told[0]}), Role.LOADER)"


def canary() -> str:
    """A value as keys and passwords are: letters, digits, and what base64 has beside them."""
    return f"canary+{secrets.token_hex(8)}/{secrets.token_hex(4)}=="


def spellings(value: str) -> set[bytes]:
    """A value as it is, in an address, and within base64, wherever it begins there."""
    spelt = {value, quote(value), quote(value, safe=""), quote(value, safe=" +"), quote_plus(value)}
    found = {one.encode() for one in spelt}
    for before in range(3):
        # What the neighbours decide, the first and last letters, is left out.
        found.add(base64.b64encode(b"\0" * before + value.encode())[4 if before else 0 : -4])
    return found


@dataclass(frozen=True, slots=True)
class Walk:
    """What the walk has left: the canaries, and what was said, by where."""

    canaries: Mapping[str, str]
    folder: Path
    said: Mapping[str, tuple[int, bytes]]
    lines: set[str]
    looks: int
    notices: list[bytes]
    runs: Path
    killed: Path

    def hits(self, where: object, content: bytes) -> list[tuple[object, str]]:
        """The canaries in a content, by name."""
        return [
            (where, name)
            for name, value in self.canaries.items()
            if any(spelt in content for spelt in spellings(value))
        ]


@contextmanager
def webhook() -> Iterator[tuple[int, list[bytes]]]:
    """A service on the loopback that takes notices; what it was sent, without the address, which has the token in it."""
    bodies: list[bytes] = []

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], bodies
        server.shutdown()


@contextmanager
def login(settings: Settings, port: int, password: str) -> Iterator[None]:
    """A login that may act in all roles, as one of a server of somebody's."""
    superuser = json.loads((find_layout(settings.home).base / "credentials.json").read_text())["postgres"]
    with closing(
        psycopg2.connect(host="127.0.0.1", port=port, user="postgres", password=superuser, dbname=DATABASE)
    ) as conn:
        conn.autocommit = True
        cursor = conn.cursor()
        roles = sql.SQL(", ").join(sql.Identifier(role.value) for role in Role)
        made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
        cursor.execute(made.format(sql.Identifier(LOGIN), sql.Literal(password), roles))
        try:
            yield
        finally:
            cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(LOGIN)))


def write_project(project: Path, go_on: Path) -> None:
    """Write the list of jobs and their notebooks; `waits` shows everything, and waits until `go_on` is there."""
    waits = f"from pathlib import Path\nimport time\nwhile not Path({str(go_on)!r}).exists():\n    time.sleep(0.05)"
    (project / "pipelines").mkdir(parents=True)
    (project / "pipelines" / "jobs.yaml").write_text(JOBS, encoding="utf-8")
    for name, cells in {"shows": [SHOWS], "fails": [FAILS], "breaks": [BREAKS], "waits": [SHOWS, waits]}.items():
        made = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        )
        made.cells = [nbformat.v4.new_code_cell('as_of: str = ""', metadata={"tags": ["parameters"]})]
        made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(made, project / f"{name}.ipynb")


class Commands:
    """Commands of ours in one environment, and what they said."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment, self._folder = environment, folder
        self.said: dict[str, tuple[int, bytes]] = {}

    def run(self, *command: str, **other: str) -> tuple[int, bytes]:
        done = subprocess.run(
            [CHARTINSIGHT, *command], env={**self._environment, **other}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False, timeout=120,
        )  # fmt: skip
        self.said[" ".join(command + tuple(other))] = (done.returncode, done.stdout)
        return done.returncode, done.stdout

    @contextmanager
    def scheduler(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        log = self._folder / f"{name}.said"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [CHARTINSIGHT, "scheduler", "--source=simulated"], env=self._environment, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            self.said[name] = (process.wait(), log.read_bytes())


def until(holds: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def walk(
    database: Database, settings: Settings, tmp_path_factory: pytest.TempPathFactory, emptied: Callable[[], None]
) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("secrets")
    assert database.embedded is not None
    port = database.embedded.port
    of_notices = ("notice", "dead notice", "password of the notice")
    names = (*sorted(SETTING), "database", *of_notices)
    canaries = {name: canary() for name in names}
    watcher = Watcher()
    with ExitStack() as stack:
        stack.callback(emptied)
        stack.enter_context(login(settings, port, canaries["database"]))
        hook, notices = stack.enter_context(webhook())
        write_project(folder / "project", folder / "go on")
        clock = SimulatedClock(NOW, speed=0, published=folder / "clock")
        options = Options(keys={canaries["kiwoom_appkey"]: canaries["kiwoom_secretkey"]})
        broker = stack.enter_context(SimulatorServer(GeneratedMarket(3, instruments=14), clock, options))
        spelt = {name: quote(canaries[name], safe="") for name in of_notices}
        told = {
            "home": folder / "home", "project": folder / "project", "runs_dir": folder / "runs", "now": f"@{folder / 'clock'}",
            "backup_dir": folder / "backups", "kiwoom_url": broker.url,
            "alert_urls": f"json://user:{spelt['password of the notice']}@127.0.0.1:{hook}/{spelt['notice']} "
            f"json://127.0.0.1:{free_port()}/{spelt['dead notice']}",
            **{name: canaries[name] for name in SETTING},
        }  # fmt: skip
        address = URL.create("postgresql", LOGIN, canaries["database"], "127.0.0.1", port, DATABASE)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            **{PREFIX + name.upper(): str(value) for name, value in told.items()},
            "DATABASE_URL": address.render_as_string(hide_password=False),
        }
        watcher.start()
        commands = Commands(environment, folder)
        engine = database.engine(Role.OWNER)
        stack.callback(engine.dispose)
        killed = jobs_do_their_worst(commands, folder)
        tell_of_runs(commands, engine, address)
        watcher.ended.set()
        watcher.join()
        canaries |= {f"token {place}": token for place, token in enumerate(broker.service.tokens._tokens)}
        assert len(canaries) > len(names)  # `doctor` was given one
        yield Walk(canaries, folder, commands.said, watcher.seen, watcher.looks, notices, folder / "runs", killed)


def jobs_do_their_worst(commands: Commands, folder: Path) -> Path:
    """Run the jobs by hand and by schedulers, one of which is killed; return the copy that its run left."""
    runs = folder / "runs"

    def shown() -> list[Path]:
        parts = list(runs.glob("waits/*.part.ipynb"))
        return [part for part in parts if b"CHARTINSIGHT_HOME" in part.read_bytes()]

    with commands.scheduler("first scheduler") as scheduler, ThreadPoolExecutor() as threads:
        by_hand = [threads.submit(commands.run, "run", job) for job in ("shows", "fails")]
        until(shown)
        assert [done.result()[0] for done in by_hand] == [0, 1]
        (part,) = shown()
        family = psutil.Process(scheduler.pid).children(recursive=True)
        scheduler.kill()
        scheduler.wait()
        assert psutil.wait_procs(family, timeout=20)[1] == []
    (folder / "go on").touch()
    copy = part.with_name(part.name.replace(".part", ""))
    with commands.scheduler("second scheduler") as scheduler:
        until(lambda: copy.exists() and len(list(runs.glob("waits/*Z-????????.ipynb"))) == 2)
        scheduler.send_signal(signal.SIGTERM)
        assert scheduler.wait(60) == 130
    return copy


def tell_of_runs(commands: Commands, engine: object, address: URL) -> None:
    """Use every command that tells of runs, and some with an address that is wrong."""
    code, listed = commands.run("runs", "list", "--json")
    assert code == 0, listed
    ids = {run["job"]: run["run_id"] for run in json.loads(listed)}
    wrong = address.set(database="no_such_database").render_as_string(hide_password=False)
    asked = [
        ("runs", "list"), ("runs", "show", ids["shows"]), ("runs", "show", ids["fails"]), ("runs", "show", ids["waits"]),
        ("runs", "diff", ids["shows"], ids["fails"]), ("runs", "open", ids["fails"], "--print"), ("status", "--json"),
        ("alerts", "test"), ("alerts", "list"), ("alerts", "check"), ("logs", "--lines=0"), ("doctor",), ("db", "backup"),
    ]  # fmt: skip
    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(commands.run, *command) for command in asked]
        done.append(threads.submit(commands.run, "doctor", DATABASE_URL=wrong))
        done.append(
            threads.submit(commands.run, "run", "shows", DATABASE_URL=wrong.replace("127.0.0.1:", "127.0.0.1:x"))
        )
        for one in done:
            one.result()


@pytest.mark.parametrize("before", ["", "u:", "us:"])
def test_a_canary_would_be_found_in_an_address_and_in_base64(walk, before):
    for name, value in walk.canaries.items():
        plain = URL.create("postgresql", "user", value, "host").render_as_string(hide_password=False).encode()
        basic = base64.b64encode(f"{before}{value}.".encode())
        for content in (plain, basic, quote(value).encode(), f"x{value}y".encode()):
            assert walk.hits("here", content) == [("here", name)]


def test_nothing_that_a_command_says_holds_a_secret(walk):
    assert [hit for name, (_, said) in walk.said.items() for hit in walk.hits(name, said)] == []
    codes = {name: code for name, (code, _) in walk.said.items()}
    # They did what they are for: a channel is dead, and two addresses are wrong.
    wrong = {"alerts test", "doctor DATABASE_URL", "run shows DATABASE_URL", "run fails"}
    ended = {"first scheduler": -signal.SIGKILL, "second scheduler": 130}
    assert {name for name, code in codes.items() if code and name not in ended} - MAY_FAIL == wrong, walk.said
    assert {name: codes[name] for name in ended} == ended
    assert b"hidden" in walk.said["logs --lines=0"][1]


def test_no_file_holds_a_secret(walk):
    found = []
    for path in walk.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += walk.hits(path, gzip.decompress(content) if path.suffix == ".gz" else content)
    assert found == []


def test_no_table_and_no_backup_holds_a_secret(walk, database):
    engine, rows, found = database.engine(Role.OWNER), 0, []
    with engine.connect() as conn:
        tables = conn.execute(
            text("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('live', 'ops', 'radar', 'public')")
        ).all()
        for schema, table in tables:
            for (row,) in conn.execute(text(f'SELECT t::text FROM "{schema}"."{table}" AS t')):
                rows += 1
                found += walk.hits(f"{schema}.{table}", row.encode())
        major = int(conn.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
    engine.dispose()
    assert rows > 10
    (dump,) = (path for path in (walk.folder / "backups").rglob("*") if path.is_file() and path.suffix != ".json")
    restored = subprocess.run(
        [find_tools(major).path("pg_restore"), "--file=-", dump], capture_output=True, check=True
    ).stdout
    assert b"[hidden]" in restored  # the records of the runs are in it
    assert found + walk.hits(dump, restored) == []


def test_no_command_line_and_no_notice_holds_a_secret(walk):
    assert [hit for line in walk.lines for hit in walk.hits(line, line.encode())] == []
    assert walk.looks > 20 and any("papermill_child" in line for line in walk.lines)
    assert [hit for body in walk.notices for hit in walk.hits("notice", body)] == []
    # A test notice, and one about the job that failed in a scheduler, whose message quotes a secret.
    assert len(walk.notices) >= 2 and any(b"breaks" in body for body in walk.notices)


@pytest.mark.parametrize("job", ["shows", "fails", "breaks", "waits"])
def test_what_a_notebook_shows_by_itself_is_taken_out_also_where_its_run_was_killed(walk, job):
    copies = [walk.killed] if job == "waits" else list((walk.runs / job).glob("*.ipynb"))
    told = []
    for copy in copies:
        notebook = nbformat.read(copy, as_version=4)
        nbformat.validate(notebook)
        shown = json.dumps(notebook)
        if "CHARTINSIGHT_HOME" not in shown:  # it was killed before it showed the environment
            continue
        told.append(copy)
        for name in (*SETTING, "alert_urls"):
            assert re.search(rf"{PREFIX}{name.upper()}'?: \\?.{{0,2}}\[hidden\]", shown), name
        assert re.search(rf"postgresql://{LOGIN}:\[hidden\]@127", shown)
    assert told

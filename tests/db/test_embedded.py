"""The embedded server: one per data directory, up while anybody holds it, gone afterwards, whole again after any death.

Most tests share a data directory, because making one takes two seconds. Each stands on its own also on an empty one.
"""

import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from chartinsight_lib.db.embedded import EmbeddedServer, read_state, start_embedded
from chartinsight_lib.db.layout import find_layout
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError

GONE_WITHIN_S = 10.0
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")

HOLD = """
import sys
from pathlib import Path
from chartinsight_lib.db.embedded import start_embedded
with start_embedded(Path(sys.argv[1])) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made_home() -> Iterator[Path]:
    """A data directory that several tests use one after the other."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home(made_home: Path) -> Iterator[Path]:
    """The shared data directory; whatever a test did, no process works on it afterwards."""
    yield made_home
    until(lambda: not processes_of(made_home), "its processes to end")


class Holder:
    """Another process that holds the server of `home`."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def port(self) -> int:
        """Wait until it holds the server, and return the server's port."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, "the holder says nothing"
        return int(self.process.stdout.readline())

    def let_go(self) -> None:
        self.process.communicate(timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@contextmanager
def holder(home: Path) -> Iterator[Holder]:
    one = Holder(home)
    try:
        yield one
    finally:
        one.kill()


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + GONE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {GONE_WITHIN_S} s for {what}"
        time.sleep(0.02)


def postmasters_of(home: Path) -> list[psutil.Process]:
    return _processes(lambda line: Path(line[0]).name == "postgres", find_layout(home).data)


def processes_of(home: Path) -> list[psutil.Process]:
    """Supervisor and postmaster of `home`: both name its data directory in their command line."""
    supervisors = _processes(lambda line: "chartinsight_lib.db.supervisor" in line, find_layout(home).data)
    return supervisors + postmasters_of(home)


def _processes(chosen: Callable[[list[str]], bool], data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if str(data) in line and chosen(line):
            found.append(process)
    return found


def ask(server: EmbeddedServer, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement as the owner of `tradesmart`, and commit it."""
    conn = psycopg2.connect(server.url(Role.OWNER).replace("+psycopg2", ""))
    try:
        with conn, conn.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        conn.close()


def keep_a_row(server: EmbeddedServer) -> None:
    ask(server, "DROP TABLE IF EXISTS kept")
    ask(server, "CREATE TABLE kept AS SELECT 42 AS n")


def kept_rows(server: EmbeddedServer) -> list[tuple[Any, ...]]:
    return ask(server, "SELECT n FROM kept")


def test_a_second_process_shares_the_one_server(home):
    with start_embedded(home) as server, holder(home) as other:
        assert other.port() == server.port
        assert len(postmasters_of(home)) == 1


def test_a_second_hold_of_one_process_shares_the_one_server(home):
    with start_embedded(home) as first, start_embedded(home) as second:
        assert first.port == second.port
        assert len(postmasters_of(home)) == 1


def test_the_server_stays_for_those_who_remain_and_is_gone_after_the_last(home):
    first = start_embedded(home)
    with holder(home) as last:
        last.port()
        first.close()
        assert ask(first, "SELECT 1") == [(1,)]  # the address still answers
        last.let_go()
    # Letting go waits for the server, so nobody has to look twice.
    assert postmasters_of(home) == []
    assert read_state(find_layout(home).state) is None


def test_closing_twice_is_closing_once(home):
    server = start_embedded(home)
    server.close()
    server.close()
    assert postmasters_of(home) == []


def test_killing_the_last_holder_leaves_no_server_and_no_loss(home):
    with holder(home) as other:
        other.port()
        with start_embedded(home) as server:
            keep_a_row(server)
        assert len(postmasters_of(home)) == 1
        other.kill()
    until(lambda: not processes_of(home), "the server of a killed process to end")
    with start_embedded(home) as server:
        assert kept_rows(server) == [(42,)]


@linux_only
def test_killing_the_supervisor_ends_the_server_too(home):
    with holder(home) as other:
        other.port()
        state = read_state(find_layout(home).state)
        os.kill(state["supervisor"], signal.SIGKILL)
        until(lambda: not postmasters_of(home), "the server of a killed supervisor to end")


@linux_only
@pytest.mark.parametrize("attempt", range(3))  # it comes at once, while the server is still shutting down
def test_a_start_right_after_the_supervisor_was_killed_recovers(home, attempt):
    with holder(home) as other:
        other.port()
        with start_embedded(home) as server:
            keep_a_row(server)
        os.kill(read_state(find_layout(home).state)["supervisor"], signal.SIGKILL)
        until(lambda: not answers(home), "the server to stop answering")
        with start_embedded(home) as server:
            assert kept_rows(server) == [(42,)]
            other.kill()


@linux_only
def test_killing_the_server_itself_loses_nothing_that_was_committed(home):
    with start_embedded(home) as server:
        keep_a_row(server)
        os.kill(read_state(find_layout(home).state)["pid"], signal.SIGKILL)
        until(lambda: read_state(find_layout(home).state) is None, "the supervisor to notice")
        with start_embedded(home) as again:
            assert again.port == server.port
            assert kept_rows(again) == [(42,)]


def answers(home: Path) -> bool:
    """Whether the server of `home` lets anybody in."""
    state = read_state(find_layout(home).state)
    try:
        psycopg2.connect(host="127.0.0.1", port=state["port"], user="nobody", connect_timeout=2).close()
    except psycopg2.OperationalError as error:
        return "password" in str(error)  # it asked for one
    return True


def test_an_interrupted_initdb_is_cleared_away(empty_home):
    layout = find_layout(empty_home)
    layout.data.parent.mkdir(parents=True, exist_ok=True)
    rest = layout.data.with_name(f"{layout.data.name}.part4711")
    (rest / "base").mkdir(parents=True)
    (rest / "PG_VERSION").write_text("18\n")
    with start_embedded(empty_home) as server:
        assert ask(server, "SELECT 1") == [(1,)]
    assert not rest.exists()
    assert list(layout.data.parent.glob("*.part*")) == []
    assert list(layout.data.parent.glob(".pw*")) == []


@pytest.mark.parametrize("stranger", ["this test", "a process that names the data directory"])
def test_a_stale_pid_file_with_the_pid_of_a_living_stranger_does_not_block(home, stranger):
    start_embedded(home).close()
    data = find_layout(home).data
    # A backup of the data directory, say. Where the home lies, its path also holds the word "postgres".
    sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", str(data)], stdin=subprocess.PIPE)
    try:
        pid = os.getpid() if stranger == "this test" else sleeper.pid
        # As PostgreSQL writes it: pid, directory, start, port, socket directory, address, shared memory, status.
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1700000000\n5433\n\n127.0.0.1\n  1 2\nready\n")
        with start_embedded(home) as server:
            assert ask(server, "SELECT 1") == [(1,)]
        assert sleeper.poll() is None
    finally:
        sleeper.communicate()


def test_a_stale_pid_file_that_was_never_written_to_the_end_does_not_block(home):
    start_embedded(home).close()
    (find_layout(home).data / "postmaster.pid").write_text("")
    with start_embedded(home) as server:
        assert ask(server, "SELECT 1") == [(1,)]


def test_a_home_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="CHARTINSIGHT_HOME"):
        start_embedded(tmp_path / "file" / "home")


def test_many_processes_that_start_at_once_get_one_server(empty_home):
    others = [Holder(empty_home) for _ in range(6)]
    try:
        assert len({other.port() for other in others}) == 1
        assert len(postmasters_of(empty_home)) == 1
    finally:
        for other in others:
            other.kill()
    until(lambda: not processes_of(empty_home), "the server to end")


def test_passwords_lie_in_a_file_that_only_its_owner_can_read(home):
    start_embedded(home).close()
    layout = find_layout(home)
    credentials = layout.base / "credentials.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    passwords = [word for word in credentials.read_text().split('"') if len(word) >= 24 and word.isascii()]
    assert len(set(passwords)) >= 4  # a superuser and three roles
    others = [file for file in layout.base.rglob("*") if file.is_file() and file != credentials]
    if layout.data not in (layout.base, *layout.base.iterdir()):
        others += [file for file in layout.data.parent.rglob("*") if file.is_file()]
    for file in others:
        content = file.read_bytes()
        assert not any(password.encode() in content for password in passwords), file


def test_the_server_listens_on_the_loopback_alone(home):
    with start_embedded(home) as server:
        (postmaster,) = postmasters_of(home)
        listening = {
            (one.laddr.ip, one.laddr.port)
            for one in postmaster.net_connections(kind="inet")
            if one.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", server.port)}
        assert postmaster.net_connections(kind="unix") == []


@pytest.mark.parametrize("user", ["postgres", *Role])
def test_a_wrong_password_is_refused(home, user):
    with (
        start_embedded(home) as server,
        pytest.raises(psycopg2.OperationalError, match="password authentication failed"),
    ):
        psycopg2.connect(host="127.0.0.1", port=server.port, user=user, password="guessed", dbname="tradesmart")


def test_the_port_is_kept_between_starts(home):
    ports = []
    for _ in range(2):
        with start_embedded(home) as server:
            ports.append(server.port)
    assert ports[0] == ports[1]


def test_a_port_that_somebody_else_took_meanwhile_is_given_up(home):
    with start_embedded(home) as server:
        taken = server.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", taken))
        other.listen()
        with start_embedded(home) as server:
            assert server.port != taken
            assert ask(server, "SELECT 1") == [(1,)]

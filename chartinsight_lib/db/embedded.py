"""The embedded PostgreSQL: one server per data directory, shared by every process that needs it, gone with the last.

Each user process holds a shared lock on `users.lock` while it lives; the kernel drops it even at `kill -9`. A small
supervisor process (`db.supervisor`) starts the server, and stops it when it can take that lock alone. So there is no
counting, no second server on one directory, and no orphan.

    <home>/postgres/    credentials.json (0600) · users.lock · start.lock · server.json · supervisor.log · server.log
    <home>/postgres/data18/          the data directory, made whole or not at all

PostgreSQL refuses to run as root; there it runs as `postgres` or `nobody`, and where that user could not get below a private
home all of this lies under /var/lib/chartinsight instead.
"""

import fcntl
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psycopg2
from psycopg2 import sql

from chartinsight_lib.db.layout import Layout, find_layout
from chartinsight_lib.db.roles import DATABASE, Role, ensure_roles
from chartinsight_lib.errors import ConfigError, DatabaseError

SUPERUSER = "postgres"
START_TIMEOUT_S = 60.0
NEEDED_BYTES = 300 * 2**20  # a fresh cluster takes 40 MB, the write-ahead log up to 128 MB at first


class EmbeddedServer:
    """A hold on the running server. It stays up as long as any process holds it; use it in a `with`."""

    def __init__(self, layout: Layout, lock: IO[str], port: int, passwords: dict[str, str]) -> None:
        self._layout, self._lock, self.port, self._passwords = layout, lock, port, passwords

    def url(self, role: Role) -> str:
        """Return the address for `role`, password included."""
        return f"postgresql+psycopg2://{role.value}:{self._passwords[role.value]}@127.0.0.1:{self.port}/{DATABASE}"

    def close(self, *, wait_s: float = 15.0) -> None:
        """Let go; when nobody else holds the server, wait until it has stopped."""
        if self._lock.closed:
            return
        self._lock.close()
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline and _supervised(self._layout) and not _in_use(self._layout.base):
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_embedded(home: Path) -> EmbeddedServer:
    """Return a hold on the server of `home`; make its data directory and start it when needed.

    Raises:
        ConfigError: no server binaries for this machine, no space, or a directory that cannot be written.
        DatabaseError: the server did not start; the message ends with its log.
    """
    layout = find_layout(home)
    lock = _open(layout.base / "users.lock")
    try:
        _acquire(lock, fcntl.LOCK_SH, "the server that is just stopping")
        with _open(layout.base / "start.lock") as starting:
            _acquire(starting, fcntl.LOCK_EX, "another process that is starting the server")
            passwords = _credentials(layout)
            if not (layout.data / "PG_VERSION").exists():
                _initialise(layout, passwords[SUPERUSER])
            port = _running_port(layout, passwords) or _launch(layout, passwords)
            _bootstrap(port, passwords)
    except BaseException:
        lock.close()
        raise
    return EmbeddedServer(layout, lock, port, passwords)


def is_running(home: Path) -> bool:
    """Return whether the server of `home` is up, or about to be; it is not started. Raises ConfigError as `start_embedded`."""
    return _supervised(find_layout(home))


def free_port() -> int:
    """Return a TCP port of the loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open(path: Path) -> IO[str]:
    return path.open("a+", encoding="utf-8")


def _acquire(lock: IO[str], kind: int, holder: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"embedded PostgreSQL: waited {START_TIMEOUT_S:.0f} s for {holder} ({lock.name}). "
                    "Look for a hanging `chartinsight` process, end it and try again."
                ) from None
            time.sleep(0.05)


def _supervised(layout: Layout) -> bool:
    """Whether a supervisor is there to stop the server."""
    state = read_state(layout.state)
    if state is None:
        return False
    try:
        os.kill(state["supervisor"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _in_use(base: Path) -> bool:
    """Whether another user process holds the server; the supervisor, which locks it alone to stop it, is none."""
    with _open(base / "users.lock") as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_state(path: Path) -> dict[str, int] | None:
    """Return what the supervisor says of its server, or None where none runs."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _credentials(layout: Layout) -> dict[str, str]:
    path = layout.base / "credentials.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    if layout.data.exists():
        raise DatabaseError(
            f"embedded PostgreSQL: {path} is gone, and with it the passwords of {layout.data}. "
            "Put the file back from a copy, or move the folder away and collect anew."
        )
    passwords = {name: secrets.token_urlsafe(24) for name in (SUPERUSER, *(role.value for role in Role))}
    write_private(path, json.dumps(passwords))
    return passwords


def _initialise(layout: Layout, password: str) -> None:
    """Make the data directory: beside its place first, so that an interrupted attempt leaves nothing behind."""
    free = shutil.disk_usage(layout.data.parent).free
    if free < NEEDED_BYTES:
        raise ConfigError(
            f"embedded PostgreSQL: {free // 2**20} MB are free under {layout.data.parent}, and {NEEDED_BYTES // 2**20} MB are "
            "needed. Make room, or set CHARTINSIGHT_HOME to another disk."
        )
    for rest in layout.data.parent.glob(f"{layout.data.name}.part*"):
        shutil.rmtree(rest)
    for rest in layout.data.parent.glob(".pw*"):
        rest.unlink()
    part = layout.data.with_name(f"{layout.data.name}.part{os.getpid()}")
    part.mkdir(mode=0o700)
    if layout.user:
        shutil.chown(part, layout.user)
    with _password_file(layout, password) as pwfile:
        done = subprocess.run(
            [layout.binaries / "initdb", "-D", part, "-U", SUPERUSER, f"--pwfile={pwfile}", "--auth=scram-sha-256",
             "--encoding=UTF8", "--locale=C", "--no-instructions"],
            capture_output=True, text=True, check=False, **as_user(layout.user),
        )  # fmt: skip
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        raise DatabaseError(f"embedded PostgreSQL: initdb failed: {(done.stderr or done.stdout).strip()[-500:]}")
    part.rename(layout.data)


@contextmanager
def _password_file(layout: Layout, password: str) -> Iterator[Path]:
    path = layout.data.parent / f".pw{os.getpid()}"
    try:
        write_private(path, password)
        if layout.user:
            shutil.chown(path, layout.user)
        yield path
    finally:
        path.unlink(missing_ok=True)


def as_user(user: str | None) -> dict[str, Any]:
    """Arguments for `subprocess` that run a program as `user`, from a folder it may stand in."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": entry.pw_dir, "LANG": "C.UTF-8"}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "env": environment, "cwd": "/"}


def _running_port(layout: Layout, passwords: dict[str, str]) -> int | None:
    state = read_state(layout.state)
    if state is None or not _answers(state["port"], passwords):
        return None
    return state["port"]


def _answers(port: int, passwords: dict[str, str]) -> bool:
    try:
        psycopg2.connect(_superuser_dsn(port, passwords, "postgres"), connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def _superuser_dsn(port: int, passwords: dict[str, str], database: str) -> str:
    return f"postgresql://{SUPERUSER}:{passwords[SUPERUSER]}@127.0.0.1:{port}/{database}"


def _launch(layout: Layout, passwords: dict[str, str]) -> int:
    log = layout.base / "supervisor.log"
    arguments = [str(layout.base), str(layout.data), str(layout.binaries), layout.user or ""]
    with log.open("ab") as out:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "chartinsight_lib.db.supervisor", *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/",
        )  # fmt: skip
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if (port := _running_port(layout, passwords)) is not None:
            return port
        if supervisor.poll() is not None:
            break
        time.sleep(0.05)
    tail = "".join(
        path.read_text(encoding="utf-8", errors="replace")[-800:]
        for path in (log, layout.base / "server.log")
        if path.exists()
    )
    raise DatabaseError(
        f"embedded PostgreSQL: the server did not start within {START_TIMEOUT_S:.0f} s. Its log ends with:\n{tail}"
    )


def _bootstrap(port: int, passwords: dict[str, str]) -> None:
    """Make roles and database, once: the only use of the superuser."""
    if _ready(port, passwords):
        return
    conn = psycopg2.connect(_superuser_dsn(port, passwords, "postgres"))
    conn.autocommit = True  # CREATE DATABASE runs in no transaction
    try:
        with conn.cursor() as cursor:
            ensure_roles(cursor, {role: passwords[role.value] for role in Role})
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.fetchone() is None:
                names = sql.Identifier(DATABASE), sql.Identifier(Role.OWNER.value)
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
    finally:
        conn.close()


def _ready(port: int, passwords: dict[str, str]) -> bool:
    url = f"postgresql://{Role.READER.value}:{passwords[Role.READER.value]}@127.0.0.1:{port}/{DATABASE}"
    try:
        psycopg2.connect(url, connect_timeout=5).close()
    except psycopg2.OperationalError:
        return False
    return True

"""The process that starts the embedded server and stops it when its last user is gone. See `db.embedded`.

    python -m chartinsight_lib.db.supervisor BASE DATA BINARIES USER

It is no child of any terminal: Ctrl-C does not reach it. On Linux the server also dies with it (parent-death signal);
elsewhere a server that lost its supervisor is found by its pid file and stopped by the next one.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chartinsight_lib.db.embedded import as_user, free_port, read_state, write_private
from chartinsight_lib.processes import die_with_parent

POLL_S = 0.25
STOP_TIMEOUT_S = 20.0

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "60",
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
}


def main(arguments: list[str]) -> int:
    """Run until nobody holds `users.lock`, or until told to stop (SIGTERM)."""
    base, data, binaries, user = Path(arguments[0]), Path(arguments[1]), Path(arguments[2]), arguments[3] or None
    state = base / "server.json"
    stop = False

    def on_term(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_term)
    server, port = _start(data, binaries, user, base, state)
    write_private(state, json.dumps({"pid": server.pid, "port": port, "supervisor": os.getpid()}))
    with (base / "users.lock").open("a+", encoding="utf-8") as lock:
        while not stop and server.poll() is None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break  # nobody holds it: new users wait for this lock until the server is down
            except BlockingIOError:
                time.sleep(POLL_S)
        _stop(server.pid, lambda: server.poll() is None)
        # The port is remembered, so that a saved connection (psql, DBeaver) works again next time.
        write_private(base / "port", str(port))
        if (read_state(state) or {}).get("supervisor") == os.getpid():
            state.unlink(missing_ok=True)
    return 0


def _start(
    data: Path, binaries: Path, user: str | None, base: Path, state: Path
) -> tuple["subprocess.Popen[bytes]", int]:
    pidfile = data / "postmaster.pid"
    if pidfile.exists():
        lines = pidfile.read_text(encoding="utf-8").splitlines()
        if lines and _is_server(pid := int(lines[0]), data):
            # It lost its supervisor and does not answer: on Linux it is going down already.
            _stop(pid, lambda: _is_server(pid, data))
        # What a crash left: its pid may belong to a stranger by now, which PostgreSQL would not forgive.
        pidfile.unlink(missing_ok=True)
    last = read_state(state)
    port = _choose_port(base, last)
    command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
    for name, value in SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    with (base / "server.log").open("ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **as_user(user),
            preexec_fn=die_with_parent(os.getpid(), signal.SIGINT),  # noqa: PLW1509 - one thread; SIGINT: a fast shutdown
        )  # fmt: skip
    return child, port


def _choose_port(base: Path, last: dict[str, int] | None) -> int:
    saved = base / "port"
    wanted = str(last["port"]) if last else saved.read_text(encoding="ascii") if saved.exists() else ""
    if wanted.isdecimal():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself binds
            try:
                probe.bind(("127.0.0.1", int(wanted)))
                return int(wanted)
            except OSError:
                pass
    return free_port()


def _is_server(pid: int, data: Path) -> bool:
    """Whether `pid` is a living server on `data`, and not a stranger who got the number."""
    try:
        listing = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
    except OSError:
        if Path("/proc/self").exists():
            return False
        done = subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=False)
        listing = done.stdout.strip()
    # Exactly as `_start` calls it: a supervisor, a backup, an editor may name the directory too.
    program, _, arguments = listing.partition(" -D ")
    return Path(program).name == "postgres" and f"{arguments} ".startswith(f"{data} ")


def _stop(pid: int, alive: Callable[[], bool]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):  # fast, then immediate: the next start recovers from the log
        if not alive():
            return
        with suppress(ProcessLookupError):  # it may end in between
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while alive() and time.monotonic() < deadline:
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

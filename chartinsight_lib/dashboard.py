"""Serves dashboard notebooks with Voila: a process of its own that ends with whoever started it.

`start_dashboard` starts `python -m chartinsight_lib.dashboard_server` and hands it the settings, the token among them,
through a pipe: the token stands in no process list, file or environment. The pipe stays open, and its end tells the
server that its starter is gone, also when that was killed with no chance to say so.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.processes import descendants, kill

HOST = "127.0.0.1"
GRACE_S = 8.0
"""What the server may take to end its kernels before it is killed with them."""

# What a Python process needs to run at all; everything else, keys of brokers above all, stays outside.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "XDG_RUNTIME_DIR")
KEPT_ON_WINDOWS = ("SYSTEMROOT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "TEMP", "TMP")

PAGE = Path(__file__).parent / "widgets" / "page"
"""Holds our Voila template, where Jupyter looks for it: voila/templates/chartinsight."""


class Dashboard:
    """A running Voila server. `stop` it, or use it in a `with`."""

    def __init__(self, process: "subprocess.Popen[bytes]", *, port: int, token: str, log: Path) -> None:
        self._process, self._port, self._token, self._log = process, port, token, log

    @property
    def url(self) -> str:
        """The address to open, with the token in it: whoever has it can see the dashboard."""
        return f"http://{HOST}:{self._port}/?token={self._token}"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server is alive."""
        return self._process.poll() is None

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when the server answers and keeps out who has no token.

        Raises:
            ConfigError: the server ended, did not answer in time, or let a stranger in; it is stopped then.
        """
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if not self.running:
                raise ConfigError(f"dashboard: Voila ended with {self._process.returncode}. {self._last_words()}")
            status = _status_without_token(self._port)
            if status in {302, 401, 403}:
                return
            if status == 200:
                self.stop()
                raise ConfigError(f"dashboard: port {self._port} answered without a token, so the server was stopped.")
            time.sleep(0.1)
        self.stop()
        raise ConfigError(f"dashboard: no answer on port {self._port} within {timeout:.0f} s. {self._last_words()}")

    def wait(self) -> None:
        """Return when the server ends, however it ends."""
        self._process.wait()

    def ended_within(self, seconds: float) -> bool:
        """Wait for up to so many seconds; return whether the server has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.running

    def stop(self) -> None:
        """End the server and its kernels: ask first, then kill. May be repeated."""
        # Kernels lead process groups of their own, so they are looked for as descendants, while they still are.
        family = descendants(self._process.pid) if self.running else []
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        if self.running:
            family += descendants(self._process.pid)
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        kill(family)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        return f"Its log, {self._log}, ends with: {' / '.join(lines[-3:]) or 'nothing'}"


def start_dashboard(
    *,
    notebook: Path,
    pages: Mapping[str, Path] = {},
    port: int,
    token: str,
    database_url: str,
    log: Path,
    extra_env: Mapping[str, str] = {},
    host: str = HOST,
    preheat: bool = True,
) -> Dashboard:
    """Start Voila for some notebooks on this machine only, behind a token; it dies with this process.

    Args:
        notebook: the dashboard at the root of the address.
        pages: further ones, {name: notebook}, each at /NAME; in the same folder. No other notebook can be reached.
        port: where to listen on 127.0.0.1; it must be free.
        token: what a visitor must know; at least 16 characters.
        database_url: a login that can only read, handed to the kernels as DATABASE_URL.
        log: the file that Voila's messages are appended to; readable by its owner only.
        extra_env: what the kernels need besides, as CHARTINSIGHT_… settings; nothing else of this environment passes.
        host: where to listen; another address than 127.0.0.1 is for containers, whose host publishes the port.
        preheat: keep one kernel ready, so that the page of the next visitor is there at once.
    Raises:
        ConfigError: a notebook does not exist or lies elsewhere, the token is too short, or the port is taken.
    """
    for path in (notebook, *pages.values()):
        if not path.is_file():
            raise ConfigError(f"dashboard: there is no notebook {path}. Name an .ipynb file.")
        if path.resolve().parent != notebook.resolve().parent:
            raise ConfigError(
                f"dashboard: {path} does not lie in {notebook.resolve().parent}. Put the pages into one folder."
            )
    if len(token) < 16:
        raise ConfigError(f"dashboard: the token has {len(token)} characters, and 16 are needed. Make one at random.")
    check_port(host, port)
    kept = KEPT + (KEPT_ON_WINDOWS if os.name == "nt" else ())
    env = {name: os.environ[name] for name in kept if name in os.environ}
    # A kernel of the same environment, whatever kernels the user has installed elsewhere.
    env |= {"DATABASE_URL": database_url, "JUPYTER_PATH": str(PAGE), "JUPYTER_PREFER_ENV_PATH": "1"}
    env |= {"PYDEVD_DISABLE_FILE_VALIDATION": "1"} | dict(
        extra_env
    )  # four lines of the debugger's in the log per kernel
    log.parent.mkdir(parents=True, exist_ok=True)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "chartinsight_lib.dashboard_server"],
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
            env=env,
            cwd=notebook.resolve().parent,
            start_new_session=True,
        )
    finally:
        os.close(written)
    settings = {"notebook": str(notebook.resolve()), "host": host, "port": port, "token": token, "preheat": preheat}
    settings["pages"] = {name: path.resolve().name for name, path in pages.items()}
    assert process.stdin is not None  # noqa: S101  (asked for above)
    with contextlib.suppress(BrokenPipeError):  # it died at once: `wait_ready` says why
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    return Dashboard(process, port=port, token=token, log=log)


def check_port(host: str, port: int) -> None:
    """Raise ConfigError, naming who has it, when a port cannot be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name != "nt":  # there the option would let two programs share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} is taken ({_user_of(port) or error.strerror}). Stop what uses it, or pass --port N."
            ) from error


def _user_of(port: int) -> str | None:
    """Return which process listens on a port, as far as we may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}" if connection.pid else None
    return None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirection for the answer that it is."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _status_without_token(port: int) -> int | None:
    opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/", timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None

"""The server of a dashboard: what it refuses to start, whom it keeps out, and that nothing of it stays behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from chartinsight_lib import dashboard
from chartinsight_lib.errors import ConfigError

TOKEN = "a-token-of-enough-characters"


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("'the page'")]), path)
    return path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((dashboard.HOST, 0))
        return int(probe.getsockname()[1])


def start(notebook: Path, port: int, token: str = TOKEN, **options: Any) -> dashboard.Dashboard:
    log = notebook.parent / "voila.log"
    return dashboard.start_dashboard(
        notebook=notebook, port=port, token=token, database_url="postgresql://reader@x/y", log=log, **options
    )


def until(true: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def status(url: str, host: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})  # noqa: S310
    try:
        with urllib.request.build_opener(dashboard._Stay).open(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_taken_port_is_named_with_what_to_do(notebook: Path):
    with socket.socket() as other:
        other.bind((dashboard.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {taken} is taken \(.+\)\. Stop what uses it, or pass --port N\."):
            start(notebook, taken)


def test_a_missing_notebook_and_a_short_token_are_refused(notebook: Path, port: int):
    with pytest.raises(ConfigError, match="there is no notebook"):
        start(notebook.with_name("other.ipynb"), port)
    with pytest.raises(ConfigError, match="the token has 5 characters"):
        start(notebook, port, "short")


def test_only_the_token_opens_the_page_and_nothing_stays_after_stop(
    notebook: Path, port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KIWOOM_SECRET", "geheim")
    with start(notebook, port) as server:
        server.wait_ready()
        assert until(lambda: bool(dashboard.descendants(server.pid)))  # the kernel that is kept ready
        family = [psutil.Process(server.pid), *dashboard.descendants(server.pid)]
        assert not any(TOKEN in " ".join(process.cmdline()) for process in family)
        assert not any({"KIWOOM_SECRET", "JUPYTER_TOKEN"} & process.environ().keys() for process in family)
        page = f"http://{dashboard.HOST}:{port}/"
        assert status(page) == status(page + "?token=wrong") == 302
        assert status(page + "voila/files/page.ipynb") == 403
        assert status(server.url, host="evil.example") == 403
        assert status(server.url) == 200
        family += dashboard.descendants(server.pid)
    assert alive([process.pid for process in family]) == []
    log = notebook.with_name("voila.log")
    assert log.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in log.read_text(encoding="utf-8")


def test_a_second_page_has_its_address_and_no_other_notebook_has_one(notebook: Path, port: int):
    for name, says in (("health", "'the other page'"), ("private", "'nobody sees this'")):
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(says)]), notebook.with_name(f"{name}.ipynb")
        )
    with start(notebook, port, pages={"health": notebook.with_name("health.ipynb")}, preheat=False) as server:
        server.wait_ready()
        root = server.url.partition("?")[0]
        assert status(root + "health") == 302  # to the login
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        visitor.open(server.url, timeout=60).close()  # the token once: from here on the cookie is enough
        with visitor.open(root + "health", timeout=60) as reply:
            assert "the other page" in reply.read().decode()
        others = [
            "private", "private.ipynb", "health.ipynb", "health/private.ipynb", "health/../private.ipynb", "..%2fprivate.ipynb",
            "voila/render/private.ipynb", "voila/files/private.ipynb", "voila/files/health/..%2f..%2fetc%2fpasswd", "voila/tree",
            "voila/tree/", "voila/api/contents/", "api/contents/private.ipynb", "tree", "lab", "files/private.ipynb",
        ]  # fmt: skip
        refused = {}
        for path in others:
            try:
                with visitor.open(root + path, timeout=60) as reply:
                    refused[path] = reply.status
            except urllib.error.HTTPError as error:
                refused[path] = error.code
        assert set(refused.values()) <= {403, 404}, refused


def test_a_page_that_lies_elsewhere_is_refused(notebook: Path, port: int, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "page.ipynb"
    other.write_bytes(notebook.read_bytes())
    with pytest.raises(ConfigError, match="does not lie in"):
        start(notebook, port, pages={"health": other})


def test_the_server_and_its_kernels_die_with_a_starter_that_is_killed(notebook: Path, port: int):
    program = (
        "import json, sys, time; from pathlib import Path; from chartinsight_lib import dashboard\n"
        f"server = dashboard.start_dashboard(notebook=Path({str(notebook)!r}), port={port}, token={TOKEN!r},\n"
        f"    database_url='x', log=Path({str(notebook.with_name('voila.log'))!r}))\n"
        "server.wait_ready()\n"
        "while not dashboard.descendants(server.pid): time.sleep(0.05)\n"
        "print(json.dumps([server.pid, *(child.pid for child in dashboard.descendants(server.pid))]), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pids = json.loads(starter.stdout.readline())
        os.kill(starter.pid, signal.SIGKILL)
    assert len(pids) >= 2
    assert until(lambda: not alive(pids)), alive(pids)

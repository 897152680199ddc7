"""The simulated market that `up` brings along: a simulator in a process of its own, and settings that point at it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydantic import SecretStr

from chartinsight_lib.clients.kiwoom import REAL_RATE
from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.processes import spawn, stop_group
from chartinsight_lib.settings import PREFIX, Settings

SPEED = 60.0
"""Simulated seconds per second: a trading day with its after-market takes eleven minutes, a night none."""
YEARS = 3
READY_WITHIN_S = 60.0


@contextmanager
def simulated_market(settings: Settings) -> Iterator[Settings]:
    """Run a simulator for the length of a `with`; give settings with its address, keys, quota and clock.

    Its clock goes on where it stood last: what is stored stays in its past.

    Raises:
        ConfigError: the simulator does not start.
    """
    folder = settings.home / "simulator"
    folder.mkdir(parents=True, exist_ok=True)
    clock, log = folder / "clock", folder / "simulator.log"
    # Nothing is behind these keys but invented prices; that they stay the same keeps the tables of quotas and tokens small.
    keys = {name: f"simulated-{name}" for name in ("kiwoom_appkey", "kiwoom_secretkey")}
    port = free_port()
    command = [
        sys.executable, "-m", "chartinsight_lib.cli", "simulate", f"--port={port}", f"--speed={SPEED:g}", "--skip-closed",
        f"--clock-file={clock}", "--resume", "--until-eof",
    ]  # fmt: skip
    environment = {**os.environ, **{PREFIX + name.upper(): value for name, value in keys.items()}}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        process = spawn(command, env=environment, cwd=settings.project, log=out, stdin=subprocess.PIPE)
    try:
        _wait(process, port, log)
        yield settings.model_copy(
            update={
                "kiwoom_url": f"http://127.0.0.1:{port}",
                "kiwoom_rate": REAL_RATE * SPEED,
                "kiwoom_years": YEARS,
                "now": f"@{clock}",
                **{name: SecretStr(value) for name, value in keys.items()},
            }
        )
    finally:
        stop_group(process)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):  # else somebody else's, or not yet
            if httpx.get(f"http://127.0.0.1:{port}/_simulator", timeout=2, trust_env=False).json()["label"]:
                return
        time.sleep(0.05)
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["nothing"]
    raise ConfigError(f"simulator: it did not start. Its log, {log}, ends with: {words[0]}")

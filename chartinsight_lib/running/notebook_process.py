"""The process of one run, as `papermill_child` is seen from here: it gets an order, says what happens, and ends completely."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, Any, cast

import psutil  # type: ignore[import-untyped]

from chartinsight_lib.processes import descendants, kill_marked, spawn, stop_group
from chartinsight_lib.settings import PREFIX

RUN_ID = f"{PREFIX}RUN_ID"
EXIT_S = 5.0
"""A process that has said its end may take so long to be gone."""


class NotebookProcess:
    """A child of ours, its kernel and whatever that starts: all of them carry the run's id in their environment."""

    def __init__(self, environment: Mapping[str, str], *, project: Path, log: Path, warm: bool = False) -> None:
        """Start it, in a thread that outlives it; it works in `project` and writes to `log`."""
        self.mark = environment[RUN_ID]
        self.log = log
        self._sockets = Path(tempfile.mkdtemp(prefix="ci-"))  # the kernel's, for this run alone
        command = [sys.executable, "-m", "chartinsight_lib.running.papermill_child", str(self._sockets)]
        try:
            with log.open("wb") as out:
                self._child = spawn(
                    [*command, "--warm"] if warm else command,
                    env=environment, cwd=project, log=out, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )  # fmt: skip
        except BaseException:
            shutil.rmtree(self._sockets, ignore_errors=True)
            raise
        self._orders, self._reports = cast("IO[bytes]", self._child.stdin), cast("IO[bytes]", self._child.stdout)
        self._unread = b""
        self.ready = False
        self.kernel: psutil.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    def order(self, **what: Any) -> None:
        """Tell it what to execute. One that is dead says so by its `events`."""
        with suppress(OSError), self._orders as to_child:
            to_child.write(json.dumps(what).encode() + b"\n")

    def move_log(self, log: Path) -> None:
        """Have its log under another name; where it is gone, what is written from now on is, too."""
        with suppress(OSError):
            self.log.rename(log)
        self.log = log

    def events(self, within_s: float) -> list[dict[str, Any]] | None:
        """Return what it said, waiting for up to `within_s`; None when it will say nothing any more."""
        until = monotonic() + within_s
        while select.select([self._reports], [], [], max(0.0, until - monotonic()))[0]:
            read = os.read(self._reports.fileno(), 65536)
            if not read:
                return None
            *lines, self._unread = (self._unread + read).split(b"\n")
            if lines:
                found = [json.loads(line) for line in lines]
                self._note(found)
                return found
        return []

    def kernel_is_gone(self) -> bool:
        """Whether there was a kernel and there is none any more."""
        try:
            return self.kernel is not None and self.kernel.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def memory(self, beyond: int) -> int:
        """Return the bytes that the run's processes hold, worked out exactly where they may be more than `beyond`."""
        processes = [psutil.Process(self._child.pid), *descendants(self._child.pid)] if self.alive else []
        held = sum(_held(process, exact=False) for process in processes)
        # What processes share is counted in each of them: to tell it apart takes long.
        return held if held <= beyond else sum(_held(process, exact=True) for process in processes)

    def interrupt(self) -> None:
        """Let the running cell see KeyboardInterrupt."""
        if self.alive:
            os.kill(self._child.pid, signal.SIGINT)

    def end(self, *, patience_s: float = 0.0) -> int:
        """End it and all that it started, at once or after it had `patience_s` to go by itself; return its exit code."""
        try:
            if patience_s:
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(patience_s)
        finally:
            stop_group(self._child)
            kill_marked(RUN_ID, self.mark)
            with suppress(OSError):  # an order that it did not read
                self._orders.close()
            self._reports.close()
            shutil.rmtree(self._sockets, ignore_errors=True)
        return int(self._child.returncode)

    def _note(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["event"] == "ready":
                self.ready = True
                try:
                    self.kernel = psutil.Process(event["kernel"])
                except psutil.NoSuchProcess:  # it died at once, and the child is about to say so
                    continue


def _held(process: psutil.Process, *, exact: bool) -> int:
    try:
        if not exact:
            return int(process.memory_info().rss)
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.uss))  # macOS does not know the shares
    except psutil.Error:
        return 0

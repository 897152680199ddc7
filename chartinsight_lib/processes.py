"""Child processes that cannot outlive us: each leads its own group, and dies with its parent even at `kill -9`."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]

_PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h
_this_thread = threading.local()


def spawn(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: IO[bytes],
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> "subprocess.Popen[bytes]":
    """Start `command` as the leader of a new process group, its output going to `log`, or to `stdout` what is for that.

    On Linux it gets SIGTERM when the calling thread ends, with its process or without: call it from a thread that outlives it.
    """
    with starting():
        return subprocess.Popen(
            [str(part) for part in command],
            env=dict(env), cwd=cwd, stdin=stdin, stdout=log if stdout is None else stdout, stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - prctl only
        )  # fmt: skip


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Say that this thread starts a process: whoever handles signals is not to raise meanwhile.

    Python takes locks before a fork (that of `logging` is one) and frees them after it; an exception that a signal raises there
    is lost, and the lock stays taken for ever. One that is raised later loses the process that was started.
    """
    _this_thread.starts = True
    try:
        yield
    finally:
        _this_thread.starts = False


def is_starting() -> bool:
    """Whether this thread is about to start a process."""
    return getattr(_this_thread, "starts", False)


def stop_group(process: "subprocess.Popen[bytes]", *, patience_s: float = 5.0) -> None:
    """End a process that `spawn` started and all of its group: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        if number is signal.SIGTERM:
            patience_s = 1.0  # the leader is gone; whoever of the group stayed is killed
    process.wait()


def kill_marked(name: str, value: str) -> None:
    """Kill every process that was started with the environment variable `name` = `value`, and wait until it is gone.

    A kernel leads a session of its own, so its starter's group is not its group, and its starter may be dead already.
    """
    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone, or somebody else's
            if process.environ().get(name) == value:
                marked.append(process)
    kill(marked)


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes below one."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def kill(processes: list[psutil.Process]) -> None:
    """End processes at once and wait for their end; one that is gone already is none."""
    for process in processes:
        with contextlib.suppress(psutil.Error):  # psutil checks that the id still means the same process
            process.kill()
    psutil.wait_procs(processes, timeout=3)


def run_interactive(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a program that a person talks to, and return its exit code. Ctrl-C is the program's business, not ours."""
    process = subprocess.Popen([str(part) for part in command], env=env, cwd=cwd)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # after the start: what is ignored would be inherited
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        if process.poll() is None:
            process.terminate()
            process.wait()


def die_with_parent(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` that has a child sent `number` when `parent`, its starter, ends; None where there is no such
    thing (Linux alone has it)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent died before the signal was armed
            os._exit(1)

    return arm

"""A signal ends what is running, also when the exception that it raises is lost on its way."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from chartinsight_lib.studio import interruptible


class Deaf:
    """Meets a signal where Python ignores exceptions: in a finaliser."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _in_a_terminal() -> Iterator[None]:
    """The tests themselves may have been started under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interruption_and_afterwards_all_is_as_before(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=signal.Signals(number).name), interruptible():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_ignored_comes_again():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible():
        Deaf()
        time.sleep(20)
    assert time.monotonic() - began < 10


def test_what_somebody_swallows_comes_again():
    with pytest.raises(KeyboardInterrupt), interruptible():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        time.sleep(20)


def test_what_stops_is_not_disturbed_by_further_signals():
    stopped = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
            time.sleep(1.2)  # longer than until the first would come again
            stopped.append("whole")
    assert stopped == ["whole"]


def test_a_signal_that_was_ignored_before_stays_so_and_no_timer_is_left():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


FORKS = """
import ctypes, functools, os, signal

# Called first of what is done after a fork; the next is Python's own, which frees the lock of `logging`. os.kill would see to
# the signal by itself.
os.register_at_fork(after_in_parent=functools.partial(ctypes.CDLL(None).kill, os.getpid(), signal.SIGTERM))

import logging, sys, threading, time
from pathlib import Path
from chartinsight_lib.processes import spawn
from chartinsight_lib.studio import interruptible

try:
    with interruptible(), open(os.devnull, "wb") as log:
        process = spawn([sys.executable, "-c", ""], env=os.environ, cwd=Path("/"), log=log)
        time.sleep(20)
except KeyboardInterrupt:
    process.wait()
another = threading.Thread(target=logging.getLogger("another").setLevel, args=("INFO",), daemon=True)
another.start()
another.join(5)
print("it waits for ever" if another.is_alive() else "all is free", flush=True)  # `_exit` flushes nothing
os._exit(0)
"""


def test_a_signal_in_the_midst_of_a_fork_leaves_no_lock_taken_and_no_process_lost():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("all is free\n", "", 0)

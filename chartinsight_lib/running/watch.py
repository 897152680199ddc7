"""Watches a notebook while it runs: whether it has ended, is told to stop, has lost its record, or passes a limit.

At a limit the running cell is interrupted first, so that it can roll back what it holds; who has not ended after the grace is
killed, the kernel and all that it started with it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from chartinsight_lib.errors import Fenced
from chartinsight_lib.jobs import Job
from chartinsight_lib.running.notebook_process import EXIT_S, NotebookProcess
from chartinsight_lib.running.outcome import INTERRUPTED, Failure

GRACE_S = 5.0
LOOK_S = 0.25
"""So often it is looked; what the notebook says is seen at once."""
MEMORY_S = 0.5
DEAD_KERNEL_S = 10.0
"""So long after its kernel is gone the child may take to say so."""
NOBODY_HEARS = {"KernelNotStarted", "DeadKernelError"}
"""There is no cell that could roll back."""
MB = 2**20


@dataclass(slots=True)
class _Seen:
    """What is known of a run under way; times as of `monotonic`."""

    since: float
    cell: int | None = None
    cell_since: float = 0.0
    memory_at: float = 0.0
    kernel_gone: float | None = None
    ended: bool = False
    failure: Failure | None = None


@dataclass(slots=True)
class Watch:
    """Watches one run of a job; `lost` says why its record is lost to it, or None."""

    job: Job
    running: NotebookProcess
    lost: Callable[[], str | None] = lambda: None
    stop: threading.Event | None = None
    grace_s: float = GRACE_S
    _seen: _Seen = field(default_factory=lambda: _Seen(monotonic()))

    def wait(self) -> Failure | None:
        """Wait for the end of the notebook; return what went wrong. It has ended completely, also when this raises.

        Raises:
            Fenced: the run counts as ended.
        """
        reason: Failure | None = None
        try:
            until = float("inf")
            while not self._look():
                if reason is None and (reason := self._trespass()) is not None:
                    self.running.interrupt()
                    until = monotonic() + (self.grace_s if reason.error_class not in NOBODY_HEARS else 0.0)
                if monotonic() >= until:
                    break
        except BaseException:
            self._ask_and_end()
            raise
        code = self.running.end(patience_s=EXIT_S if self._seen.ended else 0.0)
        if reason is not None and reason.error_class == "Fenced":
            raise Fenced(reason.error)
        if reason is not None:
            return Failure(reason.error, reason.error_class, self._seen.cell)
        return self._seen.failure if self._seen.ended else self._died(code)

    def _look(self) -> bool:
        """Take in what was said; return whether nothing more will be."""
        events = self.running.events(LOOK_S)
        if events is None:
            return True
        for event in events:
            if event["event"] == "cell":
                self._seen.cell, self._seen.cell_since = event["number"], monotonic()
            elif event["event"] == "end":
                self._seen.ended = True
                if event["error"] is not None:
                    self._seen.failure = Failure(event["error"], event["error_class"], event.get("cell"))
        return self._seen.ended

    def _trespass(self) -> Failure | None:
        """Say why the run is to be ended; None: it is not."""
        if self.stop is not None and self.stop.is_set():
            return Failure("interrupted: whoever ran it was told to end", INTERRUPTED)
        if (why := self.lost()) is not None:
            return Failure(why, "Fenced")
        now = monotonic()
        return self._overtime(now) or self._outgrown(now) or self._dead_kernel(now)

    def _overtime(self, now: float) -> Failure | None:
        job, seen = self.job, self._seen
        if now - seen.since > job.timeout_s:
            return Failure(f"stopped: it ran longer than its {job.timeout_s} s", "RunTimeLimit")
        if not self.running.ready and now - seen.since > job.start_timeout_s:
            return Failure(f"stopped: its kernel did not start within {job.start_timeout_s} s", "KernelNotStarted")
        if job.cell_timeout_s is not None and seen.cell is not None and now - seen.cell_since > job.cell_timeout_s:
            return Failure(f"stopped: the cell ran longer than its {job.cell_timeout_s} s", "CellTimeLimit")
        return None

    def _outgrown(self, now: float) -> Failure | None:
        if now - self._seen.memory_at <= MEMORY_S:
            return None
        self._seen.memory_at = now
        most = self.job.memory_mb * MB
        if (held := self.running.memory(most)) <= most:
            return None
        return Failure(f"stopped: it held {held // MB:,} MB, and {self.job.memory_mb:,} are allowed", "MemoryLimit")

    def _dead_kernel(self, now: float) -> Failure | None:
        """The child asks after its kernel, too; but it may itself be stopped, or wait where it does not ask."""
        seen = self._seen
        if not self.running.kernel_is_gone():
            seen.kernel_gone = None
        elif seen.kernel_gone is None:
            seen.kernel_gone = now
        elif now - seen.kernel_gone > DEAD_KERNEL_S:
            return Failure("the kernel died, and nobody noticed", "DeadKernelError")
        return None

    def _ask_and_end(self) -> None:
        """End what is interrupted from outside: the cell is asked first."""
        try:
            self.running.interrupt()
            until = monotonic() + self.grace_s
            while not self._look() and monotonic() < until:
                pass
        finally:
            self.running.end(patience_s=EXIT_S if self._seen.ended else 0.0)

    def _died(self, code: int) -> Failure:
        log = self.running.log
        tail = log.read_text(encoding="utf-8", errors="replace").strip()[-500:] if log.exists() else ""
        return Failure(
            f"the notebook's process died (exit code {code}). {tail}".strip(), "ProcessDied", self._seen.cell
        )

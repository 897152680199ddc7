"""Requests a second, in a sliding window: the server counts the calls that it let pass, and refuses the next."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable


class SlidingWindow:
    """At most `limit` passes within any second, per key. A refused call costs nothing."""

    def __init__(self, limit: int, pace: Callable[[], float], seconds: float = 1.0) -> None:
        """Count in the seconds of `pace`, which runs as fast as the simulation."""
        self.limit, self._pace, self._seconds = limit, pace, seconds
        self._passed: defaultdict[Hashable, deque[float]] = defaultdict(deque)

    def admit(self, key: Hashable) -> bool:
        """Let a call pass, or refuse it."""
        now, passed = self._pace(), self._passed[key]
        if passed and passed[-1] > now:
            passed.clear()  # the clock was set to a slower speed, and its seconds began anew
        while passed and passed[0] <= now - self._seconds:
            passed.popleft()
        if len(passed) >= self.limit:
            return False
        passed.append(now)
        return True

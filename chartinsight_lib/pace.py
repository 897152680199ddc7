"""A quota used to the last request and not exceeded: slots are reserved one after the other, at even distances.

Who keeps the slots decides how far the quota reaches: `LocalSlots` one process, `db.pace.SharedSlots` every process on every
machine that shares the database. A server counts requests in a sliding window; evenly spaced ones never crowd it, whoever
sends them.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import date
from typing import Protocol

from chartinsight_lib.errors import RateLimited

SHARE = 0.96
"""Share of the allowed rate that is used: requests that arrive a little early or late still find room in the window."""
LATE_S = 0.010
"""A slot this old is not used any more: the request would crowd the next ones."""
BATCH_S = 1.0
"""At most this long a stretch of slots is reserved at once; what a crash loses is no more."""
TRIES = 3
"""So many slots in a row may be overslept; the next one is used even so."""
STEADY = 4
"""So many slots used in time, one after the other, show that a batch will be used too."""
SLOWER, RECOVERY, SLOWEST = 1.25, 0.99, 8.0
"""After a refusal slots lie `SLOWER` times as far apart, at most `SLOWEST` times; each one used brings them nearer again."""


class Slots(Protocol):
    """Keeps the slots of all keys. Each method is one step that nobody can come between."""

    def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
        """Reserve the next `count` slots of a key; `interval_s` is their distance while all goes well.

        Returns: in how many seconds the first is (below zero: it has passed), and how many seconds they are apart.
        """
        ...

    def slow_down(self, key: str, interval_s: float, *, wait_s: float, sent_ago_s: float) -> None:
        """Hold all slots of a key for `wait_s` and set them further apart, unless the refused request was sent before the
        last slow-down, which it then tells nothing new of."""
        ...


class LocalSlots:
    """Slots of this process alone."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._interval: dict[str, float] = {}
        self._slowed: dict[str, float] = {}

    def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
        """Reserve slots; see `Slots`."""
        with self._lock:
            now = self._monotonic()
            apart = max(interval_s, self._interval.get(key, 0.0) * RECOVERY**count)
            first = max(now, self._next.get(key, now))
            self._interval[key], self._next[key] = apart, first + count * apart
            return first - now, apart

    def slow_down(self, key: str, interval_s: float, *, wait_s: float, sent_ago_s: float) -> None:
        """Set slots further apart; see `Slots`."""
        with self._lock:
            now = self._monotonic()
            self._next[key] = max(self._next.get(key, now), now + wait_s)
            if now - sent_ago_s >= self._slowed.get(key, -1e9):
                self._interval[key] = min(self._interval.get(key, interval_s) * SLOWER, interval_s * SLOWEST)
                self._slowed[key] = now


class Allowance(Protocol):
    """Counts requests of which a day allows so many. Each method is one step that nobody can come between."""

    def take(self, key: str, day: date, limit: int) -> bool:
        """Count one request of a key's day; return whether it is within the limit, and leave the count alone if not."""
        ...

    def use_up(self, key: str, day: date, limit: int) -> None:
        """Tell that the server says a key's day is used up, whatever was counted."""
        ...


class LocalAllowance:
    """Counts of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: defaultdict[tuple[str, date], int] = defaultdict(int)

    def take(self, key: str, day: date, limit: int) -> bool:
        """Count one request; see `Allowance`."""
        with self._lock:
            within = self._used[key, day] < limit
            self._used[key, day] += within
            return within

    def use_up(self, key: str, day: date, limit: int) -> None:
        """Tell that a day is used up; see `Allowance`."""
        with self._lock:
            self._used[key, day] = max(limit, self._used[key, day])


class _Line:
    """The slots of one key that this process has reserved and not used yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slots: deque[float] = deque()
        self.used_in_time = 0


class Pacer:
    """Makes callers wait for their slots. Where many requests follow one another it reserves several slots at a time, so that
    most calls cost no question to who keeps them. For use by any number of threads."""

    def __init__(
        self,
        slots: Slots,
        rate: float,
        *,
        share: float = SHARE,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Allow `share` of `rate` requests per second for each key."""
        self.interval_s = 1 / (rate * share)
        self._slots, self._monotonic, self._sleep = slots, monotonic, sleep
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)
        self._late_s = max(LATE_S, self.interval_s * 0.05)
        self._most = max(1, int(BATCH_S / self.interval_s))

    def wait(self, key: str, *, until: float) -> None:
        """Return at the next slot of `key`. Raises RateLimited when that lies behind `until`, a `monotonic` time."""
        line = self._lines[key]
        for _ in range(TRIES):
            with line.lock:
                slot = self._next(key, line)
            if slot > until:
                raise RateLimited(
                    f"{key}: the next free place in its quota is {slot - self._monotonic():.1f} s away, and {until - slot:.1f} s "
                    "are left. Let fewer programs share the key, or allow more time."
                )
            if (delay := slot - self._monotonic()) > 0:
                self._sleep(delay)
            if self._monotonic() - slot <= self._late_s:
                return  # else it overslept, and would crowd the next ones

    def slow_down(self, key: str, *, wait_s: float, sent_at: float) -> None:
        """Tell that a request sent at the `monotonic` time `sent_at` was refused for its number."""
        line = self._lines[key]
        with line.lock:
            line.slots.clear()
            line.used_in_time = 0
            self._slots.slow_down(key, self.interval_s, wait_s=wait_s, sent_ago_s=self._monotonic() - sent_at)

    def _next(self, key: str, line: _Line) -> float:
        now = self._monotonic()
        while line.slots and line.slots[0] < now - self._late_s:
            line.slots.popleft()
            line.used_in_time = -STEADY  # this process is too slow to use what it reserves
        if not line.slots:
            count = self._most if line.used_in_time >= STEADY else 1
            delay_s, interval_s = self._slots.reserve(key, count, self.interval_s)
            first = (now + self._monotonic()) / 2 + delay_s  # the answer was made between the two
            line.slots.extend(first + place * interval_s for place in range(count))
        line.used_in_time += 1
        return line.slots.popleft()

"""The simulated time: real, N times as fast, or standing still until it is moved. KST.

Others on the machine follow it through a file that `chartinsight_lib.clock` reads (`CHARTINSIGHT_NOW=@PATH`): what the clock
said, how fast it runs, and the real moment at which that was so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from chartinsight_lib.clock import Clock, running_text, system_clock, write_clock
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.model import KST


class SimulatedClock:
    """Says what time it is in the simulation; may be moved forward, and only forward. Safe to use from several threads."""

    def __init__(
        self,
        start: datetime,
        *,
        speed: float = 1.0,
        published: Path | None = None,
        machine: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at `start` (tz-aware), running `speed` simulated seconds per second; 0: only `move_to` moves it."""
        if start.tzinfo is None:
            raise ConfigError(f"simulator: the start {start.isoformat()} has no time zone. Write it with +09:00.")
        if not 0 <= speed <= 100_000:
            raise ConfigError(f"simulator: the clock's speed is {speed:g}. Expected 0 (it stands) to 100000.")
        self._lock = threading.Lock()
        self._published, self._machine, self._monotonic = published, machine, monotonic
        self._speed = speed
        self._anchor, self._since = start.astimezone(KST), monotonic()
        self._publish()

    @property
    def speed(self) -> float:
        """Simulated seconds per second."""
        return self._speed

    def now(self) -> datetime:
        """Return the simulated time, tz-aware, KST."""
        with self._lock:
            return self._now()

    def pace(self) -> float:
        """Return seconds that count for quotas: they run as fast as the clock, but never slower than real ones."""
        return self._monotonic() * max(self._speed, 1.0)

    def move_to(self, moment: datetime) -> None:
        """Move the clock forward. Raises ConfigError for a moment that has passed: what was shown cannot be unseen."""
        with self._lock:
            now = self._now()
            if moment < now:
                raise ConfigError(
                    f"simulator: it is {now:%Y-%m-%d %H:%M:%S} already, and the clock cannot go back to "
                    f"{moment.astimezone(KST):%Y-%m-%d %H:%M:%S}. Start a new simulator for that."
                )
            self._anchor, self._since = moment.astimezone(KST), self._monotonic()
            self._publish()

    def set_speed(self, speed: float) -> None:
        """Run faster or slower from now on."""
        if not 0 <= speed <= 100_000:
            raise ConfigError(f"simulator: the clock's speed is {speed:g}. Expected 0 (it stands) to 100000.")
        with self._lock:
            self._anchor, self._since = self._now(), self._monotonic()
            self._speed = speed
            self._publish()

    def publish(self) -> None:
        """Write the clock's file anew, so that who starts where this one ended finds out where that was."""
        with self._lock:
            self._anchor, self._since = self._now(), self._monotonic()
            self._publish()

    def _now(self) -> datetime:
        return self._anchor + timedelta(seconds=(self._monotonic() - self._since) * self._speed)

    def _publish(self) -> None:
        if self._published is not None:
            write_clock(self._published, running_text(self._anchor, self._speed, self._machine()))

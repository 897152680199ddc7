"""The hours in which nobody wants to be told anything but what is critical."""

from dataclasses import dataclass
from datetime import datetime, time
from typing import Self
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `begins`, included, to `ends`, not included, of every day in a zone; over midnight where it ends earlier."""

    begins: time
    ends: time

    @classmethod
    def of(cls, written: str) -> Self | None:
        """Read HH:MM-HH:MM, which the settings have checked; "": there are none."""
        if not written:
            return None
        begins, _, ends = written.partition("-")
        return cls(time.fromisoformat(begins), time.fromisoformat(ends))

    def hold(self, moment: datetime, zone: ZoneInfo) -> bool:
        """Whether it is quiet at a moment, which is tz-aware."""
        clock = moment.astimezone(zone).time()
        if self.begins < self.ends:
            return self.begins <= clock < self.ends
        return clock >= self.begins or clock < self.ends

"""What was asked of the simulator, and what it said: for tests that count calls, and for people. Holds no secret."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from chartinsight_lib.simulator.wire import dumps


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request, or one frame of the WebSocket."""

    at: datetime
    """Simulated time, KST."""
    monotonic: float
    """The machine's monotonic clock, seconds."""
    api_id: str
    code: str
    """What was asked about: stk_cd, inds_cd or mrkt_tp; a frame's trnm."""
    cont_yn: str
    page: int
    status: int
    """HTTP status; 0: none was sent."""
    return_code: int | None
    bracket_code: int | None
    """The documented code, as 1700."""
    fault: str
    """The fault that was applied, or ""."""


class RequestLog:
    """The newest requests, oldest first. Safe to read while the server runs."""

    def __init__(self, keep: int, path: Path | None = None) -> None:
        """Keep so many, and write all of them to `path` as lines of JSON."""
        self._lock = threading.Lock()
        self._kept: deque[Request] = deque(maxlen=keep)
        self._file = path.open("a", encoding="utf-8", buffering=1) if path else None
        self.total = self.refused = 0

    def __iter__(self) -> Iterator[Request]:
        with self._lock:
            return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def count(self, **wanted: Any) -> int:
        """Return how many have these values: `count(api_id="ka10081", status=429)`."""
        return sum(all(getattr(one, name) == value for name, value in wanted.items()) for one in self)

    def add(self, request: Request) -> None:
        """Keep one more."""
        with self._lock:
            self._kept.append(request)
            self.total += 1
            self.refused += bool(request.return_code) or request.status >= 400
            if self._file:
                self._file.write(dumps({**asdict(request), "at": request.at.isoformat()}) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

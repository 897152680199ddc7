"""What a simulator can be told: keys, profile, quotas, page sizes, windows, faults. One frozen value, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.faults import Faults

REAL_QUOTA, MOCK_QUOTA = 5, 1
"""Requests a second per (appkey, api-id), as the two hosts state it in their 429 bodies."""


@dataclass(frozen=True)
class Options:
    """How the simulated Kiwoom behaves. The defaults are the real host on a good day."""

    keys: Mapping[str, str] = field(default_factory=lambda: {"simulated-appkey": "simulated-secretkey"}, repr=False)
    """{appkey: secretkey} that this host knows."""
    foreign_keys: frozenset[str] = frozenset()
    """Appkeys of the other environment: 8030 when a token is asked for."""
    profile: Literal["real", "mock"] = "real"
    quota: int | None = None
    """Requests a second per (appkey, api-id); None: the profile's."""
    quota_total: int | None = None
    """Requests a second over all api-ids of an appkey, refused with 1701; None: no such limit."""
    token_life: timedelta = timedelta(hours=24)
    reissue: Literal["same", "new", "kill_old"] = "same"
    """What a second token request does while a token is valid."""
    unknown_ips: frozenset[str] = frozenset()
    """Addresses that are not registered for the appkey: 8050."""
    http_401: bool = False
    """Answer an invalid token with HTTP 401 in place of 200."""
    page_sizes: Mapping[str, int] = field(default_factory=dict)
    """{api-id: rows a page}, in place of the measured ones."""
    mock_suffix: Literal["1903", "blank"] = "1903"
    """What the mock profile answers for `_NX` and `_AL`."""
    mock_lag: int = 1
    """Newest trading days that the mock profile's daily charts lack."""
    nxt: bool = True
    """Whether the real profile serves `_NX` and `_AL`; without, they are answered as in `mock_suffix`."""
    gone: Literal["blank", "zero", "1902"] = "zero"
    """What a delisted code is answered with."""
    minute_days: int = 365
    """Minute bars reach so many days back."""
    maintenance: tuple[tuple[datetime, datetime], ...] = ()
    """(start, end) KST, half-open, in which everything answers with a notice or not at all."""
    maintenance_data: Literal["html", "refuse"] = "html"
    """What the data endpoints do meanwhile; the token endpoint always shows the notice."""
    maintenance_status: int = 200
    latency_s: float = 0.0
    """Real seconds before every answer."""
    faults: Faults = field(default_factory=Faults)
    request_log: Path | None = None
    """A file to which every request is written as a line of JSON."""
    remember: int = 100_000
    """Requests that `SimulatorServer.requests` keeps."""
    skip_closed: bool = False
    """Move the clock to the next opening when the day's trading is over."""
    ping_s: float = 20.0
    """Real seconds between two PINGs of the WebSocket; one that is not echoed before the next ends the connection."""
    feed_s: float = 0.1
    """Real seconds between two looks of the WebSocket at the market."""
    duplicate_login: Literal["kick", "both"] = "kick"
    """Whether a second WebSocket with the same appkey ends the first."""

    def __post_init__(self) -> None:
        for what, value in (("quota", self.quota), ("quota_total", self.quota_total), *self.page_sizes.items()):
            if value is not None and value < 1:
                raise ConfigError(f"simulator: {what} is {value}. Expected a whole number from 1.")
        for start, end in self.maintenance:
            if start.tzinfo is None or end.tzinfo is None or start >= end:
                raise ConfigError(
                    f"simulator: the maintenance window {start} to {end} is not a span of time with a time zone. "
                    "Write two moments with +09:00, the earlier one first."
                )

    @property
    def requests_per_second(self) -> int:
        """The quota in force."""
        return self.quota or (REAL_QUOTA if self.profile == "real" else MOCK_QUOTA)

    @property
    def serves_suffixes(self) -> bool:
        """Whether `_NX` and `_AL` are known here."""
        return self.profile == "real" and self.nxt

    def window(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Return the maintenance window that `now` lies in."""
        return next(((start, end) for start, end in self.maintenance if start <= now < end), None)

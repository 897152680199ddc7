"""What deserves a notice, as a value."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

EVERYWHERE = ""
"""The market of an alert that is of none, as the pace of a quota, which all markets share."""


class Level(StrEnum):
    """How much it matters: INFO is told once; WARNING is told again while it stays; CRITICAL also in quiet hours."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should know of.

    `kind` says of which sort it is, `key` which one within the market: what stands under a key is told once. A `standing` alert
    holds until a check does not find it any more; another one happened, at `occurred_at` (tz-aware), and its key never comes
    again.
    """

    kind: str
    key: str
    level: Level
    subject: str
    body: str
    market: str
    occurred_at: datetime
    standing: bool = True

"""What is said of a market's health. Datetimes are tz-aware, in the market's zone; days are trading dates of it.

`as_json` gives the same as plain values; its form is that of these classes, and `VERSION` counts up when a field changes its
meaning or goes. A field that is added changes nothing for a reader.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

VERSION = 1

State = Literal["green", "amber", "red"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a market is not green: how bad it is, what it is about (a section below, or `job NAME`), and a sentence."""

    state: State
    about: str
    says: str


@dataclass(frozen=True, slots=True)
class SlotOf:
    """A slot of today: its state in ops.slots; `due` when it has passed without a row, `to come` before it."""

    slot: datetime
    state: str


@dataclass(frozen=True, slots=True)
class LastSlot:
    """The newest slot that has a row. It had `attempts` of `most`; `next_try` while it is retrying."""

    slot: datetime
    state: str
    reason: str | None
    attempts: int
    most: int
    next_try: datetime | None


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run, for a slot or not. `duration_s`, None while it runs, is of this machine: of a clock that runs faster than
    time it is so many times less. `error_cell` is the number of the cell that failed."""

    run_id: str
    state: str
    engine: str
    started_at: datetime
    finished_at: datetime | None
    duration_s: float | None
    rows: Mapping[str, int]
    error: str | None
    error_class: str | None
    error_cell: int | None


@dataclass(frozen=True, slots=True)
class JobHealth:
    """One job: `settled` is its newest slot whose attempts are over or wait for another one; `due_since` its oldest slot that has
    passed without a row, `due` how many have, counted to three, and `overdue` whether that was more than two cycles ago."""

    name: str
    schedule: str | None
    live: bool
    next_slot: datetime | None
    last_slot: LastSlot | None
    settled: LastSlot | None
    last_run: LastRun | None
    last_success: datetime | None
    due: int
    due_since: datetime | None
    overdue: bool
    today: tuple[SlotOf, ...]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old the data are.

    Daily bars: `daily_age_days` trading days have begun after `daily_day`, the newest final one. Of the running day: `live_at` is
    the last moment of which the source told, and `live_age_s` how long ago that was, counted from the opening of the phase under
    way; None while the market is closed, and where no job follows the running day. A cycle is the step of those jobs. The limit is
    two cycles, on a simulated clock that runs faster than time a minute of real time.
    """

    market_open: bool | None
    source: str
    simulated: bool
    collected_at: datetime | None
    daily_day: date | None
    daily_age_days: int | None
    live_at: datetime | None
    cycle_s: float | None
    live_age_s: float | None
    live_limit_s: float | None

    @property
    def live_age_cycles(self) -> float | None:
        """The same in cycles."""
        return self.live_age_s / self.cycle_s if self.live_age_s is not None and self.cycle_s else None


@dataclass(frozen=True, slots=True)
class DayHeld:
    """A trading day: instruments expected, and what became of them; `complete` is the share that is held or explained."""

    day: date
    expected: int
    present: int
    explained: int
    missing: int
    late: int
    complete: float | None


@dataclass(frozen=True, slots=True)
class Completeness:
    """Daily bars, at the last check: of all days, and of the newest, which stand newest first."""

    checked_at: datetime | None
    complete: float | None
    explained: int
    missing: int
    late: int
    given_up: int
    findings: int
    oldest_open: date | None
    days: tuple[DayHeld, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """The quota of one API: seconds between two requests now, and as they are while all goes well; and how long the queue is.
    `owner` is the fingerprint of a key."""

    owner: str
    api: str
    interval_s: float
    usual_s: float
    backlog_s: float

    @property
    def slowed(self) -> bool:
        """Whether refusals have set the requests further apart."""
        return self.interval_s > self.usual_s * 1.02


@dataclass(frozen=True, slots=True)
class Allowance:
    """Requests used of those that a day allows a key."""

    owner: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Quota:
    """Quotas in use within a day."""

    paces: tuple[Pace, ...]
    allowances: tuple[Allowance, ...]


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """A condition that holds, and since when."""

    level: str
    subject: str
    since: datetime


@dataclass(frozen=True, slots=True)
class SchedulerHealth:
    """Who runs jobs; `age_s` seconds ago it said so last."""

    name: str
    alive: bool
    age_s: float
    running: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes used and left, where the executed notebooks and the data directory lie; the newest backup, if there is one."""

    database_bytes: int
    runs_bytes: int
    free_bytes: int
    backup_at: datetime | None
    backup_bytes: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """How a market stands at `now`: the worst of its reasons; green without any."""

    market: str
    zone: str
    now: datetime
    reasons: tuple[Reason, ...]
    jobs: tuple[JobHealth, ...]
    freshness: Freshness
    completeness: Completeness
    quota: Quota
    alerts: tuple[OpenAlert, ...]
    schedulers: tuple[SchedulerHealth, ...]
    storage: Storage

    @property
    def state(self) -> State:
        """The worst state of the reasons."""
        states = {reason.state for reason in self.reasons}
        return "red" if "red" in states else "amber" if "amber" in states else "green"


def as_json(status: Status) -> dict[str, Any]:
    """Return a status as plain values: moments as ISO 8601 with an offset, days as ISO dates."""
    values = asdict(status)
    values["freshness"]["live_age_cycles"] = status.freshness.live_age_cycles
    for pace, told in zip(status.quota.paces, values["quota"]["paces"], strict=True):
        told["slowed"] = pace.slowed
    head = {"version": VERSION, "market": status.market, "now": status.now, "state": status.state}
    plain: dict[str, Any] = _plain(head | values)
    return plain


def no_answer(says: str) -> dict[str, Any]:
    """Return what stands for a status when the database does not answer: version, state and the reason, and nothing else."""
    return {"version": VERSION, "state": "red", "reasons": [asdict(Reason("red", "database", says))]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value  # a datetime is a date, too

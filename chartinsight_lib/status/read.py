"""Gathers what is recorded of a market, and judges it. Reads only; starts nothing."""

import os
import shutil
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, Row

from chartinsight_lib.backup import manifest
from chartinsight_lib.calendars import Calendar, calendar, horizon_warning
from chartinsight_lib.clock import clock_speed
from chartinsight_lib.db import health, heartbeat, query
from chartinsight_lib.db.engine import open_engine
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import KST
from chartinsight_lib.jobs import Job, JobList, read_list
from chartinsight_lib.pace import SHARE
from chartinsight_lib.schedule import next_slot
from chartinsight_lib.settings import Settings
from chartinsight_lib.status import judge
from chartinsight_lib.status.nouns import (
    Allowance,
    Completeness,
    DayHeld,
    Freshness,
    JobHealth,
    LastRun,
    LastSlot,
    OpenAlert,
    Pace,
    Quota,
    SchedulerHealth,
    SlotOf,
    Status,
    Storage,
)

AHEAD = timedelta(days=14)
"""So far ahead the next slot is looked for."""
DAYS = 20
BAR_S = 300.0
"""Seconds of the shortest bar that is collected of the running day."""
LIVE_MARKETS = {"kiwoom": "KRX", "simulated": "SIM"}


class Health:
    """What a page or a command asks: how one market stands. Holds a read-only engine."""

    def __init__(self, engine: Engine, settings: Settings, market: str | None = None) -> None:
        """`market`: None is that of the settings, else the one collected last."""
        self._engine, self._settings, self._market = engine, settings, market
        self._listed: JobList | None = None

    def status(self) -> Status:
        """Return how the market stands now. Raises NotFound for a market that has no calendar, ConfigError for a wrong list of
        jobs."""
        self._listed = self._listed or read_list(self._settings.project)
        with self._engine.connect() as conn:
            market = chosen_market(conn, self._settings, self._market)
            return read_status(conn, self._settings, market, self._listed)


def open_health(settings: Settings | None = None) -> Health:
    """Return what tells of the database of the settings, read-only."""
    settings = settings or Settings.from_env()
    return Health(open_engine(settings, Role.READER), settings)


def chosen_market(conn: Connection, settings: Settings, asked: str | None) -> str:
    """Return the market asked for, else that of the settings, else the one collected last, else that of the source."""
    found = asked or settings.market or next(iter(query.markets(conn)), None)
    return found or LIVE_MARKETS.get(settings.source, "KRX")


def read_status(conn: Connection, settings: Settings, market: str, listed: JobList) -> Status:
    """Return how a market stands now, by the clock of the settings; by that of the simulator's file for the simulated market.

    Raises:
        NotFound: the market has no calendar.
        ConfigError: the clock of the settings cannot be read.
    """
    known, settings = calendar(market), _on_its_clock(settings, market)
    now, speed = settings.clock().astimezone(known.zone), clock_speed(settings.now)
    schedulers = tuple(
        SchedulerHealth(
            beat.name, beat.age_s <= heartbeat.ALIVE_S, beat.age_s, beat.running, beat.started_at.astimezone(known.zone)
        )
        for beat in heartbeat.heard(conn, market)
    )
    jobs = _Jobs(conn, settings, known, now, speed, listed.jobs, bool(schedulers))
    live = [job for job in listed.jobs.values() if job.live] if jobs.live else []
    parts: dict[str, Any] = {
        "jobs": jobs.read(),
        "freshness": _freshness(conn, known, now, speed, live),
        "completeness": _completeness(conn, market, known.zone),
        "quota": _quota(conn, settings, now),
        "schedulers": schedulers,
        "storage": _storage(conn, settings, known.zone),
    }
    warning = horizon_warning(market, now)
    why = judge.reasons(now=now, speed=speed, warning=warning, **parts)
    return Status(market, str(known.zone), now, why, alerts=_alerts(conn, market, known.zone), **parts)


def _on_its_clock(settings: Settings, market: str) -> Settings:
    """The simulated market has a clock of its own, which `up` keeps in the data directory."""
    kept = settings.home / "simulator" / "clock"
    if market != "SIM" or settings.now is not None or not kept.exists():
        return settings
    return settings.model_copy(update={"now": f"@{kept}"})


def _reaches(known: Calendar, moment: datetime) -> bool:
    return known.first <= moment.astimezone(known.zone).date() <= known.horizon


class _Jobs:
    """The jobs of one market at one moment. `live`: its running day is followed, because the source of the settings knows it, or
    because a job that does so has had slots."""

    def __init__(
        self, conn: Connection, settings: Settings, known: Calendar, now: datetime, speed: float, jobs: Mapping[str, Job],
        heard: bool,
    ) -> None:  # fmt: skip
        self._known, self._now, self._speed, self._jobs = known, now, speed, jobs
        market, names = known.market, list(jobs)
        self._newest = health.newest_slots(conn, market, names)
        self._settled = health.newest_slots(conn, market, names, settled=True)
        self._runs = health.newest_runs(conn, market, names)
        self._successes = health.newest_runs(conn, market, names, succeeded=True)
        self._morning = datetime.combine(now.date(), time.min, known.zone)
        self._night = self._morning + timedelta(days=1, microseconds=-1)
        self._states = health.slots_between(conn, market, names, self._morning, self._night)
        # Where nothing was ever claimed and nobody stands, nothing is going to run: there is no next.
        self._scheduled = heard or bool(self._newest)
        self.live = LIVE_MARKETS.get(settings.source) == market or any(jobs[name].live for name in self._newest)
        self._inside = _reaches(known, now)

    def read(self) -> tuple[JobHealth, ...]:
        return tuple(self._one(job) for job in self._jobs.values())

    def _one(self, job: Job) -> JobHealth:
        newest, settled = self._slot(self._newest.get(job.name)), self._slot(self._settled.get(job.name))
        runs = self._scheduled and self._inside and job.suits(self._known.market, live=self.live)
        missed = judge.passed(job, self._known, self._now, newest) if self._inside else []
        success = self._successes.get(job.name)
        return JobHealth(
            name=job.name,
            schedule=None if job.schedule is None else str(job.schedule),
            live=job.live,
            next_slot=self._next(job) if runs else None,
            last_slot=newest,
            settled=settled,
            last_run=self._run(self._runs.get(job.name)),
            last_success=None if success is None else success.finished_at.astimezone(self._known.zone),
            due=len(missed),
            due_since=missed[0] if missed else None,
            overdue=judge.overdue(missed, self._now, self._speed),
            today=self._today(job) if runs else (),
        )

    def _next(self, job: Job) -> datetime | None:
        if job.schedule is None:
            return None
        end = datetime.combine(self._known.horizon, time.max, self._known.zone)
        return next_slot(job.schedule, self._known, self._now, within=min(AHEAD, end - self._now))

    def _today(self, job: Job) -> tuple[SlotOf, ...]:
        if job.schedule is None:
            return ()
        slots = job.schedule.slots(self._known, self._morning - timedelta(microseconds=1), self._night)
        return tuple(SlotOf(slot, self._state(job, slot)) for slot in slots)

    def _state(self, job: Job, slot: datetime) -> str:
        if (found := self._states.get((job.name, slot))) is not None:
            return found
        newest = self._newest.get(job.name)
        if slot > self._now:
            return "to come"
        return "due" if newest is not None and slot > newest.slot else "none"

    def _slot(self, row: Row[Any] | None) -> LastSlot | None:
        if row is None:
            return None
        zone = self._known.zone
        again = row.next_try.astimezone(zone) if row.next_try else None
        return LastSlot(row.slot.astimezone(zone), row.state, row.reason, row.attempts, row.most, again)

    def _run(self, row: Row[Any] | None) -> LastRun | None:
        if row is None:
            return None
        zone = self._known.zone
        ended = row.finished_at.astimezone(zone) if row.finished_at else None
        took = (row.finished_at - row.started_at).total_seconds() / max(self._speed, 1.0) if ended else None
        return LastRun(
            run_id=str(row.run_id), state=row.state, engine=row.engine, started_at=row.started_at.astimezone(zone),
            finished_at=ended, duration_s=took,
            rows=dict(row.rows or {}), error=row.error, error_class=row.error_class, error_cell=row.error_cell,
        )  # fmt: skip


def _freshness(conn: Connection, known: Calendar, now: datetime, speed: float, live: list[Job]) -> Freshness:
    held = query.health(conn, known.market)
    day = query.last_final_day(conn, known.market)
    inside = _reaches(known, now)
    cycle = judge.cycle_s(live)
    told = health.told_last(conn, known.market, [job.name for job in live]) if live else None
    if live and (bar := health.newest_bar(conn, known.market, "5m")) is not None:
        ended = min(bar + timedelta(seconds=BAR_S), now)
        told = max(told, ended) if told else ended
    return Freshness(
        market_open=known.is_open(now) if inside else None,
        source=held["source"],
        simulated=held["simulated"],
        collected_at=held["collected_at"].astimezone(known.zone) if held["collected_at"] else None,
        daily_day=day,
        daily_age_days=known.days_begun(day, now) if day and inside and day >= known.first else None,
        live_at=told.astimezone(known.zone) if told else None,
        cycle_s=cycle,
        live_age_s=judge.live_age_s(known, now, told) if cycle is not None and inside else None,
        live_limit_s=judge.live_limit_s(cycle, speed) if cycle is not None else None,
    )


def _completeness(conn: Connection, market: str, zone: ZoneInfo) -> Completeness:
    held = health.quality(conn, market)
    days = tuple(
        DayHeld(row.day, row.expected, row.present, row.explained, row.missing, row.late, row.completeness)
        for row in health.completeness(conn, market, DAYS)
    )
    if held is None:
        return Completeness(None, None, 0, 0, 0, 0, 0, None, days)
    return Completeness(
        checked_at=held.checked_at.astimezone(zone), complete=held.completeness, explained=int(held.explained),
        missing=int(held.missing), late=int(held.late), given_up=int(held.given_up), findings=int(held.findings),
        oldest_open=held.oldest_open, days=days,
    )  # fmt: skip


def _quota(conn: Connection, settings: Settings, now: datetime) -> Quota:
    rows = health.paces(conn)
    own, usual_s = _own_quota(settings) if rows else ("", 0.0)
    paces = []
    for row in rows:
        # Of a key that is not ours here only this is known: its APIs have one quota, and the quickest is not slowed down.
        least = min(other.interval_s for other in rows if other.owner == row.owner)
        usual = usual_s if row.owner == own and row.key != "*" else least
        paces.append(Pace(row.owner, row.key, row.interval_s, min(usual, row.interval_s), row.backlog_s))
    used = health.allowances(conn, now.astimezone(KST).date())
    return Quota(tuple(paces), tuple(Allowance(row.owner, row.used, settings.dart_daily) for row in used))


def _own_quota(settings: Settings) -> tuple[str, float]:
    """Return the fingerprint of the appkey in the settings, and the seconds between two of its requests while all goes well."""
    if settings.kiwoom_appkey is None:
        return "", 0.0
    from chartinsight_lib.clients.kiwoom import usual_rate
    from chartinsight_lib.clients.kiwoom_auth import Credentials

    keys = Credentials(settings.kiwoom_appkey.get_secret_value().strip(), "")
    rate = settings.kiwoom_rate or usual_rate(settings.kiwoom_url)
    return keys.fingerprint(settings.kiwoom_url), 1 / (rate * SHARE)


def _alerts(conn: Connection, market: str, zone: ZoneInfo) -> tuple[OpenAlert, ...]:
    return tuple(
        OpenAlert(row.level, row.subject, row.opened_at.astimezone(zone)) for row in health.open_alerts(conn, market)
    )


def _storage(conn: Connection, settings: Settings, zone: ZoneInfo) -> Storage:
    backups = manifest.listed(settings.backups)
    newest = backups[-1].manifest if backups else None
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    return Storage(
        database_bytes=health.database_bytes(conn),
        runs_bytes=_size(settings.runs),
        free_bytes=shutil.disk_usage(place).free,
        backup_at=newest.made_at.astimezone(zone) if newest else None,
        backup_bytes=newest.bytes if newest else None,
    )


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder; what goes meanwhile counts for nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118 - thousands of files
            except FileNotFoundError:
                continue
    return total

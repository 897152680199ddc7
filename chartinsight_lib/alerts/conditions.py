"""What is wrong now: jobs that failed or were cut off; stale data, holes, quotas running out, an old backup.

Each question is one read of what is recorded; nothing is kept here between two checks. What is late or stale is judged by
`status.judge`, so that an alert never contradicts the health page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, text

from chartinsight_lib.alerts.alert import EVERYWHERE, Alert, Level
from chartinsight_lib.backup import manifest
from chartinsight_lib.calendars import calendar, horizon_warning
from chartinsight_lib.clock import clock_speed
from chartinsight_lib.db import health, query
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import BeyondHorizon, ConfigError
from chartinsight_lib.jobs import JobList, read_list
from chartinsight_lib.settings import Settings
from chartinsight_lib.status import judge

JOB, STALE, GAPS, QUOTA, BACKUP, CALENDAR, LIST = "job", "stale", "gaps", "quota", "backup", "calendar", "list"

REMEMBERED = timedelta(days=14)
"""A job that was not due for so long has left the list, or nobody runs it any more: it is no news."""
HISTORICAL_DAYS = 30
"""Where the newest daily bar is older than so many trading days, nobody is collecting that market any more."""
COMPLETE = 0.99
"""Less than this share of the expected bars held or explained is a hole to be told of."""
SLOWED = "10 minutes"
"""So long after a refusal a quota counts as slowed down."""
BACKUP_DAYS = 3
"""Where backups are made, the newest may be so old."""
_LONGEST = 600  # characters of a reason


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds, and which kinds of it could be judged: of the others nobody knows whether they hold."""

    alerts: list[Alert]
    judged: frozenset[str]


def conditions(conn: Connection, settings: Settings, market: str, now: datetime) -> Conditions:
    """Return what is wrong with a market at `now`, which is tz-aware, and with what all markets share."""
    alerts = [*_holes(conn, market), *_quotas(conn, settings, now), *_old_backup(settings, market, now)]
    judged = {GAPS, QUOTA, BACKUP, CALENDAR, LIST}
    if warning := horizon_warning(market, now):
        alerts.append(Alert(CALENDAR, CALENDAR, Level.WARNING, f"The calendar of {market} ends", warning, market, now))
    try:
        jobs = _jobs(settings.project)
        alerts += _failed_jobs(conn, jobs, market, now)
        judged.add(JOB)
        alerts += [*_old_days(conn, market, now), *_old_minutes(conn, jobs, settings, market, now)]
        judged.add(STALE)
    except ConfigError as error:
        alerts.append(Alert(LIST, LIST, Level.WARNING, "The list of jobs cannot be read", str(error), EVERYWHERE, now))
    except BeyondHorizon:
        pass  # told above
    return Conditions(alerts, frozenset(judged))


def _jobs(project: Path) -> JobList:
    path = project / "pipelines" / "jobs.yaml"
    return _read(project, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _read(project: Path, _changed: int) -> JobList:
    """The list takes longer to read than all of the database: it is read again when its file has changed."""
    return read_list(project)


def _failed_jobs(conn: Connection, jobs: JobList, market: str, now: datetime) -> Iterator[Alert]:
    """Jobs whose newest slot that was tried failed for good or was cut off, until a run succeeds."""
    rows = conn.execute(
        text("""
            SELECT s.job, s.slot, s.state, s.reason, s.attempts, s.changed_at, s.run_id
            FROM   unnest(CAST(:jobs AS text[])) WITH ORDINALITY AS j (job, place)
            CROSS  JOIN LATERAL (
                SELECT * FROM ops.slots AS o
                WHERE  o.job = j.job AND o.market = :market AND o.slot > :since
                AND   (o.state IN ('succeeded', 'failed', 'retrying') OR o.state = 'running' AND o.attempts > 1)
                ORDER  BY o.slot DESC LIMIT 1) AS s
            LEFT   JOIN ops.runs AS r ON r.run_id = s.run_id
            WHERE (s.state = 'failed' OR s.state = 'retrying' AND r.state = 'lost'
                   OR s.state = 'running' AND EXISTS (  -- what was told is not over because it is tried again
                       SELECT FROM ops.alerts WHERE market = :market AND key = 'job:' || s.job AND resolved_at IS NULL))
            AND    NOT EXISTS (SELECT FROM ops.runs AS o WHERE o.job = s.job AND o.state = 'succeeded'
                               AND o.started_at > s.slot AND COALESCE(o.market, :market) = :market)
            ORDER  BY j.place
        """),
        {"jobs": list(jobs.jobs), "market": market, "since": now - REMEMBERED},
    )
    zone = calendar(market).zone
    for row in rows:
        failed, slot = row.state == "failed", f"{row.slot.astimezone(zone):%Y-%m-%d %H:%M}"
        then = (
            f"It is not tried again, after {_counted(row.attempts, 'attempt')}. `chartinsight runs list` says more."
            if failed
            else "It is tried again."
        )
        reason = (row.reason or "no reason is recorded").strip()[:_LONGEST]
        yield Alert(
            JOB, f"{JOB}:{row.job}", Level.WARNING, f"{row.job} {'failed' if failed else 'was cut off'}",
            f"Slot {slot}, run {row.run_id}: {reason}\n{then}", market, row.changed_at,
        )  # fmt: skip


def _old_days(conn: Connection, market: str, now: datetime) -> Iterator[Alert]:
    newest = query.last_final_day(conn, market)
    if newest is None:
        return
    age = calendar(market).days_begun(newest, now)
    if judge.DAYS < age <= HISTORICAL_DAYS:
        yield Alert(
            STALE, f"{STALE}:1d", Level.WARNING, f"Daily bars are {age} trading days old",
            f"The newest final bar is of {newest}. `chartinsight status` shows which job is behind.", market, now,
        )  # fmt: skip


def _old_minutes(conn: Connection, jobs: JobList, settings: Settings, market: str, now: datetime) -> Iterator[Alert]:
    """In an open market the running day is told of, where a scheduler follows it."""
    known, live = calendar(market), [job for job in jobs.jobs.values() if job.live]
    names, cycle = [job.name for job in live], judge.cycle_s(live)
    if cycle is None or not known.is_open(now):
        return
    if not any(row.slot > now - REMEMBERED for row in health.newest_slots(conn, market, names).values()):
        return
    told = health.told_last(conn, market, names)
    age = judge.live_age_s(known, now, told)
    if age is not None and age > judge.live_limit_s(cycle, clock_speed(settings.now)):
        last = (
            f"A source told something last at {told.astimezone(known.zone):%Y-%m-%d %H:%M:%S}"
            if told
            else "No source has told anything yet"
        )
        yield Alert(
            STALE, f"{STALE}:live", Level.CRITICAL, "The market is open, and nothing comes in",
            f"{last}; it should every {cycle / 60:g} minutes.", market, now,
        )  # fmt: skip


def _holes(conn: Connection, market: str) -> Iterator[Alert]:
    rows = conn.execute(
        text("""
            SELECT timeframe, completeness, missing, late, given_up, checked_at FROM api.quality
            WHERE  market = :market AND (completeness < :complete OR given_up > 0) ORDER BY timeframe
        """),
        {"market": market, "complete": COMPLETE},
    )
    for row in rows:
        told = (
            f"{row.missing:,} bars are missing, {row.late:,} late, {row.given_up:,} given up. `chartinsight data gaps` lists "
            "them, `chartinsight data repair --again` asks the source once more."
        )
        if row.completeness < COMPLETE:
            yield Alert(
                GAPS, f"{GAPS}:{row.timeframe}", Level.WARNING,
                f"{row.timeframe} bars are {_percent(row.completeness)} complete", told, market, row.checked_at,
            )  # fmt: skip
        if row.given_up:
            yield Alert(
                GAPS, f"{GAPS}:{row.timeframe}:given-up", Level.INFO,
                f"Given up: {_counted(row.given_up, 'hole')} in {row.timeframe} bars", told, market, row.checked_at,
            )  # fmt: skip


def _quotas(conn: Connection, settings: Settings, now: datetime) -> Iterator[Alert]:
    slowed = conn.execute(
        text("""
            SELECT string_agg(DISTINCT split_part(key, ':', -1), ', ') AS apis, max(slowed_at) AS at FROM ops.pace
            WHERE  slowed_at > clock_timestamp() - CAST(:within AS interval)
        """),
        {"within": SLOWED},
    ).one()
    if slowed.apis:
        yield Alert(
            QUOTA, f"{QUOTA}:pace", Level.INFO, "A source slows us down",
            f"It refused requests as too many, and they go slower now: {slowed.apis}. If that lasts, something else uses the same "
            "key, or the rate in the settings is too high.", EVERYWHERE, now,
        )  # fmt: skip
    today = now.astimezone(KST).date()
    used = conn.execute(text("SELECT max(used) FROM ops.allowances WHERE day = :day"), {"day": today}).scalar_one()
    if used is not None and used >= judge.NEARLY * settings.dart_daily:
        yield Alert(
            QUOTA, f"{QUOTA}:day", Level.WARNING, f"{_percent(used / settings.dart_daily)} of today's requests are used",
            f"{used:,} of the {settings.dart_daily:,} that Open DART allows a key on {today}. What is left waits until tomorrow.",
            EVERYWHERE, now,
        )  # fmt: skip


def _old_backup(settings: Settings, market: str, now: datetime) -> Iterator[Alert]:
    """Where backups are made; what is simulated needs none."""
    backups = manifest.listed(settings.backups) if market != "SIM" else []
    if backups and (age := (now - backups[-1].manifest.made_at).days) >= BACKUP_DAYS:
        yield Alert(
            BACKUP, BACKUP, Level.WARNING, f"The newest backup is {age} days old",
            f"{backups[-1].path.name} was made on {backups[-1].manifest.made_at:%Y-%m-%d}. `chartinsight db backup` makes one.",
            market, now,
        )  # fmt: skip


def _percent(share: float) -> str:
    """Write a share; 99.96 % is not the whole."""
    return f"{int(share * 1000) / 10:.1f} %"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

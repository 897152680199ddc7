"""A status as lines for a person, aligned; times are of the market. `in_words` are also the page's and the report's."""

import math
from datetime import datetime

from chartinsight_lib.ledger import rows_text
from chartinsight_lib.status.judge import size, span
from chartinsight_lib.status.nouns import Freshness, JobHealth, LastRun, Pace, Status

NOTHING = "–"


def as_text(status: Status) -> list[str]:
    """Return the lines of a status."""
    lines = [f"{status.market}  {status.state.upper()}  {status.now:%Y-%m-%d %H:%M:%S %Z}"]
    lines += [f"  {reason.state.upper():<6} {reason.about}: {reason.says}" for reason in status.reasons]
    lines += [
        "",
        *_table([["job", "next", "last slot", "state", "last run", "took", "what it did"], *map(_job, status.jobs)]),
    ]
    lines += ["", *(f"  {label:<13} {words}" for label, words in summary(status))]
    return lines


def summary(status: Status) -> list[tuple[str, str]]:
    """Return what there is besides the jobs, a label and words each."""
    return [
        ("daily bars", daily_in_words(status.freshness)),
        ("running day", live_in_words(status.freshness)),
        ("completeness", completeness_in_words(status)),
        ("quota", quota_in_words(status)),
        ("schedulers", schedulers_in_words(status)),
        ("alerts", "; ".join(f"{alert.level}: {alert.subject}" for alert in status.alerts) or "none open"),
        ("storage", storage_in_words(status)),
        ("backup", backup_in_words(status)),
    ]


def daily_in_words(held: Freshness) -> str:
    """Say of when the newest final bar is, and from where."""
    if held.daily_day is None:
        return "none held"
    days = held.daily_age_days
    age = "" if days is None else f", {days:,} trading {'day has' if days == 1 else 'days have'} begun since"
    simulated = ", SIMULATED" if held.simulated else ""
    return f"final up to {held.daily_day}{age} (source {held.source or 'unknown'}{simulated})"


def live_in_words(held: Freshness) -> str:
    """Say how old the data of the running day are."""
    if held.cycle_s is None:
        return "not followed"
    told = f"told last {held.live_at:%m-%d %H:%M:%S}" if held.live_at else "nothing told yet"
    if held.live_age_cycles is None:
        return f"market closed, {told}"
    return f"market open, {told}: {held.live_age_cycles:.1f} cycles of {held.cycle_s / 60:g} min old"


def completeness_in_words(status: Status) -> str:
    """Say how whole the daily bars are, and what is not."""
    held = status.completeness
    if held.checked_at is None:
        return "not checked yet"
    parts = [f"{percent(held.complete)} of all days"]
    if held.days:
        parts.append(f"{percent(held.days[0].complete)} on {held.days[0].day}")
    counts = [("missing", held.missing), ("late", held.late), ("given up", held.given_up), ("findings", held.findings)]
    parts += [f"{count:,} {name}" for name, count in counts if count]
    return ", ".join(parts)


def quota_in_words(status: Status) -> str:
    """Say which quotas are in use."""
    parts = [pace_in_words(pace) for pace in status.quota.paces if pace.slowed or pace.backlog_s >= 1]
    quiet = len(status.quota.paces) - len(parts)
    if quiet:
        parts.append(f"{quiet} APIs at full pace")
    parts += [f"{day.owner} {day.used:,} of {day.limit:,} today" for day in status.quota.allowances]
    return ", ".join(parts) or "nothing asked within a day"


def pace_in_words(pace: Pace) -> str:
    """Say how fast an API is asked, and how long the queue is."""
    slowed = f", slowed down from {1 / pace.usual_s:.2g}" if pace.slowed else ""
    queue = f", {span(pace.backlog_s)} of queue" if pace.backlog_s >= 1 else ""
    return f"{pace.api} {1 / pace.interval_s:.2g} a second{slowed}{queue}"


def schedulers_in_words(status: Status) -> str:
    """Say who is alive."""
    alive = [f"{one.name} ({one.running} running)" for one in status.schedulers if one.alive]
    gone = [f"{one.name} last heard of {span(one.age_s)} ago" for one in status.schedulers if not one.alive]
    return ", ".join(alive + gone) or "none"


def storage_in_words(status: Status) -> str:
    """Say what is used, and what is left."""
    held = status.storage
    return f"database {size(held.database_bytes)}, runs {size(held.runs_bytes)}, {size(held.free_bytes)} free"


def backup_in_words(status: Status) -> str:
    """Say when the newest backup was made."""
    held = status.storage
    if held.backup_at is None:
        return "no backup yet"
    return f"{held.backup_at:%Y-%m-%d %H:%M} ({size(held.backup_bytes or 0)})"


def next_in_words(status: Status) -> str:
    """Say which job runs next, and when; "" where none is going to."""
    coming = [(job.next_slot, job.name) for job in status.jobs if job.next_slot]
    if not coming:
        return ""
    when, name = min(coming)
    return f"{name} {moment(when, status.now)}"


def run_in_words(run: LastRun | None) -> str:
    """Say what a run did, or where and why it failed."""
    if run is None:
        return ""
    if run.error:
        return f"{run.state}: {run.error.strip().splitlines()[0]}"
    return rows_text(run.rows) or ("" if run.state == "succeeded" else run.state)


def percent(share: float | None) -> str:
    """Write a share, rounded down, so that a single hole is not 100 %."""
    return NOTHING if share is None else f"{math.floor(share * 10_000) / 100:g} %"


def moment(when: datetime | None, now: datetime) -> str:
    """Write a moment, without the date where it is today's."""
    if when is None:
        return NOTHING
    return f"{when:%H:%M}" if when.date() == now.date() else f"{when:%m-%d %H:%M}"


def duration(run: LastRun | None) -> str:
    """Write how long a run took."""
    return NOTHING if run is None or run.duration_s is None else f"{run.duration_s:.1f} s"


def slot_state(job: JobHealth) -> str:
    """Write what became of the newest slot."""
    if job.overdue:
        return "OVERDUE"
    if job.last_slot is None:
        return job.last_run.state if job.last_run else "never ran"
    return job.last_slot.state


def _job(job: JobHealth) -> list[str]:
    run, slot = job.last_run, job.last_slot
    day = "%m-%d %H:%M"
    return [
        job.name,
        f"{job.next_slot:{day}}" if job.next_slot else NOTHING,
        f"{slot.slot:{day}}" if slot else NOTHING,
        slot_state(job),
        f"{run.started_at:{day}}" if run else NOTHING,
        duration(run),
        _short(slot.reason if slot and slot.state == "skipped" and slot.reason else run_in_words(run)),
    ]


def _short(words: str, most: int = 60) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]

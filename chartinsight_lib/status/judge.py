"""From what is known of a market to a verdict: which of it is late, old, failed or running out. Pure.

Red: data are too old, a job failed for good, or nothing runs. Amber: somebody should look. What a source is late with, or what a
setting leaves out, is neither.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from chartinsight_lib.calendars import Calendar
from chartinsight_lib.jobs import Job
from chartinsight_lib.schedule import Every
from chartinsight_lib.status.nouns import (
    Completeness,
    Freshness,
    JobHealth,
    LastSlot,
    Quota,
    Reason,
    SchedulerHealth,
    Storage,
)

CYCLES = 2
"""Data and slots may be so many cycles old, and not older."""
DAYS = 1
"""So many trading days old may the newest final daily bar be; a scan refuses older ones, too."""
PATIENCE_S = 60.0
"""Jobs take time of this machine, whatever the market's clock says: so long is waited on one that runs faster than time."""
LATE = timedelta(hours=1)
"""A slot that was not begun for so long deserves a look, even where the next one is a day away."""
NEARLY = 0.9
"""So much of a day's requests used is nearly all."""
QUEUE_S = 60.0
FREE_AMBER, FREE_RED = 2**30, 300 * 2**20


def cycle_s(jobs: Sequence[Job]) -> float | None:
    """Return the seconds between two slots of the jobs that follow the running day, the shortest; None: there are none."""
    steps = [job.schedule.step.total_seconds() for job in jobs if job.live and isinstance(job.schedule, Every)]
    return min(steps, default=None)


def live_limit_s(cycle: float, speed: float) -> float:
    """Return how many seconds of the market's clock live data may be old; `speed`: how many of them pass in one."""
    return max(CYCLES * cycle, PATIENCE_S * speed if speed > 1 else 0.0)


def open_since(known: Calendar, now: datetime) -> datetime | None:
    """Return when the phase of trading that is under way opened; None while the market is closed."""
    if not known.is_open(now):
        return None
    day = known.session(now.astimezone(known.zone).date())
    return max(
        opened for opened in (day.before_opens, day.opens, day.after_opens) if opened is not None and opened <= now
    )


def live_age_s(known: Calendar, now: datetime, told: datetime | None) -> float | None:
    """Return how old what was told last is, in seconds of an open market: what it did while it was closed is no news."""
    since = open_since(known, now)
    return None if since is None else max((now - max(told or since, since)).total_seconds(), 0.0)


def passed(job: Job, known: Calendar, now: datetime, newest: LastSlot | None) -> list[datetime]:
    """Return the slots of a job that have passed without a row, the oldest first, three at the most. A job that never ran has
    missed nothing; one that is at work, or waits for its next try, takes them up afterwards."""
    if job.schedule is None or newest is None or newest.state in {"running", "retrying"}:
        return []
    return list(islice(job.schedule.slots(known, newest.slot, now), CYCLES + 1))


def overdue(found: Sequence[datetime], now: datetime, speed: float) -> bool:
    """Whether the oldest slot without a row is older than two cycles: a third one has passed since."""
    patience = timedelta(seconds=PATIENCE_S * speed if speed > 1 else 0)
    return len(found) > CYCLES and found[CYCLES] < now and now - found[0] > patience


def reasons(
    *, now: datetime, speed: float, warning: str | None, jobs: Sequence[JobHealth], freshness: Freshness,
    completeness: Completeness, quota: Quota, schedulers: Sequence[SchedulerHealth], storage: Storage,
) -> tuple[Reason, ...]:  # fmt: skip
    """Return why a market is not green, the worst first; `warning`: what is to be said of its calendar."""
    found = [
        *_of_freshness(freshness),
        *(reason for job in jobs if (reason := _of_job(job, now, speed))),
        *_of_schedulers(jobs, schedulers),
        *_of_completeness(completeness),
        *_of_quota(quota),
        *_of_storage(storage),
    ]
    if warning:
        found.append(_amber("calendar", warning))
    return tuple(sorted(found, key=lambda reason: reason.state != "red"))


def _of_freshness(held: Freshness) -> list[Reason]:
    found, about = [], "freshness"
    if held.daily_day is None:
        found.append(_red(about, "No final daily bar is held yet. Collect first: `./studio up`."))
    elif held.daily_age_days is None:
        found.append(_red(about, "How old the data are is not known: the calendar does not reach to now."))
    elif held.daily_age_days > DAYS:
        age = f"{held.daily_age_days:,} trading days old; {DAYS} is allowed"
        found.append(_red(about, f"The newest final daily bar is of {held.daily_day}, {age}."))
    if held.cycle_s and held.live_age_s is not None and held.live_limit_s and held.live_age_s > held.live_limit_s:
        told = f"the source told last at {held.live_at:%H:%M:%S}" if held.live_at else "the source has told nothing yet"
        age = f"{held.live_age_s / held.cycle_s:.2f} cycles of {held.cycle_s / 60:g} minutes"
        allowed = f"{held.live_limit_s / held.cycle_s:g} are allowed"
        found.append(_red(about, f"The market is open, and {told}: its data are {age} old, {allowed}."))
    return found


def _of_job(job: JobHealth, now: datetime, speed: float) -> Reason | None:
    about = f"job {job.name}"
    run, slot = job.last_run, job.settled
    due = f"It was due at {job.due_since:%Y-%m-%d %H:%M}" if job.due_since else ""
    if job.overdue:
        return _red(about, f"{due}, and more than {CYCLES} cycles later it has not begun.")
    healed = run is not None and run.state == "succeeded" and slot is not None and run.started_at > slot.slot
    if slot is not None and slot.state in {"failed", "retrying"} and not healed:
        tries = f" (attempt {slot.attempts} of {slot.most})" if slot.most > 1 else ""
        what = f"Its run of {slot.slot:%Y-%m-%d %H:%M} failed"
        if slot.state == "failed":
            return _red(about, f"{what} for good{tries}: {_first_line(slot.reason)}")
        again = f", and is tried again at {slot.next_try:%H:%M:%S}" if slot.next_try else ""
        return _amber(about, f"{what}{tries}{again}: {_first_line(slot.reason)}")
    if slot is None and run is not None and run.state in {"failed", "lost"}:
        ended = "was cut off" if run.state == "lost" else "failed"
        return _amber(about, f"Its last run, of {run.started_at:%Y-%m-%d %H:%M}, {ended}: {_first_line(run.error)}")
    if job.due_since is not None and now - job.due_since > max(LATE, timedelta(seconds=PATIENCE_S * speed)):
        return _amber(about, f"{due}, and has not begun.")
    return None


def _of_schedulers(jobs: Sequence[JobHealth], schedulers: Sequence[SchedulerHealth]) -> list[Reason]:
    if any(one.alive for one in schedulers) or not any(job.last_slot for job in jobs):
        return []
    runs = [job.last_run for job in jobs if job.last_run]
    if runs and max(runs, key=lambda run: run.started_at).engine == "airflow":
        return []  # which keeps its own count of who is alive; what it leaves undone is seen at the jobs
    last = f"was heard of {span(schedulers[0].age_s)} ago" if schedulers else "has left"
    return [_amber("scheduler", f"No scheduler is alive: the last one {last}. Start `./studio up`.")]


def _of_completeness(held: Completeness) -> list[Reason]:
    found, about = [], "completeness"
    if held.given_up:
        found.append(
            _amber(about, f"{held.given_up:,} expected bars were given up; `chartinsight data gaps` says why.")
        )
    if held.missing > held.given_up:
        found.append(_amber(about, f"{held.missing - held.given_up:,} expected bars are missing, and asked for again."))
    return found


def _of_quota(held: Quota) -> list[Reason]:
    found, about = [], "quota"
    if slow := [pace for pace in held.paces if pace.slowed]:
        times = max(pace.interval_s / pace.usual_s for pace in slow)
        which = ", ".join(pace.api for pace in slow)
        found.append(
            _amber(about, f"Refusals have slowed down {which}: up to {times:.1f} times as long between two requests.")
        )
    if queue := [pace for pace in held.paces if pace.backlog_s > QUEUE_S]:
        longest = max(queue, key=lambda pace: pace.backlog_s)
        found.append(_amber(about, f"Requests wait for {span(longest.backlog_s)} at {longest.api}."))
    found += [
        _amber(about, f"{day.used:,} of the {day.limit:,} requests that today allows {day.owner} are used.")
        for day in held.allowances
        if day.used >= NEARLY * day.limit
    ]
    return found


def _of_storage(held: Storage) -> list[Reason]:
    if held.free_bytes >= FREE_AMBER:
        return []
    says = f"{size(held.free_bytes)} are left on the disk of the data directory. Make room."
    return [_red("storage", says) if held.free_bytes < FREE_RED else _amber("storage", says)]


def _red(about: str, says: str) -> Reason:
    return Reason("red", about, says)


def _amber(about: str, says: str) -> Reason:
    return Reason("amber", about, says)


def span(seconds: float) -> str:
    """Write a span of time in its largest unit, as 3 min."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """Write a number of bytes in its largest unit, as 1.4 GB."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def _first_line(message: str | None) -> str:
    return (message or "no reason is recorded").strip().splitlines()[0]

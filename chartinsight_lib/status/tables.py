"""A status as tables, for the cells of a notebook."""

import pandas as pd

from chartinsight_lib.status import text
from chartinsight_lib.status.nouns import Status


def reasons(status: Status) -> pd.DataFrame:
    """Return why a market is not green, the worst first: state, about, says; no rows when it is green."""
    rows = [(reason.state, reason.about, reason.says) for reason in status.reasons]
    return pd.DataFrame(rows, columns=["state", "about", "says"])


def facts(status: Status) -> pd.DataFrame:
    """Return what there is besides the jobs: index about; says."""
    return pd.DataFrame(text.summary(status), columns=["about", "says"]).set_index("about")


def jobs(status: Status) -> pd.DataFrame:
    """Return one row per job: index job; schedule, next, slot, state, started, seconds, last_success, did. Moments are tz-aware, of
    the market; NaT where there is none."""
    rows = [
        {
            "job": job.name,
            "schedule": job.schedule or "",
            "next": job.next_slot,
            "slot": job.last_slot and job.last_slot.slot,
            "state": text.slot_state(job),
            "started": job.last_run and job.last_run.started_at,
            "seconds": job.last_run and job.last_run.duration_s,
            "last_success": job.last_success,
            "did": text.run_in_words(job.last_run),
        }
        for job in status.jobs
    ]
    zoned = dict.fromkeys(["next", "slot", "started", "last_success"], f"datetime64[s, {status.zone}]")
    return pd.DataFrame(rows).astype(zoned | {"seconds": "float64"}).set_index("job")


def days(status: Status) -> pd.DataFrame:
    """Return how whole the newest trading days are, newest first: index day; expected, present, explained, missing, late,
    complete (a share)."""
    columns = ["day", "expected", "present", "explained", "missing", "late", "complete"]
    rows = [[getattr(day, name) for name in columns] for day in status.completeness.days]
    return pd.DataFrame(rows, columns=columns).set_index("day")


def quota(status: Status) -> pd.DataFrame:
    """Return the quotas in use within a day: index api; a_second, usually, queue_s."""
    rows = [(pace.api, 1 / pace.interval_s, 1 / pace.usual_s, pace.backlog_s) for pace in status.quota.paces]
    return pd.DataFrame(rows, columns=["api", "a_second", "usually", "queue_s"]).set_index("api")

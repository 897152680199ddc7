"""Which slot is whose: a row of `ops.slots` is a claim, and there is one per job, market and slot.

All schedulers, Airflow and people claim here, one after the other, under one lock of the database: so a slot has one run at a
time and one success, however many of them ask. The caller owns the transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from chartinsight_lib.calendars import calendar
from chartinsight_lib.jobs import Job

_LOCK = 0x51_07_5  # of all claims of a database
_UNCOUNTED = 5
"""So many attempts more than a job's own has a slot whose runs were lost: a killed scheduler is not the job's fault, but a
job that kills its scheduler must end, too."""
_LONGEST = timedelta(hours=6)


class Outcome(StrEnum):
    """How an attempt at a slot ended. LOST: it was cut off from outside."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"


class Why(StrEnum):
    """Why a claim was refused: the slot has its run or its success; something else has to happen first; it is skipped."""

    TAKEN = "taken"
    NOT_YET = "not yet"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot that is ours; this is attempt `attempt`."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A slot that is not ours, and a sentence that says why not."""

    why: Why
    reason: str


def claim(
    conn: Connection,
    job: Job,
    market: str,
    slot: datetime,
    *,
    run_id: UUID,
    now: datetime,
    by: str,
    pools: Mapping[str, int],
    waits_for: Mapping[str, datetime],
    covers: Iterable[datetime] = (),
    again: bool = False,
) -> Claim | Refusal:
    """Claim a slot for a run, if it is free, its job is not running, its pool has room, and what comes before it has ended.

    Args:
        by: who claims, for people to read.
        waits_for: {job: its slot} of `job.after`, those that are due on the slot's day.
        covers: older slots that this run stands for.
        again: also a slot that has ended already.
    """
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    held = _row(conn, job.name, market, slot)
    if (refusal := _taken(held, now, again)) or (refusal := _crowded(conn, job, market, pools)):
        return refusal
    for name, when in waits_for.items():
        if refusal := _behind(conn, job, market, name, when):
            if refusal.why is Why.SKIPPED:
                skip(conn, job, market, [slot], reason=refusal.reason, by=by, now=now)
            return refusal
    covers, over = list(covers), {"retrying", "failed", "skipped"} if again else {"retrying"}
    before = _runs_of(conn, job, market, covers, over)
    if held is not None and held.run_id is not None and held.state != "covered":
        before.append(held.run_id)
    attempt = conn.execute(
        text("""
            INSERT INTO ops.slots AS s (job, market, slot, day, state, run_id, pool, attempts, most, claimed_by, changed_at)
            VALUES (:job, :market, :slot, :day, 'running', :run_id, :pool, 1, :most, :by, :now)
            ON CONFLICT (job, market, slot) DO UPDATE
            SET state = 'running', run_id = excluded.run_id, pool = excluded.pool, attempts = s.attempts + 1, most = excluded.most,
                next_try = NULL, reason = NULL, claimed_by = excluded.claimed_by, changed_at = excluded.changed_at
            RETURNING attempts
        """),
        {
            **_key(job, market, slot),
            "run_id": run_id,
            "pool": job.pool,
            "most": (held.attempts if held is not None and again else 0) + job.retries + 1,
            "by": by,
            "now": now,
        },
    ).scalar_one()
    _end(
        conn, job, market, covers, state="covered", run_id=run_id, reason=_stands_for(market, slot),
        by=by, now=now, over=over,
    )  # fmt: skip
    _move_covered(conn, job, market, before, state="covered", run_id=run_id, reason=_stands_for(market, slot), now=now)
    return Claim(int(attempt))


def settle(
    conn: Connection,
    run_id: UUID,
    outcome: Outcome,
    *,
    now: datetime,
    reason: str | None = None,
    retry_after: timedelta | None = None,
) -> str | None:
    """Say what became of the slot that a run claimed; return its new state, None for a run without a slot.

    A run that was lost is tried again at once; one that failed after `retry_after`, twice as long after each further attempt,
    while attempts are left; None: never.
    """
    state: str | None = conn.execute(
        text("""
            WITH found AS (
                SELECT job, market, slot,
                       CASE WHEN :outcome = 'succeeded' THEN 'succeeded'
                            WHEN :outcome = 'lost' AND attempts < most + :uncounted THEN 'retrying'
                            WHEN :outcome = 'failed' AND :after IS NOT NULL AND attempts < most THEN 'retrying'
                            ELSE 'failed' END AS state,
                       CASE WHEN :outcome = 'lost' THEN CAST(:now AS timestamptz)
                            ELSE CAST(:now AS timestamptz) + LEAST(
                                make_interval(secs => CAST(:after AS float8) * power(2, LEAST(attempts, 20) - 1)),
                                CAST(:longest AS interval)) END AS next_try
                FROM   ops.slots WHERE run_id = :run_id AND state = 'running' FOR UPDATE)
            UPDATE ops.slots AS s
            SET    state = f.state, next_try = CASE WHEN f.state = 'retrying' THEN f.next_try END, reason = :reason,
                   changed_at = :now
            FROM   found AS f WHERE (s.job, s.market, s.slot) = (f.job, f.market, f.slot)
            RETURNING s.state
        """),
        {
            "run_id": run_id,
            "outcome": outcome.value,
            "after": None if retry_after is None else retry_after.total_seconds(),
            "longest": _LONGEST,
            "uncounted": _UNCOUNTED,
            "reason": reason,
            "now": now,
        },
    ).scalar_one_or_none()
    return state


def skip(
    conn: Connection, job: Job, market: str, which: Iterable[datetime], *, reason: str, by: str, now: datetime
) -> None:
    """Record that slots are left out, and why; what has a row already keeps it, unless it waits for another try: then so are
    those for which it stood."""
    which = list(which)
    lost = _runs_of(conn, job, market, which, {"retrying"})
    _end(conn, job, market, which, state="skipped", run_id=None, reason=reason, by=by, now=now, over={"retrying"})
    _move_covered(conn, job, market, lost, state="skipped", run_id=None, reason=reason, now=now)


def newest(conn: Connection, market: str, jobs: Iterable[str]) -> dict[str, datetime]:
    """Return the newest slot that has a row, by job, of those that have any; UTC."""
    rows = conn.execute(
        text("""
            SELECT j.job, s.slot FROM unnest(CAST(:jobs AS text[])) AS j (job)
            CROSS  JOIN LATERAL (
                SELECT slot FROM ops.slots WHERE job = j.job AND market = :market ORDER BY slot DESC LIMIT 1) AS s
        """),
        {"jobs": list(jobs), "market": market},
    )
    return {row[0]: row[1] for row in rows}


def waiting(conn: Connection, market: str) -> list[Row[Any]]:
    """Return the slots that are to be tried again: job, slot, next_try (UTC), reason; by job and slot."""
    return list(
        conn.execute(
            text("""
                SELECT job, slot, next_try, reason FROM ops.slots
                WHERE  market = :market AND state = 'retrying' ORDER BY job, slot
            """),
            {"market": market},
        )
    )


def state(conn: Connection, job: str, market: str, slot: datetime) -> str | None:
    """Return the state of a slot; None: nobody has claimed or recorded it."""
    held = _row(conn, job, market, slot)
    return None if held is None else str(held.state)


def between(conn: Connection, job: str, market: str, first: datetime, last: datetime) -> dict[datetime, str]:
    """Return {slot, UTC: state} of the rows of a job from `first` to `last`, both included."""
    rows = conn.execute(
        text("""
            SELECT slot, state FROM ops.slots
            WHERE  job = :job AND market = :market AND slot BETWEEN :first AND :last
        """),
        {"job": job, "market": market, "first": first, "last": last},
    )
    return {row[0]: row[1] for row in rows}


def _taken(held: Row[Any] | None, now: datetime, again: bool) -> Refusal | None:
    if held is None:
        return None
    if held.state == "running":
        return Refusal(Why.TAKEN, f"it is running already, claimed by {held.claimed_by}, run {held.run_id}")
    if again:
        return None
    if held.state == "retrying":
        wait = held.next_try > now
        return Refusal(Why.NOT_YET, f"it is tried again at {held.next_try:%Y-%m-%d %H:%M:%S} UTC") if wait else None
    run = f", run {held.run_id}" if held.run_id else ""
    return Refusal(Why.TAKEN, f"it is {held.state} already{run}" + (f": {held.reason}" if held.reason else ""))


def _crowded(conn: Connection, job: Job, market: str, pools: Mapping[str, int]) -> Refusal | None:
    running = conn.execute(
        text("""
            SELECT count(*) FILTER (WHERE job = :job AND market = :market), count(*) FILTER (WHERE pool = :pool)
            FROM   ops.slots WHERE state = 'running'
        """),
        {"job": job.name, "market": market, "pool": job.pool},
    ).one()
    if running[0]:
        return Refusal(Why.NOT_YET, f"another slot of {job.name} is running")
    if job.pool is not None and running[1] >= pools.get(job.pool, 1):
        return Refusal(Why.NOT_YET, f"the pool {job.pool} is full: {running[1]} of its jobs are running")
    return None


def _behind(conn: Connection, job: Job, market: str, name: str, slot: datetime) -> Refusal | None:
    """Say what keeps a job behind another one; None: nothing."""
    state = conn.execute(
        text("""
            SELECT COALESCE(c.state, s.state) FROM ops.slots AS s
            LEFT   JOIN ops.slots AS c ON s.state = 'covered' AND c.run_id = s.run_id AND c.state <> 'covered'
            WHERE  s.job = :job AND s.market = :market AND s.slot = :slot
        """),
        {"job": name, "market": market, "slot": slot},
    ).scalar_one_or_none()
    which = f"{name} of {_said(market, slot)}"
    if state in {None, "running", "retrying"}:
        return Refusal(Why.NOT_YET, f"it waits for {which}, which is {state or 'still to come'}")
    if state != "succeeded" and job.after[name] == "succeeded":
        return Refusal(Why.SKIPPED, f"{which} {state}")
    return None


def _runs_of(conn: Connection, job: Job, market: str, which: list[datetime], states: set[str]) -> list[UUID]:
    """Return the runs of those slots that are in some states."""
    rows = conn.execute(
        text("""
            SELECT run_id FROM ops.slots
            WHERE  job = :job AND market = :market AND slot = ANY(:which) AND state = ANY(:states) AND run_id IS NOT NULL
        """),
        {"job": job.name, "market": market, "which": which, "states": sorted(states)},
    )
    return list(rows.scalars())


def _move_covered(
    conn: Connection, job: Job, market: str, runs: list[UUID], *, state: str, run_id: UUID | None, reason: str, now: datetime
) -> None:  # fmt: skip
    """Let the slots for which some runs stood become what has become of these: who waits for one of them waits for that."""
    if runs:
        conn.execute(
            text("""
                UPDATE ops.slots SET state = :state, run_id = :run_id, reason = :reason, changed_at = :now
                WHERE  job = :job AND market = :market AND state = 'covered' AND run_id = ANY(:runs)
            """),
            {
                "job": job.name,
                "market": market,
                "state": state,
                "run_id": run_id,
                "reason": reason,
                "now": now,
                "runs": runs,
            },
        )


def _stands_for(market: str, slot: datetime) -> str:
    return f"the run of {_said(market, slot)} stands for it"


def _row(conn: Connection, job: str, market: str, slot: datetime) -> Row[Any] | None:
    return conn.execute(
        text("SELECT * FROM ops.slots WHERE job = :job AND market = :market AND slot = :slot"),
        {"job": job, "market": market, "slot": slot},
    ).one_or_none()


def _end(
    conn: Connection, job: Job, market: str, which: Iterable[datetime], *, state: str, run_id: UUID | None, reason: str,
    by: str, now: datetime, over: set[str],
) -> None:  # fmt: skip
    """Record slots that have no run of their own; a row that is there already gives way if its state is one of `over`."""
    rows = [
        {
            **_key(job, market, slot),
            "state": state,
            "run_id": run_id,
            "reason": reason,
            "by": by,
            "now": now,
            "over": sorted(over),
        }
        for slot in sorted(which)
    ]
    if rows:
        conn.execute(
            text("""
                INSERT INTO ops.slots AS s (job, market, slot, day, state, run_id, reason, claimed_by, changed_at)
                VALUES (:job, :market, :slot, :day, :state, :run_id, :reason, :by, :now)
                ON CONFLICT (job, market, slot) DO UPDATE
                SET state = excluded.state, run_id = excluded.run_id, reason = excluded.reason, next_try = NULL,
                    claimed_by = excluded.claimed_by, changed_at = excluded.changed_at
                WHERE s.state = ANY(:over)
            """),
            rows,
        )


def _key(job: Job, market: str, slot: datetime) -> dict[str, Any]:
    return {"job": job.name, "market": market, "slot": slot, "day": slot.astimezone(calendar(market).zone).date()}


def _said(market: str, slot: datetime) -> str:
    return f"{slot.astimezone(calendar(market).zone):%Y-%m-%d %H:%M}"

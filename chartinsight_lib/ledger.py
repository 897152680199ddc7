"""The record of runs: what was executed, with which parameters, what it did to each item, and how it ended.

A running run holds an advisory lock of the database. A record that says `running` while its lock is free, or past its time,
belongs to a process that died or hangs; `reap` says so, and from then on `fence` keeps that process from writing.
"""

import getpass
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, text

from chartinsight_lib import slots
from chartinsight_lib.clock import Clock
from chartinsight_lib.errors import Fenced

ROWS = (
    "read", "inserted", "updated", "unchanged", "refused", "on another basis", "duplicates", "rejected", "halted", "no-trade",
    "of which provisional", "of which widened",
)  # fmt: skip
"""What the counts of an item's rows are called, in the order in which a person reads them."""


NONE: Mapping[str, Any] = MappingProxyType({})


def rows_text(rows: Mapping[str, int]) -> str:
    """Write counts for a person, those of zero left out."""
    order = {name: place for place, name in enumerate(ROWS)}
    known = sorted(rows.items(), key=lambda pair: order.get(pair[0], len(order)))
    return ", ".join(f"{count:,} {name}" for name, count in known if count)


@cache
def package_version() -> str:
    """Return the version of this package."""
    return version("chartinsight-studio")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a run is started as: by whom (`engine`: person, up, scheduler, airflow), for which slot, on which code and packages.

    `limit_s`, by the server's clock: a run that counts as running for longer is lost, whatever its process does.
    """

    engine: str = "person"
    market: str | None = None
    slot: datetime | None = None
    attempt: int = 1
    limit_s: float | None = None
    code_version: str = field(default_factory=package_version)
    lock_hash: str | None = None
    replay_of: UUID | None = None


def begin(
    conn: Connection, *, run_id: UUID, job: str, parameters: Mapping[str, Any], clock: Clock, stamp: Stamp | None = None
) -> None:
    """Record that a run starts, and lock it for as long as `conn` stays connected."""
    stamp = stamp or Stamp()
    _lock(conn, run_id)
    conn.execute(
        text("""
            INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host, market, slot, attempt, engine,
                                  expires_at, lock_hash, replay_of, watermark)
            VALUES (:run_id, :job, :parameters, 'running', :now, :version, :host, :market, :slot, :attempt, :engine,
                    clock_timestamp() + make_interval(secs => CAST(:limit_s AS float8)), :lock_hash, :replay_of,
                    (SELECT jsonb_object_agg(market || ' ' || timeframe, version) FROM live.watermarks))
        """),
        {
            "run_id": run_id,
            "job": job,
            "parameters": json.dumps(dict(parameters), default=str),
            "now": clock(),
            "version": stamp.code_version,
            "host": f"{getpass.getuser()}@{platform.node()}",
            "market": stamp.market,
            "slot": stamp.slot,
            "attempt": stamp.attempt,
            "engine": stamp.engine,
            "limit_s": stamp.limit_s,
            "lock_hash": stamp.lock_hash,
            "replay_of": stamp.replay_of,
        },
    )


def resume(conn: Connection, run_id: UUID) -> None:
    """Lock a running run again, on a new connection, after the one that held it broke.

    Raises:
        Fenced: it counts as ended meanwhile.
    """
    _lock(conn, run_id)
    fence(conn, run_id)


def fence(conn: Connection, run_id: UUID) -> None:
    """Let a transaction go on only while its run counts as running; until it ends, nobody else ends the run.

    Raises:
        Fenced: the run was ended or given up. Whoever did so may have begun another one, and this one must not write.
    """
    state = conn.execute(
        text("SELECT state FROM ops.runs WHERE run_id = :run_id FOR SHARE"), {"run_id": run_id}
    ).scalar_one_or_none()
    if state != "running":
        raise Fenced(
            f"run {run_id}: it counts as {state or 'unknown'}, and is not to write any more. Start the job again."
        )


def is_running(conn: Connection, run_id: UUID) -> bool:
    """Whether a run counts as running, at this moment; `fence` for one that is about to write."""
    return bool(
        conn.execute(
            text("SELECT EXISTS (SELECT FROM ops.runs WHERE run_id = :run_id AND state = 'running')"),
            {"run_id": run_id},
        ).scalar_one()
    )


def finish(
    conn: Connection,
    run_id: UUID,
    *,
    state: str,
    clock: Clock,
    output: str | None = None,
    log: str | None = None,
    error: str | None = None,
    error_class: str | None = None,
    error_cell: int | None = None,
) -> dict[str, int]:
    """Record how a run ended (`succeeded` or `failed`) and free its lock; return the sums over its items' rows.

    Twice is once: where the answer to the first time was lost, the second finds what it wrote.

    Raises:
        Fenced: it counts as ended in another way; what was recorded then stands.
    """
    found = conn.execute(
        text("""
            UPDATE ops.runs
            SET    state = :state, finished_at = :now, output_path = :output, log_path = :log,
                   error = :error, error_class = :error_class, error_cell = :error_cell,
                   rows = (SELECT jsonb_object_agg(kind, total) FROM (
                              SELECT r.key AS kind, sum(r.value::bigint) AS total
                              FROM   ops.run_items AS i, jsonb_each_text(i.rows) AS r
                              WHERE  i.run_id = :run_id GROUP BY r.key) AS sums)
            WHERE  run_id = :run_id AND state = 'running'
            RETURNING rows
        """),
        {
            "run_id": run_id,
            "state": state,
            "now": clock(),
            "output": output,
            "log": log,
            "error": error,
            "error_class": error_class,
            "error_cell": error_cell,
        },
    ).one_or_none()
    found = (
        found
        or conn.execute(
            text("SELECT rows FROM ops.runs WHERE run_id = :run_id AND state = :state"),
            {"run_id": run_id, "state": state},
        ).one_or_none()
    )
    conn.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _key(run_id)})
    if found is None:
        raise Fenced(f"run {run_id}: it counts as ended already, and how this attempt at it ended is not recorded.")
    return dict(found[0] or {})


def record_item(
    conn: Connection,
    run_id: UUID,
    item: str,
    *,
    rows: Mapping[str, int],
    clock: Clock,
    market: str | None = None,
    error: str | None = None,
) -> None:
    """Record one item's outcome, in the transaction that stores its rows; `market` where the item is of one."""
    conn.execute(
        text("""
            INSERT INTO ops.run_items (run_id, item, market, state, rows, error, finished_at)
            VALUES (:run_id, :item, :market, :state, :rows, :error, :now)
            ON CONFLICT (run_id, item) DO UPDATE
            SET state = excluded.state, rows = excluded.rows, error = excluded.error, finished_at = excluded.finished_at
        """),
        {
            "run_id": run_id,
            "item": item,
            "market": market,
            "state": "failed" if error else "done",
            "rows": json.dumps(dict(rows)),
            "error": error,
            "now": clock(),
        },
    )


def reap(conn: Connection, clock: Clock) -> list[UUID]:
    """Mark as `lost` the runs whose process died or had its time, and free their slots to be tried again; return them."""
    lost: list[UUID] = []
    listed = conn.execute(
        text("SELECT run_id, expires_at < clock_timestamp() FROM ops.runs WHERE state = 'running' ORDER BY run_id")
    ).all()
    for run_id, overdue in listed:
        died = conn.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _key(run_id)}).scalar_one()
        if not died and not overdue:
            continue
        reason = "its process died" if died else "it did not end in its time"
        found = conn.execute(
            text("""
                UPDATE ops.runs SET state = 'lost', finished_at = :now, error = :reason, error_class = 'Lost'
                WHERE  run_id = :run_id AND state = 'running'  -- it may have ended since it was listed
                RETURNING run_id
            """),
            {"run_id": run_id, "now": clock(), "reason": reason},
        )
        if found.scalar_one_or_none() is not None:
            slots.settle(conn, run_id, slots.Outcome.LOST, reason=reason, now=clock())
            lost.append(run_id)
    return lost


def ended(conn: Connection, short_ids: Iterable[str]) -> list[UUID]:
    """Return the runs that do not run any more, of those whose ids begin with some eight digits."""
    rows = conn.execute(
        text("SELECT run_id FROM ops.runs WHERE state <> 'running' AND left(run_id::text, 8) = ANY(:short_ids)"),
        {"short_ids": sorted(short_ids)},
    )
    return list(rows.scalars())


@contextmanager
def notebook_run(
    engine: Engine, run_id: UUID | None, *, job: str, clock: Clock, parameters: Mapping[str, Any] = NONE
) -> Iterator[UUID]:
    """Give the run that a notebook's writes belong to: the runner's, or a new one when a person executes the cells."""
    if run_id is not None:
        yield run_id
        return
    own = uuid4()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        begin(conn, run_id=own, job=job, parameters=parameters, clock=clock)
        try:
            yield own
        except BaseException as error:
            finish(conn, own, state="failed", clock=clock, error=f"{type(error).__name__}: {error}")
            raise
        finish(conn, own, state="succeeded", clock=clock)


def _lock(conn: Connection, run_id: UUID) -> None:
    conn.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(run_id)})


def _key(run_id: UUID) -> int:
    """An advisory lock's number: the run id's first 63 bits."""
    return run_id.int >> 65

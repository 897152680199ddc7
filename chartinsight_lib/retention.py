"""What is kept of runs, and for how long: executed copies on disk, and what belongs to old records in the database.

A copy is as old as its file, by this machine's time: the market's clock may be a simulator's. Its record in `ops.runs` says how
the run ended; of one without a record nobody knows, and it counts as failed. Only files of the name that `executed_copy` gives
are looked at, in folders that are none of links; the newest of a job stays, and so does whatever a run under way may have there.

Records of runs stay, because every stored bar names its run. With time give way, of runs that come many times a day: the lists of
what each did to every instrument, and the records of those that changed nothing; and everything of a simulated market.
"""

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from chartinsight_lib import logs
from chartinsight_lib.jobs import Job
from chartinsight_lib.schedule import Every

logger = logging.getLogger(__name__)

SIMULATED = "SIM"
_COPY = re.compile(r"(?P<stem>\d{8}T\d{6}Z-(?P<id>[0-9a-f]{8}))\.(?:ipynb|log)")


@dataclass(frozen=True, slots=True)
class Rule:
    """For how many days a copy is kept: of a run that succeeded; of one that comes many times a day; of one that did not.

    Of a simulated market so many copies of each job are kept instead, because a day passes there in minutes. `record_days` are
    those after which old records give way; of a simulated market `simulated_record_days`, back from its newest.
    """

    succeeded_days: int = 90
    frequent_days: int = 7
    failed_days: int = 180
    simulated_copies: int = 50
    record_days: int = 400
    simulated_record_days: int = 60


DEFAULT = Rule()


@dataclass(slots=True)
class Pruned:
    """What was removed, or would be: files with their size, and rows of each table."""

    files: list[Path] = field(default_factory=list)
    bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """A sentence of it."""
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in self.rows.items() if count)
        return f"{len(self.files):,} files ({self.bytes:,} bytes)" + (f", {rows}" if rows else "")


def prune(
    engine: Engine, runs: Path, jobs: Mapping[str, Job], *, now: datetime, rule: Rule = DEFAULT, dry_run: bool = False
) -> Pruned:
    """Remove the copies of all jobs whose time has come, also of jobs that are in the list no more, and old records.

    Args:
        engine: acts as the loader.
        now: by this machine's clock, tz-aware.
    """
    done = Pruned()
    if runs.is_dir():
        for name in sorted(entry.name for entry in os.scandir(runs) if entry.is_dir(follow_symlinks=False)):
            _prune_folder(engine, runs, name, _is_frequent(jobs.get(name)), now, rule, dry_run, done)
    with engine.connect() as conn, conn.begin() as transaction:
        done.rows = _prune_records(conn, [name for name, job in jobs.items() if _is_frequent(job)], now, rule)
        if dry_run:
            transaction.rollback()
    if not dry_run:
        logger.info("retention: %s removed", done)
    return done


def prune_copies(engine: Engine, runs: Path, job: Job, *, now: datetime, rule: Rule = DEFAULT) -> Pruned:
    """Remove the copies of one job whose time has come: for who has just run it. Arguments as of `prune`."""
    done = Pruned()
    _prune_folder(engine, runs, job.name, _is_frequent(job), now, rule, False, done)
    return done


def shorten_logs(home: Path) -> None:
    """Keep the logs that the dashboard's and the embedded database's servers write in bounds; ours bounds itself."""
    for path in (home / "radar.log", *(home / "postgres").glob("*.log")):
        logs.shorten(path)


def _is_frequent(job: Job | None) -> bool:
    return job is not None and isinstance(job.schedule, Every)


@dataclass(slots=True)
class _Copy:
    """The files of one run, by its name without ending."""

    short_id: str
    names: list[str] = field(default_factory=list)
    bytes: int = 0
    written_at: float = 0.0
    executed: bool = False


def _prune_folder(
    engine: Engine, runs: Path, job: str, frequent: bool, now: datetime, rule: Rule, dry_run: bool, done: Pruned
) -> None:
    with _folder(runs / job) as folder:
        if folder is None:
            return
        copies = _copies(folder)
        with engine.connect() as conn:
            records = _records(conn, job, {copy.short_id for copy in copies})
        for copy in _due(copies, records, frequent, now, rule):
            for name in copy.names:
                if not dry_run:
                    # By the open folder: what has become a link since it was opened leads nowhere.
                    with suppress(FileNotFoundError):  # somebody else prunes, too
                        os.unlink(name, dir_fd=folder)
                done.files.append(runs / job / name)
            done.bytes += copy.bytes


@contextmanager
def _folder(path: Path) -> Iterator[int | None]:
    """Give a folder, opened; None where it is none, or a link."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield opened
    finally:
        os.close(opened)


def _copies(folder: int) -> list[_Copy]:
    found: dict[str, _Copy] = {}
    for entry in os.scandir(folder):
        name = _COPY.fullmatch(entry.name)
        if name is None:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # somebody else prunes, too
            continue
        if stat.S_ISREG(status.st_mode):
            copy = found.setdefault(name["stem"], _Copy(name["id"]))
            copy.names.append(entry.name)
            copy.bytes += status.st_size
            copy.written_at = max(copy.written_at, status.st_mtime)
            copy.executed |= entry.name.endswith(".ipynb")
    return sorted(found.values(), key=lambda copy: copy.written_at, reverse=True)


def _records(conn: Connection, job: str, short_ids: Iterable[str]) -> dict[str, Row[Any]]:
    rows = conn.execute(
        text("""
            SELECT left(run_id::text, 8) AS short_id, state, market FROM ops.runs
            WHERE  job = :job AND left(run_id::text, 8) = ANY(:ids)
        """),
        {"job": job, "ids": sorted(short_ids)},
    )
    return {row.short_id: row for row in rows}


def _due(
    copies: list[_Copy], records: Mapping[str, Row[Any]], frequent: bool, now: datetime, rule: Rule
) -> Iterator[_Copy]:
    """Yield those to be removed; `copies` come with the newest first."""
    kept = {SIMULATED: 0, "": 0}
    for copy in copies:
        record = records.get(copy.short_id)
        of = SIMULATED if record is not None and record.market == SIMULATED else ""
        if (record is not None and record.state == "running") or (copy.executed and not kept[of]):
            due = False
        elif of:
            due = kept[of] >= rule.simulated_copies
        else:
            succeeded = record is not None and record.state == "succeeded"
            days = (rule.frequent_days if frequent else rule.succeeded_days) if succeeded else rule.failed_days
            due = now - datetime.fromtimestamp(copy.written_at, UTC) > timedelta(days=days)
        if due:
            yield copy
        else:
            kept[of] += copy.executed


_RUNS = text("""
    WITH old AS (
        SELECT r.run_id, r.market IS NOT DISTINCT FROM 'SIM' OR NOT EXISTS (
                   SELECT FROM jsonb_each_text(r.rows) AS counted
                   WHERE  counted.key NOT IN ('read', 'unchanged') AND counted.value::bigint > 0) AS unnamed
        FROM   ops.runs AS r
        WHERE  r.state <> 'running'
        AND    ((r.market = 'SIM' AND r.started_at < CAST(:simulated AS timestamptz))
                OR (r.market IS DISTINCT FROM 'SIM' AND r.started_at < :real AND r.job = ANY(:frequent)))),
    items AS (DELETE FROM ops.run_items AS i USING old WHERE i.run_id = old.run_id RETURNING 1),
    runs AS (DELETE FROM ops.runs AS r USING old WHERE r.run_id = old.run_id AND old.unnamed RETURNING 1)
    SELECT (SELECT count(*) FROM items) AS items, (SELECT count(*) FROM runs) AS runs
""")
_SLOTS = text("""
    DELETE FROM ops.slots AS s
    WHERE  s.state NOT IN ('running', 'retrying')
    AND    ((s.market = 'SIM' AND s.slot < CAST(:simulated AS timestamptz))
            OR (s.market <> 'SIM' AND s.slot < :real AND s.job = ANY(:frequent) AND s.state IN ('covered', 'skipped')))
""")


def _prune_records(conn: Connection, frequent: list[str], now: datetime, rule: Rule) -> dict[str, int]:
    newest = conn.execute(text("SELECT max(started_at) FROM ops.runs WHERE market = 'SIM'")).scalar_one()
    told = {
        "frequent": frequent,
        "real": now - timedelta(days=rule.record_days),
        "simulated": newest - timedelta(days=rule.simulated_record_days) if newest else None,
    }
    items, runs = conn.execute(_RUNS, told).one()
    return {"ops.run_items": items, "ops.runs": runs, "ops.slots": conn.execute(_SLOTS, told).rowcount}

"""Brings a database back to what a backup holds, and says what that means for runs that were under way."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from chartinsight_lib import slots
from chartinsight_lib.backup import digests
from chartinsight_lib.backup.load import load
from chartinsight_lib.backup.make import backup as make_backup
from chartinsight_lib.backup.manifest import Backup
from chartinsight_lib.backup.verify import verify
from chartinsight_lib.clock import Clock, system_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.migrate import head, upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError

logger = logging.getLogger(__name__)

ALWAYS_THERE = frozenset({"ops.identity"})
"""Tables in which every new database has rows."""
LOST = "it was under way when the backup was made that was restored"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done: `aside` is the backup of what was there before, `lost` how many runs of the backup were under way."""

    version: str
    aside: Backup | None
    lost: int


def restore(
    database: Database,
    backup: Backup,
    *,
    replace: bool,
    aside: Path,
    clock: Clock,
    say: Callable[[str], None],
    machine: Clock = system_clock,
) -> Restored:
    """Put a backup in the place of what the database holds. The caller has brought its schema up to date and closed dead runs.

    Args:
        replace: also where there is something already, of which a backup is made in `aside` first.
        clock: the market's, for the records of runs; `machine`: this machine's, for that backup.
        say: told each step.

    Raises:
        ConfigError: the backup is newer than this program, a job runs, or there is something and `replace` is off; nothing was
            changed.
        SchemaError: the backup is damaged; nothing was changed.
        DatabaseError: the database refused it; nothing was changed.
    """
    if backup.manifest.schema_version > head():
        raise ConfigError(
            f"restore: {backup.path.name} has schema {backup.manifest.schema_version}, newer than this program's {head()}. "
            "Update the program."
        )
    say(f"checked: {verify(backup)}")
    engine = database.engine(Role.OWNER)
    try:
        held = _held(engine)
        if held and not replace:
            raise ConfigError(
                f"restore: the database holds rows in {', '.join(held[:3])}{' and others' if len(held) > 3 else ''}. "
                "With --replace they give way, after a backup of them is made."
            )
        before = make_backup(database, aside, machine) if held else None
        if before:
            say(f"put aside: {before.path}")
        load(database, backup)
        version = upgrade(database)
        with engine.begin() as conn:
            lost = _close_runs(conn, clock)
    finally:
        engine.dispose()
    logger.info("restore: %s, schema %s, %d runs were under way", backup.path, version, lost)
    return Restored(version, before, lost)


def _held(engine: Engine) -> list[str]:
    """Return the tables with rows. Raises ConfigError while a run is under way."""
    with engine.connect() as conn:
        if job := conn.execute(text("SELECT job FROM ops.runs WHERE state = 'running' LIMIT 1")).scalar_one_or_none():
            raise ConfigError(
                f"restore: {job} is running. Stop the scheduler (or `up`) and wait for its end, then restore."
            )
        names = digests.tables(conn, digests.schemas(conn))
        return [name for name in names if name not in ALWAYS_THERE and digests.holds_rows(conn, name)]


def _close_runs(conn: Connection, clock: Clock) -> int:
    lost = conn.execute(
        text("""
            UPDATE ops.runs SET state = 'lost', finished_at = :now, error = :reason, error_class = 'Lost'
            WHERE  state = 'running' RETURNING run_id
        """),
        {"now": clock(), "reason": LOST},
    ).scalars()
    closed = list(lost)
    for run_id in closed:
        slots.settle(conn, run_id, slots.Outcome.LOST, reason=LOST, now=clock())
    return len(closed)

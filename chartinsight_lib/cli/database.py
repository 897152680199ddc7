"""`chartinsight db …`: the database as a whole. Parses, calls one function, prints."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.errors import ChartInsightError, ConfigError, DatabaseError
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from chartinsight_lib.db.invariants import Finding


@click.group("db")
def db() -> None:
    """The database: bring it up to date, look into it, back it up, check it, restore it."""


@db.command("upgrade")
@edge
def db_upgrade_command() -> None:
    """Make roles and schema, or bring them up to date. With DATABASE_URL: an administrator's address, the first time."""
    from chartinsight_lib.studio import prepared

    with prepared(Settings.from_env(), click.echo, migrate=True):
        pass


@db.command("shell", context_settings={"ignore_unknown_options": True})
@click.option("--role", type=click.Choice(["reader", "loader", "owner"]), default="reader", show_default=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@edge
def db_shell_command(role: str, arguments: tuple[str, ...]) -> None:
    """Open psql on the database; the embedded server runs for as long as it is open. ARGUMENTS go to psql."""
    from chartinsight_lib.db.engine import open_database
    from chartinsight_lib.db.layout import find_psql
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.processes import run_interactive

    with open_database(Settings.from_env()) as database:
        chosen = Role[role.upper()]
        # The address goes by the environment: a command line is visible to every user of the machine.
        environment = {**os.environ, **database.psql_environment(chosen)}
        sys.exit(run_interactive([find_psql(), *arguments], env=environment))


_to = click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder.  [default: CHARTINSIGHT_BACKUP_DIR, else backups/ in the data directory]",
)


@db.command("backup")
@_to
@click.option(
    "--keep-daily", type=click.IntRange(1), default=7, show_default=True, help="Days that keep their newest one."
)
@click.option("--keep-weekly", type=click.IntRange(0), default=4, show_default=True)
@click.option("--keep-monthly", type=click.IntRange(0), default=6, show_default=True)
@click.option("--keep-all", is_flag=True, help="Remove no older ones.")
@edge
def db_backup_command(to: Path | None, keep_daily: int, keep_weekly: int, keep_monthly: int, keep_all: bool) -> None:
    """Back the database up, while jobs write if need be; then remove the older backups that nobody needs any more."""
    from chartinsight_lib.backup.keep import Keep, discard
    from chartinsight_lib.backup.make import backup
    from chartinsight_lib.clock import system_clock
    from chartinsight_lib.db.engine import open_database

    settings = Settings.from_env()
    folder = (to or settings.backups).expanduser().absolute()
    started = monotonic()
    with open_database(settings) as database:  # not `prepared`: what is backed up is not changed before
        made = backup(database, folder, system_clock)
    told = made.manifest
    click.echo(
        f"{made.path}\n{told.rows:,} rows of {len(told.tables)} tables, {told.bytes:,} bytes, {monotonic() - started:.1f} s"
    )
    if not keep_all:
        for path in discard(folder, made, Keep(keep_daily, keep_weekly, keep_monthly)):
            click.echo(f"discarded: {path.name}")


@db.command("check")
@click.argument("backup", required=False)
@click.option(
    "--restore", "rehearsed", is_flag=True, help="Restore the backup on a server of its own, and compare every row."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@_to
@edge
def db_check_command(backup: str | None, rehearsed: bool, as_json: bool, to: Path | None) -> None:
    """Check the database; or a BACKUP: its name, its path, or `newest`. Nothing is changed."""
    settings = Settings.from_env()
    if rehearsed and backup is None:
        raise ConfigError("check: --restore is for a backup. Name one, or `newest`.")
    folder = (to or settings.backups).expanduser().absolute()
    findings = list(_check_live(settings) if backup is None else _check_backup(backup, folder, rehearsed))
    if as_json:
        rows = [{"what": one.what, "good": one.good, "says": one.says, "remedy": one.remedy} for one in findings]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for one in findings:
            click.echo(f"  {_WORD[one.good]:<6} {one.what:<15} {one.says}")
            if one.good is False:
                click.echo(f"  {'':<6} {'':<15} -> {one.remedy}")
    if wrong := sum(one.good is False for one in findings):
        raise ChartInsightError(f"check: {wrong} of {len(findings)} checks failed; see above.")


_WORD = {True: "ok", False: "WRONG", None: "?"}


def _check_live(settings: Settings) -> Iterator["Finding"]:
    from chartinsight_lib.db.engine import open_engine
    from chartinsight_lib.db.invariants import check
    from chartinsight_lib.db.roles import Role

    engine = open_engine(settings, Role.LOADER)
    with engine.connect().execution_options(postgresql_readonly=True) as conn:
        yield from check(conn)
    engine.dispose()


def _check_backup(name: str, folder: Path, rehearsed: bool) -> Iterator["Finding"]:
    from chartinsight_lib.backup.manifest import find
    from chartinsight_lib.backup.verify import rehearse, verify
    from chartinsight_lib.db.invariants import Finding
    from chartinsight_lib.errors import SchemaError

    found = find(name, folder)
    told = found.manifest
    newest = "; ".join(f"{market} {days}" for market, days in told.newest_days.items()).replace("'", "") or "no bars"
    yield Finding(
        "manifest",
        True,
        f"{told.made_at:%Y-%m-%d %H:%M} UTC, schema {told.schema_version}, {told.rows:,} rows, {newest}",
    )
    for what, judge in (("dump", verify), *((("restored", rehearse),) if rehearsed else ())):
        try:
            yield Finding(what, True, judge(found))
        except (SchemaError, DatabaseError) as error:
            yield Finding(what, False, str(error), "Use another backup, and make a new one.")
            return


@db.command("restore")
@click.argument("backup")
@click.option(
    "--replace", is_flag=True, help="Also where the database holds something; a backup of that is made first."
)
@_to
@edge
def db_restore_command(backup: str, replace: bool, to: Path | None) -> None:
    """Bring the database back to a BACKUP (its name, its path, or `newest`), whole or not at all; then bring it up to date."""
    from chartinsight_lib.backup.manifest import find
    from chartinsight_lib.backup.restore import restore
    from chartinsight_lib.studio import prepared

    settings = Settings.from_env()
    folder = (to or settings.backups).expanduser().absolute()
    found = find(backup, folder)
    with prepared(settings, click.echo, migrate=True) as database:
        done = restore(database, found, replace=replace, aside=folder, clock=settings.clock, say=click.echo)
    click.echo(
        f"restored: {found.manifest.rows:,} rows as of {found.manifest.made_at:%Y-%m-%d %H:%M} UTC, schema {done.version}"
    )
    if done.lost:
        click.echo(f"{done.lost} runs were under way when the backup was made; their records say that they are lost.")

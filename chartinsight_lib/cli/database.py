"""`chartinsight db …`: the database as a whole. Parses, calls one function, prints."""

import os
import sys

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.settings import Settings


@click.group("db")
def db() -> None:
    """The database: bring it up to date, say its address, look into it."""


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

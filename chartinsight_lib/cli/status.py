"""`chartinsight status`: how a market stands, for a person, a container's health check or cron."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.command("status")
@click.option("--market", default="", help="KRX, US or SIM.  [default: of the settings, else the one collected last]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON; docs/health.md says what is in it.")
@click.option("--strict", is_flag=True, help="End with 1 also when it is amber.")
@edge
def status_command(market: str, as_json: bool, strict: bool) -> None:
    """Say which jobs ran and run next, how old and how whole the data are. Ends with 1 when it is red. Starts nothing."""
    from sqlalchemy.exc import SQLAlchemyError

    from chartinsight_lib import status
    from chartinsight_lib.calendars import calendar
    from chartinsight_lib.errors import DatabaseError

    settings = Settings.from_env()
    if market:
        calendar(market)  # an unknown one is asked wrongly, whatever the database says
    try:
        with _engine(settings) as engine:
            found = status.Health(engine, settings, market or None).status()
    except (DatabaseError, SQLAlchemyError) as error:
        says = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        click.echo(json.dumps(status.no_answer(says)) if as_json else f"RED  database: {says}")
        sys.exit(1)
    click.echo(json.dumps(status.as_json(found)) if as_json else "\n".join(status.as_text(found)))
    sys.exit(1 if found.state == "red" or (strict and found.state == "amber") else 0)


@contextmanager
def _engine(settings: Settings) -> "Iterator[Engine]":
    """Give an engine as the reader on a database that is up. Raises DatabaseError."""
    from chartinsight_lib.db.embedded import is_running
    from chartinsight_lib.db.engine import open_database
    from chartinsight_lib.db.migrate import check_schema
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.errors import DatabaseError

    if settings.database_url is None and not is_running(settings.home):
        raise DatabaseError(
            f"The database in {settings.home} does not run, and no DATABASE_URL is set: nothing is collected. Start `./studio up`."
        )
    with open_database(settings) as database:
        check_schema(database)
        engine = database.engine(Role.READER)
        try:
            yield engine
        finally:
            engine.dispose()

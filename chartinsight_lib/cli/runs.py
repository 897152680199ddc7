"""Commands about runs: one more of them, and those that were."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.cli.options import pairs
from chartinsight_lib.cli.prune import runs_group
from chartinsight_lib.errors import DatabaseError, RunFailed
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chartinsight_lib.asked import Asked
    from chartinsight_lib.runner import Run


def _moment(_context: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Read a moment in ISO 8601; one without a time zone is refused."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(
            f"{value!r} is no time. Expected ISO 8601 with an offset, as in 2024-08-05T07:25+09:00.", param=option
        )
    return moment


@click.command("run")
@click.argument("job")
@click.option(
    "-p", "parameters", multiple=True, callback=pairs, metavar="NAME=VALUE",
    help="A parameter of the notebook. Repeatable.",
)  # fmt: skip
@click.option("--as-of", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The notebook's parameter as_of.")
@click.option(
    "--slot", callback=_moment, metavar="TIME", help="Run it for this slot, which then has its run, whoever asks."
)
@click.option("--market", help="Of the slot, or the parameter market.  [default: that of the settings or their source]")
@click.option("--again", is_flag=True, help="Also a slot that has ended already, or for which it is too late.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
    help="So long a slot may wait for what has to happen before it.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["person", "airflow"]), default="person", show_default=True,
    help="Who starts it, for the record.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be run, and run nothing.")
@edge
def run_command(
    job: str, parameters: dict[str, str], as_of: datetime | None, slot: datetime | None, market: str | None, again: bool,
    wait_s: float, engine: str, dry_run: bool,
) -> None:  # fmt: skip
    """Run one job's notebook and record it. JOB: a name in pipelines/jobs.yaml.

    \b
    Exit codes:
      0    done
      1    failed, and trying again would not help
      2    asked wrongly: nothing was started
      3    skipped, and why: the slot has its run, is none or is left out, or a setting lacks
      75   failed or not possible yet, and trying again may help
      130  interrupted; nothing is left running
    """
    from chartinsight_lib.asked import ask, run_asked
    from chartinsight_lib.studio import interruptible, prepared

    settings = Settings.from_env()
    day = as_of.date() if as_of else None
    asked = ask(settings, job, parameters, as_of=day, slot=slot, market=market, again=again, engine=engine)
    if dry_run:
        with _temporary():
            _say(asked, settings)
        return
    with interruptible(), _temporary(), prepared(settings, click.echo) as database:
        _report(run_asked(database, settings, asked, engine=engine, wait_s=wait_s), job)


def _say(asked: "Asked", settings: Settings) -> None:
    """Say what would be run, and what keeps it from that; the database is asked for a slot alone."""
    from chartinsight_lib.asked import hindrance
    from chartinsight_lib.db.engine import open_database
    from chartinsight_lib.db.migrate import check_schema

    job, why = asked.job, asked.left_out
    if why is None and asked.slot is not None:
        with open_database(settings) as database:
            check_schema(database)
            why = hindrance(database, settings, asked)
    lines = {
        "notebook": job.notebook,
        "parameters": json.dumps(dict(asked.parameters), ensure_ascii=False),
        "limits": f"run {job.timeout_s} s, cell {job.cell_timeout_s or job.timeout_s} s, start {job.start_timeout_s} s, "
        f"memory {job.memory_mb} MB",
        "output": settings.runs / job.name,
    }
    if asked.slot is not None:
        waits = ", ".join(f"{name} of {when.isoformat()}" for name, when in asked.slot.waits_for.items())
        lines |= {"slot": f"{asked.slot.slot.isoformat()} of {asked.market}", "waits for": waits or "nothing"}
    click.echo(f"{job.name}: would be run" if why is None else f"{job.name}: would not be run: {why}")
    for name, said in lines.items():
        click.echo(f"  {name:<11} {said}")


@runs_group.command("list")
@click.option("--job", help="Of one job alone.")
@click.option("--state", type=click.Choice(["running", "succeeded", "failed", "lost"]))
@click.option("--since", callback=_moment, metavar="TIME", help="Started then or later, ISO 8601 with an offset.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Everything that is recorded, as JSON.")
@edge
def list_command(job: str | None, state: str | None, since: datetime | None, limit: int, as_json: bool) -> None:
    """List runs, the newest first."""
    from chartinsight_lib.running import history

    with _reading(Settings.from_env()) as conn:
        found = history.listed(conn, job=job, state=state, since=since, limit=limit)
    if as_json:
        click.echo(history.as_json(found))
        return
    for run in found:
        click.echo(history.line(run))


@runs_group.command("show")
@click.argument("run")
@edge
def show_command(run: str) -> None:
    """Tell one run: its record, what it was told and did, what failed. RUN: its id, or how that begins."""
    from chartinsight_lib import logs
    from chartinsight_lib.running import history

    settings = Settings.from_env()
    with _reading(settings) as conn:
        found = history.find(conn, run)
        done = history.items(conn, found)
    log = list(logs.read(settings.home / "logs", run=str(found.run_id)))
    for line in history.told(found, done, log):
        click.echo(line)


@runs_group.command("open")
@click.argument("run")
@click.option("--print", "only_print", is_flag=True, help="Say where the page lies, and open no browser.")
@edge
def open_command(run: str, only_print: bool) -> None:
    """Open the executed copy of RUN in a browser, as a page in which nothing is executed."""
    import webbrowser

    from chartinsight_lib.running import history
    from chartinsight_lib.running.page import write_page

    settings = Settings.from_env()
    with _reading(settings) as conn:
        found = history.find(conn, run)
    page = write_page(found.output_path, settings.home / "open-run.html")
    click.echo(page)
    if not only_print:
        webbrowser.open(page.as_uri())


@runs_group.command("diff")
@click.argument("first")
@click.argument("second")
@edge
def diff_command(first: str, second: str) -> None:
    """Say in what two runs differ: what they were told, ran on, stored and showed."""
    from chartinsight_lib.running import history

    with _reading(Settings.from_env()) as conn:
        lines = list(history.difference(history.find(conn, first), history.find(conn, second)))
    for line in lines or ["no difference"]:
        click.echo(line)


@runs_group.command("replay")
@click.argument("run")
@click.option("--dry-run", is_flag=True, help="Check it, say what would be run, and run nothing.")
@edge
def replay_command(run: str, dry_run: bool) -> None:
    """Run the job of RUN again, told what RUN was told; the record says of which run it is the repetition."""
    from chartinsight_lib.asked import replay, run_asked
    from chartinsight_lib.running import history
    from chartinsight_lib.studio import interruptible, prepared

    settings = Settings.from_env()
    with _reading(settings) as conn:
        found = history.find(conn, run)
    asked = replay(settings, found.job, found.parameters or {}, found.market)
    if dry_run:
        _say(asked, settings)
        return
    with interruptible(), _temporary(), prepared(settings, click.echo) as database:
        _report(run_asked(database, settings, asked, replay_of=found.run_id), found.job)


@contextmanager
def _reading(settings: Settings) -> Iterator["Connection"]:
    from chartinsight_lib.db.engine import open_database
    from chartinsight_lib.db.migrate import check_schema
    from chartinsight_lib.db.roles import Role

    with open_database(settings) as database:
        check_schema(database)
        with database.transaction(Role.READER) as conn:
            yield conn


@contextmanager
def _temporary() -> Iterator[None]:
    """A database that is away may come back: who runs a job is to try again."""
    try:
        yield
    except DatabaseError as error:
        raise RunFailed(str(error), temporary=True, error_class=type(error).__name__) from error


def _report(run: "Run", job: str) -> None:
    from chartinsight_lib.ledger import rows_text

    click.echo(f"{job}: {rows_text(run.rows) or 'nothing to count'}\nexecuted copy: {run.output}")

"""Commands about runs: one more of them, and those that were."""

import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.cli.options import pairs
from chartinsight_lib.errors import DatabaseError, RunFailed
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from chartinsight_lib.asked import Asked


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
    from chartinsight_lib.ledger import rows_text
    from chartinsight_lib.studio import interruptible, prepared

    settings = Settings.from_env()
    day = as_of.date() if as_of else None
    asked = ask(settings, job, parameters, as_of=day, slot=slot, market=market, again=again, engine=engine)
    if dry_run:
        _say(asked, settings)
        return
    with interruptible():
        try:
            with prepared(settings, click.echo) as database:
                run = run_asked(database, settings, asked, engine=engine, wait_s=wait_s)
        except DatabaseError as error:
            raise RunFailed(str(error), temporary=True, error_class=type(error).__name__) from error
    click.echo(f"{job}: {rows_text(run.rows) or 'nothing to count'}\nexecuted copy: {run.output}")


def _say(asked: "Asked", settings: Settings) -> None:
    """Say what would be run."""
    job = asked.job
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
    if asked.left_out is not None:
        lines["skipped"] = asked.left_out
    click.echo(f"{job.name}: would be run" if asked.left_out is None else f"{job.name}: would be skipped")
    for name, said in lines.items():
        click.echo(f"  {name:<11} {said}")

"""Commands about when jobs run: the scheduler itself, and slots of the past."""

import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.cli.options import scheduled_source
from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from chartinsight_lib.studio import Options


@click.command("scheduler")
@edge
@scheduled_source
def scheduler_command(settings: Settings, options: "Options") -> None:
    """Run the jobs of pipelines/jobs.yaml when they are due, until Ctrl-C, on a database that is migrated already.

    Several may stand on one database: each slot is run once. What was missed while none ran is caught up with.
    """
    from chartinsight_lib.scheduler import Scheduler
    from chartinsight_lib.studio import interruptible, prepared, source_settings

    with interruptible(), source_settings(settings, options, click.echo) as own:
        market = options.market_code(own)
        with (
            prepared(own, click.echo) as database,
            Scheduler(database, own, options.source, market, click.echo) as scheduler,
        ):
            click.echo(f"scheduler {scheduler.name}: jobs of {market} from {options.source}. Ctrl-C stops it.")
            scheduler.run(threading.Event().wait)


@click.command("backfill")
@click.argument("job")
@click.option("--from", "first", required=True, type=click.DateTime(["%Y-%m-%d"]), help="First day, of the market.")
@click.option("--to", "last", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Last day, included.")
@click.option(
    "--only", type=click.Choice(["missing", "failed", "all"]), default="missing", show_default=True,
    help="missing: slots for which no run stands.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say which slots would be run, and run none.")
@edge
@scheduled_source
def backfill_command(
    job: str, first: datetime, last: datetime, only: str, dry_run: bool, settings: Settings, options: "Options"
) -> None:
    """Run slots of the past of JOB, oldest first; of a job that catches up by its newest slot, one run for all of them."""
    from chartinsight_lib import backfill
    from chartinsight_lib.calendars import calendar
    from chartinsight_lib.jobs import find_job, read_list
    from chartinsight_lib.studio import interruptible, prepared

    found, pools = find_job(settings.project, job), read_list(settings.project).pools
    with interruptible():
        market = options.market_code(settings)
        known = calendar(market)
        since = first.replace(tzinfo=known.zone)
        until = min(last.replace(tzinfo=known.zone) + timedelta(days=1, microseconds=-1), settings.clock())
        with prepared(settings, click.echo, writes=not dry_run) as database:
            held = backfill.states(database, found, market, since, until)
            steps = backfill.plan(found, known, held, since, until, only=only)
            for step in steps if dry_run else ():
                covered = f", for {len(step.covers)} older ones too" if step.covers else ""
                click.echo(f"  {step.slot:%Y-%m-%d %H:%M}  {step.state}: would be run{covered}")
            if not steps:
                click.echo(f"  nothing to do: no slot of {job} from {first:%Y-%m-%d} to {last:%Y-%m-%d} is {only}")
            if dry_run or not steps:
                return
            failures = backfill.backfill(
                database, settings, found, steps, source=options.source, market=market, pools=pools, say=click.echo
            )
    if failures:
        raise ChartInsightError(f"backfill: {len(failures)} of {len(steps)} runs failed; their messages stand above.")

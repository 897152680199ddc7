"""`chartinsight runs prune`: what of runs is not needed any more. Parses, calls one function, prints."""

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.settings import Settings

_days = click.IntRange(1)


@click.group("runs")
def runs_group() -> None:
    """What was run: its records and its executed copies."""


@runs_group.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--succeeded-days", type=_days, default=90, show_default=True, help="Copies of runs that succeeded.")
@click.option(
    "--frequent-days", type=_days, default=7, show_default=True, help="Those of runs that come many times a day."
)
@click.option("--failed-days", type=_days, default=180, show_default=True, help="Copies of runs that did not succeed.")
@edge
def prune_command(dry_run: bool, succeeded_days: int, frequent_days: int, failed_days: int) -> None:
    """Remove executed copies and old records whose time has come; the newest copy of each job stays in any case."""
    from chartinsight_lib.clock import system_clock
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.jobs import read_jobs
    from chartinsight_lib.retention import Rule, prune, shorten_logs
    from chartinsight_lib.studio import prepared

    settings = Settings.from_env()
    rule = Rule(succeeded_days=succeeded_days, frequent_days=frequent_days, failed_days=failed_days)
    jobs = read_jobs(settings.project)
    with prepared(settings, lambda _: None) as database:
        engine = database.engine(Role.LOADER)
        done = prune(engine, settings.runs, jobs, now=system_clock(), rule=rule, dry_run=dry_run)
        engine.dispose()
    if not dry_run:
        shorten_logs(settings.home)
    if dry_run:
        for path in done.files:
            click.echo(f"would be removed: {path}")
    click.echo(f"{'would be removed' if dry_run else 'removed'}: {done}")

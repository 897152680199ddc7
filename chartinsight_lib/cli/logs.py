"""`chartinsight logs`: what the library had to say, from every process of this data directory."""

from collections import deque

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.settings import Settings


@click.command("logs")
@click.option("--run", "run_id", metavar="ID", help="Of one run alone: its id, or how that begins.")
@click.option("--job", help="Of one job alone.")
@click.option("--lines", type=click.IntRange(0), default=200, show_default=True, help="The newest so many; 0: all.")
@click.option("--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@edge
def logs_command(run_id: str | None, job: str | None, lines: int, follow: bool) -> None:
    """Print the log: time (UTC), level, run, job, message. What a run printed itself is in its executed copy."""
    from chartinsight_lib import logs

    folder = Settings.from_env().home / "logs"
    for record in deque(logs.read(folder, run=run_id, job=job), maxlen=lines or None):
        click.echo(record)
    if follow:
        for record in logs.follow(folder, run=run_id, job=job):
            click.echo(record)

"""`chartinsight …`: parses, calls one function, prints. Exit 0: done; 1: something failed, and is named; 2: asked wrongly."""

import shutil
import sys
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chartinsight_lib import __version__
from chartinsight_lib.cli.alerts import alerts
from chartinsight_lib.cli.data import data
from chartinsight_lib.cli.database import db
from chartinsight_lib.cli.edge import edge
from chartinsight_lib.cli.logs import logs_command
from chartinsight_lib.cli.options import source_options
from chartinsight_lib.cli.prune import runs_group
from chartinsight_lib.cli.runs import run_command
from chartinsight_lib.cli.scheduler import backfill_command, scheduler_command
from chartinsight_lib.cli.status import status_command
from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from chartinsight_lib.studio import Options


@click.group()
@click.version_option(__version__)
def main() -> None:
    """ChartInsight Studio: candles into PostgreSQL by notebooks, and a Trading Radar over them."""


@main.command("up")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the radar on 127.0.0.1.  [default: 8866]")
@click.option("--once", is_flag=True, help="Run the jobs and end, without the radar.")
@click.option("--browser/--no-browser", default=True, help="Open the radar in a browser.")
@edge
@source_options
def up_command(settings: Settings, options: "Options", port: int | None, once: bool, browser: bool) -> None:
    """Start everything: database, jobs, radar. Ctrl-C stops all of it. Safe to repeat."""
    from chartinsight_lib.studio import Standing, open_in_browser, up

    opened = False

    def ready(standing: Standing, note: str) -> None:
        nonlocal opened
        click.echo(f"\n  read the data:  {standing.psql}\n  Trading Radar:  {standing.url}")
        click.echo(f"\nOpen that address. {note}{' ' if note else ''}Ctrl-C here stops everything.\n")
        if browser and not opened:
            open_in_browser(standing.url, settings.home)
        opened = True

    _check_failures(up(settings, replace(options, port=port, once=once), click.echo, ready))
    click.echo("\ndone. Next: `./studio up` opens the radar; `./studio db shell` opens the database.")


@main.command("pipeline")
@edge
@source_options
def pipeline_command(settings: Settings, options: "Options") -> None:
    """Run all jobs once, as `up --once` does, on a database that is migrated already: the login of the loader will do."""
    from chartinsight_lib.studio import interruptible, prepared, run_pipeline, source_settings

    with interruptible(), source_settings(settings, options, click.echo) as own:
        market = options.market_code(own)
        with prepared(own, click.echo) as database:
            failures = run_pipeline(database, own, options, market, click.echo)
    _check_failures(failures)


def _check_failures(failures: list[str]) -> None:
    if failures:
        raise ChartInsightError(f"{len(failures)} job failed; its message stands above.")


@main.command("scan")
@click.option("--market", default="", help="Default: the one collected last.")
@click.option(
    "--as-of", default="", metavar="DATE", help="Trading date. Default: the newest final day, which must be fresh."
)
@click.option("--top", default=20, show_default=True, help="Rows to print.")
@edge
def scan_command(market: str, as_of: str, top: int) -> None:
    """Analyse the whole market, store the snapshot, say how long it took."""
    from chartinsight_lib import ledger, radar
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.studio import prepared

    settings = Settings.from_env()
    with prepared(settings, click.echo) as database:
        engine = database.engine(Role.LOADER)
        parameters = {"market": market, "as_of": as_of}
        with ledger.notebook_run(engine, None, job="scan_radar", parameters=parameters, clock=settings.clock) as run_id:
            found = radar.scan_market(engine, market=market, as_of=as_of, clock=settings.clock, run_id=run_id)
        engine.dispose()
    click.echo(found.table(top).to_string(index=False))
    parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.seconds.items())
    click.echo(
        f"\n{len(found.snapshot):,} instruments of {found.market} as of {found.as_of}: {parts}; "
        f"{found.changes.changed:,} rows changed"
    )


@main.command("radar")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Another address than this machine's own is for containers."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8866, show_default=True)
@edge
def radar_command(host: str, port: int) -> None:
    """Serve the radar alone, on what is stored. The token: CHARTINSIGHT_RADAR_TOKEN, else a new one each start."""
    from chartinsight_lib.studio import interruptible, prepared, serve_radar

    settings = Settings.from_env()
    with (
        interruptible(),
        prepared(settings, click.echo, writes=False) as database,
        serve_radar(database, settings, port=port, market=settings.market, host=host) as dashboard,
    ):
        dashboard.wait_ready()
        click.echo(f"Trading Radar: {dashboard.url}\nCtrl-C stops it.")
        dashboard.wait()


@main.command("lab")
@click.option("--port", type=click.IntRange(1, 65535), default=8888, show_default=True)
@edge
def lab_command(port: int) -> None:
    """Open JupyterLab on the project; the database runs for as long as it is open."""
    from chartinsight_lib.processes import run_interactive
    from chartinsight_lib.studio import prepared

    settings = Settings.from_env()
    with prepared(settings, click.echo, writes=False):
        lab = shutil.which("jupyter", path=str(Path(sys.executable).parent)) or "jupyter"
        command = [lab, "lab", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={settings.project}"]
        sys.exit(run_interactive(command, cwd=settings.project))


@main.command("simulate")
@click.option("--port", type=click.IntRange(1, 65535), default=8899, show_default=True, help="On 127.0.0.1.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Which market is made up.")
@click.option("--instruments", type=int, default=300, show_default=True, help="How many instruments it has.")
@click.option("--replay", metavar="PATH|URL", help="Serve recorded candles instead: files, or a tradesmart database.")
@click.option("--start", metavar="TIME", help="Simulated time to start at, ISO 8601 with an offset, or `now`.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Simulated seconds per second; 0: it stands.")
@click.option("--skip-closed/--no-skip-closed", default=False, show_default=True, help="Leave out nights and holidays.")
@click.option(
    "--profile", type=click.Choice(["real", "mock"]), default="real", show_default=True, help="Which host to be."
)
@click.option(
    "--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A script of faults, YAML."
)
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Write each request here, a line of JSON each."
)
@click.option(
    "--clock-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the clock here for others.  [default: in the data directory]",
)
@click.option("--resume", is_flag=True, help="Go on where the clock of --clock-file stood last.")
@click.option("--until-eof", is_flag=True, hidden=True, help="End with whoever holds the standard input.")
@edge
def simulate_command(
    port: int, seed: int, instruments: int, replay: str | None, start: str | None, speed: float, skip_closed: bool,
    profile: str, faults: Path | None, log: Path | None, clock_file: Path | None, resume: bool, until_eof: bool,
) -> None:  # fmt: skip
    """Serve a simulated market as Kiwoom's REST API and WebSocket do, with keys of the settings or two fixed ones."""
    from chartinsight_lib.clock import clock_from
    from chartinsight_lib.simulator.process import Plan, run, server_options
    from chartinsight_lib.studio import interruptible

    settings = Settings.from_env()
    given = settings.kiwoom_appkey, settings.kiwoom_secretkey
    keys = {given[0].get_secret_value(): given[1].get_secret_value()} if given[0] and given[1] else {}
    options = server_options(keys=keys, profile=profile, faults=faults, log=log, skip_closed=skip_closed)
    when = None if start is None else clock_from(None if start == "now" else start)()
    clock_file = (clock_file or settings.home / "simulator" / f"clock-{port}").absolute()
    plan = Plan(seed, instruments, replay, when, speed, clock_file, resume)

    def ready(url: str, now: datetime) -> None:
        shown = "the keys of the settings" if keys else "appkey simulated-appkey, secretkey simulated-secretkey"
        click.echo(f"simulated Kiwoom: {url}  ({shown})\nit is {now:%Y-%m-%d %H:%M} KST there. Ctrl-C stops it.")
        click.echo(
            f"collect from it:  CHARTINSIGHT_KIWOOM_URL={url} CHARTINSIGHT_NOW=@{clock_file} ./studio up --source simulated\n"
            "                  with its keys in CHARTINSIGHT_KIWOOM_APPKEY and CHARTINSIGHT_KIWOOM_SECRETKEY"
        )

    stop = threading.Event()
    if until_eof:

        def wait_for_the_end() -> None:
            sys.stdin.read()
            stop.set()

        threading.Thread(target=wait_for_the_end, daemon=True).start()
    with interruptible():
        run(plan, options, port=port, stop=stop, ready=ready)


@main.command("doctor")
@edge
def doctor_command() -> None:
    """Check database, keys and connection to Kiwoom; say exactly what is wrong, and what to do."""
    from chartinsight_lib.doctor import examine

    wrong = 0
    for finding in examine(Settings.from_env()):
        click.echo(f"  {'ok' if finding.good else 'WRONG':<6} {finding.what:<12} {finding.says}")
        wrong += not finding.good
    if wrong:
        raise ChartInsightError(f"doctor: {wrong} of the checks failed; see above.")


main.add_command(alerts)
main.add_command(data)
main.add_command(db)
main.add_command(logs_command)
main.add_command(run_command)
main.add_command(runs_group)
main.add_command(scheduler_command)
main.add_command(backfill_command)
main.add_command(status_command)

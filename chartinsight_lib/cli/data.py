"""`chartinsight data …`: what is held, what is missing, and how to take it along. Parses, calls one function, prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.cli.options import file_options
from chartinsight_lib.errors import NotFound
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

SHOWN = 20
"""So many rows of a table are printed; all of them are in the view that is named below it."""

_market = click.option("--market", default="", help="Default: the one collected last.")
_timeframe = click.option("--timeframe", type=click.Choice(["1d", "5m"]), default="1d", show_default=True)
_codes = click.option("--codes", default="", metavar="CODE[,CODE…]", help="These instruments alone.")


@click.group("data")
def data() -> None:
    """Check, mend, compare and export what is held."""


@data.command("gaps")
@_market
@_timeframe
@_codes
@edge
def gaps_command(market: str, timeframe: str, codes: str) -> None:
    """Compare what is held with what is expected; print completeness and the holes, those that nobody explains first."""
    from chartinsight_lib.db.gaps import listed
    from chartinsight_lib.quality.check import check

    settings = Settings.from_env()
    with _run("check_gaps", settings, market=market, timeframe=timeframe) as (engine, run_id):
        with engine.connect() as conn:
            market = _chosen(conn, market)
        found = check(engine, market, run_id=run_id, clock=settings.clock, timeframe=timeframe)
        with engine.connect() as conn:
            holes = listed(conn, market, timeframe, codes=_split(codes), most=SHOWN)
    click.echo(found.table().to_string(index=False))
    if len(holes):
        click.echo(f"\nholes, from the oldest on (all: api.gaps):\n{holes.to_string(index=False)}")


@data.command("verify")
@_market
@edge
def verify_command(market: str) -> None:
    """Judge the stored daily bars by rules: price limits, scales, volumes, the calendar. Nothing is changed."""
    from chartinsight_lib.db.findings import listed
    from chartinsight_lib.quality.verify import verify

    settings = Settings.from_env()
    with _run("verify", settings, market=market) as (engine, run_id):
        with engine.connect() as conn:
            market = _chosen(conn, market)
        found = verify(engine, market, run_id=run_id, clock=settings.clock)
        with engine.connect() as conn:
            suspicious = listed(conn, market, most=SHOWN)
    counted = ", ".join(f"{count:,} {name}" for name, count in found.changes.items())
    click.echo(f"{found.bars:,} bars of {market}; findings: {counted}")
    if len(found.found):
        click.echo(found.table().to_string(index=False))
    if len(suspicious):
        click.echo(f"\nopen, the newest first (all: api.findings):\n{suspicious.to_string(index=False)}")
    if len(found.calendar_days):
        click.echo(f"\ncalendar and bars do not agree:\n{found.calendar_days.head(SHOWN).to_string(index=False)}")


@data.command("universe")
@_market
@click.option("--as-of", type=click.DateTime(["%Y-%m-%d"]), help="What was listed on this day.  [default: today]")
@click.option("--to", type=click.Path(dir_okay=False, writable=True), help="Write every instrument here, as CSV.")
@edge
def universe_command(market: str, as_of: datetime | None, to: str | None) -> None:
    """Say what was listed on a day, and what the zero filter leaves out of it, rule by rule with its reason."""
    from chartinsight_lib.db.instruments import universe_as_of
    from chartinsight_lib.domain import MARKETS
    from chartinsight_lib.universe import apply_filter, funnel, load_rules

    settings = Settings.from_env()
    with _engine(settings) as engine, engine.connect() as conn:
        market = _chosen(conn, market)
        day = as_of.date() if as_of else settings.clock().astimezone(MARKETS[market].zone).date()
        found = universe_as_of(conn, market, day)
    rules = load_rules()
    filtered = apply_filter(found, rules)
    click.echo(f"{len(found):,} instruments of {market} on {day}; {int(filtered['target'].sum()):,} are targets.\n")
    click.echo(funnel(filtered, rules).to_string(index=False))
    if uncertain := int((~found["certain"]).sum()):
        click.echo(f"\nof {uncertain:,} nothing but the listing is known so early; no rule leaves them out.")
    if to:
        filtered.to_csv(to)
        click.echo(f"\nall {len(filtered):,} instruments: {to}")


@data.command("repair")
@click.option("--source", help="What to ask, as of `up`.  [default: CHARTINSIGHT_SOURCE, else simulated]")
@click.option("--market", default=None, help="Market of the files: KRX or US.  [default: from the looks of the codes]")
@_timeframe
@file_options
@click.option("--most", type=click.IntRange(1), default=300, show_default=True, help="So many instruments in one run.")
@click.option("--again", is_flag=True, help="Try again what was given up, too.")
@edge
def repair_command(
    source: str | None, market: str | None, timeframe: str, most: int, again: bool, **reading: Any
) -> None:
    """Ask a source again for what is missing or late, those with the oldest holes first; give up after four tries."""
    from chartinsight_lib.quality.repair import opener, repair

    settings = Settings.from_env()
    spec = source or settings.source
    with _run("repair_gaps", settings, source=spec, timeframe=timeframe) as (engine, run_id):
        opened = opener(spec, settings, engine, market=market, **reading)
        done = repair(engine, opened, run_id=run_id, clock=settings.clock, timeframe=timeframe, most=most, again=again)
    click.echo(done.table().to_string(index=False))
    done.report.check()


@data.command("compare")
@click.option("--with", "source", required=True, metavar="SOURCE", help="The other source, as of `up`.")
@click.option("--market", default=None, help="Market of the files: KRX or US.  [default: from the looks of the codes]")
@_codes
@file_options
@click.option("--to", type=click.Path(dir_okay=False, writable=True), help="Write the whole table here, as CSV.")
@edge
def compare_command(source: str, market: str | None, codes: str, to: str | None, **reading: Any) -> None:
    """Compare the held daily bars with another source's, instrument by instrument. Nothing is stored."""
    from chartinsight_lib.quality.compare import compare_with
    from chartinsight_lib.quality.comparison import summary
    from chartinsight_lib.sources import open_source

    settings, wanted = Settings.from_env(), _split(codes)
    with _engine(settings) as engine:
        # Files and the sample give all that they have; a service is asked for these alone.
        kind = source.partition(":")[0]
        asked = [] if kind in {"files", "sample"} else wanted
        other = open_source(source, settings, engine, market=market, codes=asked, **reading)
        found = compare_with(engine, other, clock=settings.clock, codes=wanted)
    click.echo(summary(found))
    apart = found[found["verdict"] != "equal"]
    if len(apart):
        click.echo(f"\n{apart.head(SHOWN).to_string(index=False)}")
    if to:
        found.to_csv(to, index=False)
        click.echo(f"\nall {len(found):,} rows: {to}")


def _split(codes: str) -> list[str]:
    return [code.strip() for code in codes.split(",") if code.strip()]


def _chosen(conn: Any, market: str) -> str:
    """Return the market asked for, else the one collected last. Raises NotFound when there is none."""
    from chartinsight_lib.db import query

    known = query.markets(conn)
    if not known or (market and market not in known):
        raise NotFound(f"market {market!r}: nothing is held of it. Held are: {', '.join(known) or 'none'}.")
    return market or known[0]


@contextmanager
def _engine(settings: Settings) -> "Iterator[Engine]":
    """Give an engine as the loader; an embedded server runs for as long."""
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.studio import prepared

    with prepared(settings, click.echo) as database:
        engine = database.engine(Role.LOADER)
        yield engine
        engine.dispose()


@contextmanager
def _run(job: str, settings: Settings, **parameters: str) -> "Iterator[tuple[Engine, UUID]]":
    """Give an engine and a recorded run of its own."""
    from chartinsight_lib import ledger

    with (
        _engine(settings) as engine,
        ledger.notebook_run(engine, None, job=job, clock=settings.clock, parameters=parameters) as run_id,
    ):
        yield engine, run_id


_day = click.DateTime(["%Y-%m-%d"])


@data.command("export")
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="PATH",
              help="A .parquet or .csv file; or a folder, in the columns of others.")  # fmt: skip
@_market
@_codes
@click.option(
    "--timeframe", default="1d", show_default=True, help="1d 1w 1mo 5m 30m 1h, or any multiple that bars make."
)
@click.option("--since", type=_day, help="First trading date.")
@click.option("--until", type=_day, help="Last trading date.")
@click.option("--as-of", type=_day, help="Last trading date to know of, bars and corporate actions.  [default: all]")
@click.option("--basis", type=click.Choice(["raw", "price", "price+dividend"]),
              help="What is undone in the prices.  [default: raw; in the columns of others price]")  # fmt: skip
@click.option("--style", type=click.Choice(["chartinsight", "yfinance", "backtesting", "pykrx"]), default="chartinsight",
              show_default=True, help="Whose columns.")  # fmt: skip
@click.option(
    "--format", "file_format", type=click.Choice(["parquet", "csv"]), help="[default: as PATH ends, else parquet]"
)
@click.option("--final-only", is_flag=True, help="Leave out bars that may still change.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@edge
def export_command(to: Path, market: str, codes: str, since: datetime | None, until: datetime | None,
                   as_of: datetime | None, **options: Any) -> None:  # fmt: skip
    """Write bars into files, with a manifest that says what they are; `--source files:PATH` takes them in again."""
    from chartinsight_lib.export import export

    days: dict[str, Any] = {
        name: day and day.date() for name, day in (("since", since), ("until", until), ("as_of", as_of))
    }
    settings = Settings.from_env()
    # One snapshot: what is read twice is the same, also while something is being collected.
    with _engine(settings) as engine, engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        done = export(
            conn,
            to.expanduser(),
            market=_chosen(conn, market),
            codes=_split(codes),
            clock=settings.clock,
            **days,
            **options,
        )
    told = done.manifest
    click.echo(
        f"{told.rows:,} bars of {len(told.instruments):,} instruments ({told.market} {told.timeframe}, {told.basis}"
        f"{f', {told.provisional} unfinished' if told.provisional else ''}{', SIMULATED' if told.simulated else ''}): {done.path}"
    )

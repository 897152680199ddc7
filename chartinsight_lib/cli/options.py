"""What is said in the same way to several commands."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chartinsight_lib.settings import Settings


def pairs(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read NAME=VALUE, each name once."""
    if any("=" not in value for value in values):
        raise click.BadParameter("expected NAME=VALUE", param=option)
    found = dict(value.partition("=")[::2] for value in values)
    if len(found) < len(values):
        raise click.BadParameter("a name is given twice", param=option)
    return found


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what says how files are to be read: columns, last_day, only, prices, as of `clients.open_source`."""
    for option in reversed(
        (
            click.option("--map", "columns", multiple=True, callback=pairs, metavar="OURS=THEIRS",
                         help="Name a column, as in close=종가; date=@name: the trading day is in the file's name. Repeatable."),
            click.option("--last-day", type=click.Choice(["provisional", "final"]), default="provisional", show_default=True,
                         help="May the newest day of the files be unfinished?"),
            click.option("--only", multiple=True, callback=pairs, metavar="COLUMN=VALUE",
                         help="Of the rows of files take these alone, as in source=kiwoom. Repeatable."),
            click.option("--prices", type=click.Choice(["adjusted", "raw"]), default="adjusted", show_default=True,
                         help="raw: the prices of the files are as they were traded, for ever."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def absolute(source: str) -> str:
    """Paths of a files: source are a person's, relative to where they stand; the notebooks run elsewhere."""
    kind, _, paths = source.partition(":")
    if kind != "files":
        return source
    return "files:" + ",".join(
        str(Path(path.strip()).expanduser().absolute()) for path in paths.split(",") if path.strip()
    )


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what says where the data come from; the command gets them as one `Options`."""

    @click.option(
        "--source",
        help="simulated, kiwoom, sample, files:PATH[,PATH…] (CSV or Parquet), yahoo:TICKER[,…], krx[:CODE,…].  "
        "[default: CHARTINSIGHT_SOURCE, else simulated]",
    )
    @click.option("--market", help="Market of the files: KRX or US.  [default: from the looks of the codes]")
    @file_options
    @functools.wraps(command)
    def run(
        *args: Any, source: str | None, market: str | None, columns: dict[str, str], last_day: str, only: dict[str, str],
        prices: str, **others: Any,
    ) -> None:  # fmt: skip
        from chartinsight_lib.studio import Options

        settings = Settings.from_env()
        options = Options(absolute(source or settings.source), market, columns, last_day, only, prices)
        command(*args, settings=settings, options=options, **others)

    return run


def scheduled_source(command: Callable[..., None]) -> Callable[..., None]:
    """Add the source that jobs are run on again and again; the command gets it as `Options`, with the settings."""

    @click.option("--source", help="simulated, kiwoom, yahoo:TICKER[,…], krx[:CODE,…].  [default: CHARTINSIGHT_SOURCE]")
    @functools.wraps(command)
    def run(*args: Any, source: str | None, **others: Any) -> None:
        from chartinsight_lib.studio import Options

        settings = Settings.from_env()
        command(*args, settings=settings, options=Options(absolute(source or settings.source)), **others)

    return run

"""What is said in the same way to several commands."""

from collections.abc import Callable
from pathlib import Path

import click


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

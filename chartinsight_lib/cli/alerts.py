"""`chartinsight alerts …`: who is told what. Parses, calls one function, prints."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chartinsight_lib.cli.edge import edge
from chartinsight_lib.errors import ChartInsightError, ConfigError
from chartinsight_lib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

_market = click.option("--market", default="", help="Default: that of the settings, else the one collected last.")


@click.group("alerts")
def alerts() -> None:
    """Tell of failed jobs, stale data, holes, quotas, and of what the market does."""


@alerts.command("test")
@edge
def test_command() -> None:
    """Send a test notice to each channel; say whether it went. Exit 1 if one did not."""
    from chartinsight_lib.alerts.channels import ADVICE, channels
    from chartinsight_lib.alerts.sending import Letter, send

    found = channels(Settings.from_env())
    if not found:
        raise ConfigError(f"alerts: there is no channel. {ADVICE}")
    body = "This is a test. So you will be told of what goes wrong, and of what your rules see."
    outcome = send([Letter(channel, "ChartInsight Studio: a test notice", body, "info") for channel in found])
    for name, error in outcome.items():
        click.echo(f"  {'sent' if error is None else 'NOT SENT':<8} {name:<24} {error or ''}".rstrip())
    if failed := sum(error is not None for error in outcome.values()):
        raise ChartInsightError(f"alerts: {failed} of {len(outcome)} channels failed; see above.")


@alerts.command("check")
@_market
@edge
def check_command(market: str) -> None:
    """Look once, as a scheduler does every minute: record what is new or over, and tell it. Exit 1 if a channel failed."""
    from chartinsight_lib.alerts import check
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.studio import prepared

    settings = Settings.from_env()
    with prepared(settings, click.echo) as database:
        with database.transaction(Role.LOADER) as conn:
            market = _chosen(conn, settings, market)
        done = check(database, settings, market, click.echo)
    sent = ", ".join(f"{count} on {name}" for name, count in done.sent.items()) or "none"
    click.echo(f"{market}: {len(done.opened)} new, {len(done.resolved)} over; notices sent: {sent}")
    if done.failed:
        raise ChartInsightError(f"alerts: {len(done.failed)} channels failed; see above. They are tried again.")


@alerts.command("list")
@click.option("--open", "standing", is_flag=True, help="Those alone that hold now.")
@click.option("--most", type=click.IntRange(1), default=30, show_default=True)
@edge
def list_command(standing: bool, most: int) -> None:
    """Print the history, the newest first; all of it is in `api.alerts`."""
    from chartinsight_lib.alerts.history import listed

    with _opened() as (conn, _):
        rows = listed(conn, most=most, standing=standing)
    for row in rows:
        state = "happened" if not row.standing else "open" if row.resolved_at is None else "over"
        told = (
            f"{row.sent} sent"
            + (f", {row.waiting} waiting" if row.waiting else "")
            + f"; {row.error}" * bool(row.error)
        )
        click.echo(
            f"{row.opened_at:%Y-%m-%d %H:%M}Z  {row.market or '-':<4} {row.level:<8} {state:<8} {row.subject}\n"
            f"{'':<19}{row.key}  ({told})"
        )
    if not rows:
        click.echo("nothing is open." if standing else "nothing has been alerted yet.")


@alerts.command("rules")
@edge
def rules_command() -> None:
    """Print the rules over the market; all of them are in `api.alert_rules`."""
    from chartinsight_lib.alerts.rules import listed

    with _opened() as (conn, _):
        rules = listed(conn)
    for rule in rules:
        click.echo(f"{rule.market:<4} {rule.name:<20} {rule.level:<8} {rule.says}")
    if not rules:
        click.echo("there are no rules. `chartinsight alerts add --help` says how to add one.")


@alerts.group("add")
def add() -> None:
    """Add a rule over the market: it tells when what it watches changes, and not while it stays."""


def _rule(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every kind of rule has."""
    for option in reversed(
        (
            click.argument("name"),
            _market,
            click.option("--level", type=click.Choice(["info", "warning", "critical"]), default="info", show_default=True,
                         help="critical: also in quiet hours."),
        )
    ):  # fmt: skip
        command = option(command)
    return edge(command)


_code = click.option("--code", help="This instrument alone.  [default: all of the market]")


@add.command("price")
@_rule
@click.option("--code", required=True)
@click.option("--above", type=float, metavar="PRICE", help="Tell when the price reaches it from below.")
@click.option("--below", type=float, metavar="PRICE", help="Tell when the price reaches it from above.")
@click.option("--final", is_flag=True, help="Look at finished days alone, not at running prices.")
def price_command(above: float | None, below: float | None, final: bool, **told: Any) -> None:
    """A price that crosses a level. Splits move the level along."""
    if (above is None) == (below is None):
        raise ConfigError("alerts: say either --above PRICE or --below PRICE.")
    level, direction = (above, "above") if above is not None else (below, "below")
    _add("price", {"level": level, "direction": direction, "close": "final" if final else "running"}, **told)


@add.command("trend")
@_rule
@_code
@click.option("--to", type=click.Choice(["up", "down"]), required=True)
@click.option("--long", "wide", is_flag=True, help="The trend of wide swings.")
def trend_command(to: str, wide: bool, **told: Any) -> None:
    """A trend that turns between two scans."""
    _add("trend", {"to": to, "of": "trend_long" if wide else "trend"}, **told)


@add.command("screen")
@_rule
@_code
@click.option("--where", multiple=True, required=True, metavar="'COLUMN SIGN NUMBER'",
              help="As in 'rsi_14 < 30' or 'trend = up'; columns are those of the radar. Repeatable: all must hold.")  # fmt: skip
def screen_command(where: tuple[str, ...], **told: Any) -> None:
    """Instruments that are new in a screen since the scan before."""
    from chartinsight_lib.alerts.rules.screen import written

    _add("screen", {"where": [written(one) for one in where]}, **told)


@alerts.command("remove")
@click.argument("name")
@_market
@edge
def remove_command(name: str, market: str) -> None:
    """Forget a rule; what it told stays in the history."""
    from chartinsight_lib.alerts.rules import remove

    with _opened() as (conn, settings):
        market = _chosen(conn, settings, market)
        remove(conn, name, market=market)
    click.echo(f"{market} has no rule {name} any more.")


@alerts.command("mute")
@click.argument("key")
@click.option("--until", required=True, type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
              help="In the zone of the market; a time that has passed ends it.")  # fmt: skip
@_market
@edge
def mute_command(key: str, until: datetime, market: str) -> None:
    """Record what has this KEY, or begins with it and a colon, but do not tell it. `alerts list` shows the keys."""
    from chartinsight_lib.alerts.history import mute
    from chartinsight_lib.domain import MARKETS

    with _opened() as (conn, settings):
        zone = MARKETS[_chosen(conn, settings, market)].zone
        mute(conn, key, until.replace(tzinfo=zone))
    click.echo(f"{key}: nothing is told until {until:%Y-%m-%d %H:%M} ({zone}).")


def _add(kind: str, parameters: dict[str, Any], *, name: str, market: str, level: str, code: str | None) -> None:
    from chartinsight_lib.alerts import Level
    from chartinsight_lib.alerts.rules import add

    with _opened() as (conn, settings):
        rule = add(
            conn, kind, name, market=_chosen(conn, settings, market), code=code, parameters=parameters, level=Level(level),
            now=settings.clock(),
        )  # fmt: skip
    click.echo(f"{rule.market} {rule.name}: {rule.says}")


@contextmanager
def _opened() -> "Iterator[tuple[Connection, Settings]]":
    """Give a connection as the loader, in a transaction; an embedded server runs for as long."""
    from chartinsight_lib.db.roles import Role
    from chartinsight_lib.studio import prepared

    settings = Settings.from_env()
    with prepared(settings, lambda _: None) as database, database.transaction(Role.LOADER) as conn:
        yield conn, settings


def _chosen(conn: "Connection", settings: Settings, market: str) -> str:
    """Return the market asked for, else that of the settings, else the one collected last. Raises ConfigError."""
    from chartinsight_lib.domain import MARKETS
    from chartinsight_lib.status import chosen_market

    found = chosen_market(conn, settings, market or None)
    if found not in MARKETS:
        raise ConfigError(f"alerts: there is no market {found!r}. Known are {', '.join(MARKETS)}.")
    return found

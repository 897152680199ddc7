"""Looks a machine over before it collects: database, calendars, plug-ins, keys, Kiwoom's answer. Each finding says what to do."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from chartinsight_lib.calendars import calendar, horizon_warning
from chartinsight_lib.clients.kiwoom import KiwoomClient, is_kiwoom, usual_rate
from chartinsight_lib.db import query
from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.migrate import check_schema, upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.settings import Settings
from chartinsight_lib.sources import broken_plugins, credentials, kiwoom_client

LONGEST = timedelta(days=2)
"""No token lives so long: Kiwoom's live a day."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, and a sentence."""

    what: str
    good: bool
    says: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Check one thing after another; what depends on something that is wrong is not tried."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(open_database(settings))
            version = upgrade(database) if database.embedded else check_schema(database)
            engine = database.engine(Role.LOADER)
            stack.callback(engine.dispose)
            where = f"embedded, port {database.embedded.port}" if database.embedded else "DATABASE_URL"
            yield Finding("database", True, f"tradesmart ({where}), schema {version}")
            yield from _calendars(engine, settings)
        except ChartInsightError as error:
            yield Finding("database", False, f"{error} Quota and token are not shared with other programs without it.")
            engine = None
        for name, reason in broken_plugins().items():
            yield Finding("plug-in", False, f"{name} cannot be loaded: {reason}")
        url = settings.kiwoom_url
        rate = settings.kiwoom_rate or usual_rate(url)
        kind = "Kiwoom's own host" if is_kiwoom(url) else "no host of Kiwoom's: what it says counts as simulated"
        yield Finding("host", True, f"{url} ({kind}), {rate:g} requests per second and API id")
        try:
            keys = credentials(settings)
            yield Finding("keys", True, f"both are there (fingerprint {keys.fingerprint(url)})")
            client = stack.enter_context(kiwoom_client(settings, engine))
        except ChartInsightError as error:
            yield Finding("keys", False, str(error))
            return
        yield from _ask(client, settings)


def _calendars(engine: Engine, settings: Settings) -> Iterator[Finding]:
    with engine.connect() as conn:
        held = query.markets(conn)
    for market in held:
        warning = horizon_warning(market, settings.clock())
        yield Finding("calendar", warning is None, warning or f"{market}: known until {calendar(market).horizon}")


def _ask(client: KiwoomClient, settings: Settings) -> Iterator[Finding]:
    try:
        until = client.check()
        now, ends = settings.clock().astimezone(KST), until.astimezone(KST)
        if now < ends < now + LONGEST:
            yield Finding("token", True, f"good until {ends:%Y-%m-%d %H:%M} KST")
        else:
            yield Finding(
                "token", False,
                f"it ends {ends:%Y-%m-%d %H:%M} KST, and here it is {now:%Y-%m-%d %H:%M}: one of the two clocks is wrong. Set this "
                "machine's; for a simulator, set CHARTINSIGHT_NOW=@FILE of the clock that it keeps with --clock-file.",
            )  # fmt: skip
        listed = client.instruments("KOSPI")
        yield Finding("data", bool(listed), f"{len(listed):,} instruments are listed on KOSPI")
    except ChartInsightError as error:
        yield Finding("kiwoom", False, str(error))

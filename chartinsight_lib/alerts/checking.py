"""One check: find, record, tell. Milliseconds where nothing is new."""

from collections.abc import Callable
from dataclasses import dataclass, field

from chartinsight_lib.alerts import delivery, history, rules
from chartinsight_lib.alerts.channels import Channel, channels
from chartinsight_lib.alerts.conditions import conditions
from chartinsight_lib.alerts.history import Recorded
from chartinsight_lib.alerts.quiet import QuietHours
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.settings import Settings


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check did: subjects of alerts that are new and over; {channel: notices sent}; {channel: why it failed}."""

    opened: list[str]
    resolved: list[str]
    sent: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def check(database: Database, settings: Settings, market: str, say: Callable[[str], None]) -> Checked:
    """Find what holds of a market now and what happened there since the last check, record it, and tell it.

    A channel that is down, slow or not understood is said and tried again by a later check. Raises what the database raises.
    """
    now = settings.clock()
    engine = database.engine(Role.LOADER)
    try:
        with engine.begin() as conn:
            history.lock(conn)
            found = conditions(conn, settings, market, now)
            seen = rules.evaluate(conn, market, now)
            recorded = history.record(
                conn, [*found.alerts, *seen], market=market, judged={*found.judged, rules.BROKEN}, now=now
            )
            to_tell = history.to_tell(conn, market, now)
            open_channels = _channels(settings, say) if to_tell or delivery.waits(conn, market) else []
            if to_tell and open_channels:
                history.tell(conn, to_tell, [channel.name for channel in open_channels], now)
        _say(recorded, say)
        quiet = QuietHours.of(settings.quiet_hours)
        done = delivery.deliver(
            engine, open_channels, market, now, quiet=quiet is not None and quiet.hold(now, MARKETS[market].zone)
        ) if open_channels else delivery.Delivered({}, {})  # fmt: skip
    finally:
        engine.dispose()
    for name, error in done.failed.items():
        say(f"  {'alerts':<17} NOT SENT on {name}, it is tried again: {error}")
    return Checked([alert.subject for alert in recorded.opened], recorded.resolved, done.sent, done.failed)


def _channels(settings: Settings, say: Callable[[str], None]) -> list[Channel]:
    try:
        return channels(settings)
    except ConfigError as error:
        say(f"  {'alerts':<17} NOT SENT: {error}")
        return []


def _say(recorded: Recorded, say: Callable[[str], None]) -> None:
    for alert in recorded.opened:
        say(f"  {'alerts':<17} {alert.level}: {alert.subject}")
    for subject in recorded.resolved:
        say(f"  {'alerts':<17} over: {subject}")

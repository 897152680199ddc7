"""The one place that knows what time it is. Everything else is handed a clock, or a time.

`CHARTINSIGHT_NOW` (ISO 8601 with an offset) fixes the time, for tests, replays and demonstrations.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from chartinsight_lib.errors import ConfigError

Clock = Callable[[], datetime]
"""Returns the current time, tz-aware, UTC."""


def system_clock() -> datetime:
    """Return the machine's time, tz-aware, UTC."""
    return datetime.now(UTC)


def fixed_clock(moment: datetime) -> Clock:
    """Return a clock that always says `moment`, which must be tz-aware."""
    if moment.tzinfo is None:
        raise ConfigError(
            f"clock: {moment.isoformat()} has no time zone. Write it with an offset, as in 2024-08-05T15:30+09:00."
        )
    return lambda: moment.astimezone(UTC)


def clock_from(text: str | None) -> Clock:
    """Return the clock that a setting asks for: the machine's when `text` is None, else fixed at that ISO 8601 moment."""
    if text is None:
        return system_clock
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"clock: {text!r} is not a time. Expected ISO 8601 with an offset, as in 2024-08-05T15:30+09:00."
        ) from error
    return fixed_clock(moment)

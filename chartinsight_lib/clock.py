"""The one place that knows what time it is. Everything else is handed a clock, or a time.

`CHARTINSIGHT_NOW` (ISO 8601 with an offset) fixes the time, for tests, replays and demonstrations; `@PATH` follows the clock
that a simulator keeps in a file: a moment, how fast it runs, and the machine's time at which it was so.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chartinsight_lib.errors import ConfigError

Clock = Callable[[], datetime]
"""Returns the current time, tz-aware, UTC."""

_RUNNING = re.compile(r"(\S+) x(\d+(?:\.\d+)?) (\S+)")


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


def file_clock(path: Path, machine: Clock = system_clock) -> Clock:
    """Return a clock that says what the file says, and runs as fast as it says; read anew each time it is asked.

    Raises:
        ConfigError: when it is asked and the file is absent or says something else.
    """

    def now() -> datetime:
        then, speed, since = _written(path)
        try:
            return (then + timedelta(seconds=(machine() - since).total_seconds() * speed)).astimezone(UTC)
        except OverflowError as error:
            raise _unfollowed(path, error) from error

    return now


def clock_speed(text: str | None) -> float:
    """Return how many seconds pass in one of the machine's on the clock that a setting asks for, see `clock_from`; 0: it stands."""
    if text is None:
        return 1.0
    return _written(Path(text[1:]))[1] if text.startswith("@") else 0.0


def _written(path: Path) -> tuple[datetime, float, datetime]:
    """Read a clock file: it was then, it runs so fast, at the machine's time since. Raises ConfigError."""
    try:
        written = path.read_text(encoding="utf-8").strip()
        if not (found := _RUNNING.fullmatch(written)):
            raise ValueError(f"it holds {written[:60]!r}")
        then, since = datetime.fromisoformat(found[1]), datetime.fromisoformat(found[3])
        if then.tzinfo is None or since.tzinfo is None:
            raise ValueError("a time in it has no offset")
    except (OSError, ValueError) as error:
        raise _unfollowed(path, error) from error
    return then, float(found[2]), since


def _unfollowed(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"clock: {path} cannot be followed ({error}). A running simulator keeps it; start one, or unset CHARTINSIGHT_NOW."
    )


def running_text(then: datetime, speed: float, since: datetime) -> str:
    """Write what `file_clock` reads: at the machine's time `since` it was `then`, and runs `speed` times as fast."""
    return f"{then.isoformat()} x{speed:f} {since.isoformat()}"


def write_clock(path: Path, written: str) -> None:
    """Write a clock file so that a reader sees the old or the new, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(written + "\n", encoding="utf-8")
    part.replace(path)


def clock_from(text: str | None) -> Clock:
    """Return the clock that a setting asks for: the machine's when `text` is None, a file's for "@PATH", else fixed at that
    ISO 8601 moment."""
    if text is None:
        return system_clock
    if text.startswith("@"):
        return file_clock(Path(text[1:]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"clock: {text!r} is not a time. Expected ISO 8601 with an offset, as in 2024-08-05T15:30+09:00, or @PATH of "
            "the clock that a simulator keeps."
        ) from error
    return fixed_clock(moment)

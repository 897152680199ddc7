"""Daily candles -> weekly and monthly candles of one instrument. Pure: no database, no clock, no calendar."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from chartinsight_lib.domain import NUMBERS, Flag
from chartinsight_lib.errors import NotFound, SchemaError

_DAYS_INTO: dict[str, Callable[[pd.DatetimeIndex], pd.Index]] = {
    "1w": lambda days: days.day_of_week,  # ISO: Monday is 0
    "1mo": lambda days: days.day - 1,
}
"""{timeframe: how many days after the first day of its period a day lies}."""


def aggregate(daily: pd.DataFrame, timeframe: str) -> pd.DataFrame:
    """Turn daily candles into longer ones: open first, high max, low min, close last, volume and value summed.

    A period without a daily bar has no bar. `flags` is everything said of any of the daily bars; the newest bar carries
    `Flag.PROVISIONAL` besides, because only a bar of a later period proves that a period is complete.

    Args:
        daily: one instrument's bars, columns `NUMBERS` and `flags` (others are left out), indexed by `ts`: 00:00 UTC of
            the trading date, ascending, unique.
        timeframe: "1w", "1mo", or "1d", which returns `daily` itself.
    Returns:
        The same columns; `ts` is 00:00 UTC of the ISO Monday or of the first calendar day, in the time unit of `daily`.
        A sum is NaN if any of its numbers is NaN: without it the sum would be short, and nobody would know.
    Raises:
        NotFound: no such timeframe.
        SchemaError: a column is missing, or `ts` is not as above.
    """
    if timeframe == "1d":
        return daily
    if timeframe not in _DAYS_INTO:
        possible = ", ".join(["1d", *_DAYS_INTO])
        raise NotFound(f"timeframe {timeframe!r}: daily candles give {possible}. Choose one of these.")
    days = _checked_days(daily, timeframe)
    if daily.empty:
        return daily[[*NUMBERS, "flags"]]

    into = pd.to_timedelta(_DAYS_INTO[timeframe](days), unit="D")
    # Units of time differ between pandas versions and sources: the difference comes in the finer one, and goes back.
    periods = pd.DatetimeIndex(days - into).as_unit(days.unit)
    first = np.flatnonzero(np.concatenate([[True], periods[1:] != periods[:-1]]))
    last = np.concatenate([first[1:], [len(days)]]) - 1

    columns = {name: daily[name].to_numpy() for name in [*NUMBERS, "flags"]}
    flags = np.bitwise_or.reduceat(columns["flags"], first)
    flags[-1] |= Flag.PROVISIONAL.value
    return pd.DataFrame(
        {
            "open": columns["open"][first],
            "high": np.maximum.reduceat(columns["high"], first),
            "low": np.minimum.reduceat(columns["low"], first),
            "close": columns["close"][last],
            "volume": np.add.reduceat(columns["volume"], first),
            "value": np.add.reduceat(columns["value"], first),
            "flags": flags,
        },
        index=periods[first].rename(days.name),
    )


def _checked_days(daily: pd.DataFrame, timeframe: str) -> pd.DatetimeIndex:
    if missing := [name for name in [*NUMBERS, "flags"] if name not in daily.columns]:
        raise SchemaError(f"aggregate to {timeframe}: the daily candles lack {missing}.")
    days = daily.index
    if not isinstance(days, pd.DatetimeIndex) or str(days.tz) != "UTC":
        found = str(days.dtype)
        raise SchemaError(f"aggregate to {timeframe}: the index is {found}, and `ts`, tz-aware in UTC, is expected.")
    if not days.equals(days.normalize()):
        raise SchemaError(f"aggregate to {timeframe}: `ts` is not 00:00 UTC of the trading date on every bar.")
    if not (days.is_monotonic_increasing and days.is_unique):
        raise SchemaError(
            f"aggregate to {timeframe}: `ts` is not ascending and unique. Pass one instrument, sorted by ts."
        )
    return days

"""Moving averages, RSI, ATR and rolling extremes of one instrument. Pure: arrays in, arrays out.

An indicator takes 1-D arrays of finite numbers, one element per bar, oldest first, and gives a float64 array as long.
NaN means "not enough bars yet", except where a docstring says otherwise; short or empty input gives NaN or an
empty array, never an error. All are causal: element t depends on bars 0 … t only.

TA-Lib calculates where it gives what is meant. It is imported on first use, because it takes most of a second.
"""

import numpy as np
import numpy.typing as npt

from chartinsight_lib.errors import ConfigError, SchemaError

Floats = npt.NDArray[np.float64]

YEAR_BARS = 252
"""Daily bars of a "52-week" high or low. Source: 365.25 * 5/7 less about nine holidays; the usual convention."""

LONGEST = 99_999
"""The longest period accepted. Source: TA-Lib, whose optInTimePeriod ends at 100 000."""


def series(step: str, **named: npt.ArrayLike) -> list[Floats]:
    """Return the named series as contiguous 1-D float64 arrays, in the order given; `step` opens the error's message.

    Raises:
        SchemaError: a series is not 1-D, lengths differ, or a number is NaN or infinite. A recursive average never
            recovers from one NaN, so all later values would be lost without a word.
    """
    arrays = [np.ascontiguousarray(values, dtype=np.float64) for values in named.values()]
    for name, array in zip(named, arrays, strict=True):
        if array.ndim != 1:
            raise SchemaError(f"{step}: `{name}` has {array.ndim} dimensions, and 1 is expected. Pass one instrument.")
        if array.size != arrays[0].size:
            sizes = ", ".join(f"{name} {array.size}" for name, array in zip(named, arrays, strict=True))
            raise SchemaError(f"{step}: the series differ in length ({sizes}). Take them from one candle frame.")
        if not (finite := np.isfinite(array)).all():
            bar = int(np.argmin(finite))
            raise SchemaError(f"{step}: `{name}` is {array[bar]} at bar {bar} of {array.size}. Repair that bar.")
    return arrays


def sma(values: npt.ArrayLike, period: int) -> Floats:
    """Average the last `period` values.

    Args:
        values: (bars,) any unit.
        period: bars, 1 or more.
    Returns:
        (bars,) in the unit of `values`; NaN in the first period - 1 bars.
    Raises:
        SchemaError: `values` is not 1-D or not finite.
        ConfigError: `period` is out of range.
    """
    import talib

    _check_period("sma", period)
    (values,) = series("sma", values=values)
    return talib.SMA(values, period)


def ema(values: npt.ArrayLike, period: int) -> Floats:
    """Average all values so far with weights that fall by 1 - 2 / (period + 1) a bar.

    The first average, at bar period - 1, is the plain mean of the first `period` values; programs that seed with the
    first value instead differ at the beginning and agree later.

    Args:
        values: (bars,) any unit.
        period: bars, 1 or more.
    Returns:
        (bars,) in the unit of `values`; NaN in the first period - 1 bars.
    Raises:
        SchemaError: `values` is not 1-D or not finite.
        ConfigError: `period` is out of range.
    """
    import talib

    _check_period("ema", period)
    (values,) = series("ema", values=values)
    return talib.EMA(values, period)


def rsi(close: npt.ArrayLike, period: int = 14) -> Floats:
    """Relate recent rises to recent falls.

    RSI = 100 * up / (up + down): Wilder's averages of rises and falls, which start as the mean of the first `period`.

    Args:
        close: (bars,) prices.
        period: bars, 2 or more.
    Returns:
        (bars,) 0 … 100, a pure number; NaN in the first `period` bars, and until the close moves for the first time:
        both averages are 0 there, and TA-Lib's answer, 0, would read as "extremely oversold".
    Raises:
        SchemaError: `close` is not 1-D or not finite.
        ConfigError: `period` is out of range.
    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978.
    """
    import talib

    _check_period("rsi", period, least=2)
    (close,) = series("rsi", close=close)
    result = talib.RSI(close, period)
    result[~np.logical_or.accumulate(close != close[:1])] = np.nan
    return result


def atr(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> Floats:
    """Average the true range: the distance a bar covered, counted from the close before it.

    TR = max(high, close before) - min(low, close before), averaged as Wilder does, starting from the mean of the first
    `period`. The first bar has no close before it and no TR; programs that take high - low there differ at the
    beginning and agree later.

    Args:
        high, low, close: (bars,) prices of the same bars.
        period: bars, 1 or more.
    Returns:
        (bars,) in the unit of the prices; NaN in the first `period` bars.
    Raises:
        SchemaError: a series is not 1-D or not finite, or lengths differ.
        ConfigError: `period` is out of range.
    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978.
    """
    import talib

    _check_period("atr", period)
    high, low, close = series("atr", high=high, low=low, close=close)
    return talib.ATR(high, low, close, period)


def rolling_high(high: npt.ArrayLike, window: int = YEAR_BARS, *, min_bars: int = 20) -> Floats:
    """Return the highest value of the last `window` bars, or of as many as there are.

    A stock listed for half a year has a high since listing, and hiding it would hide the strongest newcomers; but the
    high of three bars says nothing. So there is a value from `min_bars` on, and below `window` bars it is the high of
    fewer bars than the name promises: `bars_covered` says of how many, and a screen should show that.

    TA-Lib's MAX is silent until the window is full, so it is given a front of -infinity, which never wins.

    Args:
        high: (bars,) prices, this bar's included.
        window: bars, 1 or more.
        min_bars: bars from which on there is a value; a full window is always enough.
    Returns:
        (bars,) in the unit of `high`; NaN in the first min(min_bars, window) - 1 bars.
    Raises:
        SchemaError: `high` is not 1-D or not finite.
        ConfigError: `window` or `min_bars` is out of range.
    """
    import talib

    _check_period("rolling_high", window)
    _check_period("rolling_high", min_bars)
    (high,) = series("rolling_high", high=high)
    if window == 1:  # TA-Lib's MAX begins at 2
        return high.copy()
    result = talib.MAX(np.concatenate([np.full(window - 1, -np.inf), high]), window)[window - 1 :]
    result[: min(min_bars, window) - 1] = np.nan
    return result


def rolling_low(low: npt.ArrayLike, window: int = YEAR_BARS, *, min_bars: int = 20) -> Floats:
    """Return the lowest value of the last `window` bars, or of as many as there are: `rolling_high` upside down.

    Args:
        low: (bars,) prices, this bar's included.
        window: bars, 1 or more.
        min_bars: bars from which on there is a value; a full window is always enough.
    Returns:
        (bars,) in the unit of `low`; NaN in the first min(min_bars, window) - 1 bars.
    Raises:
        SchemaError: `low` is not 1-D or not finite.
        ConfigError: `window` or `min_bars` is out of range.
    """
    (low,) = series("rolling_low", low=low)
    return -rolling_high(-low, window, min_bars=min_bars)


def bars_covered(bars: int, window: int = YEAR_BARS) -> npt.NDArray[np.int64]:
    """Say for each of `bars` bars how many bars a rolling high or low covers: 1, 2, … window, window, …"""
    return np.minimum(np.arange(1, bars + 1, dtype=np.int64), window)


def _check_period(step: str, period: int, *, least: int = 1) -> None:
    if not least <= period <= LONGEST:
        raise ConfigError(f"{step}: a period of {period} bars, and {least} to {LONGEST} are possible.")

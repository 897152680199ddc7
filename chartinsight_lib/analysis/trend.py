"""The trend of Dow's theory, bar by bar, from swing points. Pure: arrays in, arrays out."""

import numpy as np
import numpy.typing as npt

from chartinsight_lib.analysis.indicators import Floats, series
from chartinsight_lib.analysis.pivots import HIGH, LOW, Pivots
from chartinsight_lib.errors import NotEnoughHistory

TREND_NAMES = {1: "up", 0: "sideways", -1: "down"}
"""Names of the states."""


def dow_trend(close: npt.ArrayLike, pivots: Pivots) -> npt.NDArray[np.int8]:
    """Say for every bar whether highs and lows rise, fall, or do neither.

    At the close of bar t, with the two newest highs and the two newest lows known by then:

    - highs rise if the newer is above the older, or a close since the newer became known is above it;
      else they fall if the newer is below the older;
    - lows fall if the newer is below the older, or a close since the newer became known is below it;
      else they rise if the newer is above the older;
    - the trend is up if both rise, down if both fall, and else sideways.

    A close beyond the last swing point is thus taken for the next point of its side at once, without waiting for the
    swing back that would make it one, and stays so until that side's next point is known. So a close below the last low
    ends an up trend on that bar, and begins a down trend on that bar if the highs fall; and the other way round.

    Args:
        close: (bars,) prices.
        pivots: the swing points of the same bars; points known after the last bar have no effect.
    Returns:
        (bars,) +1 up, 0 sideways, -1 down (`TREND_NAMES`); 0 before two highs and two lows are known.
    Raises:
        SchemaError: `close` is not 1-D or not finite.
    Source: Dow's definition of a trend, in R. D. Edwards and J. Magee, Technical Analysis of Stock Trends; the early
        turn by a close, and that it lasts, are ours.
    """
    (close,) = series("dow_trend", close=close)
    highs, lows = (_direction(close, pivots, kind) for kind in (HIGH, LOW))
    return np.where(highs == lows, highs, np.int8(0))


def trend_start(trend: npt.NDArray[np.int8]) -> int:
    """Return the bar at which the state of the last bar began.

    Raises:
        NotEnoughHistory: there is no bar.
    """
    if not trend.size:
        raise NotEnoughHistory("trend_start: no bars, and 1 is needed. Leave instruments without candles out.")
    changes = np.flatnonzero(np.diff(trend))
    return int(changes[-1]) + 1 if changes.size else 0


def _direction(close: Floats, pivots: Pivots, kind: int) -> npt.NDArray[np.int8]:
    """Say for every bar whether the points of one kind rise (+1), fall (-1), or are equal or fewer than two (0)."""
    chosen = pivots.kind == kind
    known, price = pivots.known_at[chosen].tolist(), pivots.price[chosen]
    steps = np.sign(np.diff(price))
    result = np.zeros(close.size, dtype=np.int8)
    for point, step in enumerate(steps, start=1):
        span = slice(known[point], known[point + 1] if point + 1 < len(known) else close.size)
        beyond = kind * (close[span] - price[point]) > 0
        result[span] = np.where(np.maximum.accumulate(beyond), kind, step)
    return result

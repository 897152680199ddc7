"""Swing highs and lows, scaled by volatility, each with the bar at which it became known. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chartinsight_lib.analysis.indicators import Floats, atr, series
from chartinsight_lib.errors import ConfigError

HIGH, LOW = 1, -1
"""Kinds of pivot."""

_Sides = dict[int, tuple[list[float], list[float]]]
"""{kind: (where the extremes of that kind are looked for, closes)}, negated for LOW."""


@dataclass(frozen=True, slots=True, eq=False)
class Pivots:
    """Swing points of one instrument, oldest first, high and low by turns: four arrays of one length.

    `at` and `known_at` increase strictly, known_at > at, and every high lies above the lows beside it.
    """

    at: npt.NDArray[np.int64]
    """The bar whose high or low it is."""
    known_at: npt.NDArray[np.int64]
    """The bar at whose close it became known; before that nobody could have drawn it."""
    price: Floats
    """The high or low of that bar, in the unit of the prices."""
    kind: npt.NDArray[np.int8]
    """HIGH (+1) or LOW (-1)."""

    def __len__(self) -> int:
        return self.at.size

    def up_to(self, bar: int) -> "Pivots":
        """Return the points known at the close of `bar`."""
        end = int(np.searchsorted(self.known_at, bar, side="right"))
        return Pivots(self.at[:end], self.known_at[:end], self.price[:end], self.kind[:end])


def swings(
    high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, *, multiple: float = 3.0, atr_period: int = 14
) -> Pivots:
    """Find the swing points: extremes from which the close has turned back by more than `multiple` average true ranges.

    After a low, the highest high of the bars after it is the candidate (the first of equals). It becomes a pivot at the
    first later bar t that makes no new high and closes with

        candidate - close[t] > multiple * ATR[t - 1]

    and from there the same goes on upside down. Three choices:

    - The ATR is that of the bar before: the distance is known before the bar opens, and a crash does not widen the
      distance by which it is itself measured.
    - A bar never confirms its own extreme, because a bar does not say whether its high or its low came first. One pivot
      at most becomes known per bar.
    - At the beginning both the highest high and the lowest low are candidates; the one farther from the close wins, and
      if they are equally far, a later bar decides. No side is favoured: prices upside down give the same pivots.

    No repaint: `swings` of the first n bars is `swings(...).up_to(n - 1)`. Points depend on the bar at which the series
    begins, since the ATR and the first candidate do; begin at the same bar to compare two scans.

    Args:
        high, low, close: (bars,) prices of the same bars, oldest first; low <= close <= high.
        multiple: ATRs, more than 0.
        atr_period: bars.
    Returns:
        The pivots; none known before bar atr_period + 1, none for short, empty or unmoving input. The last swing, still
        in the making, is not among them.
    Raises:
        SchemaError: a series is not 1-D or not finite, or lengths differ.
        ConfigError: `multiple` or `atr_period` is out of range.
    Source: the usual zigzag with an ATR distance in place of a percentage.
    """
    if not 0 < multiple < np.inf:
        raise ConfigError(f"swings: a distance of {multiple} ATRs, and more than 0 is needed.")
    high, low, close = series("swings", high=high, low=low, close=close)
    # reach[t] = how far bar t has to turn back. Lists, because indexing them one by one is several times faster.
    reach = np.concatenate([[np.nan], multiple * atr(high, low, close, atr_period)]).tolist()
    # A swing down is a swing up of the negated prices, so one loop serves both.
    sides = {HIGH: (high.tolist(), close.tolist()), LOW: ((-low).tolist(), (-close).tolist())}
    found: list[tuple[int, int, float, int]] = []
    if opening := _first_turn(sides, reach):
        start, kind = opening
        tops, closes = sides[kind]
        top, at = _highest(tops, 0, start)
        for bar in range(start, close.size):
            if tops[bar] > top:
                top, at = tops[bar], bar
            elif top - closes[bar] > reach[bar]:
                found.append((at, bar, kind * top, kind))
                kind = -kind
                tops, closes = sides[kind]
                top, at = _highest(tops, at + 1, bar + 1)
    return Pivots(
        at=np.array([point[0] for point in found], dtype=np.int64),
        known_at=np.array([point[1] for point in found], dtype=np.int64),
        price=np.array([point[2] for point in found], dtype=np.float64),
        kind=np.array([point[3] for point in found], dtype=np.int8),
    )


def _first_turn(sides: _Sides, reach: list[float]) -> tuple[int, int] | None:
    """Return the bar at which the first pivot becomes known, and its kind; None when that never happens."""
    (highs, closes), (lows, _) = sides[HIGH], sides[LOW]
    top = bottom = -np.inf  # `lows` and `bottom` are negated
    for bar, (high, low, close) in enumerate(zip(highs, lows, closes, strict=True)):
        fall = top - close if high <= top else 0.0
        rise = bottom + close if low <= bottom else 0.0
        top, bottom = max(top, high), max(bottom, low)
        if fall != rise and max(fall, rise) > reach[bar]:
            return bar, HIGH if fall > rise else LOW
    return None


def _highest(tops: list[float], start: int, end: int) -> tuple[float, int]:
    """Return the highest of tops[start:end], of which there is at least one, and the first bar that has it."""
    top = max(tops[start:end])
    return top, tops.index(top, start, end)

"""Bars -> the numbers and words along a chart's axes: date ticks, fitted ranges, prices and values as text. Pure.

Positions count bars from the oldest, 0; ranges are of positions, prices in currency, volume in shares.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

WINDOW = 160
"""Bars in view at first: eight months of days, three years of weeks, thirteen years of months."""

LEAST = 40
"""Bars the window has room for at least."""

# Calendar periods for tick labels, shortest first: the months they last, or their name, and the label of a tick.
STEPS: tuple[tuple[int | str, str], ...] = (
    ("day", "%m-%d"),
    ("week", "%m-%d"),
    (1, "%Y-%m"),
    (3, "%Y-%m"),
    (6, "%Y-%m"),
    (12, "%Y"),
    (24, "%Y"),
    (60, "%Y"),
    (120, "%Y"),
)
MAX_TICKS = 9


def price_text(price: float, currency: str) -> str:
    """Write a price as its market does: won whole, other currencies to the cent; a missing one as an en dash."""
    if not np.isfinite(price):
        return "–"
    return f"{price:,.0f}" if currency == "KRW" else f"{price:,.2f}"


def value_text(value: float, currency: str) -> str:
    """Write a traded value short: won in 조 (10^12), 억 (10^8) and 만 (10^4), other currencies in B, M and K."""
    if not np.isfinite(value):
        return "–"
    units = (
        ((1e12, "조", 2), (1e8, "억", 0), (1e4, "만", 0))
        if currency == "KRW"
        else ((1e9, "B", 2), (1e6, "M", 1), (1e3, "K", 0))
    )
    for size, unit, decimals in units:
        # 99,995,000 won is 1억 and not 10,000만: the unit is chosen after rounding.
        if round(abs(value) / size, decimals) >= 1:
            return f"{value / size:,.{decimals}f}{unit}"
    return f"{value:,.0f}"


def change_text(percent: float) -> str:
    """Write a change in percent with its sign; a missing one as an en dash."""
    return f"{percent:+.2f}%" if np.isfinite(percent) else "–"


def date_ticks(ts: pd.DatetimeIndex, first: int, last: int) -> tuple[list[int], list[str]]:
    """Choose tick positions and labels for the bars `first`..`last` (both included, cut to what there is).

    A tick stands at the first bar of a calendar period; the period is the shortest that gives at most MAX_TICKS. Among
    days and weeks the first of a year names the year too.
    """
    first, last = max(0, first), min(len(ts) - 1, last)
    if last < first:
        return [], []
    opens, label = np.array([], dtype=np.int64), ""
    for step, written in STEPS:
        opens, label = _openings(ts, first, last, step), written
        if len(opens) <= MAX_TICKS:
            break
    labels, year = [], None
    for bar in ts[opens]:
        labels.append(bar.strftime("%Y-%m-%d" if label == "%m-%d" and bar.year != year else label))
        year = bar.year
    return opens.tolist(), labels


def _openings(ts: pd.DatetimeIndex, first: int, last: int, step: int | str) -> NDArray[np.int64]:
    """Return the bars that open a period; the bar before the window tells whether its first one does."""
    before = max(0, first - 1)
    opens = np.flatnonzero(np.diff(_period(ts[before : last + 1], step))) + 1 + before
    # The oldest bar of all opens its period as far as we know; it gets a tick where there is room for it.
    if first == 0 and (not len(opens) or opens[0] > (last + 1) / MAX_TICKS / 2):
        opens = np.concatenate([[0], opens])
    return opens


def _period(ts: pd.DatetimeIndex, step: int | str) -> NDArray[np.int64]:
    """Number the calendar period of each bar, so that a change of number opens a period."""
    if step == "day":
        return np.arange(len(ts))
    if step == "week":
        iso = ts.isocalendar()
        return np.asarray(iso["year"] * 100 + iso["week"], dtype=np.int64)
    months = np.asarray(ts.year, dtype=np.int64) * 12 + np.asarray(ts.month, dtype=np.int64) - 1
    return np.asarray(months // int(step))


def price_range(candles: pd.DataFrame, first: int, last: int) -> tuple[float, float]:
    """Return the price axis that shows the bars `first`..`last` with a little air above and below."""
    shown = candles.iloc[max(0, first) : last + 1]
    low, high = float(shown["low"].min()), float(shown["high"].max())
    if not np.isfinite(low):
        return 0.0, 1.0
    air = (high - low or abs(high) or 1.0) * 0.06
    return low - air, high + air


def volume_range(candles: pd.DataFrame, first: int, last: int) -> tuple[float, float]:
    """Return the volume axis that shows the bars `first`..`last`."""
    highest = float(candles["volume"].iloc[max(0, first) : last + 1].max())
    return 0.0, highest * 1.08 if highest > 0 else 1.0


def view(candles: pd.DataFrame, first: float, last: float) -> dict[str, Any]:
    """Return the axes for a window of bar positions: ranges, y fitted to the bars in it, and date labels."""
    from_bar, to_bar = max(0, int(np.ceil(first))), min(len(candles) - 1, int(np.floor(last)))
    positions, labels = date_ticks(pd.DatetimeIndex(candles.index), from_bar, to_bar)
    return {
        "xaxis": {"range": [first, last], "tickvals": positions, "ticktext": labels},
        "yaxis": {"range": list(price_range(candles, from_bar, to_bar))},
        "yaxis2": {"range": list(volume_range(candles, from_bar, to_bar))},
    }


def first_window(candles: pd.DataFrame) -> tuple[float, float]:
    """Return the window of the newest WINDOW bars, with a little room on the right for what comes next."""
    last = len(candles) - 1
    # A young stock has few bars: they keep a candle's shape, and the room before them stays empty.
    first = last - max(LEAST, min(WINDOW, len(candles))) + 1
    return first - 0.8, last + max(1.5, 0.02 * (last - first))


def first_view(candles: pd.DataFrame) -> dict[str, Any]:
    """Return the axes for the first window."""
    return view(candles, *first_window(candles))


def around(first: float, last: float, n: int) -> range:
    """Return the bars to draw for a window: those in it, and as many on either side, so that it can be dragged."""
    room = max(last - first, 1.0)
    return range(max(0, int(first - room)), max(0, min(n, int(last + room) + 2)))

"""Stored bars that break a rule and may be real all the same. Pure: no database, network, file, clock.

KRX lets no price move further than a limit from the last close, so a move beyond it is an event that nobody told of, or an
error; a few are allowed, and are told apart. What is found is a finding, and never a reason to drop a bar: on re-listing
and liquidation days real prices look exactly like errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FINDING = ["instrument_id", "ts", "rule", "detail", "state"]
"""Columns of a frame of findings: `state` is open, or explained where something else that is known allows the bar."""

LIMITS = ((np.datetime64("1900-01-01"), 0.15), (np.datetime64("2015-06-15"), 0.30))
"""KRX's daily price limit and from when on it held. Before 1998-12-07 it was narrower: less is found there, and nothing wrongly."""
ROUNDED, ROUNDED_SHARE, ROUNDED_RANGE = 1.5, 1e-3, 1e-2
"""A source that adjusts prices rounds them: so many units, or this share of the price, may a close lie beyond the limit for
that reason; and this share a high or low, which such sources truncate more roughly (see `normalise.WIDEST`)."""
SCALE = 10.0
"""A price this many times the one before it, or this part of it, is on another scale."""
LONE_SCALE, SAME_SCALE = 20.0, 2.0
"""A bar is alone on another scale where its close is this many times, or this part of, those of the bars before and after, which
lie within the second ratio of one another and of the bars about them. No market moves so and back within a day."""
LIQUIDATION_DAYS = 10
"""After a fall beyond the limit an instrument may be in liquidation trading, of seven days without a limit."""
LIQUIDATION_FALL = 0.5


class Bars(NamedTuple):
    """Final bars of several instruments, sorted by instrument and time, events undone: equally long arrays.

    after_market: whether the close is the last price of the after-market; None: of no bar. The official close, from which the
    next day's limit is counted, then lies somewhere between that bar's low and high.
    """

    instrument_id: NDArray[np.int64]
    day: NDArray[np.datetime64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    after_market: Mask | None = None


def findings(
    bars: Bars, days: NDArray[np.datetime64], events: pd.DataFrame, *, limited: bool, unit: float
) -> pd.DataFrame:
    """Return what breaks a rule: columns FINDING, ascending in instrument and time.

    Args:
        days: the market's trading days, ascending; a bar of a day between them is a finding, of one before or after not.
        events: instrument_id, ex_date (datetime64): corporate actions that `bars` are adjusted for.
        limited: whether the market has a daily price limit (KRX).
        unit: smallest step of prices.
    """
    n = len(bars.close)
    if not n:
        return _frame([])
    before = np.arange(n) - 1
    first = np.append(True, bars.instrument_id[1:] != bars.instrument_id[:-1])
    before[first] = np.flatnonzero(first)  # compared with itself, a first bar does not move
    place = np.searchsorted(days, bars.day)
    closed = (days[np.minimum(place, len(days) - 1)] != bars.day) & (bars.day >= days[0]) & (bars.day <= days[-1])
    resumed = ~first & (place - place[before] > 1)
    previous, ratio = bars.close[before], bars.close / bars.close[before]
    on_event = pd.MultiIndex.from_arrays([bars.instrument_id, bars.day]).isin(
        pd.MultiIndex.from_arrays([events["instrument_id"], events["ex_date"].to_numpy("datetime64[D]")])
    )

    scale = ~first & ((ratio >= SCALE) | (ratio <= 1 / SCALE))
    lone = _alone(bars)
    back = np.append(False, lone[:-1])  # the bar after a lone one, which is on the right scale

    def scaled(at: int) -> str:
        return f"close {ratio[at]:.6g} times that of {bars.day[before[at]]}"

    found = [
        _some(bars, closed, "closed_day", "open", lambda at: f"the market is closed on {bars.day[at]}"),
        _some(bars, scale & ~lone & ~back, "scale_break", "open", scaled),
        _some(bars, lone, "lone_scale", "open", lambda at: f"{scaled(at)}, and the bars after it are as those before"),
        _some(bars, (bars.volume == 0) & (bars.high > bars.low), "volume_lost", "open",
              lambda at: f"no volume, and prices from {bars.low[at]:g} to {bars.high[at]:g}"),
    ]  # fmt: skip
    if limited:
        limit = np.select(
            [bars.day >= since for since, _ in reversed(LIMITS)], [share for _, share in reversed(LIMITS)]
        )
        unsure = np.zeros(n, dtype=bool) if bars.after_market is None else bars.after_market[before]
        most = (1 + limit) * np.where(unsure, bars.high[before], previous)
        least = (1 - limit) * np.where(unsure, bars.low[before], previous)
        excess = np.maximum(bars.close - most, least - bars.close)
        beyond = ~first & ~scale & (excess > 1e-9 * previous)
        winding_up = _after_a_fall(first, np.where(lone | back, 1.0, ratio))
        reasons = [
            (resumed, "after days without trade"),
            (on_event, "on the ex-day of an event"),
            (winding_up, "after a fall as of liquidation trading"),
            (excess <= np.maximum(ROUNDED * unit, ROUNDED_SHARE * previous), "by no more than rounding"),
        ]
        why = np.select([mask for mask, _ in reasons], range(len(reasons)), default=-1)

        def told(at: int) -> str:
            says = f"close {ratio[at] - 1:+.2%} from {bars.day[before[at]]}"
            return says + (f", {reasons[why[at]][1]}" if why[at] >= 0 else "")

        found += [
            _some(bars, beyond & (why < 0), "beyond_limit", "open", told),
            _some(bars, beyond & (why >= 0), "beyond_limit", "explained", told),
        ]
        wide = np.maximum(bars.high - most, least - bars.low)
        stray = ~first & ~scale & ~beyond & (wide > np.maximum(ROUNDED * unit, ROUNDED_RANGE * previous))

        def strays(at: int) -> str:
            return f"{bars.low[at]:g} to {bars.high[at]:g} after a close of {previous[at]:g}"

        excused = resumed | on_event | winding_up
        found += [
            _some(bars, stray & ~excused, "range_beyond_limit", "open", strays),
            _some(bars, stray & excused, "range_beyond_limit", "explained", strays),
        ]
    return _frame(found)


def _after_a_fall(first: Mask, ratio: Floats) -> Mask:
    """Return the bars that follow, within LIQUIDATION_DAYS bars of the same instrument, one that fell by more than half."""
    position = np.arange(len(ratio))
    start = np.maximum.accumulate(np.where(first, position, 0))
    fell = np.where(ratio < 1 - LIQUIDATION_FALL, position, -1)
    newest = np.append(-1, np.maximum.accumulate(fell)[:-1])  # of the bars before
    return np.asarray((newest >= start) & (position - newest <= LIQUIDATION_DAYS))


def _alone(bars: Bars) -> Mask:
    """Return the bars that are alone on another scale, as LONE_SCALE says. Where scales alternate, nothing tells which is the
    right one, and none is returned; nor is a bar that has less than three others about it, on both sides."""
    position = np.arange(len(bars.close))

    def there(offset: int) -> tuple[Floats, Mask]:
        at = position + offset
        inside = (at >= 0) & (at < len(position))
        at = np.where(inside, at, 0)
        return bars.close[at], inside & (bars.instrument_id[at] == bars.instrument_id)

    (before, has_before), (after, has_after) = there(-1), there(1)
    most, least = np.maximum(before, after), np.minimum(before, after)
    agree = has_before & has_after & (most <= SAME_SCALE * least)
    company = np.zeros(len(position), dtype=bool)
    for other, exists in (there(-2), there(2)):
        same = (other <= SAME_SCALE * most) & (least <= SAME_SCALE * other)
        agree &= same | ~exists
        company |= exists
    return np.asarray(agree & company & ((bars.close >= LONE_SCALE * most) | (bars.close <= least / LONE_SCALE)))


def _some(bars: Bars, mask: Mask, rule: str, state: str, detail: Callable[[int], str]) -> pd.DataFrame:
    at = np.flatnonzero(mask)
    return pd.DataFrame(
        {
            "instrument_id": bars.instrument_id[at],
            "ts": pd.DatetimeIndex(bars.day[at].astype("datetime64[us]")).tz_localize("UTC"),
            "rule": rule,
            "detail": [detail(int(one)) for one in at],
            "state": state,
        }
    )


def _frame(found: list[pd.DataFrame]) -> pd.DataFrame:
    found = [frame for frame in found if len(frame)]
    if not found:
        kinds = {"instrument_id": "int64", "ts": "datetime64[us, UTC]", "rule": "str", "detail": "str", "state": "str"}
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    return pd.concat(found, ignore_index=True).sort_values(["instrument_id", "ts", "rule"], ignore_index=True)

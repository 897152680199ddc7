"""One day's bar -> the one-minute bars that add up to it, to the share and to the won. Pure and deterministic.

The path is a random bridge from the open to the close that is bent to touch the day's high and low; volume is high at the open
and at the close; the value is met by letting a little more volume trade at the dearer or the cheaper minutes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from chartinsight_lib.simulator.model import DailyBars, Days, Ints, MinuteBars, Session, empty_minutes
from chartinsight_lib.simulator.prices import Floats, Grid, frozen

_TRADE_WON = 2_500_000
"""The size of an average trade: it says in how many minutes nothing trades."""
_SHARES = 3
"""Shares a minute at least, on the average: a few must be free to go where the day's value wants them."""
_TILTS = np.array([-8, -4, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, 4, 8])


class Day(NamedTuple):
    """One row of `DailyBars`."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    after_close: int
    after_high: int
    after_low: int
    after_volume: int
    after_value: int


def day_of(bars: DailyBars, row: int) -> Day:
    """Return the row of a day."""
    return Day(*(int(getattr(bars, name)[row]) for name in Day._fields))


def minute_bars(day: Day, session: Session, rng: np.random.Generator, grid: Grid, *, quiet: bool = True) -> MinuteBars:
    """Return the minutes of a day; none when nothing traded.

    Args:
        grid: on which the path moves; the day's own prices are taken as they are.
        quiet: minutes without a trade are left out, the more the less is traded; False: every minute has a bar.
    """
    if day.volume <= 0:
        return empty_minutes()
    parts = [_regular(day, session, rng, grid, quiet)]
    if day.after_volume > 0 and session.after_opens is not None and session.after_closes is not None:
        parts.append(_after(day, session.after_opens, session.after_closes, session.closes, rng, grid, quiet))
    start = np.concatenate([start for start, _ in parts])
    columns = (frozen(np.concatenate(pieces)) for pieces in zip(*(numbers for _, numbers in parts), strict=True))
    return MinuteBars(frozen(start), *columns)


def index_minutes(day: Day, session: Session, rng: np.random.Generator, grid: Grid) -> MinuteBars:
    """Return the minutes of an index, whose value is not its price times its volume: value goes with volume."""
    like_shares = day._replace(value=day.volume * (day.open + day.high + day.low + day.close) // 4, after_volume=0)
    bars = minute_bars(like_shares, session, rng, grid, quiet=False)
    due = np.rint(np.cumsum(bars.volume) / max(day.volume, 1) * day.value).astype(np.int64)
    return replace(bars, value=frozen(np.diff(due, prepend=0)))


_Prices = tuple[Ints, Ints, Ints, Ints]
_Part = tuple[Days, tuple[Ints, Ints, Ints, Ints, Ints, Ints]]


def _regular(day: Day, session: Session, rng: np.random.Generator, grid: Grid, quiet: bool) -> _Part:
    minutes = int((session.auction - session.opens) / timedelta(minutes=1))
    x = np.arange(minutes) / minutes
    shape = 0.55 + 2.2 * np.exp(-x / 0.07) + 0.9 * np.exp((x - 1) / 0.07)
    shape /= shape.sum()
    opening, closing = 0.035 * np.exp(0.4 * rng.standard_normal()), 0.065 * np.exp(0.4 * rng.standard_normal())
    weight = shape * np.exp(0.5 * rng.standard_normal(minutes))
    traded = _traded(shape, (day.volume + 1) // _SHARES, day.value, rng, quiet)
    weight[0] += opening * weight.sum()
    weight = np.append(weight[traded], closing * weight.sum())
    at = np.append(traded, int((session.closes - session.opens) / timedelta(minutes=1)))
    walked = _walk(day.open, day.close, day.low, day.high, len(traded), rng, grid)
    # The closing auction is one price.
    o, h, low, c = (np.append(column, day.close) for column in walked)
    if not len(traded):
        o[0], h[0], low[0] = day.open, day.high, day.low
    return _start(session.opens, at), (o, h, low, c, *_spread(day.volume, day.value, weight, (o, h, low, c)))


def _after(
    day: Day,
    opens: datetime,
    closes: datetime,
    auction: datetime,
    rng: np.random.Generator,
    grid: Grid,
    quiet: bool,
) -> _Part:
    # Where the closing auction prints in the minute in which the after-market opens, that minute's bar is the auction's.
    opens = max(opens, auction + timedelta(minutes=1))
    minutes = int((closes - opens) / timedelta(minutes=1))
    x = np.arange(minutes) / minutes
    shape = 0.6 + 2.0 * np.exp(-x / 0.08)
    weight = shape * np.exp(0.7 * rng.standard_normal(minutes))
    traded = _traded(shape / shape.sum(), max(day.after_volume // _SHARES, 1), day.after_value, rng, quiet)
    # `after_high` and `after_low` hold the regular session too: they bind where they reach beyond it.
    top, bottom = max(day.close, day.after_close), min(day.close, day.after_close)
    reach = (top - bottom) // 2 + 2 * int(grid.tick(np.array([day.close]))[0])
    high = day.after_high if day.after_high > day.high else min(int(grid.floor(np.array([top + reach]))[0]), day.high)
    low = day.after_low if day.after_low < day.low else max(int(grid.ceil(np.array([bottom - reach]))[0]), day.low)
    o, h, lows, c = _walk(day.close, day.after_close, low, high, len(traded), rng, grid)
    c[-1] = day.after_close
    h[-1], lows[-1] = max(h[-1], c[-1]), min(lows[-1], c[-1])
    bars = (o, h, lows, c)
    return _start(opens, traded), (*bars, *_spread(day.after_volume, day.after_value, weight[traded], bars))


def _start(opens: datetime, minutes: Ints) -> Days:
    start: Days = np.datetime64(opens.replace(tzinfo=None), "m") + minutes.astype("timedelta64[m]")
    return start


def _traded(shape: Floats, most: int, value: int, rng: np.random.Generator, quiet: bool) -> Ints:
    """Return the numbers of the minutes in which something trades: `most` at most, and one at least if that allows."""
    chance = 1 - np.exp(-shape * max(value / _TRADE_WON, 1.0)) if quiet else np.ones(len(shape))
    drawn = rng.random(len(shape))
    found: Ints = np.flatnonzero(drawn < chance)
    if not len(found):
        found = np.array([int(np.argmin(drawn))])
    return found[np.linspace(0, len(found) - 1, most).astype(np.int64)] if most < len(found) else found


def _walk(first: int, last: int, low: int, high: int, count: int, rng: np.random.Generator, grid: Grid) -> _Prices:
    """Return open, high, low and close of `count` bars from `first` towards `last` that touch `low` and `high`."""
    noise = rng.standard_normal(count + 1)
    shifts, wicks = rng.integers(-2, 3, count), rng.random((2, count))
    if not count:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing, nothing
    part = np.arange(1, count + 2) / (count + 1)
    bridge = np.cumsum(noise * (1.0 + np.exp(-8 * part)))
    bridge -= part * bridge[-1]
    swing = float(np.ptp(bridge)) or 1.0
    path = first + (last - first) * part + bridge * (0.8 * (high - low) / swing)
    top, bottom = max(first, last), min(first, last)
    if (peak := float(path.max())) > top:
        path = np.where(path > top, top + (path - top) * ((high - top) / (peak - top)), path)
    if (trough := float(path.min())) < bottom:
        path = np.where(path < bottom, bottom - (bottom - path) * ((bottom - low) / (bottom - trough)), path)
    c = np.clip(grid.nearest(path[:count]), low, high)
    o = np.empty_like(c)
    o[0] = first
    # The next minute's first trade is at the last one's price or a tick beside it, when bid and ask take turns.
    o[1:] = np.clip(c[:-1] + grid.tick(c[:-1]) * np.trunc(shifts[1:] / 2).astype(np.int64), low, high)
    usual = 0.5 * (high - low) / np.sqrt(count)
    top_of, bottom_of = np.maximum(o, c), np.minimum(o, c)
    h = np.maximum(np.minimum(grid.floor(top_of + usual * wicks[0] ** 2), high), top_of)
    lows = np.minimum(np.maximum(grid.ceil(bottom_of - usual * wicks[1] ** 2), low), bottom_of)
    h[np.argmax(h)], lows[np.argmin(lows)] = high, low
    return o, h, lows, c


def _spread(volume: int, value: int, weight: Floats, prices: _Prices) -> tuple[Ints, Ints]:
    """Distribute a day's volume and value over its bars: at least a share each, values between a bar's low and high."""
    o, h, low, c = prices
    typical = np.clip(np.rint((o + h + low + 2 * c) / 5).astype(np.int64), low, h)
    free = volume - len(weight)  # what is left when every bar has a share
    if free > 0:
        weight = weight * np.exp(_tilt(typical, weight, (value - int(typical.sum())) / free))
    # Rounding the running sum keeps the total exact, and every bar within a share of its due.
    due = np.rint(np.cumsum(weight / weight.sum()) * free).astype(np.int64)
    due[-1] = free
    volumes = np.diff(due, prepend=0) + 1
    values = volumes * typical
    rest = value - int(values.sum())
    sign, rest = (1, rest) if rest > 0 else (-1, -rest)
    room = volumes * (h - typical if sign > 0 else typical - low)
    if (whole := int(room.sum())) < rest:
        # A recorded value that the day's own prices do not give: all minutes share what is over.
        return volumes, values + sign * (room + _shared(rest - whole, volumes))
    return volumes, values + sign * _shared(rest, room) if rest else values


def _shared(total: int, weight: Ints) -> Ints:
    """Divide a number in proportion, to whole numbers that add up to it; a weight of 0 gets nothing."""
    # Rounding up from a half, not to even: then no share exceeds its weight when the total does not.
    due = np.floor(np.cumsum(weight) * (total / int(weight.sum())) + 0.5).astype(np.int64)
    due[np.flatnonzero(weight)[-1] :] = total
    return np.asarray(np.diff(due, prepend=0), np.int64)


def _tilt(typical: Ints, weight: Floats, wanted: float) -> Floats:
    """Return logarithms by which to weigh bars so that their average price becomes `wanted`, or comes near it."""
    centre, width = float(typical.mean()), float(typical.std())
    if width == 0:
        return np.zeros(len(typical))
    x = np.asarray((typical - centre) / width, np.float64)
    goal = (wanted - centre) / width
    # The average rises with the tilt: read it off a few tilts, then step once by Newton's method.
    means = np.array([_moments(x, weight, tilt)[0] for tilt in _TILTS])
    tilt = float(np.interp(goal, means, _TILTS))
    mean, variance = _moments(x, weight, tilt)
    if means[0] < goal < means[-1] and variance > 1e-6:
        tilt += float(np.clip((goal - mean) / variance, -0.5, 0.5))
    return np.asarray(tilt * x)


def _moments(x: Floats, weight: Floats, tilt: float) -> tuple[float, float]:
    tilted = weight * np.exp(tilt * x)
    tilted /= tilted.sum()
    mean = float(tilted @ x)
    return mean, float(tilted @ x**2) - mean**2

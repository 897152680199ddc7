"""An invented instrument's fate -> its days. Pure; arrays over the whole calendar or the instrument's life on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chartinsight_lib.simulator.model import DailyBars, Event, Ints
from chartinsight_lib.simulator.names import SECTORS, WHOLE
from chartinsight_lib.simulator.prices import (
    Floats,
    Grid,
    extremes,
    generator,
    grid_of,
    persistent,
    unsteady,
)
from chartinsight_lib.simulator.universe import Plan, calendar

_LOWEST = 100.0
"""Won; nothing is cheaper."""
_MOST = (np.log(0.7002), np.log(1.2998))
_FIRST_DAY_SINCE = np.datetime64("2023-06-26")
"""Since then a new share may open and trade between 60 and 400 % of its offering price."""
_FIRST_DAY, _FIRST_DAY_BEFORE = (np.log(0.6), np.log(4.0)), (np.log(0.63), np.log(2.6))


@dataclass(frozen=True, slots=True)
class Factors:
    """What moves many at once: log returns per day of the calendar, {code of an index or sector: return}."""

    returns: dict[str, Floats]
    deviation: Floats
    """Of the market, relative to its average: calm below 1, unrest above."""


class Life(NamedTuple):
    """What is known of an instrument's days from its first to its last."""

    bars: DailyBars
    events: tuple[Event, ...]


def factors(seed: int) -> Factors:
    """Return the market's, the boards' and the sectors' returns.

    A sector's return holds its board's; the market reverts slowly to a slope of 4 % a year, sectors to their board.
    """
    count = len(calendar())
    shocks, deviation = unsteady(generator(seed, "market"), count, tails=4.0)
    returns = {"001": _reverting(np.clip(0.0095 * shocks, -0.09, 0.09), 0.9993) + 0.04 / 250}
    for code in ("101", "002", "003", "004", "150", "201"):
        base, size = ("101", 0.002) if code == "150" else ("001", 0.007 if code == "101" else 0.002)
        own, _ = unsteady(generator(seed, "market", code), count)
        returns[code] = returns[base] + _reverting(size * own, 0.999)
    for sector in SECTORS:
        if sector.code not in WHOLE:
            own, _ = unsteady(generator(seed, "sector", sector.code), count)
            board = returns["001" if sector.board == "KOSPI" else "101"]
            returns[sector.code] = board + _reverting(0.008 * own, 0.999)
    return Factors(returns, deviation)


def _reverting(shocks: Floats, keep: float) -> Floats:
    return np.diff(persistent(shocks, keep), prepend=0.0)


def live(plan: Plan, moves: Factors, seed: int) -> Life:
    """Return all days of an instrument and its corporate actions."""
    code, life, count = plan.listing.code, slice(plan.first, plan.last), plan.last - plan.first
    grid = grid_of(plan.listing.kind)
    rng = generator(seed, code, "returns")
    own, calm = unsteady(rng, count)
    unrest = calm * np.sqrt(moves.deviation[life])
    common = moves.returns[plan.listing.sector or "001"][life] * plan.beta
    jumps = (rng.random(count) < 0.003) * rng.standard_normal(count) * 4
    idle = plan.deviation * (own * np.sqrt(moves.deviation[life]) + jumps)
    returns = np.clip(common + _reverting(idle, 0.9985), *_MOST)
    if plan.listing.delisted_on is not None and plan.listing.kind == "stock":
        returns[-120:] = np.clip(returns[-120:] - 0.006, *_MOST)
    halted = np.zeros(count, bool)
    for first, last in plan.halts:
        halted[first - plan.first : last - plan.first] = True
    returns[halted] = 0.0
    ratio = np.ones(count)
    for action in plan.actions:
        ratio[action.day - plan.first] = action.ratio
    if plan.born:
        returns[0] = _first_return(rng, plan)
    way = np.cumsum(returns)
    path = np.maximum(plan.level * np.exp(way - way.mean()) * np.cumprod(ratio), _LOWEST)
    offer = int(grid.nearest(path[:1] / np.exp(returns[:1]))[0])
    close, base, lowest, highest = _closes(path, offer, ratio, halted, grid)
    if plan.born:
        bounds = _first_bounds(plan)
        lowest[0], highest[0] = grid.ceil(np.exp(bounds[0]) * base[:1])[0], grid.floor(np.exp(bounds[1]) * base[:1])[0]
        close[0] = np.clip(close[0], lowest[0], highest[0])
    spread = np.hypot(plan.deviation * unrest, 0.01 * abs(plan.beta) * moves.deviation[life])
    bars = _bars(plan, _Frame(close, base, lowest, highest, spread, halted, ratio), grid, seed)
    days = calendar()[life]
    events = tuple(
        Event(days[at].item(), int(base[at]), int(close[at - 1]), action.kind)
        for action in plan.actions
        if (at := action.day - plan.first) > 0
    )
    return Life(bars, events)


def _first_bounds(plan: Plan) -> tuple[float, float]:
    if plan.listing.kind != "stock":
        return _MOST
    return _FIRST_DAY if calendar()[plan.first] >= _FIRST_DAY_SINCE else _FIRST_DAY_BEFORE


def _first_return(rng: np.random.Generator, plan: Plan) -> float:
    """Return the log return of a first day on the offering price: new shares are popular."""
    drawn, (least, most) = rng.standard_normal(), _first_bounds(plan)
    if plan.listing.kind != "stock":
        return float(0.01 * drawn)
    return float(np.clip(0.3 + 0.5 * drawn, least + 0.002, most - 0.002))


def _closes(
    path: Floats, offer: int, ratio: Floats, halted: np.ndarray[tuple[int], np.dtype[np.bool_]], grid: Grid
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return closes on the grid, and of each day its base price, lowest and highest price.

    Rounding can carry a close that is at a limit a tick beyond it. Bringing it back moves the next day's base, so this is
    repeated until nothing moves; the first day holds at once, each round holds a day more at least.
    """
    traded = np.maximum.accumulate(np.where(halted, 0, np.arange(len(path))))
    close = grid.nearest(path)
    action = ratio != 1.0
    for _ in range(len(path) + 1):
        close = close[traded]
        before = np.concatenate(([offer], close[:-1]))
        # KRX rounds the base price after an action up: 558,000 won split by five gave 112,000.
        base = np.where(action, grid.ceil(before * ratio), before)
        lowest, highest = grid.limits(base)
        fixed = np.clip(close, lowest, highest)
        fixed[0] = close[0]  # the first day has bounds of its own
        if np.array_equal(fixed, close):
            break
        close = fixed
    return close, base, lowest, highest


class _Frame(NamedTuple):
    close: Ints
    base: Ints
    lowest: Ints
    highest: Ints
    spread: Floats
    """Standard deviation of the day's log return."""
    halted: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ratio: Floats


def _bars(plan: Plan, frame: _Frame, grid: Grid, seed: int) -> DailyBars:
    close, base, lowest, highest, spread, halted, ratio = frame
    count, code = len(close), plan.listing.code
    rng = generator(seed, code, "bars")
    log_base = np.log(base)
    move = np.log(close) - log_base
    after = _after_moves(generator(seed, code, "after"), spread)
    gap = 0.15 * move + 0.38 * spread * rng.standard_t(6, count)
    gap[1:] += 0.6 * after[:-1]  # what happened after hours is known in the morning
    o = np.clip(grid.nearest(np.exp(log_base + gap)), lowest, highest)
    up, down = extremes(rng, np.log(close / o), 0.88 * spread)
    h = np.clip(grid.nearest(o * np.exp(up)), np.maximum(o, close), highest)
    low = np.clip(grid.nearest(o * np.exp(down)), lowest, np.minimum(o, close))
    o, h, low = (np.where(halted, close, column) for column in (o, h, low))
    shares = _shares(plan, ratio)
    volume = _volume(generator(seed, code, "volume"), plan, shares, move / spread)
    if plan.born and plan.listing.kind == "stock":
        volume[:5] *= np.array([20, 8, 5, 3, 2])[:count]  # everybody wants to have had some
    volume = np.where(halted, 0, volume)
    value = _value(rng, o, h, low, close, volume)
    session = (close, h, low, lowest, highest)
    evening = _evening(generator(seed, code, "evening"), session, np.where(halted, 0, volume), after, spread, grid)
    return DailyBars(calendar()[plan.first : plan.last], o, h, low, close, volume, value, halted, *evening)


def _shares(plan: Plan, ratio: Floats) -> Floats:
    found = np.full(len(ratio), float(plan.listing.shares[0][1]))
    for action, (_, count) in zip(plan.actions, plan.listing.shares[1:], strict=True):
        found[action.day - plan.first :] = count
    return found


def _volume(rng: np.random.Generator, plan: Plan, shares: Floats, surprise: Floats) -> Ints:
    """Return shares traded: log-normal, persistent, more on days that move."""
    count = len(shares)
    mood = persistent(0.12 * rng.standard_normal(count), 0.97)
    excess = np.minimum(np.abs(surprise), 6.0) - 0.8
    drawn = shares * plan.turnover * np.exp(mood + 0.5 * rng.standard_normal(count) + 0.45 * excess)
    # Ten shares at least: enough to print an open, a high, a low and a close.
    return np.clip(np.rint(drawn), 10, 0.8 * shares).astype(np.int64)


def _value(rng: np.random.Generator, o: Ints, h: Ints, low: Ints, close: Ints, volume: Ints) -> Ints:
    """Return the day's value: its average price lies between the low and the high, the nearer to the close the better."""
    lean = rng.uniform(0.15, 0.35, len(o))
    price = lean * o + 0.35 * close + (0.65 - lean) * (h + low) / 2
    return np.clip(np.rint(volume * price).astype(np.int64), volume * low, volume * h)


def _after_moves(rng: np.random.Generator, spread: Floats) -> Floats:
    """Return log moves of the after-market, before rounding: small as a rule, with very fat tails."""
    return np.clip(0.16 * spread * rng.standard_t(2.5, len(spread)), -0.25, 0.25)


def _evening(
    rng: np.random.Generator, session: tuple[Ints, ...], volume: Ints, after: Floats, spread: Floats, grid: Grid
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return close, high, low, volume and value of the after-market; high and low hold the regular session's."""
    close, h, low, lowest, highest = session
    traded = (rng.random(len(close)) < 0.92) & (volume >= 100)
    share = 0.05 * np.exp(0.8 * rng.standard_normal(len(close)) + np.minimum(8 * np.abs(after) / spread, 2.0) * 0.3)
    late_volume = np.where(traded, np.maximum(np.rint(volume * np.minimum(share, 0.5)), 5), 0).astype(np.int64)
    late = np.where(traded, np.clip(grid.nearest(close * np.exp(after)), lowest, highest), close)
    up, down = extremes(rng, np.log(late / close), 0.12 * spread)
    top = np.clip(grid.nearest(close * np.exp(up)), np.maximum(close, late), highest)
    bottom = np.clip(grid.nearest(close * np.exp(down)), lowest, np.minimum(close, late))
    price = (close + late) / 2
    value = np.clip(np.rint(late_volume * price).astype(np.int64), late_volume * bottom, late_volume * top)
    late_high, late_low = np.where(traded, np.maximum(h, top), h), np.where(traded, np.minimum(low, bottom), low)
    return late, late_high, late_low, late_volume, value


def index_bars(code: str, moves: Factors, seed: int) -> DailyBars:
    """Return the days of an index or sector: points times 100, volume in thousand shares, value in won.

    The index is the factor itself, not an average of the instruments: those with a beta of 1 follow it on the average.
    """
    returns = moves.returns[code]
    count, rng = len(returns), generator(seed, "index", code)
    way = np.cumsum(returns)
    points = (250_000 if code < "100" or code == "201" else 80_000) * np.exp(way - way.mean())
    if code == "201":
        points /= 7
    spread = 0.01 * moves.deviation
    close = np.rint(points).astype(np.int64)
    before = np.concatenate((np.rint(points[:1] / np.exp(returns[:1])), close[:-1]))
    o = np.rint(before * np.exp(0.2 * returns + 0.25 * spread * rng.standard_normal(count))).astype(np.int64)
    up, down = extremes(rng, np.log(close / o), 0.7 * spread)
    h = np.maximum(np.rint(o * np.exp(up)).astype(np.int64), np.maximum(o, close))
    low = np.minimum(np.rint(o * np.exp(down)).astype(np.int64), np.minimum(o, close))
    size = 1.0 if code in {"001", "101"} else 0.07
    drawn = (
        500_000 * size * np.exp(persistent(0.1 * rng.standard_normal(count), 0.95) + 0.15 * rng.standard_normal(count))
    )
    volume = np.rint(drawn).astype(np.int64)
    value = volume * 1_000 * int(rng.integers(9_000, 18_000))
    nothing = np.zeros(count, np.int64)
    return DailyBars(
        calendar(), o, h, low, close, volume, value, np.zeros(count, bool), close, h, low, nothing, nothing
    )

"""Tick grids, price limits and the random numbers of prices. Pure; won and log returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from chartinsight_lib.simulator.model import Ints

Floats = NDArray[np.float64]
Array = TypeVar("Array", bound=NDArray[Any])

LIMIT_PERCENT = 30
"""The most a price may move in a day, against the base price. In force since 2015-06-15; simulated for every day."""


@dataclass(frozen=True)
class Grid:
    """The prices at which an instrument may trade: up to `bounds[k]` won, exclusive, every `ticks[k]`; above, the last."""

    bounds: tuple[int, ...]
    ticks: tuple[int, ...]

    def tick(self, prices: Floats | Ints) -> Ints:
        """Return the step of the grid at each price."""
        if not self.bounds:
            return np.full(np.shape(prices), self.ticks[0], np.int64)
        found: Ints = np.asarray(self.ticks, np.int64)[np.searchsorted(self.bounds, prices, side="right")]
        return found

    # The bounds of a grid are multiples of the ticks on either side, so rounding cannot leave the grid.

    def floor(self, prices: Floats | Ints) -> Ints:
        """Round down to the grid."""
        tick = self.tick(prices)
        return np.asarray(np.floor(prices / tick + 1e-9), np.int64) * tick

    def ceil(self, prices: Floats | Ints) -> Ints:
        """Round up to the grid."""
        tick = self.tick(prices)
        return np.asarray(np.ceil(prices / tick - 1e-9), np.int64) * tick

    def nearest(self, prices: Floats | Ints) -> Ints:
        """Round to the grid."""
        tick = self.tick(prices)
        return np.asarray(np.rint(prices / tick), np.int64) * tick

    def limits(self, base: Ints, percent: int = LIMIT_PERCENT) -> tuple[Ints, Ints]:
        """Return the lowest and highest price of a day whose base price is `base`, rounded inwards."""
        # Whole numbers: 1.3 * 1,000 is 1,300 won, not a hair less.
        return self.ceil(base * (100 - percent) / 100), self.floor(base * (100 + percent) / 100)


# KRX's table since 2023-01-25. The coarser one before it is not simulated: prices of all days are on this grid.
STOCK_GRID = Grid((2_000, 5_000, 20_000, 50_000, 200_000, 500_000), (1, 5, 10, 50, 100, 500, 1_000))
FUND_GRID = Grid((2_000,), (1, 5))
"""ETF and ETN."""
WON_GRID = Grid((), (1,))
"""Every whole won: adjusted prices, and indices in hundredths of a point."""


def grid_of(kind: str) -> Grid:
    """Return the grid of a kind of `Listing`."""
    return FUND_GRID if kind in {"etf", "etn"} else STOCK_GRID


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return random numbers that depend on the seed and the keys alone: not on the process, nor on who asked before."""
    words = [
        key if isinstance(key, int) else int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
        for key in keys
    ]
    return np.random.default_rng(np.random.SeedSequence((seed, *words)))


def persistent(shocks: Floats, keep: float) -> Floats:
    """Return y with y[t] = keep * y[t - 1] + shocks[t], starting at shocks[0]; keep within 0.9 and 1."""
    # The closed form of the recursion. Its powers stay in the range of a double for 6,000 days at keep = 0.9.
    powers = keep ** -np.arange(len(shocks), dtype=np.float64)
    path: Floats = np.cumsum(shocks * powers) / powers
    return path


def unsteady(rng: np.random.Generator, count: int, *, tails: float = 5.0) -> tuple[Floats, Floats]:
    """Return shocks of unit variance on the average, and the standard deviation of each day.

    Volatility is persistent (stochastic volatility, AR(1) in logs, half-life of a month) and the shocks are Student t with
    `tails` degrees of freedom: what returns are known for, clusters and fat tails.
    """
    keep, spread = 0.97, 0.35
    news = rng.standard_normal(count) * spread * np.sqrt(1 - keep**2)
    if count:
        news[0] /= np.sqrt(1 - keep**2)
    deviation = np.exp(persistent(news, keep) - spread**2)
    shocks = rng.standard_t(tails, count) * np.sqrt((tails - 2) / tails)
    return deviation * shocks, deviation


def extremes(rng: np.random.Generator, move: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Return how far above and below its start a path rises and falls that ends at `move`: (>= 0 and move, <= 0 and move).

    The maximum of a Brownian bridge, exactly: (d + sqrt(d^2 - 2 s^2 ln U)) / 2; the minimum by reflection.
    """
    up, down = (np.log(1.0 - rng.random(len(move))) for _ in range(2))
    square, twice = move**2, 2 * deviation**2
    return (move + np.sqrt(square - twice * up)) / 2, (move - np.sqrt(square - twice * down)) / 2


def frozen(array: Array) -> Array:
    """Make an array read-only, because all who ask share it, and return it."""
    array.flags.writeable = False
    return array

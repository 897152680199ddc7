"""The ratio of two tellings of one past, day by day -> spans of one ratio, and the events between them. Pure.

Each price is rounded by its source, so a day bounds the ratio to an interval, and days of one ratio to their intersection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chartinsight_lib.factors import SPLITS
from chartinsight_lib.normalise import Days, Floats

LIMIT = 0.31
"""The widest move of a day, +-30 % in Korea, and a little. Wider is an event or a resumption, not the market."""
PLAIN = 0.10
"""An event that moves the price by more is told from the market's own moves by who shows the jump."""
SAME_EVENT = 0.01
"""Two factors of one day that differ by less are of one event, the one or the other learnt from rounded prices."""
CORRECTED = 0.1
"""Share of the common days that may differ as corrections do: for a while, with the old ratio before and after."""
CORRECTED_DAYS = 20
EDGE_DAYS, LONG = 2, 20

Learnt = tuple[set[date], set[date]]
"""Ex-dates of events that the overlap told of: of the held side, and of the incoming one."""


def settle(
    days: Days, old: Floats, new: Floats, chains: tuple[dict[date, float], dict[date, float]], slack: float,
    open_seams: frozenset[date], found: frozenset[date],
) -> tuple[list[Span], Learnt, bool]:  # fmt: skip
    """Put events into `chains` until both sides tell one ratio; return what is left of steps, the events, and whether they do.

    `open_seams` and `found` as for `basis.join`.
    """
    learnt: Learnt = set(), set()
    while True:
        spans = _corrected(_ratios(days, old, new, *chains, slack))
        step = _first_step(spans, old, new, days, chains, open_seams, found)
        if step is None:
            learnt[0].update(day for day in open_seams if days[0].item() < day <= days[-1].item())
            return spans, learnt, True
        side, at, gained = step
        if side is None or len(learnt[0] | learnt[1]) > 3 + len(days) // 100 or at in learnt[side]:
            return spans, learnt, False
        chains[side][at] = chains[side].get(at, 1.0) * (gained if side == 0 else 1 / gained)
        learnt[side].add(at)


@dataclass(slots=True)
class Span:
    """Common days from position `start` on whose ratio is one number between low and high."""

    start: int
    low: float
    high: float
    days: int = 1

    @property
    def ratio(self) -> float:
        if self.low <= 1 <= self.high:
            return 1.0
        for new, old in SPLITS:
            for exact in (new / old, old / new):
                if self.low <= exact <= self.high:
                    return float(exact)
        return (self.low + self.high) / 2

    def meets(self, low: float, high: float) -> bool:
        return max(self.low, low) <= min(self.high, high)

    def add(self, low: float, high: float, days: int) -> None:
        self.low, self.high, self.days = max(self.low, low), min(self.high, high), self.days + days


def _ratios(
    days: Days,
    old: Floats,
    new: Floats,
    old_factors: Mapping[date, float],
    new_factors: Mapping[date, float],
    slack: float,
) -> list[Span]:
    """Divide the common days into spans of one ratio new / old, events undone."""
    undone = product(new_factors, days) / product(old_factors, days)
    # A price below a unit or two says next to nothing; the bound stays positive.
    low = np.maximum(new - slack, new * 0.01) / (old + slack) * undone
    high = (new + slack) / np.maximum(old - slack, old * 0.01) * undone
    same = old == new
    low, high = np.where(same, np.minimum(low, undone), low), np.where(same, np.maximum(high, undone), high)
    spans: list[Span] = []
    for at, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if spans and spans[-1].meets(least, most):
            spans[-1].add(least, most, 1)
        else:
            spans.append(Span(at, least, most))
    return spans


def _corrected(spans: list[Span]) -> list[Span]:
    """Take spans that differ for a while and not by much, with one ratio before and after, for corrections: they belong to what
    surrounds them. Too many of them are none."""
    total = sum(span.days for span in spans)
    kept: list[Span] = []
    odd = 0
    for number, span in enumerate(spans):
        if kept and kept[-1].meets(span.low, span.high):
            kept[-1].add(span.low, span.high, span.days)
            continue
        later = spans[number + 1 : number + 4]
        if (
            kept
            and span.days <= CORRECTED_DAYS
            and abs(np.log(span.ratio / kept[-1].ratio)) <= PLAIN
            and any(kept[-1].meets(other.low, other.high) and other.days > span.days for other in later)
        ):
            kept[-1].days += span.days
            odd += span.days
            continue
        kept.append(Span(span.start, span.low, span.high, span.days))
    return kept if odd <= CORRECTED * total else spans


def _first_step(
    spans: list[Span], old: Floats, new: Floats, days: Days, chains: tuple[Mapping[date, float], Mapping[date, float]],
    open_seams: frozenset[date], found: frozenset[date],
) -> tuple[int | None, date, float] | None:  # fmt: skip
    """Return the first step of the ratio: who does not know of the event (0 the held side, 1 the incoming one, None: nobody can
    say), its day, and the ratio before over the ratio after; None: there is no step."""
    total = sum(span.days for span in spans)
    for number, (before, after) in enumerate(pairwise(spans)):
        at, gained = days[after.start].item(), before.ratio / after.ratio
        if open_here := [day for day in open_seams if days[after.start - 1].item() < day <= at]:
            return 0, max(open_here), gained
        # A factor that was learnt from other prices, which were rounded, is known better now. Where so little is gained, the
        # step shows some days late.
        if abs(gained - 1) < SAME_EVENT and (near := [day for day in found if days[before.start].item() < day <= at]):
            return 0, max(near), gained
        side = _who_lacks(old, new, days, chains, after.start, gained)
        # Nobody can say; but a day or two at the edge of a long agreement are corrections rather than an event.
        at_edge = (number == 0 and before.days <= EDGE_DAYS) or (number == len(spans) - 2 and after.days <= EDGE_DAYS)
        if side is not None or not at_edge or total < LONG:
            return side, at, gained
    return None


def _who_lacks(
    old: Floats,
    new: Floats,
    days: Days,
    chains: tuple[Mapping[date, float], Mapping[date, float]],
    at: int,
    gained: float,
) -> int | None:
    """Return which side does not know of the event at position `at`, as `_first_step`.

    Over an event the side that lacks it jumps, and the other one moves as the market does.
    """
    moves: list[float] = []
    for close, factors in zip((old, new), chains, strict=True):
        undone = product(factors, days)
        moves.append(abs(float(np.log(close[at] * undone[at] / (close[at - 1] * undone[at - 1])))))
    quiet, jumping = min(moves), max(moves)
    if jumping > np.log1p(LIMIT) >= quiet or (abs(np.log(gained)) > PLAIN and jumping > 2 * quiet):
        return int(moves[1] == jumping)
    return None


def product(factors: Mapping[date, float], days: Days) -> Floats:
    """Return by what the price of each day is multiplied: the factors of all later ex-dates."""
    product = np.ones(len(days))
    for ex_date, factor in factors.items():
        product[: np.searchsorted(days, np.datetime64(ex_date))] *= factor
    return product


def usual(factor: float) -> bool:
    return any(abs(factor * one / other - 1) < 1e-6 for new, old in SPLITS for one, other in ((new, old), (old, new)))


def reconciled(factors: Mapping[date, float], held: Mapping[date, float]) -> dict[date, float]:
    """Take factors of one day that differ by no more than rounding for one."""
    return {
        ex: held[ex] if abs(held.get(ex, np.inf) / factor - 1) < SAME_EVENT else factor
        for ex, factor in factors.items()
    }


def holes(held: Days, arriving: Days) -> Iterator[tuple[NDArray[np.intp], date, date]]:
    """Yield the positions of arriving days that lie in one hole of those held, and the days held before and after it."""
    at = np.searchsorted(held, arriving)
    rows = np.flatnonzero((at > 0) & (at < len(held)))
    rows = rows[held[at[rows]] != arriving[rows]]
    for part in np.split(rows, np.flatnonzero(np.diff(at[rows])) + 1):
        if len(part):
            yield part, held[at[part[0]] - 1].item(), held[at[part[0]]].item()

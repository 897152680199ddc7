"""Two tellings of one instrument's past -> how the newer one joins what is held, so that no two price bases mix. Pure.

A source that gives adjusted prices restates its whole past after each corporate action: all older prices by one factor. What is
held keeps the prices it was stored with. Where both tell of the same days, the ratio of the two, their known events undone, is
one number; a *seam*, a factor between the last bar of the one and the first of the other, carries it. A step of the ratio in
between is an event that one of the two does not know of. What no factor explains is not joined at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

import numpy as np

from chartinsight_lib.normalise import Days, Floats, Mask
from chartinsight_lib.ratios import LIMIT, Learnt, Span, product, settle, usual

NEAR_DAYS = 10
"""Bars that begin within so many days after those held, or end so many before, may follow one another."""
SAME_VOLUME = 0.02
SLACK = (1, 2, 4, 16)
"""By so many units each side may have rounded; what agrees with few of them needs no more."""
SLACK_MOST = 0.001
"""More than one unit may be this share of a price at most: then what cannot be seen is as small."""
EXACT = 1e-9
NOISE = 1e-6


class Verdict(StrEnum):
    """How two tellings compare."""

    SAME = "same"
    """On one basis; where they differ, the newer one corrects."""
    REBASED = "rebased"
    """On two bases, and a factor leads from one to the other."""
    APART = "apart"
    """Without a day in common."""
    DISAGREEING = "disagreeing"
    """By no factor: at least one of the two is wrong, or knows an event that cannot be told from the market's moves."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What one side says: final, traded bars of one instrument, ascending and unique in day.

    factors: {ex-date: price factor} that belong to these prices, dividends left out.
    """

    days: Days
    close: Floats
    volume: Floats
    factors: Mapping[date, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seam:
    """A factor to keep: bars before `ex_date` are multiplied by it. kind: `split`, `restatement`, `unknown` (nothing tells what
    it is, and it is not 1), `assumed` (1, because the bars follow one another without a jump)."""

    ex_date: date
    price: float
    volume: float
    kind: str


@dataclass(frozen=True, slots=True)
class Joined:
    """How a telling joins what is held.

    take: which of the incoming rows may be stored beside what is held.
    seams: factors to store, each in the place of every factor of its day.
    dropped: ex-dates of held factors whose place others have taken.
    own: ex-dates of the incoming side's own factors that hold for what is stored then.
    ratio: new / held, of the last day in common, events undone.
    """

    verdict: Verdict
    take: Mask
    seams: list[Seam]
    dropped: list[date]
    own: set[date]
    ratio: float = 1.0
    overlap: int = 0
    differing: int = 0
    detail: str = ""


def join(
    held: Telling,
    incoming: Telling,
    arriving: Days,
    *,
    unit: float,
    open_seams: frozenset[date] = frozenset(),
    replaces: bool = False,
    one_basis: bool = False,
) -> Joined:
    """Say how `incoming` joins `held`.

    Args:
        arriving: the days of all rows that came, ascending, unfinished ones too; what `Joined.take` speaks of.
        unit: the smallest step of the prices: by so much either side may have rounded.
        open_seams: ex-dates of held factors of kind `unknown` or `assumed`, to be settled where the overlap can.
        replaces: the incoming prices are as they were traded, for ever: where both agree, they take the place of what is held.
        one_basis: it is known that both sides have one basis, such as two files of one load.
    """
    if not len(arriving) or not len(held.days):
        return _whole(arriving, incoming)
    common, mine, its = np.intersect1d(held.days, incoming.days, assume_unique=True, return_indices=True)
    if not len(common):
        return _whole(arriving, incoming) if one_basis else _apart(held, incoming, arriving)

    old, new = held.close[mine], incoming.close[its]
    learnt: Learnt
    for slack in SLACK:
        # A factor that was rounded on its way, and prices restated twice, miss by more than one unit.
        if slack > 1 and slack * unit > SLACK_MOST * float(np.median(np.minimum(old, new))):
            break
        chains = dict(held.factors), dict(incoming.factors)
        spans, learnt, agree = settle(common, old, new, chains, slack * unit, open_seams)
        if agree:
            ratio = max(spans, key=lambda span: span.days).ratio
            volumes = held.volume[mine], incoming.volume[its]
            meeting = _Meeting(common, ratio, *chains, *volumes, int((old != new).sum()))
            put = _replacing if replaces else _beside
            return put(held, incoming, arriving, meeting, learnt)
    spans, _, _ = settle(common, old, new, (dict(held.factors), dict(incoming.factors)), unit, open_seams)
    return _disagreeing(arriving, spans, common, old, new)


@dataclass(frozen=True, slots=True)
class _Meeting:
    """What the days in common say: the ratio new / held with the events of both sides undone, learnt ones among them."""

    days: Days
    ratio: float
    old_factors: dict[date, float]
    new_factors: dict[date, float]
    old_volume: Floats
    new_volume: Floats
    differing: int

    def local(self, days: Days) -> Floats:
        """Return by what a held price is multiplied to be on the incoming side's basis, as both stand there day by day."""
        found: Floats = self.ratio * product(self.old_factors, days) / product(self.new_factors, days)
        return found

    def seam(self, day: date, factor: float, ratio: float) -> Seam:
        """Make a seam; shares follow the prices where the volumes of both sides do, too."""
        traded = (self.old_volume > 0) & (self.new_volume > 0)
        volumes = float(np.median(self.new_volume[traded] / self.old_volume[traded])) if traded.any() else 1.0
        follow = abs(volumes * ratio - 1) <= SAME_VOLUME < abs(ratio - 1)
        return Seam(day, factor, 1 / factor if follow or usual(factor) else 1.0, "restatement")


def _beside(held: Telling, incoming: Telling, arriving: Days, meeting: _Meeting, learnt: Learnt) -> Joined:
    """Join the incoming bars before and after those held, and among them where both are on one basis."""
    old, new = meeting.old_factors, meeting.new_factors
    first, last = held.days[0].item(), held.days[-1].item()
    before, after = arriving < held.days[0], arriving > held.days[-1]
    here = np.abs(meeting.local(arriving) - 1) <= EXACT
    seams = {day: _event(day, old.get(day, 1.0)) for day in learnt[0]}
    dropped: set[date] = set()
    own: set[date] = set()
    if after.any():
        day = arriving[after][0].item()
        known = {ex for ex in old if ex >= day}  # of events whose first bar had not come yet
        beyond = {ex for ex in incoming.factors if ex > day}
        own |= beyond
        factor = meeting.ratio * _all(old, known) / _all(incoming.factors, beyond)
        between = {ex for ex in incoming.factors if last < ex <= day}
        if between and abs(_all(incoming.factors, between) / factor - 1) < NOISE:
            own |= between
            dropped |= known
        elif abs(factor - 1) > EXACT or known:
            seams[day] = meeting.seam(day, factor, meeting.ratio)
            dropped |= known - {day}
    if before.any():
        met = meeting.days[0].item()
        expected = float(meeting.local(meeting.days[:1])[0])
        factor = _all(new, {ex for ex in new if first <= ex <= met}) / expected
        factor /= _all(old, {ex for ex in old if first < ex <= met})
        own |= {ex for ex in incoming.factors if ex < first}
        if abs(factor - 1) > EXACT or first in old:
            seams[first] = meeting.seam(first, factor, 1 / expected)
    if here.all() and not learnt[0]:
        own = set(incoming.factors)  # on one basis throughout, so that its events hold for all of it
    rebased = bool(seams or dropped) or not here.all()
    verdict = Verdict.REBASED if rebased else Verdict.SAME
    return Joined(
        verdict, before | after | here, list(seams.values()), sorted(dropped), own, meeting.ratio, len(meeting.days),
        meeting.differing,
    )  # fmt: skip


def _replacing(held: Telling, incoming: Telling, arriving: Days, meeting: _Meeting, learnt: Learnt) -> Joined:
    """Put the incoming bars in the place of those held; older ones stay, on the basis of the day where the new ones begin."""
    old, new = meeting.old_factors, meeting.new_factors
    first, last = arriving[0].item(), arriving[-1].item()
    seams = {day: _event(day, new[day]) for day in learnt[1]}
    earlier = held.days[held.days < arriving[0]]
    if len(earlier):
        factor = meeting.ratio * float(product(old, earlier[-1:])[0]) / _all(new, {ex for ex in new if ex > first})
        if abs(factor - 1) > EXACT or first in old:
            seams[first] = meeting.seam(first, factor, meeting.ratio)
    dropped = sorted(ex for ex in old if first < ex <= last)
    verdict = Verdict.REBASED if seams or dropped else Verdict.SAME
    return Joined(
        verdict, np.ones(len(arriving), dtype=bool), list(seams.values()), dropped, set(incoming.factors), meeting.ratio,
        len(meeting.days), meeting.differing,
    )  # fmt: skip


def _whole(arriving: Days, incoming: Telling) -> Joined:
    return Joined(Verdict.SAME, np.ones(len(arriving), dtype=bool), [], [], set(incoming.factors))


def _apart(held: Telling, incoming: Telling, arriving: Days) -> Joined:
    """Join bars that have no day in common with those held: what lies between two of these is left out."""
    first, last = held.days[0], held.days[-1]
    before, after = arriving < first, arriving > last
    seams: list[Seam] = []
    own: set[date] = set()
    for which, day, older, newer in (
        (after, arriving[after][:1], held, incoming),
        (before, first[None], incoming, held),
    ):
        if not which.any():
            continue
        ex_date = day[0].item()
        own |= {ex for ex in incoming.factors if (np.datetime64(ex) > day[0]) == (newer is incoming)}
        left = older.days < day[0]
        right = newer.days >= day[0]
        near = left.any() and right.any() and (newer.days[right][0] - older.days[left][-1]).astype(int) <= NEAR_DAYS
        move = newer.close[right][0] / older.close[left][-1] - 1 if near else np.inf
        seams.append(Seam(ex_date, 1.0, 1.0, "assumed" if abs(move) < LIMIT else "unknown"))
    return Joined(
        Verdict.APART, before | after, seams, [], own,
        detail=f"held are {first} to {last}, and {arriving[0]} to {arriving[-1]} came: no day in common tells whether their "
        "prices have one basis.",
    )  # fmt: skip


def _disagreeing(arriving: Days, spans: list[Span], common: Days, old: Floats, new: Floats) -> Joined:
    differing = int((old != new).sum())
    steps = [f"{common[span.start]}" for span in spans[1:4]]
    return Joined(
        Verdict.DISAGREEING, np.zeros(len(arriving), dtype=bool), [], [], set(), spans[-1].ratio, len(common), differing,
        f"{differing} of {len(common)} closes held differ, and not by one factor: the ratio changes {len(spans) - 1} times, "
        f"first on {', '.join(steps)}.",
    )  # fmt: skip


def _all(factors: Mapping[date, float], chosen: set[date]) -> float:
    return float(np.prod([factors[day] for day in chosen]))


def _event(day: date, factor: float) -> Seam:
    split = usual(factor)
    return Seam(day, factor, 1 / factor if split else 1.0, "split" if split else "restatement")

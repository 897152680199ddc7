"""Two tellings of one instrument's past -> how the newer one joins what is held, so that no two price bases mix. Pure.

A source that gives adjusted prices restates its whole past after each corporate action: all older prices by one factor. What is
held keeps the prices it was stored with. Where both tell of the same days, the ratio of the two, their known events undone, is
one number; a *seam*, a factor between the last bar of the one and the first of the other, carries it. A step of the ratio in
between is an event that one of the two does not know of. What no factor explains is not joined at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

import numpy as np

from chartinsight_lib.normalise import Days, Floats, Mask
from chartinsight_lib.ratios import LIMIT, Learnt, Span, holes, product, reconciled, settle, usual

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
    found: frozenset[date] = frozenset(),
    replaces: bool = False,
    one_basis: bool = False,
) -> Joined:
    """Say how `incoming` joins `held`.

    Args:
        arriving: the days of all rows that came, ascending, unfinished ones too; what `Joined.take` speaks of.
        unit: the smallest step of the prices: by so much either side may have rounded.
        open_seams: ex-dates of held factors of kind `unknown` or `assumed`, to be settled where the overlap can.
        found: ex-dates of held factors that were found between two tellings, open ones among them, and that no source told of.
        replaces: the incoming prices are as they were traded, for ever: where both agree, they take the place of what is held.
        one_basis: it is known that both sides have one basis, such as two files of one load.
    """
    among = (
        {ex for ex in found if len(arriving) and arriving[0] < np.datetime64(ex) <= arriving[-1]} if replaces else set()
    )
    if not len(arriving) or not len(held.days):
        return _whole(arriving, incoming, sorted(among))
    common, mine, its = np.intersect1d(held.days, incoming.days, assume_unique=True, return_indices=True)
    if not len(common):
        if one_basis:
            return _whole(arriving, incoming, sorted(among))
        return _apart(held, incoming, arriving, sorted(among))

    old, new = held.close[mine], incoming.close[its]
    learnt: Learnt
    for slack in SLACK:
        # A factor that was rounded on its way, and prices restated twice, miss by more than one unit.
        if slack > 1 and slack * unit > SLACK_MOST * float(np.median(np.minimum(old, new))):
            break
        chains = dict(held.factors), reconciled(incoming.factors, held.factors)
        spans, learnt, agree = settle(common, old, new, chains, slack * unit, open_seams, found)
        if agree:
            chains[1].update(incoming.factors if replaces else {})
            ratio = max(spans, key=lambda span: span.days).ratio
            volumes = held.volume[mine], incoming.volume[its]
            meeting = _Meeting(common, ratio, *chains, *volumes, int((old != new).sum()))
            reached = _reached(common, open_seams - learnt[0])
            if replaces:
                return _replacing(held, incoming, arriving, meeting, learnt, reached)
            return _beside(held, incoming, arriving, meeting, learnt, found | open_seams | learnt[0], reached)
    chains = dict(held.factors), reconciled(incoming.factors, held.factors)
    spans, _, _ = settle(common, old, new, chains, unit, open_seams, found)
    return _disagreeing(arriving, spans, common, old, new)


_Reached = Callable[[Days], Mask]


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


def _beside(
    held: Telling, incoming: Telling, arriving: Days, meeting: _Meeting, learnt: Learnt, movable: frozenset[date],
    reached: _Reached,
) -> Joined:  # fmt: skip
    """Join the incoming bars before and after those held, and among them: in their holes, and where both are on one basis."""
    old = meeting.old_factors
    before = (arriving < held.days[0]) & reached(held.days[:1])
    after = (arriving > held.days[-1]) & reached(held.days[-1:])
    here = (np.abs(meeting.local(arriving) - 1) <= EXACT) & reached(arriving)
    take = before | after | here
    found = _Found({day: _event(day, old[day]) for day in learnt[0] if abs(old[day] - 1) > EXACT})
    found.dropped = learnt[0] & held.factors.keys()
    if after.any():
        _join_after(held, incoming, arriving[after][0].item(), meeting, found)
    if before.any():
        _join_before(held, incoming, meeting, found)
    if here.all() and not learnt[0]:
        found.own = set(incoming.factors)  # on one basis throughout, so that its events hold for all of it
    for rows, older, newer in holes(held.days, arriving):
        around = {ex for ex in old if older < ex <= newer}
        sides = bool(reached(np.array([older]))[0]), bool(reached(np.array([newer]))[0])
        if not around <= movable or any(older < ex <= newer for ex in incoming.factors) or not any(sides):
            take[rows] &= all(sides)  # nobody may move an event that a source tells of
            continue
        put = _fill(held, incoming, arriving[rows], (older, newer), sides, meeting)
        take[rows] = put is not None
        if put is None or (all(sides) and {seam.ex_date: seam.price for seam in put} == {ex: old[ex] for ex in around}):
            continue
        if len(put) == 1 and around & learnt[0]:
            put = [_event(put[0].ex_date, put[0].price)]
        found.seams = {ex: seam for ex, seam in found.seams.items() if ex not in around}
        found.seams |= {seam.ex_date: seam for seam in put}
        found.dropped |= around & held.factors.keys()
    known = any(
        seam.kind in {"split", "restatement"} for seam in found.seams.values()
    )  # the others tell of no other basis
    verdict = Verdict.REBASED if known or not take.all() else Verdict.SAME
    dropped = sorted(found.dropped & held.factors.keys() - found.seams.keys())
    return Joined(
        verdict,
        take,
        list(found.seams.values()),
        dropped,
        found.own,
        meeting.ratio,
        len(meeting.days),
        meeting.differing,
    )


@dataclass(slots=True)
class _Found:
    """What `Joined` tells of factors, while it is being found."""

    seams: dict[date, Seam]
    dropped: set[date] = field(default_factory=set)
    own: set[date] = field(default_factory=set)


def _join_after(held: Telling, incoming: Telling, day: date, meeting: _Meeting, found: _Found) -> None:
    """Lead from the bars held to the incoming ones after them, which begin on `day`."""
    old, last = meeting.old_factors, held.days[-1].item()
    known = {ex for ex in old if ex >= day}  # of events whose first bar had not come yet
    beyond = {ex for ex in incoming.factors if ex > day}
    found.own |= beyond
    factor = meeting.ratio * _all(old, known) / _all(incoming.factors, beyond)
    between = {ex for ex in incoming.factors if last < ex <= day}
    if between and abs(_all(incoming.factors, between) / factor - 1) < NOISE:
        found.own |= between
        found.dropped |= known
    else:
        found.dropped |= known
        if abs(factor - 1) > EXACT:
            found.seams[day] = meeting.seam(day, factor, meeting.ratio)


def _join_before(held: Telling, incoming: Telling, meeting: _Meeting, found: _Found) -> None:
    """Lead from the incoming bars before those held to the first of these."""
    old, new = meeting.old_factors, meeting.new_factors
    first, met = held.days[0].item(), meeting.days[0].item()
    expected = float(meeting.local(meeting.days[:1])[0])
    factor = _all(new, {ex for ex in new if first <= ex <= met}) / expected
    factor /= _all(old, {ex for ex in old if first < ex <= met})
    found.own |= {ex for ex in incoming.factors if ex < first}
    found.dropped |= old.keys() & {first}
    if abs(factor - 1) > EXACT:
        found.seams[first] = meeting.seam(first, factor, 1 / expected)


def _replacing(
    held: Telling, incoming: Telling, arriving: Days, meeting: _Meeting, learnt: Learnt, reached: _Reached
) -> Joined:
    """Put the incoming bars in the place of those held; others stay, and seams lead from each to the incoming ones beside it."""
    old, new = meeting.old_factors, meeting.new_factors
    seams = {day: _event(day, new[day]) for day in learnt[1]}
    kept = np.setdiff1d(held.days, incoming.days, assume_unique=True)
    take = ~np.isin(arriving, kept)  # an unfinished bar takes the place of no finished one
    arriving = arriving[take]
    # By what each price is multiplied, to be on the newest basis of the incoming side.
    was, now = meeting.ratio * product(old, kept), product(new, arriving)
    place = np.searchsorted(arriving, kept)
    begins, ends = arriving[0], arriving[-1]
    staying: set[date] = set()
    for at in np.unique(place).tolist():
        rows = np.flatnonzero(place == at)
        first, last = kept[rows[0]], kept[rows[-1]]
        around = arriving[max(at - 1, 0)], arriving[min(at, len(arriving) - 1)]
        staying |= {ex for ex in old if first < np.datetime64(ex) <= last}
        if at == 0:
            begins = last
        elif at == len(arriving):
            ends = first
        if not reached(kept[rows]).all():
            if at < len(arriving):
                seams[around[1].item()] = _open(around[1].item(), held, incoming)
            if at:
                seams[first.item()] = _open(first.item(), incoming, held)
            continue
        if at and any(around[0] < np.datetime64(ex) <= max(around[1], first) for ex in new):
            continue  # nobody may move an event that a source tells of
        for day, factor, ratio in (
            (first if at else None, now[at - 1] / was[rows[0]], 1 / meeting.ratio),
            (around[1] if at < len(arriving) else None, was[rows[-1]] / now[min(at, len(now) - 1)], meeting.ratio),
        ):
            if day is not None and abs(factor - 1) > EXACT:
                seams[day.item()] = meeting.seam(day.item(), float(factor), ratio)
    dropped = sorted(ex for ex in old if begins < np.datetime64(ex) <= ends and ex not in staying | seams.keys())
    verdict = Verdict.REBASED if seams or dropped else Verdict.SAME
    return Joined(
        verdict, take, list(seams.values()), dropped, set(incoming.factors), meeting.ratio, len(meeting.days),
        meeting.differing,
    )  # fmt: skip


def _reached(common: Days, unsettled: frozenset[date]) -> _Reached:
    """Return a function that says of days whether the days in common tell of their basis: no unsettled seam lies between."""
    begin = max((np.datetime64(ex) for ex in unsettled if ex <= common[0].item()), default=np.datetime64("0001-01-01"))
    end = min((np.datetime64(ex) for ex in unsettled if ex > common[-1].item()), default=np.datetime64("9999-12-31"))
    return lambda days: (begin <= days) & (days < end)


def _fill(
    held: Telling, incoming: Telling, days: Days, around: tuple[date, date], sides: tuple[bool, bool], meeting: _Meeting
) -> list[Seam] | None:
    """Return the seams that join bars in a hole to those held `around` it, in the place of all that are there; None: they would
    make a jump that no market makes, so that an event must lie in the hole. sides: whether it is known how the bars before and
    after the hole compare with the incoming ones."""
    older, newer = (np.array([day], "datetime64[D]") for day in around)
    # What each price is multiplied by, to be on the newest basis held.
    here = float(product(meeting.new_factors, days[:1])[0]) / meeting.ratio
    left = float(product(meeting.old_factors, older)[0]) / here
    right = here / float(product(meeting.old_factors, newer)[0])
    if max(abs(left - 1), abs(right - 1)) > EXACT:
        moves = (
            _move(days[0].item(), held, incoming) / left if sides[0] else 1.0,
            _move(around[1], incoming, held) / right if sides[1] else 1.0,
        )
        if any(LIMIT < abs(move - 1) < np.inf for move in moves):
            return None
    seams = []
    for day, factor, known in ((days[0].item(), left, sides[0]), (around[1], right, sides[1])):
        if not known:
            seams.append(_open(day, *((incoming, held) if day == around[1] else (held, incoming))))
        elif abs(factor - 1) > EXACT:
            seams.append(meeting.seam(day, factor, 1 / factor if day == around[1] else factor))
    return seams


def _whole(arriving: Days, incoming: Telling, dropped: list[date]) -> Joined:
    return Joined(Verdict.SAME, np.ones(len(arriving), dtype=bool), [], dropped, set(incoming.factors))


def _apart(held: Telling, incoming: Telling, arriving: Days, dropped: list[date]) -> Joined:
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
        seams.append(_open(ex_date, older, newer))
    return Joined(
        Verdict.APART, before | after, seams, dropped, own,
        detail=f"held are {first} to {last}, and {arriving[0]} to {arriving[-1]} came: no day in common tells whether their "
        "prices have one basis.",
    )  # fmt: skip


def _open(day: date, older: Telling, newer: Telling) -> Seam:
    """Make a seam of which nothing tells the factor, between the bars of `older` before `day` and those of `newer` from it on."""
    return Seam(day, 1.0, 1.0, "assumed" if abs(_move(day, older, newer) - 1) < LIMIT else "unknown")


def _move(day: date, older: Telling, newer: Telling) -> float:
    """Return the first close of `newer` from `day` on over the last one of `older` before it; infinite: they are far apart."""
    left = older.days < np.datetime64(day)
    right = newer.days >= np.datetime64(day)
    near = left.any() and right.any() and (newer.days[right][0] - older.days[left][-1]).astype(int) <= NEAR_DAYS
    return float(newer.close[right][0] / older.close[left][-1]) if near else np.inf


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

"""Two tellings of one past are joined by the right factor, or not at all."""

from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chartinsight_lib.basis import Joined, Seam, Telling, Verdict, join

MONDAY = np.datetime64("2024-01-01")


def days(first: int, last: int):
    """Weekdays number `first` to `last`, counted from Monday, 2024-01-01."""
    return np.busday_offset(MONDAY, np.arange(first, last + 1))


def telling(first: int, close, factors=None, volume=None) -> Telling:
    close = np.array(close, dtype="float64")
    volume = np.full(len(close), 1000.0) if volume is None else np.array(volume, dtype="float64")
    return Telling(days(first, first + len(close) - 1), close, volume, factors or {})


def joined(held: Telling, new: Telling, **options):
    return join(held, new, new.days, unit=1.0, **options)


WALK = [10000, 10100, 9900, 10050, 10200, 10150, 10300, 10250, 10400, 10350]


def test_a_telling_that_goes_on_where_what_is_held_ends_needs_no_factor():
    found = joined(telling(0, WALK[:6]), telling(3, WALK[3:]))
    assert (found.verdict, found.seams, found.overlap, found.differing) == (Verdict.SAME, [], 3, 0)
    assert found.take.all()


def test_after_a_split_the_whole_past_is_restated_and_one_factor_joins_the_two():
    """5:1 after the last bar held: the vendor divides all by five. Worked by hand: 10,000 becomes 2,000."""
    found = joined(telling(0, WALK[:6]), telling(2, [price / 5 for price in WALK[2:6]] + [2060, 2050]))
    assert found.verdict is Verdict.REBASED
    assert found.seams == [Seam(date(2024, 1, 9), 0.2, 5.0, "restatement")]  # the seventh weekday
    assert found.take.tolist() == [False] * 4 + [True] * 2, "what is held keeps the prices it was stored with"


def test_a_restatement_that_brings_no_new_day_changes_nothing():
    found = joined(telling(0, WALK[:6]), telling(2, [price / 5 for price in WALK[2:6]]))
    assert (found.verdict, found.seams, found.take.any()) == (Verdict.REBASED, [], False)
    assert found.ratio == 0.2


def test_an_older_part_on_another_basis_is_joined_at_the_first_bar_held():
    """Held are prices after a 5:1 split; what came reaches further back and is not adjusted."""
    found = joined(telling(3, [price / 5 for price in WALK[3:]]), telling(0, WALK[:6]))
    assert found.seams == [Seam(date(2024, 1, 4), 0.2, 5.0, "restatement")]
    assert found.take.tolist() == [True] * 3 + [False] * 3


def test_raw_prices_that_are_held_learn_a_split_from_adjusted_ones():
    raw = [50000, 50500, 49500, 10050, 10200, 10150]
    found = joined(telling(0, raw), telling(0, WALK[:6]))
    assert found.seams == [Seam(date(2024, 1, 4), 0.2, 5.0, "split")]
    assert found.take.tolist() == [False] * 3 + [True] * 3, "from the split on both have one basis"


def test_adjusted_prices_that_are_held_stay_when_raw_ones_come():
    raw = [50000, 50500, 49500, 10050, 10200, 10150, 10300]
    found = joined(telling(0, WALK[:6]), telling(0, raw))
    assert found.seams == []
    assert found.take.tolist() == [False] * 3 + [True] * 4


def test_raw_prices_of_a_source_that_never_restates_take_the_place_of_what_is_held():
    """Held is an adjusted series that begins two days earlier; the raw one knows the split of the fifth day."""
    raw = [49500, 50250, 10200, 10150, 10300]
    found = joined(telling(0, WALK[:7]), telling(2, raw, {date(2024, 1, 5): 0.2}), replaces=True)
    assert found.take.all()
    assert found.own == {date(2024, 1, 5)}
    # 10,000 on the first day is 50,000 of the raw prices that follow: x 5, and the split takes it back.
    assert found.seams == [Seam(date(2024, 1, 3), 5.0, pytest.approx(0.2), "restatement")]


def test_a_small_step_that_nobody_can_attribute_is_not_joined():
    """3 %: a rights issue, or an error of either; the market moves as much on its own."""
    moved = [*(round(price * 0.97) for price in WALK[:5]), *WALK[5:]]
    found = joined(telling(0, WALK), telling(0, moved))
    assert found.verdict is Verdict.DISAGREEING
    assert not found.take.any()
    assert "2024-01-08" in found.detail


def test_a_single_bar_that_differs_is_a_correction():
    corrected = [*WALK[:4], 10777, *WALK[5:]] * 2
    found = joined(telling(0, WALK * 2), telling(0, corrected))
    assert (found.verdict, found.differing) == (Verdict.SAME, 2)
    assert found.take.all()


def test_won_that_were_lost_in_rounding_are_no_restatement():
    found = joined(telling(0, WALK[:6]), telling(0, [price - 1 for price in WALK]))
    assert (found.verdict, found.seams) == (Verdict.SAME, [])


def test_without_a_day_in_common_bars_that_follow_closely_are_assumed_to_go_on():
    found = joined(telling(0, WALK[:5]), telling(5, WALK[5:]))
    assert (found.verdict, found.seams) == (Verdict.APART, [Seam(date(2024, 1, 8), 1.0, 1.0, "assumed")])


@pytest.mark.parametrize(("first", "close"), [(5, [price / 5 for price in WALK]), (80, WALK)])
def test_a_jump_or_a_long_silence_between_two_tellings_leaves_the_basis_unknown(first, close):
    found = joined(telling(0, WALK[:5]), telling(first, close))
    assert found.verdict is Verdict.APART
    assert [seam.kind for seam in found.seams] == ["unknown"]
    assert found.take.all()


def test_files_of_one_load_have_one_basis():
    found = joined(telling(0, WALK[:5]), telling(80, WALK), one_basis=True)
    assert (found.verdict, found.seams) == (Verdict.SAME, [])


def test_a_telling_that_covers_an_unknown_seam_settles_it():
    """Held: five days, silence, five days a fifth of the price. The third telling covers all on the newest basis."""
    fifth = [price / 5 for price in WALK]
    held = Telling(
        np.concatenate([days(0, 4), days(10, 14)]), np.array([*WALK[:5], *fifth[5:]]), np.full(10, 1.0),
        {date(2024, 1, 15): 1.0},
    )  # fmt: skip
    filler = [2030.0] * 5
    found = joined(held, telling(0, [*fifth[:5], *filler, *fifth[5:], 2100]), open_seams=frozenset({date(2024, 1, 15)}))
    # The silence is filled, on the newest basis: the seam moves to where these bars begin.
    assert found.seams == [Seam(date(2024, 1, 8), 0.2, 5.0, "split")]
    assert found.dropped == [date(2024, 1, 15)]
    assert found.take.tolist() == [False] * 5 + [True] * 11


def test_a_bar_before_an_unknown_seam_belongs_to_the_bars_that_its_telling_meets():
    """Held: days 0 to 4, and days 6 to 9 a fifth of the price, with nothing to say why. Told are days 5 to 9 on the new basis."""
    fifth = [price / 5 for price in WALK]
    held = Telling(
        np.concatenate([days(0, 4), days(6, 9)]),
        np.array([*WALK[:5], *fifth[6:]]),
        np.full(9, 1.0),
        {date(2024, 1, 9): 1.0},
    )
    seam = frozenset({date(2024, 1, 9)})
    found = joined(held, telling(5, fifth[5:]), open_seams=seam)
    assert (found.seams, found.dropped) == ([Seam(date(2024, 1, 8), 1.0, 1.0, "unknown")], [date(2024, 1, 9)])
    # Told of the old side, the same day stays before the seam.
    found = joined(held, telling(2, WALK[2:6]), open_seams=seam)
    assert (found.take.all(), [one.ex_date for one in found.seams]) == (True, [date(2024, 1, 9)])


def test_a_seam_that_turns_out_to_be_none_is_dropped():
    held = Telling(days(0, 9), np.array(WALK, "float64"), np.full(10, 1.0), {date(2024, 1, 8): 1.0})
    found = joined(held, telling(0, WALK), open_seams=frozenset({date(2024, 1, 8)}))
    assert (found.verdict, found.seams, found.dropped) == (Verdict.SAME, [], [date(2024, 1, 8)])


def test_a_hole_is_filled_with_bars_of_another_basis_between_two_seams():
    """Days 3 and 4 are missing; the telling that has them is on a fifth of the price, and goes no further than day 7."""
    held = Telling(np.delete(days(0, 9), [3, 4]), np.delete(np.array(WALK, "float64"), [3, 4]), np.full(8, 1.0))
    found = joined(held, telling(1, [price / 5 for price in WALK[1:8]]))
    assert found.take.tolist() == [False, False, True, True, False, False, False]
    assert [(one.ex_date, one.price) for one in found.seams] == [(date(2024, 1, 4), 0.2), (date(2024, 1, 8), 5.0)]


def test_bars_that_raw_prices_do_not_have_are_joined_to_those_around_them():
    """Held is a fifth of the price; the raw telling lacks day 4 and ends on day 7."""
    held = telling(0, [price / 5 for price in WALK])
    raw = Telling(np.delete(days(2, 7), 2), np.delete(np.array(WALK[2:8], "float64"), 2), np.full(5, 1.0))
    found = joined(held, raw, replaces=True)
    day = {number: days(number, number)[0].item() for number in (2, 4, 5, 8)}
    seams = {one.ex_date: pytest.approx(one.price) for one in found.seams}
    assert seams == {day[2]: 5.0, day[4]: 0.2, day[5]: 5.0, day[8]: 0.2}


# --- what always holds ------------------------------------------------------------------------------

UNKNOWN = {"unknown", "assumed"}


@dataclass
class Told:
    """One telling of the model's vendors. kind: `adjusted` (as known later than its last day), `plain` (raw prices, and nothing
    of events), `raw` (raw prices with their factors, which take the place of what is held)."""

    kind: str
    telling: Telling
    arriving: np.ndarray
    last_close: float | None = None
    """Close of the newest day, which was still forming."""


@dataclass
class Kept:
    """A store in the plainest words: prices by day, those still forming apart, and one factor by ex-date."""

    close: dict = field(default_factory=dict)
    forming: dict = field(default_factory=dict)
    seams: dict = field(default_factory=dict)

    def telling(self) -> Telling:
        held = sorted(self.close)
        factors = {day: seam.price for day, seam in self.seams.items()}
        return Telling(
            np.array(held, dtype="datetime64[D]"),
            np.array([self.close[day] for day in held]),
            np.ones(len(held)),
            factors,
        )

    def load(self, new: Told):
        if not self.suspects(new):
            every = np.ones(len(new.arriving), dtype=bool)
            return self.put(new, Joined(Verdict.SAME, every, [], [], set(new.telling.factors)))
        open_seams = frozenset(day for day, seam in self.seams.items() if seam.kind in UNKNOWN)
        found = join(
            self.telling(), new.telling, new.arriving, unit=1.0, open_seams=open_seams, replaces=new.kind == "raw",
            found=frozenset(day for day, seam in self.seams.items() if seam.kind in {*UNKNOWN, "restatement"}),
        )  # fmt: skip
        return self.put(new, found)

    def suspects(self, new: Told) -> bool:
        """What the store asks of the database before it fetches what is held: see `store.suspects`."""
        told = dict(zip(new.telling.days.tolist(), new.telling.close, strict=True))
        common = told.keys() & self.close.keys()
        if any(told[day] != self.close[day] for day in common) or any(
            one.kind in UNKNOWN for one in self.seams.values()
        ):
            return True
        fresh = set(new.arriving.tolist()) - common
        if not common or not fresh:
            return not common
        found = [ex for ex, one in self.seams.items() if one.kind == "restatement"]
        return any(min(fresh) < ex <= max(common) or min(common) < ex <= max(fresh) for ex in found)

    def put(self, new: Told, found):
        taken = set(new.arriving[found.take].tolist())
        for day, close in zip(new.telling.days.tolist(), new.telling.close, strict=True):
            if day in taken:
                self.close[day] = close
                self.forming.pop(day, None)
        if new.last_close is not None and (day := new.arriving[-1].item()) in taken and day not in self.close:
            self.forming[day] = new.last_close
        for day in found.dropped:
            self.seams.pop(day, None)
        self.seams |= {seam.ex_date: seam for seam in found.seams}
        if found.verdict is not Verdict.DISAGREEING:
            told = {day: factor for day, factor in new.telling.factors.items() if day in found.own}
            self.seams |= {day: Seam(day, factor, 1 / factor, "told") for day, factor in told.items()}
        return found

    def read(self) -> dict:
        """Adjusted prices of finished days, from the newest seam of unknown size on."""
        begin = max((day for day, seam in self.seams.items() if seam.kind == "unknown"), default=date.min)
        return {
            day: close * float(np.prod([seam.price for ex, seam in self.seams.items() if ex > day]))
            for day, close in self.close.items()
            if day >= begin
        }


@dataclass
class World:
    """Prices as if nothing had ever happened, the same as they were traded, and what was told of them."""

    true: np.ndarray
    raw: np.ndarray
    told: list[Told]


@st.composite
def world(draw, kinds=("adjusted",)):
    length = draw(st.integers(30, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # What is told without its factors has events that the market's own moves cannot hide.
    sizes = [0.02, 0.2, 0.5, 5.0] if "plain" in kinds else [0.02, 0.2, 0.5, 0.9523, 0.8861, 1.4717, 5.0, 10.0]
    events = draw(st.dictionaries(st.integers(1, length - 1), st.sampled_from(sizes), max_size=3))
    assume(np.prod([min(factor, 1.0) for factor in events.values()]) > 1e-3)
    steps = rng.normal(0, 0.02, length).clip(-0.2, 0.2)
    true = 60_000 * np.exp(np.cumsum(steps))
    raw = true * [float(np.prod([factor for at, factor in events.items() if at <= day])) for day in range(length)]
    told = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(kinds))
        first = draw(st.integers(0, length - 12))
        last = draw(st.integers(first + 10, length - 1))
        known = draw(st.sampled_from([last, length - 1]))
        at = np.arange(first, last + 1)
        # Where a raw telling and another one lack each other's days around an event, nobody can tell on which it fell.
        can_miss = at if kinds == ("adjusted",) else [day for day in at if all(abs(day - one) > 8 for one in events)]
        missing = min(draw(st.sampled_from([0, 0, 1, 4])), len(can_miss))
        at = np.setdiff1d(at, rng.choice(can_miss, missing, replace=False))
        basis = float(np.prod([factor for day, factor in events.items() if day <= known]))
        close = raw[at] if kind != "adjusted" else draw(st.sampled_from([np.round, np.floor]))(true[at] * basis)
        when = days(0, length - 1)
        factors = (
            {when[day].item(): one for day, one in events.items() if at[0] < day <= at[-1]} if kind == "raw" else {}
        )
        forming = draw(st.booleans()) and not (kind == "raw" and last in events)
        final = at[:-1] if forming else at
        one = Telling(when[final], close[: len(final)], np.ones(len(final)), factors)
        told.append(Told(kind, one, when[at], float(close[-1]) * 1.01 if forming else None))
    return World(true, raw, told)


def check(kept: Kept, drawn: World, told: list[Told]) -> None:
    """The moves that are read are the market's, but for the won that each price was rounded by; those of raw prices only
    where no accepted telling knows better."""
    number = {day: at for at, day in enumerate(days(0, len(drawn.true) - 1).tolist())}
    read = kept.read()
    least = dict(kept.close)  # what was told in the fewest won tells the least
    for it in told:
        least |= {day: min(close, least[day]) for day, close in zip(it.telling.days.tolist(), it.telling.close, strict=True)
                  if day in least}  # fmt: skip
    ordered = sorted(read)
    assumed = {day for day, seam in kept.seams.items() if seam.kind == "assumed"}
    for one, other in pairwise(ordered):
        if any(one < day <= other for day in assumed):
            continue
        slack = 4 / least[one] + 4 / least[other] + 1e-4
        both = {it.kind for it in told if {one, other} <= set(it.telling.days.tolist())}
        allowed = [drawn.true[number[other]] / drawn.true[number[one]]]
        if both <= {"plain"} and any(it.kind == "plain" for it in told):
            allowed.append(drawn.raw[number[other]] / drawn.raw[number[one]])
        assert any(read[other] / read[one] == pytest.approx(move, rel=slack) for move in allowed), (one, other, allowed)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(world(), world(("adjusted", "plain")), world(("adjusted", "raw")), world(("adjusted", "plain", "raw")))
)
def test_no_cliff_is_ever_read_whatever_was_told_in_whatever_order(drawn):
    kept, accepted = Kept(), []
    kinds = {one.kind for one in drawn.told}
    for one in drawn.told:
        found = kept.load(one)
        assert found.verdict is not Verdict.DISAGREEING or "plain" in kinds
        if found.verdict is not Verdict.DISAGREEING:
            accepted.append(one)
        check(kept, drawn, accepted)


@settings(max_examples=300, deadline=None)
@given(world())
def test_no_finished_bar_is_lost_where_the_tellings_meet(drawn):
    kept = Kept()
    for one in drawn.told:
        known = not any(seam.kind in UNKNOWN for seam in kept.seams.values())
        found = kept.load(one)
        if found.verdict is not Verdict.APART and known:
            assert set(one.telling.days.tolist()) <= kept.close.keys()


@settings(max_examples=300, deadline=None)
@given(st.one_of(world(), world(("adjusted", "plain", "raw"))))
def test_telling_the_same_twice_changes_nothing(drawn):
    kept = Kept()
    for one in drawn.told:
        kept.load(one)
    before = dict(kept.close), kept.read()
    kept.load(drawn.told[-1])
    assert kept.close == before[0]
    assert kept.read() == pytest.approx(before[1], rel=1e-9)

"""Two tellings of one past are joined by the right factor, or not at all."""

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib.basis import Seam, Telling, Verdict, join

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
    assert found.seams == [Seam(date(2024, 1, 15), 0.2, 5.0, "split")]
    assert found.take.tolist() == [False] * 10 + [True] * 6


# --- what always holds ------------------------------------------------------------------------------


@dataclass
class Kept:
    """A store in the plainest words: prices by day, and one factor by ex-date."""

    close: dict = field(default_factory=dict)
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

    def load(self, new: Telling):
        open_seams = frozenset(day for day, seam in self.seams.items() if seam.kind in {"unknown", "assumed"})
        found = join(self.telling(), new, new.days, unit=1.0, open_seams=open_seams)
        for day, close, taken in zip(new.days.tolist(), new.close, found.take, strict=True):
            if taken:
                self.close[day] = close
        for day in found.dropped:
            self.seams.pop(day, None)
        self.seams |= {seam.ex_date: seam for seam in found.seams}
        return found

    def read(self) -> dict:
        """Adjusted prices from the newest seam of unknown size on."""
        begin = max((day for day, seam in self.seams.items() if seam.kind == "unknown"), default=date.min)
        return {
            day: close * float(np.prod([seam.price for ex, seam in self.seams.items() if ex > day]))
            for day, close in self.close.items()
            if day >= begin
        }


@st.composite
def vendor(draw):
    """A raw series with events, and what an adjusting vendor told of it on several days, rounded to the won."""
    length = draw(st.integers(30, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    events = draw(
        st.dictionaries(
            st.integers(1, length - 1), st.sampled_from([0.02, 0.2, 0.5, 0.9523, 0.8861, 1.4717, 5.0, 10.0]), max_size=3
        )
    )
    steps = rng.normal(0, 0.02, length).clip(-0.2, 0.2)
    true = 60_000 * np.exp(np.cumsum(steps))  # as if nothing had ever happened
    tellings = []
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, length - 12))
        last = draw(st.integers(first + 10, length - 1))
        basis = float(np.prod([factor for at, factor in events.items() if at <= last]))
        tellings.append((first, last, np.round(true[first : last + 1] * basis)))
    return true, events, tellings


@settings(max_examples=400, deadline=None)
@given(vendor())
def test_no_cliff_is_ever_read_whatever_an_adjusting_vendor_told_in_whatever_order(drawn):
    true, events, tellings = drawn
    kept = Kept()
    for first, _last, close in tellings:
        new = telling(first, close.clip(1), volume=np.ones(len(close)))
        found = kept.load(new)
        assert found.verdict is not Verdict.DISAGREEING
        read = kept.read()
        all_days = days(0, len(true) - 1).tolist()
        told = sorted(read)
        # The moves that are read are those of the market, but for the won that each price was rounded by.
        assumed = {day for day, seam in kept.seams.items() if seam.kind == "assumed"}
        for one, other in zip(told, told[1:], strict=False):
            if any(one < day <= other for day in assumed):
                continue
            expected = true[all_days.index(other)] / true[all_days.index(one)]
            slack = 4 / kept.close[one] + 4 / kept.close[other]
            assert read[other] / read[one] == pytest.approx(expected, rel=slack + 1e-4)


@settings(max_examples=200, deadline=None)
@given(vendor())
def test_telling_the_same_twice_changes_nothing(drawn):
    _, _, tellings = drawn
    kept = Kept()
    for first, _last, close in tellings:
        kept.load(telling(first, close.clip(1), volume=np.ones(len(close))))
    before = dict(kept.close), dict(kept.seams)
    first, _last, close = tellings[-1]
    kept.load(telling(first, close.clip(1), volume=np.ones(len(close))))
    assert kept.close == before[0]
    for day, seam in kept.seams.items():
        assert seam.price == pytest.approx(before[1][day].price, rel=1e-9)

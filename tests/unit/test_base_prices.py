"""Factors of the base-price chain, from numbers worked by hand and from the specification's own examples."""

from datetime import date
from fractions import Fraction
from math import floor

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chartinsight_lib.base_prices import learn_chain
from chartinsight_lib.errors import SchemaError

DAYS = [day.date() for day in pd.bdate_range("2018-04-02", periods=400)]


def half_up(number: Fraction) -> int:
    return floor(number + Fraction(1, 2))


def pairs(
    raw: list[int], volume: list[int], events: dict[int, Fraction], *, based_on: date | None = None
) -> pd.DataFrame:
    """Raw and adjusted bars: `events` are {position of the ex-day: factor}; adjusted(d) = raw(d) x the product of the
    factors after d, rounded half up, and the volume divided by it."""
    rows = []
    for at, (close, shares) in enumerate(zip(raw, volume, strict=True)):
        product = Fraction(1)
        for ex, factor in events.items():
            product *= factor if at < ex else 1
        prices = {"open": close, "high": close + close // 50, "low": close - close // 50, "close": close}
        adjusted = {f"adj_{name}": half_up(price * product) for name, price in prices.items()}
        adjusted["adj_volume"] = half_up(shares / product)
        rows.append({"code": "005930", "date": DAYS[at], **prices, "volume": shares, **adjusted})
    return pd.DataFrame(rows).assign(based_on=based_on or DAYS[len(raw) - 1])


def found(frame: pd.DataFrame) -> list[tuple[date, float, str]]:
    return [(row.ex_date, row.price_factor, row.kind) for row in learn_chain(frame).itertuples()]


def test_samsungs_split_of_2018_is_one_factor_of_a_fiftieth():
    # 2,650,000 won on 2018-04-27, base price 53,000 on 2018-05-04: specification, section 7.1.
    raw = [2_560_000, 2_607_000, 2_650_000, 53_000, 51_900]
    (event,) = found(pairs(raw, [1000] * 5, {3: Fraction(53_000, 2_650_000)}))
    assert event == (DAYS[3], 0.02, "split")


def test_a_factor_that_is_no_ratio_of_shares_is_the_base_price_over_the_close_before():
    # 340570, section 7.1: 65,600 won become 33,200 with a factor of 0.5061, which is 33,200 / 65,600.
    raw = [65_000, 64_200, 65_600, 33_200, 34_100]
    (event,) = found(pairs(raw, [12_345, 54_321, 99_999, 1, 2], {3: Fraction(33_200, 65_600)}))
    assert event == (DAYS[3], pytest.approx(33_200 / 65_600, rel=1e-12), "rights")


def test_an_event_that_takes_effect_on_the_day_the_bars_are_based_on_is_learnt_before_that_day_has_a_bar():
    raw = [10_000, 10_100, 10_200]
    frame = pairs(raw, [100] * 3, {3: Fraction(2_040, 10_200)}, based_on=date(2018, 4, 9))
    assert found(frame) == [(date(2018, 4, 9), 0.2, "split")]


def test_without_an_event_there_is_no_factor_and_halted_days_disturb_nothing():
    assert found(pairs([10_000, 10_000, 10_000, 10_050], [5, 0, 0, 7], {})) == []
    raw = [10_000, 10_000, 10_000, 2_000, 2_010]
    assert found(pairs(raw, [5, 0, 0, 9, 9], {3: Fraction(1, 5)})) == [(DAYS[3], 0.2, "split")]


def test_volumes_off_by_a_share_and_prices_off_by_a_won_do_not_hide_an_event():
    raw = [10_000 + 10 * k for k in range(50)] + [2_100 + k for k in range(50)]
    frame = pairs(raw, [1_000_000 + 7 * k for k in range(100)], {50: Fraction(1, 5)})
    frame["adj_volume"] += np.arange(100) % 3 - 1
    frame.loc[::7, "adj_close"] += 1
    ((ex, factor, kind),) = found(frame)
    assert (ex, kind) == (DAYS[50], "split")
    assert factor == pytest.approx(0.2, rel=1e-4)


def test_two_series_that_have_nothing_to_do_with_each_other_are_refused():
    frame = pairs([10_000 + 10 * k for k in range(60)], [100] * 60, {})
    for name in ("open", "high", "low", "close"):
        frame[f"adj_{name}"] = frame[f"adj_{name}"] - 100 * np.arange(60)
    with pytest.raises(SchemaError, match="005930: adjusted and raw prices part .* times in 60 days"):
        learn_chain(frame)


def test_bars_that_are_based_on_a_day_before_the_newest_are_refused():
    with pytest.raises(SchemaError, match="relative to 2018-04-02, and the newest is of 2018-04-04"):
        learn_chain(pairs([100, 100, 100], [1, 1, 1], {2: Fraction(1, 2)}, based_on=DAYS[0]))


def test_no_pairs_give_no_factors():
    assert learn_chain(pairs([100], [1], {}).iloc[:0]).empty


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_learnt_gives_back_every_adjusted_price_and_volume_to_the_won(data):
    n = data.draw(st.integers(2, 120))
    seed = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    level = data.draw(st.sampled_from([900, 8_000, 45_000, 350_000]))
    raw = (level * np.exp(np.cumsum(seed.normal(0, 0.02, n)))).astype(int).clip(100).tolist()
    volume = seed.integers(0, 10**7, n).tolist()
    places = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=min(3, n // 12))))
    events = {}
    for at in places:
        ratio = data.draw(st.sampled_from([0.02, 0.1, 0.2, 0.5, 0.7313, 0.8125, 0.9, 2.0, 5.0]))
        base = max(5, round(raw[at - 1] * ratio / 5) * 5)
        if abs(base / raw[at - 1] - 1) > 0.01:
            events[at] = Fraction(base, raw[at - 1])
    frame = pairs(raw, volume, events)
    assume(
        (frame[[f"adj_{name}" for name in ("open", "high", "low", "close")]] > 0).all(axis=None)
    )  # no price of nothing
    learnt = learn_chain(frame)
    assert set(learnt["ex_date"]) <= {DAYS[at] for at in events}
    price = np.ones(n)
    for row in learnt.itertuples():
        price[: DAYS.index(row.ex_date)] *= row.price_factor
    for name in ("open", "high", "low", "close"):
        assert np.array_equal(np.floor(frame[name] * price + 0.5 + 1e-9), frame[f"adj_{name}"])
    assert np.array_equal(np.floor(frame["volume"] / price + 0.5 + 1e-9), frame["adj_volume"])


def test_a_few_rows_that_are_a_won_off_make_no_events_and_cost_no_exactness():
    raw = [1_000 + 3 * k for k in range(80)] + [500 + k for k in range(40)]
    frame = pairs(raw, [1_000_000 + 7 * k for k in range(120)], {80: Fraction(615, 1_237)})
    for row in (0, 17, 50, 51, 100):
        frame.loc[row, "adj_close"] += 1
    assert found(frame) == [(DAYS[80], pytest.approx(615 / 1_237, rel=1e-12), "split")]


def test_a_factor_that_was_learnt_from_more_days_is_kept_where_it_fits_and_not_where_it_does_not():
    raw = [5_730, 5_730, 5_730, 5_003, 5_100]
    frame = pairs(raw, [0, 0, 0, 77, 88], {3: Fraction(5_003, 5_730)})
    exact = 5_003 / 5_730
    (rounder,) = found(frame)  # three halted days of one price leave several base prices open
    assert rounder[1] == pytest.approx(exact, rel=1e-3)
    kept = learn_chain(frame, {DAYS[3]: exact})
    assert kept["price_factor"].tolist() == [exact]
    other = learn_chain(frame, {DAYS[3]: 0.5, DAYS[1]: 0.9})
    assert [(row.ex_date, row.price_factor) for row in other.itertuples()] == [rounder[:2]]

"""Swing points: worked by hand, against a slow second implementation, and on shortened input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartinsight_lib.analysis.indicators import atr
from chartinsight_lib.analysis.pivots import HIGH, LOW, Pivots, swings
from chartinsight_lib.errors import ConfigError, SchemaError


@st.composite
def candles(draw):
    """Up to 80 bars of flat stretches, single ticks, limit days and jumps, with and without wicks: high, low, close."""
    steps = st.sampled_from([0, 0, 0, 1, -1, 5, -5, 30, -30, 400])
    close = 1000.0 + np.cumsum(draw(st.lists(steps, max_size=80)), dtype=np.float64)
    wicks = st.lists(st.sampled_from([0, 0, 1, 10, 50]), min_size=close.size, max_size=close.size)
    return close + np.array(draw(wicks), dtype=float), close - np.array(draw(wicks), dtype=float), close


OPTIONS = st.fixed_dictionaries({"multiple": st.sampled_from([0.5, 1.0, 3.0]), "atr_period": st.integers(1, 14)})


def rows(pivots: Pivots) -> list[tuple[int, int, float, int]]:
    """(at, known_at, price, kind) of each point."""
    return list(
        zip(pivots.at.tolist(), pivots.known_at.tolist(), pivots.price.tolist(), pivots.kind.tolist(), strict=True)
    )


def slow_swings(high, low, close, multiple, atr_period) -> list[tuple[int, int, float, int]]:
    """The rule of `swings`, read aloud at every bar with all bars so far in hand."""
    found: list[tuple[int, int, float, int]] = []
    mean_range = atr(high, low, close, atr_period)
    for now in range(1, len(close)):
        since = found[-1][0] + 1 if found else 0
        top = max(range(since, now + 1), key=lambda bar: (high[bar], -bar))
        bottom = min(range(since, now + 1), key=lambda bar: (low[bar], bar))
        fall = high[top] - close[now] if top < now else 0.0
        rise = close[now] - low[bottom] if bottom < now else 0.0
        far = multiple * mean_range[now - 1]
        last = found[-1][3] if found else (LOW if fall > rise else HIGH if rise > fall else 0)
        if last == LOW and fall > far:
            found.append((top, now, high[top], HIGH))
        elif last == HIGH and rise > far:
            found.append((bottom, now, low[bottom], LOW))
    return found


def test_swings_worked_by_hand():
    # Steps of 2 with wicks of 1: every true range is 3, so the close has to turn back by more than 2 * 3 = 6.
    close = np.array([100, 102, 104, 106, 108, 106, 104, 102, 100, 98, 100, 102, 104.0])
    found = swings(close + 1, close - 1, close, multiple=2, atr_period=2)
    assert rows(found) == [
        (0, 3, 99, LOW),  # 104 is 5 above 99, and 106 is 7
        (4, 7, 109, HIGH),  # 104 is 5 below 109, and 102 is 7
        (9, 12, 97, LOW),  # 102 is 5 above 97, and 104 is 7
    ]


def test_a_turn_of_exactly_the_distance_is_not_enough():
    close = np.array([100, 100, 100, 100, 95, 94.0])
    high, low = np.maximum(close, 101), np.minimum(close, 99)  # true ranges of 2 until the fall: the distance is 6
    assert rows(swings(high[:5], low[:5], close[:5], multiple=3, atr_period=2)) == []


def test_a_crash_is_measured_by_the_calm_before_it():
    # The distance is 3 * 2; with the crash's own true range of 7 it would be 3 * 4.5, and the crash would pass unseen.
    close = np.array([100, 100, 100, 100, 94.0])
    high, low = close + 1, close - 1
    high[-1], low[-1] = 100, 94
    assert rows(swings(high, low, close, multiple=3, atr_period=2)) == [(0, 4, 101, HIGH)]


def test_a_bar_does_not_confirm_its_own_extreme():
    close = np.array([100, 100, 100, 100, 100.0])
    high, low = close + 1, close - 1
    high[3] = 130  # a spike of one bar, back at its close
    assert rows(swings(high[:4], low[:4], close[:4], multiple=1, atr_period=2)) == []
    # True ranges 2, 2, 31: the distance on the next bar is (2 + 31) / 2 = 16.5, and the close is 30 below.
    assert rows(swings(high, low, close, multiple=1, atr_period=2)) == [(3, 4, 130, HIGH)]


def test_the_first_pivot_waits_while_both_sides_are_equally_far():
    high = np.array([110, 100, 100, 101.0])
    low = np.array([90, 100, 100, 101.0])
    close = np.array([100, 100, 100, 101.0])
    assert rows(swings(high, low, close, multiple=1, atr_period=1)) == [(0, 3, 90, LOW)]


@pytest.mark.parametrize("bars", [0, 1, 2, 3, 500])
def test_a_flat_price_has_no_swings(bars):
    flat = np.full(bars, 1000.0)
    found = swings(flat, flat, flat)
    assert (len(found), found.at.dtype, found.known_at.dtype) == (0, np.int64, np.int64)
    assert (found.price.dtype, found.kind.dtype) == (np.float64, np.int8)


def test_limit_days_without_a_range_are_followed_down_and_up():
    # Closes 1000 … 1000, 700, 490, 343, 240.1, 312.13, 405.77, 527.50. Three ATRs before the two rises: 3 * 47.19 and
    # 3 * 48.96 (Wilder over 300, 210, 147, 102.9, 72.03). 312.13 is 72 above the low, 405.77 is 165.67 above it.
    close = np.concatenate([np.full(20, 1000.0), 1000 * 0.7 ** np.arange(1, 5), 240.1 * 1.3 ** np.arange(1, 4)])
    assert [(at, known, kind) for at, known, _, kind in rows(swings(close, close, close))] == [
        (0, 20, HIGH),
        (23, 25, LOW),
    ]


def test_a_steady_rise_has_one_low_at_its_beginning():
    close = np.arange(100.0, 400.0)
    assert [(at, kind) for at, _, _, kind in rows(swings(close, close, close))] == [(0, LOW)]


@given(candles(), OPTIONS)
def test_swings_are_those_of_the_rule_read_aloud(bars, options):
    assert rows(swings(*bars, **options)) == slow_swings(*bars, **options)


@given(candles(), OPTIONS)
def test_later_bars_change_no_known_pivot(bars, options):
    whole = swings(*bars, **options)
    for end in range(len(bars[2]) + 1):
        assert rows(swings(*(numbers[:end] for numbers in bars), **options)) == rows(whole.up_to(end - 1))


@given(candles(), OPTIONS)
def test_highs_and_lows_alternate_in_time_and_price(bars, options):
    found = swings(*bars, **options)
    assert (found.known_at > found.at).all()
    assert (np.diff(found.at) > 0).all()
    assert (np.diff(found.known_at) > 0).all()
    assert (np.diff(found.price) * found.kind[1:] > 0).all()
    assert (np.diff(found.kind) == -2 * found.kind[:-1]).all()


@given(candles(), OPTIONS)
def test_prices_upside_down_have_the_same_swings_upside_down(bars, options):
    high, low, close = bars
    mirrored = [
        (at, known_at, -price, -kind) for at, known_at, price, kind in rows(swings(-low, -high, -close, **options))
    ]
    assert mirrored == rows(swings(high, low, close, **options))


@given(candles(), OPTIONS)
def test_the_size_of_a_price_does_not_matter(bars, options):
    larger = [
        (at, known, price / 64, kind) for at, known, price, kind in rows(swings(*(64 * n for n in bars), **options))
    ]
    assert larger == rows(swings(*bars, **options))


def test_a_hole_in_the_prices_is_refused():
    holed = np.array([1.0, np.nan, 3.0])
    with pytest.raises(SchemaError, match="swings: `low` is nan at bar 1"):
        swings(np.ones(3), holed, np.ones(3))


def test_series_of_different_bars_are_refused():
    with pytest.raises(SchemaError, match="high 3, low 3, close 2"):
        swings(np.ones(3), np.ones(3), np.ones(2))


@pytest.mark.parametrize("multiple", [0, -1, np.nan, np.inf])
def test_an_impossible_distance_is_refused(multiple):
    with pytest.raises(ConfigError, match="ATRs"):
        swings(np.ones(3), np.ones(3), np.ones(3), multiple=multiple)


@pytest.mark.shared
def test_no_pivot_repaints_on_real_prices(shared_data: Path):
    daily = pd.read_parquet(shared_data / "us_daily.parquet", columns=["code", "high", "low", "close"])
    for _, table in list(daily.groupby("code"))[:20]:
        bars = [table[name].to_numpy() for name in ["high", "low", "close"]]
        whole = swings(*bars)
        assert len(whole) > 20  # more than four years of days
        for end in range(0, len(table), 25):
            assert rows(swings(*(numbers[:end] for numbers in bars))) == rows(whole.up_to(end - 1))

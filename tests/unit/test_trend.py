"""The Dow state: worked by hand, against the definition read bar by bar, and on shortened input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartinsight_lib.analysis.pivots import HIGH, LOW, Pivots, swings
from chartinsight_lib.analysis.trend import TREND_NAMES, dow_trend, trend_start
from chartinsight_lib.errors import NotEnoughHistory, SchemaError

CLOSES = st.lists(st.sampled_from([0, 0, 1, -1, 7, -7, 30, -30, 400]), max_size=120).map(
    lambda steps: 1000.0 + np.cumsum(steps, dtype=np.float64)
)


def pivots(*points: tuple[int, float, int]) -> Pivots:
    """Swing points from (known_at, price, kind); each lies on the bar before it became known."""
    known, price, kind = zip(*points, strict=True)
    known_at = np.array(known, dtype=np.int64)
    return Pivots(known_at - 1, known_at, np.array(price, dtype=np.float64), np.array(kind, dtype=np.int8))


def state_by_definition(close, points: Pivots, bar: int) -> int:
    """The docstring of `dow_trend`, sentence by sentence, at one bar."""
    sides = []
    for kind in (HIGH, LOW):
        known = [
            (at, price) for at, price, k in zip(points.known_at, points.price, points.kind, strict=True) if k == kind
        ]
        known = [point for point in known if point[0] <= bar]
        if len(known) < 2:
            return 0
        (_, older), (since, newer) = known[-2:]
        closes = close[since : bar + 1]
        beyond = max(closes) > newer if kind == HIGH else min(closes) < newer
        sides.append(kind if beyond else int(np.sign(newer - older)))
    return sides[0] if sides[0] == sides[1] else 0


RISING = [(1, 90, LOW), (2, 100, HIGH), (3, 95, LOW), (4, 110, HIGH)]
FALLING = [(1, 110, HIGH), (2, 100, LOW), (3, 105, HIGH), (4, 90, LOW)]


def test_rising_highs_and_lows_are_an_up_trend_from_the_bar_they_are_known():
    assert dow_trend(np.full(7, 105.0), pivots(*RISING)).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_falling_highs_and_lows_are_a_down_trend_from_the_bar_they_are_known():
    assert dow_trend(np.full(7, 95.0), pivots(*FALLING)).tolist() == [0, 0, 0, 0, -1, -1, -1]


def test_a_close_below_the_last_low_ends_an_up_trend_for_good():
    close = np.array([100, 100, 100, 100, 100, 95, 94.9, 100, 100])  # 95 is the low itself, and not below it
    assert dow_trend(close, pivots(*RISING)).tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_a_close_above_the_last_high_ends_a_down_trend_for_good():
    close = np.array([100, 100, 100, 100, 100, 105, 105.1, 100, 100])
    assert dow_trend(close, pivots(*FALLING)).tolist() == [0, 0, 0, 0, -1, -1, 0, 0, 0]


def test_a_higher_low_and_a_close_above_the_last_high_turn_down_to_up():
    close = np.array([100, 100, 100, 100, 100, 100, 104, 106, 103])
    points = pivots(*FALLING, (6, 96, LOW))  # down; a higher low: unclear; a close above 105: up, and up it stays
    assert dow_trend(close, points).tolist() == [0, 0, 0, 0, -1, -1, 0, 1, 1]


def test_lower_highs_and_a_close_below_the_last_low_are_a_down_trend_at_once():
    close = np.array([100, 100, 100, 100, 100, 100, 94])
    points = pivots(*RISING, (5, 96, LOW), (6, 108, HIGH))
    assert dow_trend(close, points).tolist() == [0, 0, 0, 0, 1, 1, -1]


def test_equal_highs_are_no_trend():
    points = pivots((1, 90, LOW), (2, 100, HIGH), (3, 95, LOW), (4, 100, HIGH))
    assert dow_trend(np.full(6, 98.0), points).tolist() == [0] * 6


def test_without_pivots_there_is_no_trend():
    flat = np.full(5, 1000.0)
    trend = dow_trend(flat, swings(flat, flat, flat))
    assert (trend.tolist(), trend.dtype) == ([0] * 5, np.int8)


def test_the_start_of_the_trend_is_the_bar_after_the_last_change():
    assert trend_start(np.array([0, 1, 1, 0, -1, -1], dtype=np.int8)) == 4
    assert trend_start(np.array([1, 1], dtype=np.int8)) == 0


def test_no_bars_have_no_trend_start():
    with pytest.raises(NotEnoughHistory, match="1 is needed"):
        trend_start(np.array([], dtype=np.int8))


def test_a_hole_in_the_closes_is_refused():
    with pytest.raises(SchemaError, match="dow_trend: `close` is nan at bar 1"):
        dow_trend([1.0, np.nan], pivots(*RISING))


@given(CLOSES)
def test_every_state_follows_from_the_definition(close):
    points = swings(close, close, close, multiple=1, atr_period=3)
    expected = [state_by_definition(close, points, bar) for bar in range(close.size)]
    assert dow_trend(close, points).tolist() == expected
    assert set(expected) <= TREND_NAMES.keys()


@given(CLOSES)
def test_later_bars_change_no_earlier_state(close):
    points = swings(close, close, close, multiple=1, atr_period=3)
    whole = dow_trend(close, points).tolist()
    for end in range(close.size + 1):
        assert dow_trend(close[:end], points.up_to(end - 1)).tolist() == whole[:end]
        assert dow_trend(close[:end], points).tolist() == whole[:end]


@pytest.mark.shared
def test_no_state_repaints_on_real_prices(shared_data: Path):
    daily = pd.read_parquet(shared_data / "us_daily.parquet", columns=["code", "high", "low", "close"])
    for _, table in list(daily.groupby("code"))[:20]:
        bars = [table[name].to_numpy() for name in ["high", "low", "close"]]
        whole = dow_trend(bars[2], swings(*bars))
        assert set(whole.tolist()) == {-1, 0, 1}
        for end in range(0, len(table), 25):
            part = [numbers[:end] for numbers in bars]
            np.testing.assert_array_equal(dow_trend(part[2], swings(*part)), whole[:end])

"""Indicators against printed numbers, other programs' results, and themselves on shortened input."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartinsight_lib.analysis.indicators import atr, bars_covered, ema, rolling_high, rolling_low, rsi, sma
from chartinsight_lib.errors import ConfigError, SchemaError

NAN = np.nan

# One tick, flat stretches and jumps, and often only a few bars.
PRICES = st.lists(st.sampled_from([1.0, 1000.0, 1000.0, 1000.0, 1001.0, 1300.0, 5e7]), max_size=60)
OF_ONE_SERIES = [
    partial(sma, period=5),
    partial(ema, period=5),
    partial(rsi, period=5),
    partial(rolling_high, window=6, min_bars=3),
    partial(rolling_low, window=6, min_bars=3),
    lambda close: atr(np.asarray(close) * 1.5, close, close, 5),
]


def test_sma_is_the_mean_of_the_last_values_as_printed_by_achelis():
    # Achelis, Technical Analysis from A to Z, page 207
    closes = [25, 24.875, 24.781, 24.594, 24.5, 24.625, 25.219, 27.25]
    np.testing.assert_allclose(sma(closes, 5), [NAN] * 4 + [24.75, 24.675, 24.744, 25.238], atol=6e-4)


def test_ema_starts_as_a_plain_mean_and_then_takes_its_share_of_each_value():
    # (1 + 2 + 3) / 3 = 2, then half of the way to 6, then half of the way to 0
    np.testing.assert_allclose(ema([1.0, 2.0, 3.0, 6.0, 0.0], 3), [NAN, NAN, 2.0, 4.0, 2.0])


def test_rsi_is_as_printed_by_achelis():
    # Achelis, Technical Analysis from A to Z, page 299
    closes = [37.875, 39.5, 38.75, 39.8125, 40, 39.875, 40.1875, 41.25, 41.125, 41.625]
    closes += [41.25, 40.1875, 39.9375, 39.9375, 40.5, 41.9375, 42.25, 42.25, 41.875, 41.875]
    printed = [76.6667, 78.8679, 84.9158, 81.4863, 84.5968, 73.0851, 49.3173, 45.0119]
    printed += [45.0119, 57.9252, 75.9596, 78.4676, 78.4676, 65.6299, 65.6299]
    np.testing.assert_allclose(rsi(closes, 5), [NAN] * 5 + printed, atol=6e-5)


def test_rsi_has_no_value_until_the_price_has_moved():
    np.testing.assert_array_equal(rsi([500.0] * 30, 14), [NAN] * 30)
    assert rsi([500.0] * 30 + [490.0], 14)[-1] == 0


def test_atr_counts_the_gap_from_the_close_before():
    # True ranges: -, 12 - 9 = 3, 20 - 11 = 9 (from the close of 11), 20 - 13 = 7; Wilder: (3 + 9) / 2, (6 + 7) / 2
    high, low, close = [10.0, 12.0, 20.0, 16.0], [9.0, 9.0, 19.0, 13.0], [9.5, 11.0, 20.0, 14.0]
    np.testing.assert_allclose(atr(high, low, close, 2), [NAN, NAN, 6.0, 6.5])


def test_a_rolling_high_covers_the_bars_there_are_until_the_window_is_full():
    high = [5.0, 9.0, 4.0, 3.0, 2.0, 1.0]
    np.testing.assert_array_equal(rolling_high(high, 3, min_bars=2), [NAN, 9, 9, 9, 4, 3])
    np.testing.assert_array_equal(rolling_low(high, 3, min_bars=2), [NAN, 5, 4, 3, 2, 1])
    assert bars_covered(6, 3).tolist() == [1, 2, 3, 3, 3, 3]


def test_a_high_of_fewer_than_twenty_bars_is_not_offered_as_a_yearly_high():
    assert np.isnan(rolling_high(np.arange(19.0))).all()
    assert rolling_high(np.arange(20.0))[-1] == 19


def test_a_full_window_is_enough_when_it_is_shorter_than_min_bars():
    np.testing.assert_array_equal(rolling_high([1.0, 3.0, 2.0], 2), [NAN, 3, 3])
    np.testing.assert_array_equal(rolling_high([1.0, 3.0, 2.0], 1), [1, 3, 2])


@given(PRICES, st.integers(1, 9), st.integers(1, 9))
def test_rolling_extremes_are_those_of_the_last_bars(prices, window, min_bars):
    enough = min(min_bars, window)
    parts = [prices[max(0, bar + 1 - window) : bar + 1] for bar in range(len(prices))]
    highest = [max(part) if len(part) >= enough else NAN for part in parts]
    lowest = [min(part) if len(part) >= enough else NAN for part in parts]
    np.testing.assert_array_equal(rolling_high(prices, window, min_bars=min_bars), highest)
    np.testing.assert_array_equal(rolling_low(prices, window, min_bars=min_bars), lowest)
    assert bars_covered(len(prices), window).tolist() == [len(part) for part in parts]


@pytest.mark.parametrize("indicator", OF_ONE_SERIES)
@given(prices=PRICES, data=st.data())
def test_later_bars_change_no_earlier_value(indicator, prices, data):
    cut = data.draw(st.integers(0, len(prices)))
    np.testing.assert_array_equal(indicator(prices[:cut]), indicator(prices)[:cut])


@pytest.mark.parametrize("indicator", OF_ONE_SERIES)
@pytest.mark.parametrize("bars", [0, 1, 2])
def test_too_few_bars_give_as_many_missing_values(indicator, bars):
    result = indicator(np.ones(bars))
    assert (result.dtype, result.shape) == (np.float64, (bars,))
    assert np.isnan(result).all()


@pytest.mark.parametrize("indicator", OF_ONE_SERIES)
def test_the_given_prices_are_left_as_they_were(indicator):
    prices = np.linspace(100, 130, 30)
    prices.flags.writeable = False
    indicator(prices)


@pytest.mark.parametrize("indicator", OF_ONE_SERIES)
@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_a_hole_in_the_prices_is_refused_and_named(indicator, hole):
    with pytest.raises(SchemaError, match="at bar 2 of 4"):
        indicator([1.0, 2.0, hole, 4.0])


def test_series_of_different_bars_are_refused():
    with pytest.raises(SchemaError, match="high 3, low 2, close 3"):
        atr(np.ones(3), np.ones(2), np.ones(3))


def test_a_table_of_instruments_is_refused():
    with pytest.raises(SchemaError, match="2 dimensions"):
        sma(np.ones((3, 2)), 2)


@pytest.mark.parametrize("call", [partial(sma, period=0), partial(rsi, period=1), partial(rolling_low, window=100_000)])
def test_an_impossible_period_is_refused(call):
    with pytest.raises(ConfigError, match="period"):
        call([1.0, 2.0])


def test_importing_the_module_does_not_load_talib():
    code = "import sys, chartinsight_lib.analysis.indicators; sys.exit('talib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "indicator"), [("sma", partial(sma, period=20)), ("ema", partial(ema, period=20)), ("rsi", rsi)]
)
def test_equals_stock_indicators_on_two_years_of_spy(shared_data: Path, name, indicator):
    folder = shared_data / "indicators_reference" / "skender"
    close = pd.read_csv(folder / "quotes" / "default.csv")["close"]
    np.testing.assert_allclose(indicator(close), pd.read_csv(folder / f"{name}.csv")[name], rtol=1e-9)


@pytest.mark.shared
def test_equals_techr_on_samsung(shared_data: Path):
    bars = pd.read_csv(shared_data / "indicators_reference" / "techr" / "techr_005930.csv")
    np.testing.assert_allclose(rsi(bars["close"]), bars["rsi"], rtol=1e-9)
    # techr counts a true range for the very first bar; 400 bars later (19/20)**400 of the difference is left.
    np.testing.assert_allclose(atr(bars["high"], bars["low"], bars["close"], 20)[400:], bars["atr"][400:], rtol=1e-8)


@pytest.mark.shared
@pytest.mark.parametrize("code", ["000660", "005930", "035250", "052690"])
def test_equals_talib_on_kospi_stocks(shared_data: Path, code):
    bars = pd.read_csv(shared_data / "indicators_reference" / "talib" / f"talib_{code}.csv")
    high, low, close = bars["high"], bars["low"], bars["close"]
    np.testing.assert_allclose(atr(high, low, close), bars["atr_14"], rtol=1e-8)
    np.testing.assert_allclose(rsi(close), bars["rsi_14"], rtol=1e-8)
    np.testing.assert_allclose(rolling_high(close, 20), bars["max_20"])
    np.testing.assert_allclose(rolling_low(close, 20), bars["min_20"])


@pytest.mark.shared
def test_no_value_repaints_on_real_prices(shared_data: Path):
    daily = pd.read_parquet(shared_data / "us_daily.parquet", columns=["code", "high", "low", "close"])
    for _, bars in list(daily.groupby("code"))[:20]:
        high, low, close = (bars[name].to_numpy() for name in ["high", "low", "close"])
        whole = [
            sma(close, 20),
            ema(close, 20),
            rsi(close),
            atr(high, low, close),
            rolling_high(high),
            rolling_low(low),
        ]
        for end in range(0, len(bars), 25):
            h, lo, c = high[:end], low[:end], close[:end]
            part = [sma(c, 20), ema(c, 20), rsi(c), atr(h, lo, c), rolling_high(h), rolling_low(lo)]
            for now, later in zip(part, whole, strict=True):
                np.testing.assert_array_equal(now, later[:end])

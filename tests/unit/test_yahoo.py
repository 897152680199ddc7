"""Yahoo's prices turned back into traded ones, and what is refused before anything is asked."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chartinsight_lib.clients.yahoo import YahooSource
from chartinsight_lib.clock import system_clock
from chartinsight_lib.errors import ConfigError, SchemaError, Unavailable
from chartinsight_lib.normalise_yahoo import as_traded, events

LATER = date(2030, 1, 1)


def table(closes: list[float], splits: dict[int, float] | None = None, dividends: dict[int, float] | None = None):
    """Bars with all prices the close, from 2024-01-01 on, as yfinance gives them."""
    days = pd.date_range("2024-01-01", periods=len(closes))
    columns = {name: np.array(closes, dtype=float) for name in ("Open", "High", "Low", "Close")}
    frame = pd.DataFrame({**columns, "Volume": 1000.0, "Dividends": 0.0, "Stock Splits": 0.0}, index=days)
    for at, ratio in (splits or {}).items():
        frame.iloc[at, frame.columns.get_loc("Stock Splits")] = ratio
    for at, paid in (dividends or {}).items():
        frame.iloc[at, frame.columns.get_loc("Dividends")] = paid
    return frame


def divided(raw: list[float], splits: dict[int, float]) -> list[float]:
    """What Yahoo makes of traded prices: divided by the later splits, kept as single floats."""
    return [
        float(np.float32(price / np.prod([ratio for day, ratio in splits.items() if day > at])))
        for at, price in enumerate(raw)
    ]


@given(
    cents=st.lists(st.integers(1, 50_000_00), min_size=3, max_size=12),
    ratios=st.lists(st.sampled_from([2.0, 3.0, 1.5, 7.0, 20.0, 0.1, 0.04, 1.046, 50.0]), min_size=1, max_size=3),
    data=st.data(),
)
def test_a_traded_price_comes_back_to_the_cent_whatever_splits_followed(cents, ratios, data):
    splits = {data.draw(st.integers(1, len(cents) - 1)): ratio for ratio in ratios}
    # Between two days the price goes on where it was, but for the split: else it would be refused.
    raw = [cents[0] / 100]
    for at in range(1, len(cents)):
        raw.append(round(max(raw[-1] / splits.get(at, 1.0) * (1 + (cents[at] % 21 - 10) / 200), 0.02), 2))
    assume(min(raw) >= 1)  # below, a cent is too coarse for the test's own moves
    assume(max(raw) < 60_000)  # above, a single float does not tell one cent from the next
    bars = as_traded("ABCD", table(divided(raw, splits), splits), unit=0.01, today=LATER)
    assert bars["close"].tolist() == raw


@pytest.mark.parametrize("price", [28.8125, 112.03125, 99.984375])
def test_prices_of_the_time_of_fractions_come_back_as_fractions(price):
    bars = as_traded("ABCD", table(divided([price, price / 4], {1: 4.0}), {1: 4.0}), unit=0.01, today=LATER)
    assert bars["close"].iloc[0] == price


def test_later_splits_count_although_their_day_is_not_handed_on():
    bars = as_traded("ABCD", table([25.0, 25.25, 25.5], {2: 4.0}), unit=0.01, today=date(2024, 1, 2))
    assert bars["close"].tolist() == [100.0, 101.0]
    assert events("ABCD", "ABCD", table([25.0, 25.25, 25.5], {2: 4.0}), today=date(2024, 1, 2)).empty


def test_an_old_day_that_fell_by_a_third_is_no_split_that_was_forgotten():
    # 3:2, and the shares fell by 32 % on the same day.
    assert len(as_traded("ABCD", table([30.0, 20.4], {1: 1.5}), unit=0.01, today=LATER)) == 2


def test_a_young_split_that_the_prices_do_not_know_of_is_refused():
    with pytest.raises(SchemaError, match="not divided by it"):
        as_traded("ABCD", table([30.0, 20.4], {1: 1.5}), unit=0.01, today=date(2024, 1, 3))


def test_a_split_too_small_to_be_seen_is_waited_for():
    late = table([30.0, 29.0, 28.5], {1: 1.046})
    with pytest.raises(Unavailable, match="collected again from 2024-01-09"):
        as_traded("ABCD", late, unit=0.01, today=date(2024, 1, 3))
    # 1.046 to 1: 30.00 of today were 31.38 then.
    assert as_traded("ABCD", late, unit=0.01, today=date(2024, 1, 9))["close"].tolist() == [31.38, 29.0, 28.5]


def test_korean_prices_that_are_no_whole_won_are_refused():
    with pytest.raises(SchemaError, match="no multiples of 1, first on 2024-01-01"):
        as_traded("000120.KS", table([30_000.5, 30_100.0]), unit=1.0, today=LATER)


def test_a_dividend_above_the_price_is_refused():
    with pytest.raises(SchemaError, match="dividend of 40 on 2024-01-02, and the close before it was 30"):
        events("ABCD", "ABCD", table([30.0, 29.0], dividends={1: 40.0}), today=LATER)


def test_an_event_of_the_first_day_has_nothing_before_it():
    assert events("ABCD", "ABCD", table([30.0, 29.0], {0: 2.0}, {0: 1.0}), today=LATER).empty


# Splits as the companies announced them, (new shares for old) by their first day of trade.
SPLITS = {
    "AAPL": {"2000-06-21": 2, "2005-02-28": 2, "2014-06-09": 7, "2020-08-31": 4},
    "MSFT": {"2003-02-18": 2},
    "IBM": {"2021-11-04": 1.046},  # a spin-off, which Yahoo lists as a split
}


@pytest.mark.shared
@pytest.mark.parametrize("code", SPLITS)
def test_yahoos_prices_times_its_later_splits_are_what_another_source_recorded_raw(shared_data, code):
    from bokeh_sampledata import stocks

    theirs = pd.read_parquet(shared_data / "us_daily.parquet").query("code == @code")
    theirs = theirs.set_index(pd.to_datetime(theirs["date"])).sort_index()
    given = pd.DataFrame({name.capitalize(): theirs[name] for name in ("open", "high", "low", "close", "volume")})
    given = given.assign(**{"Dividends": 0.0, "Stock Splits": 0.0})
    for day, ratio in SPLITS[code].items():
        given.loc[pd.Timestamp(day), "Stock Splits"] = ratio
    bars = as_traded(code, given, unit=0.01, today=LATER).set_index("date")
    recorded = pd.DataFrame(getattr(stocks, code))
    recorded = recorded.set_index(pd.to_datetime(recorded["date"]))
    days = bars.index.intersection(recorded.index)
    assert len(days) == 3270
    later = np.array([np.prod([ratio for on, ratio in SPLITS[code].items() if pd.Timestamp(on) > day]) for day in days])
    # That file keeps four decimals, so an error grows with the splits; and the raw one cut fractions off to the cent.
    error = np.abs(bars.loc[days, "close"] - recorded.loc[days, "close"])
    assert (error <= 0.00005 * later + 0.0101).mean() > 0.995
    volumes = bars.loc[days, "volume"] / recorded.loc[days, "volume"]
    assert (np.abs(volumes - 1) < 1e-6).mean() > 0.999


@pytest.mark.parametrize(
    ("tickers", "words"),
    [
        (["7203.T"], "no ticker of the US or of Korea"),
        (["AAPL", "005930.KS"], "of the other in a source of its own"),
        (["005930.KS", "005930.KQ"], "one code on two boards"),
        ([], "name tickers of one market"),
        (["aapl"], "'aapl' is no ticker"),
    ],
)
def test_tickers_that_make_no_source_are_refused(tickers, words):
    with pytest.raises(ConfigError, match=words):
        YahooSource(tickers, clock=system_clock)


def test_without_its_package_yahoo_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("chartinsight_lib.clients.yahoo.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'chartinsight-studio\[public\]'"):
        YahooSource(["AAPL"], clock=system_clock)

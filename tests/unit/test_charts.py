"""Charts: ticks, colours, hollow bars, shading and words, each against an answer worked by hand."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from chartinsight_lib.analysis.pivots import Pivots
from chartinsight_lib.chart_axes import date_ticks, price_range, price_text, value_text, view
from chartinsight_lib.chart_palette import palette
from chartinsight_lib.charts import TRACES, candle_chart, chart_parts, trend_spans
from chartinsight_lib.db.query import Instrument
from chartinsight_lib.domain import Flag
from chartinsight_lib.errors import NotEnoughHistory
from chartinsight_lib.radar import ChartData

SAMSUNG = Instrument(1, "KRX", "005930", "삼성전자", "KRW")

# Open, high, low, close of five days; the third falls, the last is still forming.
BARS = [(100, 112, 99, 110), (110, 121, 108, 120), (120, 122, 101, 104), (104, 107, 103, 106), (106, 109, 105, 108)]


@pytest.fixture
def data() -> ChartData:
    days = pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08"], tz="UTC")
    candles = pd.DataFrame(BARS, columns=["open", "high", "low", "close"], index=days, dtype=float)
    candles["volume"] = [10.0, 20.0, 40.0, 30.0, 5.0]
    candles["value"] = [1e8, 2e8, 4e12, np.nan, 5e7]
    candles["flags"] = [0, 0, 0, 0, int(Flag.PROVISIONAL)]
    pivots = Pivots(np.array([0, 2]), np.array([1, 4]), np.array([99.0, 122.0]), np.array([-1, 1]))
    trend = np.array([0, 1, 1, -1, -1], dtype=np.int8)
    return ChartData(SAMSUNG, "1d", candles, pivots, trend, date(2024, 1, 8), "KRX", "adjusted for splits")


def trace(data: ChartData, name: str) -> dict[str, Any]:
    return chart_parts(data)[0][TRACES.index(name)]


def days(first: str, n: int) -> pd.DatetimeIndex:
    return pd.bdate_range(first, periods=n, tz="UTC")


def test_a_fortnight_has_a_tick_for_each_week_on_its_first_bar():
    # Monday 2024-01-01 and the nine weekdays after it: ten days are more than nine ticks.
    assert date_ticks(days("2024-01-01", 10), 0, 9) == ([0, 5], ["2024-01-01", "01-08"])


def test_a_week_has_a_tick_for_each_bar():
    assert date_ticks(days("2024-01-01", 5), 0, 4) == (
        [0, 1, 2, 3, 4],
        ["2024-01-01", "01-02", "01-03", "01-04", "01-05"],
    )


def test_months_begin_at_their_first_bar_and_the_bar_before_the_window_decides():
    # 2024: 1 January is bar 0, 1 February bar 23, 1 March bar 44, 1 April bar 65.
    bars = days("2024-01-01", 90)
    assert date_ticks(bars, 23, 80) == ([23, 44, 65], ["2024-02", "2024-03", "2024-04"])
    assert date_ticks(bars, 24, 80)[0] == [44, 65]


def test_a_new_year_is_named_among_days():
    assert date_ticks(days("2023-12-28", 4), 0, 3)[1] == ["2023-12-28", "12-29", "2024-01-01", "01-02"]


def test_twenty_years_have_at_most_nine_ticks_with_years_only():
    positions, labels = date_ticks(days("2004-01-01", 5200), 0, 5199)
    assert len(positions) <= 9
    assert labels[:2] == ["2005", "2010"]


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-9, -3), (90, 120)])
def test_a_window_without_bars_has_no_ticks(first: int, last: int):
    assert date_ticks(days("2024-01-01", 5), first, last) == ([], [])


def test_prices_fill_the_axis_but_for_six_hundredths_on_either_side(data: ChartData):
    # Bars 0 to 2 reach from 99 to 122: 23 high, and 1.38 of air.
    assert price_range(data.candles, 0, 2) == pytest.approx((97.62, 123.38))


def test_a_window_beyond_the_bars_can_be_looked_at(data: ChartData):
    axes = view(data.candles, -50, -20)
    assert axes["yaxis"]["range"] == [0.0, 1.0]
    assert axes["xaxis"]["tickvals"] == []


def test_korea_rises_red_and_falls_blue_elsewhere_green_and_red(data: ChartData):
    assert palette("KRX").up == palette("US").down
    korean, western = trace(data, "candles"), trace(replace(data, instrument=replace(SAMSUNG, market="US")), "candles")
    assert korean["increasing"]["fillcolor"] == palette("KRX").up == "rgb(213,43,43)"
    assert korean["decreasing"]["fillcolor"] == palette("KRX").down == "rgb(24,96,196)"
    assert western["increasing"]["fillcolor"] == "rgb(12,134,88)"


def test_an_unfinished_bar_is_hollow_and_no_other(data: ChartData):
    final, unfinished = trace(data, "candles"), trace(data, "unfinished")
    assert final["x"].tolist() == [0, 1, 2, 3]
    assert unfinished["x"].tolist() == [4]
    assert unfinished["close"].tolist() == [108.0]
    assert unfinished["increasing"]["fillcolor"] == palette("KRX").paper
    assert unfinished["increasing"]["line"]["color"] == palette("KRX").up
    volume = trace(data, "volume")["marker"]
    # 0 falls, 0.5 rises, 1 is the colour of the paper.
    assert volume["color"].tolist() == [0.5, 0.5, 0.0, 0.5, 1.0]
    assert volume["line"]["width"].tolist() == [0, 0, 0, 0, 1.2]


def test_pivots_stand_at_their_bar_and_point_to_where_they_became_known(data: ChartData):
    assert (trace(data, "lows")["x"].tolist(), trace(data, "lows")["y"].tolist()) == ([0], [99.0])
    assert (trace(data, "highs")["x"].tolist(), trace(data, "highs")["y"].tolist()) == ([2], [122.0])
    known = trace(data, "known")
    assert np.isnan(known["x"][[2, 5]]).all()
    assert known["x"][[0, 1, 3, 4]].tolist() == [0, 1, 2, 4]
    assert known["y"][[0, 1, 3, 4]].tolist() == [99, 99, 122, 122]
    assert trace(data, "zigzag")["y"].tolist() == [99.0, 122.0]


def test_trends_become_one_span_for_each_stretch():
    assert trend_spans(np.array([0, 1, 1, 0, -1, 1])) == [(1, 2, 1), (4, 4, -1), (5, 5, 1)]
    assert trend_spans(np.array([1, 1])) == [(0, 1, 1)]
    assert trend_spans(np.array([], dtype=np.int8)) == []


def test_shading_covers_whole_bars_in_the_colour_of_the_trend(data: ChartData):
    shapes = chart_parts(data)[1]["shapes"]
    assert [(s["x0"], s["x1"], s["fillcolor"]) for s in shapes] == [
        (0.5, 2.5, palette("KRX").up_shade),
        (2.5, 4.5, palette("KRX").down_shade),
    ]


def test_the_pointer_is_told_date_prices_change_volume_value_and_pivot(data: ChartData):
    notes = trace(data, "candles")["customdata"]
    # 104 after 120 is -13.33 %.
    assert notes[2] == (
        "<b>2024-01-04</b>   -13.33%<br><b>O</b> 120 <b>H</b> 122 <b>L</b> 101 <b>C</b> 104"
        "<br>Vol 40 · 4.00조<br>swing high, known on 2024-01-08"
    )
    assert "–<br>" in notes[0]  # nothing to compare the first bar with
    assert "unfinished" in trace(data, "unfinished")["customdata"][0]


def test_the_title_says_who_when_and_from_where_and_takes_no_name_for_markup(data: ChartData):
    named = replace(data, instrument=replace(data.instrument, name="<b>A&B</b>"))
    text = chart_parts(named)[1]["title"]["text"]
    assert "&lt;b&gt;A&amp;B&lt;/b&gt;" in text
    assert "daily · as of 2024-01-08 · KRX · adjusted for splits" in text
    assert "108 KRW" in text
    assert "unfinished" in text


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        (1.23456e12, "KRW", "1.23조"),
        (456_700_000_000, "KRW", "4,567억"),
        (99_995_000, "KRW", "1억"),
        (32_000_000, "KRW", "3,200만"),
        (5_000, "KRW", "5,000"),
        (1_234_000_000, "USD", "1.23B"),
        (45_600_000, "USD", "45.6M"),
        (float("nan"), "KRW", "–"),
    ],
)
def test_values_are_short_in_the_units_of_their_currency(value: float, currency: str, text: str):
    assert value_text(value, currency) == text


def test_won_have_no_decimals_and_dollars_two():
    assert (price_text(71400.0, "KRW"), price_text(71.4, "USD"), price_text(np.nan, "USD")) == ("71,400", "71.40", "–")


def test_a_figure_comes_out_zoomed_to_its_newest_bars(data: ChartData):
    figure = candle_chart(data)
    assert [t.type for t in figure.data] == ["candlestick", "candlestick", "bar", *["scatter"] * 4]
    # Five bars have room for forty: the window begins 35 bars before the first and ends a little after the last.
    assert figure.layout.xaxis.range == pytest.approx((-35.8, 5.5))
    assert figure.layout.yaxis.range == pytest.approx((97.62, 123.38))


def test_no_bar_is_an_error_that_says_what_to_do(data: ChartData):
    with pytest.raises(NotEnoughHistory, match=r"005930 has no 1d bar\. Collect it first\."):
        chart_parts(replace(data, candles=data.candles.iloc[:0]))

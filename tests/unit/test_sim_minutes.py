"""Minutes add up to their day to the share and to the won, whatever the day looks like."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.intraday import Day, day_of, minute_bars
from chartinsight_lib.simulator.model import MinuteBars
from chartinsight_lib.simulator.prices import FUND_GRID, STOCK_GRID, WON_GRID, generator, grid_of
from chartinsight_lib.simulator.sessions import session

MARKET = GeneratedMarket(3)
CODES = [one.code for one in MARKET.listings]
DAY = date(2026, 10, 6)


def traded(code: str) -> int:
    """The value of the day, won; 0 where there is none."""
    bars = MARKET.daily(code)
    return int(bars.value[bars.day == np.datetime64(DAY)].sum())


LIQUID = sorted((one.code for one in MARKET.listings if one.kind == "stock"), key=traded, reverse=True)


def parts(bars: MinuteBars, day: date) -> tuple[slice, slice]:
    """The rows of the regular session and those of the after-market."""
    closes = np.datetime64(MARKET.session(day).closes.replace(tzinfo=None), "m")
    at = int(np.searchsorted(bars.start, closes, side="right"))
    return slice(0, at), slice(at, None)


def adds_up(bars: MinuteBars, whole: Day, day: date) -> None:
    regular, late = parts(bars, day)
    assert bars.open[0] == whole.open
    assert bars.high[regular].max() == whole.high
    assert bars.low[regular].min() == whole.low
    assert bars.close[regular][-1] == whole.close
    assert bars.volume[regular].sum() == whole.volume
    assert bars.value[regular].sum() == whole.value
    assert bars.volume[late].sum() == whole.after_volume
    assert bars.value[late].sum() == whole.after_value
    assert bars.high.max() == whole.after_high
    assert bars.low.min() == whole.after_low
    assert bars.close[-1] == whole.after_close


def is_sound(bars: MinuteBars) -> None:
    assert (np.diff(bars.start) > np.timedelta64(0)).all()
    assert (bars.volume > 0).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()


@settings(max_examples=400, deadline=None)
@given(code=st.sampled_from(CODES), share=st.floats(0, 1, exclude_max=True), late=st.booleans())
def test_minutes_add_up_to_the_day_and_its_after_market(code, share, late):
    daily = MARKET.daily(code)
    first = int(np.searchsorted(daily.day, np.datetime64("2026-09-14"))) if late else 0
    if first == len(daily.day):  # delisted before
        first = 0
    row = first + int(share * (len(daily.day) - first))
    day, whole = daily.day[row].item(), day_of(daily, row)
    bars = MARKET.minutes(code, day)
    if daily.halted[row]:
        assert not len(bars.start)
        return
    adds_up(bars, whole, day)
    is_sound(bars)
    # A minute's average price lies between its own low and high, too; where few shares trade, a hair beside them.
    assert (bars.value >= 0.99 * bars.volume * bars.low).all()
    assert (bars.value <= 1.01 * bars.volume * bars.high).all()
    grid = grid_of(next(one.kind for one in MARKET.listings if one.code == code))
    for prices in (bars.open, bars.high, bars.low, bars.close):
        assert np.array_equal(grid.nearest(prices), prices)


@st.composite
def any_day(draw):
    low = draw(st.integers(1, 3_000_000))
    high = low + draw(st.integers(0, low))
    o, c = (draw(st.integers(low, high)) for _ in range(2))
    volume = draw(st.integers(1, 100_000_000))
    value = draw(st.integers(0, volume * high * 2))
    return Day(o, high, low, c, volume, value, c, high, low, 0, 0)


@settings(max_examples=300, deadline=None)
@given(whole=any_day(), seed=st.integers(0, 10**6))
def test_minutes_add_up_to_any_recorded_day(whole, seed):
    bars = minute_bars(whole, session(DAY), np.random.default_rng(seed), WON_GRID)
    adds_up(bars, whole, DAY)
    is_sound(bars)


def test_a_day_without_volume_has_no_minutes():
    assert not len(minute_bars(Day(5, 5, 5, 5, 0, 0, 5, 5, 5, 0, 0), session(DAY), generator(1), WON_GRID).start)


def test_one_share_is_one_bar_in_the_closing_auction():
    bars = minute_bars(Day(5, 5, 5, 5, 1, 5, 5, 5, 5, 0, 0), session(DAY), generator(1), WON_GRID)
    assert bars.start.astype(str).tolist() == ["2026-10-06T15:30"]


def test_the_same_minutes_come_again():
    other = GeneratedMarket(3)
    other.minutes(CODES[9], DAY)
    for code in CODES[:5]:
        one, two = MARKET.minutes(code, DAY), other.minutes(code, DAY)
        assert np.array_equal(one.start, two.start)
        assert np.array_equal(one.close, two.close)
        assert np.array_equal(one.volume, two.volume)


def test_a_liquid_stock_trades_in_every_minute_but_those_of_the_auction():
    bars = MARKET.minutes(LIQUID[0], DAY)
    regular, _ = parts(bars, DAY)
    minutes = (bars.start[regular] - np.datetime64("2026-10-06T00:00")).astype(int)
    assert minutes.tolist() == [*range(9 * 60, 15 * 60 + 20), 15 * 60 + 30]  # 381 bars, as measured


def test_the_closing_auction_is_one_price():
    for code in CODES[::20]:
        if len(bars := MARKET.minutes(code, DAY).start):
            found = MARKET.minutes(code, DAY)
            at = int(np.searchsorted(bars, np.datetime64("2026-10-06T15:30")))
            assert found.open[at] == found.high[at] == found.low[at] == found.close[at]


def test_an_illiquid_share_is_silent_in_many_minutes():
    counts = [len(MARKET.minutes(one.code, DAY).start) for one in MARKET.listings if one.names[0][1].endswith("우")]
    assert 0 < min(count for count in counts if count) < 200


def test_the_after_market_runs_from_four_to_eight_and_some_names_do_not_trade():
    silent = 0
    for code in CODES:
        bars = MARKET.minutes(code, DAY)
        if not len(bars.start):
            continue
        _, late = parts(bars, DAY)
        silent += not len(bars.start[late])
        assert (bars.start[late] >= np.datetime64("2026-10-06T16:00")).all()
        assert (bars.start[late] <= np.datetime64("2026-10-06T19:59")).all()
    assert 3 < silent < 100


def test_a_late_day_trades_an_hour_later():
    exam = date(2026, 11, 19)
    bars = MARKET.minutes(LIQUID[0], exam)
    regular, late = parts(bars, exam)
    assert bars.start[0] == np.datetime64("2026-11-19T10:00")
    assert bars.start[regular][-1] == np.datetime64("2026-11-19T16:30")
    assert bars.start[late].min() > np.datetime64("2026-11-19T16:30")


def test_there_are_no_minutes_where_there_is_no_trading():
    assert not len(MARKET.minutes(CODES[0], date(2026, 9, 24)).start)  # Chuseok
    gone = next(one for one in MARKET.listings if one.delisted_on and one.delisted_on < date(2026, 9, 1))
    assert not len(MARKET.minutes(gone.code, DAY).start)


def test_volume_is_high_at_both_ends_of_the_day():
    volumes = np.zeros(391)
    for code in LIQUID[:12]:
        bars = MARKET.minutes(code, DAY)
        regular, _ = parts(bars, DAY)
        minutes = (bars.start[regular] - np.datetime64("2026-10-06T09:00")).astype(int)
        volumes[minutes] += bars.volume[regular] / bars.volume[regular].sum()
    noon = volumes[120:270].mean()
    assert volumes[:20].mean() > 2 * noon
    assert volumes[360:380].mean() > 1.2 * noon
    assert volumes[0] > 5 * noon  # the opening auction
    assert volumes[390] > 10 * noon  # the closing auction


def test_an_index_has_minutes_too():
    bars = MARKET.minutes("001", DAY)
    daily = MARKET.index("001")
    row = int(np.searchsorted(daily.day, np.datetime64(DAY)))
    assert bars.open[0] == daily.open[row]
    assert bars.close[-1] == daily.close[row]
    assert bars.high.max() == daily.high[row]
    assert bars.volume.sum() == daily.volume[row]
    assert bars.value.sum() == daily.value[row]
    assert (bars.value >= 0).all()


@pytest.mark.parametrize(
    ("grid", "price", "tick"),
    [(STOCK_GRID, 1_999, 1), (STOCK_GRID, 2_000, 5), (STOCK_GRID, 4_995, 5), (STOCK_GRID, 5_000, 10), (STOCK_GRID, 19_990, 10),
     (STOCK_GRID, 20_000, 50), (STOCK_GRID, 50_000, 100), (STOCK_GRID, 200_000, 500), (STOCK_GRID, 500_000, 1_000),
     (FUND_GRID, 1_999, 1), (FUND_GRID, 2_000, 5), (FUND_GRID, 900_000, 5)],
)  # fmt: skip
def test_a_tick_is_that_of_krx_table(grid, price, tick):
    assert grid.tick(np.array([price])).tolist() == [tick]


@given(price=st.integers(1, 5_000_000))
def test_rounding_stays_on_the_grid_and_near(price):
    one = np.array([price])
    low, mid, high = (int(found[0]) for found in (STOCK_GRID.floor(one), STOCK_GRID.nearest(one), STOCK_GRID.ceil(one)))
    assert low <= price <= high
    assert mid in {low, high}
    for found in (low, mid, high):
        assert found % STOCK_GRID.tick(np.array([found]))[0] == 0


def test_limits_are_thirty_percent_rounded_inwards():
    low, high = STOCK_GRID.limits(np.array([1_000, 9_990, 71_400]))
    # 700 and 1,300; 6,993 and 12,987 won to tens; 49,980 and 92,820 won to the tick of 50 and of 100.
    assert low.tolist() == [700, 7_000, 50_000]
    assert high.tolist() == [1_300, 12_980, 92_800]


def test_sessions_and_minutes_agree_on_every_kind_of_day():
    for day in (date(2016, 1, 4), date(2016, 7, 29), date(2016, 11, 17), date(2026, 1, 2)):
        bars, hours = MARKET.minutes("001", day), MARKET.session(day)
        first, last = (np.datetime64(one.replace(tzinfo=None), "m") for one in (hours.opens, hours.closes))
        assert (bars.start[0], bars.start[-1]) == (first, last)
        assert bars.start[-2] == first + ((hours.auction - hours.opens) // timedelta(minutes=1) - 1)

"""Weekly and monthly bars: worked by hand, and against a plain dictionary of days."""

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartinsight_lib.domain import CANDLE, DERIVED, NUMBERS, Flag
from chartinsight_lib.errors import NotFound, SchemaError
from chartinsight_lib.timeframes import aggregate

COLUMNS = [*NUMBERS, "flags"]


def frame(bars: dict[str, tuple[float, ...]], unit: str = "ns") -> pd.DataFrame:
    """Daily candles from {day: (open, high, low, close, volume, value, flags)}, `ts` in the given unit."""
    ts = pd.DatetimeIndex(pd.to_datetime(list(bars), utc=True), name="ts").as_unit(unit)
    columns = dict(zip(COLUMNS, zip(*bars.values(), strict=True), strict=True))
    return pd.DataFrame(columns, index=ts).astype(dict.fromkeys(NUMBERS, "float64") | {"flags": "int16"})


# Thursday 29 August to Tuesday 3 September 2024, then nothing for a week, then Monday 16 September.
DAYS = {
    "2024-08-29": (10, 12, 9, 11, 100, 1100, 0),
    "2024-08-30": (11, 15, 10, 14, 200, 2600, Flag.WIDENED),
    "2024-09-02": (14, 14, 7, 8, 300, 3000, 0),
    "2024-09-03": (8, 9, 8, 9, 50, 430, 0),
    "2024-09-16": (20, 21, 19, 20, 10, 200, Flag.AFTER_MARKET),
}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_weeks_are_stamped_on_their_monday_and_an_empty_week_has_no_bar(unit):
    expected = {
        "2024-08-26": (10, 15, 9, 14, 300, 3700, Flag.WIDENED),
        "2024-09-02": (14, 14, 7, 9, 350, 3430, 0),
        "2024-09-16": (20, 21, 19, 20, 10, 200, Flag.AFTER_MARKET | Flag.PROVISIONAL),
    }
    pd.testing.assert_frame_equal(aggregate(frame(DAYS, unit), "1w"), frame(expected, unit), check_freq=False)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_months_are_stamped_on_their_first_calendar_day(unit):
    expected = {
        "2024-08-01": (10, 15, 9, 14, 300, 3700, Flag.WIDENED),
        "2024-09-01": (14, 21, 7, 20, 360, 3630, Flag.AFTER_MARKET | Flag.PROVISIONAL),
    }
    pd.testing.assert_frame_equal(aggregate(frame(DAYS, unit), "1mo"), frame(expected, unit), check_freq=False)


def test_a_week_over_new_year_belongs_to_its_iso_monday():
    days = {
        "2024-12-31": (1, 1, 1, 1, 1, 1, 0),
        "2025-01-02": (2, 2, 2, 2, 2, 2, 0),
        "2025-01-05": (3, 3, 3, 3, 3, 3, 0),
    }
    assert aggregate(frame(days), "1w").index.tolist() == [pd.Timestamp("2024-12-30", tz="UTC")]


def test_a_sum_with_a_hole_is_missing_and_not_short():
    days = DAYS | {"2024-08-30": (11, 15, 10, 14, 200, math.nan, 0)}
    weeks = aggregate(frame(days), "1w")
    assert weeks["value"].isna().tolist() == [True, False, False]
    assert weeks["volume"].tolist() == [300, 350, 10]


def test_a_provisional_day_makes_its_week_provisional_even_when_later_weeks_exist():
    days = DAYS | {"2024-08-29": (10, 12, 9, 11, 100, 1100, Flag.PROVISIONAL)}
    weeks = aggregate(frame(days), "1w")
    assert [Flag.PROVISIONAL in Flag(flags) for flags in weeks["flags"]] == [True, False, True]


def test_whole_numbers_stay_whole():
    days = frame(DAYS).astype({"volume": "int64"})
    assert aggregate(days, "1w").dtypes.astype(str).to_dict() == days.dtypes.astype(str).to_dict()


def test_daily_candles_as_daily_candles_are_unchanged():
    days = frame(DAYS)
    assert aggregate(days, "1d") is days


@pytest.mark.parametrize("timeframe", ["1w", "1mo"])
def test_no_days_give_no_bars_of_the_same_kind(timeframe):
    days = frame(DAYS)
    nothing = aggregate(days.iloc[:0], timeframe)
    assert (len(nothing), list(nothing.columns), nothing.index.dtype) == (0, COLUMNS, days.index.dtype)


def test_the_days_are_left_as_they_were():
    days = frame(DAYS)
    weeks = aggregate(days, "1w")
    weeks.loc[:, :] = 7
    pd.testing.assert_frame_equal(days, frame(DAYS))


def test_every_timeframe_derived_from_days_can_be_made():
    for timeframe in [name for name, base in DERIVED.items() if base == "1d"]:
        assert len(aggregate(frame(DAYS), timeframe)) > 0


def test_an_unknown_timeframe_is_refused_and_the_possible_ones_are_named():
    with pytest.raises(NotFound, match="'1y': daily candles give 1d, 1w, 1mo"):
        aggregate(frame(DAYS), "1y")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda days: days.drop(columns="value"), r"lack \['value'\]"),
        (lambda days: days.iloc[::-1], "not ascending"),
        (lambda days: pd.concat([days, days.iloc[-1:]]), "not ascending and unique"),
        (lambda days: days.tz_localize(None), "tz-aware in UTC"),
        (lambda days: days.tz_convert("Asia/Seoul"), "tz-aware in UTC"),
        (lambda days: days.reset_index(drop=True), "tz-aware in UTC"),
        (lambda days: days.shift(-9, freq="h"), "not 00:00 UTC"),  # midnight of Seoul
    ],
)
def test_a_frame_that_is_not_daily_candles_of_one_instrument_is_refused(broken, message):
    with pytest.raises(SchemaError, match=message):
        aggregate(broken(frame(DAYS)), "1w")


def by_dictionary(daily: pd.DataFrame, timeframe: str) -> dict[datetime, list[float]]:
    """Aggregate with nothing but dates and dictionaries."""
    periods: dict[datetime, list[float]] = {}
    for ts, *bar in daily.itertuples():
        day = date(ts.year, ts.month, ts.day)
        first = day.replace(day=1) if timeframe == "1mo" else date.fromisocalendar(*day.isocalendar()[:2], 1)
        key = datetime(first.year, first.month, first.day, tzinfo=UTC)
        if key not in periods:
            periods[key] = list(bar)
            continue
        so_far = periods[key]
        so_far[1], so_far[2], so_far[3] = max(so_far[1], bar[1]), min(so_far[2], bar[2]), bar[3]
        so_far[4], so_far[5], so_far[6] = so_far[4] + bar[4], so_far[5] + bar[5], so_far[6] | bar[6]
    periods[max(periods)][6] |= 1
    return periods


@given(
    days=st.sets(st.integers(0, 900), min_size=1, max_size=120),
    seed=st.integers(0, 2**32 - 1),
    timeframe=st.sampled_from(["1w", "1mo"]),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_bars_equal_those_of_a_plain_dictionary(days, seed, timeframe, unit):
    random = np.random.default_rng(seed)
    start = datetime(1999, 6, 1, tzinfo=UTC)
    ts = pd.DatetimeIndex([start + timedelta(days=day) for day in sorted(days)], name="ts").as_unit(unit)
    numbers = random.integers(1, 10**9, (len(days), len(COLUMNS))).astype("float64")
    daily = pd.DataFrame(numbers, columns=COLUMNS, index=ts).assign(flags=random.integers(0, 8, len(days)))
    result = aggregate(daily, timeframe)
    expected = by_dictionary(daily, timeframe)
    assert {ts.to_pydatetime(): list(bar) for ts, *bar in result.itertuples()} == expected
    assert result.index.is_monotonic_increasing
    assert result.index.dtype == daily.index.dtype


@given(days=st.sets(st.integers(0, 300), min_size=1, max_size=60), timeframe=st.sampled_from(["1w", "1mo"]))
def test_a_later_day_changes_no_completed_bar(days, timeframe):
    start = datetime(2024, 1, 1, tzinfo=UTC)
    ts = pd.DatetimeIndex([start + timedelta(days=day) for day in sorted(days)], name="ts")
    prices = np.arange(1.0, len(days) + 1)
    daily = pd.DataFrame(dict.fromkeys(NUMBERS, prices) | {"flags": 0}, index=ts)
    whole = aggregate(daily, timeframe)
    for end in range(1, len(daily) + 1):
        completed = aggregate(daily.iloc[:end], timeframe).iloc[:-1]
        pd.testing.assert_frame_equal(completed, whole.iloc[: len(completed)])


def test_the_columns_are_those_of_a_candle_frame():
    assert ["code", "ts", *aggregate(frame(DAYS), "1w").columns] == CANDLE

"""Bars of weeks, months and years: worked by hand, and against a plain dictionary of days."""

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from chartinsight_lib.domain import CANDLE, KST, NUMBERS, Flag
from chartinsight_lib.errors import NotFound, SchemaError
from chartinsight_lib.timeframes import Hours, aggregate, base_of, length_of, period_of

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


@pytest.mark.parametrize(
    ("timeframe", "base"),
    [("1m", "1m"), ("5m", "5m"), ("1d", "1d"), ("3m", "1m"), ("7m", "1m"), ("10m", "5m"), ("90m", "5m"), ("1h", "5m"),
     ("4h", "5m"), ("1w", "1d"), ("2w", "1d"), ("1mo", "1d"), ("3mo", "1d"), ("1y", "1d"), ("23h", "5m")],
)  # fmt: skip
def test_a_timeframe_names_what_it_is_made_of(timeframe, base):
    assert base_of(timeframe) == base


def test_only_minutes_and_hours_have_a_length():
    assert [length_of(name) for name in ("90m", "4h", "1d", "2w")] == [
        timedelta(minutes=90),
        timedelta(hours=4),
        None,
        None,
    ]


@pytest.mark.parametrize(
    "name", ["", "1", "m", "0m", "-5m", "1.5h", "1q", "2d", "24h", "1440m", "1W", " 1w", "1w\n", "99999m"]
)
def test_an_unknown_timeframe_is_refused_and_the_possible_ones_are_named(name):
    with pytest.raises(NotFound, match="as in 30m, 1h, 1w, 1mo, 3mo, 1y"):
        base_of(name)


@pytest.mark.parametrize(("timeframe", "base"), [("1h", "1d"), ("1w", "5m"), ("7m", "5m"), ("10m", "4h"), ("1d", "5m")])
def test_bars_that_a_timeframe_cannot_be_made_of_are_refused(timeframe, base):
    with pytest.raises(NotFound, match=f"cannot be made of bars of {base}, but of {base_of(timeframe)}"):
        aggregate(frame(DAYS), timeframe, base=base)


@pytest.mark.parametrize(
    ("timeframe", "day", "last"),
    [("1w", "2024-08-05", "2024-08-11"), ("1w", "2024-08-11", "2024-08-11"), ("2w", "2024-08-05", "2024-08-11"),
     ("2w", "2024-08-12", "2024-08-25"), ("1mo", "2024-02-01", "2024-02-29"), ("3mo", "2024-08-05", "2024-09-30"),
     ("1y", "2024-08-05", "2024-12-31"), ("12mo", "2024-08-05", "2024-12-31"), ("6mo", "2024-06-30", "2024-06-30")],
)  # fmt: skip
def test_a_period_ends_on_a_calendar_day(timeframe, day, last):
    assert period_of(timeframe, np.array([day], "datetime64[us]"))[1].astype(str).tolist() == [last]


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
        if timeframe.endswith("w"):
            first = date.fromisocalendar(*day.isocalendar()[:2], 1)
            if timeframe == "2w" and (first - date(1969, 12, 29)).days % 14:
                first -= timedelta(days=7)
        else:
            months = {"1mo": 1, "3mo": 3, "1y": 12}[timeframe]
            first = date(day.year, (day.month - 1) // months * months + 1, 1)
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
    timeframe=st.sampled_from(["1w", "2w", "1mo", "3mo", "1y"]),
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


# What proves that the newest period is complete. In the week of 26 August 2024 the market trades on every weekday; in that
# of 12 August Thursday is a holiday; 30 August is the last trading day of the month, 31 August a Saturday.


def hours(first: str, last: str, *closed: str) -> Hours:
    """Weekdays but `closed`, 09:00 to 15:30 in Seoul, with an after-market up to 20:00."""
    days = [day for day in pd.bdate_range(first, last) if f"{day:%Y-%m-%d}" not in closed]
    at = {"opens": 9 * 60, "closes": 15 * 60 + 30, "after_opens": 16 * 60, "after_closes": 20 * 60}
    table = {
        name: [(day + pd.Timedelta(minutes=minutes)).tz_localize(KST) for day in days] for name, minutes in at.items()
    }
    sessions = pd.DataFrame(table, index=pd.DatetimeIndex(days)).apply(lambda column: column.dt.tz_convert("UTC"))
    return Hours(sessions, KST, date.fromisoformat(first), date.fromisoformat(last))


AUGUST = hours("2024-08-01", "2024-09-30", "2024-08-15")


def finals(days: list[str], timeframe: str, **known) -> list[bool]:
    flat = frame(dict.fromkeys(days, (1, 1, 1, 1, 1, 1, 0)))
    return [Flag.PROVISIONAL not in Flag(flags) for flags in aggregate(flat, timeframe, **known)["flags"]]


@pytest.mark.parametrize(
    ("days", "timeframe", "final"),
    [
        (["2024-08-29", "2024-08-30"], "1w", [True]),  # Friday evening: no need to wait for Monday
        (["2024-08-28", "2024-08-29"], "1w", [False]),
        (["2024-08-22", "2024-08-29"], "1w", [True, False]),
        (["2024-08-14"], "1w", [False]),  # Friday is still to come
        (["2024-08-13", "2024-08-16"], "1w", [True]),
        (["2024-08-29"], "1mo", [False]),
        (["2024-08-30"], "1mo", [True]),
        (["2024-08-30"], "3mo", [False]),
        (["2024-09-30"], "3mo", [True]),
    ],
)
def test_a_period_is_complete_when_no_trading_day_of_it_is_left(days, timeframe, final):
    assert finals(days, timeframe, hours=AUGUST) == final


def test_a_holiday_at_the_end_of_a_week_is_not_waited_for():
    assert finals(["2024-08-14"], "1w", hours=hours("2024-08-01", "2024-09-30", "2024-08-15", "2024-08-16")) == [True]


@pytest.mark.parametrize(("hour", "final"), [(19, False), (20, True)])
def test_a_halted_days_end_makes_the_week_complete_when_it_was_asked_for(hour, final):
    friday = datetime(2024, 8, 30, hour, tzinfo=KST)
    assert finals(["2024-08-28"], "1w", hours=AUGUST, complete_until=friday) == [final]


def test_what_was_asked_for_makes_no_provisional_day_final():
    days = frame({"2024-08-30": (1, 1, 1, 1, 1, 1, Flag.PROVISIONAL)})
    later = datetime(2024, 9, 2, tzinfo=UTC)
    assert aggregate(days, "1w", hours=AUGUST, complete_until=later)["flags"].tolist() == [Flag.PROVISIONAL]


def test_days_that_the_hours_do_not_tell_of_are_not_taken_for_closed():
    assert finals(["2024-08-29"], "1w", hours=hours("2024-08-01", "2024-08-29")) == [False]
    assert finals(["2024-08-20"], "1mo", hours=hours("2024-08-29", "2024-08-31")) == [False]


def test_long_after_a_period_no_calendar_is_needed():
    assert finals(["2024-08-29"], "1w", complete_until=datetime(2024, 9, 2, tzinfo=UTC)) == [False]
    assert finals(["2024-08-29"], "1w", complete_until=datetime(2024, 9, 3, tzinfo=UTC)) == [True]


@given(st.sets(st.integers(0, 60), min_size=1, max_size=30), st.integers(0, 62), st.sampled_from(["1w", "2w", "1mo"]))
@hypothesis_settings(max_examples=500, deadline=None)
def test_a_period_is_final_exactly_when_its_days_are_known(held, asked, timeframe):
    """Every date from 1 August, of which the trading days have bars by chance, was asked for up to the evening of one."""
    start = date(2024, 8, 1)
    trading = [start + timedelta(days=n) for n in range(61)]
    trading = [day for day in trading if day.weekday() < 5 and day != date(2024, 8, 15)]
    days = [day for day in trading if (day - start).days in held]
    if not days:
        return
    evening = datetime(2024, 8, 1, 21, tzinfo=KST) + timedelta(days=asked)
    known = max(days[-1], evening.date())
    flat = frame({str(day): (1, 1, 1, 1, 1, 1, 0) for day in days})
    found = aggregate(flat, timeframe, hours=AUGUST, complete_until=evening)
    for ts, flags in found["flags"].items():
        end = min(last for last in by_dictionary_ends(timeframe) if last >= ts.date())
        beyond = end > date(2024, 9, 30)  # the hours do not tell of all its days
        left = beyond or any(known < day <= end for day in trading)
        assert (Flag.PROVISIONAL in Flag(flags)) == left


def by_dictionary_ends(timeframe: str) -> list[date]:
    """The last days of the periods from August to October 2024, from a wall calendar."""
    if timeframe == "1mo":
        return [date(2024, 8, 31), date(2024, 9, 30)]
    sundays = [date(2024, 8, 4) + timedelta(days=7 * n) for n in range(10)]
    return sundays if timeframe == "1w" else [day for day in sundays if (day - date(2024, 8, 11)).days % 14 == 0]

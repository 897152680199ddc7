"""Bars of minutes and hours: worked by hand on days of every kind, and against a loop over dictionaries."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from chartinsight_lib.domain import KST, NUMBERS, Flag
from chartinsight_lib.errors import SchemaError
from chartinsight_lib.timeframes import Hours, Series, aggregate, aggregate_many

COLUMNS = [*NUMBERS, "flags"]
FIVE = timedelta(minutes=5)

# {date: (opens, closes, after-market opens, closes)}; 17 to 19 September 2026 and the 21st are made up but for the plain day.
Day = tuple[str, str, str | None, str | None]
PLAIN: Day = ("09:00", "15:30", "16:00", "20:00")
WEEK: dict[str, Day] = {
    "2026-09-16": PLAIN,
    "2026-09-17": ("10:00", "16:30", "17:00", "20:00"),  # an exam day
    "2026-09-18": ("10:00", "15:30", None, None),  # a late opening without an after-market
    "2026-09-21": ("09:00", "12:00", "12:00", "14:00"),  # half a day, and no break before the after-market
}


def hours(days: dict[str, Day] | None = None, *, late_close: int = 10) -> Hours:
    """Hours from the day before the first of `days` to the day after the last."""
    days = WEEK if days is None else days
    names = ("opens", "closes", "after_opens", "after_closes")
    rows = [
        [pd.NaT if at is None else pd.Timestamp(f"{day} {at}", tz=KST).tz_convert("UTC") for at in times]
        for day, times in days.items()
    ]
    table = pd.DataFrame(rows, columns=names, index=pd.DatetimeIndex(list(days)))
    table = table.apply(lambda column: pd.to_datetime(column, utc=True))
    first, last = (date.fromisoformat(day) for day in (min(days), max(days)))
    return Hours(table, KST, first - timedelta(days=1), last + timedelta(days=1), timedelta(minutes=late_close))


def bars(day: str, *starts: str) -> pd.DataFrame:
    """Final bars that begin at these times in Seoul; the n-th has the prices n.2, n.4, n.0, n.3 and the volume 10 ** n."""
    ts = pd.DatetimeIndex([pd.Timestamp(f"{day} {at}", tz=KST).tz_convert("UTC") for at in starts], name="ts")
    rows = [(n + 0.2, n + 0.4, n, n + 0.3, 10**n, 2.0 * 10**n, 0) for n in range(1, len(starts) + 1)]
    return pd.DataFrame(rows, columns=COLUMNS, index=ts.as_unit("us"))


def said(frame: pd.DataFrame) -> dict[str, tuple[Any, ...]]:
    """{start in Seoul: (number of its first bar, of its last, volume)}"""
    starts = frame.index.tz_convert(KST).strftime("%d %H:%M")
    rows = zip(frame["open"].astype(int), frame["close"].astype(int), frame["volume"], strict=True)
    return dict(zip(starts, rows, strict=True))


def provisional(frame: pd.DataFrame) -> list[bool]:
    return [Flag.PROVISIONAL in Flag(flags) for flags in frame["flags"]]


def test_the_closing_auction_ends_the_last_regular_bar_and_the_after_market_begins_one_of_its_own():
    day = bars("2026-09-16", "09:00", "09:55", "10:00", "15:15", "15:30", "16:00", "16:55", "17:00", "19:55")
    assert said(aggregate(day, "1h", hours=hours())) == {
        "16 09:00": (1, 2, 110),
        "16 10:00": (3, 3, 1_000),
        "16 15:00": (4, 5, 110_000),
        "16 16:00": (6, 7, 11_000_000),
        "16 17:00": (8, 8, 10**8),
        "16 19:00": (9, 9, 10**9),
    }


def test_two_hours_stop_at_the_close():
    day = bars("2026-09-16", "14:55", "15:00", "15:30", "16:00", "18:00")
    assert said(aggregate(day, "2h", hours=hours())) == {
        "16 13:00": (1, 1, 10),
        "16 15:00": (2, 3, 1_100),
        "16 16:00": (4, 4, 10_000),
        "16 18:00": (5, 5, 100_000),
    }


def test_more_than_the_day_is_long_is_one_bar_of_each_phase():
    day = bars("2026-09-16", "09:00", "15:30", "16:00", "20:00")
    assert said(aggregate(day, "12h", hours=hours())) == {"16 09:00": (1, 2, 110), "16 16:00": (3, 4, 11_000)}


def test_the_exam_day_and_a_late_opening_are_counted_from_ten():
    exam = bars("2026-09-17", "10:00", "11:55", "12:00", "15:30", "16:25", "16:30", "17:00", "18:55", "19:00")
    assert said(aggregate(exam, "2h", hours=hours())) == {
        "17 10:00": (1, 2, 110),
        "17 12:00": (3, 3, 1_000),
        "17 14:00": (4, 4, 10_000),
        "17 16:00": (5, 6, 1_100_000),
        "17 17:00": (7, 8, 110_000_000),
        "17 19:00": (9, 9, 10**9),
    }
    late = bars("2026-09-18", "10:00", "13:55", "14:00", "15:30")
    assert said(aggregate(late, "4h", hours=hours())) == {"18 10:00": (1, 2, 110), "18 14:00": (3, 4, 11_000)}


def test_where_the_after_market_follows_at_once_the_auction_is_still_the_regular_close():
    day = bars("2026-09-21", "11:00", "11:55", "12:00", "12:05", "13:00", "14:00")
    assert said(aggregate(day, "30m", hours=hours())) == {
        "21 11:00": (1, 1, 10),
        "21 11:30": (2, 3, 1_100),
        "21 12:00": (4, 4, 10_000),
        "21 13:00": (5, 5, 100_000),
        "21 13:30": (6, 6, 1_000_000),
    }


def test_an_auction_that_was_extended_belongs_to_the_close_and_later_trades_do_not():
    day = bars("2026-09-16", "15:15", "15:35", "15:40", "15:45", "15:55")
    assert said(aggregate(day, "30m", hours=hours())) == {
        "16 15:00": (1, 3, 1_110),
        "16 15:45": (4, 5, 110_000),  # not 15:30, where the regular close is
    }
    assert said(aggregate(day, "30m", hours=hours(late_close=0))) == {
        "16 15:00": (1, 1, 10),
        "16 15:35": (2, 5, 111_100),
    }


def test_a_bar_outside_every_phase_lies_in_the_clocks_own_interval():
    day = bars("2026-09-16", "08:25", "08:30", "08:55", "09:00", "20:05")
    assert said(aggregate(day, "1h", hours=hours())) == {
        "16 08:00": (1, 3, 1_110),
        "16 09:00": (4, 4, 10_000),
        "16 20:05": (5, 5, 100_000),  # 20:00 is in the after-market
    }


def test_a_day_without_trading_has_the_clocks_intervals_from_its_own_midnight():
    saturday = bars("2026-09-19", "00:00", "08:55", "09:00", "23:55")
    assert said(aggregate(saturday, "4h", hours=hours())) == {
        "19 00:00": (1, 1, 10),
        "19 08:00": (2, 3, 1_100),
        "19 20:00": (4, 4, 10_000),
    }


def test_the_same_time_of_two_days_is_two_bars():
    one, other = bars("2026-09-16", "19:55", "20:00"), bars("2026-09-17", "10:00")
    assert list(said(aggregate(pd.concat([one, other]), "23h", hours=hours()))) == ["16 16:00", "17 10:00"]


def test_new_york_is_counted_from_half_past_nine_in_summer_and_in_winter():
    sessions = pd.DataFrame(
        {
            "opens": pd.to_datetime(["2024-11-01 13:30", "2024-11-04 14:30"], utc=True),  # the clocks change between
            "closes": pd.to_datetime(["2024-11-01 20:00", "2024-11-04 21:00"], utc=True),
            "after_opens": pd.Series([pd.NaT] * 2, dtype="datetime64[us, UTC]"),
            "after_closes": pd.Series([pd.NaT] * 2, dtype="datetime64[us, UTC]"),
        }
    ).set_index(pd.DatetimeIndex(["2024-11-01", "2024-11-04"]))
    known = Hours(sessions, ZoneInfo("America/New_York"), date(2024, 10, 31), date(2024, 11, 5))
    ts = pd.to_datetime(["2024-11-01 13:30", "2024-11-01 14:25", "2024-11-01 14:30", "2024-11-04 14:30"], utc=True)
    day = pd.DataFrame([(1, 1, 1, 1, 1, 1, 0)] * 4, columns=COLUMNS, index=ts)
    found = aggregate(day, "1h", hours=known)
    assert found.index.tz_convert("America/New_York").strftime("%d %H:%M").tolist() == [
        "01 09:30",
        "01 10:30",
        "04 09:30",
    ]


# What proves that the newest bar is complete.


@pytest.mark.parametrize(
    ("newest", "asked", "open_"),
    [
        ("09:25", None, False),  # it ends at 09:30
        ("09:20", None, True),
        ("09:20", "09:29", True),
        ("09:20", "09:30", False),
        ("15:15", "15:44", True),  # the auction can be extended to a bar that begins at 15:40
        ("15:15", "15:45", False),
        ("15:30", None, True),
        ("15:30", "20:00", False),
        ("19:55", None, True),
        ("19:55", "20:05", False),
    ],
)
def test_a_bar_is_complete_when_all_that_can_be_in_it_is_known(newest, asked, open_):
    until = pd.Timestamp(f"2026-09-16 {asked}", tz=KST).to_pydatetime() if asked else None
    found = aggregate(bars("2026-09-16", "09:00", newest), "30m", hours=hours(), complete_until=until)
    assert provisional(found)[-1] is open_


def test_a_later_bar_proves_every_bar_before_it():
    day = bars("2026-09-16", "09:00", "10:00", "16:00")
    assert provisional(aggregate(day, "30m", hours=hours())) == [False, False, True]


def test_a_bar_that_may_change_makes_its_bar_provisional_for_as_long():
    day = bars("2026-09-16", "09:00", "09:05", "10:00").assign(flags=[int(Flag.PROVISIONAL), 0, int(Flag.AFTER_MARKET)])
    found = aggregate(day, "30m", hours=hours(), complete_until=datetime(2026, 9, 17, tzinfo=UTC))
    assert found["flags"].tolist() == [Flag.PROVISIONAL, Flag.AFTER_MARKET]


# What is refused.


def test_without_hours_nothing_shorter_than_a_day_is_made():
    with pytest.raises(SchemaError, match="hours are needed"):
        aggregate(bars("2026-09-16", "09:00"), "1h")


@pytest.mark.parametrize("day", ["2026-09-14", "2026-09-23"])
def test_bars_of_days_whose_hours_were_not_given_are_refused(day):
    with pytest.raises(SchemaError, match="those of 2026-09-15 to 2026-09-22"):
        aggregate(bars(day, "12:00"), "1h", hours=hours())


# Against loops and dictionaries.

KINDS: list[Day | None] = [PLAIN, ("10:00", "15:30", None, None), ("10:00", "16:30", "17:00", "20:00"),
                           ("09:00", "15:30", "15:30", "18:00"),
                           ("09:00", "12:10", None, None), None]  # fmt: skip


def at(day: date, clock: str) -> datetime:
    return datetime.combine(day, time.fromisoformat(clock), KST)


def by_loops(
    base: pd.DataFrame, days: dict[date, Day | None], minutes: int, late: timedelta
) -> dict[datetime, list[Any]]:
    """Aggregate one bar at a time, by walking from the start of its phase in steps."""
    made: dict[tuple[Any, ...], list[Any]] = {}
    step = timedelta(minutes=minutes)
    for ts, *bar in base.itertuples():
        start = ts.to_pydatetime().astimezone(KST)
        day = start.date()
        phase, begin, stop = "none", at(day, "00:00"), None
        before = at(day, "00:00")  # where the last phase before the bar ended
        if times := days[day]:
            opens, closes = at(day, times[0]), at(day, times[1])
            after = (at(day, times[2]), at(day, times[3])) if times[2] and times[3] else None
            if opens <= start and (start <= closes or (start <= closes + late and (not after or start < after[0]))):
                phase, begin, stop = "regular", opens, closes
            elif after and closes < start and after[0] <= start <= after[1]:
                phase, begin, stop = "after", after[0], after[1]
            elif after and start > after[1]:
                phase, before = "late", after[1]
            elif start > closes:
                phase, before = "between", closes + late
        label = begin
        while label + step <= start and (stop is None or label + step < stop):
            label += step
        key = (day, phase, label)
        if key not in made:
            made[key] = [start if phase in ("late", "between") and label <= before else label, *bar]
            continue
        so_far = made[key]
        so_far[2], so_far[3], so_far[4] = max(so_far[2], bar[1]), min(so_far[3], bar[2]), bar[3]
        so_far[5], so_far[6], so_far[7] = so_far[5] + bar[4], so_far[6] + bar[5], so_far[7] | bar[6]
    return {start: rest for start, *rest in made.values()}


@st.composite
def markets(draw: st.DrawFn) -> tuple[dict[date, Day | None], pd.DataFrame]:
    """A few days in a row of any kind, and bars on the five-minute grid, most of them in the hours of trading."""
    first = date(2026, 9, 14)
    days = {first + timedelta(days=n): draw(st.sampled_from(KINDS)) for n in range(draw(st.integers(1, 4)))}
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    starts = [
        at(day, "00:00") + FIVE * n
        for day in days
        for n in range(288)
        if random.random() < (0.6 if 108 <= n <= 240 else 0.05)
    ] or [at(first, "09:00")]
    numbers = random.integers(1, 10**9, (len(starts), 6)).astype("float64")
    ts = pd.DatetimeIndex(starts).tz_convert("UTC").as_unit("us")
    frame = pd.DataFrame(numbers, columns=NUMBERS, index=ts.rename("ts"))
    return days, frame.assign(volume=frame["volume"].astype("int64"), flags=random.choice([0, 2, 4, 8], len(starts)))


def hours_of(days: dict[date, Day | None], late_close: int) -> Hours:
    found = hours(
        {str(day): times for day, times in days.items() if times} or {str(min(days)): PLAIN}, late_close=late_close
    )
    sessions = found.sessions if any(days.values()) else found.sessions.iloc[:0]
    return Hours(sessions, KST, min(days), max(days), found.late_close)


@given(market=markets(), minutes=st.sampled_from([10, 15, 30, 45, 60, 120, 240]), late=st.sampled_from([0, 10]))
@hypothesis_settings(max_examples=200, deadline=None)
def test_bars_equal_those_of_a_loop_over_dictionaries(market, minutes, late):
    days, base = market
    end = at(max(days), "00:00") + timedelta(days=2)
    found = aggregate(base, f"{minutes}m", hours=hours_of(days, late), complete_until=end)
    expected = by_loops(base, days, minutes, timedelta(minutes=late))
    assert {ts.to_pydatetime(): list(bar) for ts, *bar in found.itertuples()} == expected
    assert found.index.is_monotonic_increasing
    assert found.index.is_unique
    assert found["volume"].sum() == base["volume"].sum()


def traded(start: datetime, days: dict[date, Day | None]) -> bool:
    """Whether a bar begins in a phase of trading."""
    times = days[start.date()] or ()
    phases = [(times[n], times[n + 1]) for n in range(0, len(times), 2) if times[n]]
    return any(at(start.date(), str(opens)) <= start <= at(start.date(), str(closes)) for opens, closes in phases)


@given(
    market=markets(),
    steps=st.sampled_from([("10m", "30m"), ("30m", "1h"), ("15m", "1h"), ("1h", "4h"), ("45m", "90m")]),
    late=st.sampled_from([0, 10]),
)
@hypothesis_settings(max_examples=200, deadline=None)
def test_in_two_steps_it_comes_to_the_same(market, steps, late):
    days, base = market
    base = base[[traded(ts.to_pydatetime().astimezone(KST), days) for ts in base.index]]
    # Where the after-market follows at once, its first bar has the name of the auction.
    assume(not base.empty)
    assume(all(not times or times[1] != times[2] for times in days.values()))
    known, end = hours_of(days, late), at(max(days), "00:00") + timedelta(days=2)
    shorter, longer = steps
    between = aggregate(base, shorter, hours=known, complete_until=end)
    pd.testing.assert_frame_equal(
        aggregate(between, longer, base=shorter, hours=known, complete_until=end),
        aggregate(base, longer, hours=known, complete_until=end),
    )


@given(
    market=markets(),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    timeframe=st.sampled_from(["10m", "1h", "1w", "1mo"]),
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_many_instruments_at_once_equal_each_alone(market, cuts, timeframe):
    days, base = market
    if timeframe in ("1w", "1mo"):
        base = base.set_axis(pd.date_range("2026-07-01", periods=len(base), tz="UTC", unit="us", name="ts"))
    bounds = np.array([0, *sorted(min(cut, len(base)) for cut in cuts), len(base)])
    columns = {name: base[name].to_numpy() for name in COLUMNS}
    known = hours_of(days, 10)
    until = np.array([np.datetime64("2026-09-15T03:00", "us")] * (len(bounds) - 1))
    ts = base.index.tz_localize(None).to_numpy("datetime64[us]")
    found = aggregate_many(Series(ts, columns, bounds), timeframe, hours=known, complete_until=until)
    for k in range(len(bounds) - 1):
        alone = aggregate(base.iloc[bounds[k] : bounds[k + 1]], timeframe, hours=known,
                          complete_until=datetime(2026, 9, 15, 3, tzinfo=UTC))  # fmt: skip
        rows = slice(found.bounds[k], found.bounds[k + 1])
        assert found.ts[rows].tolist() == [one.to_pydatetime().replace(tzinfo=None) for one in alone.index]
        for name in COLUMNS:
            np.testing.assert_array_equal(found.columns[name][rows], alone[name])

"""When a job is due: slots worked out from the hours that KRX and NYSE published, read off by hand."""

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartinsight_lib.calendars import calendar
from chartinsight_lib.schedule import newest_slot, next_slot, parse_schedule

KST = ZoneInfo("Asia/Seoul")


def slots(told, first: str, last: str, market: str = "KRX") -> list[str]:
    """The slots of the days from `first` to `last`, both included, as a person reads them."""
    known = calendar(market)
    after = datetime.fromisoformat(first).replace(tzinfo=known.zone) - timedelta(microseconds=1)
    until = datetime.fromisoformat(last).replace(tzinfo=known.zone) + timedelta(days=1, microseconds=-1)
    return [f"{slot:%m-%d %H:%M}" for slot in parse_schedule(told).slots(known, after, until)]


def test_minutes_before_the_opening_follow_the_day_of_the_entrance_exam():
    # 2026-11-19: KRX opens an hour later, at 10:00.
    assert slots({"at": "open-30"}, "2026-11-18", "2026-11-20") == ["11-18 08:30", "11-19 09:30", "11-20 08:30"]


def test_minutes_after_the_close_follow_the_day_of_the_entrance_exam():
    assert slots({"at": "close+75"}, "2026-11-18", "2026-11-20") == ["11-18 16:45", "11-19 17:45", "11-20 16:45"]


def test_on_holidays_and_weekends_nothing_is_due():
    # Chuseok 2024: Monday 16 to Wednesday 18 September.
    assert slots({"at": "open"}, "2024-09-13", "2024-09-20") == ["09-13 09:00", "09-19 09:00", "09-20 09:00"]


def test_the_first_trading_day_of_the_year_begins_an_hour_later():
    assert slots({"at": "open"}, "2025-12-30", "2026-01-05") == ["12-30 09:00", "01-02 10:00", "01-05 09:00"]


def test_the_last_price_is_that_of_the_after_market_since_there_is_one():
    assert slots({"at": "end"}, "2026-09-11", "2026-09-14") == ["09-11 15:30", "09-14 20:00"]


def test_half_days_in_new_york_end_at_one():
    # The day after Thanksgiving 2024.
    assert slots({"at": "close+10"}, "2024-11-27", "2024-11-29", "US") == ["11-27 16:10", "11-29 13:10"]


def test_every_five_minutes_counts_from_the_first_moment_and_includes_the_last():
    found = slots({"every": 5, "from": "open", "until": "open+20"}, "2026-11-19", "2026-11-19")
    assert found == ["11-19 10:00", "11-19 10:05", "11-19 10:10", "11-19 10:15", "11-19 10:20"]


def test_a_stretch_that_begins_between_two_slots_begins_with_the_later_one():
    known = calendar("KRX")
    schedule = parse_schedule({"every": 5, "from": "open", "until": "close"})
    now = datetime(2026, 11, 18, 9, 7, tzinfo=KST)
    assert next_slot(schedule, known, now, within=timedelta(hours=1)) == datetime(2026, 11, 18, 9, 10, tzinfo=KST)
    assert newest_slot(schedule, known, now, within=timedelta(hours=1)) == datetime(2026, 11, 18, 9, 5, tzinfo=KST)


def test_a_slot_belongs_to_the_stretch_that_it_ends_and_not_to_the_one_that_it_begins():
    known, slot = calendar("KRX"), datetime(2026, 11, 18, 9, 5, tzinfo=KST)
    for told in ({"every": 5, "from": "open", "until": "close"}, {"at": "open+5"}, {"cron": "5 9 * * *"}):
        schedule = parse_schedule(told)
        assert list(schedule.slots(known, slot - timedelta(minutes=1), slot)) == [slot]
        assert list(schedule.slots(known, slot, slot + timedelta(minutes=1))) == []


def test_cron_is_read_in_the_markets_zone_and_leaves_out_days_without_trading():
    line = {"cron": "0 22 * * *"}
    assert slots(line, "2024-09-13", "2024-09-19") == ["09-13 22:00", "09-19 22:00"]
    # Saturday is 6, as everywhere but in APScheduler, where a crontab's 6 is a Sunday.
    assert slots({"cron": "0 2 * * 6", "days": "all"}, "2024-09-13", "2024-09-21") == ["09-14 02:00", "09-21 02:00"]


def test_cron_runs_once_on_the_days_on_which_the_clock_is_changed():
    # New York: 2024-03-10 has no 02:30; 2024-11-03 has 01:30 twice.
    assert slots({"cron": "30 2 * * *", "days": "all"}, "2024-03-09", "2024-03-11", "US") == [
        "03-09 02:30",
        "03-10 03:00",
        "03-11 02:30",
    ]
    assert slots({"cron": "30 1 * * *", "days": "all"}, "2024-11-02", "2024-11-04", "US") == [
        "11-02 01:30",
        "11-03 01:30",
        "11-04 01:30",
    ]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("open-30", "expected {at: open-30}, {every: 5, from: begin-10"),
        ({}, "expected {at: open-30}"),
        ({"at": "open-30", "cron": "* * * * *"}, "expected {at: open-30}"),
        ({"every": 5, "from": "open"}, "expected {at: open-30}"),
        ({"at": "noon"}, "'noon' is no moment of a day. Expected begin, open, close, end"),
        ({"at": "open-"}, "'open-' is no moment of a day"),
        ({"at": 30}, "30 is no moment of a day"),
        ({"every": 0, "from": "open", "until": "close"}, "every: expected a whole number of minutes, 1 to 1440, and 0"),
        ({"every": True, "from": "open", "until": "close"}, "every: expected a whole number of minutes"),
        ({"cron": "* * *"}, "cron: '* * *' is no cron line of five fields"),
        ({"cron": "61 * * * *"}, "cron: '61 * * * *' is no cron line of five fields"),
        ({"cron": "0 2 * * *", "days": "some"}, "days: expected trading or all, and 'some' is neither"),
    ],
)
def test_a_schedule_that_cannot_be_read_says_what_is_expected(told, sentence):
    with pytest.raises(ValueError, match="^" + sentence.translate({ord(c): f"\\{c}" for c in "{}*'+["})):
        parse_schedule(told)


FORMS = [
    {"at": "begin-35"}, {"at": "close+75"}, {"at": "end+120"}, {"every": 5, "from": "begin-10", "until": "end+10"},
    {"every": 7, "from": "open", "until": "close"}, {"cron": "*/20 9-15 * * 1-5"}, {"cron": "0 2 * * 6", "days": "all"},
]  # fmt: skip


@given(
    told=st.sampled_from(FORMS),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 1)),  # noqa: DTZ001 - given its zone below
    cuts=st.lists(st.integers(0, 6 * 24 * 60), min_size=1, max_size=5),
)
def test_a_stretch_cut_into_pieces_has_the_same_slots_none_twice_and_none_lost(told, start, cuts):
    known, schedule = calendar("KRX"), parse_schedule(told)
    after = start.replace(tzinfo=KST)
    bounds = [after, *sorted(after + timedelta(minutes=minutes) for minutes in cuts), after + timedelta(days=6)]
    whole = list(schedule.slots(known, bounds[0], bounds[-1]))
    pieces = [slot for one, next_ in pairwise(bounds) for slot in schedule.slots(known, one, next_)]
    assert pieces == whole == sorted(set(whole))

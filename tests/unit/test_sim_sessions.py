"""Trading days and hours; the truths are KRX's calendar as others recorded it, and dates printed in its notices."""

from datetime import date, time

import numpy as np
import pandas as pd
import pytest

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.sessions import closed_days, session, trading_days


def hours(day: date) -> tuple[str, str]:
    found = session(day)
    return f"{found.opens:%H:%M}", f"{found.closes:%H:%M}"


@pytest.mark.shared
def test_the_days_are_those_on_which_krx_traded(shared_data):
    held = pd.read_csv(shared_data / "krx_sessions.csv")["date"]
    closed = pd.read_csv(shared_data / "krx_holidays.csv")["date"]  # knows of two days more
    wanted = sorted(set(held[held >= "2010"]) - set(closed))
    assert trading_days(date(2010, 1, 1), date(2026, 12, 31)).astype(str).tolist() == wanted


@pytest.mark.shared
def test_the_hours_are_those_that_krx_kept(shared_data):
    # Later exam days are wrong in that calendar, and so is the last day of its own range.
    held = pd.read_csv(shared_data / "krx_sessions.csv").query("'2010' <= date < '2021'")
    assert [hours(date.fromisoformat(day)) for day in held["date"]] == list(
        zip(held["open_kst"], held["close_kst"], strict=True)
    )


@pytest.mark.parametrize("day", ["2021-11-18", "2022-11-17", "2023-11-16", "2024-11-14", "2025-11-13", "2026-11-19"])
def test_the_day_of_the_entrance_exam_is_an_hour_late(day):
    assert hours(date.fromisoformat(day)) == ("10:00", "16:30")
    assert session(date.fromisoformat(day)).auction.time() == time(16, 20)


def test_the_first_trading_day_of_a_year_opens_late():
    assert hours(date(2026, 1, 2)) == ("10:00", "15:30")
    assert hours(date(2027, 1, 4)) == ("10:00", "15:30")
    assert hours(date(2026, 1, 5)) == ("09:00", "15:30")


def test_trading_ended_at_three_until_july_2016():
    assert hours(date(2016, 7, 29)) == ("09:00", "15:00")
    assert hours(date(2016, 8, 1)) == ("09:00", "15:30")


def test_the_after_market_begins_on_its_day():
    assert session(date(2026, 9, 11)).after_opens is None
    found = session(date(2026, 9, 14))
    assert (found.after_opens.time(), found.after_closes.time()) == (time(16), time(20))
    assert session(date(2026, 9, 14), after_market_since=None).after_opens is None


def test_the_after_market_waits_for_the_close_of_the_exam_day():
    assert session(date(2026, 11, 19)).after_opens.time() == time(16, 30)


@pytest.mark.parametrize(
    "day",
    ["2026-06-03", "2026-07-17", "2026-09-24", "2026-10-05", "2026-12-31", "2027-02-09", "2027-10-11", "2028-04-12"],
)
def test_elections_restored_and_substitute_holidays_are_closed(day):
    assert date.fromisoformat(day) in closed_days()


def test_only_weekdays_are_in_the_table():
    assert {day.weekday() for day in closed_days()} <= set(range(5))


def test_no_year_has_an_odd_number_of_days():
    years = trading_days(date(2010, 1, 1), date(2028, 12, 31)).astype("datetime64[Y]")
    _, counts = np.unique(years, return_counts=True)
    assert counts.min() >= 240
    assert counts.max() <= 252


def test_days_beyond_the_table_are_refused():
    with pytest.raises(ConfigError, match="2010 to 2028"):
        trading_days(date(2028, 1, 1), date(2029, 1, 1))

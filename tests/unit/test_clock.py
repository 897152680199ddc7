"""The clock: the machine's, or one that stands still; never without a time zone."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from chartinsight_lib.clock import clock_from, file_clock, fixed_clock, running_text, system_clock, write_clock
from chartinsight_lib.errors import ConfigError

HALF_PAST_THREE_IN_SEOUL = datetime(2024, 8, 5, 15, 30, tzinfo=timezone(timedelta(hours=9)))


def test_a_fixed_clock_says_the_same_moment_in_utc_every_time():
    clock = fixed_clock(HALF_PAST_THREE_IN_SEOUL)
    assert [clock(), clock()] == [datetime(2024, 8, 5, 6, 30, tzinfo=UTC)] * 2
    assert clock().tzinfo is UTC


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ConfigError, match="2024-08-05T15:30:00 has no time zone. Write it with an offset"):
        fixed_clock(HALF_PAST_THREE_IN_SEOUL.replace(tzinfo=None))


@pytest.mark.parametrize(
    "text", ["2024-08-05T15:30+09:00", "2024-08-05T06:30Z", "2024-08-05 06:30:00+00:00", "2024-08-05T02:30-04:00"]
)
def test_a_setting_fixes_the_clock_at_its_moment(text):
    assert clock_from(text)() == HALF_PAST_THREE_IN_SEOUL


@pytest.mark.parametrize("text", ["2024-08-05T15:30", "2024-08-05"])
def test_a_setting_without_an_offset_is_refused(text):
    with pytest.raises(ConfigError, match="has no time zone"):
        clock_from(text)


@pytest.mark.parametrize("text", ["yesterday", "15:30+09:00", "2024-13-45T00:00Z", "1722839400"])
def test_a_setting_that_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"is not a time. Expected ISO 8601 .* 2024-08-05T15:30\+09:00") as raised:
        clock_from(text)
    assert repr(text) in str(raised.value)


def test_without_a_setting_the_clock_is_the_machines():
    assert clock_from(None) is system_clock
    first, second = system_clock(), system_clock()
    assert first.tzinfo is UTC
    assert second >= first or first - second < timedelta(hours=1)  # the machine's clock may be set back


# A clock that somebody else keeps.


def test_a_clock_in_a_file_runs_as_fast_as_it_says_from_the_moment_it_says(tmp_path):
    then, since = datetime(2026, 10, 13, 1, tzinfo=UTC), datetime(2026, 11, 24, 12, tzinfo=UTC)
    write_clock(tmp_path / "clock", running_text(then, 60, since))
    machine = since + timedelta(seconds=90)
    clock = file_clock(tmp_path / "clock", machine=lambda: machine)
    assert clock() == datetime(2026, 10, 13, 2, 30, tzinfo=UTC)  # a minute and a half are an hour and a half
    write_clock(tmp_path / "clock", running_text(then, 0, since))
    assert clock() == then  # read anew, and standing still


def test_a_setting_follows_a_clock_in_a_file(tmp_path):
    write_clock(tmp_path / "deep" / "clock", running_text(HALF_PAST_THREE_IN_SEOUL, 0, HALF_PAST_THREE_IN_SEOUL))
    assert clock_from(f"@{tmp_path / 'deep' / 'clock'}")() == HALF_PAST_THREE_IN_SEOUL


@pytest.mark.parametrize(
    "written",
    [
        "",
        "2026-10-13T01:00+09:00",
        "2026-10-13T01:00 x1 2026-10-13T01:00Z",
        "x x1 x",
        "2026-10-13T01:00Z x-1 2026-10-13T01:00Z",
    ],
)
def test_a_file_that_holds_no_clock_is_an_error_that_says_what_to_do(tmp_path, written):
    (tmp_path / "clock").write_text(written)
    with pytest.raises(ConfigError, match=r"clock: .*clock cannot be followed .* start one, or unset CHARTINSIGHT_NOW"):
        file_clock(tmp_path / "clock")()


def test_a_clock_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be followed"):
        clock_from(f"@{tmp_path / 'nowhere'}")()

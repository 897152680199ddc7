"""What is due at a moment, hour by hour, worked out by hand from the calendar of KRX."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from chartinsight_lib.calendars import calendar
from chartinsight_lib.due import Due, Passed, Waiting, due, lacks, parameters, waits_for
from chartinsight_lib.errors import BeyondHorizon
from chartinsight_lib.jobs import Job, read_jobs
from chartinsight_lib.schedule import parse_schedule
from chartinsight_lib.settings import PROJECT, Settings

KST = ZoneInfo("Asia/Seoul")
KNOWN = calendar("KRX")
JOBS = read_jobs(PROJECT)


def at(text: str) -> datetime:
    """A time of October or November 2026 in Seoul, as in "10-12 08:30"."""
    return datetime.fromisoformat(f"2026-{text}").replace(tzinfo=KST)


def job(told, **how) -> Job:
    return Job("job", Path("job.ipynb"), 60, schedule=parse_schedule(told), **how)


def steps(one: Job, now: str, newest: str | None = None, waiting=()) -> list:
    """What is due, for a person: (slot, slots covered) or (slots left out, reason)."""
    known = {one.name: at(newest)} if newest else {}
    again = [Waiting(one.name, at(slot), at(when)) for slot, when in waiting]
    text = "{:%m-%d %H:%M}".format
    found = []
    for step in due([one], KNOWN, at(now), known, again):
        if isinstance(step, Due):
            found.append((text(step.slot), [text(slot) for slot in step.covers]))
        else:
            assert isinstance(step, Passed)
            found.append(([text(slot) for slot in step.slots], step.reason))
    return found


MORNING, CYCLE = {"at": "begin-30"}, {"every": 5, "from": "begin-10", "until": "end+10"}


def test_a_job_that_never_ran_begins_with_its_newest_slot():
    # Monday; Friday 10-09 is Hangeul Day.
    assert steps(job(MORNING), "10-12 08:29") == [("10-08 08:30", [])]
    assert steps(job(MORNING), "10-12 08:30") == [("10-12 08:30", [])]
    assert steps(job(MORNING, catch_up="all"), "10-12 08:30") == [("10-12 08:30", [])]


def test_a_job_that_never_ran_has_missed_nothing():
    assert steps(job({"at": "close+75"}, within_min=300), "10-13 09:30") == []
    assert steps(job({"at": "close+75"}, within_min=300), "10-13 18:00") == [("10-13 16:45", [])]


def test_what_was_done_is_not_due_again():
    assert steps(job(MORNING), "10-12 23:00", newest="10-12 08:30") == []


def test_on_holidays_and_weekends_nothing_is_due():
    assert steps(job(MORNING), "10-11 23:00", newest="10-08 08:30") == []


def test_on_the_day_of_the_entrance_exam_everything_is_an_hour_later():
    assert steps(job(MORNING), "11-19 09:29", newest="11-18 08:30") == []
    assert steps(job(MORNING), "11-19 09:30", newest="11-18 08:30") == [("11-19 09:30", [])]


def test_slots_that_passed_while_nothing_ran_are_covered_by_the_newest():
    assert steps(job(MORNING), "10-15 12:00", newest="10-08 08:30") == [
        ("10-15 08:30", ["10-12 08:30", "10-13 08:30", "10-14 08:30"])
    ]
    assert steps(job(CYCLE), "10-12 10:02", newest="10-12 09:45") == [("10-12 10:00", ["10-12 09:50", "10-12 09:55"])]


def test_of_a_job_whose_days_count_each_has_its_run_the_oldest_first():
    assert steps(job(MORNING, catch_up="all"), "10-14 12:00", newest="10-08 08:30") == [
        ("10-12 08:30", []),
        ("10-13 08:30", []),
        ("10-14 08:30", []),
    ]


def test_a_slot_for_which_it_is_too_late_is_left_out_with_the_reason():
    late = job(CYCLE, within_min=30)
    reason = "nothing ran within 30 minutes after it"
    assert steps(late, "10-12 20:50", newest="10-12 20:00") == [(["10-12 20:05", "10-12 20:10"], reason)]
    assert steps(late, "10-12 20:36", newest="10-12 20:00") == [(["10-12 20:05"], reason), ("10-12 20:10", [])]


def test_three_days_off_are_recorded_slot_by_slot_and_run_once():
    found = steps(job(CYCLE, within_min=30), "10-15 09:00", newest="10-12 20:10")
    # 08:50 to 20:10 of Tuesday and Wednesday: 137 slots a day; of Thursday 08:50 and 08:55 are covered by 09:00.
    assert len(found[0][0]) == 2 * 137
    assert found[1:] == [("10-15 09:00", ["10-15 08:50", "10-15 08:55"])]


def test_what_failed_is_due_again_when_its_time_has_come():
    again = [("10-12 08:30", "10-12 08:32")]
    assert steps(job(MORNING), "10-12 08:31", newest="10-12 08:30", waiting=again) == []
    assert steps(job(MORNING), "10-12 08:32", newest="10-12 08:30", waiting=again) == [("10-12 08:30", [])]


def test_what_is_to_be_tried_again_is_covered_by_a_newer_slot():
    again = [("10-12 09:55", "10-12 10:30")]
    assert steps(job(CYCLE), "10-12 10:00", newest="10-12 09:55", waiting=again) == [("10-12 10:00", ["10-12 09:55"])]
    each = job(MORNING, catch_up="all")
    again = [("10-12 08:30", "10-13 08:00")]
    assert steps(each, "10-13 08:30", newest="10-12 08:30", waiting=again) == [("10-12 08:30", []), ("10-13 08:30", [])]


def test_beyond_the_calendar_nothing_is_guessed():
    with pytest.raises(BeyondHorizon):
        due([job(MORNING)], KNOWN, datetime(2029, 1, 2, 10, tzinfo=KST), {}, [])


def test_a_job_without_a_schedule_is_never_due():
    assert due([Job("job", Path("job.ipynb"), 60)], KNOWN, at("10-12 10:00"), {}, []) == []


def test_a_clock_that_is_set_back_makes_nothing_due_a_second_time():
    assert steps(job(CYCLE), "10-12 09:30", newest="10-12 10:00") == []


def test_a_job_waits_for_the_slots_of_the_same_day_of_those_before_it():
    names = {name: JOBS[name] for name in ("collect_daily", "repair_gaps", "scan_radar")}
    assert waits_for(names, JOBS["scan_radar"], KNOWN, at("11-19 09:30")) == {
        "collect_daily": at("11-19 09:30"),
        "repair_gaps": at("11-19 09:30"),
    }
    weekly = job({"cron": "0 9 * * 6", "days": "all"}, after={"collect_daily": "ended"})
    assert waits_for(names, weekly, KNOWN, at("11-21 09:00")) == {}  # a Saturday: nothing comes before it


def test_a_job_waits_for_the_newest_slot_that_is_not_later_than_its_own():
    names = {"collect_quotes": JOBS["collect_quotes"]}
    later = job({"at": "open+7"}, after={"collect_quotes": "ended"})
    assert waits_for(names, later, KNOWN, at("10-12 09:07")) == {"collect_quotes": at("10-12 09:05")}


def test_a_setting_that_a_job_needs_and_lacks_is_named():
    settings = Settings(_env_file=None)
    assert lacks(JOBS["collect_financials"], settings) == "it needs CHARTINSIGHT_DART_KEY, which is not set"
    assert lacks(JOBS["collect_financials"], settings.model_copy(update={"dart_key": "k"})) is None


def test_a_run_is_told_the_day_that_had_ended_at_its_slot():
    declared = ["source", "market", "as_of", "top"]
    # On Tuesday morning the newest day that has ended is Monday; on Monday morning it is Thursday, Friday being a holiday.
    told = parameters(job(MORNING), declared, KNOWN, at("10-13 08:30"), "kiwoom")
    assert told == {"source": "kiwoom", "market": "KRX", "as_of": "2026-10-12"}
    assert parameters(job(MORNING), ["as_of"], KNOWN, at("10-12 08:30"), "kiwoom") == {"as_of": "2026-10-08"}


def test_what_the_list_of_jobs_sets_is_not_told_otherwise():
    own = replace(job(MORNING), parameters={"source": "krx"})
    assert parameters(own, ["source"], KNOWN, at("10-13 08:30"), "kiwoom") == {}


def test_the_projects_own_day_is_listed_collected_repaired_and_scanned_in_this_order_then_followed():
    followed = [one for one in JOBS.values() if one.live or not one.on_request]
    found = due(followed, KNOWN, at("10-13 09:30"), {}, [])
    assert [(step.job.name, f"{step.slot:%m-%d %H:%M}") for step in found if isinstance(step, Due)] == [
        ("sync_instruments", "10-13 08:25"), ("collect_daily", "10-13 08:30"), ("collect_quotes", "10-13 09:30"),
        ("collect_intraday", "10-13 09:30"), ("repair_gaps", "10-13 08:30"), ("scan_radar", "10-13 08:30"),
    ]  # fmt: skip
    assert not [step for step in found if isinstance(step, Passed)]  # the official closes of Monday were never missed


@pytest.mark.parametrize("after", [timedelta(), timedelta(minutes=1), timedelta(hours=8), timedelta(days=3)])
def test_however_long_nothing_ran_each_slot_is_run_covered_or_left_out_once(after):
    for one in (job(CYCLE, within_min=30), job(CYCLE), job(MORNING, catch_up="all", within_min=3000)):
        since, now = at("10-12 10:00"), at("10-12 10:00") + after
        found = due([one], KNOWN, now, {one.name: since}, [])
        told = [slot for step in found for slot in ((*step.covers, step.slot) if isinstance(step, Due) else step.slots)]
        assert sorted(told) == list(one.schedule.slots(KNOWN, since, now))

"""The health page and the command's text without a browser and a database: words for a state, and nothing taken for markup."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from chartinsight_lib.calendars import calendar
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import DatabaseError
from chartinsight_lib.schedule import parse_schedule
from chartinsight_lib.status import Reason, Status, as_text
from chartinsight_lib.status.judge import live_limit_s, open_since, overdue, size, span
from chartinsight_lib.status.nouns import (
    Completeness,
    Freshness,
    JobHealth,
    LastRun,
    LastSlot,
    Pace,
    Quota,
    SlotOf,
    Storage,
)
from chartinsight_lib.status.text import percent
from chartinsight_lib.widgets import HealthPage

NOW = datetime(2026, 10, 13, 16, 20, tzinfo=KST)
EVIL = '<img src=x onerror="alert(1)">'


def made(**update: object) -> Status:
    """A KRX of which everything is known and nothing is wrong."""
    slot = LastSlot(NOW.replace(minute=15), "succeeded", None, 1, 1, None)
    run = LastRun(
        "1", "succeeded", "up", NOW.replace(minute=15), NOW.replace(minute=16), 60.0, {"read": 5}, None, None, None
    )
    job = JobHealth(
        "collect_quotes", "every 5 min", True, NOW.replace(minute=20), slot, slot, run, NOW, 0, None, False,
        (SlotOf(NOW.replace(minute=15), "succeeded"), SlotOf(NOW.replace(minute=20), "to come")),
    )  # fmt: skip
    status = Status(
        market="KRX", zone="Asia/Seoul", now=NOW, reasons=(), jobs=(job,),
        freshness=Freshness(True, "kiwoom", False, NOW, date(2026, 10, 12), 1, NOW, 300.0, 0.0, 600.0),
        completeness=Completeness(None, None, 0, 0, 0, 0, 0, None, ()), quota=Quota((), ()), alerts=(), schedulers=(),
        storage=Storage(10**9, 10**6, 10**10, None, None),
    )  # fmt: skip
    return replace(status, **update)


class StandIn:
    """A health that says what it is told to."""

    def __init__(self, *answers: Status | Exception) -> None:
        self.answers = list(answers)

    def status(self) -> Status:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def written(page: HealthPage) -> str:
    return "".join(section.value for section in page.sections.values())


def test_a_market_is_as_bad_as_the_worst_of_its_reasons():
    amber, red = Reason("amber", "quota", "slow"), Reason("red", "freshness", "old")
    assert [made(reasons=why).state for why in ((), (amber,), (amber, red))] == ["green", "amber", "red"]


def test_nothing_in_a_status_is_taken_for_markup():
    evil = made(
        market=EVIL, reasons=(Reason("red", EVIL, EVIL),),
        jobs=(replace(made().jobs[0], name=EVIL, last_run=replace(made().jobs[0].last_run, state=EVIL, error=EVIL)),),
        freshness=replace(made().freshness, source=EVIL), quota=Quota((Pace("k", EVIL, 1.0, 1.0, 0.0),), ()),
    )  # fmt: skip
    page = HealthPage(StandIn(evil))
    assert "<img" not in written(page)
    assert "&lt;img" in written(page)


def test_a_page_that_cannot_be_read_is_red_and_recovers():
    page = HealthPage(
        StandIn(made(), DatabaseError("database: it is `down`"), RuntimeError("postgresql://u:geheim@h"), made())
    )
    fine = written(page)
    assert "GREEN" in fine
    page.refresh()
    assert "RED" in written(page)
    assert "it is <code>down</code>" in written(page)
    assert "collect_quotes" not in written(page)  # what was true once is not left standing
    page.refresh()
    assert "geheim" not in written(page)
    page.refresh()
    assert written(page) == fine


def test_simulated_data_carry_a_banner():
    page = HealthPage(StandIn(made(freshness=replace(made().freshness, simulated=True))))
    assert "no price in this market is real" in page.sections["head"].value


def test_the_text_is_aligned_and_names_what_runs_next():
    lines = as_text(made())
    head = next(at for at, line in enumerate(lines) if line.startswith("  job "))
    assert lines[0] == "KRX  GREEN  2026-10-13 16:20:00 KST"
    assert lines[head + 1].index("10-13 16:20") == lines[head].index("next")
    assert lines[head + 1].endswith("5 read")


def test_the_limit_is_two_cycles_and_on_a_quick_clock_a_minute_of_real_time():
    assert [live_limit_s(300, speed) for speed in (0.0, 1.0, 5.0, 10.0, 60.0)] == [600, 600, 600, 600, 3600]


def test_between_the_close_and_the_after_market_nothing_is_open():
    known = calendar("KRX")
    opened = [
        open_since(known, NOW.replace(hour=hour, minute=minute))
        for hour, minute in ((8, 59), (15, 29), (15, 45), (16, 0))
    ]
    assert opened == [None, NOW.replace(hour=9, minute=0), None, NOW.replace(hour=16, minute=0)]


def test_over_night_the_cycles_of_a_job_are_counted_and_not_the_hours():
    schedule = parse_schedule({"every": 5, "from": "begin-10", "until": "end+10"})
    evening = NOW.replace(hour=20, minute=5)  # 20:10 is the last of the day, 08:50 and 08:55 the first of the next
    found = list(schedule.slots(calendar("KRX"), evening, evening + timedelta(hours=13)))[:3]
    assert [f"{slot:%d %H:%M}" for slot in found] == ["13 20:10", "14 08:50", "14 08:55"]
    assert not overdue(found, found[2], 1.0)
    assert overdue(found, found[2] + timedelta(seconds=1), 1.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(5.4, "5 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 days")]
)
def test_a_span_is_written_in_its_largest_unit(seconds: float, words: str):
    assert span(seconds) == words


def test_sizes_and_shares_are_written_for_people():
    assert [size(count) for count in (12, 1_500, 2_000_000, 71_900_000_000)] == ["12 B", "1.5 kB", "2.0 MB", "71.9 GB"]
    assert [percent(share) for share in (1.0, 0.99999, 0.98, None)] == ["100 %", "99.99 %", "98 %", "–"]

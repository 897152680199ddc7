"""What `up` does while it stands, hour by hour, with the jobs themselves left out: which it runs, and when."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from chartinsight_lib import standing
from chartinsight_lib.errors import RunFailed
from chartinsight_lib.settings import PROJECT

KST = ZoneInfo("Asia/Seoul")
MONDAY = datetime(2026, 10, 12, 10, tzinfo=KST)
ROUND = ["collect_quotes", "collect_intraday"]


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """Stands through `moments`, one round each, and returns (when, job) of each run."""

    def through(
        start: datetime | None,
        moments: list[datetime],
        *,
        fails: Callable[[str], bool] = lambda _: False,
        market: str = "KRX",
        days: tuple[str, ...] = ("2026-10-08", "2026-10-12"),
        say: Callable[[str], None] = lambda _: None,
    ) -> list[tuple[str, str]]:
        now, left, done, newest = [moments[0]], list(moments), [], list(days)

        def run_job(_: Any, __: Any, job: Any, parameters: dict[str, Any]) -> Any:
            done.append((f"{now[0]:%a %H:%M}", job.name))
            scanning = {"market": market, "as_of": newest[0]}
            if job.name == "collect_daily" and len(newest) > 1:
                newest.pop(0)
            assert parameters == (scanning if job.name == "scan_radar" else {"source": "kiwoom"})
            if fails(job.name):
                raise RunFailed(f"{job.name}: it failed.")
            return SimpleNamespace(rows={})

        def ended(_: float) -> bool:
            if left:
                now[0] = left.pop(0)
                return False
            return True

        monkeypatch.setattr(standing, "run_job", run_job)
        monkeypatch.setattr(standing, "newest_day", lambda *_: newest[0])
        settings = SimpleNamespace(project=PROJECT, clock=lambda: now[0], runs=tmp_path)
        standing.keep_collecting(None, settings, "kiwoom", market, ended, say, since=start)
        return done

    return through


def test_in_market_hours_quotes_and_five_minute_bars_are_collected_round_after_round(stand):
    moments = [MONDAY + timedelta(minutes=5 * n) for n in range(2)]
    assert stand(MONDAY, moments) == [("Mon 10:00", job) for job in ROUND] + [("Mon 10:05", job) for job in ROUND]


@pytest.mark.parametrize("hour", [0, 6, 8, 21])
def test_outside_market_hours_and_on_weekends_nothing_is_collected(stand, hour):
    assert stand(MONDAY, [MONDAY.replace(hour=hour)]) == []
    saturday = MONDAY + timedelta(days=5)
    assert [job for _, job in stand(saturday, [saturday])] == []


def collected(stand, moments: list[datetime], **how) -> list[str]:
    """When there was a round of quotes."""
    return [when for when, job in stand(moments[0], moments, **how) if job == "collect_quotes"]


def test_a_holiday_is_no_day_to_collect_on(stand):
    holiday = datetime(2026, 10, 9, 8, 30, tzinfo=KST)  # Hangeul Day, a Friday
    moments = [holiday + timedelta(hours=hours) for hours in (0, 2, 4, 24)]
    assert stand(holiday - timedelta(hours=20), moments) == []


def test_on_the_day_of_the_entrance_exam_everything_is_an_hour_later(stand):
    wednesday = datetime(2026, 11, 18, 12, tzinfo=KST)
    hours = [(8, 30), (9, 29), (9, 30), (9, 49), (9, 50), (16, 40), (20, 9), (20, 10)]
    moments = [datetime(2026, 11, 19, *at, tzinfo=KST) for at in hours]
    done = stand(wednesday, moments)
    assert [when for when, job in done if job == "collect_daily"] == ["Thu 09:30"]
    assert [when for when, job in done if job == "collect_quotes"] == ["Thu 09:50", "Thu 16:40", "Thu 20:09"]


def test_rounds_end_with_the_after_market_and_before_there_was_one_with_the_close(stand):
    before, since = (datetime(2026, 9, day, 8, 49, tzinfo=KST) for day in (11, 14))
    for day, ends in ((before, ["15:39"]), (since, ["15:39", "15:40", "20:09"])):
        later = [
            day.replace(hour=hour, minute=minute) for hour, minute in ((8, 50), (15, 39), (15, 40), (20, 9), (20, 10))
        ]
        assert [when[-5:] for when in collected(stand, [day, *later])] == ["08:50", *ends]


def test_a_collection_that_failed_on_friday_is_made_up_for_on_saturday(stand):
    friday = datetime(2026, 10, 16, 8, 30, tzinfo=KST)
    saturday = friday + timedelta(days=1)
    done = stand(friday - timedelta(hours=20), [saturday, saturday + timedelta(hours=1)])
    assert [when for when, job in done if job == "collect_daily"] == ["Sat 08:30"]


def test_beyond_the_calendar_nothing_is_collected_and_that_is_said_once_an_hour(stand):
    start = datetime(2029, 1, 2, 10, tzinfo=KST)
    said: list[str] = []
    assert stand(start, [start + timedelta(minutes=30 * n) for n in range(4)], say=said.append) == []
    assert len(said) == 2
    assert all("NOTHING IS COLLECTED" in line and "2028-12-31" in line for line in said)


def test_shortly_before_the_next_opening_the_day_that_ended_is_collected_and_scanned_once(stand):
    tuesday = MONDAY + timedelta(days=1)
    moments = [tuesday.replace(hour=8, minute=minute) for minute in (0, 29, 30, 40)]
    assert stand(MONDAY, moments) == [
        ("Tue 08:30", job) for job in ("sync_instruments", "collect_daily", "repair_gaps", "scan_radar")
    ]
    # On a holiday there is no newer day, and nothing to scan.
    assert [job for _, job in stand(MONDAY, moments, days=("2026-10-12",))] == [
        "sync_instruments",
        "collect_daily",
        "repair_gaps",
    ]


@pytest.mark.parametrize("start", [None, MONDAY.replace(hour=7)])
def test_a_first_collection_that_failed_or_came_before_the_base_prices_is_made_up_for(stand, start):
    jobs = [job for _, job in stand(start, [MONDAY])]
    assert jobs == ["sync_instruments", "collect_daily", "repair_gaps", "scan_radar", *ROUND]


def test_what_failed_is_tried_again_in_an_hour_and_what_came_of_it_is_scanned_at_once(stand):
    tuesday = MONDAY.replace(hour=8, minute=30) + timedelta(days=1)
    moments = [tuesday, tuesday + timedelta(minutes=5), tuesday + timedelta(minutes=60)]
    done = stand(MONDAY, moments, fails=lambda job: job == "collect_daily")
    assert [(when, job) for when, job in done if job not in ROUND] == [
        ("Tue 08:30", "sync_instruments"), ("Tue 08:30", "collect_daily"), ("Tue 08:30", "repair_gaps"),
        ("Tue 08:30", "scan_radar"), ("Tue 09:30", "sync_instruments"), ("Tue 09:30", "collect_daily"),
        ("Tue 09:30", "repair_gaps"),
    ]  # fmt: skip
    done = stand(MONDAY, moments[:2], fails=lambda job: job == "scan_radar")
    assert [(when, job) for when, job in done if job == "scan_radar"] == [
        ("Tue 08:30", "scan_radar"),
        ("Tue 08:35", "scan_radar"),
    ]
    assert stand(MONDAY, [MONDAY], fails=lambda job: job == "collect_quotes") == [("Mon 10:00", job) for job in ROUND]


def test_of_a_simulated_market_fifty_executed_copies_of_each_repeated_job_are_kept(stand, tmp_path):
    folder = tmp_path / "collect_quotes"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.ipynb").touch()
    stand(MONDAY, [MONDAY], market="KRX")
    assert len(list(folder.iterdir())) == 60
    stand(MONDAY, [MONDAY], market="SIM")
    assert len(list(folder.iterdir())) == 50

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
        days: tuple[str, ...] = ("2026-10-09", "2026-10-12"),
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
        standing.keep_collecting(None, settings, "kiwoom", market, ended, lambda _: None, since=start)
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


def test_shortly_before_the_next_opening_the_day_that_ended_is_collected_and_scanned_once(stand):
    tuesday = MONDAY + timedelta(days=1)
    moments = [tuesday.replace(hour=8, minute=minute) for minute in (0, 29, 30, 40)]
    assert stand(MONDAY, moments) == [("Tue 08:30", job) for job in ("sync_instruments", "collect_daily", "scan_radar")]
    # On a holiday there is no newer day, and nothing to scan.
    assert [job for _, job in stand(MONDAY, moments, days=("2026-10-12",))] == ["sync_instruments", "collect_daily"]


@pytest.mark.parametrize("start", [None, MONDAY.replace(hour=7)])
def test_a_first_collection_that_failed_or_came_before_the_base_prices_is_made_up_for(stand, start):
    jobs = [job for _, job in stand(start, [MONDAY])]
    assert jobs == ["sync_instruments", "collect_daily", "scan_radar", *ROUND]


def test_what_failed_is_tried_again_in_an_hour_and_what_came_of_it_is_scanned_at_once(stand):
    tuesday = MONDAY.replace(hour=8, minute=30) + timedelta(days=1)
    moments = [tuesday, tuesday + timedelta(minutes=5), tuesday + timedelta(minutes=60)]
    done = stand(MONDAY, moments, fails=lambda job: job == "collect_daily")
    assert [(when, job) for when, job in done if job not in ROUND] == [
        ("Tue 08:30", "sync_instruments"), ("Tue 08:30", "collect_daily"), ("Tue 08:30", "scan_radar"),
        ("Tue 09:30", "sync_instruments"), ("Tue 09:30", "collect_daily"),
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

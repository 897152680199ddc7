"""No two price bases mix, whatever is loaded in which order; no bar counts as final that may still change."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients import open_source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report, collect_daily
from chartinsight_lib.db import bars, query
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.radar import Radar, scan

CLOCK = fixed_clock(datetime(2024, 8, 9, 9, tzinfo=UTC))
HEADER = "code,date,open,high,low,close,volume"
DAYS = [f"2024-07-{day:02}" for day in (22, 23, 24, 25, 26, 29, 30, 31)]


def line(day: str, close: float, *more: float, code: str = "005930") -> str:
    numbers = (close, close + 1, close - 1, close, 10, *more)
    return ",".join([code, day, *(f"{number:g}" for number in numbers)])


@pytest.fixture
def load(loader: Engine, tmp_path: Path) -> Callable[..., Report]:
    """Loads CSV files given as {path: lines}."""

    def load(files: dict[str, list[str]], *, adjusted: bool = False) -> Report:
        for name, lines in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("\n".join([HEADER + ",adj_close" * adjusted, *lines]) + "\n")
        source = open_source("files:" + ",".join(str(tmp_path / name) for name in files))
        with ledger.notebook_run(loader, None, job="test", clock=CLOCK) as run_id:
            sync_instruments(loader, source, run_id=run_id, clock=CLOCK)
            return collect_daily(loader, source, run_id=run_id, clock=CLOCK)

    return load


def ask(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement))]


def closes(engine: Engine) -> list[float]:
    """The closes of the one instrument, as the library reads them; the view must say the same."""
    with engine.connect() as conn:
        found = bars.candles(conn, query.find_instrument(conn, "005930").id)["close"].tolist()
    assert [row[0] for row in ask(engine, "SELECT close FROM api.candles ORDER BY ts")] == found
    return found


SPLIT = [line(day, 200, 100) for day in DAYS[:4]] + [line(day, 100, 100) for day in DAYS[4:]]
"""A split of 2 for 1 on the fifth day: raw closes, and closes adjusted for it."""


def test_a_split_that_two_sources_tell_of_is_undone_once(load, loader):
    load({"a.csv": SPLIT}, adjusted=True)
    load({"b.csv": SPLIT}, adjusted=True)
    assert ask(loader, "SELECT count(*) FROM live.factors") == [(2,)]
    assert closes(loader) == [100.0] * 8


def test_a_factor_that_its_source_takes_back_is_forgotten(load, loader):
    load({"a.csv": SPLIT}, adjusted=True)
    whole = [line(day, 200, 200) for day in DAYS[:4]] + [line(day, 100, 100) for day in DAYS[4:]]
    load({"a.csv": whole}, adjusted=True)
    assert ask(loader, "SELECT count(*) FROM live.factors") == [(0,)]
    assert closes(loader) == [200.0] * 4 + [100.0] * 4


@pytest.mark.parametrize("overlap", [1, 3, 8])
def test_a_file_on_another_basis_is_joined_however_few_bars_overlap(load, loader, overlap):
    """Held at 200; then told at half the price. The newest day of each file is unfinished and says nothing of the basis."""
    load({"a.csv": [line(day, 200) for day in DAYS] + [line("2024-08-01", 200)]})
    short = [line(day, 100) for day in DAYS[8 - overlap :]] + [line(f"2024-08-{day:02}", 100) for day in (1, 2, 5)]
    report = load({"b.csv": short})
    assert report.errors == {}
    assert closes(loader) == [100.0] * 11
    assert ask(loader, "SELECT ex_date::text, price_factor, kind FROM api.factors") == [
        ("2024-08-01", 0.5, "restatement")
    ]
    with loader.connect() as conn:
        raw = conn.execute(text("SELECT close FROM api.candles_raw ORDER BY ts")).scalars().all()
    assert raw == [200.0] * 8 + [100.0] * 3


def test_without_a_day_in_common_a_jump_hides_what_lies_before_it(load, loader):
    load({"a.csv": [line(day, 200) for day in DAYS]})
    load({"b.csv": [line(f"2024-08-{day:02}", 100) for day in (1, 2, 5)]})
    assert closes(loader) == [100.0] * 3, "whether 200 was halved by a split or by the market nobody has told"
    assert ask(loader, "SELECT count(*) FROM api.candles_raw") == [(11,)]
    # A third telling covers both, and settles it.
    load({"c.csv": [line(day, 100) for day in DAYS] + [line(f"2024-08-{day:02}", 100) for day in (1, 2, 5, 6)]})
    assert closes(loader) == [100.0] * 12


def test_a_bar_that_comes_late_for_a_hole_before_a_seam_is_on_the_side_of_its_own_file(load, loader):
    """Held at 200 up to the third day, at half the price from the sixth on. What comes for the fifth agrees with all it meets."""
    load({"a.csv": [line(day, 200) for day in DAYS[:4]]})
    load({"b.csv": [line(day, 100) for day in (DAYS[2], *DAYS[5:])]})
    assert closes(loader) == [100.0] * 7
    load({"c.csv": [line(day, 100) for day in DAYS[4:]]})
    assert closes(loader) == [100.0] * 8
    assert ask(loader, "SELECT ex_date::text, price_factor FROM api.factors") == [(DAYS[4], 0.5)]


def test_bars_that_lie_among_those_held_and_meet_none_of_them_are_left_out_and_that_is_recorded(load, loader):
    load({"a.csv": [line(day, 100) for day in (*DAYS[:2], *DAYS[5:])]})
    load({"b.csv": [line(day, 100) for day in DAYS[2:5]]})
    assert len(closes(loader)) == 5
    assert ask(loader, "SELECT verdict, overlap FROM api.restatements") == [("apart", 0)]


def test_a_date_to_come_is_rejected_and_does_not_make_the_forming_bar_final(load, loader):
    report = load({"a.csv": [*(line(day, 100) for day in DAYS), line("2099-01-01", 100)]})
    assert report.items["a.csv"]["rejected"] == 1
    assert ask(loader, "SELECT rule FROM api.quarantine") == [("future_date",)]
    assert ask(loader, "SELECT day::text, final FROM api.candles ORDER BY ts DESC LIMIT 2") == [
        ("2024-07-31", False),
        ("2024-07-30", True),
    ]


def test_an_unfinished_bar_of_a_day_that_was_halted_after_all_is_dropped(load, loader):
    load({"a.csv": [line(day, 100) for day in DAYS]})
    load({"a.csv": [line("2024-07-30", 100), "005930,2024-07-31,0,0,0,100,0", line("2024-08-01", 100)]})
    days = [day for (day,) in ask(loader, "SELECT day::text FROM api.candles ORDER BY ts")]
    assert days == [*DAYS[:-1], "2024-08-01"]
    assert ask(loader, "SELECT ts::date::text, kind FROM api.gaps") == [("2024-07-31", "halted")]


def test_files_of_the_same_name_are_counted_and_kept_apart(load, loader):
    report = load(
        {
            "p/x.csv": ["005930,2024-07-22,-1,1,1,1,1", line("2024-07-23", 100)],
            "q/x.csv": ["005930,2024-07-24,-1,1,1,1,1", line("2024-07-25", 100)],
        }
    )
    assert {name: rows["read"] for name, rows in report.items.items()} == {"p/x.csv": 2, "q/x.csv": 2}
    assert sorted(ask(loader, "SELECT item, source_row FROM api.quarantine")) == [("p/x.csv", 1), ("q/x.csv", 1)]
    assert ask(loader, "SELECT DISTINCT source FROM api.candles") == [("files:p/x.csv,q/x.csv",)]


def test_a_scan_that_newer_final_bars_have_overtaken_is_called_stale(load, loader):
    load({"a.csv": [line(day, 100) for day in DAYS]})
    with ledger.notebook_run(loader, None, job="scan", clock=CLOCK) as run_id:
        scan(loader, market="KRX", as_of=datetime(2024, 7, 30, tzinfo=UTC).date(), clock=CLOCK, run_id=run_id)
    days = (
        "2024-07-31",
        "2024-08-01",
        "2024-08-02",
        "2024-08-05",
        "2024-08-06",
        "2024-08-07",
        "2024-08-08",
        "2024-08-09",
    )
    load({"a.csv": [line(day, 100) for day in days]})
    stale = Radar(loader, CLOCK).status().stale
    assert stale is not None
    assert stale.startswith("The scan is of 2024-07-30, and newer final bars are held, up to 2024-08-08.")

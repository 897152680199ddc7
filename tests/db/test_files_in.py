"""Files into the tables: raw prices day by day, several tellings one after the other, folders with bad files, shorter bars."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients import open_source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report, collect_daily, collect_intraday
from chartinsight_lib.db import bars
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, RunFailed, SchemaError
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.quality.check import check
from chartinsight_lib.quality.verify import verify
from chartinsight_lib.settings import Settings
from chartinsight_lib.studio import Options, run_pipeline

CLOCK = fixed_clock(datetime(2026, 6, 1, 12, tzinfo=UTC))
"""After the last day of all files."""
HEADER = "code,date,open,high,low,close,volume\n"
PORTAL = "종목코드,종목명,종가,시가,고가,저가,거래량\n"

Load = Callable[..., Report]


@pytest.fixture
def load(loader: Engine) -> Load:
    """Load files as the jobs do."""

    def load(spec: str, timeframe: str = "1d", **options: Any) -> Report:
        source = open_source(spec, clock=CLOCK, **options)
        with ledger.notebook_run(loader, None, job="collect", clock=CLOCK) as run_id:
            sync_instruments(loader, source, run_id=run_id, clock=CLOCK).check()
            if timeframe == "5m":
                return collect_intraday(loader, source, [], run_id=run_id, clock=CLOCK)
            return collect_daily(loader, source, run_id=run_id, clock=CLOCK)

    return load


def write(folder: Path, name: str, content: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
    return f"files:{folder / name}"


def ask(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement))]


BARS = "SELECT to_char(day, 'MM-DD'), close::float8, final, source FROM api.candles_raw ORDER BY code, day"
SEAMS = "SELECT code, kind FROM api.factors ORDER BY 1, 2"
CROSS = {"20240805": 71_400, "20240806": 72_500, "20240807": 74_700}
"""Official closes of one stock, as a portal gives them: a file a day."""


def cross_section(folder: Path, day: str, close: int) -> str:
    return write(folder, f"krx_{day}.csv", PORTAL + f"005930,삼성전자,{close},{close},{close},{close},9\n")


# Prices as they were traded.


@pytest.mark.parametrize("order", list(itertools.permutations(CROSS)))
def test_raw_days_that_come_one_by_one_in_any_order_are_one_series_without_a_seam(loader, load, tmp_path, order):
    for day in order:
        spec = cross_section(tmp_path, day, CROSS[day])
        load(spec, columns={"date": "@name"}, prices="raw", last_day="final").check()
    assert [row[:3] for row in ask(loader, BARS)] == [
        ("08-05", 71_400, True),
        ("08-06", 72_500, True),
        ("08-07", 74_700, True),
    ]
    assert ask(loader, SEAMS) == []
    assert ask(loader, "SELECT * FROM api.restatements") == []


def test_days_of_which_nobody_says_that_they_are_raw_are_joined_by_seams(loader, load, tmp_path):
    for day, close in CROSS.items():
        load(cross_section(tmp_path, day, close), columns={"date": "@name"}, last_day="final").check()
    assert ask(loader, SEAMS) == [("005930", "assumed"), ("005930", "assumed")]


def test_an_unfinished_raw_day_stays_when_another_days_file_comes(loader, load, tmp_path):
    """A service that was asked again and does not bring it would take it back; a file of another day says nothing of it."""
    for day in ("20240807", "20240805"):
        load(cross_section(tmp_path, day, CROSS[day]), columns={"date": "@name"}, prices="raw").check()
    assert [row[:3] for row in ask(loader, BARS)] == [("08-05", 71_400, False), ("08-07", 74_700, False)]


def test_a_raw_price_that_a_later_file_tells_differently_is_a_correction(loader, load, tmp_path):
    rows = "005930,2024-08-05,70,70,70,70,9\n005930,2024-08-06,80,80,80,{0},9\n005930,2024-08-07,80,80,80,80,9\n"
    load(write(tmp_path, "a.csv", HEADER + rows.format(80)), prices="raw", last_day="final").check()
    load(write(tmp_path, "b.csv", HEADER + rows.format(79)), prices="raw", last_day="final").check()
    assert [row[1] for row in ask(loader, BARS)] == [70, 79, 80]
    assert ask(loader, SEAMS) == []
    assert ask(loader, "SELECT close::float8 FROM live.revisions") == [(80,)], "what it said before is kept"


def test_raw_bars_take_the_place_of_adjusted_ones_and_a_factor_leads_to_the_rest(loader, load, tmp_path):
    """Adjusted for 2:1 on the 7th; raw for the 6th and 7th only: the 5th stays adjusted, and reads as before."""
    adjusted = "005930,2024-08-05,50,50,50,50,18\n005930,2024-08-06,51,51,51,51,18\n005930,2024-08-07,52,52,52,52,9\n"
    raw = "005930,2024-08-06,102,102,102,102,9\n005930,2024-08-07,52,52,52,52,9\n"
    load(write(tmp_path, "adjusted.csv", HEADER + adjusted), last_day="final").check()
    load(write(tmp_path, "raw.csv", HEADER + raw), prices="raw", last_day="final").check()
    assert [row[1] for row in ask(loader, BARS)] == [50, 102, 52]
    with loader.connect() as conn:
        ((number,),) = conn.execute(text("SELECT id FROM live.instruments")).all()
        assert bars.candles(conn, number)["close"].tolist() == pytest.approx([50, 51, 52])


@pytest.mark.shared
def test_official_cross_sections_of_the_whole_market_come_in_day_by_day_without_a_seam(
    loader, load, shared_data, tmp_path
):
    table = pd.read_parquet(shared_data / "krx_crosssection_raw.parquet")
    dates = sorted(table["date"].unique())[-3:]
    names = {
        "code": "종목코드",
        "name": "종목명",
        "open": "시가",
        "high": "고가",
        "low": "저가",
        "close": "종가",
        "volume": "거래량",
    }
    for day in (dates[1], dates[0], dates[2]):
        own = table[table["date"] == day].rename(columns=names)[list(names.values())]
        path = tmp_path / f"krx_{pd.Timestamp(day):%Y%m%d}.csv"
        own.to_csv(path, index=False, encoding="cp949", quoting=1)
        load(f"files:{path}", columns={"date": "@name"}, prices="raw", last_day="final").check()
    told = table[table["date"].isin(dates)]
    traded = told[told["open"] > 0]
    assert ask(loader, "SELECT count(*), sum(close), sum(volume)::bigint FROM live.candles") == [
        (len(traded), float(traded["close"].sum()), int(traded["volume"].sum()))
    ]
    assert ask(loader, "SELECT count(*) FROM ops.gaps WHERE kind = 'halted'") == [(len(told) - len(traded),)]
    assert ask(loader, "SELECT count(*) FROM live.factors") == [(0,)]


# Several tellings in one file.


@pytest.mark.shared
def test_of_a_file_of_eight_sources_one_goes_in_and_another_is_told_from_it(loader, load, shared_data):
    spec = f"files:{shared_data / 'krx_daily_vendor_compare.parquet'}"
    with pytest.raises(SchemaError, match="the column 'source' names several for"):
        load(spec)
    chosen = {"source": "kiwoom_rest_2025"}
    report = load(spec, only=chosen)
    table = pd.read_parquet(shared_data / "krx_daily_vendor_compare.parquet")
    own = table[table["source"] == "kiwoom_rest_2025"]
    (rows,) = report.items.values()
    assert (rows["read"], rows["inserted"], rows["rejected"]) == (len(own), len(own), 0) == (1_655, 1_655, 0)
    named = "files:krx_daily_vendor_compare.parquet[source=kiwoom_rest_2025]"
    assert ask(loader, "SELECT DISTINCT source FROM live.candles") == [(named,)]


# Files that fail.


def test_a_bad_file_of_a_folder_fails_by_name_and_the_others_are_stored(loader, load, tmp_path):
    write(tmp_path / "data", "005930.csv", HEADER[5:] + "2024-08-05,1,1,1,1,1\n")
    write(tmp_path / "data", "000660.csv", HEADER[5:] + "2024-08-05,1,1")
    report = load(f"files:{tmp_path / 'data'}", last_day="final")
    assert set(report.items) == {"005930.csv"}
    with pytest.raises(RunFailed, match=r"000660.csv: .*Expected 6 columns, got 3"):
        report.check()
    assert [row[1] for row in ask(loader, BARS)] == [1]
    assert ask(loader, "SELECT item, state FROM api.run_items ORDER BY item") == [
        ("000660.csv", "failed"),
        ("005930.csv", "done"),
        ("files:data", "done"),
    ]


def test_a_file_of_rows_none_of_which_is_a_bar_fails(loader, load, tmp_path):
    report = load(write(tmp_path, "a.csv", HEADER + "005930,2099-08-05,1,1,1,1,1\n005930,2024-08-05,0,0,0,0,7\n"))
    assert report.errors == {
        "a.csv": "none of its 2 rows is a bar (future_date 1, zero_price_with_volume 1). They lie in api.quarantine; check what "
        "the file is."
    }


def test_a_rejected_row_of_a_file_keeps_its_number_also_where_prices_are_raw(loader, load, tmp_path):
    spec = write(tmp_path, "a.csv", HEADER + "005930,2024-08-05,1,1,1,1,1\n005930,2024-08-06,1,1,1,-1,1\n")
    load(spec, prices="raw").check()
    assert ask(loader, "SELECT item, source_row, rule FROM ops.quarantine") == [("a.csv", 2, "bad_price")]


# What does not depend on the portion.


@pytest.mark.parametrize("portions", [[5], [2, 3], [3, 2], [1, 1, 1, 1, 1]])
def test_a_bar_on_another_scale_is_held_and_found_however_its_file_was_cut(loader, load, tmp_path, portions):
    closes = [700, 710, 71_000, 720, 730]
    rows = [f"005930,2024-08-{5 + at:02},{close},{close},{close},{close},9" for at, close in enumerate(closes)]
    at = 0
    for number, size in enumerate(portions):
        spec = write(tmp_path, f"{number}.csv", HEADER + "\n".join(rows[at : at + size]) + "\n")
        load(spec, prices="raw", last_day="final").check()
        at += size
    assert [row[1] for row in ask(loader, BARS)] == closes
    with ledger.notebook_run(loader, None, job="verify", clock=CLOCK) as run_id:
        found = verify(loader, "KRX", run_id=run_id, clock=CLOCK).found
    assert [(f"{row.ts:%m-%d}", row.rule) for row in found.itertuples()] == [("08-07", "lone_scale")]


# Bars of five minutes.

FIVE = "datetime,open,high,low,close,volume\n"


def five(*closes: int, start: str = "2024-08-05 09:00") -> str:
    times = pd.date_range(start, periods=len(closes), freq="5min")
    return FIVE + "".join(
        f"{at:%Y-%m-%d %H:%M},{close},{close},{close},{close},9\n" for at, close in zip(times, closes, strict=True)
    )


def test_a_second_download_of_five_minute_bars_finishes_the_last_and_corrects_the_others(loader, load, tmp_path):
    shown = (
        "SELECT to_char(ts AT TIME ZONE 'Asia/Seoul', 'HH24:MI'), close::float8, final FROM api.candles_raw ORDER BY ts"
    )
    load(write(tmp_path, "a_005930.csv", five(10, 11, 12)), "5m").check()
    assert ask(loader, shown) == [("09:00", 10, True), ("09:05", 11, True), ("09:10", 12, False)]
    report = load(write(tmp_path, "b_005930.csv", five(10, 19, 13, 14)), "5m")
    (rows,) = report.items.values()
    assert {name: rows[name] for name in ("inserted", "updated", "unchanged")} == {
        "inserted": 1,
        "updated": 2,
        "unchanged": 1,
    }
    assert ask(loader, shown) == [("09:00", 10, True), ("09:05", 19, True), ("09:10", 13, True), ("09:15", 14, False)]


def test_an_unfinished_bar_of_a_file_never_takes_the_place_of_a_final_one(loader, load, tmp_path):
    load(write(tmp_path, "a_005930.csv", five(10, 11, 12)), "5m", last_day="final").check()
    load(write(tmp_path, "b_005930.csv", five(10, 11, 99)), "5m").check()
    assert ask(loader, "SELECT close::float8 FROM api.candles_raw ORDER BY ts") == [(10,), (11,), (12,)]


def test_files_know_no_running_day_and_files_of_days_no_shorter_bars(loader, load, tmp_path):
    daily = write(tmp_path, "005930.csv", HEADER[5:] + "2024-08-05,1,1,1,1,1\n")
    with pytest.raises(SchemaError, match="holds no bars of five minutes"):
        load(daily, "5m")
    shorter = write(tmp_path, "000660.csv", five(10, 11))
    with pytest.raises(ConfigError, match="holds bars of five minutes alone, and the radar is made of daily ones"):
        Options(shorter).market_code(Settings(_env_file=None))
    assert Options(daily).market_code(Settings(_env_file=None)) == "KRX"


# The whole road.


@pytest.fixture
def road(database: Database, settings: Settings, loader: Engine) -> Iterator[Callable[[Options], list[str]]]:
    del loader  # empties the tables afterwards

    def road(options: Options) -> list[str]:
        said: list[str] = []
        own = settings.model_copy(update={"now": "2026-06-01T12:00:00+00:00"})
        assert run_pipeline(database, own, options, options.market_code(own), said.append) == []
        return [line.split()[0] for line in said]

    return road


def test_a_folder_of_daily_and_shorter_bars_goes_the_whole_road(road, database, tmp_path):
    daily = "source,date,open,high,low,close,volume\n"
    days = pd.bdate_range("2024-07-01", "2024-08-05")
    rows = [f"{one},{day:%Y-%m-%d},5,5,5,{close},9" for day in days for one, close in (("a", 5), ("b", 500))]
    write(tmp_path / "data", "005930.csv", daily + "\n".join(rows) + "\n")
    write(
        tmp_path / "data",
        "005930_5m.csv",
        five(5, 5, 5).replace("datetime", "source,datetime").replace("2024-", "a,2024-"),
    )
    options = Options(f"files:{tmp_path / 'data'}", only={"source": "a"}, prices="raw")
    assert road(options) == ["sync_instruments", "collect_daily", "collect_intraday", "repair_gaps", "scan_radar"]
    engine = database.engine(Role.LOADER)
    assert ask(engine, "SELECT timeframe, count(*), max(close)::float8 FROM live.candles GROUP BY 1 ORDER BY 1") == [
        ("1d", len(days), 5),
        ("5m", 3, 5),
    ]
    engine.dispose()


def test_a_days_file_is_checked_against_the_days_of_its_market(loader, load, tmp_path):
    load(cross_section(tmp_path, "20240805", 5), columns={"date": "@name"}, prices="raw", last_day="final").check()
    with ledger.notebook_run(loader, None, job="check", clock=CLOCK) as run_id:
        counted = check(loader, "KRX", run_id=run_id, clock=CLOCK).counts
    assert counted == {"expected": 1, "present": 1, "explained": 0, "missing": 0, "late": 0}
    with pytest.raises(SchemaError, match="2024-08-04, of the file's name, is no trading day of KRX"):
        load(cross_section(tmp_path, "20240804", 5), columns={"date": "@name"}, prices="raw")
    assert date(2024, 8, 4).strftime("%A") == "Sunday"

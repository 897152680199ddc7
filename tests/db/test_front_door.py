"""Every file of two folders of real, awkward files goes in by the front door: what becomes of it, and that it is said.

What is expected is written here by hand, and worked out of the files once more by plain pandas (`plainly`). The same table for
people is docs/front-door.md.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients import open_source
from chartinsight_lib.clients.base import Source
from chartinsight_lib.clients.krx import KrxSource
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report, collect_daily, collect_intraday
from chartinsight_lib.errors import ChartInsightError, ConfigError, SchemaError
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.pace import LocalSlots, Pacer
from chartinsight_lib.quality.check import check
from chartinsight_lib.quality.verify import verify
from tests.http.public_services import Redirecting, Served, Services, public_services

FOLDERS = ("nasties", "raw_files")
DOCUMENT = Path(__file__).parents[2] / "docs" / "front-door.md"
CLOCK = fixed_clock(datetime(2026, 6, 1, 12, tzinfo=UTC))
"""After the last day of all files."""
NUMBERS = ["open", "high", "low", "close", "volume"]


@dataclass(frozen=True)
class Refused:
    """Nothing of the file is read, and the message says why: a part of it."""

    reason: str
    kind: type[ChartInsightError] = SchemaError
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """The file goes in: rows by what became of them, and how pandas reads the same.

    `named`: our names of columns that the file calls otherwise; `code`: of a file without a column of codes.
    """

    rows: dict[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    code: str = ""
    day: str = ""
    encoding: str = "utf-8-sig"
    timeframe: str = "1d"


@dataclass(frozen=True)
class Failed:
    """The file is read, no row of it is a bar, and the collection fails with that reason."""

    reason: str
    rejected: int


def only(source: str) -> dict[str, Any]:
    return {"only": {"source": source}}


NO_BARS = Refused("These are no bars: bars have code, date, open, high, low, close, volume")
SEVERAL = "the column 'source' names several for {}.*Take one, as in --only source={} "
SECOND = {name: f"{name}_2026" for name in NUMBERS}
SERVICE = Refused("is the answer of a web service, which its own client reads: --source krx:005930", ConfigError)
KOREAN = {"open": "시가", "high": "고가", "low": "저가", "close": "종가", "volume": "거래량"}
CAPITALS = {name: name.capitalize() for name in NUMBERS}
KIWOOM = {
    "date": "dt",
    "open": "open_pric",
    "high": "high_pric",
    "low": "low_pric",
    "close": "cur_prc",
    "volume": "trde_qty",
}
SHORT = {"read": 268, "inserted": 268, "of which provisional": 2}
YAHOO_5M = Taken(
    {"read": 3_014, "inserted": 3_014, "of which provisional": 1},
    named=CAPITALS | {"date": "Datetime"}, code="005930", timeframe="5m",
)  # fmt: skip

CASES: dict[str, list[Refused | Taken | Failed]] = {
    "nasties/_index.csv": [NO_BARS],
    "nasties/adjustment_events_kospi.csv": [NO_BARS],
    "nasties/alphanumeric_codes.csv": [NO_BARS],
    "nasties/circuit_breaker_5m.csv": [Taken(SHORT, named={"date": "ts_kst"}, timeframe="5m")],
    "nasties/duplicate_rows.csv": [
        Taken({"read": 828, "inserted": 414, "duplicates": 414, "of which provisional": 414})
    ],
    "nasties/first_trading_days.csv": [Taken({"read": 134, "inserted": 134, "of which provisional": 1})],
    "nasties/halt_long_examples.csv": [
        Taken({"read": 2_679, "inserted": 96, "halted": 2_583, "of which provisional": 1})
    ],
    "nasties/halt_runs.csv": [NO_BARS],
    "nasties/limit_one_price_days.csv": [
        Refused(SEVERAL.format("000300", "kospi_2026")),
        Taken({"read": 112, "inserted": 112, "of which provisional": 1}, only("all_2025")),
        Taken({"read": 91, "inserted": 91, "of which provisional": 1}, only("kospi_2026")),
    ],
    "nasties/limit_up_close_days.csv": [Taken({"read": 300, "inserted": 300, "of which provisional": 1})],
    "nasties/moves_beyond_30pct.csv": [
        Refused(SEVERAL.format("009415", "kospi_2026")),
        Taken({"read": 38, "inserted": 37, "halted": 1, "of which provisional": 1}, only("fdr_naver_2022")),
        Taken({"read": 17, "inserted": 16, "halted": 1, "of which provisional": 2}, only("all_2025")),
        Taken({"read": 6, "inserted": 4, "halted": 2, "of which provisional": 1}, only("kospi_2026")),
    ],
    "nasties/ohlc_rounding.csv": [
        Taken(
            {"read": 1_108, "inserted": 964, "no-trade": 133, "rejected": 11, "of which provisional": 1,
             "of which widened": 964}
        )
    ],
    "nasties/partial_last_bar.csv": [
        Refused("tells each bar more than once, in open … and in open_2026, .*: --map open=open_2026 .*--map open=open"),
        Taken({"read": 619, "inserted": 616, "halted": 3, "of which provisional": 616}, {"columns": {"open": "open"}}),
        Taken({"read": 619, "inserted": 616, "halted": 1, "no-trade": 2}, {"columns": SECOND, "last_day": "final"}, SECOND),
    ],
    "nasties/restated_history.csv": [NO_BARS],
    "nasties/saturday_sessions.csv": [
        Taken(
            {"read": 272, "inserted": 207, "no-trade": 60, "rejected": 5, "of which provisional": 8, "of which widened": 34}
        )
    ],
    "nasties/split_50to1_005930.csv": [
        Refused(SEVERAL.format("005930", "kiwoom_2023")),
        Taken({"read": 16, "inserted": 13, "halted": 3, "of which provisional": 1}, only("fdr_naver_2022")),
        Taken({"read": 16, "inserted": 13, "no-trade": 3, "of which provisional": 1}, only("yahoo_2019")),
        Taken({"read": 16, "inserted": 13, "no-trade": 3, "of which provisional": 1}, only("kiwoom_2023")),
        Taken({"read": 13, "inserted": 13, "of which provisional": 1}, only("creon_2022")),
    ],
    "nasties/split_5to1_035720.csv": [
        Refused(SEVERAL.format("035720", "naver_page_2026")),
        Taken({"read": 18, "inserted": 15, "halted": 3, "of which provisional": 1}, only("fdr_naver_2022")),
        Taken({"read": 18, "inserted": 15, "halted": 3, "of which provisional": 1}, only("kospi_2026")),
        Taken({"read": 4, "inserted": 4, "of which provisional": 1}, only("naver_page_2026")),
    ],
    "nasties/yahoo_corrupt_segments.csv": [Failed("none of its 240 rows is a bar (bad_price 240)", 240)],
    "nasties/zero_volume_with_range.csv": [
        Taken({"read": 400, "inserted": 399, "rejected": 1, "of which provisional": 1, "of which widened": 19})
    ],
    "raw_files/_index.csv": [NO_BARS],
    "raw_files/creon_A005930.csv": [
        Taken(
            {"read": 5_549, "inserted": 5_548, "duplicates": 1, "of which provisional": 1},
            named=KOREAN | {"date": "일자"}, code="005930",
        )
    ],
    "raw_files/fdr_bom_unnamed_index_009150.csv": [
        Taken(
            {"read": 6_000, "inserted": 6_000, "of which provisional": 1, "of which widened": 18},
            named=CAPITALS | {"date": "Date"}, code="009150",
        )
    ],
    "raw_files/kiwoom_rest_normalised_005930.csv": [
        Taken({"read": 231, "inserted": 231, "of which provisional": 1}, named=CAPITALS | {"code": "symbol"})
    ],
    "raw_files/kiwoom_rest_original_005930.csv": [
        Taken({"read": 231, "inserted": 231, "of which provisional": 1}, named=KIWOOM, code="005930")
    ],
    **{
        f"raw_files/krx_json/{name}.json": [SERVICE]
        for name in (
            "EtfOhlcvByDate_test_with_business_day_0", *(f"IndexOhlcvByDate_test_ohlcv_simple_{at}" for at in range(5)),
            "StockFundamentalByDate_test_with_valid_business_days_0", "StockOhlcvByDate_test_ohlcv_with_not_adjusted_0",
        )
    },
    "raw_files/krx_json/StockOhlcvByDate_test_ohlcv_with_adjusted_0.xml": [SERVICE],
    "raw_files/krx_portal_all_cp949_20210326.csv": [
        Refused("recognised as date.*If 2021-03-26, of the file's name, is the trading day.*--map date='@name'"),
        Taken(
            {"read": 1_757, "inserted": 1_668, "halted": 89, "of which provisional": 1_668},
            {"columns": {"date": "@name"}, "prices": "raw"},
            KOREAN | {"code": "종목코드"}, day="2021-03-26", encoding="cp949",
        ),
    ],
    "raw_files/naver_kr_header_005930.csv": [
        Taken({"read": 370, "inserted": 370, "of which provisional": 1}, named=KOREAN | {"date": "날짜"}, code="005930")
    ],
    "raw_files/naver_page_bom_005930.csv": [
        Taken({"read": 1_200, "inserted": 1_200, "of which provisional": 1}, named=KOREAN | {"date": "날짜"}, code="005930")
    ],
    "raw_files/yahoo_5m_tz_005930.csv": [YAHOO_5M],
    "raw_files/yahoo_5m_tz_005930_second_download.csv": [YAHOO_5M],
}  # fmt: skip


def each(kind: type) -> list[Any]:
    """The cases of a kind, each with its file, named for the list of tests."""
    return [
        pytest.param(name, way, id=" ".join([Path(name).name, *map(str, getattr(way, "options", {}).values())]))
        for name, ways in CASES.items()
        for way in ways
        if isinstance(way, kind)
    ]  # fmt: skip


# The table is whole.


@pytest.mark.shared
def test_every_file_of_the_two_folders_has_a_case(shared_data):
    found = {
        str(path.relative_to(shared_data))
        for folder in FOLDERS
        for path in (shared_data / folder).rglob("*")
        if path.is_file()
    }
    assert found == set(CASES)


def test_the_document_for_people_has_the_same_rows():
    rows = re.findall(r"^\| `((?:nasties|raw_files)/[^`]+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(CASES)


# What goes in.


def plainly(path: Path, way: Taken) -> dict[str, pd.DataFrame]:
    """Say by plain pandas what becomes of a file: bars, halted, no-trade, rejected, duplicates."""
    names = {theirs: ours for ours, theirs in way.named.items()}
    table = pd.read_csv(path, dtype="str", encoding=way.encoding)
    for column, value in way.options.get("only", {}).items():
        table = table[table[column] == value]
    table = table.drop(columns=[ours for theirs, ours in names.items() if ours in table and theirs != ours])
    table = table.rename(columns=names)
    table = table.assign(**{name: value for name, value in (("code", way.code), ("date", way.day)) if value})
    told = table[["code", "date"]].assign(**{name: table[name].astype(float) for name in NUMBERS})
    again = told.duplicated()
    told = told[~again]
    top, bottom = told[["open", "close"]].max(axis=1), told[["open", "close"]].min(axis=1)
    still = (told["open"] == told["high"]) & (told["high"] == told["low"]) & (told["volume"] == 0)
    halted = still & (told["open"] == 0) & (told["close"] > 0)
    quiet = still & ~halted & ((told["close"] - told["open"]).abs() <= np.maximum(1, top * 0.01))
    misses = (top - told["high"] > np.maximum(1, top * 0.01)) | (told["low"] - bottom > np.maximum(1, bottom * 0.01))
    rejected = ~halted & ~quiet & (misses | (told[NUMBERS[:4]] <= 0).any(axis=1))
    bars = told[~halted & ~quiet & ~rejected]
    bars = bars.assign(high=bars[["open", "high", "close"]].max(axis=1), low=bars[["open", "low", "close"]].min(axis=1))
    return {
        "bars": bars,
        "halted": told[halted],
        "no-trade": told[quiet],
        "rejected": told[rejected],
        "duplicates": told[again[~again].index.isin(again[again].index)],
    }


def load(engine: Engine, source: Source, timeframe: str = "1d") -> Report:
    """Load a source as the jobs do."""
    with ledger.notebook_run(engine, None, job="collect", clock=CLOCK) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=CLOCK).check()
        if timeframe == "5m":
            return collect_intraday(engine, source, [], run_id=run_id, clock=CLOCK)
        return collect_daily(engine, source, run_id=run_id, clock=CLOCK)


def counts(report: Report) -> dict[str, int]:
    """The counts of the only item that are not nothing."""
    (rows,) = report.items.values()
    return {name: count for name, count in rows.items() if count}


def keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Code and time of each row, in their order."""
    return sorted(frame[["code", "date"]].itertuples(index=False, name=None))


def held(engine: Engine, timeframe: str) -> pd.DataFrame:
    """Code, date as the files write it, and numbers of all bars held."""
    shown = (
        "to_char(day, 'YYYY-MM-DD')"
        if timeframe == "1d"
        else "to_char(ts AT TIME ZONE 'Asia/Seoul', 'YYYY-MM-DD HH24:MI')"
    )
    with engine.connect() as conn:
        return pd.read_sql(text(f"SELECT code, {shown} AS date, {', '.join(NUMBERS)} FROM api.candles_raw"), conn)


def written(frame: pd.DataFrame, timeframe: str) -> pd.DataFrame:
    """Write the dates of a file as `held` does."""
    days = pd.to_datetime(frame["date"].str.slice(0, 19))
    return frame.assign(date=days.dt.strftime("%Y-%m-%d" if timeframe == "1d" else "%Y-%m-%d %H:%M"))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "way"), each(Taken))
def test_a_file_goes_in_row_by_row(shared_data, loader, name, way):
    path = shared_data / name
    source = open_source(f"files:{path}", clock=CLOCK, **way.options)
    report = load(loader, source, way.timeframe)
    assert report.errors == {}
    assert counts(report) == way.rows

    expected = plainly(path, way)
    bars = held(loader, way.timeframe).sort_values(["code", "date"], ignore_index=True)
    told = written(expected["bars"], way.timeframe).sort_values(["code", "date"], ignore_index=True)
    pd.testing.assert_frame_equal(bars, told[bars.columns], check_dtype=False)
    with loader.connect() as conn:
        gaps = pd.read_sql(text("SELECT code, to_char(day, 'YYYY-MM-DD') AS date, kind FROM api.gaps"), conn)
        quarantine = pd.read_sql(text("SELECT code, rule FROM api.quarantine WHERE action = 'rejected'"), conn)
        seams = conn.execute(text("SELECT count(*) FROM live.factors")).scalar_one()
    for kind in ("halted", "no-trade"):
        assert keys(gaps[gaps["kind"] == kind]) == keys(written(expected[kind], "1d"))
    assert sorted(quarantine["code"]) == sorted(expected["rejected"]["code"])
    assert seams == 0

    again = counts(load(loader, source, way.timeframe))
    assert again.keys().isdisjoint({"inserted", "updated"}), "a repeated load changes no row"


@pytest.mark.shared
@pytest.mark.parametrize(("name", "way"), each(Refused))
def test_a_file_that_is_no_table_of_bars_is_refused_by_name(shared_data, name, way):
    with pytest.raises(way.kind, match=way.reason) as refusal:
        open_source(f"files:{shared_data / name}", clock=CLOCK, **way.options).instruments()
    assert str(shared_data / name) in str(refusal.value)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "way"), each(Failed))
def test_a_file_without_any_bar_fails_and_each_row_is_kept_for_a_look(shared_data, loader, name, way):
    report = load(loader, open_source(f"files:{shared_data / name}", clock=CLOCK))
    assert way.reason in report.errors[Path(name).name]
    assert held(loader, "1d").empty
    with loader.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM api.quarantine")).scalar_one() == way.rejected


# What is odd about a file, looked at after it went in.


def findings(engine: Engine) -> dict[tuple[str, str], int]:
    """What the rules say of the bars held: {(rule, state): how often}."""
    with ledger.notebook_run(engine, None, job="verify", clock=CLOCK) as run_id:
        table = verify(engine, "KRX", run_id=run_id, clock=CLOCK).table()
    return {(row.rule, row.state): row.findings for row in table.itertuples()}


@pytest.mark.shared
def test_saturdays_of_the_nineties_are_trading_days(shared_data, loader):
    load(loader, open_source(f"files:{shared_data}/nasties/saturday_sessions.csv", clock=CLOCK))
    assert {pd.Timestamp(day).day_name() for day in held(loader, "1d")["date"]} == {"Saturday"}
    assert "closed_day" not in {rule for rule, _ in findings(loader)}


@pytest.mark.shared
@pytest.mark.parametrize("source", ["all_2025", "kospi_2026"])
def test_days_of_one_price_at_the_limit_are_bars_like_others(shared_data, loader, source):
    load(loader, open_source(f"files:{shared_data}/nasties/limit_one_price_days.csv", clock=CLOCK, **only(source)))
    bars = held(loader, "1d")
    assert (bars["high"] == bars["low"]).all()
    assert (bars["volume"] > 0).all()
    assert {state for _, state in findings(loader)} <= {"explained"}


@pytest.mark.shared
def test_prices_that_moved_without_volume_are_kept_and_found(shared_data, loader):
    load(loader, open_source(f"files:{shared_data}/nasties/zero_volume_with_range.csv", clock=CLOCK))
    bars = held(loader, "1d")
    final = bars[bars["date"] < bars["date"].max()]
    moved = int(((final["volume"] == 0) & (final["high"] > final["low"])).sum())
    assert findings(loader)["volume_lost", "open"] == moved == 398


@pytest.mark.shared
def test_the_circuit_breakers_of_march_2020_are_halts_and_no_missing_data(shared_data, loader):
    load(loader, open_source(f"files:{shared_data}/nasties/circuit_breaker_5m.csv", clock=CLOCK), "5m")
    with ledger.notebook_run(loader, None, job="check", clock=CLOCK) as run_id:
        check(loader, "KRX", run_id=run_id, clock=CLOCK, timeframe="5m")
    with loader.connect() as conn:
        found = conn.execute(
            text("""
                SELECT to_char(ts AT TIME ZONE 'Asia/Seoul', 'MM-DD HH24:MI') AS start, kind, count(*)
                FROM   api.gaps GROUP BY 1, 2 ORDER BY 1
            """)
        ).all()
    # No bars labelled 10:45 to 11:05, and 12:10 to 12:30, says whoever cut the file; two instruments.
    slots = [("03-13", 10, 45), ("03-13", 10, 50), ("03-13", 10, 55), ("03-13", 11, 0), ("03-13", 11, 5)]
    slots += [("03-19", 12, minute) for minute in (10, 15, 20, 25, 30)]
    assert [tuple(row) for row in found] == [(f"{day} {hour}:{minute:02}", "halted", 2) for day, hour, minute in slots]


@pytest.mark.shared
def test_a_bar_fetched_in_the_session_gives_way_to_the_final_one(shared_data, loader):
    """The two tellings of one file, one after the other; two instruments did not trade at all, as it turned out."""
    spec = f"files:{shared_data}/nasties/partial_last_bar.csv"
    load(loader, open_source(spec, columns={"open": "open"}, clock=CLOCK))
    report = load(loader, open_source(spec, columns=SECOND, last_day="final", clock=CLOCK))
    assert report.errors == {}
    table = pd.read_csv(shared_data / "nasties" / "partial_last_bar.csv", dtype={"code": "str"})
    traded = table[table["volume_2026"] > 0].sort_values("code", ignore_index=True)
    bars = held(loader, "1d").sort_values("code", ignore_index=True)
    for name, theirs in SECOND.items():
        assert bars[name].tolist() == traded[theirs].tolist()
    with loader.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM live.candles WHERE flags & 1 <> 0")).scalar_one() == 0


@pytest.mark.shared
def test_the_odd_codes_of_the_market_are_kept_letter_by_letter(shared_data, tmp_path):
    """The list of them holds no bars: each gets one here."""
    codes = sorted(pd.read_csv(shared_data / "nasties" / "alphanumeric_codes.csv", dtype="str")["code"].unique())
    assert len(codes) == 22
    bars = pd.DataFrame({"code": codes, "date": "2025-06-17", **dict.fromkeys(NUMBERS, 5)})
    bars.to_csv(tmp_path / "a.csv", index=False)
    source = open_source(f"files:{tmp_path / 'a.csv'}", clock=CLOCK)
    assert source.instruments()["code"].tolist() == codes


@pytest.mark.shared
def test_both_forms_of_one_kiwoom_download_are_the_same_bars(shared_data, loader):
    told = []
    for form in ("original", "normalised"):
        source = open_source(f"files:{shared_data}/raw_files/kiwoom_rest_{form}_005930.csv", clock=CLOCK)
        rows = counts(load(loader, source))
        told.append(held(loader, "1d").sort_values("date", ignore_index=True))
    assert rows["read"] == len(told[0]) == 231
    pd.testing.assert_frame_equal(*told)


# The answers of services, by their client.

NAVER = "fchart.stock.naver.com/sise.nhn"
RESOURCE = "data.krx.co.kr/comm/bldAttendant/executeForResourceBundle.cmd"
LISTS = "raw.githubusercontent.com/FinanceData/fdr_krx_data_cache/refs/heads/master/data/listing"
LISTED = ",Code,ISU_CD,Name,Market,Dept,Close,ChangeCode,Changes,ChagesRatio,Open,High,Low,Volume,Amount,Marcap,Stocks,MarketId\n"
DESCRIBED = ",Code,Name,Market,Sector,Industry,Products,ListingDate,SettleMonth,Representative,HomePage,Region\n"


@pytest.fixture
def services() -> Iterator[Services]:
    with public_services() as running:
        yield running


@pytest.mark.shared
def test_navers_answer_goes_in_by_its_client_and_is_the_exchanges_own_record_divided_by_fifty(
    shared_data, services, loader
):
    answers = shared_data / "raw_files" / "krx_json"
    body = (answers / "StockOhlcvByDate_test_ohlcv_with_adjusted_0.xml").read_bytes()
    services.serve(NAVER, body)
    services.serve(RESOURCE, '{"result":{"output":[{"max_work_dt":"20260123"}]}}')
    plain = "text/plain; charset=utf-8"
    row = "0,005930,KR7005930003,삼성전자,KOSPI,,5,1,0,0,5,5,5,9,45,5,1,STK\n"
    services.serve(f"{LISTS}/krx/", Served(LISTED + row, kind=plain))
    services.serve(
        f"{LISTS}/desc/", Served(DESCRIBED + "0,005930,삼성전자,KOSPI,,전자,,1975-06-11,12월,,,\n", kind=plain)
    )
    source = KrxSource(["005930"], clock=CLOCK, transport=Redirecting(services), pacer=Pacer(LocalSlots(), 10_000))
    report = load(loader, source)
    assert report.errors == {}

    items = [item.decode().split("|") for item in re.findall(rb'<item data="([^"]+)"', body)]
    assert len(items) == 2_832
    traded = {row[0]: [int(number) for number in row[1:]] for row in items if row[1] != "0"}
    for numbers in traded.values():  # three highs lie a won below the close
        numbers[1] = max(numbers[0], numbers[1], numbers[3])
    bars = held(loader, "1d")
    assert dict(zip(bars["date"].str.replace("-", ""), bars[NUMBERS].values.tolist(), strict=True)) == traded

    # The exchange's record of the same days, as they were traded: 50 new shares for one on 2018-05-04.
    raw = json.loads((answers / "StockOhlcvByDate_test_ohlcv_with_not_adjusted_0.json").read_text(encoding="utf-8"))[
        "output"
    ]
    closes = {row["TRD_DD"].replace("/", ""): int(row["TDD_CLSPRC"].replace(",", "")) for row in raw}
    shut = {row["TRD_DD"] for row in raw if row["ACC_TRDVOL"] == "0"}
    with loader.connect() as conn:
        gaps = {f"{day:%Y/%m/%d}" for (day,) in conn.execute(text("SELECT day FROM api.gaps WHERE kind = 'halted'"))}
    assert gaps == shut == {"2018/04/30", "2018/05/02", "2018/05/03"}
    assert closes["20180427"] == 50 * traded["20180427"][3]
    assert closes["20180504"] == traded["20180504"][3]

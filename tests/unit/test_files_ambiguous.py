"""Files that can be understood in two ways, that hold shorter bars, or of which some cannot be read: refused by name, with the way
out; and each way out, taken."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from chartinsight_lib.clients import open_source
from chartinsight_lib.clients.files import FileSource
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.domain import AS_TRADED
from chartinsight_lib.errors import ConfigError, SchemaError

HEADER = "code,date,open,high,low,close,volume\n"
LATER = fixed_clock(datetime(2030, 1, 1, tzinfo=UTC))
"""No time of these tests is later."""

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return the spec that names it."""

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return f"files:{tmp_path / name}"

    return write


def days(source: FileSource) -> list[tuple[str, str, float, int]]:
    """Code, date, close and row number of all daily rows."""
    return [
        (row.code, f"{row.date:%Y-%m-%d}", row.close, row.row)
        for batch in source.daily()
        for row in batch.records.itertuples()
    ]


# Several tellings in one file.

TWO_SOURCES = (
    "source,code,date,open,high,low,close,volume\n"
    "naver,005930,2018-05-03,53000,53000,53000,53000,9\n"
    "krx,005930,2018-05-03,2650000,2650000,2650000,2650000,9\n"
    "naver,005930,2018-05-04,53000,53900,51800,51900,9\n"
)


def test_a_file_of_several_sources_is_refused_and_one_can_be_taken(write):
    spec = write("a.csv", TWO_SOURCES)
    with pytest.raises(
        SchemaError, match=r"a.csv: the column 'source' names several for 005930: naver, krx.*--only source=krx"
    ):
        open_source(spec).instruments()
    source = open_source(spec, only={"source": "naver"})
    assert source.name == "files:a.csv[source=naver]"
    assert days(source) == [("005930", "2018-05-03", 53_000, 1), ("005930", "2018-05-04", 51_900, 3)]


def test_sources_of_one_instrument_each_are_no_mixture(write):
    text = "source,code,date,open,high,low,close,volume\nkrx,005930,2018-05-03,5,5,5,5,9\nnaver,000660,2018-05-03,5,5,5,5,9\n"
    assert len(days(open_source(write("a.csv", text)))) == 2


@pytest.mark.parametrize("column", ["source", "출처", "Timeframe", "vendor"])
def test_two_sources_of_one_code_are_a_mixture_although_no_day_is_told_twice(write, column):
    text = (
        f"{column},code,date,open,high,low,close,volume\na,005930,2018-05-03,5,5,5,5,9\nb,005930,2018-05-04,5,5,5,5,9\n"
    )
    with pytest.raises(SchemaError, match=f"the column '{column}' names several for 005930: a, b"):
        open_source(write("a.csv", text)).instruments()


def test_a_column_of_any_name_that_tells_apart_the_rows_of_one_day_is_found(write):
    rows = [f"005930,2024-08-{day:02},{venue},5,5,5,5,9" for day in (5, 6, 7) for venue in ("KRX", "NXT")]
    spec = write("a.csv", "code,date,venue,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    with pytest.raises(SchemaError, match=r"'venue' tells apart rows of the same code and time: KRX, NXT"):
        open_source(spec).instruments()
    assert len(days(open_source(spec, only={"venue": "NXT"}))) == 3


def test_rows_that_contradict_one_another_are_left_to_the_quarantine(write):
    """A word beside them tells no two tellings apart: most days have one row."""
    rows = [f"005930,2024-08-{day:02},n{day},5,5,5,5,9" for day in range(1, 31)] + ["005930,2024-08-30,n31,6,6,6,6,9"]
    spec = write("a.csv", "code,date,note,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    assert len(days(open_source(spec))) == 31


def test_rows_can_be_chosen_by_our_own_name_and_by_several_columns(tmp_path):
    frame = pd.DataFrame(
        {
            "종목코드": ["005930", "005930", "000660"], "src": pd.Categorical(["a", "b", "a"]), "lot": [1, 2, 1],
            "date": "2024-08-05", "open": 5, "high": 5, "low": 5, "close": [5, 6, 7], "volume": 9,
        }
    )  # fmt: skip
    frame.to_parquet(tmp_path / "a.parquet")
    spec = f"files:{tmp_path / 'a.parquet'}"
    assert days(open_source(spec, only={"code": "000660"})) == [("000660", "2024-08-05", 7, 3)]
    assert days(open_source(spec, only={"src": "b", "lot": "2"})) == [("005930", "2024-08-05", 6, 2)]
    assert open_source(spec, only={"src": "b", "lot": "2"}).name == "files:a.parquet[src=b][lot=2]"


def test_what_is_chosen_and_is_not_there_is_named_with_what_is(write):
    spec = write("a.csv", TWO_SOURCES)
    with pytest.raises(SchemaError, match=r"no row has source=kiwoom. Found are source: krx, naver"):
        open_source(spec, only={"source": "kiwoom"}).instruments()
    with pytest.raises(SchemaError, match=r"only asks for 'sauce', found are \['source', 'code'"):
        open_source(spec, only={"sauce": "krx"}).instruments()


TWICE = (
    "code,date,open,high,low,close,volume,open_2026,high_2026,low_2026,close_2026,volume_2026\n"
    "005930,2025-06-17,50,51,49,50,7,60,61,59,60,8\n"
)
SECOND = {name: f"{name}_2026" for name in ("open", "high", "low", "close", "volume")}


def test_a_file_with_two_sets_of_prices_is_refused_and_either_can_be_taken(write):
    spec = write("a.csv", TWICE)
    with pytest.raises(
        SchemaError, match=r"in open … and in open_2026, .*: --map open=open_2026 .*; or --map open=open"
    ):
        open_source(spec).instruments()
    assert days(open_source(spec, columns={"open": "open"})) == [("005930", "2025-06-17", 50, 1)]
    assert days(open_source(spec, columns=SECOND)) == [("005930", "2025-06-17", 60, 1)]


@pytest.mark.parametrize("left_out", ["open", "close", "volume"])
def test_two_sets_of_prices_are_not_mixed(write, left_out):
    columns = {name: theirs for name, theirs in SECOND.items() if name != left_out}
    with pytest.raises(SchemaError, match="tells each bar more than once"):
        open_source(write("a.csv", TWICE), columns=columns).instruments()


def test_adjusted_prices_beside_raw_ones_are_one_telling(write):
    """As Tiingo and Quandl write them; the adjusted close is read, from which the corporate actions are learnt."""
    text = (
        "date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume\n2024-08-05,4,4,4,4,9,2,2,2,2,18\n"
    )
    (batch,) = open_source(write("AAPL.csv", text)).daily()
    assert batch.records[["close", "adj_close", "volume"]].values.tolist() == [[4, 2, 9]]


# Columns and codes.


def test_a_header_that_names_a_column_twice_is_refused_whatever_is_asked(write, tmp_path):
    spec = write("a.csv", "code,date,open,high,low,close,close,volume\n005930,2024-08-05,1,9,1,2,5,1\n")
    for columns in ({}, {"close": "close"}):
        with pytest.raises(SchemaError, match="the header names 'close' more than once. Rename or remove"):
            open_source(spec, columns=columns).instruments()
    text = "code,date,open,high,low,close,x,x,volume\n005930,2024-08-05,1,9,1,2,5,6,1\n"
    assert len(days(open_source(write("b.csv", text)))) == 1, "what is not read may be there as often as it likes"


def test_a_date_and_a_time_in_two_columns_are_not_chosen_between(write):
    spec = write("a.csv", "code,date,time,open,high,low,close,volume\n005930,20240805,0905,1,9,1,2,5\n")
    with pytest.raises(SchemaError, match=r"\['date', 'time'\].*A date and a time of day belong into one column"):
        open_source(spec).instruments()


@pytest.mark.parametrize(
    ("codes", "market", "reason"),
    [
        ("AAPL", "KRX", "AAPL looks American, and the market is KRX"),
        ("005930", "US", "005930 looks Korean, and the market is US"),
        ("005930 AAPL", None, "AAPL looks American, and the market is KRX, because 005930 looks Korean"),
    ],
)
def test_a_file_of_another_market_than_it_is_said_to_be_is_refused(write, codes, market, reason):
    text = HEADER + "".join(f"{code},2024-08-05,1,1,1,1,1\n" for code in codes.split())
    with pytest.raises(SchemaError, match=rf"a.csv: the code {reason}"):
        open_source(write("a.csv", text), market=market).instruments()


def test_the_index_of_seoul_is_korean_when_that_is_said(write):
    assert days(open_source(write("KOSPI.csv", HEADER[5:] + "2024-08-05,1,1,1,1,1\n"), market="KRX"))[0][0] == "KOSPI"


def test_a_first_line_of_a_megabyte_is_no_header(write):
    with pytest.raises(SchemaError, match="the first line is 1,000,001 bytes long, and no header"):
        open_source(write("a.csv", "x" * 1_000_001 + "\n")).instruments()


def test_a_summary_is_told_that_it_is_none_and_no_mapping_is_offered(write):
    with pytest.raises(SchemaError, match="These are no bars: bars have code, date, open") as refusal:
        open_source(write("a.csv", "code,start,end,days\n005930,2024-08-05,2024-08-06,2\n")).instruments()
    assert "--map" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_the_answer_of_a_service_is_referred_to_its_client(write, kind):
    with pytest.raises(ConfigError, match="the answer of a web service.*--source krx:005930"):
        open_source(write(f"a.{kind}", "{}"))


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    def forbidden(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(ConfigError, match="cannot be looked into .*Permission denied.*permissions"):
        open_source(f"files:{tmp_path}")


# The trading day in the file's name.

PORTAL = "종목코드,종목명,시장구분,종가,시가,고가,저가,거래량\n005930,삼성전자,KOSPI,5,5,5,5,9\n"


def test_the_day_in_a_files_name_is_taken_for_its_rows_only_when_that_is_said(write, tmp_path):
    spec = write("krx_20210326.csv", PORTAL)
    with pytest.raises(SchemaError, match=r"If 2021-03-26, of the file's name, is the trading day.*--map date='@name'"):
        open_source(spec).instruments()
    write("krx_2021-03-29.csv", PORTAL)
    source = open_source(f"files:{tmp_path}", columns={"date": "@name"})
    assert sorted(row[:2] for row in days(source)) == [("005930", "2021-03-26"), ("005930", "2021-03-29")]
    assert source.provisional_from(date(2030, 1, 1)) == date(2021, 3, 29)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("krx.csv", "its name holds no date, and one is expected, as in krx_20240805.csv"),
        ("krx_20210326_20210329.csv", "its name holds the dates 2021-03-26, 2021-03-29"),
        ("krx_20210332.csv", "its name holds no date"),
        ("krx_20210327.csv", "2021-03-27, of the file's name, is no trading day of KRX; perhaps it was fetched then"),
    ],
)
def test_a_name_without_one_trading_day_is_refused(write, name, reason):
    with pytest.raises(SchemaError, match=reason):
        open_source(write(name, PORTAL), columns={"date": "@name"}).instruments()


def test_raw_prices_are_said_to_be_such_by_a_person_and_the_sources_name(write):
    spec = write("005930.csv", HEADER[5:] + "2024-08-05,1,1,1,1,1\n")
    adjusted, raw = open_source(spec), open_source(spec, prices="raw")
    assert (adjusted.raw, adjusted.name) == (False, "files:005930.csv")
    assert (raw.raw, raw.name) == (True, "files:005930.csv" + AS_TRADED)
    with pytest.raises(ConfigError, match="prices is 'official'. Choose one of adjusted, raw"):
        open_source(spec, prices="official")


@pytest.mark.parametrize("option", [{"only": {"a": "b"}}, {"prices": "raw"}])
def test_other_sources_than_files_are_not_told_how_to_read_files(option):
    with pytest.raises(ConfigError, match="its own market"):
        open_source("sample", **option)


# Some of many files.


def test_files_that_cannot_be_read_are_errors_of_their_own_and_the_others_go_in(write, tmp_path):
    for code in ("000660", "005930"):
        write(f"{code}.csv", HEADER[5:] + "2024-08-05,1,1,1,1,1\n")
    write("empty.csv", "")
    write("header.csv", HEADER)
    write("summary.csv", "a,b\n1,2\n")
    source = open_source(f"files:{tmp_path}")
    assert source.instruments()["code"].tolist() == ["000660", "005930"]
    batches = list(source.daily())
    assert [batch.name for batch in batches] == ["000660.csv", "005930.csv", "empty.csv", "header.csv", "summary.csv"]
    assert [len(batch.records) for batch in batches] == [1, 1, 0, 0, 0]
    reasons = {name: why for batch in batches for name, why in batch.errors.items()}
    assert sorted(reasons) == ["empty.csv", "header.csv", "summary.csv"]
    assert "the file is empty" in reasons["empty.csv"]
    assert "no row has a code and a date" in reasons["header.csv"]


def test_where_no_file_can_be_read_the_first_reason_is_given(write, tmp_path):
    write("a.csv", "")
    write("b.csv", "a,b\n1,2\n")
    with pytest.raises(SchemaError, match="a.csv: the file is empty"):
        open_source(f"files:{tmp_path}").instruments()


# Bars of five minutes.


def shorter(source: FileSource, *codes: str) -> list[tuple[str, str, float]]:
    """Code, start in UTC and close of all rows shorter than a day."""
    return [
        (row.code, f"{row.ts:%m-%d %H:%M%z}", row.close)
        for batch in source.intraday(codes)
        for row in batch.records.itertuples()
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-08-05 09:00:00", "2024-08-05 09:05:00"),  # of the market, where no zone is named
        ("2024-08-05T09:00:00.000000+09:00", "2024-08-05T09:05:00.000000+09:00"),
        ("2024-08-05 00:00:00Z", "2024-08-05 00:05:00Z"),
        ("20240805090000", "20240805090500"),
        ("202408050900", "202408050905"),
    ],
)
def test_bars_of_five_minutes_are_read_with_their_starts_in_utc(write, first, second):
    spec = write("005930.csv", f"datetime,open,high,low,close,volume\n{first},1,1,1,1,1\n{second},2,2,2,2,1\n")
    source = open_source(spec, clock=LATER)
    assert source.timeframes == {"5m"}
    assert shorter(source) == [("005930", "08-05 00:00+0000", 1), ("005930", "08-05 00:05+0000", 2)]
    with pytest.raises(SchemaError, match="holds no bars of a day.*chartinsight run collect_intraday"):
        list(source.daily())


def test_stamps_of_a_parquet_file_with_and_without_a_zone_are_the_same_moments(tmp_path):
    starts = pd.to_datetime(["2024-08-05 09:00", "2024-08-05 09:05"])
    for at, stamps in enumerate(
        (starts, starts.tz_localize("Asia/Seoul"), starts.tz_localize("Asia/Seoul").tz_convert("UTC"))
    ):
        frame = pd.DataFrame({"code": "005930", "ts": stamps, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1})
        frame.to_parquet(tmp_path / f"{at}.parquet")
        source = open_source(f"files:{tmp_path / f'{at}.parquet'}", clock=LATER)
        assert [start for _, start, _ in shorter(source)] == ["08-05 00:00+0000", "08-05 00:05+0000"]


def test_new_york_is_five_hours_behind_in_winter_and_four_in_summer(write):
    stamps = ("2024-01-05 09:30", "2024-01-05 09:35", "2024-08-05 09:30", "2024-08-05 09:35")
    text = "time,open,high,low,close,volume\n" + "".join(f"{stamp},1,1,1,1,1\n" for stamp in stamps)
    starts = [start for _, start, _ in shorter(open_source(write("AAPL.csv", text), clock=LATER))]
    assert starts == ["01-05 14:30+0000", "01-05 14:35+0000", "08-05 13:30+0000", "08-05 13:35+0000"]


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        (("09:00", "09:01", "09:02"), "holds bars of 1 minutes, such as 2024-08-05 09:00"),
        (("09:00", "09:30", "10:00"), "holds bars of 30 minutes"),
        (("09:00:10", "09:05:10"), "holds bars of"),
        (("15:30",), "one bar a day, with a time of day, such as 2024-08-05 15:30. Write the dates alone"),
    ],
)
def test_bars_of_another_length_are_refused_with_it(write, stamps, reason):
    rows = "".join(f"2024-08-05 {stamp},1,1,1,1,1\n" for stamp in stamps)
    with pytest.raises(SchemaError, match=reason):
        open_source(write("005930.csv", "time,open,high,low,close,volume\n" + rows)).instruments()


FIVE = "time,open,high,low,close,volume\n2024-08-05 09:00,1,1,1,1,1\n2024-08-05 09:05,1,1,1,1,1\n"


def test_the_newest_shorter_bar_of_all_files_may_have_been_forming(write, tmp_path):
    write("000660.csv", FIVE)
    write("005930.csv", FIVE + "2024-08-05 09:10,1,1,1,1,1\n2099-01-02 09:00,1,1,1,1,1\n")
    spec = f"files:{tmp_path}"
    # A minute into it, so that what started before had ended; the row of the future is no bar.
    forming = datetime(2024, 8, 5, 0, 11, tzinfo=UTC)
    assert {batch.asked_at for batch in open_source(spec, clock=LATER).intraday()} == {forming}
    assert {batch.asked_at for batch in open_source(spec, last_day="final", clock=LATER).intraday()} == {None}


def test_a_folder_may_hold_daily_and_shorter_bars_of_the_same_days(write, tmp_path):
    write("005930.csv", "date,open,high,low,close,volume\n2024-08-05,1,1,1,7,1\n")
    write("005930_5m.csv", FIVE)
    source = open_source(f"files:{tmp_path}", clock=LATER)
    assert source.timeframes == {"1d", "5m"}
    assert [close for *_, close, _ in days(source)] == [7]
    assert len(shorter(source)) == 2
    assert shorter(source, "000660") == []
    assert source.provisional_from(date(2030, 1, 1)) == date(2024, 8, 5)


def test_a_file_of_days_has_no_shorter_bars_and_says_what_it_has(write):
    source = open_source(write("005930.csv", "date,open,high,low,close,volume\n2024-08-05,1,1,1,7,1\n"))
    with pytest.raises(SchemaError, match="holds no bars of five minutes.*chartinsight run collect_daily"):
        list(source.intraday())

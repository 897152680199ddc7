"""Files as people have them: written here by hand, read back, or refused with a reason."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from chartinsight_lib import normalise
from chartinsight_lib.clients import open_source
from chartinsight_lib.clients.base import Source
from chartinsight_lib.domain import INSTRUMENT, Flag
from chartinsight_lib.errors import ChartInsightError, ConfigError, SchemaError

HEADER = "code,date,open,high,low,close,volume\n"

TODAY = date(2030, 1, 1)
"""No date of these tests is later."""


@pytest.fixture
def write(tmp_path):
    """Write a file and return the spec that names it."""

    def write(name: str, text: str | bytes, encoding: str = "utf-8") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return f"files:{path}"

    return write


def rows(source: Source) -> list[tuple]:
    """All candles of a source as (code, date, open, high, low, close, volume)."""
    return [
        (bar.code, f"{bar.ts:%Y-%m-%d}", bar.open, bar.high, bar.low, bar.close, bar.volume)
        for batch in source.daily()
        for bar in normalise.daily(
            batch.records, market=source.market, today=TODAY, provisional_from=None
        ).candles.itertuples()
    ]


SAMSUNG = ("005930", "2024-08-05", 76_700.0, 77_000.0, 70_200.0, 71_400.0, 54_747_512)


KIWOOM = "dt,open_pric,high_pric,low_pric,cur_prc,trde_qty\n"
NUMBERS = "76700,77000,70200,71400,54747512\n"
WAYS = {
    "iso dates": ("many.csv", HEADER + "005930,2024-08-05," + NUMBERS, "utf-8"),
    "creon code, slashes": ("many.csv", HEADER + "A005930,2024/08/05," + NUMBERS, "utf-8"),
    "semicolons, bom": ("many.csv", (HEADER + "005930,20240805," + NUMBERS).replace(",", ";"), "utf-8-sig"),
    "tabs": ("many.csv", (HEADER + "005930,2024.08.05," + NUMBERS).replace(",", "\t"), "utf-8"),
    "no last line end": ("many.csv", HEADER + "005930,2024-08-05," + NUMBERS.strip(), "utf-8"),
    "thousands": ("many.csv", HEADER + '"005930","2024-08-05","76,700","77,000","70,200","71,400","54,747,512"\r\n', "utf-8"),
    "cp949, floats": ("005930.csv", "날짜,종가,시가,고가,저가,거래량\n2024-08-05,71400.0,76700.0,77000,70200,54747512.0", "cp949"),
    "cp949, names": ("krx.csv", "종목코드,종목명,일자,시가,고가,저가,종가,거래량\n005930,삼성전자,20240805," + NUMBERS, "cp949"),
    "code in the name": ("A005930.csv", "일자,시가,고가,저가,종가,거래량\n20240805," + NUMBERS, "utf-8"),
    "numbered rows": ("fdr_005930.csv", ",Date,Open,High,Low,Close,Volume\n0,2024-08-05," + NUMBERS, "utf-8-sig"),
    "unnamed dates": ("x_005930_y.csv", ",Open,High,Low,Close,Volume\n2024-08-05 00:00:00+09:00," + NUMBERS, "utf-8"),
    "kiwoom": ("005930.csv", KIWOOM + "20240805,-76700,-77000,-70200,-71400,54747512", "utf-8"),
    "yahoo": ("005930.csv", "Adj Close,Date,Open,High,Low,Close,Volume\n70000,2024-8-5," + NUMBERS, "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "encoding"), WAYS.values(), ids=WAYS.keys())
def test_the_same_bar_is_read_from_every_way_of_writing_it(write, name, text, encoding):
    assert rows(open_source(write(name, text, encoding))) == [SAMSUNG]


@pytest.mark.parametrize("kind", ["date32", "datetime", "text", "integer", "index"])
def test_a_parquet_file_may_write_its_dates_in_any_type(tmp_path, kind):
    day = {"date32": date(2024, 8, 5), "text": "2024-08-05", "integer": 20240805}.get(kind, pd.Timestamp("2024-08-05"))
    frame = pd.DataFrame(
        {
            "code": ["005930"],
            "Date": [day],
            "Open": 76700,
            "High": 77000,
            "Low": 70200,
            "Close": 71400,
            "Volume": 54747512,
        }
    )
    (frame.set_index("Date") if kind == "index" else frame).to_parquet(tmp_path / "a.parquet")
    assert rows(open_source(f"files:{tmp_path / 'a.parquet'}")) == [SAMSUNG]


def test_a_stamp_with_a_zone_names_the_day_in_its_zone(tmp_path):
    days = pd.to_datetime(["2024-08-05"]).tz_localize("Asia/Seoul")  # 2024-08-04 15:00 UTC
    frame = pd.DataFrame({"code": ["005930"], "date": days, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1})
    frame.to_parquet(tmp_path / "a.parquet")
    assert rows(open_source(f"files:{tmp_path / 'a.parquet'}"))[0][1] == "2024-08-05"


def test_codes_keep_leading_zeros_and_letters(write):
    text = HEADER + "".join(f"{code},2024-08-05,1,1,1,1,1\n" for code in ("000050", "00088K", "0007C0", "Q530107"))
    source = open_source(write("many.csv", text))
    assert source.instruments()["code"].tolist() == ["000050", "0007C0", "00088K", "Q530107"]
    assert [row[0] for row in rows(source)] == ["000050", "0007C0", "00088K", "Q530107"]


def test_the_ticker_na_is_not_taken_for_a_missing_value(write):
    assert rows(open_source(write("many.csv", HEADER + "NA,2024-08-05,1,1,1,1,1\n")))[0][0] == "NA"


def test_codes_that_are_numbers_get_their_zeros_back_only_when_the_market_is_said_to_be_korean(write, tmp_path):
    text = HEADER + "5930,2024-08-05,1,1,1,1,1\n373220,2024-08-05,1,1,1,1,1\n"
    assert [row[0] for row in rows(open_source(write("a.csv", text), market="KRX"))] == ["005930", "373220"]
    with pytest.raises(SchemaError, match=r"leading zeros.*--market KRX"):
        open_source(write("a.csv", text)).instruments()
    pd.read_csv(tmp_path / "a.csv").to_parquet(tmp_path / "a.parquet")  # pandas makes them integers
    assert [row[0] for row in rows(open_source(f"files:{tmp_path / 'a.parquet'}", market="KRX"))] == [
        "005930",
        "373220",
    ]
    with pytest.raises(SchemaError, match="leading zeros"):
        open_source(f"files:{tmp_path / 'a.parquet'}", market="US").instruments()


def test_the_market_is_told_by_the_codes(write):
    assert open_source(write("a.csv", HEADER + "0007C0,2024-08-05,1,1,1,1,1\n")).market == "KRX"
    assert open_source(write("b.csv", HEADER + "BRK-B,2024-08-05,1,1,1,1,1\n")).market == "US"
    with pytest.raises(SchemaError, match="KS11 looks neither"):
        open_source(write("c.csv", HEADER + "KS11,2024-08-05,1,1,1,1,1\n")).instruments()
    assert open_source(write("c.csv", HEADER + "KS11,2024-08-05,1,1,1,1,1\n"), market="KRX").market == "KRX"


def test_instruments_have_all_columns_and_the_code_for_an_unknown_name(write):
    header = "종목코드,종목명,날짜,시가,고가,저가,종가,거래량\n"
    text = header + "005930,삼성전자,2024-08-05,1,1,1,1,1\n000660,,2024-08-05,1,1,1,1,1\n"
    frame = open_source(write("krx.csv", text, "cp949")).instruments()
    assert list(frame.columns) == INSTRUMENT
    assert frame["name"].tolist() == ["000660", "삼성전자"]
    assert set(frame["market"]) == {"KRX"}
    assert set(frame["currency"]) == {"KRW"}
    assert set(frame["kind"]) == {"stock"}
    assert frame[["sector", "listed_on", "delisted_on"]].isna().all(axis=None)


def test_an_explicit_mapping_wins_over_recognition(write):
    spec = write("005930.csv", "date,open,high,low,close,fair,volume\n2024-08-05,1,9,1,2,5,1\n")
    assert rows(open_source(spec, columns={"close": "fair"}))[0][5] == 5.0
    with pytest.raises(SchemaError, match=r"asks for 'fare', found are .*'fair'"):
        open_source(spec, columns={"close": "fare"}).instruments()
    with pytest.raises(ConfigError, match="Our names are code, date"):
        open_source(spec, columns={"closing": "fair"})


def test_two_columns_of_one_meaning_are_not_chosen_between(write):
    spec = write("005930.csv", "date,open,high,low,close,종가,volume\n2024-08-05,1,9,1,2,5,1\n")
    with pytest.raises(SchemaError, match=r"\['close', '종가'\] all look like close"):
        open_source(spec).instruments()
    assert rows(open_source(spec, columns={"close": "종가"}))[0][5] == 5.0


def test_the_value_of_kiwoom_is_in_millions(write):
    spec = write(
        "005930.csv", "dt,open_pric,high_pric,low_pric,cur_prc,trde_qty,trde_prica\n20240809,1,1,1,1,1,1226725\n"
    )
    (batch,) = open_source(spec).daily()
    assert batch.records["value"].tolist() == [1_226_725_000_000]


def test_a_directory_and_a_glob_stand_for_their_files(write, tmp_path):
    for code in ("005930", "000660"):
        write(f"{code}.csv", "date,open,high,low,close,volume\n2024-08-05,1,1,1,1,1\n")
    write("_index.csv", "file\n")
    write("notes.txt", "nothing")
    for spec in (f"files:{tmp_path}", f"files:{tmp_path}/*.csv", f"files:{tmp_path}/005930.csv,{tmp_path}/000660.csv"):
        assert sorted(row[0] for row in rows(open_source(spec))) == ["000660", "005930"]
    assert open_source(f"files:{tmp_path}/*.csv").name == "files:*.csv"


def test_rows_are_numbered_from_one_in_their_file(write):
    (batch,) = open_source(
        write("005930.csv", "date,open,high,low,close,volume\n20240805,1,1,1,1,1\n20240806,1,1,1,1,1\n")
    ).daily()
    assert batch.name == "005930.csv"
    assert batch.records["row"].tolist() == [1, 2]


def test_the_newest_day_of_all_files_is_provisional_unless_it_is_said_to_be_final(write, tmp_path):
    write("005930.csv", "date,open,high,low,close,volume\n2024-08-05,1,1,1,1,1\n2024-08-06,1,1,1,1,1\n")
    write("000660.csv", "date,open,high,low,close,volume\n2024-08-05,1,1,1,1,1\n")
    source = open_source(f"files:{tmp_path}")
    assert source.provisional_from(TODAY) == date(2024, 8, 6)
    assert open_source(f"files:{tmp_path}", last_day="final").provisional_from(TODAY) is None
    flagged = {
        (bar.code, bar.ts.day)
        for batch in source.daily()
        for bar in normalise.daily(
            batch.records, market="KRX", today=TODAY, provisional_from=source.provisional_from(TODAY)
        ).candles.itertuples()
        if bar.flags & Flag.PROVISIONAL
    }
    assert flagged == {("005930", 6)}


def test_two_files_with_the_same_days_of_a_code_are_refused(write, tmp_path):
    write("a_005930.csv", "date,open,high,low,close,volume\n2024-08-05,1,1,1,1,1\n2024-08-07,1,1,1,1,1\n")
    write("b_005930.csv", "date,open,high,low,close,volume\n2024-08-06,2,2,2,2,1\n")
    with pytest.raises(SchemaError, match=r"a_005930.csv and .*b_005930.csv: both hold 005930 around 2024-08-06"):
        open_source(f"files:{tmp_path}").instruments()
    write("b_005930.csv", "date,open,high,low,close,volume\n2024-08-08,2,2,2,2,1\n")  # years in files of their own
    assert len(rows(open_source(f"files:{tmp_path}"))) == 3


def test_what_cannot_be_read_stays_as_it_was_for_the_quarantine(write):
    text = (
        HEADER
        + "005930,2024-08-05,1,1,1,1,1\n005930,합계,1,1,1,1,1\n"
        + "005930,2024-08-07,?,1,1,1,1\n005930,2024-08-08,1,1,1,1,\n"
    )
    source = open_source(write("a.csv", text))
    assert source.provisional_from(TODAY) == date(2024, 8, 8)
    (batch,) = source.daily()
    result = normalise.daily(batch.records, market="KRX", today=TODAY, provisional_from=None)
    assert result.quarantine["rule"].tolist() == ["bad_date", "bad_price", "bad_volume"]
    assert result.quarantine["row"].tolist() == [2, 3, 4]
    assert '"date": "합계"' in result.quarantine["payload"][0]
    assert '"open": "?"' in result.quarantine["payload"][1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.parquet", b"PAR1 and nothing good PAR1", "damaged"),
        ("a.parquet", b"date,open\n", "not a Parquet file"),
        ("a.csv", b"PAR1\0\0", "bytes say Parquet"),
        ("a.csv", b"PK\x03\x04\0\0", "zip or Excel"),
        ("a.csv", "date,open\n".encode("utf-16"), "UTF-16"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"\xef\xbb\xbf\n\n", "empty"),
        ("a.csv", HEADER.encode() + b"005930,2024-08-05,1,1,\0,1,1\n", "binary"),
        ("a.csv", HEADER.encode() + b"005930,2024-08-05,1,1,\xff\xff,1,1\n", "neither UTF-8 nor cp949"),
        ("a.csv", HEADER.encode() + b"005930,2024-08-05,1,1,1,1,1\n005930,2024-08-0", "Expected 7 columns, got 2"),
        ("a.csv", HEADER.encode() + b"005930,2024-08-05,1,1,1,1,1,1\n", "Expected 7 columns, got 8"),
        ("a.csv", HEADER.encode(), "no row has a code and a date"),
        ("a.csv", HEADER.encode() + b"005930,08/05/2024,1,1,1,1,1\n", "is a date; found 08/05/2024"),
        ("a.csv", HEADER.encode() + b"005930,2024-08-05 09:05:00,1,1,1,1,1\n", "one bar a day, with a time"),
        ("a.csv", HEADER.encode() + b"005930,20240805090500,1,1,1,1,1\n", "one bar a day"),
        ("a.csv", b"code,date,open,high,low,close\n", r"recognised as volume. Found: \['code', 'date'.*columns="),
        ("a.csv", "종목코드,시가,고가,저가,종가,거래량\n".encode("cp949"), "recognised as date"),
        ("005930.csv", b",open,high,low,close,volume\n0,1,1,1,1,1\n", "recognised as date"),
        ("prices.csv", b"date,open,high,low,close,volume\n2024-08-05,1,1,1,1,1\n", "name holds no code"),
        ("005930_000660.csv", b"date,open,high,low,close,volume\n2024-08-05,1,1,1,1,1\n", "'000660', '005930'"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_daily_bars_is_refused_with_its_path_and_reason(write, name, content, reason):
    with pytest.raises(SchemaError, match=reason) as refusal:
        rows(open_source(write(name, content)))
    assert name in str(refusal.value)


def test_a_parquet_file_cut_short_is_refused(tmp_path):
    frame = pd.DataFrame(
        {"code": ["005930"] * 999, "date": "2024-08-05", "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
    )
    frame.to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SchemaError, match="damaged") as refusal:
        open_source(f"files:{tmp_path / 'a.parquet'}").instruments()
    assert refusal.value.__cause__ is not None


@pytest.mark.parametrize(
    ("spec", "options", "reason"),
    [
        (
            "kis",
            {},
            "Possible are 'simulated', 'kiwoom', 'krx.:CODE,….', 'yahoo:TICKER.,….', 'sample', and 'files:PATH",
        ),
        ("files:", {}, "Possible are"),
        ("sample:x", {}, "Possible are"),
        ("files:nowhere.csv", {}, "no such file"),
        ("files:nowhere/*.csv", {}, "holds no .csv"),
        ("sample", {"market": "KRX"}, "its own market"),
        ("sample", {"market": "LSE"}, "there is no market 'LSE'. Choose one of KRX, SIM, US"),
        ("sample", {"last_day": "today"}, "Choose one of provisional, final"),
    ],
)
def test_a_source_asked_for_wrongly_is_a_config_error_that_names_what_is_possible(spec, options, reason):
    with pytest.raises(ConfigError, match=reason):
        open_source(spec, **options)


def test_a_file_of_another_kind_is_refused(write):
    with pytest.raises(ConfigError, match=r"Expected .csv or .parquet"):
        open_source(write("a.xlsx", b"PK"))


def test_the_sample_is_five_us_stocks_that_all_go_in():
    source = open_source("sample")
    assert source.instruments()["code"].tolist() == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert source.provisional_from(TODAY) is None
    held = {
        batch.name: normalise.daily(batch.records, market=source.market, today=TODAY, provisional_from=None)
        for batch in source.daily()
    }
    # From the sample's own documentation: all but Facebook (2012-05-18) and Google (2004-08-19) begin on 2000-03-01.
    assert {name: len(result.candles) for name, result in held.items()} == {
        "AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270,
    }  # fmt: skip
    assert f"{held['FB'].candles['ts'].min():%Y-%m-%d}" == "2012-05-18"


def test_without_its_package_the_sample_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'chartinsight-studio\[sample\]'"):
        open_source("sample")


REAL_FILES = {
    "creon_A005930.csv": 5_549,
    "fdr_bom_unnamed_index_009150.csv": 6_000,
    "kiwoom_rest_normalised_005930.csv": 231,
    "kiwoom_rest_original_005930.csv": 231,
    "naver_kr_header_005930.csv": 370,
    "naver_page_bom_005930.csv": 1_200,
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_of_daily_bars_go_in(shared_data, name):
    source = open_source(f"files:{shared_data / 'raw_files' / name}")
    (batch,) = source.daily()
    result = normalise.daily(
        batch.records, market=source.market, today=TODAY, provisional_from=source.provisional_from(TODAY)
    )
    assert source.market == "KRX"
    assert result.rows == REAL_FILES[name]
    assert len(result.candles) + result.duplicates == REAL_FILES[name]
    assert source.instruments()["code"].tolist() == [Path(name).stem[-6:]]


@pytest.mark.shared
def test_the_two_forms_of_one_kiwoom_download_are_the_same_bars(shared_data):
    original, normalised = (
        rows(open_source(f"files:{shared_data}/raw_files/kiwoom_rest_{form}_005930.csv"))
        for form in ("original", "normalised")
    )
    assert original == normalised


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("krx_portal_all_cp949_20210326.csv", "recognised as date. Found: .'종목코드'"),
    ],
)
def test_real_files_of_other_things_are_refused_with_the_reason(shared_data, name, reason):
    with pytest.raises(SchemaError, match=reason):
        open_source(f"files:{shared_data / 'raw_files' / name}").instruments()


@pytest.mark.shared
def test_no_real_file_ends_in_anything_but_books_that_balance_or_a_clear_error(shared_data):
    taken = set()
    files = [file for folder in ("raw_files", "nasties", "labels") for file in (shared_data / folder).rglob("*.*")]
    assert len(files) > 30
    for file in files:
        try:
            source = open_source(f"files:{file}")
            for batch in source.daily():
                normalise.daily(
                    batch.records, market=source.market, today=TODAY, provisional_from=source.provisional_from(TODAY)
                )
                taken.add(file.name)
        except ChartInsightError as error:
            assert file.name in str(error)
    assert {"alphanumeric_codes.csv", "circuit_breaker_5m.csv", "_index.csv"}.isdisjoint(taken)
    assert {"duplicate_rows.csv", "halt_long_examples.csv", "ohlc_rounding.csv", "yahoo_corrupt_segments.csv"} <= taken

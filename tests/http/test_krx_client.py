"""KRX's list and Naver's bars through the real FinanceDataReader, over real HTTP: bars and lists, and every fault by its name."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from chartinsight_lib import normalise
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clients.krx import KrxSource
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.domain import INSTRUMENT
from chartinsight_lib.errors import AuthFailed, ConfigError, RateLimited, SchemaError, TruncatedReply, Unavailable
from chartinsight_lib.pace import LocalSlots, Pacer
from tests.http.public_services import Redirecting, Served, Services, public_services

REPLIES = Path(__file__).parents[1] / "data" / "replies"
NAVER = "fchart.stock.naver.com/sise.nhn"
KRX = "data.krx.co.kr/comm/bldAttendant/executeForResourceBundle.cmd"
LISTS = "raw.githubusercontent.com/FinanceData/fdr_krx_data_cache/refs/heads/master/data/listing"
MIDDAY = datetime(2024, 8, 9, 3, tzinfo=UTC)  # 12:00 in Seoul


def reply(name: str) -> bytes:
    return (REPLIES / name).read_bytes()


@pytest.fixture
def services() -> Iterator[Services]:
    with public_services() as running:
        running.serve(KRX, reply("krx_max_work_dt.json"))
        for kind, name in (("krx", "list"), ("desc", "desc"), ("delisting", "delisting")):
            running.serve(
                f"{LISTS}/{kind}/2024-08-09.csv", Served(reply(f"krx_{name}.csv"), kind="text/plain; charset=utf-8")
            )
        running.serve(NAVER, chart())
        yield running


def chart(body: bytes | str | None = None, **options) -> Served:
    return Served(reply("naver_000120.xml") if body is None else body, kind="text/html;charset=EUC-KR", **options)


@pytest.fixture
def krx(services):
    def krx(*codes: str, now: datetime = MIDDAY) -> KrxSource:
        return KrxSource(
            codes, clock=fixed_clock(now), transport=Redirecting(services), pacer=Pacer(LocalSlots(), 10_000)
        )

    return krx


def days(batch: Batch) -> list[str]:
    return [f"{day:%m-%d}" for day in batch.records["date"]]


def test_bars_come_as_naver_has_them_and_halted_days_become_gaps(krx):
    (batch,) = krx("000120").daily()
    assert batch.records.iloc[-1].drop("date").to_dict() == {
        "open": 31_200, "high": 31_350, "low": 30_900, "close": 31_000, "volume": 1_203_944, "code": "000120", "row": 11,
    }  # fmt: skip
    read = normalise.daily(batch.records, market="KRX", today=date(2024, 8, 9), provisional_from=date(2024, 8, 9))
    assert [(f"{gap.ts:%m-%d}", gap.kind) for gap in read.gaps.itertuples()] == [
        ("07-30", "halted"),
        ("07-31", "halted"),
    ]
    assert len(read.candles) == 9
    assert read.candles["flags"].tolist() == [0] * 8 + [1]


def test_what_is_held_is_read_again_with_an_overlap_and_said_so(krx):
    (batch,) = krx("000120").daily({"000120": date(2024, 8, 30)})
    assert days(batch)[0] == "07-31"  # 30 days before
    assert batch.asked == {"000120": date(2024, 7, 31)}


@pytest.mark.parametrize(("hour", "first"), [(7, date(2024, 8, 9)), (8, None)])
def test_a_day_is_finished_an_hour_after_its_close(krx, hour, first):
    # KRX closed at 15:30 in Seoul then, 06:30 UTC.
    source = krx(now=datetime(2024, 8, 9, hour, 0, tzinfo=UTC))
    assert source.provisional_from(date(2024, 8, 9)) == first


def test_the_list_tells_of_every_stock_what_krx_knows(krx):
    listed = krx().instruments()
    assert list(listed.columns[: len(INSTRUMENT)]) == INSTRUMENT
    told = {row.code: row for row in listed.itertuples()}
    assert list(told) == ["000120", "00012K", "0078X0", "200340", "200560", "300780"]
    assert (told["000120"].name, told["000120"].board, told["000120"].sector) == (
        "가나전자",
        "KOSPI",
        "전자부품 제조업",
    )
    assert told["000120"].listed_on == date(1975, 6, 11)
    assert told["000120"].shares == 100_000_000
    assert "states" not in listed, "the list does not tell whether trading is halted"
    assert (told["00012K"].sector, told["00012K"].listed_on) == (None, None)
    assert (told["200340"].board, told["200340"].section) == ("KOSDAQ", "우량기업부")
    assert told["200560"].section == "관리종목"
    assert told["0078X0"].section == "SPAC"


def test_of_codes_that_are_asked_for_the_list_has_those_that_are_listed(krx):
    source = krx("200340", "999990")
    assert source.instruments()["code"].tolist() == ["200340"]
    assert not source.lists_whole_market
    assert krx().lists_whole_market


def test_shares_that_were_delisted_are_told_with_day_and_reason(krx):
    gone = krx().delistings()
    assert [(row.code, row.delisted_on, row.reason) for row in gone.itertuples()] == [
        ("500780", date(2019, 10, 2), "감사의견 거절"),
        ("400120", date(2023, 4, 21), "종목별 상장폐지신청"),
        ("400125", date(2023, 4, 21), "해산 사유 발생"),
    ]


def test_the_whole_market_comes_in_batches_and_one_unknown_code_is_named(services, krx):
    services.serve(NAVER, chart(), chart('<protocol>\n<chartdata symbol="00012K"></chartdata>\n</protocol>'), chart())
    (batch,) = krx().daily()
    assert batch.name == "000120…300780"
    assert list(batch.errors) == ["00012K"]
    assert "knows no bar of this code" in batch.errors["00012K"]
    assert sorted(set(batch.records["code"])) == ["000120", "0078X0", "200340", "200560", "300780"]
    assert batch.records["row"].tolist() == list(range(1, 5 * 11 + 1))


ITEM_FAULTS = {
    "no data at all": (chart("<protocol/>"), "knows no bar of this code"),
    "cut": (chart(reply("naver_000120.xml")[:700]), "in the midst of its bars"),
    "broken off": (chart(cut=100), "broke off"),
    "another shape": (chart('{"data": []}'), "is no chart"),
    "a column is gone": (chart(reply("naver_000120.xml").replace(b"|62400|", b"|")), "in another shape"),
    "no dates": (chart(reply("naver_000120.xml").replace(b"20240726", b"2024-07")), "in another shape"),
    "a day twice": (chart(reply("naver_000120.xml").replace(b"20240729", b"20240726")), "one occurs twice"),
    "a page": (chart("<!DOCTYPE html><html>점검 중</html>".encode("euc-kr")), "a page instead of data"),
    "out of order": (chart("oops", status=500), "HTTP 500"),
}


@pytest.mark.parametrize(("answer", "words"), ITEM_FAULTS.values(), ids=ITEM_FAULTS.keys())
def test_what_goes_wrong_with_one_instrument_is_named_and_the_next_one_goes_on(services, krx, answer, words):
    services.serve(NAVER, answer, chart())
    (batch,) = krx("000120", "200340").daily()
    assert list(batch.errors) == ["000120"]
    assert words in batch.errors["000120"]
    assert set(batch.records["code"]) == {"200340"}


@pytest.mark.parametrize(
    ("answer", "kind"), [(chart("Too Many", status=429), RateLimited), (chart("no", status=403), AuthFailed)]
)
def test_a_refusal_ends_the_walk_and_what_came_before_is_handed_on(services, krx, answer, kind):
    services.serve(NAVER, chart(), answer)
    walk = krx("000120", "200340", "200560").daily()
    assert set(next(walk).records["code"]) == {"000120"}
    with pytest.raises(kind):
        next(walk)
    assert len(services.asked_of(NAVER)) == 2


LIST_FAULTS = {
    "not published yet": ("krx", Served("404: Not Found", 404, "text/plain"), Unavailable, "not yet today"),
    "broken off": ("krx", Served(reply("krx_list.csv"), cut=50), TruncatedReply, "broke off"),
    "too many": ("desc", Served("slow down", 429, "text/plain"), RateLimited, "too many requests"),
    "a column is gone": ("krx", Served(reply("krx_list.csv").replace(b",Dept,", b",Section,")), SchemaError, "'Dept'"),
    "a new board": ("krx", Served(reply("krx_list.csv").replace(b"KONEX", b"KNEX2")), SchemaError, "KNEX2"),
    "a code twice": (
        "krx",
        Served(reply("krx_list.csv").replace(b"200560", b"200340")),
        SchemaError,
        "code of another",
    ),
    "a page": ("krx", Served("<html>sorry</html>", kind="text/html"), Unavailable, "a page instead"),
}


@pytest.mark.parametrize(("which", "answer", "kind", "words"), LIST_FAULTS.values(), ids=LIST_FAULTS.keys())
def test_a_list_that_cannot_be_had_is_never_an_empty_one(services, krx, which, answer, kind, words):
    services.answers.pop(f"{LISTS}/{which}/2024-08-09.csv")
    services.serve(f"{LISTS}/{which}/2024-08-09.csv", answer)
    with pytest.raises(kind, match=words):
        krx().instruments()


def test_a_list_of_the_delisted_that_the_library_would_swallow_is_named(services, krx):
    services.serve(f"{LISTS}/delisting/2024-08-09.csv", Served("oops", 500))
    with pytest.raises(Unavailable, match="HTTP 500"):
        krx().delistings()


def test_krx_that_asks_for_a_login_is_named(services, krx):
    services.serve(KRX, Served("LOGOUT", 400, "text/plain"))
    with pytest.raises(AuthFailed, match="not without a login"):
        krx().instruments()


def test_krx_that_answers_in_another_shape_is_named(services, krx):
    services.serve(KRX, '{"result": {}}')
    with pytest.raises(SchemaError, match="another shape"):
        krx().instruments()


def test_the_library_prints_nothing_and_gets_its_own_hands_back(services, krx, capsys):
    import FinanceDataReader.krx.listing as lists
    import FinanceDataReader.naver.data as charts
    import requests

    services.serve(NAVER, chart("<protocol/>"))
    list(krx("000120").daily())
    services.serve(KRX, "no JSON")
    with pytest.raises(SchemaError):
        krx().instruments()
    assert capsys.readouterr() == ("", "")
    assert (lists.requests, charts.requests, lists.pd) == (requests, requests, pd)


def test_a_code_that_is_none_of_krx_is_refused(krx):
    with pytest.raises(ConfigError, match="'AAPL' is no code of KRX"):
        krx("AAPL")


def test_without_its_package_krx_says_how_to_install_it(monkeypatch, krx):
    monkeypatch.setattr("chartinsight_lib.clients.krx.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'chartinsight-studio\[public\]'"):
        krx()


@pytest.mark.shared
def test_a_recorded_answer_of_naver_goes_in(services, krx, shared_data):
    services.serve(
        NAVER, chart((shared_data / "raw_files/krx_json/StockOhlcvByDate_test_ohlcv_with_adjusted_0.xml").read_bytes())
    )
    (batch,) = krx("005930", now=datetime(2026, 1, 26, 3, tzinfo=UTC)).daily()
    assert len(batch.records) == 2832
    assert batch.records.iloc[0].drop(["date", "row", "code"]).tolist() == [26000, 26040, 25640, 25680, 215592]

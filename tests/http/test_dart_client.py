"""The client of Open DART against a register over loopback: what it hands on, what it refuses, what it never shows."""

import json
import logging
import random
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest

from chartinsight_lib.clients.dart import DartClient, fingerprint
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.errors import (
    AuthFailed,
    ConfigError,
    RateLimited,
    RequestRefused,
    SchemaError,
    TruncatedReply,
    Unavailable,
    UnknownCode,
    UpstreamError,
)
from chartinsight_lib.pace import LocalAllowance, LocalSlots, Pacer
from tests.http.fake_dart import CUT, DROP, HANG, HTML, KEY, FakeDart, says

NOON = datetime(2024, 11, 15, 3, tzinfo=UTC)  # 12:00 in Seoul
ASKED = ("00990001", "2024", "11014", "CFS")


@pytest.fixture
def dart() -> Iterator[FakeDart]:
    with FakeDart() as fake:
        fake.tell("00990001", "20241114000311", year=2024, quarter=3, income=5_000, to_date=12_000)
        yield fake


def client(dart: FakeDart, **other) -> DartClient:
    usual = {
        "base_url": dart.url, "pacer": Pacer(LocalSlots(), 10_000), "clock": fixed_clock(NOON), "timeout_s": 5.0,
        "back_off_s": 0.001, "dice": random.Random(1),  # noqa: S311
    }  # fmt: skip
    return DartClient(KEY, **usual | other)


def ask(dart: FakeDart, **other) -> list[dict]:
    with client(dart, **other) as one:
        return one.statements(*ASKED)


# What is handed on.


def test_statements_come_as_the_server_sends_them(dart):
    assert ask(dart) == dart.statements[ASKED]
    assert dart.asked == [
        (
            "fnlttSinglAcntAll.json",
            {"corp_code": "00990001", "bsns_year": "2024", "reprt_code": "11014", "fs_div": "CFS"},
        )
    ]
    assert dart.keys == {KEY}


def test_no_data_is_no_rows_and_no_error(dart):
    with client(dart) as one:
        assert one.statements("00990009", "2024", "11014", "CFS") == []
        assert one.share_counts("00990009", "2024", "11014") == []
        assert list(one.filings(date(2024, 11, 1), date(2024, 11, 30))) == []


def test_the_list_is_read_to_its_end_oldest_first(dart):
    for n in range(250):
        dart.file("00990001", "000990", "가나전자", f"20241114{n:06}", year=2024, quarter=3)
    with client(dart) as one:
        found = list(one.filings(date(2024, 11, 1), date(2024, 11, 30)))
    assert [row["rcept_no"] for row in found] == [f"20241114{n:06}" for n in range(250)]
    assert [params["page_no"] for _, params in dart.asked] == ["1", "2", "3"]
    assert {(params["bgn_de"], params["end_de"], params["pblntf_ty"]) for _, params in dart.asked} == {
        ("20241101", "20241130", "A")
    }


def test_a_list_that_ends_before_what_it_promised_is_an_error(dart):
    page = {
        "status": "000",
        "page_no": 1,
        "page_count": 100,
        "total_count": 150,
        "total_page": 1,
        "list": [{"rcept_no": "1"}],
    }
    dart.faults["list.json"].append((200, "application/json", json.dumps(page).encode()))
    with client(dart) as one, pytest.raises(TruncatedReply, match="150 filings are promised, and 1 came"):
        list(one.filings(date(2024, 11, 1), date(2024, 11, 30)))


def test_a_company_is_told_with_the_month_of_its_fiscal_year_and_one_that_is_unknown_is_an_error(dart):
    dart.companies["00990001"] = {"status": "000", "message": "정상", "corp_code": "00990001", "acc_mt": "03"}
    with client(dart) as one:
        assert one.company("00990001")["acc_mt"] == "03"
        with pytest.raises(UnknownCode, match="00990009"):
            one.company("00990009")


def test_listed_companies_come_out_of_the_archive_with_their_leading_zeros(dart):
    dart.listed = [("00990001", "가나전자", "000990"), ("00990003", "마바건설", ""), ("00126380", "삼성전자", "005930")]
    with client(dart) as one:
        assert [(row["corp_code"], row["stock_code"]) for row in one.corporations()] == [
            ("00990001", "000990"), ("00126380", "005930"),
        ]  # fmt: skip


# Refusals and faults.


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        ("010", AuthFailed, "Copy it anew"),
        ("011", AuthFailed, "suspended"),
        ("901", AuthFailed, "expired"),
        ("100", RequestRefused, "적절한"),
    ],
)
def test_a_refusal_is_named_by_kind_with_the_servers_code_and_is_not_asked_again(dart, status, kind, advice):
    dart.faults["fnlttSinglAcntAll.json"].append(says(status))
    with pytest.raises(kind, match=advice) as refusal:
        ask(dart)
    assert refusal.value.code == status
    assert "Asked for 00990001 2024 11014 CFS" in str(refusal.value)
    assert len(dart.asked) == 1


@pytest.mark.parametrize(
    "fault", [says("800"), says("900"), HTML, DROP, CUT, (503, "text/plain", b""), (429, "text/plain", b"")]
)
def test_what_passes_is_asked_again(dart, fault):
    dart.faults["fnlttSinglAcntAll.json"] += [fault, fault]
    assert ask(dart) == dart.statements[ASKED]
    assert len(dart.asked) == 3


def test_a_server_that_does_not_answer_in_time_is_asked_again(dart):
    dart.faults["fnlttSinglAcntAll.json"].append(HANG)
    assert ask(dart, timeout_s=0.2) == dart.statements[ASKED]


def test_maintenance_that_lasts_ends_with_an_error_after_a_counted_number_of_tries(dart):
    dart.faults["fnlttSinglAcntAll.json"] += [says("800")] * 20
    with pytest.raises(Unavailable, match=r"서비스가 중지 중입니다.*Gave up after 5 tries") as refusal:
        ask(dart)
    assert refusal.value.code == "800"
    assert len(dart.asked) == 5


def test_a_page_of_html_in_place_of_json_says_so(dart):
    dart.faults["fnlttSinglAcntAll.json"] += [HTML] * 5
    with pytest.raises(Unavailable, match=r"a page of HTML where JSON was expected \(maintenance\?\)"):
        ask(dart)


@pytest.mark.parametrize(
    "body",
    [{"status": "000"}, {"status": "000", "list": "none"}, {"status": "000", "list": [1]}, {"list": []}, {"status": 7}],
)
def test_a_reply_of_another_shape_is_an_error_and_never_no_rows(dart, body):
    dart.faults["fnlttSinglAcntAll.json"].append((200, "application/json", json.dumps(body).encode()))
    with pytest.raises(SchemaError, match="The API may have changed"):
        ask(dart)


def test_an_unknown_status_is_an_error(dart):
    dart.faults["fnlttSinglAcntAll.json"].append((200, "application/json", b'{"status": "777", "message": "new"}'))
    with pytest.raises(UpstreamError, match="status 777"):
        ask(dart)


def test_an_archive_that_is_cut_off_is_asked_again_and_an_error_in_its_place_is_read(dart):
    dart.listed = [("00990001", "가나전자", "000990")]
    whole = dart.archive()
    dart.faults["corpCode.xml"] += [(200, "application/x-msdownload", whole[: len(whole) // 2])] * 2
    with client(dart) as one:
        assert [row["stock_code"] for row in one.corporations()] == ["000990"]
    assert dart.names() == ["corpCode.xml"] * 3
    dart.faults["corpCode.xml"] += [(200, "application/x-msdownload", whole[:60])] * 5
    with client(dart) as one, pytest.raises(Unavailable, match="damaged or cut off"):
        list(one.corporations())
    told = '<?xml version="1.0" encoding="UTF-8"?><result><status>010</status><message>등록되지 않은 키입니다.</message></result>'
    for kind, content in (("application/xml", told.encode()), says("010")[1:]):
        dart.faults["corpCode.xml"].append((200, kind, content))
        with client(dart) as one, pytest.raises(AuthFailed) as refusal:
            list(one.corporations())
        assert refusal.value.code == "010"


# The day's allowance.


def test_a_day_allows_so_many_requests_and_the_next_day_as_many_again(dart):
    now = [NOON]
    allowance = LocalAllowance()
    with client(dart, daily=3, allowance=allowance, clock=lambda: now[0]) as one:
        for _ in range(3):
            one.statements(*ASKED)
        with pytest.raises(RateLimited, match=r"the 3 requests of 2024-11-15 \(KST\) are used up") as refusal:
            one.statements(*ASKED)
        assert refusal.value.code == "020"
        assert len(dart.asked) == 3  # the fourth was not sent
        now[0] = datetime(2024, 11, 15, 15, tzinfo=UTC)  # midnight in Seoul
        assert one.statements(*ASKED)


def test_a_retry_counts_as_a_request(dart):
    dart.faults["fnlttSinglAcntAll.json"] += [DROP] * 5
    with client(dart, daily=3) as one, pytest.raises(RateLimited):
        one.statements(*ASKED)
    assert len(dart.asked) == 3


def test_the_servers_own_no_ends_the_day_for_everybody_who_shares_the_count(dart):
    dart.quota = 1
    allowance = LocalAllowance()
    with client(dart, allowance=allowance) as one, client(dart, allowance=allowance) as other:
        one.statements(*ASKED)
        with pytest.raises(RateLimited, match="요청 제한을 초과하였습니다") as refusal:
            one.statements(*ASKED)
        assert refusal.value.code == "020"
        with pytest.raises(RateLimited, match="are used up"):
            other.statements(*ASKED)
    assert len(dart.asked) == 2  # not asked again, by neither


# The key.


@pytest.mark.parametrize("key", ["", "short", KEY + "0", KEY[:-1] + " ", KEY[:-1] + "é"])
def test_what_is_no_key_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError, match="40 letters and digits") as refusal:
        DartClient(key)
    assert not key or key not in str(refusal.value)


def test_a_fingerprint_is_of_key_and_host_and_shows_neither():
    one = fingerprint(KEY, "https://opendart.fss.or.kr")
    assert one != fingerprint(KEY, "http://127.0.0.1:1")
    assert len(one) == 16
    assert one not in KEY


def test_the_key_is_in_no_log_and_no_error(dart, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "urllib3"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    said = []
    echo = json.dumps({"status": "100", "message": f"crtfc_key={KEY}"}).encode()
    for fault in (says("010"), says("020"), (200, "application/json", echo), HTML, DROP, CUT, HANG):
        dart.faults["fnlttSinglAcntAll.json"] += [fault] * 5
        with client(dart, timeout_s=0.3) as one, pytest.raises(UpstreamError) as refusal:
            one.statements(*ASKED)
        dart.faults["fnlttSinglAcntAll.json"].clear()
        said.append("".join(traceback.format_exception(refusal.value)) + repr(refusal.value.__context__) + repr(one))
    with (
        DartClient(KEY, base_url="http://127.0.0.1:9", back_off_s=0.001) as nobody,
        pytest.raises(Unavailable) as refusal,
    ):
        nobody.statements(*ASKED)
    said.append("".join(traceback.format_exception(refusal.value)))
    assert dart.keys == {KEY}  # it did go out
    assert any("fnlttSinglAcntAll.json" in record.getMessage() for record in caplog.records)  # and addresses are logged
    for text in (*said, *(record.getMessage() + repr(record.args) for record in caplog.records)):
        assert KEY not in text


def test_waits_between_tries_double_with_some_chance_and_stay_within_the_deadline(dart):
    waits: list[float] = []
    dart.faults["fnlttSinglAcntAll.json"] += [says("800")] * 5
    with pytest.raises(Unavailable):
        ask(dart, back_off_s=1.0, sleep=waits.append)
    assert len(waits) == 4
    for wait, base in zip(waits, (1, 2, 4, 8), strict=True):
        assert timedelta(seconds=0.8 * base) <= timedelta(seconds=wait) <= timedelta(seconds=1.2 * base)
    dart.faults["fnlttSinglAcntAll.json"] += [says("800")] * 5
    with pytest.raises(Unavailable, match="Gave up after 2 tries"):
        ask(dart, back_off_s=1.0, deadline_s=2.0, sleep=waits.append)

"""S3: what is served where, and what a request needs."""

import pytest
from raw_client import code_of, simulator


@pytest.fixture
def kiwoom():
    with simulator() as asker:
        yield asker


DAY = {"stk_cd": "000100", "base_dt": "20260918", "upd_stkpc_tp": "0"}


@pytest.mark.parametrize(
    ("api_id", "path", "code"),
    [("", "chart", 1501), ("ka99999", "chart", 1505), ("ka10081", "stkinfo", 1504), ("ka10095", "nowhere", 1504)],
)
def test_a_tr_that_is_not_served_there_is_told_apart(kiwoom, api_id, path, code):
    assert code_of(kiwoom.post(api_id, path=path, **DAY)) == (200, 1, code)


@pytest.mark.parametrize(
    ("body", "first"),
    [
        ({}, "stk_cd"),
        ({"stk_cd": "000100"}, "base_dt"),
        ({"stk_cd": "000100", "base_dt": "", "upd_stkpc_tp": "1"}, "base_dt"),
        ({"stk_cd": "000100", "base_dt": "20260918"}, "upd_stkpc_tp"),
    ],
)
def test_the_first_missing_or_empty_field_is_named(kiwoom, body, first):
    answer = kiwoom.post("ka10081", **body)
    assert code_of(answer) == (200, 2, 1511)
    assert answer.json()["return_msg"] == (
        f"입력 값 오류입니다[1511:필수 입력 값에 값이 존재하지 않습니다. 필수입력 파라미터={first}]"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"stk_cd": "KRX:000100"},
        {"stk_cd": "A000100"},
        {"base_dt": "2026-9-1"},
        {"base_dt": "20261399"},
        {"upd_stkpc_tp": "2"},
        {"upd_stkpc_tp": 1},
    ],
)
def test_a_field_in_a_wrong_format_is_named(kiwoom, wrong):
    answer = kiwoom.post("ka10081", **{**DAY, **wrong})
    assert code_of(answer) == (200, 2, 1517)
    assert next(iter(wrong)) in answer.json()["return_msg"]


def test_a_body_that_is_no_json_object_is_refused(kiwoom):
    kiwoom.post("ka10081", **DAY)
    headers = {"authorization": f"Bearer {kiwoom.token}", "api-id": "ka10081"}
    for content in (b"", b"[]", b"stk_cd=000100"):
        assert code_of(kiwoom.http.post("/api/dostk/chart", content=content, headers=headers)) == (200, 2, 1517)


def test_a_field_that_is_not_known_is_ignored(kiwoom):
    assert len(kiwoom.rows("ka10081", **DAY, strt_dt="20260917", end_dt="20260917")) == 9


def test_the_answer_says_which_tr_it_is_and_that_there_is_no_more(kiwoom):
    answer = kiwoom.post("ka10102")
    assert answer.headers["api-id"] == "ka10102"
    assert (answer.headers["cont-yn"], answer.headers["next-key"]) == ("N", "")
    assert answer.json()["return_msg"] == "정상적으로 처리되었습니다"

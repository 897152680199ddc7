"""What Kiwoom's replies mean: bodies as the specification prints them (section 4), and what gateways put in their place."""

import json

import httpx
import pytest

from chartinsight_lib.clients._http import Answer, read_answer
from chartinsight_lib.clients.kiwoom_replies import TokenRefused, flat, judge, records
from chartinsight_lib.errors import (
    AuthFailed,
    RateLimited,
    RequestRefused,
    SchemaError,
    Unavailable,
    UnknownCode,
    UpstreamError,
)

FINE = {"return_code": 0, "return_msg": "정상적으로 처리되었습니다"}


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(
        status,
        httpx.Headers(headers)
        if "Content-Type" in headers
        else httpx.Headers({"Content-Type": "application/json"} | headers),
        content,
    )


@pytest.mark.parametrize(
    "body",
    [
        FINE,
        FINE | {"return_code": "0"},
        FINE | {"return_code": "00000"},
        FINE | {"return_msg": "조회가 완료되었습니다..."},
    ],
)
def test_success_is_told_by_the_class_number_and_not_by_its_text(body):
    judge("ka10081", answer(body))


@pytest.mark.parametrize(
    ("body", "status", "kind", "code"),
    [
        ({"return_code": 3, "return_msg": "인증에 실패했습니다[8005:Token이 유효하지 않습니다]"}, 200, TokenRefused, "8005"),
        ({"return_code": 3, "return_msg": "x[8003:x]"}, 200, TokenRefused, "8003"),
        ({"return_code": 3, "return_msg": "x[8103:x]"}, 200, TokenRefused, "8103"),
        ({"return_code": 3, "return_msg": "no bracket"}, 401, TokenRefused, "401"),
        ({"return_code": 3, "return_msg": "x[8001:App Key와 Secret Key 정보가 일치하지 않습니다]"}, 200, AuthFailed, "8001"),
        ({"return_code": 2, "return_msg": "입력 값 오류입니다[8030:투자구분(실전/모의)이 달라서 …]"}, 200, AuthFailed, "8030"),
        ({"return_code": 3, "return_msg": "x[8031:x]"}, 200, AuthFailed, "8031"),
        ({"return_code": 3, "return_msg": "x[8050:지정단말기]"}, 200, AuthFailed, "8050"),
        ({"return_code": 3, "return_msg": "x[8010:x]"}, 200, AuthFailed, "8010"),
        (
            {"return_code": 2, "return_msg": "x[1511:필수입력 파라미터=base_dt]"},
            200, RequestRefused, "1511",
        ),
        ({"return_code": 3, "return_msg": "잘못된 요청입니다[1504:x]"}, 200, RequestRefused, "1504"),
        ({"return_code": 1, "return_msg": "잘못된 요청입니다[1504:x]"}, 200, RequestRefused, "1504"),
        ({"return_code": 5, "return_msg": "x[1634:x]"}, 200, RequestRefused, "1634"),
        ({"return_code": 7, "return_msg": "x[1902:종목 정보가 없습니다. 종목코드=118970]"}, 200, UnknownCode, "1902"),
        ({"return_code": 7, "return_msg": "x[1903:x]"}, 200, UnknownCode, "1903"),
        ({"return_msg": "x[1700:유량=5, API ID=ka10080]", "return_code": 5}, 429, RateLimited, "1700"),
        ({"return_msg": "x[1700:허용된 요청 개수를 초과하였습니다. API ID=ka10029]", "return_code": 5}, 429, RateLimited, "1700"),
        ({"return_code": 5, "return_msg": "x[1701:x]"}, 200, RateLimited, "1701"),
        ({"return_code": 5, "return_msg": "x[1687:x]"}, 200, RateLimited, "1687"),
        ({"return_code": 7, "return_msg": "x[1999:x]"}, 200, Unavailable, "1999"),
        ({"return_code": 20, "return_msg": "[2000](RC4058:모의투자 장종료)"}, 200, UpstreamError, "4058"),
        ({"return_code": 9, "return_msg": "something new"}, 200, UpstreamError, ""),
        ({"return_code": 0, "return_msg": "fine"}, 503, Unavailable, ""),
    ],
)  # fmt: skip
def test_a_refusal_is_told_by_the_code_in_brackets_whatever_its_class(body, status, kind, code):
    with pytest.raises(kind) as refusal:
        judge("ka10081", answer(body, status))
    assert type(refusal.value) is kind
    assert refusal.value.code == code
    assert str(refusal.value).startswith("kiwoom ka10081: ")


@pytest.mark.parametrize(
    ("content", "status", "seen"),
    [
        (b"<html>notice</html>", 200, "a page of HTML where JSON was expected (maintenance?)"),
        (b"<html>Request Blocked</html>", 400, "HTTP 400 with a page of HTML"),
        (b'{"return_code":0,"stk_dt_pole_ch', 200, "32 bytes of application/json that are no JSON"),
        (b"", 200, "0 bytes of application/json that are no JSON"),
        (b"[1, 2]", 200, "JSON that is no object but list"),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_a_server_that_does_not_work_now(content, status, seen):
    kind = "text/html; charset=utf-8" if content.startswith(b"<") else "application/json;charset=UTF-8"
    with pytest.raises(Unavailable) as refusal:
        judge("ka10081", answer(content, status, **{"Content-Type": kind}))
    assert seen in str(refusal.value)


@pytest.mark.parametrize("written", [None, "soon", [], 0.5])
def test_a_class_that_is_no_number_means_that_the_api_has_changed(written):
    with pytest.raises(SchemaError, match="return_code is"):
        judge("ka10081", answer({"return_code": written, "return_msg": "x"}))


def test_advice_says_what_to_do_about_keys_of_the_other_environment():
    with pytest.raises(AuthFailed, match=r"https://mockapi\.kiwoom\.com.*CHARTINSIGHT_KIWOOM_URL"):
        judge("au10001", answer({"return_code": 2, "return_msg": "x[8030:x]"}))


@pytest.mark.parametrize(
    ("written", "seconds"), [("2", 2.0), ("0.5", 0.5), ("soon", None), ("-1", None), ("1e9", None), ("nan", None)]
)
def test_a_wait_that_the_server_asks_for_is_read_where_it_makes_sense(written, seconds):
    assert answer(FINE, 429, **{"Retry-After": written}).retry_after_s == seconds


def test_rows_are_texts_a_blank_row_is_none_and_unknown_columns_stay():
    body = FINE | {"rows": [{"dt": "20260904", "cur_prc": 41250, "new": None}, {"dt": "", "cur_prc": " ", "new": None}]}
    assert records("ka10081", answer(body), "rows") == [{"dt": "20260904", "cur_prc": "41250", "new": ""}]
    assert records("ka10081", answer(FINE | {"rows": []}), "rows") == []


@pytest.mark.parametrize("rows", [None, {}, "text", [1], [None]])
def test_rows_that_are_no_rows_are_an_error_that_names_what_was_found(rows):
    with pytest.raises(SchemaError, match="no rows under rows; found return_code, return_msg, rows"):
        records("ka10081", answer(FINE | {"rows": rows}), "rows")


def test_a_flat_reply_is_one_row_and_must_name_its_instrument():
    assert flat("ka10100", answer(FINE | {"code": "123450", "list": []}), "code")["code"] == "123450"
    with pytest.raises(SchemaError, match="has no code"):
        flat("ka10100", answer(FINE), "code")

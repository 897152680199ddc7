"""S1, S2, S5: tokens, refusals of a caller, quotas."""

from datetime import timedelta

import pytest
from handmade import DAYS, at
from raw_client import EVENING, code_of, simulator

from chartinsight_lib.simulator.options import Options


@pytest.fixture
def kiwoom():
    with simulator() as asker:
        yield asker


DAY = {"stk_cd": "000100", "base_dt": "20260918", "upd_stkpc_tp": "0"}


def test_a_token_lives_24_hours_on_the_simulated_clock():
    with simulator(token_life=Options().token_life) as kiwoom:
        answer = kiwoom.issue()
    assert answer.headers["content-type"] == "application/json;charset=UTF-8"
    body = answer.json()
    assert body["token_type"] == "bearer" and body["return_code"] == 0
    assert body["expires_dt"] == "20260919210000"  # EVENING is 2026-09-18 21:00 KST
    assert "expires_in" not in body


def test_a_token_may_live_18_hours():
    with simulator(token_life=timedelta(hours=18)) as kiwoom:
        assert kiwoom.issue().json()["expires_dt"] == "20260919150000"
        assert kiwoom.post("ka10081", **DAY).json()["return_code"] == 0
        kiwoom.clock.move_to(EVENING + timedelta(hours=18))
        assert code_of(kiwoom.post("ka10081", **DAY)) == (200, 3, 8005)


def test_a_second_issue_gives_the_same_token(kiwoom):
    assert kiwoom.issue().json() == kiwoom.issue().json()


@pytest.mark.parametrize(("reissue", "old_answers"), [("new", 0), ("kill_old", 3)])
def test_a_second_issue_can_give_a_new_token_and_can_kill_the_old(reissue, old_answers):
    with simulator(reissue=reissue) as kiwoom:
        kiwoom.post("ka10081", **DAY)
        assert kiwoom.issue().json()["token"] != kiwoom.token
        assert kiwoom.post("ka10081", **DAY).json()["return_code"] == old_answers


def test_a_revoked_token_is_refused(kiwoom):
    kiwoom.post("ka10081", **DAY)
    assert kiwoom.revoke(kiwoom.token).json()["return_code"] == 0
    refused = kiwoom.post("ka10081", **DAY)
    assert code_of(refused) == (200, 3, 8005)
    assert refused.json()["return_msg"] == "인증에 실패했습니다[8005:Token이 유효하지 않습니다]"


def test_revoking_needs_a_token_that_is_known(kiwoom):
    assert code_of(kiwoom.revoke("")) == (200, 3, 8016)
    assert code_of(kiwoom.revoke("nonsense")) == (200, 3, 8015)


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"appkey": ""}, (200, 3, 8020)),
        ({"secretkey": "ABSENT"}, (200, 3, 8020)),
        ({"secretkey": "other"}, (200, 3, 8001)),
        ({"appkey": "other"}, (200, 3, 8001)),
        ({"grant_type": "ABSENT"}, (200, 3, 8011)),
        ({"grant_type": "password"}, (200, 3, 8012)),
    ],
)
def test_a_wrong_request_for_a_token_is_told_what_is_wrong(kiwoom, wrong, answer):
    assert code_of(kiwoom.issue(**wrong)) == answer


def test_a_key_of_the_other_environment_is_refused_when_a_token_is_asked_for():
    with simulator(foreign_keys=frozenset({"mock-key"})) as kiwoom:
        assert code_of(kiwoom.issue(appkey="mock-key")) == (200, 2, 8030)


def test_a_token_of_the_other_environment_is_refused(kiwoom):
    with simulator(profile="mock") as mock:
        token = mock.issue().json()["token"]
    assert code_of(kiwoom.post("ka10081", headers={"authorization": f"Bearer {token}"}, **DAY)) == (200, 3, 8031)


def test_an_unregistered_address_is_refused():
    with simulator(unknown_ips=frozenset({"127.0.0.1"})) as kiwoom:
        assert code_of(kiwoom.issue()) == (200, 3, 8050)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [("", 1513), ("Basic abc", 1514), ("abc", 1514), ("Bearer", 1516), ("Bearer a b", 1514)],
)
def test_a_malformed_authorization_is_told_apart(kiwoom, authorization, code):
    assert code_of(kiwoom.post("ka10081", headers={"authorization": authorization}, **DAY)) == (200, 2, code)


def test_an_invalid_token_can_be_answered_with_http_401():
    with simulator(http_401=True) as kiwoom:
        assert code_of(kiwoom.post("ka10081", headers={"authorization": "Bearer x"}, **DAY)) == (401, 3, 8005)


def test_the_sixth_call_of_a_second_is_refused_and_another_tr_is_not():
    with simulator(quota=None) as kiwoom:
        assert [kiwoom.post("ka10081", **DAY).status_code for _ in range(6)] == [200] * 5 + [429]
        refused = kiwoom.post("ka10081", **DAY)
        assert code_of(refused) == (429, 5, 1700)
        assert refused.json()["return_msg"] == (
            "허용된 요청 개수를 초과하였습니다[1700:허용된 API 요청 개수를 초과하였습니다. 유량=5, API ID=ka10081]"
        )
        assert "retry-after" not in refused.headers
        assert kiwoom.post("ka10082", **DAY).status_code == 200
        assert kiwoom.server.requests.count(api_id="ka10081", status=429) == 2


def test_the_mock_profile_lets_one_call_a_second_pass():
    with simulator(profile="mock", quota=None) as kiwoom:
        assert [kiwoom.post("ka10081", **DAY).status_code for _ in range(2)] == [200, 429]


def test_quotas_run_as_fast_as_the_clock():
    with simulator(at(DAYS[0], 8), quota=1, speed=1_000) as kiwoom:
        statuses = [kiwoom.post("ka10081", **DAY).status_code for _ in range(10)]
        assert statuses.count(200) >= 5  # a simulated second is a real millisecond, and a call takes more


def test_two_keys_have_a_quota_each():
    with simulator(quota=1, keys={"simulated-appkey": "simulated-secretkey", "b": "c"}) as kiwoom:
        assert [kiwoom.post("ka10081", **DAY).status_code for _ in range(2)] == [200, 429]
        kiwoom.token = kiwoom.issue(appkey="b", secretkey="c").json()["token"]
        assert kiwoom.post("ka10081", **DAY).status_code == 200


def test_a_quota_over_all_trs_is_another_code():
    with simulator(quota_total=1) as kiwoom:
        kiwoom.post("ka10081", **DAY)
        assert code_of(kiwoom.post("ka10082", **DAY)) == (429, 5, 1701)


def test_no_secret_is_in_the_log(tmp_path):
    with simulator(request_log=tmp_path / "requests.jsonl") as kiwoom:
        kiwoom.post("ka10081", **DAY)
        kiwoom.issue(secretkey="wrong-secret")
        kept = repr(list(kiwoom.server.requests)) + repr(kiwoom.server.options)
    kept += (tmp_path / "requests.jsonl").read_text("utf-8")
    assert '"api_id":"ka10081","code":"000100"' in kept
    for secret in (kiwoom.token, "simulated-secretkey", "simulated-appkey", "wrong-secret"):
        assert secret not in kept

"""S6, S15, S18: everything that can go wrong, on demand and the same every time."""

import json
import time

import httpx
import pytest
from handmade import DAYS, at
from raw_client import EVENING, code_of, simulator

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.faults import read_faults

DAY = {"stk_cd": "000100", "base_dt": "20260918", "upd_stkpc_tp": "0"}
LIST = "stk_dt_pole_chart_qry"


def script(*rules: str, seed: int = 7) -> dict:
    return {"faults": read_faults(f"seed: {seed}\nrules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules))}


def first_fault(do: str, **options):
    return simulator(**script(f"api_id: ka10081, nth: 1, do: {do}"), **options)


@pytest.mark.parametrize(
    ("do", "retry_after"), [("rate_limit", None), ("{status: 429, retry_after: 2}", "2"), ("{retry_after: 1.5}", "1.5")]
)
def test_a_rate_limit_can_be_met_at_will(do, retry_after):
    with first_fault(do) as kiwoom:
        refused = kiwoom.post("ka10081", **DAY)
        assert code_of(refused) == (429, 5, 1700)
        assert refused.headers.get("retry-after") == retry_after
        assert kiwoom.post("ka10081", **DAY).json()["return_code"] == 0
        assert [one.fault[:3] for one in kiwoom.server.requests if one.api_id == "ka10081"][1] == ""


@pytest.mark.parametrize("status", [500, 502, 503])
def test_the_server_can_fail(status):
    with first_fault(f"{{status: {status}}}") as kiwoom:
        assert kiwoom.post("ka10081", **DAY).status_code == status
        assert kiwoom.server.requests.count(api_id="ka10081", status=status, fault=f"status {status}") == 1


def test_the_connection_can_be_reset():
    with first_fault("reset") as kiwoom:
        with pytest.raises(httpx.ReadError):
            kiwoom.post("ka10081", **DAY)
        assert kiwoom.post("ka10081", **DAY).status_code == 200


def test_an_answer_can_be_late_or_never_come():
    with simulator(
        **script("api_id: ka10081, nth: 1, do: {delay: 0.05}", "api_id: ka10081, nth: 2, do: {timeout: 0.02}")
    ) as kiwoom:
        kiwoom.issue()
        start = time.monotonic()
        assert kiwoom.post("ka10081", **DAY).json()["return_code"] == 0
        assert time.monotonic() - start >= 0.05
        with pytest.raises(httpx.RemoteProtocolError):
            kiwoom.post("ka10081", **DAY)


def test_a_client_that_gives_up_does_not_disturb_the_server():
    with first_fault("{delay: 0.05}") as kiwoom:
        kiwoom.token = kiwoom.issue().json()["token"]
        kiwoom.http.timeout = httpx.Timeout(0.01)
        with pytest.raises(httpx.ReadTimeout):
            kiwoom.post("ka10081", **DAY)
        kiwoom.http.timeout = httpx.Timeout(5)
        assert kiwoom.post("ka10081", **DAY).status_code == 200


def test_pages_of_html_can_come():
    rules = ["api_id: ka10081, nth: 1, do: html", "api_id: ka10081, nth: 2, do: waf"]
    with simulator(**script(*rules)) as kiwoom:
        maintenance, blocked = kiwoom.post("ka10081", **DAY), kiwoom.post("ka10081", **DAY)
    assert maintenance.headers["content-type"].startswith("text/html") and "시스템 점검 안내" in maintenance.text
    assert blocked.status_code == 400 and "Request Blocked" in blocked.text


def test_json_can_break_off():
    with first_fault("truncated") as kiwoom:
        answer = kiwoom.post("ka10081", **DAY)
        assert answer.text.startswith('{"stk_cd":"000100"')
        with pytest.raises(json.JSONDecodeError):
            answer.json()


def test_rows_can_be_missing_in_each_of_the_seen_ways():
    rules = [f"api_id: ka10081, nth: {n}, do: {do}" for n, do in enumerate(("blank_row", "zero_rows", "empty_page"), 1)]
    with simulator(**script(*rules)) as kiwoom:
        blank, zero, empty = (kiwoom.post("ka10081", **DAY) for _ in rules)
    (row,) = blank.json()[LIST]
    assert set(row.values()) == {""} and blank.headers["cont-yn"] == "N"
    assert zero.json()[LIST] == [] and zero.json()["return_code"] == 0 and zero.headers["cont-yn"] == "N"
    assert empty.json()[LIST] == [] and empty.headers["cont-yn"] == "Y" and empty.headers["next-key"]


def test_a_key_can_lead_to_page_1():
    with simulator(**script("api_id: ka10081, nth: 2, do: loop_key"), page_sizes={"ka10081": 4}) as kiwoom:
        pages = list(kiwoom.walk("ka10081", **DAY))
    assert [page.json()[LIST][0]["dt"] for page in pages] == [
        "20260918",
        "20260914",
        "20260918",
        "20260914",
        "20260907",
    ]


def test_a_key_can_repeat():
    with simulator(**script("api_id: ka10081, nth: 2, do: repeat_key"), page_sizes={"ka10081": 4}) as kiwoom:
        pages = list(kiwoom.walk("ka10081", **DAY))
    keys = [page.headers["next-key"] for page in pages]
    assert keys[0] == keys[1] and pages[1].json() == pages[2].json()


@pytest.mark.parametrize(("code", "answer"), [(1999, (200, 7, 1999)), (8005, (200, 3, 8005)), (1700, (429, 5, 1700)),
                                              (1701, (429, 5, 1701)), (1902, (200, 7, 1902)), (8050, (200, 3, 8050))])  # fmt: skip
def test_any_documented_code_can_be_answered(code, answer):
    with first_fault(f"{{code: {code}}}") as kiwoom:
        assert code_of(kiwoom.post("ka10081", **DAY)) == answer


def test_a_token_can_die_at_any_time():
    with first_fault("kill_token", reissue="new") as kiwoom:
        assert code_of(kiwoom.post("ka10081", **DAY)) == (200, 3, 8005)
        assert code_of(kiwoom.post("ka10081", **DAY)) == (200, 3, 8005)
        kiwoom.token = kiwoom.issue().json()["token"]
        assert kiwoom.post("ka10081", **DAY).json()["return_code"] == 0


def test_columns_can_go_come_and_overflow():
    rules = ["drop_column: trde_qty", "extra_column: upd_rt", "saturate: trde_qty"]
    with simulator(
        **script(*(f"api_id: ka10081, nth: {n}, do: {{{rule}}}" for n, rule in enumerate(rules, 1)))
    ) as kiwoom:
        less, more, much = (kiwoom.post("ka10081", **DAY).json()[LIST][0] for _ in rules)
    assert "trde_qty" not in less and more["upd_rt"] == "" and much["trde_qty"] == "4294967295"


def test_the_token_endpoint_has_faults_of_its_own():
    with simulator(**script("api_id: au10001, nth: 1, do: {code: 8009}")) as kiwoom:
        assert code_of(kiwoom.issue()) == (200, 3, 8009)
        assert kiwoom.issue().json()["return_code"] == 0


def test_a_rule_counts_the_calls_that_it_matches():
    rules = [
        "api_id: ka10081, code: '000200', every: 2, do: {status: 503}",
        "api_id: ka10082, from: 2, to: 3, do: {status: 502}",
    ]
    with simulator(**script(*rules)) as kiwoom:
        other = [kiwoom.post("ka10081", **DAY).status_code for _ in range(3)]
        second = [kiwoom.post("ka10081", **{**DAY, "stk_cd": "000200"}).status_code for _ in range(4)]
        week = [kiwoom.post("ka10082", **DAY).status_code for _ in range(4)]
    assert (other, second, week) == ([200] * 3, [200, 503, 200, 503], [200, 502, 502, 200])


def test_a_batch_matches_by_any_of_its_codes():
    with simulator(**script("code: '000200', do: {status: 503}")) as kiwoom:
        statuses = [kiwoom.post("ka10095", stk_cd=codes).status_code for codes in ("000100|000500", "000100|000200")]
    assert statuses == [200, 503]


def test_chance_is_the_same_for_the_same_seed():
    def faulty(seed: int) -> list[bool]:
        faults = read_faults(f"seed: {seed}\nrules: [{{probability: 0.3, do: reset}}]")
        return [faults.next("ka10081", "000100") is not None for _ in range(300)]

    assert faulty(1) == faulty(1) != faulty(2)
    assert 60 < sum(faulty(1)) < 120  # 90, with a standard deviation of 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules:\n  - {do: reset}\n  - {do: nonsense}", "rule 2: do is 'nonsense'"),
        ("rules:\n  - {code: 000100, do: reset}", 'put codes in quotes, as "000660"'),
        ("rules:\n  - {nth: 0, do: reset}", "rule 1: nth is 0"),
        ("rules:\n  - {nth: 1, every: 2, do: reset}", "both `nth` and `every`"),
        ("rules:\n  - {probability: 2, do: reset}", "probability is 2"),
        ("rules:\n  - {when: 2, do: reset}", "unknown key 'when'"),
        ("rules:\n  - {do: {code: 4711}}", "code 4711 is not documented"),
        ("rules:\n  - {do: {status: 99}}", "status 99"),
        ("rules:\n  - {do: {delay: long}}", "delay is 'long'"),
        ("rules:\n  - reset", "rule 1 is 'reset'"),
        ("seed: x\nrules: []", "the seed is 'x'"),
        ("rule: []", "expected `rules:`"),
        ("rules:\n  - {do: reset\n  - x", "line 3"),
    ],
)
def test_a_script_that_cannot_be_is_refused_with_its_rule_or_line(text, says):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        read_faults(text)


def test_a_script_is_read_from_a_file_and_a_missing_one_is_named(tmp_path):
    file = tmp_path / "faults.yaml"
    file.write_text("rules: [{do: reset}]", "utf-8")
    assert read_faults(file).next("ka10081", "").action == "reset"
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        read_faults(tmp_path / "none.yaml")


WINDOW = ((at(DAYS[0], 1), at(DAYS[0], 6)),)


def test_maintenance_is_a_page_of_html_on_every_endpoint():
    with simulator(at(DAYS[0], 0, 59), maintenance=WINDOW) as kiwoom:
        assert kiwoom.post("ka10102").json()["return_code"] == 0
        kiwoom.clock.move_to(at(DAYS[0], 1))
        for answer in (kiwoom.issue(), kiwoom.post("ka10102")):
            assert answer.headers["content-type"].startswith("text/html")
            assert "시스템 점검 안내" in answer.text and "중단 일시 : 9/7(월) 01:00 ~ 06:00" in answer.text
        kiwoom.clock.move_to(at(DAYS[0], 6))
        assert kiwoom.post("ka10102").json()["return_code"] == 0


def test_maintenance_can_refuse_data_and_still_show_the_notice_for_a_token():
    with simulator(EVENING, maintenance=((EVENING, at(DAYS[-1], 22)),), maintenance_data="refuse") as kiwoom:
        kiwoom.token = "any"
        with pytest.raises(httpx.ReadError):
            kiwoom.post("ka10102")
        assert "시스템 점검 안내" in kiwoom.issue().text

"""S4, S14, and the pages of section 3."""

from datetime import timedelta
from itertools import pairwise

import pytest
from handmade import DAYS, LongMarket, at
from raw_client import EVENING, code_of, dates, simulator

DAY = {"stk_cd": "000100", "base_dt": "20260918", "upd_stkpc_tp": "1"}


@pytest.fixture
def kiwoom():
    with simulator(page_sizes={"ka10081": 4, "ka10080": 10, "ka10086": 4}) as asker:
        yield asker


@pytest.fixture
def long():
    with simulator(market=LongMarket()) as asker:
        yield asker


def sizes(pages) -> list[int]:
    return [len(next(value for value in page.json().values() if isinstance(value, list))) for page in pages]


def test_pages_go_back_without_gap_or_overlap_to_an_exact_end(kiwoom):
    pages = list(kiwoom.walk("ka10081", **DAY))
    assert [len(page.json()["stk_dt_pole_chart_qry"]) for page in pages] == [4, 4, 1]
    found = [day for page in pages for day in dates(page.json()["stk_dt_pole_chart_qry"])]
    assert found == [f"{day:%Y%m%d}" for day in reversed(DAYS)]
    assert [page.headers["cont-yn"] for page in pages] == ["Y", "Y", "N"]
    assert pages[-1].headers["next-key"] == "" and 0 < len(pages[0].headers["next-key"]) <= 50
    assert not {"cont-yn", "next-key", "cont_yn", "next_key"} & set(pages[0].json())
    assert [one.page for one in kiwoom.server.requests if one.api_id == "ka10081"] == [1, 2, 3]


def test_a_last_page_that_is_full_is_still_the_last():
    with simulator(page_sizes={"ka10081": 3}) as kiwoom:
        assert sizes(kiwoom.walk("ka10081", **DAY)) == [3, 3, 3]


def test_changes_go_on_across_a_page(kiwoom):
    pages = list(kiwoom.walk("ka10081", **{**DAY, "upd_stkpc_tp": "0"}))
    rows = [row for page in pages for row in page.json()["stk_dt_pole_chart_qry"]]
    for newer, older in pairwise(rows):
        assert int(older["cur_prc"]) + int(newer["pred_pre"]) == int(newer["cur_prc"])


@pytest.mark.parametrize(
    "other",
    [
        {"stk_cd": "000200"},
        {"base_dt": "20260917"},
        {"upd_stkpc_tp": "0"},
    ],
)
def test_a_key_is_good_for_its_own_body_only(kiwoom, other):
    key = kiwoom.post("ka10081", **DAY).headers["next-key"]
    headers = {"cont-yn": "Y", "next-key": key}
    assert code_of(kiwoom.post("ka10081", headers=headers, **{**DAY, **other})) == (200, 2, 1517)


def test_a_key_is_good_for_its_own_tr_and_appkey_only():
    with simulator(page_sizes={"ka10081": 4}, keys={"simulated-appkey": "simulated-secretkey", "b": "c"}) as kiwoom:
        headers = {"cont-yn": "Y", "next-key": kiwoom.post("ka10081", **DAY).headers["next-key"]}
        assert code_of(kiwoom.post("ka10082", headers=headers, **DAY)) == (200, 2, 1517)
        kiwoom.token = kiwoom.issue(appkey="b", secretkey="c").json()["token"]
        assert code_of(kiwoom.post("ka10081", headers=headers, **DAY)) == (200, 2, 1517)


def test_a_key_that_was_made_up_is_refused(kiwoom):
    for key in ("20260911", "A0001002026091820260911001000000000000", "x" * 50):
        assert code_of(kiwoom.post("ka10081", headers={"cont-yn": "Y", "next-key": key}, **DAY)) == (200, 2, 1517)


def test_a_key_without_cont_yn_asks_for_page_1(kiwoom):
    first = kiwoom.post("ka10081", **DAY)
    assert kiwoom.post("ka10081", headers={"next-key": first.headers["next-key"]}, **DAY).json() == first.json()


def test_a_walk_goes_on_with_a_new_token_and_keeps_its_base_dt_past_midnight():
    with simulator(at(DAYS[1], 22), page_sizes={"ka10081": 1}, reissue="new") as kiwoom:
        far = {**DAY, "base_dt": "99991231"}
        first = kiwoom.post("ka10081", **far)
        assert first.json()["stk_dt_pole_chart_qry"][0]["cur_prc"] == "50000"
        kiwoom.clock.move_to(at(DAYS[2], 10))  # the split is effective now
        kiwoom.token = kiwoom.issue().json()["token"]
        second = kiwoom.post("ka10081", headers={"cont-yn": "Y", "next-key": first.headers["next-key"]}, **far)
        assert second.json()["stk_dt_pole_chart_qry"][0]["cur_prc"] == "50500"


def test_pages_have_the_measured_sizes(long):
    day = {"stk_cd": "000900", "base_dt": "20260918", "upd_stkpc_tp": "0"}
    flow = {"dt": "20260918", "stk_cd": "000900", "amt_qty_tp": "2", "trde_tp": "0", "unit_tp": "1"}
    assert sizes(long.walk("ka10081", **day)) == [600, 600, 100]
    assert len(long.rows("ka10082", **day)) == 260  # 1,300 days are 260 weeks: less than a page of 300
    assert len(long.rows("ka20006", inds_cd="001", base_dt="20260918")) == 600
    assert len(long.rows("ka10086", stk_cd="000900", qry_dt="20260918", indc_tp="0")) == 20
    for api_id in ("ka10059", "ka10060"):
        assert len(long.rows(api_id, **flow)) == 100


def test_a_page_of_minutes_has_900_rows_in_every_scope(long):
    one = long.minutes("000900")
    assert len(one) == 900  # 381 a day: 2 days and, of a third, 15:30 and 137 minutes before 15:20
    assert (one[0]["cntr_tm"], one[-1]["cntr_tm"]) == ("20260918153000", "20260916130300")
    assert len(long.minutes("000900", "60")) == 900


@pytest.mark.parametrize(
    ("scope", "bars", "last"), [("10", 39, "153000"), ("15", 27, "153000"), ("45", 9, "150000"), ("60", 7, "150000")]
)
def test_a_day_has_as_many_bars_as_on_the_real_host(long, scope, bars, last):
    day = [row["cntr_tm"] for row in long.minutes("000900", scope) if row["cntr_tm"].startswith("20260918")]
    assert (len(day), day[0][8:], day[-1][8:]) == (bars, last, "090000")


def test_minutes_reach_back_a_year_and_before_it_there_is_a_blank_row(long):
    pages = list(long.walk("ka10080", pages=10, stk_cd="000900", tic_scope="60", upd_stkpc_tp="0"))
    oldest = pages[-1].json()["stk_min_pole_chart_qry"][-1]["cntr_tm"]
    assert oldest == "20250918090000"
    (blank,) = long.minutes("000900", base_dt="20250917")
    assert set(blank.values()) == {""} and len(blank) == 9
    # The daily history goes on to the first day.
    assert long.daily("000900", base="20250917")[0]["dt"] == "20250917"


def test_a_walk_of_minutes_meets_each_bar_once(kiwoom):
    pages = list(kiwoom.walk("ka10080", stk_cd="000100", tic_scope="1", upd_stkpc_tp="0"))
    found = [row["cntr_tm"] for page in pages for row in page.json()["stk_min_pole_chart_qry"]]
    assert len(found) == 9 * 4 + 2 and found == sorted(set(found), reverse=True)


def test_the_walk_of_an_nxt_code_by_ka10086_never_ends(kiwoom):
    body = {"stk_cd": "000100_NX", "qry_dt": "20260918", "indc_tp": "0"}
    headers, counts, keys = {}, [], []
    for _ in range(5):
        answer = kiwoom.post("ka10086", headers=headers, **body)
        counts.append(len(answer.json()["daly_stkpc"]))
        keys.append(answer.headers["next-key"])
        assert answer.headers["cont-yn"] == "Y"
        headers = {"cont-yn": "Y", "next-key": keys[-1]}
    assert counts == [4, 4, 1, 0, 4]
    assert keys[3] == "A000100_NX20260918000000-1" and keys[4] == keys[0]


def test_the_walk_of_a_krx_code_by_ka10086_ends(kiwoom):
    assert sizes(kiwoom.walk("ka10086", stk_cd="000100", qry_dt="20260918", indc_tp="0")) == [4, 4, 1]


def test_nothing_of_tomorrow_is_on_any_page():
    with simulator(EVENING - timedelta(days=1)) as kiwoom:
        assert kiwoom.daily(base="20260918")[0]["dt"] == "20260917"
        assert kiwoom.minutes()[0]["cntr_tm"] == "20260917153000"

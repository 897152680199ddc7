"""S9, S12, S13: quotes, lists, sectors and investors; sections 7.5 to 7.11."""

import pytest
from handmade import DAYS, at
from raw_client import code_of, simulator


@pytest.fixture
def kiwoom():
    with simulator() as asker:
        yield asker


def quote(kiwoom, code="000100"):
    return kiwoom.rows("ka10095", stk_cd=code)[0]


def test_a_quote_has_the_63_fields_and_a_sign_on_each_price():
    with simulator(at(DAYS[5], 9, 0, 20)) as kiwoom:
        row = quote(kiwoom)
    assert len(row) == 63
    # The base is the close of 2026-09-14, 10,500; so far there were 10,500 and 10,000, and 3,999 shares.
    wanted = {
        "stk_cd": "000100", "stk_nm": "가나반도체", "cur_prc": "-10000", "base_pric": "10500", "pred_pre": "-500",
        "pred_pre_sig": "5", "flu_rt": "-4.76", "trde_qty": "3999", "trde_prica": "41", "open_pric": "10500",
        "high_pric": "10500", "low_pric": "-10000", "close_pric": "", "upl_pric": "+13650", "lst_pric": "-7350",
        "dt": "20260915", "stkcnt": "500", "sel_1th_bid": "-10010",
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted


def test_the_official_close_stays_while_the_price_moves_on():
    with simulator(at(DAYS[4], 15, 29)) as kiwoom:
        assert quote(kiwoom)["close_pric"] == ""
        for hour, minute, price in ((15, 31, "+10500"), (16, 6, "+10700"), (20, 30, "+10700")):
            kiwoom.clock.move_to(at(DAYS[4], hour, minute))
            row = quote(kiwoom)
            assert (row["cur_prc"], row["close_pric"], row["base_pric"]) == (price, "+10500", "10400")
        # The next day starts from the official close.
        kiwoom.clock.move_to(at(DAYS[5], 8, 30))
        row = quote(kiwoom)
        assert (row["cur_prc"], row["base_pric"], row["trde_qty"], row["open_pric"]) == ("10500", "10500", "0", "0")


def test_the_base_of_an_ex_day_is_not_the_previous_close():
    with simulator(at(DAYS[2], 8, 30)) as kiwoom:
        assert quote(kiwoom)["base_pric"] == "10000"
        kiwoom.clock.move_to(at(DAYS[2], 12))
        assert quote(kiwoom)["base_pric"] == "10000"


def test_quotes_come_in_the_order_asked_for_and_unknown_codes_are_blank(kiwoom):
    rows = kiwoom.rows("ka10095", stk_cd="000200|999999|000100_AL|000400|0000D0")
    assert [row["stk_cd"] for row in rows] == ["000200", "", "000100_AL", "", "0000D0"]
    assert set(rows[1].values()) == {""}


def test_a_hundred_codes_are_answered_and_one_more_is_refused(kiwoom):
    assert len(kiwoom.rows("ka10095", stk_cd="|".join(["000100"] * 100))) == 100
    assert code_of(kiwoom.post("ka10095", stk_cd="|".join(["000100"] * 101))) == (200, 5, 1634)
    assert code_of(kiwoom.post("ka10095", stk_cd="000100,000200")) == (200, 2, 1517)


def test_the_basics_of_a_stock_are_flat(kiwoom):
    answer = kiwoom.post("ka10001", stk_cd="000100").json()
    assert len(answer) == 45 + 2
    assert (answer["stk_nm"], answer["flo_stk"], answer["base_pric"]) == ("가나반도체", "500", "10300")
    assert (answer["cur_prc"], answer["pre_sig"], answer["250hgst"], answer["250hgst_pric_dt"]) == (
        "-10200", "5", "+51000", "20260907",
    )  # fmt: skip


def test_the_kospi_list_mixes_stocks_with_funds_notes_and_trusts(kiwoom):
    rows = {row["code"]: row for row in kiwoom.rows("ka10099", mrkt_tp="0")}
    assert {code: row["marketCode"] for code, row in rows.items()} == {
        "0000D0": "8", "000100": "0", "000500": "6", "000600": "60", "000700": "2",
    }  # fmt: skip
    assert rows["000100"] == {
        "code": "000100", "name": "가나반도체", "listCount": "0000000000500000", "auditInfo": "정상", "regDay": "20200102",
        "lastPrice": "00010300", "state": "증거금20%|담보대출|신용가능", "marketCode": "0", "marketName": "거래소",
        "upName": "전기/전자", "upSizeName": "대형주", "companyClassName": "", "orderWarning": "0", "nxtEnable": "Y",
        "kind": "A",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("market", "codes"), [("10", ["000200"]), ("8", ["0000D0"]), ("6", ["000500"]), ("60", ["000600"]), ("3", [])]
)
def test_other_lists_hold_their_own_kind(kiwoom, market, codes):
    assert [row["code"] for row in kiwoom.rows("ka10099", mrkt_tp=market)] == codes


def test_the_universe_changes_with_the_days():
    with simulator(at(DAYS[2], 12)) as kiwoom:
        before = {row["code"]: row["name"] for row in kiwoom.rows("ka10099", mrkt_tp="0")}
        kiwoom.clock.move_to(at(DAYS[5], 8))
        after = {row["code"]: row["name"] for row in kiwoom.rows("ka10099", mrkt_tp="0")}
    assert set(before) - set(after) == {"000400"} and set(after) - set(before) == {"0000D0"}
    assert (before["000100"], after["000100"]) == ("가나전자", "가나반도체")


def test_a_halt_and_a_warning_are_in_the_state():
    with simulator(at(DAYS[2], 12)) as kiwoom:
        assert kiwoom.rows("ka10099", mrkt_tp="10")[0]["state"] == "증거금100%|거래정지"
        kiwoom.clock.move_to(at(DAYS[4], 12))
        row = kiwoom.post("ka10100", stk_cd="000200").json()
        assert (row["state"], row["auditInfo"], row["marketCode"]) == ("증거금100%|관리종목", "정상", "10")


def test_one_instrument_is_told_of_flat(kiwoom):
    assert kiwoom.post("ka10100", stk_cd="000100").json()["name"] == "가나반도체"
    assert code_of(kiwoom.post("ka10100", stk_cd="000400")) == (200, 7, 1902)


def test_sectors_and_brokers_are_listed(kiwoom):
    assert kiwoom.rows("ka10101", mrkt_tp="0")[1] == {
        "marketCode": "0", "code": "013", "name": "전기/전자", "group": "13"
    }  # fmt: skip
    assert [row["code"] for row in kiwoom.rows("ka10101", mrkt_tp="1")] == ["101"]
    assert {"code": "050", "name": "키움증권", "gb": "0"} in kiwoom.rows("ka10102")


def test_indices_have_decimals_and_signs(kiwoom):
    answer = kiwoom.post("ka20001", mrkt_tp="0", inds_cd="001").json()
    # 2,508.50 after 2,507.50.
    assert (answer["cur_prc"], answer["pred_pre"], answer["flu_rt"]) == ("+2508.50", "+1.00", "+0.04")
    assert answer["inds_cur_prc_tm"][0]["cur_prc_n"] == "+2508.50"
    rows = kiwoom.rows("ka20003", inds_cd="001")
    assert [(row["stk_cd"], row["cur_prc"]) for row in rows] == [("001", "+2508.50"), ("013", "+2508.50")]


FLOW = {"dt": "20260914", "stk_cd": "000100", "amt_qty_tp": "2", "trde_tp": "0", "unit_tp": "1"}


def test_investors_have_signed_prices_and_a_rate_without_a_point(kiwoom):
    row = kiwoom.rows("ka10059", **FLOW)[0]
    # 10,700 after 10,400 is +2.88 %; the fifth day's flow is 4 x 100 - 300.
    assert (row["dt"], row["cur_prc"], row["flu_rt"], row["acc_trde_qty"]) == ("20260914", "+10700", "+288", "8400")
    assert (row["ind_invsr"], row["frgnr_invsr"], row["orgn"]) == ("100", "-100", "0")
    assert len(row) == 7 + 13
    assert kiwoom.rows("ka10059", **{**FLOW, "amt_qty_tp": "1"})[0]["ind_invsr"] == "1"  # 100 shares of 10,463 won


def test_the_chart_of_investors_calls_a_volume_a_value(kiwoom):
    row = kiwoom.rows("ka10060", **FLOW)[0]
    assert (row["acc_trde_prica"], row["cur_prc"]) == ("8400", "+10700")


def test_todays_flows_settle_after_the_close():
    with simulator(at(DAYS[4], 15, 44)) as kiwoom:
        assert kiwoom.rows("ka10059", **FLOW)[0]["ind_invsr"] == "0"
        kiwoom.clock.move_to(at(DAYS[4], 15, 45))
        assert kiwoom.rows("ka10059", **FLOW)[0]["ind_invsr"] == "100"


def test_daily_prices_with_flows_have_double_signs(kiwoom):
    row = kiwoom.rows("ka10086", stk_cd="000100", qry_dt="20260914", indc_tp="0")[0]
    assert (row["date"], row["close_pric"], row["low_pric"], row["flu_rt"]) == ("20260914", "+10700", "-10300", "+2.88")
    assert (row["ind"], row["for_qty"], row["orgn"]) == ("+100", "--100", "0")

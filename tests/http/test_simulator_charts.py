"""S8, S9, S10, S11, S12 (charts): candles, worked by hand from the handmade market and taken from section 7."""

from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from handmade import DAYS, HandmadeMarket, at, bars_of
from raw_client import dates, seconds, simulator

from chartinsight_lib.simulator.model import Event, Listing


@pytest.fixture
def kiwoom():
    with simulator() as asker:
        yield asker


def test_a_daily_row_is_as_in_the_document(kiwoom):
    rows = kiwoom.daily()
    # 2026-09-17: 10,150 10,300 10,100 10,300, 4,400 shares: half at the open and half at the close: 44,990,000 won.
    assert rows[1] == {
        "cur_prc": "10300", "trde_qty": "4400", "trde_prica": "44", "dt": "20260917", "open_pric": "10150",
        "high_pric": "10300", "low_pric": "10100", "pred_pre": "+150", "pred_pre_sig": "2", "trde_tern_rt": "+0.88",
    }  # fmt: skip
    assert list(rows[0]) == [
        "cur_prc", "trde_qty", "trde_prica", "dt", "open_pric", "high_pric", "low_pric", "pred_pre", "pred_pre_sig",
        "trde_tern_rt",
    ]  # fmt: skip
    assert rows[0]["pred_pre"] == "-100" and rows[0]["pred_pre_sig"] == "5"


def test_the_answer_echoes_the_code_and_has_no_sign_on_a_price(kiwoom):
    answer = kiwoom.post("ka10081", stk_cd="000100_AL", base_dt="20260918", upd_stkpc_tp="0").json()
    assert list(answer) == ["stk_cd", "stk_dt_pole_chart_qry", "return_code", "return_msg"]
    assert answer["stk_cd"] == "000100_AL"
    prices = [row[name] for row in answer["stk_dt_pole_chart_qry"] for name in ("cur_prc", "high_pric", "low_pric")]
    assert all(price.isdigit() for price in prices)


@pytest.mark.parametrize(
    ("base", "newest"),
    [
        ("20260914", "20260914"),
        ("20260913", "20260911"),  # a Sunday
        ("20260910", "20260909"),  # a holiday
        ("20271231", "20260918"),  # the future
        ("00000000", "20260918"),
    ],
)
def test_base_dt_is_the_day_up_to_which_is_shown(kiwoom, base, newest):
    assert kiwoom.daily(base=base)[0]["dt"] == newest


def test_a_split_scales_the_days_before_it_and_divides_their_volume(kiwoom):
    rows = {row["dt"]: row for row in kiwoom.daily(adjusted="1")}
    # 1:5, base 10,000 of 50,000: everything before 2026-09-09 is a fifth, and 2,003 shares are 10,015.
    before = rows["20260908"]
    assert [before[name] for name in ("open_pric", "high_pric", "low_pric", "cur_prc")] == [
        "10100",
        "10100",
        "9900",
        "10000",
    ]
    assert (before["trde_qty"], before["trde_prica"]) == ("10015", "100")
    assert rows["20260909"]["cur_prc"] == "10300"
    assert rows["20260909"]["pred_pre"] == "+300"
    raw = {row["dt"]: row for row in kiwoom.daily()}
    assert (raw["20260908"]["cur_prc"], raw["20260908"]["trde_qty"]) == ("50000", "2003")


def test_an_event_after_base_dt_is_not_applied(kiwoom):
    assert kiwoom.daily(base="20260908", adjusted="1")[0]["cur_prc"] == "50000"
    assert kiwoom.daily(base="20260909", adjusted="1")[1]["cur_prc"] == "10000"


def test_a_rights_issue_rounds_half_up_to_whole_won_and_shares(kiwoom):
    rows = {row["dt"]: row for row in kiwoom.daily("000200", adjusted="1")}
    # 900 of 1,000: 1,005 is 904.5, shown as 905; 1,010 is 909; 333 shares are 370, 100 are 111.1.
    assert (rows["20260908"]["cur_prc"], rows["20260908"]["open_pric"]) == ("905", "909")
    assert (rows["20260908"]["trde_qty"], rows["20260907"]["trde_qty"]) == ("370", "111")
    assert rows["20260915"]["cur_prc"] == "900" and rows["20260916"]["pred_pre"] == "+270"
    assert rows["20260916"]["pred_pre_sig"] == "1"  # 1,170 is 30 % above 900


def test_an_event_is_seen_from_its_day_on():
    with simulator(at(DAYS[1], 22)) as kiwoom:
        assert kiwoom.daily(adjusted="1")[0]["cur_prc"] == "50000"
        kiwoom.clock.move_to(at(DAYS[2], 9, 1))
        assert [row["cur_prc"] for row in kiwoom.daily(adjusted="1")][1:] == ["10000", "10100"]


LONG_AGO = date(1975, 6, 11)


class OneDay(HandmadeMarket):
    """Closes of section 7.1, each on a day of its own, and the events that it tells of."""

    days = np.array(["2018-04-27", "2018-05-04", "2026-08-05", "2026-08-07"], "datetime64[D]")
    listings = (
        Listing("005930", "KOSPI", "stock", ((LONG_AGO, "삼성전자"),), "", "", LONG_AGO, None, ((LONG_AGO, 10**9),)),
    )

    def daily(self, code):
        days = self.days.astype(object).tolist()
        closes = (2_650_000, 53_000, 65_600, 33_200)
        return bars_of({day: (n, n, n, n, 10) for day, n in zip(days, closes, strict=True)})

    def events(self, code):
        return (
            Event(date(2018, 5, 4), 53_000, 2_650_000, "split"),
            Event(date(2026, 8, 6), 33_200, 65_600, "bonus"),
        )


def test_the_split_of_the_specification_comes_out_as_measured():
    with simulator(market=OneDay()) as kiwoom:
        assert kiwoom.daily("005930", base="20180504", adjusted="0")[1]["cur_prc"] == "2650000"
        assert kiwoom.daily("005930", base="20180504", adjusted="1")[1]["cur_prc"] == "53000"
        assert kiwoom.daily("005930", base="20260805", adjusted="1")[0]["cur_prc"] == "65600"
        assert kiwoom.daily("005930", base="20260807", adjusted="1")[1]["cur_prc"] == "33200"
        # Both events: 2,650,000 / 50 * 33,200 / 65,600 = 26,823.17
        assert kiwoom.daily("005930", base="20260807", adjusted="1")[3]["cur_prc"] == "26823"


def test_a_halted_day_is_a_row_of_the_previous_close_without_volume(kiwoom):
    halted = kiwoom.daily("000200", base="20260909")[0]
    assert [halted[name] for name in ("open_pric", "high_pric", "low_pric", "cur_prc")] == ["1005"] * 4
    assert (halted["trde_qty"], halted["trde_prica"], halted["trde_tern_rt"]) == ("0", "0", "0.00")
    assert (halted["pred_pre"], halted["pred_pre_sig"]) == ("0", "3")
    assert not [row for row in kiwoom.minutes("000200") if row["cntr_tm"][:8] in ("20260909", "20260911")]


def test_before_the_open_there_is_no_row_of_today():
    with simulator(at(DAYS[5], 8, 59)) as kiwoom:
        assert kiwoom.daily()[0]["dt"] == "20260914"
        assert kiwoom.minutes()[0]["cntr_tm"] == "20260914160500"
        kiwoom.clock.move_to(at(DAYS[5], 9))
        assert kiwoom.daily()[0]["dt"] == "20260914"
        kiwoom.clock.move_to(at(DAYS[5], 9, 0, 1))
        assert kiwoom.daily()[0]["dt"] == "20260915"


def test_the_first_rows_grow_with_the_clock():
    # 2026-09-15 09:00: open and close 10,500, high 10,550, low 10,000, 7,998 shares in four steps: open, low, high, close.
    steps = [(1, "10500", "10500", "10500", "2000"), (16, "10500", "10000", "10000", "3999"),
             (31, "10550", "10000", "10550", "5999"), (46, "10550", "10000", "10500", "7998")]  # fmt: skip
    with simulator(at(DAYS[5], 9)) as kiwoom:
        for second, high, low, last, volume in steps:
            kiwoom.clock.move_to(at(DAYS[5], 9) + seconds(second))
            minute, day = kiwoom.minutes()[0], kiwoom.daily()[0]
            for row in (minute, day):
                found = [
                    row[name].lstrip("+-") for name in ("open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty")
                ]
                assert found == ["10500", high, low, last, volume]
            assert minute["acc_trde_qty"] == volume


def test_the_running_day_holds_together_at_every_moment():
    with simulator(at(DAYS[5], 9)) as kiwoom:
        before = 0
        for second in [*range(1, 90, 7), 3_600, 22_000, 22_799, 22_801, 23_401, 25_000, 25_501, 25_600, 40_000]:
            kiwoom.clock.move_to(at(DAYS[5], 9) + seconds(second))
            row = kiwoom.daily()[0]
            open_, high, low, last, volume = (
                int(row[name]) for name in ("open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty")
            )
            assert high >= max(open_, last) and low <= min(open_, last) and volume >= before
            today = [bar for bar in kiwoom.minutes() if bar["cntr_tm"].startswith("20260915")]
            assert sum(int(bar["trde_qty"]) for bar in today) == volume == int(today[0]["acc_trde_qty"])
            assert today[0]["cur_prc"].lstrip("+-") == row["cur_prc"]
            before = volume
        assert (last, volume) == (10_050, 16_100)  # the after-market's last price; 16,000 and 100 shares


def test_the_after_market_moves_the_daily_row_and_adds_minutes():
    with simulator(at(DAYS[4], 15, 45)) as kiwoom:
        regular = kiwoom.daily()[0]
        assert (regular["cur_prc"], regular["high_pric"], regular["trde_qty"]) == ("10500", "10600", "8000")
        kiwoom.clock.move_to(at(DAYS[4], 16, 30))
        late = kiwoom.daily()[0]
        assert (late["cur_prc"], late["high_pric"], late["trde_qty"]) == ("10700", "10700", "8400")
        assert kiwoom.minutes()[0]["cntr_tm"] == "20260914160500"
        kiwoom.clock.move_to(at(DAYS[6], 12))
        again = next(row for row in kiwoom.daily() if row["dt"] == "20260914")
        assert again == late


def test_the_change_is_against_the_row_before_as_it_is_shown(kiwoom):
    rows = kiwoom.daily()
    for newer, older in pairwise(rows):
        assert int(older["cur_prc"]) + int(newer["pred_pre"]) == int(newer["cur_prc"])


def test_minute_prices_are_signed_each_against_the_previous_close(kiwoom):
    row = next(row for row in kiwoom.minutes() if row["cntr_tm"] == "20260914090000")
    # The close of 2026-09-11 is 10,400.
    assert row == {
        "cur_prc": "10400", "trde_qty": "3998", "cntr_tm": "20260914090000", "open_pric": "10400", "high_pric": "+10600",
        "low_pric": "-10300", "acc_trde_qty": "3998", "pred_pre": "0", "pred_pre_sig": "3",
    }  # fmt: skip
    last = next(row for row in kiwoom.minutes() if row["cntr_tm"] == "20260915153000")
    assert (last["cur_prc"], last["pred_pre"], last["pred_pre_sig"]) == ("-10100", "-400", "5")


def test_minute_prices_are_adjusted_and_minute_volume_is_not(kiwoom):
    raw, adjusted = (kiwoom.minutes(base_dt="20260909", adjusted=kind)[-4:] for kind in "01")
    assert [row["cur_prc"] for row in raw] == ["+50500", "49000", "49000", "49000"]
    assert [row["cur_prc"] for row in adjusted] == ["+10100", "9800", "9800", "9800"]
    assert [row["trde_qty"] for row in raw] == [row["trde_qty"] for row in adjusted] == ["500", "1", "1", "498"]
    assert kiwoom.minutes(base_dt="20260908", adjusted="1")[0]["cur_prc"] == "-50000"


def test_longer_bars_sum_up_minutes(kiwoom):
    first = next(row for row in kiwoom.minutes(scope="30") if row["cntr_tm"] == "20260914090000")
    assert (first["trde_qty"], first["high_pric"], first["low_pric"]) == ("3999", "+10600", "-10300")
    hours = [row["cntr_tm"][8:] for row in kiwoom.minutes(scope="60") if row["cntr_tm"].startswith("20260914")]
    assert hours == ["160000", "150000", "090000"]


def test_weeks_begin_at_their_first_trading_day_and_have_value_in_won(kiwoom):
    newest, older = kiwoom.rows("ka10082", stk_cd="000100", base_dt="20260918", upd_stkpc_tp="1")
    assert dates([newest, older]) == ["20260914", "20260907"]
    assert [older[name] for name in ("open_pric", "high_pric", "low_pric", "cur_prc")] == [
        "9800",
        "10500",
        "9700",
        "10400",
    ]
    # 5,000 and 10,015 adjusted, 12,000 and 9,000 shares.
    assert older["trde_qty"] == "36015"
    # Half at the open and half at the close: 49,750,000 + 100,651,000 + 121,800,000 + 93,150,000, the second of 2,003 shares.
    assert older["trde_prica"] == str(49_750_000 + 1_002 * 50_500 + 1_001 * 50_000 + 121_800_000 + 93_150_000)
    assert newest["pred_pre"] == "-200"


def test_months_and_years_are_stamped_with_their_first_trading_day(kiwoom):
    body = {"stk_cd": "000200", "base_dt": "20260918", "upd_stkpc_tp": "0"}
    (month,) = kiwoom.rows("ka10083", **body)
    (year,) = kiwoom.rows("ka10094", **body)
    assert month["dt"] == year["dt"] == "20260907"
    assert (month["high_pric"], month["low_pric"], month["cur_prc"]) == ("1200", "900", "1150")
    assert not {"pred_pre", "pred_pre_sig", "trde_tern_rt"} & set(year)
    keys = {api: list(kiwoom.post(api, **body).json())[1] for api in ("ka10082", "ka10083", "ka10094")}
    assert keys == {
        "ka10082": "stk_stk_pole_chart_qry", "ka10083": "stk_mth_pole_chart_qry", "ka10094": "stk_yr_pole_chart_qry"
    }  # fmt: skip


def test_the_running_week_grows():
    with simulator(at(DAYS[4], 21)) as kiwoom:
        assert kiwoom.rows("ka10082", stk_cd="000100", base_dt="20260918", upd_stkpc_tp="1")[0]["trde_qty"] == "8400"
        kiwoom.clock.move_to(at(DAYS[5], 21))
        assert kiwoom.rows("ka10082", stk_cd="000100", base_dt="20260918", upd_stkpc_tp="1")[0]["trde_qty"] == "24500"


@pytest.mark.parametrize(("style", "rows", "code"), [("zero", 0, 0), ("blank", 1, 0), ("1902", None, 7)])
def test_a_delisted_code_is_answered_as_told(style, rows, code):
    with simulator(gone=style) as kiwoom:
        answer = kiwoom.post("ka10081", stk_cd="000400", base_dt="20260908", upd_stkpc_tp="0").json()
        assert answer["return_code"] == code
        found = answer.get("stk_dt_pole_chart_qry")
        assert (None if found is None else len(found)) == rows
        if rows:
            assert set(found[0].values()) == {""}


def test_an_unknown_code_is_refused_by_name(kiwoom):
    answer = kiwoom.post("ka10081", stk_cd="118970", base_dt="20260918", upd_stkpc_tp="0").json()
    assert answer == {
        "return_code": 7,
        "return_msg": "서비스를 처리하는 중에 오류가 발생했습니다[1902:종목 정보가 없습니다. 입력한 종목코드 값을 "
        "확인바랍니다. 종목코드=118970]",
    }


def test_a_day_before_the_listing_is_one_blank_row(kiwoom):
    (blank,) = kiwoom.daily("0000D0", base="20260914")
    assert set(blank.values()) == {""} and "cur_prc" in blank
    assert dates(kiwoom.daily("0000D0"))[-1] == "20260915"


def test_a_code_is_unknown_until_it_is_listed():
    with simulator(at(DAYS[4], 12)) as kiwoom:
        assert kiwoom.post("ka10081", stk_cd="0000D0", base_dt="20260918", upd_stkpc_tp="0").json()["return_code"] == 7


def test_both_exchanges_together_have_the_volume_of_each(kiwoom):
    krx, nxt, both = (int(kiwoom.daily(f"000100{suffix}")[0]["trde_qty"]) for suffix in ("", "_NX", "_AL"))
    assert krx + nxt == both
    assert kiwoom.daily("000100_NX")[0]["cur_prc"] != kiwoom.daily("000100")[0]["cur_prc"]
    assert kiwoom.post("ka10081", stk_cd="000200_NX", base_dt="20260918", upd_stkpc_tp="0").json()["return_code"] == 7


def test_the_mock_profile_refuses_suffixes_and_lacks_the_newest_day():
    with simulator(profile="mock") as kiwoom:
        answer = kiwoom.post("ka10081", stk_cd="000100_NX", base_dt="20260918", upd_stkpc_tp="0").json()
        assert answer["return_code"] == 7 and "[1903:" in answer["return_msg"]
        assert kiwoom.daily()[0]["dt"] == "20260917"
        assert kiwoom.rows("ka20006", inds_cd="001", base_dt="20260918")[0]["dt"] == "20260917"
    with simulator(profile="mock", mock_suffix="blank", mock_lag=0) as kiwoom:
        (blank,) = kiwoom.daily("000100_AL")
        assert set(blank.values()) == {""}
        assert kiwoom.daily()[0]["dt"] == "20260918"


def test_an_index_is_in_hundredths_of_points_without_a_sign(kiwoom):
    rows = kiwoom.rows("ka20006", inds_cd="001", base_dt="20260918")
    # 2,508.50 points; 400,000 thousand shares; 200,000 each at 2,508.00 and 2,508.50, the value in million won.
    assert rows[0] == {
        "cur_prc": "250850", "trde_qty": "400000", "dt": "20260918", "open_pric": "250800", "high_pric": "251300",
        "low_pric": "250300", "trde_prica": str(200_000 * (250_800 + 250_850) // 1_000_000),
    }  # fmt: skip
    assert dates(rows) == [f"{day:%Y%m%d}" for day in reversed(DAYS)]
    keys = {"ka20007": "inds_stk_pole_qry", "ka20008": "inds_mth_pole_qry", "ka20019": "inds_yr_pole_qry"}
    for api_id, key in keys.items():
        answer = kiwoom.post(api_id, inds_cd="001", base_dt="20260918").json()
        assert answer[key][-1]["dt"] == "20260907"


def test_a_running_index_stays_within_its_day():
    with simulator(at(DAYS[4], 9)) as kiwoom:
        before = 0
        for minute in (1, 100, 200, 300, 389, 391):
            kiwoom.clock.move_to(at(DAYS[4], 9) + seconds(60 * minute))
            row = {
                name: int(text) for name, text in kiwoom.rows("ka20006", inds_cd="001", base_dt="20260914")[0].items()
            }
            assert row["high_pric"] >= max(row["open_pric"], row["cur_prc"])
            assert row["low_pric"] <= min(row["open_pric"], row["cur_prc"])
            assert row["trde_qty"] >= before
            before = row["trde_qty"]
        assert (row["cur_prc"], row["trde_qty"]) == (250_450, 400_000)

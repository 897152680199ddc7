"""Kiwoom's wire -> frames: rows as the specification prints them (sections 6 and 7)."""

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from chartinsight_lib import normalise
from chartinsight_lib import normalise_kiwoom as kiwoom
from chartinsight_lib.domain import Flag
from chartinsight_lib.errors import SchemaError

DAILY = [
    {"cur_prc": "41250", "trde_qty": "1830422", "trde_prica": "75210", "dt": "20260904", "open_pric": "40900",
     "high_pric": "41400", "low_pric": "40850", "pred_pre": "+300", "pred_pre_sig": "2", "trde_tern_rt": "+0.61"},
    {"cur_prc": "40950", "trde_qty": "2210034", "trde_prica": "90918", "dt": "20260903", "open_pric": "41500",
     "high_pric": "41650", "low_pric": "40800", "pred_pre": "-550", "pred_pre_sig": "5", "trde_tern_rt": "+0.74"},
    {"cur_prc": "41500", "trde_qty": "0", "trde_prica": "0", "dt": "20260902", "open_pric": "41500",
     "high_pric": "41500", "low_pric": "41500", "pred_pre": "0", "pred_pre_sig": "3", "trde_tern_rt": "0.00"},
]  # fmt: skip
EVENING = datetime(2026, 9, 4, 12, tzinfo=UTC)  # 21:00 in Seoul


def bars(frame: pd.DataFrame, today: date) -> normalise.Bars:
    return normalise.daily(frame, market="KRX", today=today, provisional_from=today)


def quote(code: str = "123450", **fields: str) -> dict[str, str]:
    usual = {"stk_cd": code, "cur_prc": "-41450", "open_pric": "+41500", "high_pric": "+41650", "low_pric": "-41400",
             "close_pric": "", "trde_qty": "801122", "trde_prica": "33240", "base_pric": "41500", "dt": "20260914"}  # fmt: skip
    return usual | fields


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("00136000", 136000),
        ("+41500", 41500),
        ("-41450", -41450),
        ("--714", -714),
        ("0", 0),
        ("-2394.49", -2394.49),
        (" 5 ", 5),
    ],
)
def test_numbers_may_be_padded_signed_or_signed_twice(written, value):
    assert kiwoom.number(written) == value


@pytest.mark.parametrize(
    "written", ["", " ", "-", "x", "1,234", "1e5", "４", "4294967295", "2147483647", "-2147483648", "-2147483"]
)
def test_blanks_overflows_and_what_is_no_number_are_missing(written):
    assert np.isnan(kiwoom.number(written))


def test_the_specifications_daily_rows_become_two_candles_and_a_day_without_trade():
    result = bars(kiwoom.daily(DAILY, "123450", now=EVENING), date(2026, 9, 4))
    assert result.candles[["open", "high", "low", "close", "volume", "value"]].to_numpy().tolist() == [
        [41500, 41650, 40800, 40950, 2210034, 90918e6],
        [40900, 41400, 40850, 41250, 1830422, 75210e6],  # million won on the wire
    ]
    assert result.candles["flags"].tolist() == [0, Flag.PROVISIONAL]
    assert result.gaps["kind"].tolist() == ["no-trade"]


def test_rows_without_trade_are_halted_days_where_the_list_says_so_and_only_at_the_newest_end():
    quiet = DAILY[2] | {"dt": "20260904"}
    rows = [quiet, quiet | {"dt": "20260903"}, DAILY[1] | {"dt": "20260902"}, quiet | {"dt": "20260901"}]
    result = bars(kiwoom.daily(rows, "123450", now=EVENING, halted=True), date(2026, 9, 4))
    assert result.gaps["kind"].tolist() == ["no-trade", "halted", "halted"]
    assert kiwoom.halted_now({"state": "증거금100%|거래정지|관리종목", "auditInfo": "정상"})
    assert not kiwoom.halted_now({"state": "증거금20%|담보대출|신용가능", "auditInfo": "정상"})


def test_the_sign_of_a_price_is_no_part_of_it():
    rows = [row | {"cur_prc": "-" + row["cur_prc"], "high_pric": "+" + row["high_pric"]} for row in DAILY]
    signed, plain = (kiwoom.daily(each, "123450", now=EVENING) for each in (rows, DAILY))
    pd.testing.assert_frame_equal(signed, plain)


def test_the_older_schema_and_unknown_columns_are_read_all_the_same():
    older = [
        {name: row[name] for name in ("dt", "open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty")}
        | {"upd_stkpc_tp": "", "upd_rt": "", "pred_close_pric": "", "brand_new": "1"}
        for row in DAILY
    ]
    result = bars(kiwoom.daily(older, "123450", now=EVENING), date(2026, 9, 4))
    assert len(result.candles) == 2
    assert result.candles["value"].isna().all()


def test_a_column_that_no_row_has_means_that_the_api_has_changed():
    lacking = [{name: value for name, value in row.items() if name != "high_pric"} for row in DAILY]
    with pytest.raises(SchemaError, match="kiwoom ka10081 123450: the reply lacks high_pric; found"):
        kiwoom.daily(lacking, "123450", now=EVENING)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("trde_qty", "4294967295", "bad_volume"),
        ("trde_qty", "", "bad_volume"),
        ("high_pric", "n/a", "bad_price"),
        ("low_pric", "", "bad_price"),
        ("dt", "2026090x", "bad_date"),
        ("dt", "00000000", "bad_date"),
        ("dt", "20260905", "future_date"),
        ("high_pric", "40000", "high_below_low"),
    ],
)
def test_a_row_that_cannot_be_right_is_rejected_as_it_was_and_the_others_are_kept(field, value, rule):
    rows = [DAILY[0] | {field: value}, *DAILY[1:]]
    result = bars(kiwoom.daily(rows, "123450", now=EVENING), date(2026, 9, 4))
    assert result.quarantine["rule"].tolist() == [rule]
    assert len(result.candles) + len(result.gaps) == 2
    assert not value or value in result.quarantine["payload"].iloc[0].replace(".0", "").replace("-", "")


def test_since_the_after_market_a_daily_close_is_marked_as_its_last_price():
    days = ["20260915", "20260914", "20260911"]
    rows = [DAILY[0] | {"dt": day} for day in days]
    at_four, before = (kiwoom.daily(rows, "123450", now=datetime(2026, 9, 15, hour, 59, tzinfo=UTC)) for hour in (7, 6))
    assert at_four["flags"].tolist() == [Flag.AFTER_MARKET, Flag.AFTER_MARKET, 0]
    assert before["flags"].tolist() == [0, Flag.AFTER_MARKET, 0]  # 15:59: the regular close still


def test_minutes_are_stamped_with_their_start_in_utc_and_those_of_the_after_market_are_marked():
    rows = [
        {"cur_prc": "-41450", "trde_qty": "5210", "cntr_tm": f"20260914{time}", "open_pric": "41500",
         "high_pric": "+41650", "low_pric": "-41400", "acc_trde_qty": "801122", "pred_pre": "-50", "pred_pre_sig": "5"}
        for time in ("160000", "153000", "090000")
    ]  # fmt: skip
    frame = kiwoom.minutes(rows, "123450")
    assert [f"{at:%d %H:%M}" for at in frame["ts"]] == ["14 07:00", "14 06:30", "14 00:00"]
    assert frame["flags"].tolist() == [Flag.AFTER_MARKET, 0, 0]
    now = datetime(2026, 9, 14, 7, 2, tzinfo=UTC)
    result = normalise.intraday(frame, market="KRX", now=now, provisional_from=datetime(2026, 9, 14, 7, tzinfo=UTC))
    assert result.candles["flags"].tolist() == [0, 0, Flag.AFTER_MARKET | Flag.PROVISIONAL]
    assert result.candles.iloc[0][["open", "high", "low", "close", "volume"]].tolist() == [
        41500,
        41650,
        41400,
        41450,
        5210,
    ]


def test_a_minute_that_cannot_be_dated_or_lies_in_the_future_is_rejected():
    row = {"cur_prc": "1", "trde_qty": "1", "open_pric": "1", "high_pric": "1", "low_pric": "1"}
    frame = kiwoom.minutes([row | {"cntr_tm": "20260914250000"}, row | {"cntr_tm": "20260915090000"}], "123450")
    now = datetime(2026, 9, 14, 7, tzinfo=UTC)
    result = normalise.intraday(frame, market="KRX", now=now, provisional_from=now)
    assert result.quarantine["rule"].tolist() == ["bad_date", "future_date"]


def test_a_quote_is_the_running_bar_and_once_there_is_an_official_close_that_is_its_close():
    rows = [
        quote(),
        quote("123451", close_pric="+41600"),
        quote("123452", trde_qty="0"),
        quote("123453", dt="20260911"),
    ]
    rows.append(quote("123454", dt=""))
    frame = kiwoom.quotes(rows, now=datetime(2026, 9, 14, 7, 40, tzinfo=UTC))  # 16:40
    assert frame["code"].tolist() == ["123450", "123451"]  # the others have not traded today, or do not say so
    assert frame["close"].tolist() == [41450, 41600]
    assert frame["flags"].tolist() == [Flag.AFTER_MARKET, Flag.OFFICIAL_CLOSE]
    assert frame["value"].tolist() == [33240e6] * 2
    assert set(frame["date"]) == {"20260914"}


@pytest.mark.parametrize(
    ("hour", "minute", "flag"), [(2, 0, 0), (6, 59, 0), (7, 0, Flag.AFTER_MARKET), (7, 39, Flag.AFTER_MARKET)]
)
def test_a_close_that_a_quote_names_before_the_session_is_surely_over_is_no_official_one(hour, minute, flag):
    frame = kiwoom.quotes([quote(close_pric="41600")], now=datetime(2026, 9, 14, hour, minute, tzinfo=UTC))
    assert (frame["close"].tolist(), frame["flags"].tolist()) == ([41450], [flag])


def test_the_list_of_instruments_is_read_with_its_kinds_and_dates():
    usual = {"name": "가나전자", "listCount": "0000000005969783", "auditInfo": "정상", "regDay": "20091204",
             "lastPrice": "00041500", "state": "증거금20%", "upName": "전기전자", "nxtEnable": "Y"}  # fmt: skip
    markets = {
        "123450": "0",
        "03473K": "0",
        "0000D0": "8",
        "500001": "60",
        "330590": "6",
        "088980": "2",
        "222222": "10",
    }
    rows = [usual | {"code": code, "marketCode": market} for code, market in markets.items()]
    rows[4] |= {"regDay": "00000000", "upName": ""}
    frame = kiwoom.instruments(rows, "KRX").set_index("code")
    assert frame.index.is_monotonic_increasing
    assert frame["kind"].to_dict() == {
        "123450": "stock", "03473K": "stock", "0000D0": "etf", "500001": "etn", "330590": "reit", "088980": "fund",
        "222222": "stock",
    }  # fmt: skip
    assert frame.loc["123450", "listed_on"] == date(2009, 12, 4)
    assert frame.loc["330590", ["listed_on", "sector"]].isna().all()


def test_one_code_for_two_instruments_is_refused():
    with pytest.raises(SchemaError, match="123450 stands for 가 and for 나"):
        kiwoom.instruments([{"code": "123450", "name": "가"}, {"code": "123450", "name": "나"}], "KRX")


def test_flows_keep_their_signs_and_an_index_is_points():
    found = kiwoom.flows([{"dt": "20260904", "ind_invsr": "--714", "frgnr_invsr": "+1000", "orgn": "-286"}])
    assert found[["individual", "foreign", "institution"]].to_numpy().tolist() == [[-714, 1000, -286]]
    index = kiwoom.index_points(
        [{"cur_prc": "252127", "trde_qty": "393564", "dt": "20250210", "open_pric": "251064", "high_pric": "252733",
          "low_pric": "249918", "trde_prica": "10582466"}]
    )  # fmt: skip
    assert index.iloc[0].tolist() == [2510.64, 2527.33, 2499.18, 2521.27, 393564, 10582466e6]

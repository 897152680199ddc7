"""Open DART's rows -> filings and statements. The replies are made from the guide; what is expected is read off them."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib.errors import SchemaError
from chartinsight_lib.normalise_dart import Amount, Listed, asked_as, fiscal_month, listed, statement

REPLIES = Path(__file__).parents[1] / "data" / "replies"
NOTHING = Amount(None, None)


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((REPLIES / f"dart_{name}.json").read_text(encoding="utf-8"))["reply"]["list"]


NINE = Listed(
    "20241114000311", "00990001", "000990", "분기보고서 (2024.09)", "quarter", date(2024, 9, 30), date(2024, 11, 14)
)
YEAR = Listed(
    "20250318000712", "00990002", "099100", "사업보고서 (2024.12)", "annual", date(2024, 12, 31), date(2025, 3, 18)
)


def nine_months(changed=None, shares=None):
    told = rows("statements_nine_months") if changed is None else changed
    shares = rows("shares") if shares is None else shares
    return statement(told, shares, filing=NINE, reprt_code="11014", fs_div="CFS")


def one_of(told, sj_div, account_id):
    return next(row for row in told if (row["sj_div"], row["account_id"]) == (sj_div, account_id))


# The list.


def test_the_list_gives_periodic_reports_of_companies_with_a_stock_code():
    found, refused = listed(rows("list"))
    assert refused == []
    assert [(one.stock_code, one.form, one.period_end, one.received_on) for one in found] == [
        ("000990", "quarter", date(2024, 9, 30), date(2024, 11, 14)),
        ("099100", "annual", date(2023, 12, 31), date(2024, 11, 14)),
        ("0099A0", "half", date(2024, 6, 30), date(2024, 11, 15)),
    ]
    assert found[0].corp_code == "00990001"


def test_leading_zeros_are_kept_and_a_code_that_came_as_a_number_is_refused():
    (row, *_) = rows("list")
    for field, number in (
        ("corp_code", 990001),
        ("stock_code", 990),
        ("corp_code", "990001"),
        ("rcept_no", "20241114"),
    ):
        with pytest.raises(SchemaError, match=f"{field} is {number!r}"):
            listed([row | {field: number}])


@pytest.mark.parametrize("wrong", ["2024-11-14", "20241314", "202411", "2024111"])
def test_a_received_date_that_is_none_is_an_error(wrong):
    with pytest.raises(SchemaError, match="rcept_dt"):
        listed([rows("list")[0] | {"rcept_dt": wrong}])


def test_the_month_of_the_fiscal_year_is_that_of_the_nearest_annual_or_half_yearly_report():
    def filed(form, end):
        return Listed("2" * 14, "0" * 8, "000990", "", form, end, end)

    assert (
        fiscal_month([filed("annual", date(2023, 3, 31)), filed("quarter", date(2024, 9, 30))], date(2024, 9, 30)) == 3
    )
    assert fiscal_month([filed("half", date(2024, 9, 30))], date(2024, 12, 31)) == 3
    assert fiscal_month([filed("half", date(2024, 6, 30))], date(2024, 9, 30)) == 12
    assert fiscal_month([filed("quarter", date(2024, 9, 30))], date(2024, 9, 30)) == 0
    # A company that changed its year: the one in force then.
    both = [filed("annual", date(2019, 6, 30)), filed("annual", date(2023, 12, 31))]
    assert (fiscal_month(both, date(2019, 3, 31)), fiscal_month(both, date(2024, 3, 31))) == (6, 12)


@pytest.mark.parametrize(
    ("form", "end", "month", "expected"),
    [
        ("quarter", date(2024, 3, 31), 12, [("2024", "11013")]),
        ("half", date(2024, 6, 30), 12, [("2024", "11012")]),
        ("quarter", date(2024, 9, 30), 12, [("2024", "11014")]),
        ("annual", date(2024, 12, 31), 12, [("2024", "11011")]),
        # A year that ends in March 2025: its first quarter ends in June 2024, its nine months in December.
        ("quarter", date(2024, 6, 30), 3, [("2025", "11013"), ("2024", "11013")]),
        ("quarter", date(2024, 12, 31), 3, [("2025", "11014"), ("2024", "11014")]),
        ("annual", date(2025, 3, 31), 3, [("2025", "11011"), ("2024", "11011")]),
        # June: the half-year ends in December.
        ("half", date(2024, 12, 31), 6, [("2025", "11012"), ("2024", "11012")]),
        ("quarter", date(2025, 3, 31), 6, [("2025", "11014"), ("2024", "11014")]),
        ("quarter", date(2024, 6, 30), 12, []),  # no quarterly report ends there
        ("annual", date(2024, 6, 30), 12, []),
    ],
)
def test_a_report_is_asked_for_by_fiscal_year_and_kind(form, end, month, expected):
    assert asked_as(form, end, month) == expected


# Statements.


def test_a_quarters_income_is_of_three_months_and_the_sum_since_the_year_began_is_a_field_of_its_own():
    found = nine_months()
    assert found.revenue == Amount(1_000_000_000, 2_700_000_000)
    assert found.operating_income == Amount(150_000_000, 390_000_000)
    assert (found.quarter, found.currency, found.notes) == (3, "KRW", ())


def test_an_account_in_both_statements_of_income_is_taken_from_that_of_profit_and_loss():
    # CIS, which comes later, says 111,111,111; cash flows and changes in equity say other numbers under the same id.
    assert nine_months().owner_income == Amount(100_000_000, 250_000_000)


def test_an_account_that_only_the_statement_of_comprehensive_income_has_is_taken_from_there():
    told = [row for row in rows("statements_nine_months") if row["sj_div"] != "IS"]
    assert nine_months(told).owner_income == Amount(111_111_111, 251_111_111)


def test_the_owners_equity_leaves_out_what_belongs_to_others():
    assert nine_months().owner_equity == 5_000_000_000


def test_shares_are_those_outstanding_of_all_classes():
    assert nine_months().shares == 1_100_000  # 합계: 1,150,000 issued, 50,000 of them the company's own


def test_shares_counted_on_another_day_than_the_end_of_the_period_are_unknown():
    other = [row | {"stlm_dt": "2023-12-31"} for row in rows("shares")]
    found = nine_months(shares=other)
    assert found.shares is None
    assert found.notes == ("shares: counted on 2023-12-31, not at the end of the period",)
    assert nine_months(shares=[]).shares is None


def test_a_bank_has_no_revenue_and_everything_else_that_it_tells():
    found = statement(rows("statements_bank_separate"), [], filing=YEAR, reprt_code="11011", fs_div="OFS")
    assert found.revenue == NOTHING  # interest is not taken for it
    assert found.operating_income == Amount(None, 900_000_000)  # by its name: it has no standard id
    assert found.owner_income == Amount(None, 640_000_000)  # separate: nobody else has a share
    assert found.owner_equity == 8_000_000_000
    assert found.notes == ("revenue: not told", "shares: not told")


def test_a_blank_sum_since_the_year_began_stays_unknown_except_in_the_first_quarter():
    told = rows("statements_nine_months")
    for row in told:
        row["thstrm_add_amount"] = ""
    assert nine_months(told).owner_income == Amount(100_000_000, None)
    first = statement(told, [], filing=NINE, reprt_code="11013", fs_div="CFS")
    assert first.owner_income == Amount(100_000_000, 100_000_000)


def test_the_total_is_not_taken_for_the_owners_where_others_have_a_share():
    told = [row for row in rows("statements_nine_months") if "OwnersOfParent" not in row["account_id"]]
    found = nine_months(told)
    assert (found.owner_income, found.owner_equity) == (NOTHING, None)
    assert found.notes[:2] == ("net income of the owners: not told", "equity of the owners: not told")
    # Where nobody has, it is theirs.
    alone = [row for row in told if "Noncontrolling" not in row["account_id"]]
    assert nine_months(alone).owner_income == Amount(110_000_000, 280_000_000)
    assert nine_months(alone).owner_equity == 5_300_000_000


def test_two_rows_of_one_statement_that_differ_are_no_answer():
    told = rows("statements_nine_months")
    revenue = one_of(told, "IS", "ifrs-full_Revenue")
    found = nine_months([*told, revenue | {"account_nm": "기타매출", "thstrm_amount": "7"}])
    assert found.revenue == Amount(1_000_000_000, 2_700_000_000)  # only one of them is called so
    twice = nine_months([*told, revenue | {"thstrm_amount": "7"}])
    assert (twice.revenue, twice.notes) == (NOTHING, ("revenue: several rows of it differ",))
    assert nine_months([*told, dict(revenue)]).revenue == found.revenue  # the same twice is the same


def test_a_heading_without_an_amount_is_no_row_of_its_account():
    told = rows("statements_nine_months")
    heading = one_of(told, "BS", "ifrs-full_EquityAttributableToOwnersOfParent") | {"thstrm_amount": ""}
    assert nine_months([heading, *told]).owner_equity == 5_000_000_000


def test_the_old_taxonomys_ids_are_the_same_accounts():
    told = [
        row | {"account_id": row["account_id"].replace("ifrs-full_", "ifrs_")} for row in rows("statements_nine_months")
    ]
    assert nine_months(told) == nine_months()


@pytest.mark.parametrize(
    ("written", "expected"),
    [("-1,500", -1500.0), ("(1,500)", -1500.0), ("1500", 1500.0), (1500, 1500.0), ("0", 0.0), ("12.5", 12.5)],
)
def test_amounts_are_read_with_their_signs(written, expected):
    told = rows("statements_nine_months")
    one_of(told, "IS", "ifrs-full_Revenue")["thstrm_amount"] = written
    assert nine_months(told).revenue.quarter == expected


@pytest.mark.parametrize("written", ["n/a", "1,5x", "NaN", "inf", "１２", "--5", "9" * 40])
def test_an_amount_that_is_no_number_is_an_error_that_names_company_filing_and_account(written):
    told = rows("statements_nine_months")
    one_of(told, "IS", "ifrs-full_Revenue")["thstrm_amount"] = written
    with pytest.raises(SchemaError, match=r"dart 000990 20241114000311: thstrm_amount of Ⅰ. 매출액 is "):
        nine_months(told)


def test_two_currencies_in_one_report_are_noted():
    told = rows("statements_nine_months")
    told[0]["currency"] = "USD"
    assert nine_months(told).currency == "KRW/USD"
    assert nine_months(told).notes == ("amounts are in KRW and USD",)


texts = (
    st.none()
    | st.text(max_size=12)
    | st.sampled_from(["IS", "CIS", "BS", "1,000", "-", "ifrs-full_Revenue", "매출액", "합계"])
)
names = st.sampled_from(
    [
        "sj_div",
        "account_id",
        "account_nm",
        "thstrm_amount",
        "thstrm_add_amount",
        "currency",
        "se",
        "stlm_dt",
        "istc_totqy",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.dictionaries(names, texts | st.integers() | st.lists(st.integers(), max_size=1)), max_size=8),
    st.sampled_from(["11013", "11012", "11014", "11011"]),
    st.sampled_from(["CFS", "OFS"]),
)
def test_rows_whatever_give_a_statement_or_an_error_with_a_name(told, reprt_code, fs_div):
    try:
        found = statement(told, told, filing=NINE, reprt_code=reprt_code, fs_div=fs_div)
    except SchemaError as error:
        assert "dart 000990 20241114000311" in str(error)
    else:
        assert found.rcept_no == NINE.rcept_no

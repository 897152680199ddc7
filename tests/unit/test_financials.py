"""Figures, growth and grades: every expected number is worked by hand beside it."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib.analysis.canslim import grade
from chartinsight_lib.analysis.financials import (
    Figure,
    Growth,
    ShareFactor,
    cagr,
    figures,
    growth,
    known,
    month_number,
    per_share_growth,
)
from chartinsight_lib.normalise_dart import Amount, Statement

NONE = Amount(None, None)
ENDS = {1: (3, 31), 2: (6, 30), 3: (9, 30), 4: (12, 31)}
LATER = {1: (0, 5, 15), 2: (0, 8, 14), 3: (0, 11, 14), 4: (1, 3, 20)}  # received: years after, month, day


def report(year: int, quarter: int, income: float | None, **other) -> Statement:
    """A report of a fiscal year that ends in December: owners' income of three months (of the year, for quarter 4)."""
    years, month, day = LATER[quarter]
    received = other.pop("received", date(year + years, month, day))
    to_date = other.pop("to_date", None)
    usual = {
        "rcept_no": f"{received:%Y%m%d}{quarter:06}", "fs_div": "CFS", "currency": "KRW", "revenue": NONE,
        "operating_income": NONE, "owner_equity": 1000.0, "shares": 10.0,
        "owner_income": Amount(None, income) if quarter == 4 else Amount(income, to_date),
    }  # fmt: skip
    return Statement(known_from=received, period_end=date(year, *ENDS[quarter]), quarter=quarter, **usual | other)


def year_of(year: int, *quarters: float, **other) -> list[Statement]:
    """The four reports of a year whose quarters earned these."""
    q1, q2, q3, q4 = quarters
    return [
        report(year, 1, q1, to_date=q1, **other),
        report(year, 2, q2, to_date=q1 + q2, **other),
        report(year, 3, q3, to_date=q1 + q2 + q3, **other),
        report(year, 4, q1 + q2 + q3 + q4, **other),
    ]


# Growth.


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (125, 100, Growth("growth", 25.0)),
        (100, 100, Growth("growth", 0.0)),
        (5, 20, Growth("decline", -75.0)),
        (0, 20, Growth("decline", -100.0)),
        (3, -4, Growth("turnaround")),
        (3, 0, Growth("turnaround")),
        (-20, -5, Growth("wider loss")),  # the predecessor's +300 %
        (-5, -20, Growth("smaller loss")),
        (0, -20, Growth("smaller loss")),
        (-20, 5, Growth("loss from profit")),
        (-20, 0, Growth("loss from profit")),
        (0, 0, Growth("unknown")),
        (5, None, Growth("unknown")),  # a missing comparable is no nought
        (None, 5, Growth("unknown")),
        (float("nan"), 5, Growth("unknown")),
    ],
)
def test_growth_minds_the_signs_at_both_ends(now, before, expected):
    kind, pct = growth(now, before)
    assert (kind, pct) == (expected.kind, None if expected.pct is None else pytest.approx(expected.pct))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(100, 172.8, 20.0), (100, 51.2, -20.0), (-100, 50, None), (100, -50, None), (0, 50, None), (None, 50, None)],
)
def test_a_yearly_rate_needs_profits_at_both_ends(first, last, expected):
    # 1.2 * 1.2 * 1.2 = 1.728 and 0.8 * 0.8 * 0.8 = 0.512
    assert cagr(first, last, 3) == (None if expected is None else pytest.approx(expected))


# Figures.


def test_the_fourth_quarter_is_the_year_less_its_first_nine_months():
    found = {one.period_end: one for one in figures(year_of(2024, 10, 20, 30, 45)) if one.kind == "quarter"}
    assert [one.owner_income for one in found.values()] == [10, 20, 30, 45]
    fourth = found[date(2024, 12, 31)]
    assert (fourth.owner_income_to_date, fourth.eps) == (105, 4.5)  # 10 + 20 + 30 + 45; 45 / 10 shares
    assert (fourth.known_from, fourth.rcept_no) == (date(2025, 3, 20), "20250320000004")
    assert fourth.minus_rcept_no == "20241114000003"


def test_without_the_sum_of_nine_months_there_is_no_fourth_quarter_of_a_guess():
    third = report(2024, 3, 30.0, to_date=None)
    found = [one for one in figures([third, report(2024, 4, 105.0)]) if one.period_end == date(2024, 12, 31)]
    assert [(one.kind, one.owner_income) for one in found] == [("annual", 105), ("quarter", None)]


def test_a_year_and_nine_months_on_different_bases_make_no_fourth_quarter():
    separate = report(2024, 3, 30.0, to_date=60.0, fs_div="OFS")
    found = figures([separate, report(2024, 4, 105.0)])
    assert [(one.kind, one.period_end.month, one.fs_div) for one in found] == [
        ("annual", 12, "CFS"), ("quarter", 9, "OFS"),
    ]  # fmt: skip


def test_a_corrected_filing_is_a_newer_figure_and_the_old_one_stays_known_until_then():
    reports = year_of(2024, 10, 20, 30, 45)
    corrected = report(2024, 3, 25.0, to_date=55.0, received=date(2025, 6, 2))
    found = figures([*reports, corrected])
    third, fourth = (
        ("quarter", month_number(date(2024, 9, 1)), "CFS"),
        ("quarter", month_number(date(2024, 12, 1)), "CFS"),
    )
    before, after = known(found, date(2025, 6, 1)), known(found, date(2025, 6, 2))
    assert (before[third].owner_income, after[third].owner_income) == (30, 25)
    # The fourth quarter follows: 105 - 60 before, 105 - 55 after.
    assert (before[fourth].owner_income, after[fourth].owner_income) == (45, 50)
    assert fourth not in known(found, date(2025, 3, 19))
    assert known(reversed(found), date(2025, 6, 2)) == after  # in whatever order they come


# Comparisons per share.


def figure(end: date, eps: float | None, **other) -> Figure:
    usual = {"kind": "quarter", "fs_div": "CFS", "known_from": end + timedelta(days=45), "rcept_no": "", "shares": 10.0}
    return Figure(period_end=end, eps=eps, **usual | other)


THEN, NOW = date(2023, 9, 30), date(2024, 9, 30)


def test_a_split_between_the_years_distorts_no_growth():
    # 50 for 1 in between: 500 a share then are 10 a share now, and 12 are a fifth more.
    before, now = figure(THEN, 500.0, shares=100.0), figure(NOW, 12.0, shares=5_000.0)
    split = ShareFactor(date(2024, 5, 4), 50.0)
    assert per_share_growth(now, before, [split]) == (Growth("growth", pytest.approx(20.0)), "")
    # One on the last day of the first period, or after the second, is in both counts or in none.
    for ex_date in (THEN, NOW + timedelta(days=1)):
        assert per_share_growth(now, before, [split._replace(ex_date=ex_date)])[0].kind == "unknown"


def test_a_number_of_shares_that_jumps_without_a_known_split_leaves_growth_unknown():
    before, now = figure(THEN, 500.0, shares=100.0), figure(NOW, 12.0, shares=5_000.0)
    change, why = per_share_growth(now, before, [])
    assert change == Growth("unknown")
    assert why == "there are 50.00 times as many shares as in 2023-09, and no known split tells why"


def test_two_bases_and_two_currencies_are_not_compared():
    now = figure(NOW, 12.0)
    for other in ({"fs_div": "OFS"}, {"currency": "USD"}):
        assert per_share_growth(now, figure(THEN, 10.0, **other), [])[0] == Growth("unknown")


# Grades.


def annual(year: int, eps: float | None, **other) -> Figure:
    end = date(year, 12, 31)
    usual = {"kind": "annual", "known_from": date(year + 1, 3, 20), "owner_income": None if eps is None else eps * 10}
    return figure(end, eps, **{"owner_equity": 1000.0} | usual | other)


def quarter(year: int, number: int, eps: float | None, **other) -> Figure:
    years, month, day = LATER[number]
    usual = {"known_from": date(year + years, month, day), "owner_income": None if eps is None else eps * 10}
    return figure(date(year, *ENDS[number]), eps, **{"owner_equity": 1000.0} | usual | other)


LEADER = [
    *(annual(2020 + n, eps) for n, eps in enumerate((8.0, 10.0, 13.0, 17.0))),  # +25 %, +30 %, +30.8 %
    *(quarter(2023, n, eps) for n, eps in enumerate((3.0, 4.0, 5.0, 5.0), 1)),
    *(quarter(2024, n, eps) for n, eps in enumerate((4.0, 6.0, 7.0), 1)),
]
"""In the third quarter of 2024 7 against 5 (+40 %); the last four quarters 5 + 4 + 6 + 7 = 22 a share, 220 in all, on 1,000."""
AUTUMN = date(2024, 11, 20)


def test_three_of_three_are_an_a_and_each_has_its_sentence():
    found = grade(LEADER, AUTUMN)
    assert found.letter == "A"
    assert (found.c.kind, found.c.pct) == ("growth", pytest.approx(40.0))
    assert [change.pct for change in found.a] == pytest.approx([25.0, 30.0, 30.769], abs=1e-3)
    assert found.cagr == pytest.approx(100 * ((17 / 8) ** (1 / 3) - 1))
    assert found.roe == pytest.approx(22.0)
    assert found.reasons == [
        "C met: earnings per share of the quarter to 2024-09: +40.0 % against a year before",
        "A met: earnings per share of the years to 2023-12: +25.0 %, +30.0 %, +30.8 %, +28.6 % a year",
        "ROE met: return on equity over twelve months: 22.0 %",
    ]
    assert found.known_from == date(2024, 11, 14)


def test_falling_earnings_are_not_loose():
    # The predecessor graded 100, 50, 20, 5 without a comparable quarter `Loose`, because nothing counted as 0 %.
    falling = [annual(2020 + n, eps) for n, eps in enumerate((100.0, 50.0, 20.0, 5.0))]
    found = grade([*falling, quarter(2024, 3, 1.0)], AUTUMN)
    assert found.letter == "unknown"
    assert found.c == Growth("unknown")
    assert [change.pct for change in found.a] == pytest.approx([-50.0, -60.0, -75.0])
    assert found.reasons[0] == "C unknown: quarter to 2024-09: there is no comparable report a year before"
    assert found.reasons[1].startswith("A not met: ")
    # With the quarters it is a plain D: 1 against 2, and 8 a share on 1,000 is 8 %.
    whole = [*(quarter(2023, n, 2.0) for n in (1, 2, 3, 4)), *(quarter(2024, n, 1.0) for n in (1, 2, 3))]
    assert grade([*falling, *whole], AUTUMN).letter == "D"


def test_a_loss_that_widens_meets_nothing():
    losing = [
        figure for figure in LEADER if figure.kind == "annual" or figure.period_end not in {date(2024, 9, 30), date(2023, 9, 30)}
    ]  # fmt: skip
    found = grade([*losing, quarter(2023, 3, -5.0), quarter(2024, 3, -20.0)], AUTUMN)
    assert found.c == Growth("wider loss")
    assert (
        found.reasons[0] == "C not met: earnings per share of the quarter to 2024-09: wider loss against a year before"
    )


def test_a_turnaround_is_called_so_and_is_no_growth_of_25_percent():
    turned = [one for one in LEADER if one.period_end != date(2023, 9, 30)] + [quarter(2023, 3, -5.0)]
    found = grade(turned, AUTUMN)
    assert (found.letter, found.c) == ("B", Growth("turnaround"))


@pytest.mark.parametrize("month", [1, 2, 3])
def test_in_the_first_months_of_a_year_the_third_quarter_is_the_newest_and_is_compared(month):
    found = grade(LEADER, date(2025, month, 10))
    assert found.c.pct == pytest.approx(40.0)


def test_in_the_first_months_of_a_year_without_a_comparable_the_grade_is_unknown():
    found = grade([one for one in LEADER if one.period_end != date(2023, 9, 30)], date(2025, 2, 10))
    assert (found.letter, found.c) == ("unknown", Growth("unknown"))


def test_the_fourth_quarter_is_judged_as_a_quarter_once_the_year_is_known():
    reports = [*year_of(2022, 10, 10, 10, 10), *year_of(2023, 10, 10, 10, 20), *year_of(2024, 10, 10, 10, 30)]
    found = grade(figures(reports), date(2025, 4, 1))
    assert found.period_end == date(2024, 12, 31)
    assert found.c.pct == pytest.approx(50.0)  # 30 against 20
    assert found.roe == pytest.approx(6.0)  # 10 + 10 + 10 + 30 on 1,000
    # A year whose nine months are not known has no fourth quarter, and the third is not taken for the newest.
    without = grade(figures([one for one in reports if one.period_end != date(2024, 9, 30)]), date(2025, 4, 1))
    assert (
        without.reasons[0] == "C unknown: quarter to 2024-12: there is no nine-month report to subtract from the year"
    )


def test_a_company_that_stopped_reporting_has_no_newest_quarter():
    assert grade(LEADER, date(2025, 4, 18)).c.kind == "growth"  # 200 days after 2024-09-30
    found = grade(LEADER, date(2025, 4, 19))
    assert found.letter == "unknown"
    assert found.reasons[0] == "C unknown: quarter to 2024-09: it is too old to be the newest"


def test_consolidated_and_separate_figures_are_never_mixed():
    separate = [replace(one, fs_div="OFS", eps=one.eps and one.eps * 3) for one in LEADER]
    assert grade([*LEADER, *separate], AUTUMN) == grade(LEADER, AUTUMN)
    # Without consolidated ones the separate ones do.
    assert grade(separate, AUTUMN).letter == "A"
    # A comparable that exists on the other basis alone is none.
    gap = [one for one in LEADER if one.period_end != date(2023, 9, 30)]
    assert grade([*gap, *separate], AUTUMN).letter == "unknown"


def test_a_company_that_consolidates_no_more_is_taken_by_its_separate_figures():
    separate = [replace(one, fs_div="OFS") for one in LEADER]
    old = [replace(one, eps=1.0) for one in LEADER if one.period_end < date(2024, 1, 1)]
    assert grade([*old, *separate], AUTUMN) == grade(separate, AUTUMN)


def test_return_is_on_the_mean_of_equity_now_and_a_year_before():
    smaller = [replace(one, owner_equity=600.0) if one.period_end == date(2023, 9, 30) else one for one in LEADER]
    assert grade(smaller, AUTUMN).roe == pytest.approx(27.5)  # 220 on (1,000 + 600) / 2


def test_a_bank_without_revenue_is_graded_by_what_it_has():
    assert {one.revenue for one in LEADER} == {None}
    assert grade(LEADER, AUTUMN).letter == "A"


def test_equity_of_less_than_nought_gives_no_return_on_it():
    found = grade([replace(one, owner_equity=-1000.0) for one in LEADER], AUTUMN)
    assert (found.letter, found.roe) == ("B", None)
    assert found.reasons[2] == "ROE not met: owners' equity is nought or less"


def test_nothing_known_is_unknown():
    assert grade([], AUTUMN).reasons == ["no report is known"]
    assert grade(LEADER, date(2019, 1, 1)).letter == "unknown"


# What always holds.

number = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**17), 10**17).map(float)
amount = st.builds(Amount, number, number)
day = st.dates(date(2018, 1, 1), date(2026, 12, 31))


@st.composite
def statements(draw):
    which = draw(st.sampled_from([1, 2, 3, 4]))
    end = date(draw(st.integers(2018, 2025)), *ENDS[which])
    received = end + timedelta(days=draw(st.integers(20, 700)))
    return Statement(
        f"{received:%Y%m%d}{draw(st.integers(0, 3)):06}", received, end, which, draw(st.sampled_from(["CFS", "OFS"])),
        draw(st.sampled_from(["KRW", "KRW", "USD", ""])), draw(amount), draw(amount), draw(amount), draw(number), draw(number),
    )  # fmt: skip


factor = st.builds(ShareFactor, day, st.floats(0.001, 100) | st.sampled_from([0.0, 1e300, 5e-324]))


@settings(max_examples=300, deadline=None)
@given(st.lists(statements(), max_size=40), st.lists(factor, max_size=3), day)
def test_no_figures_whatever_raise_and_an_unknown_part_is_never_graded(reports, factors, as_of):
    found = grade(figures(reports), as_of, factors)
    assert found.letter in {"A", "B", "C", "D", "unknown"}
    assert len(found.reasons) == (3 if found.period_end else 1)
    assert (found.letter == "unknown") == any(
        " unknown: " in one or one == "no report is known" for one in found.reasons
    )
    assert found.known_from is None or found.known_from <= as_of


@settings(max_examples=300, deadline=None)
@given(st.lists(statements(), max_size=40), st.lists(factor, max_size=3), day)
def test_what_is_received_later_changes_no_earlier_grade(reports, factors, as_of):
    by_then = [one for one in reports if one.known_from <= as_of]
    took_effect = [one for one in factors if one.ex_date <= as_of]
    assert repr(grade(figures(reports), as_of, factors)) == repr(grade(figures(by_then), as_of, took_effect))

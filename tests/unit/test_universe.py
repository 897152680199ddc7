"""The zero filter: who is left out, why, and what is not known; never by name."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from chartinsight_lib import normalise_kiwoom
from chartinsight_lib.errors import ConfigError, SchemaError
from chartinsight_lib.simulator.universe import universe
from chartinsight_lib.states import section_of, states_of
from chartinsight_lib.universe import NEEDED, apply_filter, funnel, load_rules

RULES = load_rules()
STATE_RULES = ["halted", "administrative", "liquidation", "attention", "risk", "warning", "overheated", "margin 100 %"]
SECTIONS = ["spac", "administrative section", "attention section"]


def one(**columns: Any) -> pd.DataFrame:
    """A company that passes, but for what is told."""
    usual = {
        "market": "KRX", "code": "005930", "kind": "stock", "board": "KOSPI", "section": None, "states": [],
        "shares": 1_000_000, "close": 100_000.0,
    }  # fmt: skip
    return pd.DataFrame([usual | columns])


def judged(**columns: Any) -> tuple[bool, list[str], list[str]]:
    row = apply_filter(one(**columns), RULES).iloc[0]
    return bool(row["target"]), row["reasons"], row["unknown"]


# Single rules.


def test_a_company_like_most_is_a_target():
    assert judged() == (True, [], [])
    assert judged(board="KOSDAQ", section="벤처기업부") == (True, [], [])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"kind": "etf"}, "etf"),
        ({"kind": "etn"}, "etn"),
        ({"kind": "reit"}, "reit"),
        ({"kind": "fund"}, "fund"),
        ({"kind": "other"}, "other kind"),
        ({"code": "005935"}, "preferred"),
        ({"code": "00088K"}, "preferred"),
        ({"board": "KOSDAQ", "section": "SPAC"}, "spac"),
        ({"board": "KOSDAQ", "section": "관리종목"}, "administrative section"),
        ({"board": "KOSDAQ", "section": "투자주의환기종목"}, "attention section"),
        ({"board": "KONEX", "section": "일반기업부"}, "konex"),
        ({"states": ["halted"]}, "halted"),
        ({"states": ["administrative"]}, "administrative"),
        ({"states": ["liquidation"]}, "liquidation"),
        ({"states": ["attention"]}, "attention"),
        ({"states": ["risk"]}, "risk"),
        ({"states": ["warning"]}, "warning"),
        ({"states": ["overheated"]}, "overheated"),
        ({"states": ["margin_100"]}, "margin 100 %"),
        ({"shares": 999_999}, "small"),
    ],
)
def test_each_rule_leaves_out_what_it_is_for_and_says_why(columns, reason):
    assert judged(**columns) == (False, [reason], [])
    assert len(RULES.why(reason)) > 20


def test_every_rule_that_holds_is_named_in_the_order_of_the_file():
    assert judged(states=["administrative", "halted", "margin_100"], shares=10, code="005935")[1] == [
        "preferred", "halted", "administrative", "margin 100 %", "small"
    ]  # fmt: skip


def test_a_hundred_billion_won_are_enough():
    assert judged(shares=1_000_000, close=100_000.0)[0]  # exactly so many
    assert judged(shares=1_000_000, close=99_999.0)[1] == ["small"]


def test_codes_with_letters_that_end_in_zero_are_common_shares():
    assert judged(code="0004Y0")[0]
    assert judged(code="0000D0", kind="etf")[1] == ["etf"]  # of a fund the last character says nothing
    assert judged(code="0000D5", kind="etf")[1] == ["etf"]


def test_a_caution_and_a_word_that_is_not_known_leave_nothing_out():
    assert judged(states=["caution", "무엇인가새것"]) == (True, [], [])


# What is not known.


@pytest.mark.parametrize(
    ("columns", "unknown"),
    [
        ({"shares": None}, ["small"]),
        ({"close": float("nan")}, ["small"]),
        ({"board": "KOSDAQ"}, SECTIONS),  # no section is told, and all SPACs are in one
        ({"states": None}, ["halted", "administrative", "liquidation", "attention", "risk", "warning", "overheated",
                            "margin 100 %"]),
        ({"kind": None}, ["etf", "etn", "reit", "fund", "other kind"]),
        ({"kind": None, "code": "005935"}, ["etf", "etn", "reit", "fund", "other kind", "preferred"]),
        ({"kind": None, "shares": 5}, ["etf", "etn", "reit", "fund", "other kind", "small"]),
        ({"board": None}, ["spac", "konex", *SECTIONS[1:]]),
        ({"board": None, "section": "우량기업부"}, ["konex"]),  # whatever its board, it is in another section
    ],
)  # fmt: skip
def test_what_is_not_known_leaves_nothing_out_and_is_named(columns, unknown):
    assert judged(**columns) == (True, [], unknown)


def test_a_rule_that_holds_is_not_undone_by_another_that_is_not_known():
    assert judged(states=None, kind="etf")[:2] == (False, ["etf"])


def test_the_frame_keeps_its_index_its_columns_and_its_order():
    frame = pd.concat([one(), one(kind="etf"), one(states=["halted"])]).set_axis([30, 10, 20]).assign(more=[1, 2, 3])
    found = apply_filter(frame, RULES)
    assert found.index.tolist() == [30, 10, 20]
    assert found["target"].tolist() == [True, False, False]
    assert found.columns.tolist() == [*frame.columns, "target", "reasons", "unknown"]
    pd.testing.assert_frame_equal(found[frame.columns], frame)


def test_the_funnel_counts_what_each_rule_leaves_out_and_what_it_leaves_out_alone():
    rules = load_rules()
    frame = pd.concat([one(), one(kind="etf"), one(kind="etf", board="KOSPI"), one(close=10.0), one(shares=None)])
    table = funnel(apply_filter(frame.reset_index(drop=True), rules), rules)
    assert table[["rule", "left_out", "alone", "unknown"]].to_dict("records") == [
        {"rule": "etf", "left_out": 2, "alone": 2, "unknown": 0},
        {"rule": "small", "left_out": 1, "alone": 1, "unknown": 1},
    ]
    assert table["reason"].str.len().min() > 10


def test_an_empty_frame_is_an_empty_universe():
    found = apply_filter(one().iloc[:0], RULES)
    assert (len(found), str(found["target"].dtype)) == (0, "bool")


@pytest.mark.parametrize("column", NEEDED)
def test_a_frame_without_a_column_is_refused(column):
    with pytest.raises(SchemaError, match=f"lacks {column}"):
        apply_filter(one().drop(columns=column), RULES)


def test_won_are_not_dollars():
    with pytest.raises(ConfigError, match="are for KRX, SIM, and there are instruments of US"):
        apply_filter(one(market="US"), RULES)


# The file.


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('markets = ["KRX"]', "there is no rule"),
        ("kind = 5", "this is no TOML|unknown kind"),
        ('[[rule]]\nname = "a"', "rule 'a': expected a name and a reason"),
        ('[[rule]]\nreason = "b"\nkind = ["etf"]', "rule 1: expected a name and a reason"),
        ('[[rule]]\nname = "a"\nreason = "b"', "rule 'a': it has no condition, and would leave out everything"),
        ('[[rule]]\nname = "a"\nreason = "b"\nnames = ["ETF"]', "rule 'a': names is no condition. Known are kind"),
        ('[[rule]]\nname = "a"\nreason = "b"\nkind = ["ETF"]', "rule 'a': kind has ETF. Known are stock, etf"),
        ('[[rule]]\nname = "a"\nreason = "b"\nkind = "etf"', "kind is 'etf', and a list of texts is expected"),
        ('[[rule]]\nname = "a"\nreason = "b"\nboard = ["NYSE"]', "board has NYSE. Known are KOSPI"),
        ('[[rule]]\nname = "a"\nreason = "b"\nstates = ["관리종목"]', "states has 관리종목. Known are administrative"),
        ('[[rule]]\nname = "a"\nreason = "b"\ncode = "[0-9"', "is no regular expression"),
        ('[[rule]]\nname = "a"\nreason = "b"\ncode = 5', "is no regular expression"),
        ('[[rule]]\nname = "a"\nreason = "b"\nmarket_cap_below = "1e9"', "an amount above 0 is expected"),
        ('[[rule]]\nname = "a"\nreason = "b"\nmarket_cap_below = -1', "an amount above 0 is expected"),
        ('[[rule]]\nname = "a"\nreason = "b"\nkind = ["etf"]\n' * 2, "two rules are called 'a'"),
        ("[[rule]\n", "this is no TOML"),
    ],
)
def test_what_no_rule_can_say_is_refused_by_name(tmp_path, rule, message):
    file = tmp_path / "mine.toml"
    file.write_text(rule if rule.startswith("markets") else f'markets = ["KRX"]\n{rule}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=f"mine.toml: .*({message})"):
        load_rules(file)


def test_rules_for_a_market_that_there_is_not_and_a_file_that_there_is_not_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text(
        'markets = ["XKRX"]\n[[rule]]\nname="a"\nreason="b"\nkind=["etf"]\n', encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="markets has XKRX. Known are KRX"):
        load_rules(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rules(tmp_path / "none.toml")


def test_rules_of_ones_own_are_used(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'markets = ["KRX"]\n[[rule]]\nname = "no mid"\nreason = "big ones only"\nmarket_cap_below = 1e12\n',
        encoding="utf-8",
    )
    assert apply_filter(one(), load_rules(file)).iloc[0]["reasons"] == ["no mid"]


# The exchange's words.


def test_the_words_of_lists_become_states():
    assert states_of(["증거금20%", "담보대출", "신용가능"]) == []
    assert states_of(["정상", "", "증거금40%"]) == []
    assert states_of(["증거금100%", "관리종목", "거래정지", "관리종목"]) == ["administrative", "halted", "margin_100"]
    assert states_of([" 투자경고 ", "무엇인가새것"]) == ["warning", "무엇인가새것"]


def test_a_section_is_told_without_its_remark():
    assert [section_of(word) for word in ("SPAC(소속부없음)", "관리종목(소속부없음)", "우량기업부", " ", "스팩")] == [
        "SPAC", "관리종목", "우량기업부", None, "SPAC"
    ]  # fmt: skip


def test_kiwooms_list_tells_boards_sections_states_and_shares():
    usual = {"name": "가나전자", "listCount": "0000000005969783", "auditInfo": "정상", "regDay": "20091204",
             "lastPrice": "00041500", "state": "증거금20%|담보대출|신용가능", "upName": "금융", "orderWarning": "0",
             "companyClassName": "", "nxtEnable": "Y", "marketCode": "0"}  # fmt: skip
    rows = [
        usual | {"code": "000010"},
        usual | {"code": "000020", "marketCode": "10", "companyClassName": "SPAC(소속부없음)", "nxtEnable": ""},
        usual | {"code": "000030", "state": "증거금100%|관리종목", "listCount": "0000000000000000"},
        usual | {"code": "000040", "auditInfo": "투자주의환기종목", "orderWarning": "3", "upName": ""},
        usual | {"code": "000050", "marketCode": "90"},
        usual | {"code": "000060", "marketCode": "30"},
        {"code": "000070", "name": "나"},
    ]
    found = normalise_kiwoom.instruments(rows, "KRX").set_index("code")
    assert found["board"].tolist()[:6] == ["KOSPI", "KOSDAQ", "KOSPI", "KOSPI", "KOSPI", None]
    # The same name on two boards is two sectors.
    assert found["sector"].tolist()[:4] == ["KOSPI 금융", "KOSDAQ 금융", "KOSPI 금융", None]
    assert found.loc["000020", ["section", "nxt_enabled"]].tolist() == ["SPAC", False]
    assert found["states"].tolist()[:4] == [[], [], ["administrative", "margin_100"], ["attention", "overheated"]]
    assert found["shares"].isna().tolist() == [False, False, True, False, False, False, True]
    assert found.loc["000010", ["shares", "listed_on"]].tolist() == [5_969_783, date(2009, 12, 4)]
    nothing = found.loc["000070"]
    assert nothing[["board", "sector", "section", "states", "nxt_enabled", "listed_on"]].isna().all()


# Whole markets.


def krx(shared_data: Path) -> pd.DataFrame:
    """KRX's own list of 2026-03-22 as the filter takes it: it tells neither kinds nor states nor prices."""
    listing = pd.read_parquet(shared_data / "krx_listing.parquet")
    frame = listing[["code", "name", "shares"]].assign(
        market="KRX", kind="stock", board=listing["market"].replace({"KOSDAQ GLOBAL": "KOSDAQ"}),
        section=[section_of(word) for word in listing["dept"].fillna("")], close=float("nan"), states=None,
    )  # fmt: skip
    return frame.set_index("code", drop=False)


@pytest.mark.shared
def test_of_the_exchanges_own_list_sections_and_codes_are_left_out_and_no_name(shared_data):
    found = apply_filter(krx(shared_data), RULES)
    reasons = found["reasons"].explode().value_counts().to_dict()
    # Counted in the file: 72 rows of section SPAC, 64 관리종목, 42 투자주의환기종목, 110 of KONEX, 113 codes not ending in 0.
    assert reasons == {
        "preferred": 113, "konex": 110, "spac": 72, "administrative section": 64, "attention section": 42
    }  # fmt: skip
    targets = set(found.loc[found["target"], "name"])
    assert {
        "메리츠금융지주",
        "블리츠웨이엔터테인먼트",
        "바이오인프라",
        "에코글로우",
        "성우",
        "삼성전자",
    } <= targets
    assert "메리츠제1호스팩" not in targets
    assert not any("스팩" in name for name in targets)
    assert set(map(tuple, found["unknown"])) == {(*STATE_RULES, "small")}


@pytest.mark.shared
def test_the_filter_of_an_official_cross_section_counts_the_market_value_by_hand(shared_data):
    rows = pd.read_parquet(shared_data / "krx_crosssection_raw.parquet")
    rows = rows[rows["date"] == rows["date"].max()]
    frame = rows[["code", "shares", "close"]].assign(
        market="KRX", kind="stock", board="KOSPI", section=None, states=[[] for _ in range(len(rows))]
    )
    found = apply_filter(frame, RULES)
    small = found["reasons"].map(lambda names: "small" in names)
    assert (small == (rows["mktcap"] < 100_000_000_000)).all()  # the exchange's own product
    assert 0 < small.sum() < len(rows)


def test_of_an_invented_market_companies_of_size_are_left():
    listings = [plan.listing for plan in universe(7, 300)]
    day = date(2026, 9, 14)
    alive = [one for one in listings if one.listed(day)]
    frame = pd.DataFrame({
        "market": "SIM", "code": [one.code for one in alive], "kind": [one.kind for one in alive],
        "board": [one.board for one in alive], "section": "우량기업부",
        "states": [states_of(text for since, until, text in one.warnings if since <= day and (until is None or day < until))
                   for one in alive],
        "shares": [one.shares_on(day) for one in alive], "close": 1e9,
    })  # fmt: skip
    found = apply_filter(frame, RULES)
    assert found["unknown"].map(len).sum() == 0
    expected = [
        one.kind == "stock" and one.code.endswith("0") and not states
        for one, states in zip(alive, frame["states"], strict=True)
    ]
    assert found["target"].tolist() == expected
    assert {reason for reasons in found["reasons"] for reason in reasons} >= {"etf", "etn", "reit", "preferred"}

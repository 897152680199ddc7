"""A rule speaks when what it watches changes, once, and says as of when, from where and how final; a split is no change."""

from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from holding import hold, know, number, split
from sqlalchemy import Connection, text

from chartinsight_lib.alerts import rules
from chartinsight_lib.alerts.alert import Alert, Level
from chartinsight_lib.domain import Flag
from chartinsight_lib.errors import ConfigError, NotFound

NOON = datetime.fromisoformat("2026-10-13T12:00+09:00")
RUNNING = int(Flag.PROVISIONAL)


@pytest.fixture(autouse=True)
def _one_instrument(conn: Connection) -> None:
    know(conn, "000010", "000020")


def add(
    conn: Connection, kind: str = "price", name: str = "mine", *, code: str | None = "000010", **parameters: Any
) -> rules.Listed:
    return rules.add(conn, kind, name, market="KRX", code=code, parameters=parameters, level=Level.INFO, now=NOON)


def bar(conn: Connection, day: str, close: float, flags: int = 0, code: str = "000010") -> None:
    hold(conn, code, {f"2026-10-{day}": (close, close, close, close, 1, None, flags)})


def seen(conn: Connection) -> list[Alert]:
    return rules.evaluate(conn, "KRX", NOON)


def subjects(conn: Connection) -> list[str]:
    return [alert.subject for alert in seen(conn)]


# Prices.


def test_a_price_that_crosses_a_level_is_told_once_and_not_while_it_stays_there(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above")
    assert subjects(conn) == []
    bar(conn, "13", 71_400, RUNNING)
    assert subjects(conn) == ["000010 name above 70,000 KRW: 71,400 KRW"]
    assert subjects(conn) == []
    bar(conn, "13", 72_000, RUNNING)
    assert subjects(conn) == []


def test_it_is_told_again_after_it_was_on_the_other_side(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above")
    told = []
    for close in (70_000, 69_999, 70_001):
        bar(conn, "13", close, RUNNING)
        told += seen(conn)
    assert [alert.subject[-10:] for alert in told] == ["70,000 KRW", "70,001 KRW"]
    assert len({alert.key for alert in told}) == 2, "each stands in the history"


def test_a_price_beyond_the_level_when_the_rule_is_added_has_crossed_nothing(conn):
    bar(conn, "12", 71_000)
    add(conn, level=70_000, direction="above")
    assert subjects(conn) == []
    bar(conn, "13", 72_000)
    assert subjects(conn) == []


def test_below_is_reached_from_above(conn):
    bar(conn, "12", 60_100)
    add(conn, level=60_000, direction="below")
    bar(conn, "13", 60_000, RUNNING)
    assert subjects(conn) == ["000010 name below 60,000 KRW: 60,000 KRW"]


def test_a_rule_on_final_closes_does_not_see_what_happens_in_between(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above", close="final")
    bar(conn, "13", 71_400, RUNNING)
    assert subjects(conn) == []
    bar(conn, "13", 70_500)
    assert subjects(conn) == ["000010 name above 70,000 KRW: 70,500 KRW"]


def test_days_that_came_all_at_once_are_looked_at_one_after_the_other(conn):
    bar(conn, "08", 69_000)
    add(conn, level=70_000, direction="above", close="final")
    bar(conn, "12", 71_000)
    bar(conn, "13", 69_500)
    (alert,) = seen(conn)
    assert "The final close of 2026-10-12 is 71,000 KRW" in alert.body


def test_it_says_how_final_the_price_is_as_of_when_and_from_where(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above")
    run = uuid4()
    bar(conn, "13", 71_400, RUNNING)
    conn.execute(text("UPDATE live.candles SET run_id = :run, source = 'kiwoom' WHERE ts = '2026-10-13'"), {"run": run})
    conn.execute(
        text("INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host)"
             " VALUES (:run, 'collect_quotes', '{}', 'succeeded', :at, '0', 'here')"), {"run": run, "at": NOON},
    )  # fmt: skip
    conn.execute(
        text("INSERT INTO ops.run_items (run_id, item, market, state, rows, finished_at)"
             " VALUES (:run, 'all', 'KRX', 'done', '{}', '2026-10-13T11:55+09:00')"), {"run": run},
    )  # fmt: skip
    (alert,) = seen(conn)
    assert alert.body.splitlines() == [
        "The running price of 2026-10-13, not final, is 71,400 KRW as of 2026-10-13 11:55 KST, source kiwoom; "
        "before, on 2026-10-12: 69,900.",
        "Rule mine.",
    ]
    assert (alert.standing, alert.level, alert.market) == (False, Level.INFO, "KRX")


def test_a_split_moves_the_level_along_and_crosses_nothing(conn):
    bar(conn, "12", 69_900)
    add(conn, "price", "up", level=70_000, direction="above")
    add(conn, "price", "down", level=60_000, direction="below")
    split(conn, "000010", ("2026-10-13", 0.02, 50.0, "split"))  # fifty for one
    bar(conn, "13", 1_398, RUNNING)  # 69,900 / 50
    assert subjects(conn) == []
    bar(conn, "13", 1_400, RUNNING)  # 70,000 / 50
    (alert,) = seen(conn)
    assert alert.subject == "000010 name above 1,400 KRW: 1,400 KRW"
    assert "The level was set at 70,000 on prices of 2026-10-12; corporate actions since moved it." in alert.body
    bar(conn, "13", 1_200, RUNNING)
    assert subjects(conn) == ["000010 name below 1,200 KRW: 1,200 KRW"]


def test_a_reverse_split_crosses_nothing_either(conn):
    bar(conn, "12", 699)
    add(conn, level=700, direction="above")
    split(conn, "000010", ("2026-10-13", 10.0, 0.1, "split"))
    bar(conn, "13", 6_990, RUNNING)
    assert subjects(conn) == []


def test_a_dividend_does_not_move_the_level(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above")
    split(conn, "000010", ("2026-10-13", 0.9, 1.0, "dividend"))
    bar(conn, "13", 69_000, RUNNING)
    assert subjects(conn) == []


def test_a_level_is_one_of_the_prices_that_a_chart_shows_when_it_is_set(conn):
    bar(conn, "12", 69_900)
    split(conn, "000010", ("2026-10-13", 0.5, 2.0, "split"))  # known before its day: the chart shows 34,950
    assert (
        add(conn, level=35_000, direction="above").says
        == "000010: the running price goes above 35,000 (prices of 2026-10-13)"
    )
    bar(conn, "13", 35_000, RUNNING)
    assert len(seen(conn)) == 1, "the bar before, 34,950 on that basis, was below it"


def test_after_a_corporate_action_of_unknown_size_the_rule_says_so_once_and_waits_until_it_is_known(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above")
    split(conn, "000010", ("2026-10-13", 1.0, 1.0, "unknown"))
    bar(conn, "13", 139_800, RUNNING)
    assert subjects(conn) == ["000010 name: the level of mine is of older prices"]
    assert subjects(conn) == []
    split(conn, "000010", ("2026-10-13", 2.0, 0.5, "split"))
    assert subjects(conn) == []
    bar(conn, "13", 140_000, RUNNING)
    assert subjects(conn) == ["000010 name above 140,000 KRW: 140,000 KRW"]


def test_a_rule_may_be_added_before_there_are_bars(conn):
    add(conn, level=70_000, direction="above")
    assert subjects(conn) == []
    bar(conn, "12", 69_900)
    assert subjects(conn) == []
    bar(conn, "13", 70_000)
    assert len(seen(conn)) == 1


# Scans.


def scanned(conn: Connection, day: str, **rows: dict[str, Any]) -> None:
    """Store a scan: {code with an x before it: what differs from a dull row}."""
    for code, told in rows.items():
        row = {"trend": 0, "trend_long": 0, "rsi": 50.0, "high": -10.0} | told
        conn.execute(
            text("""
                INSERT INTO radar.snapshot (as_of, timeframe, instrument_id, day, close, volume, trend, trend_bars, trend_long,
                                            high_52w_pct, bars_52w, rsi_14, bars, source, scanned_at, run_id)
                VALUES (:as_of, '1d', :id, :as_of, 100, 1, :trend, 1, :trend_long, :high, 252, :rsi, 300, 'test', :now, :run)
            """),
            {**row, "as_of": date.fromisoformat(f"2026-10-{day}"), "id": number(conn, code[1:]), "now": NOON, "run": UUID(int=1)},
        )  # fmt: skip


def test_a_trend_that_turns_between_two_scans_is_told_with_who_turned(conn):
    scanned(conn, "08", x000010={"trend": -1}, x000020={"trend": 1})
    add(conn, "trend", code=None, to="up")
    assert seen(conn) == []
    scanned(conn, "12", x000010={"trend": 1}, x000020={"trend": 1})
    (alert,) = seen(conn)
    assert alert.subject == "000010 name: the trend turns up"
    assert alert.body.splitlines() == [
        "000010 name: 100 KRW, final close of 2026-10-12",
        "Scan of 2026-10-12, source test; not so in the scan of 2026-10-08.",
        "Rule mine.",
    ]
    assert seen(conn) == []


def test_scans_that_came_all_at_once_are_compared_one_after_the_other(conn):
    scanned(conn, "08", x000010={"trend": 0})
    add(conn, "trend", code=None, to="down")
    scanned(conn, "12", x000010={"trend": -1})
    scanned(conn, "13", x000010={"trend": -1}, x000020={"trend": -1})
    assert [alert.key.rpartition(":")[2] for alert in seen(conn)] == ["2026-10-12"], "000020 was not scanned before"


def test_the_long_trend_is_another_one(conn):
    scanned(conn, "08", x000010={})
    add(conn, "trend", code="000010", to="up", of="trend_long")
    scanned(conn, "12", x000010={"trend": 1})
    scanned(conn, "13", x000010={"trend": 1, "trend_long": 1})
    assert subjects(conn) == ["000010 name: the long trend turns up"]


def test_a_scan_of_an_older_day_is_no_news(conn):
    scanned(conn, "12", x000010={"trend": 0})
    add(conn, "trend", code=None, to="up")
    scanned(conn, "08", x000010={"trend": 1})
    assert seen(conn) == []


def test_what_is_new_in_a_screen_is_told_and_what_stays_in_it_is_not(conn):
    where = [{"column": "rsi_14", "sign": "<", "value": 30}, {"column": "trend", "sign": "=", "value": 1}]
    scanned(conn, "08", x000010={"rsi": 29.0, "trend": 1}, x000020={"rsi": 29.0})
    add(conn, "screen", code=None, where=where)
    scanned(conn, "12", x000010={"rsi": 28.0, "trend": 1}, x000020={"rsi": 29.9, "trend": 1})
    assert subjects(conn) == ["000020 name: rsi_14 < 30 and trend = up"]
    scanned(conn, "13", x000010={"rsi": 28.0, "trend": 1}, x000020={"rsi": 30.0, "trend": 1})
    assert subjects(conn) == []


def test_an_instrument_that_was_not_in_the_scan_before_is_new(conn):
    scanned(conn, "08", x000010={})
    add(conn, "screen", code=None, where=[{"column": "high_52w_pct", "sign": ">=", "value": -1}])
    scanned(conn, "12", x000010={"high": -0.5}, x000020={"high": 0.0})
    assert subjects(conn) == ["2 instruments: high_52w_pct >= -1"]


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("sign", ["<", ">", "!="])
def test_a_number_that_is_missing_satisfies_nothing(conn, missing, sign):
    scanned(conn, "08", x000010={"rsi": 50.0}, x000020={})
    add(conn, "screen", code="000010", where=[{"column": "rsi_14", "sign": sign, "value": 50}])
    scanned(conn, "12", x000010={"rsi": missing}, x000020={})
    assert seen(conn) == []


def test_a_rule_added_before_the_first_scan_begins_with_it(conn):
    add(conn, "trend", code=None, to="up")
    scanned(conn, "08", x000010={"trend": 1})
    assert seen(conn) == []
    scanned(conn, "12", x000010={"trend": 0})
    scanned(conn, "13", x000010={"trend": 1})
    assert len(seen(conn)) == 1


# Rules.


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("price", {"level": 0, "direction": "above"}, "rule mine: level: Input should be greater than 0; found 0"),
        (
            "price",
            {"level": 1, "direction": "up"},
            "rule mine: direction: Input should be 'above' or 'below'; found 'up'",
        ),
        (
            "price",
            {"level": 1, "direction": "above", "levle": 2},
            "rule mine: levle: Extra inputs are not permitted; found 2",
        ),
        ("trend", {"to": "sideways"}, "rule mine: to: Input should be 'up' or 'down'"),
        ("screen", {"where": []}, "rule mine: where: Tuple should have at least 1 item"),
        (
            "screen",
            {"where": [{"column": "run_id", "sign": "=", "value": 1}]},
            "rule mine: where.0.column: Input should be",
        ),
        ("event", {}, "rule mine: there is no kind 'event'. Known are price, trend, screen"),
    ],
)
def test_parameters_that_are_not_those_of_the_kind_are_refused_with_what_was_found(conn, kind, parameters, says):
    with pytest.raises(ConfigError) as raised:
        add(conn, kind, **parameters)
    assert says in str(raised.value)


def test_a_name_is_given_once_in_a_market_and_can_be_given_again_after_it_was_removed(conn):
    add(conn, level=1, direction="above")
    with pytest.raises(ConfigError, match="KRX has a rule mine already"):
        add(conn, level=2, direction="above")
    rules.remove(conn, "mine", market="KRX")
    add(conn, level=2, direction="above")
    with pytest.raises(NotFound, match="KRX has no rule other. It has mine"):
        rules.remove(conn, "other", market="KRX")


def test_an_instrument_that_is_not_there_is_refused(conn):
    with pytest.raises(NotFound, match="KRX has no instrument 999999"):
        add(conn, code="999999", level=1, direction="above")


def test_a_price_without_an_instrument_is_refused(conn):
    with pytest.raises(ConfigError, match="Name its code"):
        add(conn, code=None, level=1, direction="above")


def test_rules_are_listed_in_words(conn):
    bar(conn, "12", 100)
    add(conn, "price", "a", level=70_000, direction="above", close="final")
    add(conn, "trend", "b", code=None, to="up")
    add(conn, "screen", "c", code=None, where=[{"column": "trend", "sign": "!=", "value": -1}])
    assert [rule.says for rule in rules.listed(conn)] == [
        "000010: the final price goes above 70,000 (prices of 2026-10-12)",
        "any instrument: the trend turns up",
        "any instrument: new where trend != down",
    ]


def test_a_stored_rule_that_cannot_be_read_is_told_and_the_others_are_looked_at(conn):
    bar(conn, "12", 69_900)
    add(conn, "price", "good", level=70_000, direction="above")
    add(conn, "price", "bad", level=70_000, direction="above")
    conn.execute(text("""UPDATE radar.alert_rules SET parameters = '{"level": "x"}' WHERE name = 'bad'"""))
    bar(conn, "13", 70_000)
    assert sorted(subjects(conn)) == ["000010 name above 70,000 KRW: 70,000 KRW", "The rule bad is broken"]


def test_a_rule_that_is_switched_off_says_nothing(conn):
    bar(conn, "12", 69_900)
    add(conn, level=70_000, direction="above")
    conn.execute(text("UPDATE radar.alert_rules SET enabled = false"))
    bar(conn, "13", 70_000)
    assert seen(conn) == []

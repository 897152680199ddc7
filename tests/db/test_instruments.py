"""Instruments and their dated history: who knows better, what was known when, and the universe of a day."""

from datetime import date
from typing import Any
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, text

from chartinsight_lib.db.instruments import (
    active,
    clear_strikes,
    instrument_ids,
    record_history,
    strike,
    universe_as_of,
    upsert_instruments,
)
from chartinsight_lib.db.rows import Changes
from chartinsight_lib.domain import INSTRUMENT

RUN, LATER_RUN = UUID(int=1), UUID(int=2)
MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY = (date(2026, 9, day) for day in (14, 15, 16, 17, 18))


def listed(*codes: str, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"code": list(codes)}).assign(
        market="KRX", name=[f"Name {code}" for code in codes], kind="stock", sector=None, listed_on=date(2020, 1, 2),
        delisted_on=None, currency="KRW",
    )  # fmt: skip
    return frame.assign(**columns)


def told(conn: Connection, frame: pd.DataFrame, day: date, *, source: str = "list", whole: bool = True) -> Changes:
    """Store a list as of a day, without looking at what it lacks."""
    changes = upsert_instruments(conn, frame, source=source, run_id=RUN, whole_market=whole)
    record_history(conn, instrument_ids(conn, "KRX").reindex(frame["code"]).tolist(), day)
    return changes


def one(conn: Connection, day: date, code: str = "000100") -> dict[str, Any]:
    return universe_as_of(conn, "KRX", day).set_index("code").loc[code].to_dict()


def history(conn: Connection) -> list[tuple[Any, ...]]:
    rows = conn.execute(
        text(
            "SELECT valid_from, valid_until, name, shares, states FROM api.instrument_history ORDER BY code, valid_from"
        )
    )
    return [tuple(row) for row in rows]


# What is held of an instrument.


def test_a_list_of_the_whole_market_knows_better_than_a_file(conn):
    told(conn, listed("000100", kind="etf", sector="KOSPI 화학", board="KOSPI", shares=10), MONDAY)
    file = listed("000100", name="another", kind="stock", listed_on=None, section="SPAC")
    assert told(conn, file, TUESDAY, source="file", whole=False) == Changes(updated=1)
    row = one(conn, TUESDAY)
    assert (row["name"], row["kind"], row["section"]) == (
        "Name 000100",
        "etf",
        "SPAC",
    )  # the file added what was not known
    assert told(conn, listed("000100", kind="reit"), WEDNESDAY) == Changes(updated=1)
    row = one(conn, WEDNESDAY)
    assert (row["kind"], row["sector"], row["shares"]) == ("reit", "KOSPI 화학", 10)  # what it does not know stays


def test_of_two_files_the_newer_stands_and_a_list_of_the_market_overrules_both(conn):
    told(conn, listed("000100", name="000100", kind="stock"), MONDAY, whole=False)
    told(conn, listed("000100", name="A", kind="fund"), MONDAY, whole=False)
    told(conn, listed("000100", name="000100", kind="other"), MONDAY, whole=False)
    assert (one(conn, MONDAY)["name"], one(conn, MONDAY)["kind"]) == ("A", "other")
    told(conn, listed("000100", name="B", kind="etf"), MONDAY)
    assert (one(conn, MONDAY)["name"], one(conn, MONDAY)["kind"]) == ("B", "etf")


def test_a_list_that_calls_everything_a_stock_does_not_overrule_one_that_knows_kinds(conn):
    told(conn, listed("000100", kind="reit"), MONDAY, source="knows")
    told(conn, listed("000100", kind="stock"), TUESDAY, source="plain")
    assert one(conn, TUESDAY)["kind"] == "reit"
    told(conn, listed("000200", kind="stock"), MONDAY, source="plain")
    told(conn, listed("000200", kind="etf"), TUESDAY, source="knows")
    assert one(conn, TUESDAY, "000200")["kind"] == "etf"
    told(conn, listed("000300", kind="etf"), MONDAY, source="knows")
    told(conn, listed("000300", kind="stock"), TUESDAY, source="knows")  # it corrects itself
    assert one(conn, TUESDAY, "000300")["kind"] == "stock"


def test_a_file_cannot_delist_what_a_list_of_the_market_has(conn):
    told(conn, listed("000100"), MONDAY)
    told(conn, listed("000100", delisted_on=MONDAY), MONDAY, source="file", whole=False)
    assert one(conn, FRIDAY)["delisted_on"] is None
    told(conn, listed("000200", delisted_on=MONDAY), MONDAY, source="file", whole=False)
    assert universe_as_of(conn, "KRX", FRIDAY)["code"].tolist() == ["000100"]


def test_only_what_a_source_itself_has_listed_can_be_missed_by_it(conn):
    told(conn, listed("000100", "000200"), MONDAY, source="one")
    told(conn, listed("000200"), MONDAY, source="two")
    told(conn, listed("000300"), MONDAY, source="file", whole=False)
    assert active(conn, "KRX", "one").index.tolist() == ["000100", "000200"]
    assert active(conn, "KRX", "two").index.tolist() == ["000200"]
    assert active(conn, "KRX", "file").empty


# History.


def test_history_gets_a_row_when_something_changes_and_none_when_told_again(conn):
    usual = listed("000100", shares=100, states=[[]], board="KOSPI")
    told(conn, usual, MONDAY)
    for day in (MONDAY, TUESDAY, WEDNESDAY):
        assert told(conn, usual, day) == Changes(unchanged=1)
    told(conn, usual.assign(shares=500), THURSDAY)
    told(conn, usual.assign(shares=500, states=[["halted"]]), FRIDAY)
    assert history(conn) == [
        (MONDAY, THURSDAY, "Name 000100", 100, []),
        (THURSDAY, FRIDAY, "Name 000100", 500, []),
        (FRIDAY, None, "Name 000100", 500, ["halted"]),
    ]


def test_a_second_state_of_a_day_replaces_the_first(conn):
    told(conn, listed("000100", name="old"), MONDAY)
    told(conn, listed("000100", name="a slip"), TUESDAY)
    told(conn, listed("000100", name="new"), TUESDAY)
    assert [(row[0], row[2]) for row in history(conn)] == [(MONDAY, "old"), (TUESDAY, "new")]


def test_a_list_of_an_earlier_day_changes_no_later_state(conn):
    told(conn, listed("000100", name="late"), THURSDAY)
    told(conn, listed("000100", name="early"), TUESDAY)
    assert one(conn, WEDNESDAY)["name"] == "early"
    assert one(conn, FRIDAY)["name"] == "late"


# The universe of a day.


def test_the_universe_of_a_day_has_the_states_of_that_day(conn):
    before = listed("000100", shares=100, states=[[]], board="KOSDAQ", section="벤처기업부", nxt_enabled=False)
    told(conn, before, MONDAY)
    told(conn, before.assign(board="KOSPI", section=None, shares=300, states=[["administrative"]]), WEDNESDAY)
    assert one(conn, TUESDAY) | {"close": 0} == {
        "market": "KRX", "name": "Name 000100", "kind": "stock", "board": "KOSDAQ", "sector": one(conn, MONDAY)["sector"],
        "section": "벤처기업부", "shares": 100, "states": [], "nxt_enabled": False, "listed_on": date(2020, 1, 2),
        "delisted_on": None, "close": 0, "known_from": MONDAY, "certain": True,
    }  # fmt: skip
    later = one(conn, FRIDAY)
    assert (later["board"], later["shares"], later["states"]) == ("KOSPI", 300, ["administrative"])
    assert later["section"] == "벤처기업부"  # a blank takes nothing away


def test_what_was_told_first_on_a_later_day_is_listed_before_but_its_attributes_are_not_known(conn):
    told(conn, listed("000100", shares=100, states=[[]], board="KOSPI"), WEDNESDAY)
    frame = universe_as_of(conn, "KRX", MONDAY)
    assert (frame["code"].tolist(), frame["certain"].tolist()) == (["000100"], [False])
    assert (
        frame[["name", "kind", "board", "sector", "section", "shares", "states", "nxt_enabled"]].isna().all(axis=None)
    )
    assert frame[["listed_on", "known_from"]].iloc[0].tolist() == [date(2020, 1, 2), WEDNESDAY]
    assert universe_as_of(conn, "KRX", date(2020, 1, 1)).empty
    assert universe_as_of(conn, "KRX", date(2020, 1, 2))["code"].tolist() == ["000100"]


def test_an_instrument_is_in_the_universe_from_its_first_day_up_to_its_delisting(conn):
    told(conn, listed("000100", listed_on=WEDNESDAY, delisted_on=FRIDAY), MONDAY)
    told(conn, listed("000200", listed_on=None), MONDAY)
    days = {day: universe_as_of(conn, "KRX", day)["code"].tolist() for day in (MONDAY, TUESDAY, WEDNESDAY, FRIDAY)}
    assert days == {MONDAY: ["000200"], TUESDAY: ["000200"], WEDNESDAY: ["000100", "000200"], FRIDAY: ["000200"]}


def test_without_a_listing_date_the_first_bar_tells_since_when_there_is_something(conn):
    told(conn, listed("000100", "000200", listed_on=None), FRIDAY)
    first, second = (int(number) for number in instrument_ids(conn, "KRX"))
    conn.execute(
        text("""
            INSERT INTO live.candles VALUES
            (:first, '1d', '2026-09-15T00:00Z', 10, 11, 9, 10, 5, NULL, 0, 'test', :run),
            (:first, '1d', '2026-09-16T00:00Z', 12, 12, 12, 12, 5, NULL, 1, 'test', :run)
        """),
        {"first": first, "run": RUN},
    )
    assert universe_as_of(conn, "KRX", MONDAY).empty
    frame = universe_as_of(conn, "KRX", WEDNESDAY)
    assert frame[["certain", "close"]].to_dict("index") == {
        first: {"certain": False, "close": 10.0}
    }  # 12 is provisional
    assert universe_as_of(conn, "KRX", FRIDAY)["close"].isna().to_dict() == {first: False, second: True}


def test_an_empty_market_is_an_empty_universe(conn):
    frame = universe_as_of(conn, "KRX", MONDAY)
    assert frame.empty
    assert {"code", "states", "known_from", "certain", "close"} <= set(frame.columns)


# Strikes.


def test_strikes_are_counted_once_a_day_and_delist_on_the_first_absent_day(conn):
    told(conn, listed("000100", "000200"), MONDAY)
    first, second = (int(number) for number in instrument_ids(conn, "KRX"))

    def struck(ids: list[int], day: date) -> list[int]:
        return strike(conn, ids, day, source="list", run_id=LATER_RUN)

    assert struck([first, second], TUESDAY) == []
    assert struck([first], TUESDAY) == []
    assert struck([first], MONDAY) == []  # a clock that went back
    clear_strikes(conn, [second])
    assert struck([first, second], THURSDAY) == [first]
    found = conn.execute(text("SELECT code, delisted_on, absent_since FROM api.instruments ORDER BY code")).all()
    assert found == [("000100", TUESDAY, TUESDAY), ("000200", None, THURSDAY)]


def test_what_a_list_has_again_is_listed_again_and_the_time_between_is_kept(conn):
    told(conn, listed("000100"), MONDAY)
    number = int(instrument_ids(conn, "KRX")["000100"])
    for day in (TUESDAY, WEDNESDAY):
        strike(conn, [number], day, source="list", run_id=RUN)
    record_history(conn, [number], WEDNESDAY)
    assert told(conn, listed("000100"), FRIDAY) == Changes(updated=1)
    days = {day: len(universe_as_of(conn, "KRX", day)) for day in (MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY)}
    # On Tuesday nobody knew yet that it was gone.
    assert days == {MONDAY: 1, TUESDAY: 1, WEDNESDAY: 0, THURSDAY: 0, FRIDAY: 1}


def test_the_columns_of_a_list_are_all_that_a_source_needs(conn):
    plain = listed("000100")[INSTRUMENT]
    assert upsert_instruments(conn, plain, source="file", run_id=RUN) == Changes(inserted=1)
    assert upsert_instruments(conn, plain, source="file", run_id=LATER_RUN) == Changes(unchanged=1)

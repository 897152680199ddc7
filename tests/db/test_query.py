"""What is held, and where instruments are found."""

import math
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest
from holding import NOON, hold, know, number, split
from sqlalchemy import Connection, text

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db import query
from chartinsight_lib.errors import NotFound


@pytest.fixture
def held(conn: Connection) -> Connection:
    """One instrument with two days and a split, one without a bar."""
    know(conn, "AAPL", "OTHER")
    flat = (50, 50, 50, 50, 1, math.nan, 0)
    hold(conn, "AAPL", {"2024-08-02": (100, 100, 100, 100, 1, math.nan, 0), "2024-08-05": flat})
    split(conn, "AAPL", ("2024-08-05", 0.5, 2.0, "split"))
    return conn


# Finding instruments.


def test_an_instrument_is_found_by_its_code_and_by_its_id(held):
    found = query.find_instrument(held, "AAPL")
    assert (found.market, found.code, found.name, found.currency) == ("KRX", "AAPL", "name", "KRW")
    assert query.instrument(held, found.id) == found


def test_a_code_that_two_markets_know_needs_the_market(held):
    know(held, "AAPL", market="US")
    with pytest.raises(NotFound, match="AAPL: known in the markets KRX, US. Name one of them"):
        query.find_instrument(held, "AAPL")
    assert query.find_instrument(held, "AAPL", "US").market == "US"


@pytest.mark.parametrize(
    ("market", "says"), [(None, "000000: no such instrument. "), ("US", "000000: no such instrument in US. ")]
)
def test_a_code_that_nobody_knows_is_an_error_that_says_where_to_look(held, market, says):
    with pytest.raises(NotFound) as raised:
        query.find_instrument(held, "000000", market)
    assert str(raised.value).startswith(says)
    assert "api.radar" in str(raised.value)


def test_an_id_that_nobody_has_is_an_error(held):
    with pytest.raises(NotFound, match="instrument -1"):
        query.instrument(held, -1)


# What is held.


def test_health_counts_what_is_held(conn):
    know(conn, "A", "B", "C", "NONE")
    hold(conn, "A", {"2024-08-01": (1, 1, 1, 1, 1, math.nan, 0), "2024-08-02": (1, 1, 1, 1, 1, math.nan, 1)})
    hold(conn, "B", {"2024-08-01": (1, 1, 1, 1, 1, math.nan, 0)}, source="another")
    hold(conn, "C", {"2024-07-31": (1, 1, 1, 1, 1, math.nan, 1), "2024-08-01": (1, 1, 1, 1, 1, math.nan, 0)})
    assert query.health(conn, "KRX") == {
        "source": "another, test",
        "last_bar": date(2024, 8, 2),
        "instruments": 4,
        "provisional": 1,  # of A; an old one of C is no newest bar
        "simulated": False,
        "as_of": None,
        "scanned": 0,
        "scanned_at": None,
        "run_id": None,
        "complete": None,
        "missing": 0,
        "late": 0,
        "collected_at": None,
    }
    found = conn.execute(
        text("SELECT source, instruments, bars, first_day, last_day, provisional FROM api.health ORDER BY source")
    ).all()
    assert found == [
        ("another", 1, 1, date(2024, 8, 1), date(2024, 8, 1), 0),
        ("test", 2, 4, date(2024, 7, 31), date(2024, 8, 2), 2),
    ]
    hold(conn, "NONE", {"2024-07-01": (1, 1, 1, 1, 1, math.nan, 0)}, source="simulator")
    assert query.health(conn, "KRX")["simulated"] is True


def test_health_of_a_market_without_bars_is_empty(conn):
    know(conn, "A")
    found = query.health(conn, "KRX")
    assert (found["source"], found["last_bar"], found["instruments"], found["simulated"]) == ("", None, 1, False)


def test_the_last_final_day_is_the_newest_of_any_instrument(conn):
    assert query.last_final_day(conn, "KRX") is None
    know(conn, "A", "B")
    know(conn, "C", market="US")
    assert query.last_final_day(conn, "KRX") is None
    hold(conn, "A", {"2024-08-01": (1, 1, 1, 1, 1, math.nan, 0), "2024-08-05": (1, 1, 1, 1, 1, math.nan, 1)})
    assert query.last_final_day(conn, "KRX") == date(2024, 8, 1)
    hold(conn, "B", {"2024-08-02": (1, 1, 1, 1, 1, math.nan, 4)})
    hold(conn, "C", {"2024-08-06": (1, 1, 1, 1, 1, math.nan, 0)}, market="US")
    assert query.last_final_day(conn, "KRX") == date(2024, 8, 2)


def collect(conn: Connection, day: int, market: str, *codes: str, source: str) -> None:
    """What a collection leaves: a run, its instruments, and its record of them."""
    run_id, clock = uuid4(), fixed_clock(NOON + timedelta(days=day))
    ledger.begin(conn, run_id=run_id, job="sync_instruments", parameters={}, clock=clock)
    know(conn, *codes, market=market, source=source, run_id=run_id)
    ledger.record_item(conn, run_id, source, rows={"read": len(codes)}, clock=clock, market=market)
    ledger.finish(conn, run_id, state="succeeded", clock=clock)


def markets_after(conn: Connection, *collections: tuple[Any, ...]) -> list[str]:
    for day, (market, source, *codes) in enumerate(collections):
        collect(conn, day, market, *codes, source=source)
    return query.markets(conn)


def test_markets_come_the_one_collected_last_first(conn):
    assert query.markets(conn) == []
    assert markets_after(conn, ("US", "sample", "AAPL"), ("KRX", "files:krx.csv", "005930")) == ["KRX", "US"]


def test_a_market_is_collected_last_also_when_nothing_of_it_had_changed(conn):
    found = markets_after(
        conn, ("US", "sample", "AAPL", "IBM"), ("KRX", "files:krx.csv", "005930"), ("US", "sample", "AAPL", "IBM")
    )
    assert found == ["US", "KRX"]


def test_provenance_names_the_sources_and_counts_the_splits(held):
    assert query.provenance(held, number(held, "AAPL")) == ("test", 1)
    hold(held, "AAPL", {"2024-08-07": (54, 54, 54, 54, 1, math.nan, 0)}, source="another")
    split(held, "AAPL", ("2024-08-06", 0.99, 1.0, "dividend"))
    assert query.provenance(held, number(held, "AAPL")) == ("another, test", 1)
    assert query.provenance(held, number(held, "OTHER")) == ("", 0)

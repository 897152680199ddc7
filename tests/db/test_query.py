"""What is read: bars of any timeframe as known on a day, splits undone; the same through the views; and what is held."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Connection, text

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db import bars, query, store
from chartinsight_lib.db.factors import upsert_factors
from chartinsight_lib.db.instruments import instrument_ids, upsert_instruments
from chartinsight_lib.domain import CANDLE, FACTOR, INSTRUMENT, NUMBERS, Flag
from chartinsight_lib.errors import NotFound

RUN = UUID(int=1)
NOW = datetime(2024, 8, 20, 12, tzinfo=UTC)
NOON = datetime(2024, 8, 5, 12, tzinfo=UTC)


def know(conn: Connection, *codes: str, market: str = "KRX", source: str = "test", run_id: UUID = RUN) -> None:
    frame = pd.DataFrame({"code": codes}).assign(
        market=market, name="name", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
    )
    upsert_instruments(conn, frame[INSTRUMENT], source=source, run_id=run_id)


def number(conn: Connection, code: str, market: str = "KRX") -> int:
    return int(instrument_ids(conn, market)[code])


def hold(conn: Connection, code: str, bars: dict[str, tuple], *, market: str = "KRX", source: str = "test") -> None:
    """Store bars given as {day: (open, high, low, close, volume, value, flags)}."""
    frame = pd.DataFrame([(code, day, *row) for day, row in bars.items()], columns=CANDLE)
    kinds = dict.fromkeys(["open", "high", "low", "close", "value"], "float64") | {"volume": "int64", "flags": "int16"}
    frame = frame.assign(ts=pd.to_datetime(frame["ts"], utc=True)).astype(kinds)
    store.stage_candles(conn, frame, instrument_ids(conn, market))
    store.upsert_staged(conn, "1d", source=source, run_id=RUN, now=NOW)


def split(conn: Connection, code: str, *events: tuple[str, float, float, str]) -> None:
    """Know corporate actions: (ex-date, price factor, volume factor, kind)."""
    rows = [(code, date.fromisoformat(day), *rest) for day, *rest in events]
    upsert_factors(
        conn, pd.DataFrame(rows, columns=FACTOR), instrument_ids(conn, "KRX"), source="test", detected_at=NOON,
        run_id=RUN,
    )  # fmt: skip


def said(frame: pd.DataFrame) -> dict[str, tuple]:
    assert list(frame.columns) == [*NUMBERS, "flags"]
    assert str(frame.index.tz) == "UTC"
    return {f"{ts:%Y-%m-%d}": tuple(row) for ts, row in zip(frame.index, frame.itertuples(index=False), strict=True)}


# Thursday 1 August 2024 to Tuesday 6 August; Wednesday 31 July before it. Split 2:1 with ex-date Monday 5 August.
RAW = {
    "2024-07-31": (98, 101, 97, 100, 1000, 99_000.0, 0),
    "2024-08-01": (100, 110, 96, 108, 2000, 210_000.0, int(Flag.WIDENED)),
    "2024-08-02": (108, 108, 99, 100, 1500, 150_000.0, 0),
    "2024-08-05": (50, 52, 49, 51, 3001, 153_000.0, 0),
    "2024-08-06": (51, 55, 50, 54, 4000, 212_000.0, 0),
}
ADJUSTED = {
    "2024-07-31": (49, 50.5, 48.5, 50, 2000, 99_000.0, 0),
    "2024-08-01": (50, 55, 48, 54, 4000, 210_000.0, int(Flag.WIDENED)),
    "2024-08-02": (54, 54, 49.5, 50, 3000, 150_000.0, 0),
    "2024-08-05": RAW["2024-08-05"],
    "2024-08-06": RAW["2024-08-06"],
}


@pytest.fixture
def held(conn: Connection) -> Connection:
    know(conn, "AAPL", "OTHER")
    hold(conn, "AAPL", RAW)
    split(conn, "AAPL", ("2024-08-05", 0.5, 2.0, "split"))
    return conn


# One instrument.


def test_a_split_is_undone_in_price_and_volume_and_not_in_value(held):
    assert said(bars.candles(held, number(held, "AAPL"))) == ADJUSTED


def test_a_dividend_is_not_undone(held):
    split(held, "AAPL", ("2024-08-06", 0.99, 1.0, "dividend"))
    assert said(bars.candles(held, number(held, "AAPL"))) == ADJUSTED


def test_weeks_are_made_of_undone_days(held):
    assert said(bars.candles(held, number(held, "AAPL"), "1w")) == {
        "2024-07-29": (49, 55, 48, 50, 9000, 459_000.0, Flag.WIDENED),
        "2024-08-05": (50, 55, 49, 54, 7001, 365_000.0, Flag.PROVISIONAL),
    }


def test_months_are_made_of_undone_days(held):
    assert said(bars.candles(held, number(held, "AAPL"), "1mo")) == {
        "2024-07-01": (49, 50.5, 48.5, 50, 2000, 99_000.0, 0),
        "2024-08-01": (50, 55, 48, 54, 14_001, 725_000.0, Flag.WIDENED | Flag.PROVISIONAL),
    }


def test_a_day_in_the_past_knows_no_later_bar_and_no_later_split(held):
    days = list(RAW)
    found = bars.candles(held, number(held, "AAPL"), as_of=date(2024, 8, 2))
    assert said(found) == {day: RAW[day] for day in days[:3]}


def test_the_day_of_a_split_knows_it(held):
    found = bars.candles(held, number(held, "AAPL"), as_of=date(2024, 8, 5))
    assert said(found) == {day: ADJUSTED[day] for day in list(RAW)[:4]}


def test_a_week_as_of_a_day_in_it_ends_there_and_is_unfinished(held):
    found = said(bars.candles(held, number(held, "AAPL"), "1w", as_of=date(2024, 8, 1)))
    assert found == {"2024-07-29": (98, 110, 96, 108, 3000, 309_000.0, Flag.WIDENED | Flag.PROVISIONAL)}


def test_two_splits_multiply_and_volume_is_rounded_once(conn):
    know(conn, "AAPL")
    hold(conn, "AAPL", {"2024-08-01": (90, 90, 90, 90, 101, math.nan, 0), "2024-08-02": (60, 60, 60, 60, 10, math.nan, 0),
                        "2024-08-05": (48, 48, 48, 48, 10, math.nan, 0)})  # fmt: skip
    split(conn, "AAPL", ("2024-08-02", 2 / 3, 1.5, "split"), ("2024-08-05", 0.8, 1.25, "split"))
    found = bars.candles(conn, number(conn, "AAPL"))
    assert found["close"].tolist() == pytest.approx([48, 48, 48], rel=1e-12)
    assert found["volume"].tolist() == [
        189,
        13,
        10,
    ]  # 101 * 1.875 = 189.375, 10 * 1.25 = 12.5, a half goes up as at Kiwoom


def test_an_instrument_without_bars_gives_an_empty_frame_in_every_timeframe(held):
    for timeframe in ("1d", "1w", "1mo"):
        assert said(bars.candles(held, number(held, "OTHER"), timeframe)) == {}


def test_an_unknown_timeframe_is_an_error(held):
    with pytest.raises(NotFound, match="'7d'"):
        bars.candles(held, number(held, "AAPL"), "7d")


def test_provenance_names_the_sources_and_counts_the_splits(held):
    assert query.provenance(held, number(held, "AAPL")) == ("test", 1)
    hold(held, "AAPL", {"2024-08-07": (54, 54, 54, 54, 1, math.nan, 0)}, source="another")
    split(held, "AAPL", ("2024-08-06", 0.99, 1.0, "dividend"))
    assert query.provenance(held, number(held, "AAPL")) == ("another, test", 1)
    assert query.provenance(held, number(held, "OTHER")) == ("", 0)


# The views, and all instruments at once.


@pytest.fixture
def many(conn: Connection) -> Connection:
    """Ten instruments of up to 60 days made by chance, with up to three splits and some unfinished ends."""
    chance = np.random.default_rng(20240805)
    codes = [f"{k:06}" for k in range(10)]
    know(conn, *codes)
    know(conn, "US1", market="US")
    for k, code in enumerate(codes[:9]):  # the tenth has no bar
        days = pd.bdate_range("2024-05-01", periods=60)[chance.random(60) < 0.9]
        bars = {}
        for n, day in enumerate(days):
            low, opened, close, high = np.sort(chance.integers(900, 1100, 4)).tolist()
            flags = int(Flag.PROVISIONAL) if k % 3 == 0 and n == len(days) - 1 else 0
            value = math.nan if k % 2 else float(close * 1000)
            bars[f"{day:%Y-%m-%d}"] = (opened, high, low, close, int(chance.integers(0, 10**9)), value, flags)
        hold(conn, code, bars)
        events = [(2 / 3, 1.5), (0.2, 5.0), (10.0, 0.1)][: k % 4]
        split(conn, code, *((f"{days[10 * (n + 1)]:%Y-%m-%d}", *event, "split") for n, event in enumerate(events)))
        split(conn, code, (f"{days[5]:%Y-%m-%d}", 0.97, 1.0, "dividend"))
    hold(conn, "US1", {"2024-06-03": (1, 1, 1, 1, 1, math.nan, 0)}, market="US")
    return conn


def view(conn: Connection, name: str) -> pd.DataFrame:
    columns = f"code, ts, {', '.join(NUMBERS)}, flags, final"
    rows = conn.execute(text(f"SELECT {columns} FROM api.{name} WHERE market = 'KRX' ORDER BY code, ts"))
    return pd.DataFrame(rows.all(), columns=list(rows.keys())).astype({"value": "float64"})


def test_the_view_of_candles_equals_what_the_program_reads_row_by_row(many):
    found = view(many, "candles")
    ids = instrument_ids(many, "KRX").sort_index()
    own = pd.concat([bars.candles(many, int(k)).assign(code=code) for code, k in ids.items()])
    assert len(found) == len(own) > 400
    assert found["code"].tolist() == own["code"].tolist()
    assert found["ts"].tolist() == own.index.tolist()
    for name in ("volume", "flags"):
        assert found[name].tolist() == own[name].tolist()
    for name in ("open", "high", "low", "close"):
        np.testing.assert_allclose(found[name], own[name], rtol=1e-14)
    np.testing.assert_array_equal(found["value"], own["value"])
    assert found["final"].tolist() == [not flags & Flag.PROVISIONAL for flags in own["flags"]]


def test_the_raw_view_is_what_was_stored(held):
    found = view(held, "candles_raw")
    assert [tuple(row) for row in found[[*NUMBERS, "flags"]].itertuples(index=False)] == list(RAW.values())
    assert not found.empty and found["final"].all()


@pytest.mark.parametrize("as_of", [None, date(2024, 5, 1), date(2024, 5, 31), date(2024, 6, 9), date(2024, 7, 23)])
@pytest.mark.parametrize("final_only", [True, False])
def test_the_panel_equals_the_candles_of_each_instrument(many, as_of, final_only):
    panel = bars.panel(many, "KRX", as_of=as_of, final_only=final_only)
    ids = sorted(int(k) for k in instrument_ids(many, "KRX"))
    expected = {k: bars.candles(many, k, as_of=as_of) for k in ids}
    if final_only:
        expected = {k: one[(one["flags"] & int(Flag.PROVISIONAL)) == 0] for k, one in expected.items()}
    expected = {k: one for k, one in expected.items() if not one.empty}
    assert panel.ids.tolist() == list(expected)
    assert panel.bounds.tolist() == np.cumsum([0, *map(len, expected.values())]).tolist()
    for place, one in enumerate(expected.values()):
        rows = panel.rows(place)
        assert panel.ts[rows].tolist() == one.index.tolist()
        for name in NUMBERS:
            np.testing.assert_array_equal(panel.columns[name][rows], one[name])
    if as_of is None:
        dropped = len(bars.panel(many, "KRX", final_only=False).ts) - len(bars.panel(many, "KRX").ts)
        assert dropped == 3  # the unfinished ends of the instruments 0, 3 and 6


def test_the_panel_of_an_empty_market_is_empty(many):
    panel = bars.panel(many, "NONE")
    assert (len(panel.ids), panel.bounds.tolist(), len(panel.ts)) == (0, [0], 0)


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

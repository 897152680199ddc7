"""A scan says what can be worked out by hand, refuses stale data, and never takes back what it said of a day."""

import dataclasses
import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients import open_source
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clock import Clock, fixed_clock
from chartinsight_lib.collect import collect_daily
from chartinsight_lib.db import query, stage, store
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.factors import upsert_factors
from chartinsight_lib.db.instruments import instrument_ids, upsert_instruments
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import CANDLE, FACTOR, INSTRUMENT, NUMBERS, Flag
from chartinsight_lib.errors import BeyondHorizon, ConfigError, NotEnoughHistory, NotFound
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.radar import Radar, Scan, Status, scan, scan_market
from chartinsight_lib.widgets.scanner import table_values

RUN = UUID(int=1)
NOW = datetime(2024, 8, 20, 12, tzinfo=UTC)
LAST = date(2024, 8, 2)  # a Friday
NEXT_MONDAY = fixed_clock(datetime(2024, 8, 5, 9, tzinfo=UTC))  # 18:00 in Seoul


def know(engine: Engine, *codes: str, market: str = "KRX") -> dict[str, int]:
    frame = pd.DataFrame({"code": codes}).assign(
        market=market, name=[f"Name {code}" for code in codes], kind="stock", sector=None, listed_on=None,
        delisted_on=None, currency="KRW" if market == "KRX" else "USD",
    )  # fmt: skip
    with engine.begin() as conn:
        upsert_instruments(conn, frame[INSTRUMENT], source="test", run_id=RUN)
        return {code: int(number) for code, number in instrument_ids(conn, market).items()}


def hold(engine: Engine, code: str, bars: Iterable[tuple], *, market: str = "KRX") -> None:
    """Store bars (day, open, high, low, close, volume, value, flags)."""
    frame = pd.DataFrame([(code, *bar) for bar in bars], columns=CANDLE)
    kinds = dict.fromkeys(["open", "high", "low", "close", "value"], "float64") | {"volume": "int64", "flags": "int16"}
    frame = frame.assign(ts=pd.to_datetime(frame["ts"], utc=True)).astype(kinds)
    with engine.begin() as conn:
        staged = stage.stage_candles(conn, frame, instrument_ids(conn, market), "1d")
        stage.upsert_staged(conn, staged, source="test", run_id=RUN, now=NOW)


def flat(days: Iterable[Any], close: float = 100.0, *, flags: int = 0) -> list[tuple]:
    return [(f"{day:%Y-%m-%d}", close, close + 1, close - 1, close, 10, math.nan, flags) for day in days]


def until(last: date, count: int) -> pd.DatetimeIndex:
    return pd.bdate_range(end=last, periods=count)


def scanned(engine: Engine, as_of: date | None = None, *, clock: Clock = NEXT_MONDAY, market: str = "KRX") -> Scan:
    return scan(engine, market=market, as_of=as_of, clock=clock, run_id=RUN)


def row_of(found: Scan, code: str) -> dict[str, Any]:
    (row,) = found.snapshot[found.snapshot["code"] == code].to_dict("records")
    return row


# What a scan says.


def test_a_scan_says_what_can_be_worked_out_by_hand(loader):
    know(loader, "A", "B", "NEW", "NONE")
    days = until(LAST, 300)
    bars = flat(days)
    # The highest high of a year: 150 on the first of the last 252 bars, 400 just before them.
    bars[300 - 253] = (f"{days[300 - 253]:%Y-%m-%d}", 100, 400, 99, 100, 10, math.nan, 0)
    bars[300 - 252] = (f"{days[300 - 252]:%Y-%m-%d}", 100, 150, 99, 100, 10, math.nan, 0)
    bars[-1] = (f"{LAST}", 100, 125, 100, 120, 77, 9_000.0, 0)
    hold(loader, "A", bars)
    hold(loader, "B", flat(until(date(2024, 7, 31), 60)))  # has not traded since
    hold(loader, "NEW", [("2024-08-01", 50, 51, 49, 50, 1, math.nan, 0)])

    found = scanned(loader)
    assert found.as_of == LAST
    assert found.snapshot["code"].tolist() == ["A", "B", "NEW"]
    assert found.changes == store.Changes(inserted=3)
    row = row_of(found, "A")
    assert (row["day"], row["close"], row["volume"], row["value"]) == (LAST, 120, 77, 9_000)
    assert row["change_pct"] == pytest.approx(20.0)
    assert (row["high_52w"], row["high_52w_pct"]) == (150, pytest.approx(-20.0))
    assert (row["bars"], row["bars_52w"]) == (300, 252)
    assert row["sma_20"] == pytest.approx((19 * 100 + 120) / 20)
    assert row["rsi_14"] == 100  # it has risen once and never fallen
    assert row["atr_14"] == pytest.approx((13 * range_of_a() + 25) / 14)
    assert (row["trend"], row["trend_long"]) == (0, 0)

    row = row_of(found, "B")
    assert (row["day"], row["change_pct"], row["high_52w_pct"]) == (
        date(2024, 7, 31),
        0,
        pytest.approx(100 * (100 / 101 - 1)),
    )
    assert math.isnan(row["rsi_14"])  # it never moved

    row = row_of(found, "NEW")
    assert (row["day"], row["bars"], row["bars_52w"], row["trend_bars"]) == (date(2024, 8, 1), 1, 1, 1)
    assert row["change_pct"] is None or math.isnan(row["change_pct"])
    assert all(math.isnan(row[name]) for name in ("high_52w", "high_52w_pct", "sma_20", "rsi_14", "atr_14"))


def range_of_a() -> float:
    """The average true range of A before its last bar, by Wilder's recursion in plain numbers."""
    ranges = [2.0] * 299  # of the bars after the first: high 101, low 99, close before 100
    ranges[300 - 253 - 1], ranges[300 - 252 - 1] = 301.0, 51.0
    average = sum(ranges[:14]) / 14
    for one in ranges[14:298]:
        average = (13 * average + one) / 14
    return average


def test_a_split_on_the_last_day_is_no_fall(loader):
    ids = know(loader, "A")
    hold(loader, "A", [*flat(until(date(2024, 8, 1), 40)), (f"{LAST}", 50, 51, 49, 51, 20, math.nan, 0)])
    with loader.begin() as conn:
        factors = pd.DataFrame([("A", LAST, 0.5, 2.0, "split")], columns=FACTOR)
        upsert_factors(
            conn, factors, pd.Series(ids), source="test", detected_at=datetime(2024, 8, 5, tzinfo=UTC), run_id=RUN
        )
    assert row_of(scanned(loader), "A")["change_pct"] == pytest.approx(2.0)
    assert row_of(scanned(loader, date(2024, 8, 1)), "A")["close"] == 100


def test_scanning_twice_changes_nothing(loader):
    know(loader, "A", "B", "NEW")
    for code, count in (("A", 300), ("B", 15), ("NEW", 1)):
        hold(loader, code, flat(until(LAST, count)))
    assert scanned(loader).changes == store.Changes(inserted=3)
    later = fixed_clock(datetime(2024, 8, 5, 10, tzinfo=UTC))
    again = scan(loader, market="KRX", as_of=None, clock=later, run_id=UUID(int=2))
    assert again.changes == store.Changes(unchanged=3)
    hold(loader, "B", flat([LAST], 101.0))
    assert scanned(loader).changes == store.Changes(updated=1, unchanged=2)


def test_the_answer_of_a_notebook_lists_the_nearest_to_their_high(loader):
    know(loader, "A", "B", "NEW")
    hold(loader, "A", [*flat(until(date(2024, 8, 1), 40)), *flat([LAST], 90.0)])
    hold(loader, "B", flat(until(LAST, 40)))
    hold(loader, "NEW", flat([LAST]))
    found = scanned(loader).table(top=2)
    assert found["code"].tolist() == ["B", "A"]
    assert found["trend"].tolist() == ["sideways", "sideways"]


# Fresh or refused.


@pytest.mark.parametrize(
    ("now", "age"),
    [
        ("2024-08-02T18:00+09:00", None),  # the same day
        ("2024-08-05T23:59+09:00", None),  # the Monday after, in Seoul
        ("2024-08-06T08:59+09:00", None),  # on Tuesday morning Monday has only just become final
        ("2024-08-06T09:00+09:00", 2),
        ("2024-08-12T12:00+09:00", 6),
        ("2024-08-16T12:00+09:00", 9),  # Thursday was a holiday
    ],
)
def test_stale_data_are_refused_and_the_day_is_named(loader, now, age):
    know(loader, "A")
    hold(loader, "A", flat(until(LAST, 30)))
    clock = fixed_clock(datetime.fromisoformat(now))
    if age is None:
        assert scanned(loader, clock=clock).as_of == LAST
        return
    with pytest.raises(NotEnoughHistory, match=f"of 2024-08-02, {age} trading days old.*as_of=2024-08-02"):
        scanned(loader, clock=clock)
    assert scanned(loader, LAST, clock=clock).as_of == LAST


def test_a_holiday_makes_nothing_stale(loader):
    """Chuseok of 2024: after Friday the 13th the market opened again on Thursday the 19th."""
    know(loader, "A")
    hold(loader, "A", flat(until(date(2024, 9, 13), 30)))
    scanned(loader, clock=fixed_clock(datetime.fromisoformat("2024-09-19T12:00+09:00")))
    for now, stale in (("2024-09-19T12:00+09:00", False), ("2024-09-20T09:00+09:00", True)):
        found = Radar(loader, fixed_clock(datetime.fromisoformat(now))).status().stale
        assert (found is not None and "2 trading days old" in found) == stale


def test_on_the_day_of_the_entrance_exam_data_grow_old_an_hour_later(loader):
    know(loader, "A")
    hold(loader, "A", flat(until(date(2026, 11, 17), 30)))
    assert scanned(loader, clock=fixed_clock(datetime.fromisoformat("2026-11-19T09:59+09:00"))).as_of == date(
        2026, 11, 17
    )
    with pytest.raises(NotEnoughHistory, match="2 trading days old"):
        scanned(loader, clock=fixed_clock(datetime.fromisoformat("2026-11-19T10:00+09:00")))


def test_beyond_the_calendar_a_page_says_so_and_a_scan_wants_its_day_named(loader):
    know(loader, "A")
    hold(loader, "A", flat(until(LAST, 30)))
    clock = fixed_clock(datetime(2029, 1, 2, tzinfo=UTC))
    with pytest.raises(BeyondHorizon, match="2029-01-02 is not known.*update"):
        scanned(loader, clock=clock)
    assert scanned(loader, LAST, clock=clock).as_of == LAST
    assert "not known, only 1990-01-01 to 2028-12-31" in Radar(loader, clock).status().stale


def test_a_day_before_the_first_bar_is_refused(loader):
    know(loader, "A")
    hold(loader, "A", flat(until(LAST, 30)))
    with pytest.raises(NotEnoughHistory, match="no final bar is held up to 2020-01-01"):
        scanned(loader, date(2020, 1, 1))


def test_a_day_of_which_bars_are_still_to_come_is_refused(loader):
    """What would be said of it today would be taken back tomorrow; and it would stand before all newer scans."""
    know(loader, "A")
    hold(loader, "A", [*flat(until(LAST, 30)), *flat([date(2024, 8, 5)], flags=Flag.PROVISIONAL)])
    for day in (date(2024, 8, 5), date(2099, 1, 1)):
        with pytest.raises(NotEnoughHistory, match=f"as_of={day} .*2024-08-02"):
            scanned(loader, day)
    assert scanned(loader, date(2024, 7, 28)).as_of == date(2024, 7, 28)  # a Sunday long past can be named


def test_nothing_held_is_refused_with_what_to_do(loader):
    know(loader, "A")
    with pytest.raises(NotEnoughHistory, match="no final daily bar is held. Collect first"):
        scanned(loader)


def test_what_a_person_writes_is_a_market_and_a_day_or_nothing(loader):
    with pytest.raises(ConfigError, match="none; collect first"):
        scan_market(loader, market="", as_of="", clock=NEXT_MONDAY, run_id=RUN)
    know(loader, "A")
    hold(loader, "A", flat(until(LAST, 30)))
    with pytest.raises(ConfigError, match="'NYSE'. Held are KRX"):
        scan_market(loader, market="NYSE", as_of="", clock=NEXT_MONDAY, run_id=RUN)
    with pytest.raises(ConfigError, match="'last week' is no date"):
        scan_market(loader, market="KRX", as_of="last week", clock=NEXT_MONDAY, run_id=RUN)
    with ledger.notebook_run(loader, None, job="scan_radar", clock=NEXT_MONDAY) as run_id:
        found = scan_market(loader, market="", as_of="2024-08-01", clock=NEXT_MONDAY, run_id=run_id)
    assert (found.market, found.as_of) == ("KRX", date(2024, 8, 1))
    with loader.connect() as conn:
        item = conn.execute(text("SELECT item, rows FROM ops.run_items WHERE run_id = :run"), {"run": run_id}).one()
    assert tuple(item) == ("KRX 2024-08-01", {"read": 1, "inserted": 1, "updated": 0, "unchanged": 0})


# Unfinished bars, and no repaint.


def test_unfinished_bars_take_no_part_and_are_reported(loader):
    know(loader, "A", "B", "FORMING")
    hold(loader, "A", flat(until(LAST, 30)))
    hold(loader, "B", flat(until(LAST, 30)))
    before = scanned(loader).snapshot
    forming = date(2024, 8, 5)
    hold(loader, "A", flat([forming], 130.0, flags=Flag.PROVISIONAL))
    hold(loader, "FORMING", flat([forming], 130.0, flags=Flag.PROVISIONAL))
    after = scanned(loader)
    pd.testing.assert_frame_equal(after.snapshot, before)

    shown = Radar(loader, NEXT_MONDAY)
    assert shown.table().set_index("code")["provisional"].to_dict() == {"A": True, "B": False}
    status = shown.status()
    assert (status.provisional, status.as_of, status.last_bar) == (2, LAST, forming)
    assert (status.instruments, status.scanned) == (3, 2)


NOW_2013 = fixed_clock(datetime(2013, 3, 4, 21, 30, tzinfo=UTC))


@dataclasses.dataclass
class Until:
    """The sample as it was at the end of `last`."""

    last: date | None
    name: str = "sample"
    market: str = "US"
    raw: bool = False
    lists_whole_market: bool = False

    def instruments(self) -> pd.DataFrame:
        return open_source("sample").instruments()

    def provisional_from(self, today: date) -> None:
        return None

    def daily(self, held: Any) -> Any:
        for batch in open_source("sample").daily():
            records = batch.records
            kept = records if self.last is None else records[pd.to_datetime(records["date"]).dt.date <= self.last]
            if len(kept):
                yield Batch(batch.name, kept)


def refill(engine: Engine, source: Any) -> None:
    """Hold what the source has, and nothing else."""
    with engine.begin() as conn:
        for table in ("live.candles", "live.factors", "radar.snapshot", "ops.gaps", "ops.quarantine"):
            conn.execute(text(f"DELETE FROM {table}"))
    with ledger.notebook_run(engine, None, job="collect_daily", clock=NOW_2013) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=NOW_2013)
        collect_daily(engine, source, run_id=run_id, clock=NOW_2013).check()


def test_a_scan_of_the_past_equals_the_scan_that_was_made_then(loader):
    """With all data and with those up to the day: the same. One of the days is that of Apple's split of 2005."""
    days = [
        date(2000, 3, 20),
        date(2004, 8, 20),
        date(2005, 2, 28),
        date(2008, 10, 10),
        date(2012, 5, 18),
        date(2013, 3, 1),
    ]
    refill(loader, Until(None))
    on_all = [scanned(loader, day, clock=NOW_2013, market="US").snapshot for day in days]
    assert [len(one) for one in on_all] == [3, 4, 4, 4, 5, 5]  # Google came in August 2004, Facebook in May 2012
    for day, expected in zip(days, on_all, strict=True):
        refill(loader, Until(day))
        pd.testing.assert_frame_equal(scanned(loader, day, clock=NOW_2013, market="US").snapshot, expected)


@given(data=st.data())
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_scan_is_repainted_whatever_bars_come_later(loader, data):
    """A wandering price made by chance; the scan of a day before and after the later bars came."""
    seed, count = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(3, 120))
    cut = data.draw(st.integers(1, count - 1))
    chance = np.random.default_rng(seed)
    close = np.round(1000 * np.exp(np.cumsum(chance.normal(0, 0.05, count))), 2)
    opened = np.round(close * np.exp(chance.normal(0, 0.02, count)), 2)
    high = np.maximum(opened, close) + np.round(chance.exponential(5, count), 2)
    low = np.maximum(np.minimum(opened, close) - np.round(chance.exponential(5, count), 2), 0.01)
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2024-01-01", periods=count)]
    volume, value = chance.integers(0, 10**6, count).tolist(), (close * 1000).tolist()
    columns = (
        days,
        opened.tolist(),
        high.tolist(),
        np.minimum(low, np.minimum(opened, close)).tolist(),
        close.tolist(),
    )
    bars = list(zip(*columns, volume, value, [0] * count, strict=True))
    with loader.begin() as conn:
        conn.execute(text("DELETE FROM live.candles"))
        conn.execute(text("DELETE FROM radar.snapshot"))
    know(loader, "A")
    hold(loader, "A", bars[:cut])
    day = date.fromisoformat(days[cut - 1])
    before = scanned(loader, day)
    hold(loader, "A", bars[cut:])
    after = scanned(loader, day)
    pd.testing.assert_frame_equal(after.snapshot, before.snapshot)
    assert after.changes == store.Changes(unchanged=1)


# What a page reads.


@pytest.fixture
def shown(loader: Engine) -> Radar:
    """Three instruments, scanned; the first has an unfinished bar on Monday and a split in June."""
    ids = know(loader, "000660", "005930", "035720")
    days = until(LAST, 60)
    wave = 100 + 20 * np.sin(np.arange(60) / 4)
    hold(
        loader,
        "000660",
        [row for day, close in zip(days, np.round(wave, 2), strict=True) for row in flat([day], float(close))],
    )
    hold(loader, "000660", flat([date(2024, 8, 5)], 130.0, flags=Flag.PROVISIONAL))
    hold(loader, "005930", flat(days))
    hold(loader, "035720", flat([LAST]))
    with loader.begin() as conn:
        factors = pd.DataFrame([("005930", days[20].date(), 0.5, 2.0, "split")], columns=FACTOR)
        upsert_factors(conn, factors, pd.Series(ids), source="test", detected_at=NEXT_MONDAY(), run_id=RUN)
    scanned(loader)
    return Radar(loader, NEXT_MONDAY)


def test_the_table_has_what_the_page_shows(shown):
    table = shown.table()
    assert table.index.name == "instrument_id"
    assert table["code"].tolist() == ["000660", "005930", "035720"]
    assert set(table["trend"]) | set(table["trend_long"]) <= {"up", "sideways", "down"}
    assert {name: str(table[name].dtype) for name in ("close", "change_pct", "high_52w_pct", "rsi14", "value")} == (
        dict.fromkeys(("close", "change_pct", "high_52w_pct", "rsi14", "value"), "float64")
    )
    assert table["change_pct"].isna().tolist() == [False, False, True]
    assert table["bars_52w"].tolist() == [60, 60, 1]
    values = table_values(table)  # what the widget makes of it reads every column by its name
    assert values["rows"]["id"] == table.index.tolist()
    assert values["rows"]["text"]["close"][1] == "100"
    assert list(values["rows"]["hints"]["code"]) == [0]


def test_an_empty_database_has_a_status_and_a_table(loader):
    shown = Radar(loader, NEXT_MONDAY)
    assert shown.status() == Status(stale="Nothing has been collected yet. Run `./studio up`.")
    assert shown.table().empty
    assert table_values(shown.table())["rows"]["id"] == []


def test_the_status_says_what_is_held_and_how_fresh_it_is(shown, loader):
    status = shown.status()
    assert (status.market, status.zone, status.source, status.simulated) == ("KRX", "Asia/Seoul", "test", False)
    assert (status.as_of, status.last_bar, status.scanned_at) == (LAST, date(2024, 8, 5), NEXT_MONDAY())
    assert (status.instruments, status.scanned, status.provisional, status.stale) == (3, 3, 1, None)
    assert status.run_id == str(RUN)
    late = Radar(loader, fixed_clock(NEXT_MONDAY() + timedelta(days=2))).status()
    assert late.stale == "Historical data: the newest final bar is of 2024-08-02, 3 trading days old."


def test_the_status_tells_no_bar_from_no_scan(loader):
    know(loader, "A")
    assert "no final bar is held yet" in Radar(loader, NEXT_MONDAY).status().stale
    hold(loader, "A", flat(until(LAST, 5)))
    assert "No scan has been made yet" in Radar(loader, NEXT_MONDAY).status().stale


def test_a_chart_is_found_by_its_code(loader):
    ids = know(loader, "A", "B")
    shown = Radar(loader, NEXT_MONDAY)
    assert shown.find("B") == ids["B"]
    with pytest.raises(NotFound, match="C: no such instrument"):
        shown.find("C")


def test_a_radar_shows_the_market_it_was_asked_for(shown, loader):
    know(loader, "AAPL", market="US")
    hold(loader, "AAPL", flat(until(LAST, 5)), market="US")
    assert Radar(loader, NEXT_MONDAY, "US").status().market == "US"
    assert Radar(loader, NEXT_MONDAY, "US").table().empty
    assert len(Radar(loader, NEXT_MONDAY, "KRX").table()) == 3


@pytest.mark.parametrize(("timeframe", "bars"), [("1d", 61), ("1w", 13), ("1mo", 4)])
def test_a_chart_holds_bars_pivots_and_a_trend_for_each_bar(shown, timeframe, bars):
    number = int(shown.table().index[0])
    found = shown.chart(number, timeframe)
    assert (found.instrument.id, found.instrument.code, found.timeframe) == (number, "000660", timeframe)
    assert list(found.candles.columns) == [*NUMBERS, "flags"]
    assert len(found.candles) == len(found.trend) == bars
    assert found.candles["flags"].iloc[-1] & Flag.PROVISIONAL
    assert found.trend[-1] == found.trend[-2]  # an unfinished bar has no say
    assert (found.pivots.known_at < bars - 1).all()
    assert (found.pivots.at < found.pivots.known_at).all()
    for at, price, kind in zip(found.pivots.at, found.pivots.price, found.pivots.kind, strict=True):
        assert price == found.candles["high" if kind > 0 else "low"].iloc[at]
    assert found.as_of == date(2024, 8, 5)
    assert (found.source, found.basis) == ("test", "prices as the source gave them")


def test_the_chart_of_a_split_instrument_says_that_it_was_undone(shown):
    found = shown.chart(int(shown.table().index[1]), "1d")
    assert found.candles["close"].tolist() == [50.0] * 20 + [100.0] * 40
    assert found.basis.startswith("raw prices, 1 corporate action")


def test_an_unfinished_bar_changes_no_pivot_and_no_trend(shown, loader):
    number = int(shown.table().index[0])
    before = shown.chart(number, "1d")
    hold(loader, "000660", flat([date(2024, 8, 5)], 10.0, flags=Flag.PROVISIONAL))
    after = shown.chart(number, "1d")
    assert after.candles["close"].iloc[-1] == 10
    np.testing.assert_array_equal(after.trend, before.trend)
    for field in dataclasses.fields(before.pivots):
        np.testing.assert_array_equal(getattr(after.pivots, field.name), getattr(before.pivots, field.name))


def test_a_chart_of_nothing_is_an_error(loader):
    ids = know(loader, "A")
    shown = Radar(loader, NEXT_MONDAY)
    with pytest.raises(NotEnoughHistory, match="A: no bar is held"):
        shown.chart(ids["A"], "1d")
    with pytest.raises(NotFound):
        shown.chart(-1, "1d")


def test_the_reader_reads_all_a_page_needs(shown, database: Database):
    engine = database.engine(Role.READER)
    as_reader = Radar(engine, NEXT_MONDAY)
    assert as_reader.status() == shown.status()
    pd.testing.assert_frame_equal(as_reader.table(), shown.table())
    assert len(as_reader.chart(int(shown.table().index[0]), "1w").candles) == 13
    engine.dispose()


# A whole market.


@pytest.mark.shared
def test_a_whole_market_is_collected_and_scanned(loader, shared_data):
    """Numbers of the file as its own description gives them: 1,893 symbols; 675,346 rows, 20,063 halted, 63 widened or not."""
    source = open_source(f"files:{shared_data / 'krx_daily_all_2023_2025.parquet'}")
    clock = fixed_clock(datetime(2025, 6, 17, 9, tzinfo=UTC))
    with ledger.notebook_run(loader, None, job="collect_daily", clock=clock) as run_id:
        synced = sync_instruments(loader, source, run_id=run_id, clock=clock)
        report = collect_daily(loader, source, run_id=run_id, clock=clock)
    report.check()
    assert next(iter(synced.items.values()))["inserted"] == 1893
    (rows,) = report.items.values()
    assert (rows["read"], rows["inserted"], rows["halted"]) == (675_346, 654_973, 20_063)
    with loader.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM live.candles")).scalar_one() == 654_973
        assert query.last_final_day(conn, "KRX") == date(2025, 6, 16)

    found = scanned(loader, clock=clock)  # the last day was fetched during the session: it is not final
    assert found.as_of == date(2025, 6, 16)
    assert len(found.snapshot) == len(Radar(loader, clock).table()) == 1872  # the others have no finished bar


def test_the_table_has_the_running_bar_and_the_final_close_on_its_basis(shown, loader):
    """A split takes effect on the Monday whose bar is unfinished: the Friday's close is halved before they are compared."""
    with loader.begin() as conn:
        factors = pd.DataFrame([("000660", date(2024, 8, 5), 0.5, 2.0, "rights")], columns=FACTOR)
        ids = instrument_ids(conn, "KRX")
        upsert_factors(conn, factors, ids, source="test", detected_at=datetime(2024, 8, 5, tzinfo=UTC), run_id=RUN)
    table = shown.table().set_index("code")
    running = table.loc["000660"]
    assert bool(running["provisional"]) and running["running_close"] == 130
    assert running["final_close"] == running["close"] / 2
    assert table.loc["005930", "final_close"] == table.loc["005930", "close"]
    assert not table.loc["005930", "provisional"] and math.isnan(table.loc["005930", "running_close"])


def test_a_simulated_market_is_shown_last_and_says_so(loader):
    for market in ("SIM", "KRX"):
        know(loader, "000660", market=market)
    with loader.begin() as conn:
        assert query.markets(conn) == ["KRX", "SIM"]

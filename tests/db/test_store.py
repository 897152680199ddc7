"""What is written: once is enough, a final bar stays final, an unknown code and a restated past are kept out."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from chartinsight_lib.db import stage, store
from chartinsight_lib.db.bars import candles
from chartinsight_lib.db.factors import upsert_factors
from chartinsight_lib.db.instruments import instrument_ids, upsert_instruments
from chartinsight_lib.db.rows import Changes
from chartinsight_lib.domain import CANDLE, FACTOR, GAP, INSTRUMENT, Flag
from chartinsight_lib.errors import SchemaError

RUN, LATER_RUN = UUID(int=1), UUID(int=2)
NOW = datetime(2024, 8, 20, 12, tzinfo=UTC)
WAIT_S = 20.0
CODES = ["000660", "005930", "035720"]
DAYS = [f"2024-08-{day:02}" for day in (1, 2, 5, 6, 7, 8, 9, 12, 13, 14)]


def listing(codes: Iterable[str] = CODES, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"code": list(codes)}).assign(
        market="KRX", name="name", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
    )
    return frame.assign(**columns)[INSTRUMENT]


def bar(code: str, day: str, close: float, *, value: float = math.nan, flags: int = 0, volume: int = 100) -> tuple:
    return code, pd.Timestamp(day, tz="UTC"), close, close + 1, close - 1, close, volume, value, flags


def frame(*bars: tuple) -> pd.DataFrame:
    made = pd.DataFrame(list(bars), columns=CANDLE)
    numbers = dict.fromkeys(["open", "high", "low", "close", "value"], "float64")
    return made.astype({**numbers, "volume": "int64", "flags": "int16", "ts": "datetime64[us, UTC]"})


def load(conn: Connection, bars: pd.DataFrame, *, source: str = "test", run_id: UUID = RUN) -> Changes:
    staged = stage.stage_candles(conn, bars, instrument_ids(conn, "KRX"), "1d")
    return stage.upsert_staged(conn, staged, source=source, run_id=run_id, now=NOW)


def held(conn: Connection) -> dict[tuple[str, str], tuple[float, int, float | None, int]]:
    """{(code, day): (close, volume, value, flags)} as a plain SELECT says."""
    rows = conn.execute(
        text("""
            SELECT code, to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, close, volume, value, flags
            FROM live.candles JOIN live.instruments ON id = instrument_id
        """)
    )
    return {(row.code, row.day): (row.close, row.volume, row.value, row.flags) for row in rows}


@pytest.fixture
def listed(conn: Connection) -> Connection:
    """A connection, rolled back, to a database that knows the three codes and no bar."""
    upsert_instruments(conn, listing(), source="test", run_id=RUN)
    return conn


# Candles.


def test_storing_twice_changes_nothing(listed):
    bars = frame(*(bar(code, day, 100 + n) for code in CODES for n, day in enumerate(DAYS)))
    assert load(listed, bars) == Changes(inserted=30)
    before = listed.execute(text("SELECT *, xmin::text, ctid::text FROM live.candles ORDER BY 1, 3")).all()
    again = load(listed, bars, source="another", run_id=LATER_RUN)
    assert again == Changes(unchanged=30)
    assert again.changed == 0
    assert listed.execute(text("SELECT *, xmin::text, ctid::text FROM live.candles ORDER BY 1, 3")).all() == before


def test_a_changed_close_updates_exactly_that_row_and_says_who_did_it(listed):
    load(listed, frame(*(bar("005930", day, 100) for day in DAYS)))
    bars = frame(*(bar("005930", day, 101 if day == "2024-08-05" else 100) for day in DAYS))
    assert load(listed, bars, source="another", run_id=LATER_RUN) == Changes(updated=1, unchanged=9)
    changed = listed.execute(
        text("SELECT (ts AT TIME ZONE 'UTC')::date, close, source, run_id FROM live.candles WHERE run_id = :run"),
        {"run": LATER_RUN},
    ).all()
    assert changed == [(date(2024, 8, 5), 101, "another", LATER_RUN)]


def test_bars_in_any_order_are_the_same_bars(listed):
    bars = frame(*(bar(code, day, 100 + n) for code in CODES for n, day in enumerate(DAYS)))
    load(listed, bars)
    assert load(listed, bars.iloc[::-1]) == Changes(unchanged=30)


def test_a_final_bar_is_never_replaced_by_a_provisional_one(listed):
    load(listed, frame(bar("005930", "2024-08-05", 100)))
    forming = frame(bar("005930", "2024-08-05", 90, flags=Flag.PROVISIONAL))
    assert load(listed, forming) == Changes(unchanged=1)
    assert held(listed) == {("005930", "2024-08-05"): (100, 100, None, 0)}


def test_a_provisional_bar_is_replaced_by_a_later_one_and_by_the_final_one(listed):
    for close, flags in ((90, Flag.PROVISIONAL), (95, Flag.PROVISIONAL), (95, Flag.AFTER_MARKET)):
        load(listed, frame(bar("005930", "2024-08-05", close, flags=flags)))
        assert held(listed) == {("005930", "2024-08-05"): (close, 100, None, flags)}


def test_a_value_that_the_source_lacks_is_stored_as_null_and_read_as_nan(listed):
    load(listed, frame(bar("005930", "2024-08-05", 100), bar("005930", "2024-08-06", 100, value=12_345.0)))
    assert [row[2] for _, row in sorted(held(listed).items())] == [None, 12_345.0]
    number = int(instrument_ids(listed, "KRX")["005930"])
    np.testing.assert_array_equal(candles(listed, number)["value"], [math.nan, 12_345.0])


@pytest.mark.parametrize(("before", "after"), [(math.nan, 5.0), (5.0, 0.0), (math.nan, 0.0)])
def test_a_value_that_comes_is_a_change(listed, before, after):
    load(listed, frame(bar("005930", "2024-08-05", 100, value=before)))
    assert load(listed, frame(bar("005930", "2024-08-05", 100, value=after))) == Changes(updated=1)
    assert [row[2] for row in held(listed).values()] == [after]


def test_who_does_not_tell_the_value_of_the_same_bar_takes_none_away(listed):
    load(listed, frame(bar("005930", "2024-08-05", 100, value=5.0)))
    assert load(listed, frame(bar("005930", "2024-08-05", 100))) == Changes(unchanged=1)
    assert [row[2] for row in held(listed).values()] == [5.0]
    # Of another bar it would be the wrong one.
    assert load(listed, frame(bar("005930", "2024-08-05", 101))) == Changes(updated=1)
    assert [row[2] for row in held(listed).values()] == [None]


def test_no_bars_are_no_change(listed):
    assert load(listed, frame()) == Changes()


def test_an_unknown_code_is_an_error_and_stores_nothing(listed):
    bars = frame(bar("005930", "2024-08-05", 100), bar("999999", "2024-08-05", 100), bar("999998", "2024-08-05", 100))
    with pytest.raises(SchemaError, match=r"2 codes are no instruments yet \(999998, 999999\). Sync instruments first"):
        load(listed, bars)
    assert held(listed) == {}


@pytest.mark.parametrize("what", ["gap", "factor"])
def test_a_gap_or_factor_of_an_unknown_code_is_an_error_and_stores_nothing(listed, what):
    ids = instrument_ids(listed, "KRX")
    with pytest.raises(SchemaError, match="999999"):
        if what == "gap":
            store.upsert_gaps(listed, gaps(("005930", DAYS[0], "halted"), ("999999", DAYS[0], "halted")), ids, "1d",
                              source="test", run_id=RUN)  # fmt: skip
        else:
            upsert_factors(listed, factors(("999999", 0.5)), ids, source="test", detected_at=DETECTED, run_id=RUN)
    for table in ("ops.gaps", "live.factors"):
        assert listed.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0


def test_a_bar_that_cannot_be_is_refused_by_the_table_itself(listed):
    impossible = frame(bar("005930", "2024-08-05", 100)).assign(high=99.0)
    with pytest.raises(Exception, match="check constraint"):
        load(listed, impossible)


# Several at the same time.


def in_background(work: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    return thread, failed


def finish(*started: tuple[threading.Thread, list[BaseException]]) -> None:
    for thread, failed in started:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "it hangs"
        assert failed == []


def until_blocked(conn: Connection, count: int = 1) -> None:
    """Wait until `count` connections wait for somebody else's lock."""
    deadline = time.monotonic() + WAIT_S
    query = text("SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0")
    while conn.execute(query).scalar_one() < count:
        assert time.monotonic() < deadline, "nobody waits"
        conn.rollback()
        time.sleep(0.02)


@pytest.fixture
def committed(loader: Engine) -> Engine:
    """An engine on a database that knows the three codes; emptied afterwards."""
    with loader.begin() as conn:
        upsert_instruments(conn, listing(), source="test", run_id=RUN)
    return loader


def test_loads_of_the_same_bars_in_opposite_order_do_not_deadlock(committed):
    """Ten rounds by two writers, each against the other's; any mixture of the two would show in the closes."""
    ways = {close: [bar(code, day, close) for code in CODES for day in DAYS] for close in (100, 200)}
    ways[200].reverse()
    together = threading.Barrier(2, timeout=WAIT_S)

    def write(close: int) -> None:
        for _ in range(10):
            together.wait()
            with committed.begin() as conn:
                load(conn, frame(*ways[close]))

    finish(in_background(lambda: write(100)), in_background(lambda: write(200)))
    with committed.connect() as conn:
        found = held(conn)
    assert len(found) == 30
    assert {row[0] for row in found.values()} in ({100}, {200})


def test_a_load_that_waited_for_another_ends_in_one_of_both_complete_states(committed):
    """The second load says what was held before about half of the bars: it must not take them for unchanged."""
    with committed.begin() as conn:
        load(conn, frame(*(bar("005930", day, 100) for day in DAYS)))

    def second() -> None:
        with committed.begin() as conn:
            load(conn, frame(*(bar("005930", day, 100 if n % 2 else 200) for n, day in enumerate(DAYS))))

    with committed.connect() as watcher, committed.connect() as first:
        load(first, frame(*(bar("005930", day, 300) for day in DAYS)))
        started = in_background(second)
        until_blocked(watcher)
        first.commit()
        finish(started)
        found = [row[0] for _, row in sorted(held(watcher).items())]
    assert found in ([300] * 10, [200, 100] * 5)


def test_a_load_compares_with_what_the_one_before_it_stored(committed):
    """Two first loads on two price bases meet: the second one waits, and then it sees what the first one held."""
    seen: list[stage.Suspect] = []

    def second() -> None:
        with committed.begin() as conn:
            ids = instrument_ids(conn, "KRX")
            staged = stage.stage_candles(conn, frame(*(bar("005930", day, 50) for day in DAYS)), ids, "1d")
            seen.extend(stage.suspects(conn, staged))

    with committed.connect() as watcher, committed.connect() as first:
        load(first, frame(*(bar("005930", day, 100) for day in DAYS)))
        started = in_background(second)
        until_blocked(watcher)
        first.commit()
        finish(started)
    assert [(one.code, one.overlap, one.differing) for one in seen] == [("005930", 10, 10)]


# A past that is told differently.


def staged_against(
    conn: Connection, before: pd.DataFrame, after: pd.DataFrame, **options: Any
) -> list[tuple[str, int, int]]:
    load(conn, before)
    staged = stage.stage_candles(conn, after, instrument_ids(conn, "KRX"), "1d", **options)
    return [(one.code, one.overlap, one.differing) for one in stage.suspects(conn, staged)]


def test_an_instrument_that_differs_or_has_no_day_in_common_is_suspect(listed):
    before = frame(*(bar(code, day, 100) for code in CODES for day in DAYS[:6]))
    after = frame(
        *(bar(CODES[0], day, 50) for day in DAYS), *(bar(CODES[1], day, 100) for day in DAYS),
        *(bar(CODES[2], day, 100) for day in DAYS[6:]),
    )  # fmt: skip
    assert staged_against(listed, before, after) == [(CODES[0], 6, 6), (CODES[2], 0, 0)]


def test_a_raw_source_corrects_itself_and_is_compared_with_others(listed):
    before = frame(*(bar("005930", day, 100) for day in DAYS[:6]))
    after = frame(*(bar("005930", day, 50) for day in DAYS))
    assert staged_against(listed, before, after, raw_source="test") == []
    assert staged_against(listed, before, after, raw_source="another") == [("005930", 6, 6)]


def test_what_a_final_bar_said_before_it_was_revised_is_kept(listed):
    load(listed, frame(bar("005930", "2024-08-05", 100), bar("005930", "2024-08-06", 90, flags=Flag.PROVISIONAL)))
    load(listed, frame(*(bar("005930", day, 101) for day in ("2024-08-05", "2024-08-06"))), run_id=LATER_RUN)
    kept = listed.execute(text("SELECT day, close, run_id, replaced_at, replaced_by FROM api.revisions")).all()
    assert kept == [(date(2024, 8, 5), 100, RUN, NOW, LATER_RUN)], "an unfinished bar was never more than that"


# The watermark.


def watermarks(conn: Connection) -> dict[tuple[str, str], int]:
    rows = conn.execute(text("SELECT market, timeframe, version FROM live.watermarks"))
    return {(row.market, row.timeframe): row.version for row in rows}


def test_the_watermark_moves_when_a_load_says_so_and_for_its_market_alone(listed):
    store.move_watermark(listed, "US")
    before = watermarks(listed)
    load(listed, frame(bar("005930", DAYS[0], 100)))
    assert watermarks(listed) == before, "a load moves it once, at its end"
    store.move_watermark(listed, "KRX")
    after = watermarks(listed)
    assert {key for key in after if after[key] != before.get(key)} == {("KRX", "1d"), ("KRX", "1m"), ("KRX", "5m")}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE live.candles SET close = close",
        "DELETE FROM live.candles",
        "DELETE FROM live.factors",
    ],
)
def test_whoever_changes_bars_or_factors_by_hand_moves_every_watermark(listed, change):
    for market in ("KRX", "US"):
        store.move_watermark(listed, market)
    before = watermarks(listed)
    listed.execute(text(change))
    assert all(version > before[key] for key, version in watermarks(listed).items())


@pytest.mark.parametrize("unfinished", ["held", "new"])
def test_an_unfinished_bar_says_nothing_about_the_past(listed, unfinished):
    """Five days, and the newest was or is still forming: one of five would be more than a tenth."""
    flags = {"held": (Flag.PROVISIONAL, 0), "new": (0, Flag.PROVISIONAL)}[unfinished]
    before, after = (
        frame(*(bar("005930", day, 100) for day in DAYS[:4]), bar("005930", DAYS[4], close, flags=flag))
        for close, flag in zip((100, 103), flags, strict=True)
    )
    assert staged_against(listed, before, after) == []


# Gaps, quarantine, factors, instruments.

DETECTED = pd.Timestamp("2024-08-05T12:00Z").to_pydatetime()


def gaps(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=GAP).astype({"ts": "datetime64[us, UTC]"})


def factors(*rows: tuple[str, float]) -> pd.DataFrame:
    return pd.DataFrame([(code, date(2024, 8, 5), price, 1 / price, "split") for code, price in rows], columns=FACTOR)


def held_gaps(conn: Connection) -> list[tuple[str, str, str]]:
    query = "SELECT code, to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD'), kind FROM api.gaps ORDER BY code, ts"
    return [tuple(row) for row in conn.execute(text(query))]


def test_gaps_are_kept_once_and_closed_when_a_bar_comes(listed):
    ids = instrument_ids(listed, "KRX")
    rows = gaps(
        ("005930", "2024-08-05", "halted"), ("005930", "2024-08-06", "no-trade"), ("000660", "2024-08-05", "halted")
    )
    assert store.upsert_gaps(listed, rows, ids, "1d", source="test", run_id=RUN) == Changes(inserted=3)
    assert store.upsert_gaps(listed, rows, ids, "1d", source="test", run_id=RUN) == Changes(unchanged=3)
    other = rows.assign(kind=["halted", "halted", "halted"])
    assert store.upsert_gaps(listed, other, ids, "1d", source="test", run_id=RUN) == Changes(updated=1, unchanged=2)

    came = frame(bar("005930", "2024-08-05", 100), bar("005930", "2024-08-07", 100))
    stage.close_gaps(listed, stage.stage_candles(listed, came, ids, "5m"))  # another timeframe's
    assert len(held_gaps(listed)) == 3
    stage.close_gaps(listed, stage.stage_candles(listed, came, ids, "1d"))
    assert held_gaps(listed) == [("000660", "2024-08-05", "halted"), ("005930", "2024-08-06", "halted")]


def test_quarantined_rows_are_not_doubled_by_a_repeat(listed):
    rows = pd.DataFrame(
        [
            ("005930", pd.Timestamp("2024-08-05", tz="UTC"), "bad_price", "rejected", 7, '{"close": "-", "open": 1}'),
            ("", pd.NaT, "bad_date", "rejected", 8, '{"date": "2024-13-45"}'),
            ("000660", pd.Timestamp("2024-08-05", tz="UTC"), "high_below_close", "widened", 9, '{"high": 1}'),
        ],
        columns=["code", "ts", "rule", "action", "row", "payload"],
    )

    def add(rows: pd.DataFrame, source: str = "test") -> Changes:
        return store.add_quarantine(listed, rows, "1d", market="KRX", source=source, item="file.csv", run_id=RUN)

    assert add(rows) == Changes(inserted=3)
    assert add(rows) == Changes(unchanged=3)
    assert add(rows.assign(payload='{"close": "other"}')) == Changes(inserted=3)  # the file was changed there
    assert add(rows, source="another") == Changes(inserted=3)
    assert listed.execute(text("SELECT count(*), count(ts) FROM api.quarantine")).one() == (9, 6)


def test_factors_are_kept_once_and_revised(listed):
    ids = instrument_ids(listed, "KRX")

    def add(rows: pd.DataFrame, source: str = "test") -> Changes:
        return upsert_factors(listed, rows, ids, source=source, detected_at=DETECTED, run_id=RUN)

    assert add(factors()) == Changes()
    assert add(factors(("005930", 0.5), ("000660", 0.2))) == Changes(inserted=2)
    assert add(factors(("005930", 0.5), ("000660", 0.25))) == Changes(updated=1, unchanged=1)


def test_instruments_are_inserted_left_alone_or_renamed(conn):
    rows = listing(listed_on=[date(1996, 12, 26), None, None], sector=["chips", "chips", None])
    assert upsert_instruments(conn, rows, source="test", run_id=RUN) == Changes(inserted=3)
    assert upsert_instruments(conn, rows, source="test", run_id=LATER_RUN) == Changes(unchanged=3)
    ids = instrument_ids(conn, "KRX")
    rows["name"] = ["SK hynix", "name", "name"]
    rows["delisted_on"] = [None, date(2024, 8, 5), None]
    assert upsert_instruments(conn, rows, source="test", run_id=LATER_RUN) == Changes(updated=2, unchanged=1)
    assert instrument_ids(conn, "KRX").to_dict() == ids.to_dict()
    found = conn.execute(
        text("SELECT code, name, sector, listed_on, delisted_on, run_id FROM live.instruments ORDER BY code")
    ).all()
    assert found == [
        ("000660", "SK hynix", "chips", date(1996, 12, 26), None, LATER_RUN),
        ("005930", "name", "chips", None, date(2024, 8, 5), LATER_RUN),
        ("035720", "name", None, None, None, RUN),
    ]


def test_a_source_that_does_not_know_a_field_or_a_name_takes_nothing_away(conn):
    upsert_instruments(conn, listing(sector="chips", name="SK hynix"), source="test", run_id=RUN)
    unknown = listing()
    unknown["name"] = unknown["code"]
    assert upsert_instruments(conn, unknown, source="other", run_id=RUN) == Changes(unchanged=3)
    assert set(conn.execute(text("SELECT name, sector FROM live.instruments"))) == {("SK hynix", "chips")}


def test_the_same_code_in_two_markets_is_two_instruments(conn):
    both = pd.concat([listing(["A"]), listing(["A"], market="US", currency="USD")], ignore_index=True)
    assert upsert_instruments(conn, both, source="test", run_id=RUN) == Changes(inserted=2)
    assert instrument_ids(conn, "KRX")["A"] != instrument_ids(conn, "US")["A"]


# Any sequence of loads.

KEYS = [(code, day) for code in CODES for day in DAYS]
TRUTH = {key: 100.0 + n for n, key in enumerate(KEYS)}

a_load = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([None, 1.0, 2.0]), max_size=20)
"""{key: None for the true and final bar, or how far off the unfinished one was}"""


@given(loads=st.lists(a_load, max_size=6), repeats=st.lists(st.integers(0, 5), max_size=3))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_loads_ends_in_the_table_of_one_clean_load(listed, loads, repeats):
    sequence = loads + [loads[n] for n in repeats if n < len(loads)]
    said: dict[tuple[str, str], float | None] = {}  # a second, plain implementation: final is final, else the last word
    with listed.begin_nested() as attempt:
        for one in sequence:
            new = {key: off for key, off in one.items() if said.get(key, 0.0) is not None}
            expected = Changes(
                inserted=len(new.keys() - said.keys()),
                updated=sum(key in said and said[key] != off for key, off in new.items()),
                unchanged=len(one) - len(new) + sum(key in said and said[key] == off for key, off in new.items()),
            )
            bars = [
                bar(*key, TRUTH[key] + (off or 0), flags=0 if off is None else Flag.PROVISIONAL)
                for key, off in one.items()
            ]
            assert load(listed, frame(*bars)) == expected
            said |= new
            assert {key: row[0] for key, row in held(listed).items()} == {
                key: TRUTH[key] + (off or 0) for key, off in said.items()
            }
        load(listed, frame(*(bar(*key, close) for key, close in TRUTH.items())))
        assert held(listed) == {key: (close, 100, None, 0) for key, close in TRUTH.items()}
        attempt.rollback()

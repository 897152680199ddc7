"""The copy of a market on disk says what the database says, whatever became of either; else it is not used."""

import logging
import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from holding import hold, know, number, split
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from chartinsight_lib.db import bars, panel_cache, store
from chartinsight_lib.db.bars import Panel
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import NUMBERS

FLAT = (100, 100, 100, 100, 10, math.nan, 0)


def flat(close: float) -> tuple:
    return (close, close, close, close, 10, 1000.0, 0)


@pytest.fixture
def reader(database: Database) -> Iterator[Engine]:
    engine = database.engine(Role.READER)
    yield engine
    engine.dispose()


@pytest.fixture
def stocked(loader: Engine) -> Engine:
    """Eight instruments of up to 90 days made by chance, with splits, dividends and unfinished ends; and another market."""
    chance = np.random.default_rng(7)
    days = np.arange(np.datetime64("2024-04-01"), np.datetime64("2024-07-31"))
    days = days[np.is_busday(days)]
    with loader.begin() as conn:
        know(conn, *(f"{k:06}" for k in range(8)))
        know(conn, "AAPL", market="US")
        hold(conn, "AAPL", {"2024-06-03": FLAT}, market="US")
        for k in range(7):  # the eighth has no bar
            held = days[chance.random(len(days)) < 0.9]
            rows = {}
            for n, day in enumerate(held.astype(str).tolist()):
                low, opened, close, high = np.sort(chance.integers(900, 1100, 4)).tolist()
                rows[day] = (opened, high, low, close, int(chance.integers(0, 10**9)), close * 7.0 if k % 2 else math.nan,
                             int(k % 3 == 0 and n == len(held) - 1))  # fmt: skip
            hold(conn, f"{k:06}", rows)
            events = [
                ("2024-05-02", 0.5, 2.0, "split"),
                ("2024-06-10", 2 / 3, 1.5, "split"),
                ("2024-06-20", 1.0, 1.0, "unknown"),
            ]
            split(conn, f"{k:06}", *events[: k % 4], ("2024-05-20", 0.97, 1.0, "dividend"))
        store.move_watermark(conn, "KRX")
        store.move_watermark(conn, "US")
    return loader


def read(engine: Engine, cache: Path | None, **options) -> Panel:
    with engine.connect() as conn:
        return bars.panel(conn, "KRX", cache=cache, **options)


def same(one: Panel, other: Panel) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    assert one.bounds.tolist() == other.bounds.tolist()
    assert one.ts.equals(other.ts)
    for name in [*NUMBERS, "flags"]:
        np.testing.assert_array_equal(one.columns[name], other.columns[name])
        assert one.columns[name].dtype == other.columns[name].dtype


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let no bar be read from the database."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("bars were read from the database")

    monkeypatch.setattr(panel_cache, "read_market", refuse)
    return monkeypatch


def change(engine: Engine, close: float, code: str = "000001", day: str = "2024-04-08") -> None:
    with engine.begin() as conn:
        hold(conn, code, {day: flat(close)})
        store.move_watermark(conn, "KRX")


# It is used, and says the same.


def test_a_second_read_takes_the_bars_from_the_copy(stocked, reader, tmp_path, request):
    expected = read(reader, None)
    same(read(reader, tmp_path / "made" / "for it"), expected)  # as the reader, into a directory that is made
    request.getfixturevalue("no_database")
    same(read(reader, tmp_path / "made" / "for it"), expected)
    same(read(stocked, tmp_path / "made" / "for it"), expected)


@given(
    as_of=st.one_of(
        st.none(),
        st.dates(date(2024, 3, 25), date(2024, 8, 10)),
        st.datetimes(datetime(2024, 3, 25), datetime(2024, 8, 10), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
    since=st.one_of(st.none(), st.dates(date(2024, 3, 25), date(2024, 8, 10))),
    timeframe=st.sampled_from(["1d", "1w", "2w", "1mo"]),
    final_only=st.booleans(),
    basis=st.sampled_from(["raw", "price", "price+dividend"]),
)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_read_from_the_copy_is_the_read_from_the_database(
    stocked, reader, tmp_path, as_of, since, timeframe, final_only, basis
):
    options = {"as_of": as_of, "since": since, "timeframe": timeframe, "final_only": final_only, "basis": basis}
    same(read(reader, tmp_path, **options), read(reader, None, **options))


def test_what_a_caller_does_to_its_arrays_does_not_reach_the_next(stocked, reader, tmp_path):
    expected = read(reader, None)
    for _ in range(2):
        found = read(reader, tmp_path)
        same(found, expected)
        found.columns["close"][:] = 0


def test_markets_and_timeframes_have_copies_of_their_own(stocked, reader, tmp_path):
    with reader.connect() as conn:
        assert len(bars.panel(conn, "US", cache=tmp_path).ids) == 1
        assert len(bars.panel(conn, "KRX", cache=tmp_path).ids) == 7
        assert len(bars.panel(conn, "KRX", timeframe="5m", cache=tmp_path).ids) == 0
    assert sorted(path.name.rsplit("-", 2)[0] for path in tmp_path.iterdir()) == ["KRX-1d", "KRX-5m", "US-1d"]


# It is not used when anything has changed.


def test_a_changed_bar_is_read_and_the_old_copy_removed(stocked, reader, tmp_path):
    read(reader, tmp_path)
    (old,) = tmp_path.iterdir()
    change(stocked, 777)
    found = read(reader, tmp_path, basis="raw")
    assert 777 in found.columns["close"]
    (new,) = tmp_path.iterdir()
    assert new != old


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE live.candles SET close = high WHERE close < high",
        "DELETE FROM live.candles WHERE ts < '2024-05-01'",
        "UPDATE live.factors SET price_factor = 0.25",
        "TRUNCATE live.factors",
    ],
)
def test_rows_that_somebody_changed_by_hand_are_read_as_they_are_now(stocked, database, reader, tmp_path, statement):
    before = read(reader, tmp_path)
    owner = database.engine(Role.OWNER)
    with owner.begin() as conn:
        conn.execute(text(statement))
    owner.dispose()
    found = read(reader, tmp_path)
    same(found, read(reader, None))
    assert len(found.ts) != len(before.ts) or (found.columns["close"] != before.columns["close"]).any()


def test_what_is_not_committed_is_read_by_who_wrote_it_and_kept_from_the_copy(stocked, reader, tmp_path):
    before = read(reader, tmp_path, basis="raw")
    with stocked.connect() as conn, conn.begin() as transaction:
        hold(conn, "000001", {"2024-04-08": flat(777)})
        store.move_watermark(conn, "KRX")
        assert 777 in bars.panel(conn, "KRX", cache=tmp_path, basis="raw").columns["close"]
        same(read(reader, tmp_path, basis="raw"), before)
        transaction.rollback()
    change(stocked, 778)
    found = read(reader, tmp_path, basis="raw").columns["close"]
    assert 777 not in found
    assert 778 in found


def test_an_old_snapshot_reads_what_it_sees(stocked, database, tmp_path):
    engine = database.engine(Role.READER)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        before = bars.panel(conn, "KRX", cache=tmp_path, basis="raw")
        change(stocked, 777)
        assert 777 in read(engine, tmp_path, basis="raw").columns["close"]
        same(bars.panel(conn, "KRX", cache=tmp_path, basis="raw"), before)
    assert 777 in read(engine, tmp_path, basis="raw").columns["close"]
    engine.dispose()


def test_a_market_without_a_watermark_is_read_from_the_database_each_time(conn, tmp_path):
    know(conn, "A")
    conn.execute(text("DELETE FROM live.watermarks"))
    for _ in range(2):
        assert len(bars.panel(conn, "KRX", cache=tmp_path).ids) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_copy_of_another_database_is_not_used(stocked, database, reader, tmp_path):
    read(reader, tmp_path)
    owner = database.engine(Role.OWNER)
    with owner.begin() as conn:
        conn.execute(text("UPDATE ops.identity SET id = gen_random_uuid()"))
        # As a database that was restored and has gone another way since: the same watermark, other bars.
        conn.execute(text("SET LOCAL chartinsight.moves_watermark = 'itself'"))
        conn.execute(text("UPDATE live.candles SET close = high"))
    owner.dispose()
    same(read(reader, tmp_path), read(reader, None))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_copy_under_the_name_of_another_is_not_used(stocked, reader, tmp_path, caplog):
    read(reader, tmp_path)
    (old,) = tmp_path.iterdir()
    content = old.read_bytes()
    change(stocked, 777)
    read(reader, tmp_path)
    (new,) = tmp_path.iterdir()
    new.write_bytes(content)
    same(read(reader, tmp_path), read(reader, None))
    assert "is a copy of" in caplog.text


# It is not used when it is damaged.


@pytest.fixture
def copy_of(stocked, reader, tmp_path) -> tuple[Engine, Path, Path, Panel]:
    expected = read(reader, tmp_path)
    (path,) = tmp_path.iterdir()
    return reader, tmp_path, path, expected


@given(data=st.data())
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_copy_with_one_wrong_bit_is_made_anew(copy_of, data):
    reader, directory, path, expected = copy_of
    sound = path.read_bytes()
    at = data.draw(st.one_of(st.integers(0, 300), st.integers(0, len(sound) - 1)))
    broken = bytearray(sound)
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(broken)
    same(read(reader, directory), expected)
    assert path.read_bytes() == sound


@given(length=st.one_of(st.integers(0, 300), st.floats(0, 1)), more=st.binary(max_size=9))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_copy_that_is_cut_short_or_too_long_is_made_anew(copy_of, length, more):
    reader, directory, path, expected = copy_of
    sound = path.read_bytes()
    kept = length if isinstance(length, int) else int(length * len(sound))
    path.write_bytes(sound[:kept] + more if kept < len(sound) else sound + more)
    same(read(reader, directory), expected)
    assert path.read_bytes() == sound


def test_a_damaged_copy_is_told_of(copy_of, caplog):
    reader, directory, path, _ = copy_of
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        read(reader, directory)
    assert "checksum is wrong" in caplog.text
    assert path.name in caplog.text


def test_without_a_directory_that_can_be_written_the_database_is_read(stocked, reader, tmp_path, caplog):
    expected = read(reader, None)
    (tmp_path / "file").write_text("no directory")
    for _ in range(2):
        same(read(reader, tmp_path / "file"), expected)
    assert "panel cache" in caplog.text
    assert (tmp_path / "file").read_text() == "no directory"


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_is_not(stocked, reader, tmp_path):
    left, under_way = tmp_path / "KRX-1d-abc.unfinished", tmp_path / "KRX-1d-def.unfinished"
    for path in (left, under_way, tmp_path / "US-1d-abc.unfinished", tmp_path / "note.txt"):
        path.write_bytes(b"half")
    for path in (left, tmp_path / "US-1d-abc.unfinished"):
        os.utime(path, (0, 0))
    read(reader, tmp_path)
    assert not left.exists()
    assert under_way.exists()
    assert (tmp_path / "US-1d-abc.unfinished").exists()  # of another market, which has its own turn
    assert (tmp_path / "note.txt").exists()


def test_readers_beside_a_writer_see_committed_states_only(stocked, database, tmp_path):
    """Each commit moves all closes of one day of two instruments together: nobody may see them apart, or go back in time."""
    days, stop = ["2024-04-08"], threading.Event()
    with stocked.begin() as conn:
        one, other = number(conn, "000001"), number(conn, "000002")

    def write() -> None:
        for close in range(2000, 2060):
            with stocked.begin() as conn:
                for code in ("000001", "000002"):
                    hold(conn, code, {day: flat(close) for day in days})
                store.move_watermark(conn, "KRX")
        stop.set()

    def look(_: int) -> list[float]:
        engine, seen = database.engine(Role.READER), []
        try:
            while not stop.is_set() or not seen:
                panel = read(engine, tmp_path, basis="raw")
                pair = []
                for k in (one, other):
                    rows = panel.rows(panel.ids.tolist().index(k))
                    pair.append(panel.columns["close"][rows][panel.ts[rows].strftime("%Y-%m-%d") == days[0]][0])
                assert pair[0] == pair[1] or max(pair) < 2000
                seen.append(float(pair[0]))
        finally:
            engine.dispose()
        return seen

    change(stocked, 1500, "000001")
    change(stocked, 1500, "000002")
    with ThreadPoolExecutor(5) as pool:
        looking = [pool.submit(look, n) for n in range(4)]
        pool.submit(write).result()
        for found in looking:
            seen = found.result()
            assert seen == sorted(seen)
    final = read(stocked, tmp_path, basis="raw")
    same(final, read(stocked, None, basis="raw"))
    assert [path.suffix for path in tmp_path.iterdir()] == [".bars"]

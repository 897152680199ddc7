"""From a source into the tables and the ledger: every row accounted for, twice is once, a failure leaves only its record."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from chartinsight_lib import collect, joining, ledger
from chartinsight_lib.clients import open_source
from chartinsight_lib.clients.base import Batch, Source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report, collect_daily
from chartinsight_lib.db import factors, stage, store
from chartinsight_lib.domain import INSTRUMENT, Flag
from chartinsight_lib.errors import Fenced, RunFailed
from chartinsight_lib.listing import sync_instruments

NOW = datetime(2024, 8, 9, 9, tzinfo=UTC)
CLOCK = fixed_clock(NOW)
# What became of a row; "of which" counts again what is counted above.
FATES = {
    "inserted",
    "updated",
    "unchanged",
    "refused",
    "duplicates",
    "rejected",
    "halted",
    "no-trade",
    "on another basis",
}


def run_all(engine: Engine, source: Source, *, sync: bool = True) -> tuple[UUID, Report]:
    """Synchronise and collect in a run of its own."""
    with ledger.notebook_run(engine, None, job="collect_daily", clock=CLOCK) as run_id:
        if sync:
            sync_instruments(engine, source, run_id=run_id, clock=CLOCK)
        return run_id, collect_daily(engine, source, run_id=run_id, clock=CLOCK)


def ask(engine: Engine, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement), values)]


def everything(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """What is held, without who stored it and when."""
    queries = {
        "candles": "SELECT code, ts, open, high, low, close, volume, value, flags FROM api.candles_raw",
        "factors": "SELECT code, ex_date, price_factor, volume_factor, f.kind FROM live.factors AS f "
        "JOIN live.instruments ON id = instrument_id",
        "gaps": "SELECT code, ts, kind FROM api.gaps",
        "quarantine": "SELECT code, ts, rule, action, source_row, payload::text FROM api.quarantine",
    }
    return {name: sorted(ask(engine, query), key=repr) for name, query in queries.items()}


def item(engine: Engine, run_id: UUID, name: str) -> tuple[str, dict[str, int], str | None]:
    """State, rows and error of one record."""
    ((state, rows, error),) = ask(
        engine, "SELECT state, rows, error FROM ops.run_items WHERE run_id = :run_id AND item = :name",
        run_id=run_id, name=name,
    )  # fmt: skip
    return state, rows, error


def accounted(rows: dict[str, int]) -> int:
    assert {name for name in rows if not name.startswith("of which")} <= FATES | {"read"}
    return sum(count for fate, count in rows.items() if fate in FATES)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Source]:
    """Writes CSV files given as {name: lines} and opens them as one source."""

    def write(files: dict[str, list[str]], **options: Any) -> Source:
        for name, lines in files.items():
            header = "code,date,open,high,low,close,volume"
            if lines and lines[0].count(",") > header.count(","):
                header += ",adj_close"
            (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return open_source("files:" + ",".join(str(tmp_path / name) for name in files), **options)

    return write


@dataclass
class Made:
    """A source of batches made in a test; `codes` are its instruments."""

    batches: list[tuple[str, pd.DataFrame]]
    codes: list[str]
    name: str = "made"
    market: str = "KRX"
    raw: bool = False
    lists_whole_market: bool = False
    unfinished: date | None = None
    asked: list[str] = field(default_factory=list)

    def instruments(self) -> pd.DataFrame:
        frame = pd.DataFrame({"code": self.codes}).assign(
            market=self.market, name="name", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
        )
        return frame[INSTRUMENT]

    def provisional_from(self, today: date) -> date | None:
        return self.unfinished

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        for name, records in self.batches:
            self.asked.append(name)
            yield Batch(name, records.assign(row=range(1, len(records) + 1)))


def records(*rows: tuple[str, str, float], **columns: Any) -> pd.DataFrame:
    """Bars (code, day, close) with a range of one to each side."""
    frame = pd.DataFrame(list(rows), columns=["code", "date", "close"]).assign(volume=100)
    prices = {"open": frame["close"], "high": frame["close"] + 1, "low": frame["close"] - 1}
    return frame.assign(**prices).assign(**columns)


DAYS = [f"2024-07-{day:02}" for day in (22, 23, 24, 25, 26, 29, 30, 31)]


# Every row accounted for.

LINES = [
    "005930,2024-08-01,100,110,90,105,1000",  # a bar
    "005930,2024-08-02,100,104,90,105,1000",  # high 1 won below close: widened
    "005930,2024-08-05,0,0,0,105,0",  # halted
    "005930,2024-08-06,105,105,105,105,0",  # nothing traded
    "005930,2024-08-07,105,106,104,105,10",  # the newest day: unfinished
    "000660,2024-08-01,100,110,90,105,1000",
    "000660,2024-08-01,100,110,90,105,1000",  # the same again
    "000660,2024-08-02,100,110,90,105,1000",  # and two that contradict each other
    "000660,2024-08-02,100,110,90,106,1000",
    "000660,2024-08-05,100,110,90,-105,1000",  # a price below zero
    "000660,2024-08-06,100,90,110,105,1000",  # high below low
    "000660,2024-13-45,100,110,90,105,1000",  # no date
]


def test_every_row_of_a_file_is_accounted_for(loader, write):
    source = write({"krx.csv": LINES})
    run_id, report = run_all(loader, source)
    expected = {
        "read": 12, "inserted": 4, "updated": 0, "unchanged": 0, "refused": 0, "on another basis": 0,
        "duplicates": 1, "rejected": 5,
        "halted": 1, "no-trade": 1, "of which provisional": 1, "of which widened": 1,
    }  # fmt: skip
    assert item(loader, run_id, "krx.csv") == ("done", expected, None)
    assert report.items == {"krx.csv": expected}
    assert accounted(expected) == expected["read"]
    assert ask(loader, "SELECT count(*) FROM live.candles") == [(4,)]
    assert ask(loader, "SELECT kind, to_char(ts AT TIME ZONE 'UTC', 'MM-DD') FROM api.gaps ORDER BY ts") == [
        ("halted", "08-05"), ("no-trade", "08-06")
    ]  # fmt: skip
    assert ask(loader, "SELECT source_row, rule, action FROM api.quarantine ORDER BY source_row") == [
        (2, "high_below_close", "widened"),
        (8, "contradiction", "rejected"),
        (9, "contradiction", "rejected"),
        (10, "bad_price", "rejected"),
        (11, "high_below_low", "rejected"),
        (12, "bad_date", "rejected"),
    ]
    assert ask(loader, "SELECT flags FROM api.candles WHERE day = '2024-08-07'") == [(Flag.PROVISIONAL,)]


def test_collecting_a_file_twice_changes_nothing(loader, write):
    source = write({"krx.csv": LINES})
    first, _ = run_all(loader, source)
    before = everything(loader)
    again, report = run_all(loader, source)
    rows = report.items["krx.csv"]
    assert (rows["inserted"], rows["updated"], rows["unchanged"]) == (0, 0, 4)
    assert accounted(rows) == rows["read"] == 12
    assert everything(loader) == before
    for table in ("live.instruments", "live.candles", "ops.gaps", "ops.quarantine"):
        assert ask(loader, f"SELECT DISTINCT run_id FROM {table}") == [(first,)]
    assert item(loader, again, source.name)[1] == {"read": 2, "inserted": 0, "updated": 0, "unchanged": 2}


def test_the_sample_is_accounted_for_and_twice_is_once(loader):
    # Lines of bokeh-sampledata's five files, without their headers.
    lines = {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}
    _, report = run_all(loader, open_source("sample"))
    assert {name: rows["read"] for name, rows in report.items.items()} == lines
    assert {name: accounted(rows) for name, rows in report.items.items()} == lines
    assert report.errors == {}
    report.check()
    before = everything(loader)
    assert len(before["candles"]) == sum(rows["inserted"] for rows in report.items.values())
    # Apple's two-for-one splits in these years, as the company announced them (ex-dates).
    splits = [row[1:4] for row in before["factors"] if row[0] == "AAPL" and row[4] == "split"]
    assert splits == [(date(2000, 6, 21), 0.5, 2.0), (date(2005, 2, 28), 0.5, 2.0)]

    _, again = run_all(loader, open_source("sample"))
    assert {(rows["inserted"], rows["updated"]) for rows in again.items.values()} == {(0, 0)}
    assert {name: accounted(rows) for name, rows in again.items.items()} == lines
    assert everything(loader) == before
    table = again.table()
    assert table.index.tolist() == [*lines, "total"]
    assert table.loc["total", "read"] == 12_154


def test_the_next_file_finishes_the_bar_that_was_forming_and_closes_the_gap(loader, write):
    run_all(loader, write({"krx.csv": LINES[2:5]}))
    revised = [
        "005930,2024-08-05,105,106,104,105,7",
        "005930,2024-08-07,105,108,104,107,90",
        "005930,2024-08-08,1,1,1,1,1",
    ]
    _, report = run_all(loader, write({"krx.csv": revised}))
    assert report.items["krx.csv"]["updated"] == 1
    bars = ask(loader, "SELECT to_char(day, 'MM-DD'), close, flags FROM api.candles ORDER BY day")
    assert bars == [("08-05", 105, 0), ("08-07", 107, 0), ("08-08", 1, Flag.PROVISIONAL)]
    assert [row[2] for row in everything(loader)["gaps"]] == ["no-trade"]


# What fails.


def test_a_batch_that_fails_leaves_nothing_but_its_record_and_the_next_goes_on(loader):
    good, bad = records(("005930", DAYS[0], 100)), records(("005930", DAYS[1], 100)).drop(columns="volume")
    last = records(("005930", DAYS[2], 100))
    source = Made([("first", good), ("second", bad), ("third", last)], ["005930"])
    run_id, report = run_all(loader, source)
    assert source.asked == ["first", "second", "third"]
    assert [str(row[1].date()) for row in everything(loader)["candles"]] == [DAYS[0], DAYS[2]]
    state, rows, error = item(loader, run_id, "second")
    assert (state, rows) == ("failed", {})
    assert "the records lack volume" in error
    assert item(loader, run_id, "third")[0] == "done"
    with pytest.raises(RunFailed, match="collect_daily: 1 of 3 items failed; the others are stored. second: "):
        report.check()


@pytest.mark.parametrize("how", ["bars", "only gaps"])
def test_a_code_that_is_no_instrument_is_refused_by_name_and_the_others_of_its_batch_are_stored(loader, how):
    mixed = records(("005930", DAYS[0], 100), ("999999", DAYS[0], 100))
    if how == "only gaps":
        mixed.loc[1, ["open", "high", "low", "volume"]] = 0
    source = Made([("mixed", mixed), ("good", records(("005930", DAYS[1], 100)))], ["005930"])
    run_id, report = run_all(loader, source)
    assert list(report.errors) == ["999999"]
    assert "it is no instrument yet. Sync instruments first" in item(loader, run_id, "999999")[2]
    assert report.items["mixed"]["refused"] == 1
    held = everything(loader)
    assert [(row[0], str(row[1].date())) for row in held["candles"]] == [("005930", DAYS[0]), ("005930", DAYS[1])]
    assert held["gaps"] == held["quarantine"] == []


# A source whose prices have one basis for ever.


def test_a_raw_source_corrects_itself_and_takes_the_place_of_what_agrees_with_it(loader):
    one, other = (
        Made([("all", records(*((("005930", day, close)) for day in DAYS[:3])))], ["005930"], raw=True)
        for close in (100.0, 101.0)
    )
    run_all(loader, one)
    _, report = run_all(loader, other)
    assert (report.errors, report.items["all"]["updated"]) == ({}, 3)
    other.name = "somebody else"
    other.batches = [("all", records(*(("005930", day, 55.0) for day in DAYS[:3])))]
    _, report = run_all(loader, other)
    # By one factor another basis: prices as they were traded win, and what stood there is kept.
    assert (report.errors, report.items["all"]["updated"]) == ({}, 3)
    assert ask(loader, "SELECT DISTINCT close FROM api.candles") == [(55.0,)]
    assert sorted(ask(loader, "SELECT close FROM api.revisions")) == [(100.0,)] * 3 + [(101.0,)] * 3


def test_a_bar_of_a_day_that_never_was_is_dropped_when_a_raw_source_does_not_bring_it_again(loader):
    """A quote on a holiday made it; the days around it are asked for again, and it is none of them."""
    first = Made([("all", records(*(("005930", day, 100.0) for day in DAYS)))], ["005930"], raw=True)
    first.unfinished = date.fromisoformat(DAYS[5])
    run_all(loader, first)
    assert len(everything(loader)["candles"]) == 8
    again = Made([("all", records(*(("005930", day, 100.0) for day in DAYS[:5] + DAYS[7:])))], ["005930"], raw=True)
    run_all(loader, again)
    assert [str(row[1].date()) for row in everything(loader)["candles"]] == DAYS[:5] + DAYS[7:]


def test_a_bad_row_of_a_raw_source_is_kept_once_whatever_batch_and_place_it_comes_in(loader):
    for name, before in (("a", 0), ("b", 3)):
        bad = records(*(("005930", day, 100.0) for day in DAYS[3 - before : 4]))
        bad["high"] = [*bad["high"].iloc[:-1], 1.0]
        run_all(loader, Made([(name, bad)], ["005930"], raw=True))
    assert ask(loader, "SELECT count(*) FROM ops.quarantine") == [(1,)]


def test_what_the_database_refuses_fails_its_batch_and_the_next_goes_on(loader, monkeypatch):
    real = store.upsert_gaps

    def refusing(conn: Any, gaps: pd.DataFrame, *args: Any, **options: Any) -> Any:
        if len(gaps):
            conn.execute(text("SELECT 1 / 0"))
        return real(conn, gaps, *args, **options)

    monkeypatch.setattr(store, "upsert_gaps", refusing)
    halted = records(("005930", DAYS[0], 100), ("005930", DAYS[1], 100))
    halted.loc[1, ["open", "high", "low", "volume"]] = 0
    _, report = run_all(loader, Made([("one", halted), ("two", records(("005930", DAYS[2], 100)))], ["005930"]))
    assert report.errors == {"one": "the database refused it (DivisionByZero)."}
    assert [str(row[1].date()) for row in everything(loader)["candles"]] == [DAYS[2]]


def test_a_batch_of_which_nothing_could_be_had_is_not_done(loader):
    class Failing(Made):
        def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
            yield Batch("005930…000660", records(("005930", DAYS[0], 1)).iloc[:0], errors={"005930": "no answer."})

    run_id, report = run_all(loader, Failing([], ["005930"]))
    assert report.errors == {"005930": "no answer."}
    assert ask(loader, "SELECT item, state FROM ops.run_items WHERE run_id = :id AND item <> 'made'", id=run_id) == [
        ("005930", "failed")
    ]


def test_a_bar_is_unfinished_if_it_was_when_the_source_was_asked(loader):
    """It was asked the day before CLOCK's, and the answer is stored today."""

    class Slow(Made):
        def provisional_from(self, today: date) -> date | None:
            return today

        def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
            yield Batch("all", records(("005930", "2024-08-08", 100)), asked_at=NOW - timedelta(days=1))

    run_all(loader, Slow([], ["005930"]))
    assert ask(loader, "SELECT flags FROM live.candles") == [(Flag.PROVISIONAL,)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, "1\x002"], ids=["infinity", "minus infinity", "a zero byte"])
def test_a_price_that_no_table_can_hold_is_rejected_as_a_row_and_kept_as_it_was(loader, value):
    odd = records(("005930", DAYS[0], 100), ("005930", DAYS[1], 100))
    odd["high"] = odd["high"].astype(object)
    odd.loc[1, "high"] = value
    if not isinstance(value, str):
        odd["high"] = odd["high"].astype("float64")
    run_id, report = run_all(loader, Made([("odd", odd)], ["005930"]))
    assert report.errors == {}
    assert item(loader, run_id, "odd")[1]["rejected"] == 1
    assert ask(loader, "SELECT rule, action FROM api.quarantine") == [("bad_price", "rejected")]


def test_a_restated_past_is_joined_by_a_factor_while_what_is_held_keeps_its_prices(loader):
    """Six days are held at 100; then everything is told again at 50, with two more days: a split after the sixth."""
    known = [(code, day, 100.0) for code in ("000660", "005930") for day in DAYS[:6]]
    run_all(loader, Made([("all", records(*known))], ["000660", "005930"]))
    before = [row for row in everything(loader)["candles"] if row[0] == "005930"]
    halved = records(
        *((code, day, 50.0 if code == "005930" else 100.0) for code in ("000660", "005930") for day in DAYS)
    )
    halved.loc[(halved["code"] == "005930") & (halved["date"] == DAYS[7]), ["open", "high", "low", "volume"]] = 0
    source = Made([("all", halved)], ["000660", "005930"])
    _, report = run_all(loader, source)

    after = everything(loader)
    assert [row for row in after["candles"] if row[0] == "005930"][:6] == before
    assert after["factors"] == [("005930", date.fromisoformat(DAYS[6]), 0.5, 2.0, "restatement")]
    closes = ask(loader, "SELECT close FROM api.candles WHERE code = '005930' ORDER BY ts")
    assert closes == [(50.0,)] * 7
    rows = report.items["all"]
    assert (rows["read"], rows["inserted"], rows["unchanged"], rows["on another basis"], rows["halted"]) == (
        16,
        3,
        6,
        6,
        1,
    )
    assert accounted(rows) == 16
    told = ask(loader, "SELECT code, verdict, ex_date::text, ratio, overlap, differing FROM api.restatements")
    assert told == [("005930", "rebased", DAYS[6], 0.5, 6, 6)]

    run_all(loader, source)
    assert everything(loader) == after
    assert ask(loader, "SELECT count(*) FROM api.restatements") == [(1,)]


def test_an_instrument_that_is_told_differently_by_no_one_factor_is_refused_while_others_go_in(loader):
    known = [(code, day, 1000.0) for code in ("000660", "005930") for day in DAYS[:6]]
    run_all(loader, Made([("all", records(*known))], ["000660", "005930"]))
    before = everything(loader)
    # 3 % on the first three days alone: a rights issue, or an error of either.
    other = dict.fromkeys(DAYS[:3], 970.0)
    told = records(
        *(
            (code, day, other.get(day, 1000.0) if code == "005930" else 1000.0)
            for code in ("000660", "005930")
            for day in DAYS
        )
    )
    run_id, report = run_all(loader, Made([("all", told)], ["000660", "005930"]))
    after = everything(loader)
    assert [row for row in after["candles"] if row[0] == "005930"] == [
        row for row in before["candles"] if row[0] == "005930"
    ]
    assert len([row for row in after["candles"] if row[0] == "000660"]) == 8
    assert (report.items["all"]["refused"], after["factors"]) == (8, [])
    assert accounted(report.items["all"]) == 16
    says = f"3 of 6 closes held differ, and not by one factor: the ratio changes 1 times, first on {DAYS[3]}"
    state, _, error = item(loader, run_id, "005930")
    assert state == "failed" and says in error
    with pytest.raises(RunFailed, match="005930: its past was restated"):
        report.check()


def test_a_refused_instrument_that_is_a_batch_of_its_own_keeps_the_count_of_its_rows(loader):
    """The sample's batches are named by their codes, so that both are one record."""
    for close in (1000.0, 970.0):
        told = [("005930", day, close if day < DAYS[4] else 1000.0) for day in DAYS]
        run_id, report = run_all(loader, Made([("005930", records(*told))], ["005930"]))
    state, rows, error = item(loader, run_id, "005930")
    assert state == "failed" and "restated" in error
    assert (rows["read"], rows["refused"]) == (8, 8)
    with pytest.raises(RunFailed, match="1 of 1 items failed"):
        report.check()


def test_a_run_that_was_given_up_writes_nothing_any_more(loader):
    source = Made([("all", records(("005930", DAYS[0], 100.0)))], ["005930"])
    with (
        pytest.raises(Fenced, match="it counts as ended already"),  # nor does it end a second time
        ledger.notebook_run(loader, None, job="collect_daily", clock=CLOCK) as run_id,
    ):
        sync_instruments(loader, source, run_id=run_id, clock=CLOCK)
        with loader.begin() as conn:
            conn.execute(text("UPDATE ops.runs SET state = 'lost' WHERE run_id = :run_id"), {"run_id": run_id})
        with pytest.raises(Fenced, match="it counts as lost"):
            collect_daily(loader, source, run_id=run_id, clock=CLOCK)
    assert everything(loader)["candles"] == []


def test_what_a_source_was_asked_is_kept_with_the_bars(loader):
    run_all(loader, Made([("all", records(*(("005930", day, 100.0) for day in DAYS)))], ["005930"]))
    cursors = ask(loader, "SELECT timeframe, source, asked_from::text, asked_until FROM ops.cursors")
    assert cursors == [("1d", "made", DAYS[0], NOW)]


def test_an_adjusted_close_that_makes_no_sense_refuses_its_instrument_only(loader):
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2024-06-03", periods=50)]
    rows = [(code, day, 100.0) for code in ("000660", "005930") for day in days]
    adjusted = [100.0] * 50 + [100.0 - n for n in range(50)]  # a step every day
    _, report = run_all(loader, Made([("all", records(*rows, adj_close=adjusted))], ["000660", "005930"]))
    assert list(report.errors) == ["005930"]
    assert "adj_close" in report.errors["005930"]
    assert {row[0] for row in everything(loader)["candles"]} == {"000660"}
    assert accounted(report.items["all"]) == 100


# Faults in between.

STEPS = [
    (stage, "stage_candles"), (stage, "keep_official_closes"), (joining, "suspects"), (stage, "upsert_staged"),
    (stage, "close_gaps"), (store, "drop_unfinished"), (store, "upsert_gaps"),
    (store, "add_quarantine"), (factors, "upsert_factors"), (store, "move_watermark"), (store, "keep_cursors"),
]  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("module", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_run_that_dies_and_is_repeated_ends_as_a_clean_one(loader, monkeypatch, module, step, when):
    half = 4
    lines = [("005930", day, 100.0 + n) for n, day in enumerate(DAYS)]
    batches = [
        (name, records(*part, adj_close=[close / 2 if day < DAYS[2] else close for _, day, close in part]))
        for name, part in (("one", lines[:half]), ("two", lines[half:]))
    ]
    batches[1][1].loc[0, ["open", "high", "low", "volume"]] = 0  # halted
    batches[1][1].loc[1, "high"] = 1.0  # below low
    source = Made(batches, ["005930"])
    calls = 0
    real = getattr(module, step)

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 and when == "before":
            raise KeyboardInterrupt
        result = real(*args, **options)
        if calls == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(module, step, dying)
    with suppress(KeyboardInterrupt):
        run_all(loader, source)
    assert calls == 2
    monkeypatch.undo()
    assert len(everything(loader)["candles"]) == half  # the first batch whole, of the second nothing
    run_all(loader, source)
    candles = [(f"{row[1]:%Y-%m-%d}", row[5]) for row in everything(loader)["candles"]]
    assert candles == [(day, close) for n, (_, day, close) in enumerate(lines) if n not in {4, 5}]
    assert [row[2] for row in everything(loader)["gaps"]] == ["halted"]
    assert [row[2] for row in everything(loader)["quarantine"]] == ["high_below_low"]
    states = ask(loader, "SELECT state FROM ops.runs ORDER BY started_at, finished_at")
    assert states == [("failed",), ("succeeded",)]


KEYS = [(code, day) for code in ("000660", "005930") for day in DAYS]


@given(
    loads=st.lists(
        st.tuples(st.lists(st.sampled_from(KEYS), unique=True, min_size=1), st.none() | st.sampled_from(DAYS)),
        max_size=4,
    ),
    repeats=st.lists(st.integers(0, 3), max_size=2),
)
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_collections_ends_in_the_table_of_one_clean_collection(loader, loads, repeats):
    with loader.begin() as conn:
        for table in ("live.candles", "live.instruments", "ops.gaps", "ops.quarantine", "live.factors"):
            conn.execute(text(f"DELETE FROM {table}"))

    def source(keys: list[tuple[str, str]], unfinished: str | None) -> Made:
        # What is unfinished has another close than it ends with.
        rows = [(*key, 100.0 + KEYS.index(key) + (0.5 if unfinished and key[1] >= unfinished else 0)) for key in keys]
        day = date.fromisoformat(unfinished) if unfinished else None
        return Made([("all", records(*rows))], ["000660", "005930"], unfinished=day)

    for keys, unfinished in loads + [loads[n] for n in repeats if n < len(loads)]:
        _, report = run_all(loader, source(keys, unfinished))
        assert report.errors == {}
        assert accounted(report.items["all"]) == len(keys)
    run_all(loader, source(KEYS, None))
    held = [(row[0], f"{row[1]:%Y-%m-%d}", row[5], row[8]) for row in everything(loader)["candles"]]
    assert held == [(*key, 100.0 + n, 0) for n, key in enumerate(KEYS)]


def test_a_list_that_lacks_an_instrument_keeps_it_as_it_is(loader):
    run_all(loader, Made([], ["000660", "005930"]))
    run_all(loader, Made([], ["005930"]))
    assert ask(loader, "SELECT code, delisted_on FROM live.instruments ORDER BY code") == [
        ("000660", None),
        ("005930", None),
    ]


# The report.


def test_a_report_names_what_failed_and_counts_the_rest():
    report = collect.Report("collect_daily", items={"a": {"read": 1}, "b": {"read": 2, "halted": 1}})
    report.check()
    assert report.table().to_dict("index") == {
        "a": {"read": 1, "halted": 0}, "b": {"read": 2, "halted": 1}, "total": {"read": 3, "halted": 1}
    }  # fmt: skip
    report.errors["c"] = "no such file."
    with pytest.raises(RunFailed, match="1 of 3 items failed; the others are stored. c: no such file."):
        report.check()

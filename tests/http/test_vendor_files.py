"""Kiwoom's own rows, replayed by the simulator and read by our client, are stored as they are written in the vendor's files.

The files are read here with `csv` and `pandas` alone. Each is played by itself: beside a longer one, a shorter one would count
as delisted.
"""

import csv
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import collect, ledger
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.replay import ReplayMarket
from chartinsight_lib.simulator.server import SimulatorServer
from chartinsight_lib.sources import open_source

pytestmark = pytest.mark.shared

KST = ZoneInfo("Asia/Seoul")
OFTEN = 1_000  # requests a second: the quota has tests of its own
NUMBERS = ["open", "high", "low", "close", "volume"]

Day = tuple[date, int, int, int, int, int]
"""Date, open, high, low, close in won, volume in shares."""

# Section 7.1 of the specification, as other people have recorded them from the real host; value in million won.
REGRESSION = {
    date(2025, 7, 25): (65_700, 66_300, 65_500, 65_900, 8_080_910, 532_537),
    date(2025, 8, 7): (70_800, 71_000, 69_700, 70_500, 15_008_213, 1_055_403),
}


def collected(engine: Engine, records: pd.DataFrame) -> collect.Report:
    """Play one code's records, read them with our client on the evening of the day after the last, and store them."""
    evening = datetime.combine(max(records["date"]) + timedelta(days=1), datetime.min.time(), KST).replace(hour=21)
    market = ReplayMarket.from_records(records, "vendor")
    with SimulatorServer(market, SimulatedClock(evening, speed=0), Options(quota=OFTEN)) as server:
        settings = Settings(
            kiwoom_url=server.url, kiwoom_appkey="simulated-appkey", kiwoom_secretkey="simulated-secretkey",
            kiwoom_rate=OFTEN, kiwoom_years=60, now=evening.isoformat(), _env_file=None,
        )  # fmt: skip
        source, clock = open_source("simulated", settings, engine), settings.clock
        with ledger.notebook_run(engine, None, job="collect_daily", clock=clock) as run_id:
            sync_instruments(engine, source, run_id=run_id, clock=clock)
            return collect.collect_daily(engine, source, run_id=run_id, clock=clock)


def ask(engine: Engine, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement), values)]


def stored(engine: Engine, code: str) -> list[Day]:
    """The bars held, ascending; every one of them final."""
    found = ask(
        engine,
        "SELECT day, open, high, low, close, volume, final FROM api.candles_raw "
        "WHERE market = 'SIM' AND code = :code AND timeframe = '1d' ORDER BY ts",
        code=code,
    )
    assert all(final for *_, final in found)
    return [(day, *numbers) for day, *numbers, _ in found]


def gaps(engine: Engine, code: str) -> list[date]:
    found = ask(
        engine,
        "SELECT (g.ts AT TIME ZONE 'UTC')::date FROM ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id "
        "WHERE i.market = 'SIM' AND i.code = :code AND g.timeframe = '1d' ORDER BY g.ts",
        code=code,
    )
    return [day for (day,) in found]


def check(engine: Engine, report: collect.Report, code: str, written: Sequence[Day]) -> None:
    """Every row of the file is a bar with its numbers, or a gap where it says that nothing was traded; and no more."""
    assert report.errors == {}
    assert stored(engine, code) == [row for row in written if row[-1]]
    assert gaps(engine, code) == [row[0] for row in written if not row[-1]]
    assert ask(engine, "SELECT count(*) FROM ops.quarantine") == [(0,)]
    assert ask(engine, "SELECT count(*) FROM live.factors") == [(0,)]  # the vendor's prices are adjusted already


def replayed(engine: Engine, own: pd.DataFrame) -> None:
    """Play and collect a file's rows (code, date, NUMBERS), and compare."""
    written = list(own[["date", *NUMBERS]].itertuples(index=False, name=None))
    check(engine, collected(engine, own), str(own["code"].iloc[0]), written)


def compared(folder: Path, source: str, code: str) -> pd.DataFrame:
    """One code's rows of a source in the file that lays vendors side by side."""
    table = pd.read_parquet(folder / "krx_daily_vendor_compare.parquet")
    return table.loc[(table["source"] == source) & (table["code"] == code), ["code", "date", *NUMBERS]]


@pytest.mark.parametrize(
    ("source", "code", "rows", "quiet"),
    [
        ("kiwoom_rest_2025", "005930", 1_187, 0),
        ("kiwoom_rest_2025", "000660", 468, 0),
        ("kiwoom_2023", "005930", 8_343, 3),  # the halt of its split in 2018
        ("kiwoom_2023", "000660", 6_693, 14),
    ],
)
def test_a_history_of_the_vendor_is_stored_to_the_won_and_the_share(loader, shared_data, source, code, rows, quiet):
    own = compared(shared_data, source, code)
    assert (len(own), int((own["volume"] == 0).sum())) == (rows, quiet)
    replayed(loader, own)


def test_the_rows_recorded_from_the_real_host_are_among_those_stored(loader, shared_data):
    replayed(loader, compared(shared_data, "kiwoom_rest_2025", "005930"))
    held = {row[0]: row[1:] for row in stored(loader, "005930")}
    assert {day: held[day] for day in REGRESSION} == {day: bar[:5] for day, bar in REGRESSION.items()}


def test_the_rows_that_kiwoom_sent_are_stored_with_their_traded_value(loader, shared_data):
    fields = ("open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty", "trde_prica")
    with (shared_data / "raw_files" / "kiwoom_rest_original_005930.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [(day(row["dt"]), *(int(row[name]) for name in fields)) for row in csv.DictReader(file)]
    assert len(rows) == 231
    own = pd.DataFrame(rows, columns=["date", *NUMBERS, "million"]).assign(code="005930")
    replayed(loader, own.assign(value=own["million"] * 1_000_000))
    values = dict(ask(loader, "SELECT day, value FROM api.candles_raw WHERE market = 'SIM'"))
    assert values == {row[0]: row[-1] * 1_000_000 for row in rows}
    assert values[date(2025, 7, 25)] == REGRESSION[date(2025, 7, 25)][-1] * 1_000_000


def test_the_same_rows_as_another_project_had_written_them_are_stored(loader, shared_data):
    fields = ("Open", "High", "Low", "Close", "Volume")
    with (shared_data / "raw_files" / "kiwoom_rest_normalised_005930.csv").open(
        encoding="utf-8-sig", newline=""
    ) as file:
        rows = [(day(row["date"]), *(int(row[name]) for name in fields)) for row in csv.DictReader(file)]
    assert len(rows) == 231
    replayed(loader, pd.DataFrame(rows, columns=["date", *NUMBERS]).assign(code="005930"))


def day(written: str) -> date:
    return date.fromisoformat(written)  # with hyphens or without

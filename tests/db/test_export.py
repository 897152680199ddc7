"""Bars into files and back: what is written, what it is said to be, and that imported again it is the same."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.cli import main
from chartinsight_lib.clients import open_source
from chartinsight_lib.clients.base import Source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, NotFound, SchemaError
from chartinsight_lib.export import Exported, export
from chartinsight_lib.export.files import plain
from chartinsight_lib.listing import sync_instruments

CLOCK = fixed_clock(datetime(2024, 8, 9, 9, tzinfo=UTC))
HEADER = "code,name,date,open,high,low,close,volume,value"
LINES = [
    "005930,가나전자,2024-08-05,76700,77000,70200,71400,54747512,3956000000000",
    "005930,가나전자,2024-08-06,74600,74800,72500,72500,30000001,2200000000000",
    "005930,가나전자,2024-08-07,73000,73010,72000,73020,20000000,",  # high a won below close: widened
    "005930,가나전자,2024-08-08,73100,74000,73000,74000,9000000,660000000000",  # the newest day: unfinished
    "000120,=HYPERLINK(A1)<b>,2024-08-05,100,110,90,105,1000,",
    "000120,=HYPERLINK(A1)<b>,2024-08-06,105,106,104,105.5,0,",
]


def load(engine: Engine, source: Source) -> None:
    with ledger.notebook_run(engine, None, job="collect_daily", clock=CLOCK) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=CLOCK)
        collect_daily(engine, source, run_id=run_id, clock=CLOCK).check()


def held(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Bars, instruments and events, without where they came from and when."""
    queries = {
        "bars": "SELECT code, ts, open, high, low, close, volume, value, flags FROM api.candles_raw ORDER BY code, ts",
        "instruments": "SELECT market, code, name, kind, sector, listed_on, delisted_on, currency FROM live.instruments "
        "ORDER BY code",
    }
    with engine.connect() as conn:
        return {name: [tuple(row) for row in conn.execute(text(query))] for name, query in queries.items()}


def act(engine: Engine, code: str, ex_date: date, kind: str, price: float, volume: float) -> None:
    """Store a corporate action as a source would have told it."""
    with engine.begin() as conn:
        conn.execute(
            text("""
                INSERT INTO live.factors (instrument_id, ex_date, source, price_factor, volume_factor, kind, detected_at, run_id)
                SELECT id, :ex_date, 'made', :price, :volume, :kind, :now, gen_random_uuid() FROM live.instruments
                WHERE code = :code
            """),
            {"code": code, "ex_date": ex_date, "kind": kind, "price": price, "volume": volume, "now": CLOCK()},
        )


@pytest.fixture
def stored(loader: Engine, tmp_path: Path) -> Engine:
    """A database that holds LINES, with a split of 005930 on 08-06 and a dividend on 08-07."""
    (tmp_path / "in.csv").write_text("\n".join([HEADER, *LINES]) + "\n", encoding="utf-8")
    load(loader, open_source(f"files:{tmp_path / 'in.csv'}"))
    act(loader, "005930", date(2024, 8, 6), "split", 0.5, 2.0)
    act(loader, "005930", date(2024, 8, 7), "dividend", 0.99, 1.0)
    return loader


def write(engine: Engine, to: Path, **options: Any) -> Exported:
    with engine.connect() as conn:
        return export(conn, to, market=options.pop("market", "KRX"), clock=CLOCK, **options)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_raw_bars_that_are_imported_again_are_the_same_bars(stored, emptied, tmp_path, ending):
    before = held(stored)
    write(stored, tmp_path / f"all.{ending}")
    emptied()
    load(stored, open_source(f"files:{tmp_path / f'all.{ending}'}"))
    assert held(stored) == before
    assert [row[-1] for row in before["bars"]] == [0, 0, 0, 0, 4, 1], (
        "plain, unfinished and widened bars are among them"
    )
    assert before["instruments"][0][2] == "=HYPERLINK(A1)<b>"


# Of bars that lie further apart some are rejected as on another scale: by their neighbours, so by others when they are gone.
prices = st.integers(10_000, 90_000)


@given(
    days=st.lists(
        st.tuples(prices, prices, prices, prices, st.integers(0, 10**11), st.none() | st.integers(0, 10**15)),
        min_size=1,
        max_size=8,
    ),
    cents=st.booleans(),
    ending=st.sampled_from(["parquet", "csv"]),
)
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bars_come_back_as_they_were(loader, emptied, tmp_path, days, cents, ending):
    emptied()
    lines = ["code,date,open,high,low,close,volume,value"]
    for number, (first, second, third, fourth, volume, value) in enumerate(days):
        low, *between, high = sorted((first, second, third, fourth))
        shown = [price / 100 if cents else price for price in (between[0], high, low, between[1])]
        lines.append(
            f"005930,2024-07-{number + 1:02},{','.join(map(str, shown))},{volume},{'' if value is None else value}"
        )
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    load(loader, open_source(f"files:{tmp_path / 'in.csv'}", last_day="final"))
    before = held(loader)
    if not before["bars"]:
        return
    write(loader, tmp_path / f"out.{ending}", force=True)
    emptied()
    load(loader, open_source(f"files:{tmp_path / f'out.{ending}'}"))
    assert held(loader) == before


def test_the_manifest_says_what_the_file_holds(stored, tmp_path):
    done = write(stored, tmp_path / "all.csv", as_of=date(2024, 8, 7))
    told = json.loads((tmp_path / "all.csv.manifest.json").read_text(encoding="utf-8"))
    assert told["format"] == "chartinsight-export/1"
    assert (told["market"], told["timeframe"], told["basis"], told["as_of"]) == ("KRX", "1d", "raw", "2024-08-07")
    assert (told["rows"], told["provisional"], told["simulated"]) == (5, 0, False)
    assert told["sources"] == ["files:in.csv"]
    assert told["columns"] == [
        "code", "name", "date", "open", "high", "low", "close", "volume", "value", "final", "flags", "source",
    ]  # fmt: skip
    assert [(one["code"], one["ex_date"], one["kind"]) for one in told["factors"]] == [
        ("005930", "2024-08-06", "split"),
        ("005930", "2024-08-07", "dividend"),
    ]
    assert told["applied"] == []
    assert told["exported_at"] == "2024-08-09T09:00:00+00:00"
    import hashlib

    data = (tmp_path / "all.csv").read_bytes()
    assert told["files"] == {"all.csv": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": 5}}
    assert done.manifest.rows == 5


def test_unfinished_bars_are_marked_and_can_be_left_out(stored, tmp_path):
    write(stored, tmp_path / "all.parquet")
    write(stored, tmp_path / "final.parquet", final_only=True)
    every, final = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("all", "final"))
    assert every.loc[~every["final"], "date"].dt.strftime("%m-%d").tolist() == ["08-08"]
    assert len(final) == 5
    assert final["final"].all()


@pytest.mark.parametrize(
    ("basis", "closes", "volume"),
    [
        ("raw", [71_400, 72_500, 73_020], 54_747_512),
        ("price", [35_700, 72_500, 73_020], 109_495_024),  # 2 for 1 on 08-06
        ("price+dividend", [35_343, 71_775, 73_020], 109_495_024),  # and 1 % paid on 08-07
    ],
)
def test_prices_are_on_the_basis_that_is_asked_for(stored, tmp_path, basis, closes, volume):
    write(stored, tmp_path / "x.parquet", codes=["005930"], basis=basis, final_only=True)
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert table["close"].tolist() == pytest.approx(closes)
    assert table["volume"].iloc[0] == volume


def test_days_and_codes_can_be_chosen_and_longer_bars_are_made(stored, tmp_path):
    write(stored, tmp_path / "two.csv", since=date(2024, 8, 6), until=date(2024, 8, 7), codes=["005930"])
    two = pd.read_csv(tmp_path / "two.csv", dtype={"code": str})
    assert two[["code", "date"]].values.tolist() == [["005930", "2024-08-06"], ["005930", "2024-08-07"]]
    write(stored, tmp_path / "week.csv", timeframe="1w", codes=["005930"], basis="price")
    week = pd.read_csv(tmp_path / "week.csv")
    assert week[["date", "open", "close"]].values.tolist() == [["2024-08-05", 38_350.0, 74_000.0]]


def test_the_columns_of_yfinance_carry_the_dividend_in_adj_close_alone(stored, tmp_path):
    write(stored, tmp_path / "yf", style="yfinance", codes=["005930"], file_format="csv")
    table = pd.read_csv(tmp_path / "yf" / "005930.csv", index_col="Date", parse_dates=True)
    assert table.columns.tolist() == ["Open", "High", "Low", "Close", "Adj Close", "Volume"]
    assert table["Close"].tolist() == [35_700, 72_500, 73_020]
    assert table["Adj Close"].tolist() == pytest.approx([35_343, 71_775, 73_020])


def test_the_columns_of_backtesting_are_indexed_by_time(stored, tmp_path):
    write(stored, tmp_path / "bt.parquet", style="backtesting", codes=["005930"])
    table = pd.read_parquet(tmp_path / "bt.parquet")
    assert table.columns.tolist() == ["Open", "High", "Low", "Close", "Volume"]
    assert isinstance(table.index, pd.DatetimeIndex)
    assert table.index.tz is None


def test_the_columns_of_pykrx_are_korean_with_the_change_in_percent(stored, tmp_path):
    write(stored, tmp_path / "k.csv", style="pykrx", codes=["005930"], since=date(2024, 8, 6))
    table = pd.read_csv(tmp_path / "k.csv")
    assert table.columns.tolist() == ["날짜", "시가", "고가", "저가", "종가", "거래량", "거래대금", "등락률"]
    # 72,500 after 35,700 (the half of 71,400), and 73,020 after that; the day before `since` counts.
    assert table["등락률"].tolist() == [103.08, 0.72]
    assert np.isnan(table["거래대금"].iloc[1])


def test_in_the_columns_of_others_no_bar_is_unfinished(stored, tmp_path):
    done = write(stored, tmp_path / "all", style="yfinance")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "000120.parquet",
        "005930.parquet",
        "manifest.json",
    ]
    assert (done.manifest.final_only, done.manifest.provisional, done.manifest.rows) == (True, 0, 5)


def test_simulated_prices_are_marked_in_every_style_and_stay_so_when_imported(stored, emptied, tmp_path):
    with stored.begin() as conn:
        conn.execute(text("UPDATE live.candles SET source = 'simulated (seed 7)'"))
        conn.execute(text("UPDATE live.instruments SET market = 'SIM'"))
    for style, mark in (
        ("chartinsight", "source"),
        ("yfinance", "Source"),
        ("backtesting", "Source"),
        ("pykrx", "출처"),
    ):
        done = write(stored, tmp_path / f"{style}.parquet", style=style, market="SIM", codes=["005930"])
        assert done.manifest.simulated
        assert set(pd.read_parquet(tmp_path / f"{style}.parquet")[mark]) == {"simulated (seed 7)"}
    source = open_source(f"files:{tmp_path / 'chartinsight.parquet'}")
    assert (source.market, source.name) == ("SIM", "simulated (files:chartinsight.parquet)")
    with pytest.raises(ConfigError, match="different markets, KRX and SIM"):
        open_source(f"files:{tmp_path / 'chartinsight.parquet'}", market="KRX").market  # noqa: B018


def test_a_file_that_was_changed_after_its_export_is_refused(stored, tmp_path):
    write(stored, tmp_path / "all.csv")
    data = (tmp_path / "all.csv").read_text(encoding="utf-8")
    (tmp_path / "all.csv").write_text(data.replace("71400", "71401"), encoding="utf-8")
    with pytest.raises(SchemaError, match="it is not what was exported: its SHA-256 is"):
        open_source(f"files:{tmp_path / 'all.csv'}").instruments()
    (tmp_path / "all.csv.manifest.json").unlink()  # it is a file as any other then
    assert len(open_source(f"files:{tmp_path / 'all.csv'}").instruments()) == 2


def test_a_folder_that_was_exported_goes_in_again_with_its_dividends(stored, emptied, tmp_path):
    write(stored, tmp_path / "all", style="yfinance", codes=["005930"])
    source = open_source(f"files:{tmp_path / 'all'}")
    assert source.provisional_from(date(2030, 1, 1)) is None, "no bar of it is unfinished, says its manifest"
    emptied()
    load(stored, source)
    with stored.connect() as conn:
        closes = [row.close for row in conn.execute(text("SELECT close FROM api.candles_raw ORDER BY ts"))]
    assert closes == [35_700, 72_500, 73_020]


def test_actions_that_raw_prices_do_not_know_of_come_along(stored, tmp_path):
    write(stored, tmp_path / "raw.parquet")
    write(stored, tmp_path / "price.parquet", basis="price")
    (raw,) = open_source(f"files:{tmp_path / 'raw.parquet'}").daily()
    assert raw.factors[["code", "ex_date", "kind", "price_factor"]].values.tolist() == [
        ["005930", date(2024, 8, 6), "split", 0.5],
        ["005930", date(2024, 8, 7), "dividend", 0.99],
    ]
    (price,) = open_source(f"files:{tmp_path / 'price.parquet'}").daily()
    assert price.factors is None


def test_longer_bars_are_not_taken_for_daily_ones(stored, tmp_path):
    write(stored, tmp_path / "week.parquet", timeframe="1w")
    with pytest.raises(SchemaError, match="holds bars of 1w, says its manifest"):
        open_source(f"files:{tmp_path / 'week.parquet'}").instruments()


@pytest.mark.parametrize(
    ("text_of_it", "words"),
    [
        ("{not JSON", "the manifest cannot be read"),
        ('{"format": "chartinsight-export/9"}', "its format is chartinsight-export/9"),
        ('{"format": "chartinsight-export/1", "files": {}}', "other entries than"),
    ],
)
def test_a_manifest_that_cannot_be_understood_vouches_for_nothing(tmp_path, text_of_it, words):
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *LINES]), encoding="utf-8")
    (tmp_path / "a.csv.manifest.json").write_text(text_of_it, encoding="utf-8")
    with pytest.raises(SchemaError, match=words):
        open_source(f"files:{tmp_path / 'a.csv'}").instruments()


def test_a_manifest_of_somebody_elses_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *LINES]), encoding="utf-8")
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}', encoding="utf-8")
    assert len(open_source(f"files:{tmp_path}").instruments()) == 2


def test_nothing_is_replaced_unless_it_is_asked_for_and_was_exported(stored, tmp_path):
    write(stored, tmp_path / "all.csv")
    with pytest.raises(ConfigError, match="exists already. Name another, or add --force"):
        write(stored, tmp_path / "all.csv")
    write(stored, tmp_path / "all.csv", force=True)
    write(stored, tmp_path / "folder", style="pykrx")
    write(stored, tmp_path / "folder", style="yfinance", force=True)
    (tmp_path / "folder" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds something that was not exported"):
        write(stored, tmp_path / "folder", style="yfinance", force=True)
    assert (tmp_path / "folder" / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_an_export_that_fails_leaves_what_was_there_and_nothing_else(stored, tmp_path, monkeypatch):
    write(stored, tmp_path / "all.csv")
    write(stored, tmp_path / "folder", style="yfinance")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for target, style in (("all.csv", "chartinsight"), ("folder", "yfinance"), ("new.csv", "chartinsight")):
        with pytest.raises(OSError, match="No space left"):
            write(stored, tmp_path / target, style=style, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("to", "options", "kind", "words"),
    [
        ("x.csv", {"codes": ["999999"]}, NotFound, "has no instrument 999999"),
        ("x.csv", {"since": date(2030, 1, 1)}, NotFound, "nothing is held of KRX in 1d that is wanted"),
        ("x.csv", {"timeframe": "7x"}, NotFound, "7x"),
        ("x.csv", {"basis": "adjusted"}, ConfigError, "adjusted"),
        ("x.csv", {"style": "excel"}, ConfigError, "style 'excel' is not known"),
        ("x", {}, ConfigError, "x is to be one file. End its name in .parquet or .csv"),
        ("x.csv", {"file_format": "parquet"}, ConfigError, "ends like csv, and parquet is asked for"),
        ("x.csv", {"style": "pykrx"}, ConfigError, "each of 2 instruments has its own"),
        ("nowhere/x.csv", {}, ConfigError, "there is no folder"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(stored, tmp_path, to, options, kind, words):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind, match=words):
        write(stored, tmp_path / to, **options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("word", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1", "'-1"),
        ("<script>", "&lt;script&gt;"),
        ("two\r\nlines", "two lines"),
        ("S&P 500", "S&P 500"),
        ("가나=전자", "가나=전자"),
        (1.5, 1.5),
    ],
)
def test_a_name_is_no_formula_and_no_markup(word, safe):
    assert plain(word) == safe


def test_a_parquet_file_holds_dates_and_numbers_as_such(stored, tmp_path):
    write(stored, tmp_path / "all.parquet")
    kinds = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "all.parquet")}
    assert kinds["date"].startswith("timestamp")
    assert (kinds["close"], kinds["volume"], kinds["final"], kinds["flags"]) == ("double", "int64", "bool", "int16")


def test_the_command_writes_prints_what_it_wrote_and_refuses_what_is_there(stored, database, tmp_path, monkeypatch):
    monkeypatch.setattr("chartinsight_lib.settings.PROJECT", tmp_path)  # the developer's .env is not read
    surroundings = {
        "DATABASE_URL": database.urls[Role.LOADER].render_as_string(hide_password=False),
        "CHARTINSIGHT_HOME": str(tmp_path / "home"),
        "CHARTINSIGHT_NOW": "2024-08-09T18:00+09:00",
    }
    arguments = ["data", "export", "--to", str(tmp_path / "all.csv"), "--codes", "005930", "--until", "2024-08-08"]
    first = CliRunner().invoke(main, arguments, env=surroundings)
    assert first.exit_code == 0, first.output
    assert "4 bars of 1 instruments (KRX 1d, raw, 1 unfinished): " in first.stdout
    again = CliRunner().invoke(main, arguments, env=surroundings)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert json.loads((tmp_path / "all.csv.manifest.json").read_text(encoding="utf-8"))["exported_at"].startswith(
        "2024-08-09T09"
    )

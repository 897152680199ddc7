"""What is held in a database is played again: raw bars, halts and splits."""

from datetime import UTC, date, datetime
from uuid import UUID

import pandas as pd
import pytest
from sqlalchemy import Engine

from chartinsight_lib.db import stage, store
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.factors import upsert_factors
from chartinsight_lib.db.instruments import instrument_ids, upsert_instruments
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import CANDLE, FACTOR, GAP, INSTRUMENT
from chartinsight_lib.errors import ConfigError, DatabaseError
from chartinsight_lib.simulator.model import Event
from chartinsight_lib.simulator.replay import ReplayMarket

RUN = UUID(int=1)
NOW = datetime(2024, 8, 20, 12, tzinfo=UTC)
BARS = [
    ("2018-04-27", 2_669_000, 2_682_000, 2_622_000, 2_650_000, 606_216, 1.6e12, 0),
    ("2018-05-04", 53_000, 53_900, 51_800, 51_900, 39_565_391, 2.1e12, 0),
]


def test_raw_bars_halts_and_splits_are_played(database: Database, loader: Engine):
    with loader.begin() as conn:
        one = pd.DataFrame({"code": ["005930"]}).assign(
            market="KRX", name="name", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
        )
        upsert_instruments(conn, one[INSTRUMENT], source="test", run_id=RUN)
        ids = instrument_ids(conn, "KRX")
        bars = pd.DataFrame([("005930", *row) for row in BARS], columns=CANDLE)
        floats = dict.fromkeys(["open", "high", "low", "close", "value"], "float64")
        bars = bars.assign(ts=pd.to_datetime(bars["ts"], utc=True)).astype(floats | {"flags": "int16"})
        staged = stage.stage_candles(conn, bars, ids, "1d")
        stage.upsert_staged(conn, staged, source="test", run_id=RUN, now=NOW)
        gap = pd.DataFrame([("005930", pd.Timestamp("2018-05-02", tz="UTC"), "halted")], columns=GAP)
        store.upsert_gaps(conn, gap, ids, timeframe="1d", source="test", run_id=RUN)
        split = pd.DataFrame([("005930", date(2018, 5, 4), 0.02, 50.0, "split")], columns=FACTOR)
        now = datetime(2018, 5, 5, tzinfo=UTC)
        upsert_factors(conn, split, ids, source="test", detected_at=now, run_id=RUN)
    market = ReplayMarket.from_database(database.url(Role.READER))
    held = market.daily("005930")
    assert held.day.astype(str).tolist() == ["2018-04-27", "2018-05-02", "2018-05-04"]
    assert held.open.tolist() == [2_669_000, 2_650_000, 53_000]
    assert held.value.tolist() == [1_600_000_000_000, 0, 2_100_000_000_000]
    assert held.halted.tolist() == [False, True, False]
    assert market.events("005930") == (Event(date(2018, 5, 4), 53_000, 2_650_000, "split"),)


def test_a_wrong_address_and_an_empty_market_are_told(database: Database):
    with pytest.raises(ConfigError, match="no daily bars"):
        ReplayMarket.from_database(database.url(Role.READER), market="NONE")
    with pytest.raises(ConfigError, match="address"):
        ReplayMarket.from_database("nonsense")
    with pytest.raises(DatabaseError):
        ReplayMarket.from_database("postgresql://nobody:secret@127.0.0.1:1/none")

"""What the tests of reading hold: instruments, bars and corporate actions, said in a line each."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection

from chartinsight_lib.db import stage
from chartinsight_lib.db.factors import upsert_factors
from chartinsight_lib.db.instruments import instrument_ids, upsert_instruments
from chartinsight_lib.domain import CANDLE, FACTOR, INSTRUMENT, NUMBERS

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


def hold(
    conn: Connection,
    code: str,
    bars: Mapping[str, tuple],
    *,
    market: str = "KRX",
    timeframe: str = "1d",
    source: str = "test",
    now: datetime = NOW,
) -> None:
    """Store bars given as {day, or time with an offset: (open, high, low, close, volume, value, flags)}."""
    frame = pd.DataFrame([(code, day, *row) for day, row in bars.items()], columns=CANDLE)
    kinds = dict.fromkeys(["open", "high", "low", "close", "value"], "float64") | {"volume": "int64", "flags": "int16"}
    frame = frame.assign(ts=pd.to_datetime(frame["ts"], utc=True)).astype(kinds)
    staged = stage.stage_candles(conn, frame, instrument_ids(conn, market), timeframe)
    stage.upsert_staged(conn, staged, source=source, run_id=RUN, now=now)


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

"""Yahoo and Naver into the tables: twice is once, and a past that they divide anew is still the past that is held."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients.base import Source
from chartinsight_lib.clients.krx import KrxSource
from chartinsight_lib.clients.yahoo import YahooSource
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report, collect_daily
from chartinsight_lib.db.bars import candles
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.pace import LocalSlots, Pacer
from tests.http.public_services import Redirecting, Served, Services, public_services, redirecting_session

REPLIES = Path(__file__).parents[1] / "data" / "replies"
CHART = "query2.finance.yahoo.com/v8/finance/chart/"
NAVER = "fchart.stock.naver.com/sise.nhn"
KRX = "data.krx.co.kr/comm/bldAttendant/executeForResourceBundle.cmd"
LISTS = "raw.githubusercontent.com/FinanceData/fdr_krx_data_cache/refs/heads/master/data/listing"


@pytest.fixture
def services() -> Iterator[Services]:
    with public_services() as running:
        yield running


def run(engine: Engine, source: Source, now: datetime) -> tuple[UUID, Report]:
    clock = fixed_clock(now)
    with ledger.notebook_run(engine, None, job="collect_daily", clock=clock) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=clock)
        return run_id, collect_daily(engine, source, run_id=run_id, clock=clock)


def ask(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement))]


BARS = "SELECT day::text, open, high, low, close, volume, flags FROM api.candles_raw ORDER BY day"


def later_reply() -> str:
    """What Yahoo says after another split, 2:1 on 2024-06-13: everything before it is halved, volumes doubled."""
    told = json.loads((REPLIES / "yahoo_chart_ABCD.json").read_text(encoding="utf-8"))
    result = told["chart"]["result"][0]
    quote = result["indicators"]["quote"][0]
    for name in ("open", "high", "low", "close"):
        quote[name] = [None if price is None else float(np.float32(price / 2)) for price in quote[name][:-2]]
    quote["volume"] = [None if volume is None else 2 * volume for volume in quote["volume"][:-2]]
    new = {
        "open": (52.37, 53.0), "high": (53.10, 54.0), "low": (52.35, 52.5), "close": (53.05, 53.5),
        "volume": (5_000_000, 4_000_000),
    }  # fmt: skip
    for name, values in new.items():
        quote[name] += list(values)
    stamps = [1718199000, 1718285400]  # 2024-06-12 and 06-13, 9:30 in New York
    result["timestamp"] = result["timestamp"][:-2] + stamps
    result["indicators"]["adjclose"][0]["adjclose"] = quote["close"]
    result["events"]["splits"][str(stamps[1])] = {
        "date": stamps[1],
        "numerator": 2,
        "denominator": 1,
        "splitRatio": "2:1",
    }
    result["events"]["dividends"]["1718112600"]["amount"] = 0.125
    return json.dumps(told)


@pytest.fixture
def yahoo(services, tmp_path):
    def yahoo(now: datetime) -> YahooSource:
        return YahooSource(
            ["ABCD"], clock=fixed_clock(now), cache=tmp_path / "yahoo", session=redirecting_session(services),
            pacer=Pacer(LocalSlots(), 10_000),
        )  # fmt: skip

    return yahoo


MIDDAY, NEXT = datetime(2024, 6, 12, 18, tzinfo=UTC), datetime(2024, 6, 14, 1, tzinfo=UTC)


def test_yahoos_bars_keep_their_basis_through_a_later_split(services, loader, yahoo):
    services.serve(CHART, (REPLIES / "yahoo_chart_ABCD.json").read_bytes())
    _, first = run(loader, yahoo(MIDDAY), MIDDAY)
    assert not first.errors
    before = ask(loader, BARS)
    assert before[0] == ("2024-06-03", 400.0, 408.0, 396.04, 404.12, 1_000_000, 0)
    assert before[-1] == ("2024-06-12", 104.75, 106.2, 104.7, 106.11, 2_000_107, 1)
    assert len(before) == 6  # without the day of nulls, and the one that has no volume

    _, again = run(loader, yahoo(MIDDAY), MIDDAY)
    assert {name: again.items["ABCD"][name] for name in ("inserted", "updated")} == {"inserted": 0, "updated": 0}

    services.serve(CHART, later_reply())
    _, later = run(loader, yahoo(NEXT), NEXT)
    assert not later.errors
    after = ask(loader, BARS)
    assert after[:5] == before[:5], "what was traded stays what was traded"
    assert after[5:] == [
        ("2024-06-12", 104.74, 106.2, 104.7, 106.1, 2_500_000, 0),  # as it ended, before the split
        ("2024-06-13", 53.0, 54.0, 52.5, 53.5, 4_000_000, 0),
    ]


def test_yahoos_splits_and_dividends_are_undone_on_read(services, loader, yahoo):
    services.serve(CHART, later_reply())
    run(loader, yahoo(NEXT), NEXT)
    with loader.connect() as conn:
        ((number,),) = conn.execute(text("SELECT id FROM live.instruments"))
        price, all_of_them = (candles(conn, number, basis=basis)["close"] for basis in ("price", "price+dividend"))
    # 404.12 through 4:1 and 2:1; 105.00, the close before the dividend, through 2:1.
    assert price.iloc[0] == pytest.approx(404.12 / 8)
    assert all_of_them.iloc[0] == pytest.approx(404.12 / 8 * (1 - 0.25 / 105), rel=1e-6)
    assert all_of_them.iloc[-1] == 53.5


def krx(services: Services, now: datetime) -> KrxSource:
    return KrxSource(
        ["000120"], clock=fixed_clock(now), transport=Redirecting(services), pacer=Pacer(LocalSlots(), 10_000)
    )


def test_naver_that_restates_its_past_mixes_no_two_bases(services, loader):
    services.serve(KRX, (REPLIES / "krx_max_work_dt.json").read_bytes())
    for kind, name in (("krx", "list"), ("desc", "desc")):
        services.serve(
            f"{LISTS}/{kind}/", Served((REPLIES / f"krx_{name}.csv").read_bytes(), kind="text/plain; charset=utf-8")
        )
    body = (REPLIES / "naver_000120.xml").read_bytes().decode("euc-kr")
    services.serve(NAVER, body.encode("euc-kr"))
    friday, monday = datetime(2024, 8, 9, 12, tzinfo=UTC), datetime(2024, 8, 12, 12, tzinfo=UTC)
    _, first = run(loader, krx(services, friday), friday)
    assert not first.errors
    before = ask(loader, BARS)
    assert len(before) == 9
    assert ask(loader, "SELECT ts::date::text, kind FROM api.gaps ORDER BY ts") == [
        ("2024-07-30", "halted"),
        ("2024-07-31", "halted"),
    ]

    # On Monday the 12th shares are split 2:1: Naver halves its past.
    halved = "\n".join(
        line if "<item" not in line else f'<item data="{"|".join(_halved(line.split(chr(34))[1].split("|")))}" />'
        for line in body.splitlines()
    )
    new = halved.replace("\t</chartdata>", '<item data="20240812|15600|15800|15300|15700|2200000" />\n\t</chartdata>')
    services.serve(NAVER, new.encode("euc-kr"))
    _, second = run(loader, krx(services, monday), monday)
    assert not second.errors
    assert ask(loader, BARS)[:9] == before, "bars keep their basis"
    with loader.connect() as conn:
        ((number,),) = conn.execute(text("SELECT id FROM live.instruments"))
        closes = candles(conn, number)["close"]
    assert closes.iloc[0] == pytest.approx(31_200)  # 62,400 before the split
    assert closes.iloc[-1] == 15_700


def _halved(fields: list[str]) -> list[str]:
    day, *prices, volume = fields
    return [day, *(str(int(price) // 2) for price in prices), volume]

"""Somebody else's Kiwoom clients, pointed at the simulator, fetch the very rows that ours stores.

kiwoom-restful 0.4 is asynchronous and walks the pages itself; kiwoom-rest-api 0.1 hands out one page at a time. What each of
them cannot do by itself is said where it is made up for; everything else is the clients' own code.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import kiwoom
import kiwoom_rest_api.config
import pandas as pd
import pytest
from kiwoom.config.candle import PERIOD_TO_DATA
from kiwoom.http.socket import Socket
from kiwoom_rest_api.auth.token import TokenManager
from kiwoom_rest_api.core import sync_client
from kiwoom_rest_api.koreanstock.chart import Chart
from sqlalchemy import Engine, text

from chartinsight_lib import collect, ledger
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer
from chartinsight_lib.sources import open_source

# Of kiwoom-restful's own way with pandas.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

KST = ZoneInfo("Asia/Seoul")
EVENING = datetime(2026, 10, 13, 20, 30, tzinfo=KST)  # after the after-market
TODAY = "20261013"
A_MONTH_AGO = "20260914"  # ours asks for 30 days of minutes, and the 13th was a Sunday
APPKEY, SECRETKEY = "simulated-appkey", "simulated-secretkey"
OFTEN = 1_000  # requests a second: the quota has tests of its own

# Of seed 12: rights in 2024-09 and a split in 2024-12; a reverse split; a bonus issue; 16 halted days; 17 and rights.
MOVED = ["0040D0", "162090", "418710", "498590"]
CODES = [*MOVED, "169690"]
DAYS = 920  # of trade from 2023-01-02 to TODAY, by krx_sessions.csv without its two mistakes
FOR_MINUTES = ["0040D0", "162090", "169690"]

When = str
"""KST: YYYYMMDD of a day, YYYYMMDDHHMMSS of a minute."""
Bars = dict[When, tuple[int, ...]]
"""Open, high, low, close in won, volume in shares; of a day also its value in won."""


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    """Sixteen companies over nearly four years, on an evening at which the clock stands."""
    market = GeneratedMarket(12, instruments=16, first_day=date(2023, 1, 2), last_day=date(2026, 12, 30))
    options = Options(quota=OFTEN, token_life=timedelta(days=365))
    with SimulatorServer(market, SimulatedClock(EVENING, speed=0), options) as found:
        yield found


class Ours:
    """What our client has stored in PostgreSQL."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.settings = Settings(
            kiwoom_url=url, kiwoom_appkey=APPKEY, kiwoom_secretkey=SECRETKEY, kiwoom_rate=OFTEN, now=EVENING.isoformat(),
            _env_file=None,
        )  # fmt: skip

    def collect(self, *, minutes: Sequence[str] = ()) -> None:
        source, clock = open_source("simulated", self.settings, self.engine, codes=CODES), self.settings.clock
        with ledger.notebook_run(self.engine, None, job="collect", clock=clock) as run_id:
            sync_instruments(self.engine, source, run_id=run_id, clock=clock)
            if minutes:
                collect.collect_intraday(self.engine, source, minutes, run_id=run_id, clock=clock).check()
            else:
                collect.collect_daily(self.engine, source, run_id=run_id, clock=clock).check()

    def bars(self, code: str, timeframe: str) -> Bars:
        found = self.ask(
            "SELECT ts, open, high, low, close, volume, value FROM api.candles_raw "
            "WHERE market = 'SIM' AND code = :code AND timeframe = :timeframe",
            code=code, timeframe=timeframe,
        )  # fmt: skip
        return {when(ts, timeframe): tuple(int(number) for number in row if number is not None) for ts, *row in found}

    def gaps(self, code: str, timeframe: str) -> set[When]:
        found = self.ask(
            "SELECT g.ts FROM ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id "
            "WHERE i.market = 'SIM' AND i.code = :code AND g.timeframe = :timeframe",
            code=code, timeframe=timeframe,
        )  # fmt: skip
        return {when(ts, timeframe) for (ts,) in found}

    def factors(self, code: str) -> dict[When, float]:
        """The factors of all corporate actions, by ex-day."""
        found = self.ask(
            "SELECT ex_date, price_factor FROM live.factors AS f JOIN live.instruments AS i ON i.id = f.instrument_id "
            "WHERE i.market = 'SIM' AND i.code = :code",
            code=code,
        )
        return {f"{day:%Y%m%d}": factor for day, factor in found}

    def ask(self, statement: str, **values: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(statement), values)]


def when(ts: datetime, timeframe: str) -> When:
    return f"{ts:%Y%m%d}" if timeframe == "1d" else f"{ts.astimezone(KST):%Y%m%d%H%M%S}"


@pytest.fixture
def ours(loader: Engine, server: SimulatorServer) -> Ours:
    return Ours(loader, server.url)


@pytest.fixture
def restful(server: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """kiwoom-restful with the simulator for its real host; what it asks the charts with, to be changed by a test."""
    # It takes no host but its own two, and any other fails on the way to its message (`self.host` is not set yet).
    monkeypatch.setattr(kiwoom.config, "REAL", server.url)
    monkeypatch.setattr(Socket, "REAL", server.websocket_url.removesuffix(Socket.ENDPOINT))
    # It has no argument for the length of a bar nor for raw prices: adjusted one-minute bars are written in this table.
    bodies = {period: dict(body) for period, body in PERIOD_TO_DATA["stock"].items()}
    monkeypatch.setitem(PERIOD_TO_DATA, "stock", bodies)
    bodies["day"]["upd_stkpc_tp"] = bodies["min"]["upd_stkpc_tp"] = "0"
    bodies["min"]["tic_scope"] = "5"
    return bodies


def read_restful(codes: Sequence[str], period: str, start: str = "") -> dict[str, Bars]:
    """Each code's bars from `start` (all there are) to today, as kiwoom-restful's frames say."""

    async def read() -> dict[str, pd.DataFrame]:
        async with kiwoom.Bot(kiwoom.config.REAL, APPKEY, SECRETKEY) as bot:
            await bot.api.connect()  # as Bot.connect, which sleeps a second afterwards
            bot.api._limiter.set(OFTEN)  # five a second over everything, whatever the host allows
            # A day's `end` is today by the machine's clock, which is not the simulator's.
            end = TODAY if period == "day" else ""
            return {code: await bot.candle(code, period, "stock", start, end) for code in codes}

    return {code: from_frame(frame, period) for code, frame in asyncio.run(read()).items()}


def from_frame(frame: pd.DataFrame, period: str) -> Bars:
    names = ["시가", "고가", "저가", "종가", "거래량"]
    columns = [frame[name].astype("int64").tolist() for name in names]
    if period == "day":
        columns.append((frame["거래대금"].astype("int64") * 1_000_000).tolist())
    written = frame.index.strftime("%Y%m%d" if period == "day" else "%Y%m%d%H%M%S")
    assert written.is_unique
    return dict(zip(written, zip(*columns, strict=True), strict=True))


@pytest.fixture
def rest_api(server: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> Chart:
    """kiwoom-rest-api's charts, of the simulator."""
    # What it read from the environment when it was imported.
    monkeypatch.setattr(kiwoom_rest_api.config, "DEFAULT_BASE_URL", server.url)
    monkeypatch.setattr(kiwoom_rest_api.config, "API_KEY", APPKEY)
    monkeypatch.setattr(kiwoom_rest_api.config, "API_SECRET", SECRETKEY)

    # It hands on those headers alone that a browser may read by the CORS header, which Kiwoom's document does not name and
    # the simulator does not send; without cont-yn and next-key nobody gets to a second page.
    own = sync_client.process_response

    def with_pages(response: Any) -> dict[str, Any]:
        response.headers["access-control-expose-headers"] = "cont-yn,next-key"
        return own(response)

    monkeypatch.setattr(sync_client, "process_response", with_pages)
    # Without a base_url it would ask for //api/dostk/chart.
    return Chart(base_url=server.url, token_manager=TokenManager())


def read_rest_api(chart: Chart, code: str, period: str, since: str = "") -> Bars:
    """A code's bars back to `since` (the first there is), page by page, as kiwoom-rest-api hands them out."""
    key, at = {"day": ("stk_dt_pole_chart_qry", "dt"), "min": ("stk_min_pole_chart_qry", "cntr_tm")}[period]
    rows: list[Mapping[str, str]] = []
    page = {"cont-yn": "N", "next-key": ""}
    while not rows or (page["cont-yn"] == "Y" and rows[-1][at] >= since):
        walk = {"cont_yn": page["cont-yn"], "next_key": page["next-key"]}
        if period == "day":
            page = chart.stock_daily_chart_request_ka10081(code, TODAY, "0", **walk)
        else:
            page = chart.stock_minute_chart_request_ka10080(code, "5", "0", **walk)
        assert page["return_code"] == 0
        rows += page[key]
    found = {row[at]: from_row(row) for row in rows if row[at] >= since}
    assert len(found) == sum(row[at] >= since for row in rows)
    return found


def from_row(row: Mapping[str, str]) -> tuple[int, ...]:
    # A sign says above or below yesterday.
    numbers = [abs(int(row[name])) for name in ("open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty")]
    return (*numbers, int(row["trde_prica"]) * 1_000_000) if "trde_prica" in row else tuple(numbers)


def differing(theirs: Bars, ours: Ours, code: str, timeframe: str) -> list[tuple[Any, ...]]:
    """The moments at which their rows and what we hold are not the same; a row without a trade has to be a gap."""
    bars, gaps = ours.bars(code, timeframe), ours.gaps(code, timeframe)
    assert not bars.keys() & gaps
    found = [(at, theirs.get(at), bars.get(at)) for at in sorted(theirs.keys() | bars.keys() | gaps)]
    return [
        (code, at, row, bar, at in gaps)
        for at, row, bar in found
        if (row is None) or (row[4] > 0 and row != bar) or (row[4] == 0 and (bar is not None or at not in gaps))
    ]


def test_kiwoom_restful_fetches_the_days_that_ours_stores(ours, restful):
    ours.collect()
    theirs = read_restful(CODES, "day")
    assert [at for code in CODES for at in differing(theirs[code], ours, code, "1d")] == []
    assert {len(bars) for bars in theirs.values()} == {DAYS}  # two pages each
    assert all(ours.gaps(code, "1d") for code in CODES)


def test_kiwoom_restful_fetches_the_minutes_that_ours_stores(ours, restful):
    ours.collect(minutes=FOR_MINUTES)
    theirs = read_restful(FOR_MINUTES, "min", A_MONTH_AGO)
    assert [at for code in FOR_MINUTES for at in differing(theirs[code], ours, code, "5m")] == []
    assert min(len(bars) for bars in theirs.values()) > 900  # more than a page
    assert all(max(bars) > f"{TODAY}16" for bars in theirs.values())  # the after-market is among them


def test_the_adjusted_days_of_kiwoom_restful_are_our_days_times_our_factors(ours, restful):
    restful["day"]["upd_stkpc_tp"] = "1"
    ours.collect()
    theirs = read_restful(MOVED, "day")
    for code in MOVED:
        assert {at: row[:5] for at, row in theirs[code].items() if row[4]} == adjusted(ours, code)


def adjusted(ours: Ours, code: str) -> Bars:
    """Our days on the basis of the newest one, rounded half up, won and shares."""
    bars, factors = ours.bars(code, "1d"), ours.factors(code)
    assert factors
    products = {at: math.prod(Fraction(factor) for day, factor in factors.items() if day > at) for at in bars}
    return {
        at: (*(half_up(price * products[at]) for price in bar[:4]), half_up(bar[4] / products[at]))
        for at, bar in bars.items()
    }


def half_up(exact: Fraction | int) -> int:
    # A factor is stored as a float, and may fall short of a half by its last bit.
    return math.floor(exact + Fraction(1, 2) + Fraction(1, 10**6))


def test_kiwoom_rest_api_fetches_the_days_that_ours_stores(ours, rest_api):
    ours.collect()
    theirs = {code: read_rest_api(rest_api, code, "day") for code in CODES}
    assert [at for code in CODES for at in differing(theirs[code], ours, code, "1d")] == []
    assert {len(bars) for bars in theirs.values()} == {DAYS}
    assert all(ours.gaps(code, "1d") for code in CODES)


def test_kiwoom_rest_api_fetches_the_minutes_that_ours_stores(ours, rest_api):
    ours.collect(minutes=FOR_MINUTES)
    theirs = {code: read_rest_api(rest_api, code, "min", A_MONTH_AGO) for code in FOR_MINUTES}
    assert [at for code in FOR_MINUTES for at in differing(theirs[code], ours, code, "5m")] == []
    assert min(len(bars) for bars in theirs.values()) > 900

"""From the simulator's wire into the tables, and back as a person reads them: what was traded on the handmade market."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from handmade import DAYS, SPLIT_STOCK, HandmadeMarket, at
from pydantic import SecretStr
from sqlalchemy import Engine, text

from chartinsight_lib import collect, ledger
from chartinsight_lib.collect import Report
from chartinsight_lib.db import bars, query
from chartinsight_lib.domain import Flag
from chartinsight_lib.errors import AuthFailed, ConfigError, RunFailed, Unavailable
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.faults import read_faults
from chartinsight_lib.simulator.model import KST
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer
from chartinsight_lib.sources import open_source

SEVENTH, EIGHTH, NINTH, ELEVENTH, FOURTEENTH, FIFTEENTH, SIXTEENTH, SEVENTEENTH, EIGHTEENTH = DAYS


class Desk:
    """A simulator, a database, and the jobs that go from one to the other at the simulator's time."""

    def __init__(self, server: SimulatorServer, engine: Engine, clock_file: Path) -> None:
        self.server, self.engine = server, engine
        self.settings = Settings(
            kiwoom_url=server.url, kiwoom_appkey=SecretStr("simulated-appkey"), now=f"@{clock_file}", kiwoom_years=1,
            kiwoom_secretkey=SecretStr("simulated-secretkey"), kiwoom_rate=10_000, _env_file=None,
        )  # fmt: skip

    def at(self, moment: datetime) -> "Desk":
        self.server.clock.move_to(moment)
        return self

    def run(self, job: Callable[..., Report], *more: Any, sync: bool = True, codes: tuple[str, ...] = ()) -> Report:
        source = open_source("simulated", self.settings, self.engine, codes=codes)
        clock = self.settings.clock
        with ledger.notebook_run(self.engine, None, job=job.__name__, clock=clock) as run_id:
            if sync:
                sync_instruments(self.engine, source, run_id=run_id, clock=clock)
            return job(self.engine, source, *more, run_id=run_id, clock=clock)

    def daily(self, **options: Any) -> Report:
        report = self.run(collect.collect_daily, **options)
        report.check()
        return report

    def ask(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(statement), values)]

    def bars(self, code: str, *, as_of: date | None = None, timeframe: str = "1d") -> pd.DataFrame:
        """Adjusted bars as everybody reads them; index: the date."""
        with self.engine.connect() as conn:
            number = query.find_instrument(conn, code, "SIM").id
            found = bars.candles(conn, number, timeframe, as_of=as_of)
        return found.set_axis(found.index.date) if timeframe == "1d" else found

    def closes(self, code: str, **options: Any) -> dict[date, float]:
        return won(self.bars(code, **options)["close"]).to_dict()

    def flags(self, code: str) -> dict[date, int]:
        return self.bars(code)["flags"].to_dict()


def won(prices: pd.Series) -> pd.Series:
    """Adjusted prices are stored in no table, and read unrounded; to the won, a half goes up."""
    return (prices + 0.5 + 1e-9).floordiv(1)


@pytest.fixture
def desk(loader: Engine, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    with ExitStack() as stack:

        def start(moment: datetime, faults: str = "", **options: Any) -> Desk:
            told = {"quota": 10_000, "page_sizes": {"ka10081": 4}} | options
            if faults:
                told["faults"] = read_faults(faults)
            clock = SimulatedClock(moment, speed=0, published=tmp_path / "clock")
            return Desk(
                stack.enter_context(SimulatorServer(HandmadeMarket(), clock, Options(**told))),
                loader,
                tmp_path / "clock",
            )

        yield start


# What is stored.


def test_everything_collected_is_marked_as_simulated(desk):
    there = desk(at(EIGHTEENTH, 21))
    there.daily()
    assert there.ask("SELECT DISTINCT market, source FROM api.candles_raw") == [("SIM", "simulated (handmade)")]
    with there.engine.connect() as conn:
        assert query.health(conn, "SIM")["simulated"] is True


def test_raw_bars_are_stored_as_they_were_traded_and_collecting_again_changes_no_row(desk):
    there = desk(at(EIGHTEENTH, 21))
    there.daily()
    stored = there.ask(
        "SELECT day, open, high, low, close, volume FROM api.candles_raw WHERE code = '000100' AND day < '2026-09-14' ORDER BY day"
    )
    assert stored == [(day, *SPLIT_STOCK[day]) for day in DAYS[:4]]
    before = there.ask("SELECT * FROM live.candles ORDER BY 1, 2, 3")
    again = there.daily().table().loc[lambda table: table.index[-1:]]
    assert (again["inserted"].iloc[0], again["updated"].iloc[0]) == (0, 0)
    assert there.ask("SELECT * FROM live.candles ORDER BY 1, 2, 3") == before


def test_halted_days_are_gaps_and_debt_notes_are_listed_but_not_collected(desk):
    there = desk(at(EIGHTEENTH, 21))
    there.daily()
    assert there.ask("SELECT ts::date, kind FROM api.gaps WHERE code = '000200' ORDER BY ts") == [
        (NINTH, "no-trade"), (ELEVENTH, "no-trade")
    ]  # fmt: skip
    assert there.ask("SELECT kind, count(*) FROM live.instruments GROUP BY kind ORDER BY kind") == [
        ("etf", 1), ("etn", 1), ("fund", 1), ("reit", 1), ("stock", 2)
    ]  # fmt: skip
    assert there.ask("SELECT count(*) FROM api.candles_raw WHERE code = '000600'") == [(0,)]


def test_a_day_on_which_trading_is_halted_is_a_gap_of_that_kind_while_the_list_says_so(desk):
    there = desk(at(ELEVENTH, 18))
    there.daily()
    assert there.ask("SELECT ts::date, kind FROM api.gaps WHERE code = '000200' ORDER BY ts") == [
        (NINTH, "halted"), (ELEVENTH, "halted")
    ]  # fmt: skip


# Increments.


def test_a_second_collection_asks_for_what_follows_with_an_overlap(desk):
    there = desk(at(EIGHTH, 21))
    there.daily()
    asked = there.server.requests.count(api_id="ka10081")
    there.at(at(EIGHTEENTH, 21)).daily()
    # Five instruments; two walks each, of nine days in pages of four; the new ETF has four days, one page.
    assert there.server.requests.count(api_id="ka10081") - asked == 4 * 2 * 3 + 2
    assert len(there.bars("000100")) == 9


def test_a_bar_that_was_forming_is_replaced_and_becomes_final_on_the_next_day(desk):
    there = desk(at(EIGHTH, 10))
    there.daily()
    running = there.bars("000100").loc[EIGHTH]
    assert (running["close"], running["flags"]) == (50_500, Flag.PROVISIONAL)  # the price of 09:01
    there.at(at(EIGHTH, 21)).daily()
    assert there.bars("000100").loc[EIGHTH, ["close", "volume", "flags"]].tolist() == [50_000, 2_003, Flag.PROVISIONAL]
    there.at(at(NINTH, 8, 40)).daily()
    assert there.flags("000100") == {SEVENTH: 0, EIGHTH: 0}


# Corporate actions.


def test_a_split_is_seen_on_its_day_without_a_cliff_and_what_was_known_before_stays(desk):
    there = desk(at(EIGHTH, 21))
    there.daily()
    assert there.closes("000100") == {SEVENTH: 50_500, EIGHTH: 50_000}
    # On the morning of the ex-day, before it has a bar; 10,000 of 50,000 is a fifth.
    there.at(at(NINTH, 8, 40)).daily()
    assert there.closes("000100") == {SEVENTH: 10_100, EIGHTH: 10_000}
    there.at(at(NINTH, 10)).daily()
    assert there.closes("000100") == {SEVENTH: 10_100, EIGHTH: 10_000, NINTH: 10_000}
    there.at(at(ELEVENTH, 21)).daily()
    found = there.bars("000100")
    assert won(found["close"]).tolist() == [10_100, 10_000, 10_300, 10_400]
    assert won(found["open"]).tolist() == [9_800, 10_100, 10_000, 10_300]
    assert found["volume"].tolist() == [5_000, 10_015, 12_000, 9_000]  # 1,000 and 2,003 by a fifth
    assert there.closes("000100", as_of=EIGHTH) == {SEVENTH: 50_500, EIGHTH: 50_000}
    assert there.ask("SELECT ex_date, price_factor, volume_factor, kind FROM api.factors WHERE code = '000100'") == [
        (NINTH, 0.2, 5.0, "split")
    ]


@pytest.mark.parametrize("first", [at(EIGHTH, 21), at(NINTH, 8, 40), at(NINTH, 12), at(SIXTEENTH, 12)], ids=str)
def test_whenever_the_two_increments_are_the_adjusted_series_is_the_vendors_to_the_won(desk, first):
    there = desk(first)
    there.daily()
    there.at(at(EIGHTEENTH, 21)).daily()
    for code in ("000100", "000200", "000500"):
        own = there.bars(code)
        client = open_source("simulated", there.settings, there.engine)._client
        vendor = {
            datetime.strptime(row["dt"], "%Y%m%d").date(): row  # noqa: DTZ007
            for row in client.daily_candles(code, since=SEVENTH, until=EIGHTEENTH, adjusted=True)
            if row["trde_qty"] != "0"
        }
        assert list(own.index) == sorted(vendor)
        for day, bar in own.iterrows():
            names = ("open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty")
            assert won(bar[["open", "high", "low", "close", "volume"]]).tolist() == [
                float(vendor[day][name]) for name in names
            ], (code, day)


def test_a_rights_issue_is_a_factor_of_its_base_price(desk):
    there = desk(at(FIFTEENTH, 21))
    there.daily()
    there.at(at(SIXTEENTH, 12)).daily()
    # 900 of 1,000; worked by hand: 1,010 -> 909, 1,005 -> 904.5, up to 905, 1,060 -> 954, 1,000 -> 900.
    assert there.ask("SELECT ex_date, price_factor, kind FROM api.factors WHERE code = '000200'") == [
        (SIXTEENTH, 0.9, "rights")
    ]
    found = there.bars("000200")
    assert won(found["close"]).tolist()[:4] == [909, 905, 954, 900]
    assert found["volume"].tolist()[:4] == [111, 370, 444, 889]  # 100, 333, 400, 800 by 0.9


# The running day, and the close since the after-market.


def test_quotes_bring_the_running_bar_of_the_whole_market_in_one_request(desk):
    there = desk(at(FOURTEENTH, 8, 40))
    there.daily()
    there.at(at(FOURTEENTH, 10)).run(collect.collect_quotes).check()
    assert there.server.requests.count(api_id="ka10095") == 1
    bar = there.bars("000100").loc[FOURTEENTH]
    # At ten 000100 has traded 4,000 less one shares at the opening and one a minute later, at 10,400.
    assert bar[["open", "high", "low", "close", "volume", "flags"]].tolist() == [
        10_400, 10_600, 10_300, 10_400, 3_999, Flag.PROVISIONAL
    ]  # fmt: skip


def test_the_official_close_is_kept_although_the_vendors_history_has_the_after_markets(desk):
    """On the 14th 000100 closed at 10,500, and after hours at 10,700 with 400 shares."""
    there = desk(at(FOURTEENTH, 16, 45))
    there.run(collect.collect_quotes).check()
    assert there.bars("000100").loc[FOURTEENTH, ["close", "flags"]].tolist() == [
        10_500, Flag.PROVISIONAL | Flag.OFFICIAL_CLOSE
    ]  # fmt: skip
    there.at(at(FIFTEENTH, 8, 40)).daily()
    there.at(at(FIFTEENTH, 21)).daily()
    final = there.bars("000100").loc[FOURTEENTH]
    assert final[["high", "close", "volume", "flags"]].tolist() == [10_700, 10_500, 8_400, Flag.OFFICIAL_CLOSE]
    # Of the 15th nobody asked for a quote: the close is the after-market's, and says so.
    assert there.bars("000100").loc[FIFTEENTH, ["close", "flags"]].tolist() == [
        10_050, Flag.PROVISIONAL | Flag.AFTER_MARKET
    ]  # fmt: skip


def test_five_minute_bars_are_collected_of_a_watchlist_and_the_forming_one_is_replaced(desk):
    there = desk(at(SEVENTEENTH, 9, 2))
    there.run(collect.collect_intraday, ["000100"]).check()
    last = there.bars("000100", timeframe="5m").iloc[-1]
    assert (f"{last.name:%d %H:%M}", last["flags"]) == ("17 00:00", Flag.PROVISIONAL)
    there.at(at(SEVENTEENTH, 21)).run(collect.collect_intraday, ["000100"], sync=False).check()
    day = there.bars("000100", timeframe="5m").loc["2026-09-17":]
    assert [f"{start:%H:%M}" for start in day.index.tz_convert(KST)] == ["09:00", "15:15", "15:30"]
    assert day["volume"].sum() == 4_400
    assert day[["open", "close"]].to_numpy().tolist() == [[10_150, 10_150], [10_150, 10_150], [10_300, 10_300]]
    assert set(day["flags"]) == {0}


def test_without_a_watchlist_the_most_traded_stocks_are_collected(desk):
    there = desk(at(EIGHTEENTH, 21))
    there.daily()
    report = there.run(collect.collect_intraday, [])
    assert set(report.items) == {"000100 5m", "000200 5m"}


def test_a_source_without_a_running_day_says_so(desk, loader):
    there = desk(at(EIGHTEENTH, 21))
    for job in (collect.collect_quotes, collect.collect_intraday):
        with pytest.raises(ConfigError, match="'sample': it (knows no running day|has no bars of less than a day)"):
            more = ([],) if job is collect.collect_intraday else ()
            job(loader, open_source("sample", there.settings), *more, run_id=None, clock=there.settings.clock)


# What fails.


def test_an_instrument_that_cannot_be_had_is_named_and_the_others_are_stored(desk):
    there = desk(at(EIGHTEENTH, 21), 'rules: [{api_id: ka10081, code: "000200", do: empty_page}]')
    report = there.run(collect.collect_daily)
    assert list(report.errors) == ["000200"]
    with pytest.raises(RunFailed, match=r"1 of 2 items failed; the others are stored. 000200: kiwoom ka10081 000200"):
        report.check()
    assert there.ask("SELECT item, state FROM ops.run_items WHERE error IS NOT NULL") == [("000200", "failed")]
    assert len(there.bars("000100")) == 9


def test_a_listed_instrument_without_a_single_bar_is_not_believed(desk):
    there = desk(at(EIGHTEENTH, 21), 'rules: [{api_id: ka10081, code: "000100", do: blank_row}]')
    report = there.run(collect.collect_daily)
    assert "no daily bar came, although it has been listed since 2020-01-02" in report.errors["000100"]


def test_single_codes_can_be_collected(desk):
    there = desk(at(EIGHTEENTH, 21))
    there.daily(codes=("000500",))
    assert there.ask("SELECT DISTINCT code FROM api.candles_raw") == [("000500",)]


def test_keys_that_are_not_taken_any_more_stop_the_collection_at_once(desk):
    there = desk(at(EIGHTEENTH, 21), "rules: [{api_id: ka10081, from: 3, do: {code: 8050}}]")
    with pytest.raises(AuthFailed, match="8050.*IP address is not registered"):
        there.run(collect.collect_daily)
    assert there.server.requests.count(api_id="ka10081") < 12  # not each of six instruments, three pages twice


def test_a_server_that_answers_for_no_instrument_stops_the_collection_and_one_that_stumbles_does_not(desk, monkeypatch):
    monkeypatch.setattr("chartinsight_lib.clients.kiwoom_source.UNAVAILABLE_MOST", 3)
    monkeypatch.setattr("chartinsight_lib.clients.kiwoom.TRIES", 1)
    there = desk(at(EIGHTEENTH, 21), 'rules: [{api_id: ka10081, code: ["000100", "000200"], do: {status: 503}}]')
    assert set(there.run(collect.collect_daily).errors) == {"000100", "000200"}
    there = desk(at(EIGHTEENTH, 21), "rules: [{api_id: ka10081, do: {status: 503}}]")
    with pytest.raises(Unavailable, match="HTTP 503"):
        there.run(collect.collect_daily)

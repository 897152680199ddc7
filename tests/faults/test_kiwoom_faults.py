"""Kiwoom disturbed on three of ten requests: whatever happens on the way, the tables end as they do on a good day.

One simulator, one market; before each run the tables are emptied and the simulator gets faults of that run's seed. A run
collects days, five-minute bars and quotes as the jobs do, and again while a report names an error, as the schedule does.

    FAULT_RUNS=1000 pytest tests/faults/test_kiwoom_faults.py -s      what the design promises; the suite makes fewer
    FAULT_RUNS=1 FAULT_SEED=…                                        one run again, by the seed that it printed
"""

import faulthandler
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients.kiwoom import KiwoomClient
from chartinsight_lib.clients.kiwoom_auth import Credentials
from chartinsight_lib.clients.kiwoom_source import KiwoomSource
from chartinsight_lib.clock import Clock, fixed_clock
from chartinsight_lib.collect import Report, collect_daily, collect_intraday, collect_quotes
from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.pace import LocalSlots, Pacer
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.faults import read_faults
from chartinsight_lib.simulator.model import (
    AFTER_MARKET_SINCE,
    KST,
    DailyBars,
    Event,
    Flows,
    Listing,
    MinuteBars,
    Sector,
    Session,
    empty_minutes,
)
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.requestlog import Request
from chartinsight_lib.simulator.server import SimulatorServer

RUNS = int(os.environ.get("FAULT_RUNS", "40"))
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**9))
AGAIN = 12
"""So often a collection is repeated at most; of a thousand runs two needed four."""
ONCE_MORE = 3
"""One run in so many goes on, disturbed, when everything is there."""
MANY = 30
"""So many runs meet every kind of fault, and each as often as meant."""
RUN_WITHIN_S = 60.0
"""A run takes less than a second; one that takes this long hangs."""
TIMEOUT_S, DEADLINE_S = 0.06, 5.0
TODAY = date(2026, 9, 18)
EVENING = datetime(2026, 9, 18, 17, tzinfo=KST)
"""The regular session is over, and the after-market is not: today's bar is running, and its official close is known."""

PAGED = "[ka10080, ka10081]"
LISTED = "[ka10080, ka10081, ka10095, ka10099]"
# What happens, how it is told to the simulator, and to which requests. Some can only befall a page after the first, some
# only one before the last: these have a greater share, so that each comes about.
KINDS = {
    "429": ("", "rate_limit"),
    "429 Retry-After": ("", "{status: 429, retry_after: 0.02}"),
    "500": ("", "{status: 500}"),
    "503": ("", "{status: 503}"),
    "reset": ("", "reset"),
    "timeout": ("", "{timeout: 0.1}"),
    "html": ("", "html"),
    "waf": ("", "waf"),
    "truncated": ("", "truncated"),
    "1999": ("", "{code: 1999}"),
    "kill_token": (LISTED, "kill_token"),
    "empty_page": (LISTED, "empty_page"),
    "loop_key": (PAGED, "loop_key"),
    "repeat_key": (PAGED, "repeat_key"),
}
CHANCE = {"loop_key": 0.035, "repeat_key": 0.08}
USUAL_CHANCE = 0.024
SHARE = 0.30
AS_LOGGED = {
    "rate_limit": "429", "status 429": "429 Retry-After", "status 500": "500", "status 503": "503",
    "timeout 0.1": "timeout", "code 1999": "1999",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the guard against hanging needs a timer")


# A market of three instruments.

DAYS = [day for n in range(280, -1, -1) if (day := TODAY - timedelta(days=n)).weekday() < 5]
LONG_AGO = date(2020, 1, 2)
HALTS = {"000100": {*DAYS[70:95], *DAYS[-12:-7]}, "000200": {*DAYS[-3:]}}
EVENTS = {
    "000100": (Event(DAYS[120], 10_000, 50_000, "split"),),
    "000200": (Event(DAYS[-40], 4_500, 5_000, "rights"),),
}
YOUNG = 140  # days of the ETF
PER_DAY = 10
"""One-minute bars of a day."""


def made(code: str) -> DailyBars:
    """A walk of prices: before an event on its old basis, ending at the close that it names; after it, at the base price."""
    chance = np.random.default_rng(int(code, 36))
    days = DAYS[-YOUNG:] if code == "0000D0" else DAYS
    base = {"000100": 10_000, "000200": 4_500, "0000D0": 20_000}[code]
    close = np.round(base * np.exp(np.cumsum(chance.normal(0, 0.01, len(days))))).astype(np.int64)
    for event in EVENTS.get(code, ()):
        at = days.index(event.ex_day)
        close[:at] = np.round(close[:at] * (event.previous_close / close[at - 1]))
        close[at:] = np.round(close[at:] * (event.base_price / close[at]))
    first = close[0]
    before = np.append(first, close[:-1])
    for event in EVENTS.get(code, ()):
        before[days.index(event.ex_day)] = event.base_price
    volume = chance.integers(1_000, 90_000, len(days))
    halted = np.array([day in HALTS.get(code, ()) for day in days])
    for at in np.flatnonzero(halted):
        close[at], volume[at] = close[at - 1], 0
        before[at : at + 2] = close[at]
    high = np.maximum(before, close) + np.where(halted, 0, chance.integers(0, 50, len(days)))
    low = np.minimum(before, close) - np.where(halted, 0, chance.integers(0, 50, len(days)))
    half = volume // 2
    value = before * (volume - half) + close * half
    nothing = np.zeros(len(days), np.int64)
    late = np.array([day >= AFTER_MARKET_SINCE for day in days]) & ~halted
    after = close + np.where(late, 10, 0)
    return DailyBars(
        np.array(days, "datetime64[D]"), before, high, low, close, volume, value, halted,
        after, np.maximum(high, after), np.minimum(low, after), nothing + np.where(late, 7, 0), after * 7 * late,
    )  # fmt: skip


class Small:
    """201 days of a stock that was halted twice and split, of one that had a rights issue and is halted now; an ETF."""

    label = "faults"
    days = np.array(DAYS, "datetime64[D]")
    listings = (
        Listing(
            "0000D0", "KOSPI", "etf", ((DAYS[-YOUNG], "가나 ETF"),), "", "", DAYS[-YOUNG], None, ((DAYS[-YOUNG], 10**6),)
        ),
        Listing("000100", "KOSPI", "stock", ((LONG_AGO, "가나전자"),), "", "", LONG_AGO, None, ((LONG_AGO, 10**6),)),
        Listing(
            "000200", "KOSDAQ", "stock", ((LONG_AGO, "다라소재"),), "", "", LONG_AGO, None, ((LONG_AGO, 10**6),),
            warnings=((DAYS[-3], None, "거래정지"),),
        ),
    )  # fmt: skip
    sectors = (Sector("001", "종합(KOSPI)", "KOSPI"), Sector("101", "종합(KOSDAQ)", "KOSDAQ"))

    def __init__(self) -> None:
        self._bars = {listing.code: made(listing.code) for listing in self.listings}

    def session(self, day: date) -> Session | None:
        if day not in DAYS:
            return None
        opens, auction, closes, after, end = (
            datetime(day.year, day.month, day.day, *hour, tzinfo=KST)
            for hour in ((9, 0), (15, 20), (15, 30), (16, 0), (20, 0))
        )
        late = day >= AFTER_MARKET_SINCE
        return Session(day, opens, auction, closes, after if late else None, end if late else None)

    def daily(self, code: str) -> DailyBars:
        return self._bars[code]

    def index(self, code: str) -> DailyBars:
        return self._bars["000100"]

    def minutes(self, code: str, day: date) -> MinuteBars:
        """The open with the range and half of the volume, then a share each forty minutes, and the close with the rest."""
        bars = self.daily(code)
        found = np.flatnonzero(bars.day == np.datetime64(day))
        if not len(found) or bars.halted[found[0]]:
            return empty_minutes()
        at = int(found[0])
        open_, high, low, close, volume, after = (
            int(column[at]) for column in (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.after_close)
        )
        half, hours = volume // 2, range(PER_DAY - 2)
        rows = [("09:00", open_, high, low, open_, volume - half - len(hours))]
        rows += [
            (f"{9 + n * 40 // 60:02}:{n * 40 % 60:02}", open_, open_, open_, open_, 1) for n in range(1, PER_DAY - 1)
        ]
        rows.append(("15:30", close, close, close, close, half))
        if bars.after_volume[at]:
            rows.append(("16:05", after, after, after, after, int(bars.after_volume[at])))
        start, *columns = zip(*rows, strict=True)
        numbers: list[Any] = [np.array(column, np.int64) for column in columns]
        return MinuteBars(
            np.array([f"{day}T{time_}" for time_ in start], "datetime64[m]"), *numbers, numbers[3] * numbers[4]
        )

    def events(self, code: str) -> tuple[Event, ...]:
        return EVENTS.get(code, ())

    def flows(self, code: str) -> Flows:
        return Flows(self.days, {})


# Collecting, as the jobs do.

SHORT = ["0000D0", "000100"]
"""What five-minute bars are collected of."""
CONTENT = {
    "candles": "SELECT code, timeframe, ts, open, high, low, close, volume, value, flags, source FROM api.candles_raw",
    "factors": "SELECT code, ex_date, price_factor, volume_factor, kind, source FROM api.factors",
    "gaps": "SELECT code, timeframe, ts, kind, source FROM api.gaps",
    "quarantine": "SELECT code, timeframe, ts, rule, action, payload::text FROM api.quarantine",
}
EMPTIED = (
    "live.candles", "live.factors", "live.instruments", "ops.gaps", "ops.quarantine", "ops.run_items", "ops.runs",
)  # fmt: skip


class QuickSlots(LocalSlots):
    """Reserves one slot where a batch is asked for: a refusal gives up the whole batch, which would cost a second here."""

    def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
        return super().reserve(key, 1, interval_s)


@dataclass
class Road:
    """The simulator, and the database at the other end."""

    server: SimulatorServer
    engine: Engine
    clock: Clock

    def empty(self) -> None:
        with self.engine.begin() as conn:
            for table in EMPTIED:
                conn.exec_driver_sql(f"DELETE FROM {table}")

    def content(self) -> dict[str, list[Any]]:
        """All that is held, without who stored it and when."""
        with self.engine.connect() as conn:
            return {
                name: sorted((tuple(row) for row in conn.execute(text(query))), key=repr)
                for name, query in CONTENT.items()
            }

    def disturb(self, seed: int | None) -> None:
        """Give the server the faults of a seed; None: none."""
        rules = [
            f"  - {{{f'api_id: {which}, ' if which else ''}probability: {CHANCE.get(kind, USUAL_CHANCE)}, do: {do}}}\n"
            for kind, (which, do) in KINDS.items()
        ]
        script = read_faults(f"seed: {seed}\nrules:\n{''.join(rules)}").rules if seed is not None else []
        self.server.options.faults.rules[:] = script

    def client(self) -> KiwoomClient:
        ((appkey, secretkey),) = self.server.options.keys.items()
        return KiwoomClient(
            Credentials(appkey, secretkey), base_url=self.server.url, pacer=Pacer(QuickSlots(), 2_000), clock=self.clock,
            timeout_s=TIMEOUT_S, deadline_s=DEADLINE_S, back_off_s=0.001, between_issues_s=0,
        )  # fmt: skip

    def collect(self, client: KiwoomClient, workers: int) -> tuple[list[Report], dict[str, str]]:
        """Collect once; return the reports, and what failed with the reason, whole jobs among it."""
        reports, failed = [], dict[str, str]()
        with ledger.notebook_run(self.engine, None, job="faults", clock=self.clock) as run_id:
            told = {"run_id": run_id, "clock": self.clock}
            jobs = {
                "instruments": lambda source: sync_instruments(self.engine, source, **told),
                "daily": lambda source: collect_daily(self.engine, source, **told),
                "intraday": lambda source: collect_intraday(self.engine, source, SHORT, **told),
                "quotes": lambda source: collect_quotes(self.engine, source, **told),
            }
            source = KiwoomSource(client, name="simulated", market="SIM", clock=self.clock, years=1, workers=workers)
            for name, job in jobs.items():
                try:
                    report = job(source)
                except ChartInsightError as error:
                    failed[name] = str(error)
                else:
                    reports.append(report)
                    failed |= {f"{name} {item}": reason for item, reason in report.errors.items()}
        return reports, failed

    def collect_until_done(self, workers: int) -> int:
        """Collect until nothing fails; return how often that took."""
        with self.client() as client:
            for time_ in range(1, AGAIN + 1):
                _, failed = self.collect(client, workers)
                if not failed:
                    return time_
        raise AssertionError(f"after {AGAIN} collections there are still failures: {failed}")


@pytest.fixture
def road(loader: Engine) -> Iterator[Road]:
    options = Options(
        quota=10_000, reissue="kill_old", token_life=timedelta(days=3), page_sizes={"ka10081": 67, "ka10080": 60},
        remember=20_000,
    )  # fmt: skip
    with SimulatorServer(Small(), SimulatedClock(EVENING, speed=0), options) as server:
        yield Road(server, loader, fixed_clock(EVENING))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail in the midst of what takes longer; every five seconds again, should something wait for a thread that hangs."""

    def too_long(*_: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise AssertionError(f"it hangs: it took {seconds:.0f} s and has not ended")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def differences(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> list[str]:
    """What one content has and the other has not."""
    told: list[str] = []
    for name, rows in expected.items():
        mine, its = Counter(map(repr, found[name])), Counter(map(repr, rows))
        told += [f"{name}: too much: {row}" for row in (mine - its).elements()]
        told += [f"{name}: lacks: {row}" for row in (its - mine).elements()]
    return told


def kind_of(request: Request) -> str:
    """Which of KINDS disturbed a request; "" for none, and for what could do nothing to it."""
    name = AS_LOGGED.get(request.fault, request.fault)
    if name == "repeat_key" and request.page == 1:
        return ""  # nothing was sent that could be repeated
    return name


def test_the_undisturbed_content_is_what_the_market_says(road):
    road.empty()
    assert road.collect_until_done(workers=4) == 1
    content = road.content()
    # 201 weekdays until today, of which one stock was halted on 25 and 5, and the other on 3.
    days = Counter(row[0] for row in content["candles"] if row[1] == "1d")
    assert days == {"000100": 201 - 30, "000200": 201 - 3, "0000D0": YOUNG}
    gaps = Counter((row[0], row[3]) for row in content["gaps"] if row[1] == "1d")
    assert gaps == {("000100", "no-trade"): 30, ("000200", "halted"): 3}
    assert {(row[0], row[1], row[4]) for row in content["factors"]} == {
        ("000100", DAYS[120], "split"), ("000200", DAYS[-40], "rights"),
    }  # fmt: skip
    assert {row[0] for row in content["candles"] if row[1] == "5m"} == set(SHORT)
    assert content["quarantine"] == []
    pages = Counter()
    for request in road.server.requests:
        pages[request.api_id, request.code] = max(pages[request.api_id, request.code], request.page)
    assert all(3 <= most <= 6 for (api_id, _), most in pages.items() if api_id in ("ka10080", "ka10081")), pages


def test_quotes_that_are_an_empty_page_are_asked_for_again(road):
    """One request in a run asks for quotes: by chance it is seldom this one that comes back empty."""
    road.server.options.faults.rules[:] = read_faults("rules: [{api_id: ka10095, nth: 1, do: empty_page}]").rules
    codes = [listing.code for listing in Small.listings]
    with road.client() as client:
        assert [row["stk_cd"] for row in client.quotes(codes)] == codes
    assert [kind_of(request) for request in road.server.requests if request.api_id == "ka10095"] == ["empty_page", ""]


def test_a_disturbed_collection_ends_as_an_undisturbed_one(road):
    print(f"\nseed {SEED}, {RUNS} runs: repeat with FAULT_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    road.empty()
    road.collect_until_done(workers=4)
    clean = road.content()

    kinds, asked, repeats, slowest = Counter[str](), 0, Counter[int](), 0.0
    started = time.monotonic()
    for run in range(RUNS):
        seed = SEED + run
        workers = (1, 4)[seed % 2]  # with one, the same seed makes the same run
        where = f"run {run}, seed {seed}, {workers} workers"
        road.empty()
        road.disturb(seed)
        before, begun = road.server.requests.total, time.monotonic()
        try:
            with within(RUN_WITHIN_S):
                repeats[road.collect_until_done(workers)] += 1
                assert differences(road.content(), clean) == []
                # Once more, as disturbed: nothing is lost again, and nothing is written.
                reports: list[Report] = []
                if seed % ONCE_MORE == 0:
                    with road.client() as client:
                        reports, _ = road.collect(client, workers)
        except BaseException:
            print(f"failed: {where}")  # noqa: T201
            raise
        for report in reports:
            for item, rows in report.items.items():
                assert rows.get("inserted", 0) == rows.get("updated", 0) == 0, (where, report.job, item, rows)
        assert differences(road.content(), clean) == [], where
        slowest = max(slowest, time.monotonic() - begun)
        new = road.server.requests.total - before
        mine = list(road.server.requests)[-new:]
        asked += new
        kinds.update(kind for request in mine if (kind := kind_of(request)))

    share = kinds.total() / asked
    print(  # noqa: T201
        f"{RUNS} runs in {time.monotonic() - started:.0f} s, the slowest {slowest:.1f} s; {asked} requests, {share:.1%} "
        f"disturbed: {dict(kinds.most_common())}; collections until nothing failed: {dict(sorted(repeats.items()))}"
    )
    if RUNS >= MANY:
        by_chance = 4 * (SHARE * (1 - SHARE) / asked) ** 0.5
        assert abs(share - SHARE) < 0.01 + by_chance, (
            f"{share:.1%} of requests were disturbed, and {SHARE:.0%} are meant"
        )
        assert set(kinds) == set(KINDS)

"""How much of Kiwoom's quota the client uses, and that it never uses more: printed, and judged by the server's own log.

    python benchmarks/kiwoom_quota.py [--seconds 60] [--processes 8] [--latency-ms 0]

A simulator with the real host's quota (5 requests a second per appkey and API id, in a sliding window, HTTP 429 beyond) is
asked for one API id, as fast as the client allows, by: many processes that share quota and token through PostgreSQL; one
process; one process with four threads, and a server that takes 100 ms for each answer. Then the limiter's own cost per call
is measured, without the wait that is its purpose. It takes a little more than three times `--seconds`.

Exit code 1: less than 95 % of the allowed requests were made, a request was refused after the first two seconds, or more
than one token was issued. A machine whose processors are all busy disturbs the pace: the load stands in the last column.
"""

# ruff: noqa: T201 - it prints: that is what it is for
from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import numpy as np
from _stage import DAILY, TOKEN, Show, Simulator, fresh_home, load, processes, settings_for, simulator

from chartinsight_lib.clients.kiwoom_source import KINDS
from chartinsight_lib.db.engine import Database, open_database, open_engine
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.pace import SharedSlots
from chartinsight_lib.db.roles import Role
from chartinsight_lib.pace import LocalSlots, Pacer, Slots
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.options import REAL_QUOTA
from chartinsight_lib.simulator.process import START
from chartinsight_lib.sources import kiwoom_client

GOAL_SHARE = 0.95
SETTLING_S = 2.0
DAY = date(2016, 1, 8)
"""A day at the beginning of the market: its page has five rows, so that neither side is busy with anything but pace."""
CALLS = 1_000


class Case(NamedTuple):
    """Who asks."""

    name: str
    processes: int
    threads: int
    latency_s: float


class Found(NamedTuple):
    """What the server's log says of a case."""

    sent: int
    allowed: float
    refused: int
    refused_later: int
    least: int
    most: int
    tokens: int

    @property
    def share(self) -> float:
        """Requests that were let pass, of those allowed."""
        return (self.sent - self.refused) / self.allowed

    @property
    def good(self) -> bool:
        """Whether the goals are reached."""
        return self.share >= GOAL_SHARE and not self.refused_later and self.tokens == 1


def main() -> int:
    """Run all cases, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each case [60]")
    parser.add_argument("--processes", type=int, default=8, help="processes of the first case [8]")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of the server, in the first two cases [0]")
    asked = parser.parse_args()
    latency_s = asked.latency_ms / 1000
    cases = [
        Case(f"{asked.processes} processes", asked.processes, 1, latency_s),
        Case("1 process", 1, 1, latency_s),
        Case("1 process, 4 threads, 100 ms", 1, 4, 0.1),
    ]
    _row("case", "sent", "allowed", "used", "429s", f"429s after {SETTLING_S:.0f} s", "per client", "tokens", "load")
    good = True
    for case in cases:
        found = _run(case, asked.seconds)
        good &= found.good
        _row(
            case.name, found.sent, f"{found.allowed:.0f}", f"{found.share:.1%}", found.refused, found.refused_later,
            f"{found.least} to {found.most}", found.tokens, load().split()[2],
        )  # fmt: skip
    print(f"\nlimiter, ms a call beside its wait ({CALLS:,} calls each; {load()})")
    with fresh_home() as home, open_database(Settings(_env_file=None, home=home)) as database:
        upgrade(database)
        for name, cost in _costs(database).items():
            print(
                f"  {name:<38} mean {cost.mean():.3f}   p50 {np.median(cost):.3f}   p99 {np.quantile(cost, 0.99):.3f}"
            )
    print("\ngoals reached" if good else "\nGOALS MISSED")
    return 0 if good else 1


def _row(*cells: object) -> None:
    widths = (30, 6, 9, 8, 6, 15, 13, 8, 6)
    print("".join(f"{cell:<{width}}" if at == 0 else f"{cell!s:>{width}}"
                  for at, (cell, width) in enumerate(zip(cells, widths, strict=True))), flush=True)  # fmt: skip


def _run(case: Case, seconds: float) -> Found:
    with fresh_home() as home, simulator(Show(latency_s=case.latency_s)) as running:
        settings = settings_for(home, running)
        with open_database(settings) as database:
            upgrade(database)
            ready = processes.Barrier(case.processes)
            each = case.threads
            codes = _oldest(running, case.processes * each)
            shares = [codes[at : at + each] for at in range(0, len(codes), each)]
            clients = [processes.Process(target=_ask, args=(settings, share, seconds, ready)) for share in shares]
            for one in clients:
                one.start()
            for one in clients:
                one.join()
            if failed := [one.exitcode for one in clients if one.exitcode]:
                raise RuntimeError(f"{len(failed)} of {case.processes} clients failed; their errors stand above")
        return _judge(running.requests(), shares, seconds)


def _oldest(running: Simulator, count: int) -> list[str]:
    """Return codes that are listed now and were on DAY."""
    rows = running.rows(KINDS, DAY, START.date())
    return sorted(rows, key=lambda code: -rows[code])[:count]


def _judge(requests: list[dict[str, Any]], shares: Sequence[Sequence[str]], seconds: float) -> Found:
    data = [one for one in requests if one["api_id"] == DAILY]
    start = data[0]["monotonic"]
    data = [one for one in data if one["monotonic"] < start + seconds]
    refused = [one for one in data if one["status"] == 429]
    asked = Counter(one["code"] for one in data)
    counts = [sum(asked[code] for code in share) for share in shares]
    return Found(
        sent=len(data),
        allowed=REAL_QUOTA * seconds,
        refused=len(refused),
        refused_later=sum(one["monotonic"] >= start + SETTLING_S for one in refused),
        least=min(counts),
        most=max(counts),
        tokens=sum(one["api_id"] == TOKEN for one in requests),
    )


def _ask(settings: Settings, codes: Sequence[str], seconds: float, ready: Barrier) -> None:
    """Ask for as much as the client allows, in a thread for each code; the codes name this process in the server's log."""
    engine = open_engine(settings, Role.LOADER)
    with kiwoom_client(settings, engine) as client, ThreadPoolExecutor(len(codes)) as pool:
        ready.wait(60)
        until = time.monotonic() + seconds

        def ask(code: str) -> None:
            while time.monotonic() < until:
                for _ in client.daily_candles(code, since=DAY, until=DAY):
                    pass

        for _ in pool.map(ask, codes):
            pass  # an error is raised here
    engine.dispose()


class _Asked:
    """Slots that remember whether they were asked."""

    def __init__(self, slots: Slots) -> None:
        self._slots, self.asked = slots, False

    def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
        """Reserve slots; see `pace.Slots`."""
        self.asked = True
        return self._slots.reserve(key, count, interval_s)

    def slow_down(self, key: str, interval_s: float, *, wait_s: float, sent_ago_s: float) -> None:
        """Set slots further apart; see `pace.Slots`."""
        self._slots.slow_down(key, interval_s, wait_s=wait_s, sent_ago_s=sent_ago_s)


def _costs(database: Database) -> dict[str, np.ndarray]:
    engine = database.engine(Role.LOADER)
    shared, rate = SharedSlots(engine, "benchmark"), 500.0
    # A new pacer knows nothing of the past, and so reserves one slot.
    asking = [_cost(lambda sleep: Pacer(shared, rate, sleep=sleep), "asking")[0] for _ in range(CALLS)]
    slots = _Asked(shared)
    costs = {
        "shared, the database asked": np.array(asking),
        "shared, from a batch reserved before": np.array(_cost(lambda sleep: Pacer(slots, rate, sleep=sleep), "batch",
                                                               count=CALLS, slots=slots)),
        "of this process alone": np.array(_cost(lambda sleep: Pacer(LocalSlots(), rate, sleep=sleep), "local",
                                                count=CALLS)),
    }  # fmt: skip
    engine.dispose()
    return costs


def _cost(
    make: Callable[[Callable[[float], None]], Pacer], key: str, *, count: int = 1, slots: _Asked | None = None
) -> list[float]:
    """Return the milliseconds that each call of `Pacer.wait` takes without its sleep; with `slots`, of those that ask none."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        began = time.perf_counter()
        time.sleep(seconds)
        slept = time.perf_counter() - began

    pacer, found = make(sleep), []
    while len(found) < count:
        slept = 0.0
        if slots:
            slots.asked = False
        began = time.perf_counter()
        pacer.wait(key, until=time.monotonic() + 60)
        took = time.perf_counter() - began - slept
        if not (slots and slots.asked):
            found.append(took * 1000)
    return found


if __name__ == "__main__":
    sys.exit(main())

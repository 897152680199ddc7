"""A simulator as a process of its own: what `chartinsight simulate` runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from chartinsight_lib.clock import file_clock
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.faults import read_faults
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.model import KST, Market
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.replay import ReplayMarket
from chartinsight_lib.simulator.server import SimulatorServer

START = datetime(2026, 10, 13, 10, tzinfo=KST)
"""When a generated market is entered: a Tuesday morning in the days of the after-market."""
LAST_DAY = date(2028, 12, 29)
PUBLISH_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate, and when. `start` None: START, or the evening of a replay's last day."""

    seed: int = 7
    instruments: int = 300
    replay: str | None = None
    start: datetime | None = None
    speed: float = 1.0
    clock_file: Path | None = None
    resume: bool = False
    """Go on where the clock in `clock_file` stood last, if that is later than `start`."""


def run(
    plan: Plan, options: Options, *, port: int, stop: threading.Event, ready: Callable[[str, datetime], None]
) -> None:
    """Serve until `stop` is set; `ready` is told the address and the simulated time.

    Raises:
        ConfigError: the plan or the port is wrong, or the market does not reach to the start.
        SchemaError: what is to be replayed is damaged.
    """
    market = open_market(plan)
    clock = SimulatedClock(_start(plan, market), speed=plan.speed, published=plan.clock_file)
    with SimulatorServer(market, clock, options, port=port) as server:
        if options.skip_closed:
            server.skip_closed()
        ready(server.url, clock.now())
        while not stop.wait(PUBLISH_S):
            clock.publish()
        clock.publish()


def open_market(plan: Plan) -> Market:
    """Make or read the market. Errors as `run`."""
    if plan.replay is None:
        return GeneratedMarket(plan.seed, instruments=plan.instruments, last_day=LAST_DAY)
    if plan.replay.startswith(("postgresql://", "postgres://", "postgresql+")):
        return ReplayMarket.from_database(plan.replay)
    return ReplayMarket.from_path(plan.replay)


def server_options(
    *, keys: Mapping[str, str], profile: str, faults: Path | None, log: Path | None, skip_closed: bool
) -> Options:
    """Return the options of a server from what a person says; without `keys` it has its fixed ones. Raises ConfigError."""
    options = Options(profile="mock" if profile == "mock" else "real", request_log=log, skip_closed=skip_closed)
    if keys:
        options = replace(options, keys=dict(keys))
    return replace(options, faults=read_faults(faults)) if faults else options


def _start(plan: Plan, market: Market) -> datetime:
    first, last = (market.days[at].astype("datetime64[D]").astype(object) for at in (0, -1))
    start = plan.start or (
        START if plan.replay is None else datetime(last.year, last.month, last.day, 20, 30, tzinfo=KST)
    )
    if plan.resume and plan.clock_file is not None and plan.clock_file.exists():
        start = max(start, _stood(plan.clock_file))
    day: date = start.astimezone(KST).date()
    if not np.datetime64(first) <= np.datetime64(day) <= np.datetime64(last):
        raise ConfigError(
            f"simulator: it cannot start on {day}; {market.label} reaches from {first} to {last}."
            + (f" To begin anew, remove {plan.clock_file} and what is stored of the market SIM." if plan.resume else "")
        )
    return start


def _stood(path: Path) -> datetime:
    """Return what the clock in a file said when it was last written, and a little more: what was seen stays in the past."""
    try:
        written = datetime.fromisoformat(path.read_text(encoding="utf-8").split()[2])
    except (OSError, ValueError, IndexError):
        return START
    return file_clock(path, machine=lambda: written)().astimezone(KST) + timedelta(minutes=5)

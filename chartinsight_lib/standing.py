"""What `up` does while it stands on a live source: it collects again, and scans again when a trading day has ended.

A day's bars become final when the next one begins. Shortly before its opening, when the base prices of the day are set, the
daily bars are collected and the market is scanned; in between quotes and five-minute bars are collected. A job that fails is
said, and the next round tries again.
"""

import time
from collections.abc import Callable, Mapping
from datetime import time as wall_time
from typing import Any

from chartinsight_lib import ledger
from chartinsight_lib.db.engine import Database
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import RunFailed
from chartinsight_lib.jobs import read_jobs
from chartinsight_lib.runner import run_job
from chartinsight_lib.settings import Settings

EVERY_S, EVERY_SIMULATED_S = 300.0, 10.0
"""Seconds between two rounds: on Kiwoom a bar's length, on a simulated market as often as it moves visibly."""
DAILY_FROM = wall_time(8, 30)
OPEN_FROM, OPEN_UNTIL = wall_time(8, 50), wall_time(20, 10)
SATURDAY = 5

Say = Callable[[str], None]


def keep_collecting(
    database: Database, settings: Settings, source: str, market: str, ended: Callable[[float], bool], say: Say
) -> None:
    """Collect round after round until `ended(seconds)`, which waits for up to so long, says that the dashboard is gone."""
    every_s = EVERY_SIMULATED_S if market == "SIM" else EVERY_S
    jobs = read_jobs(settings.project)
    zone = MARKETS[market].zone
    collected = settings.clock().astimezone(zone).date()
    while not ended(every_s):
        now = settings.clock().astimezone(zone)
        if now.date() > collected and now.time() >= DAILY_FROM:
            daily = _run(database, settings, "collect_daily", {"source": source}, say)
            scanned = daily and _run(database, settings, "scan_radar", {"market": market}, say)
            collected = now.date() if scanned else collected
        if now.weekday() < SATURDAY and OPEN_FROM <= now.time() < OPEN_UNTIL:
            for job in jobs.values():
                if job.live:
                    _run(database, settings, job.name, {"source": source}, say)


def _run(database: Database, settings: Settings, name: str, parameters: Mapping[str, Any], say: Say) -> bool:
    started = time.monotonic()
    try:
        run = run_job(database, settings, read_jobs(settings.project)[name], parameters)
    except RunFailed as error:
        say(f"  {name:<17} FAILED, going on with what is stored: {error}")
        return False
    now = settings.clock().astimezone(MARKETS["KRX"].zone)
    say(f"  {name:<17} {time.monotonic() - started:4.1f} s  {now:%m-%d %H:%M} {ledger.rows_text(run.rows)}")
    return True

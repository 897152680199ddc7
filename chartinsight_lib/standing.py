"""What `up` does while it stands on a live source: it collects again, and scans again when a trading day has ended.

A day's bars become final when the next one begins. Shortly before its opening, when the base prices of the day are set, the
daily bars are collected and the market is scanned; while it trades, quotes and five-minute bars are collected. When a market
trades, its calendar says. A job that fails is said, and the next round tries again.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from chartinsight_lib import ledger
from chartinsight_lib.calendars import Calendar, calendar
from chartinsight_lib.db import query
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import BeyondHorizon, ChartInsightError
from chartinsight_lib.jobs import Job, read_jobs
from chartinsight_lib.runner import run_job
from chartinsight_lib.settings import Settings

EVERY_S, EVERY_SIMULATED_S = 300.0, 10.0
"""Seconds between two rounds: on Kiwoom a bar's length, on a simulated market as often as it moves visibly."""
MORNING = timedelta(minutes=30)
"""So long before its opening a day has its base prices: 08:30 on most days, later where the market opens later."""
MARGIN = timedelta(minutes=10)
"""So long before its opening and after its end a day is collected round after round."""
TRY_AGAIN = timedelta(hours=1)
"""A daily collection in which something failed is repeated so long after; so is what else stands in the way."""
COPIES = 50
"""So many executed copies of a repeated job are kept of a simulated market; their records in ops.runs all are."""

Say = Callable[[str], None]


def keep_collecting(
    database: Database,
    settings: Settings,
    source: str,
    market: str,
    ended: Callable[[float], bool],
    say: Say,
    *,
    since: datetime | None,
) -> None:
    """Collect round after round until `ended(seconds)`, which waits for up to so long, says that the dashboard is gone.

    Args:
        since: when the last collection of daily bars that went well was begun (tz-aware); None: none has.
    """
    every_s = EVERY_SIMULATED_S if market == "SIM" else EVERY_S
    jobs = read_jobs(settings.project)
    known = calendar(market)
    collected = since
    tried: datetime | None = None
    warned: datetime | None = None
    scanned = newest_day(database, market)
    while not ended(every_s):
        now = settings.clock().astimezone(known.zone)
        try:
            morning, trading = _newest_morning(known, now), _trades_about(known, now)
            due = collected is None or _newest_morning(known, collected) < morning
            due &= tried is None or now - tried >= TRY_AGAIN or _newest_morning(known, tried) < morning
        except BeyondHorizon as error:
            # Nobody knows any more when there is something to collect; to guess would be to ask on holidays.
            if warned is None or now - warned >= TRY_AGAIN:
                warned = now
                say(f"  NOTHING IS COLLECTED ANY MORE: {error}")
            continue
        if due:
            tried = now
            # What is newly listed has to be known before its bars can be stored.
            _run(database, settings, jobs["sync_instruments"], {"source": source}, say)
            if _run(database, settings, jobs["collect_daily"], {"source": source}, say):
                collected = now
            # It also says what is missing and how complete the market is, where nothing is to be mended.
            _run(database, settings, jobs["repair_gaps"], {"source": source}, say)
        # One instrument that failed keeps nobody from seeing the others.
        if (newest := newest_day(database, market)) != scanned and _run(
            database, settings, jobs["scan_radar"], {"market": market, "as_of": newest}, say
        ):
            scanned = newest
        if trading:
            for job in jobs.values():
                if job.live:
                    _run(database, settings, job, {"source": source}, say)
                    if market == "SIM":
                        _discard_copies(settings.runs / job.name)


def _newest_morning(known: Calendar, now: datetime) -> date:
    """Return the newest trading day whose morning, when the day before became final, has come by `now`."""
    today = now.astimezone(known.zone).date()
    if known.is_trading_day(today) and now >= known.session(today).begins - MORNING:
        return today
    return known.last_ended(datetime.combine(today, time.min, known.zone))


def _trades_about(known: Calendar, now: datetime) -> bool:
    """Whether a market trades, or is about to, or has just ended."""
    today = now.astimezone(known.zone).date()
    if not known.is_trading_day(today):
        return False
    session = known.session(today)
    return session.begins - MARGIN <= now < session.ends + MARGIN


def newest_day(database: Database, market: str) -> str:
    """Return the date of the newest final bar held of a market, as text; "" where there is none."""
    with reading(database) as conn:
        day = query.last_final_day(conn, market)
    return day.isoformat() if day else ""


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """Give a connection as the reader."""
    engine = database.engine(Role.READER)
    try:
        with engine.connect() as conn:
            yield conn
    finally:
        engine.dispose()


def _discard_copies(folder: Path) -> None:
    """Remove the oldest executed copies beyond COPIES."""
    for path in sorted(folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime)[:-COPIES]:
        path.unlink(missing_ok=True)


def _run(database: Database, settings: Settings, job: Job, parameters: Mapping[str, Any], say: Say) -> bool:
    started = monotonic()
    try:
        run = run_job(database, settings, job, parameters)
    except (ChartInsightError, SQLAlchemyError) as error:
        say(f"  {job.name:<17} FAILED, going on with what is stored: {str(error).splitlines()[0]}")
        return False
    now = settings.clock().astimezone(MARKETS["KRX"].zone)  # of both markets that are live
    say(f"  {job.name:<17} {monotonic() - started:4.1f} s  {now:%m-%d %H:%M} {ledger.rows_text(run.rows)}")
    return True

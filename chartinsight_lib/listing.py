"""The list of a market's instruments, kept in step with a source: who is new, who changed, who is gone.

One failed call must not delist a market. A list that lacks too many is refused as a whole, and what a believed one lacks is
delisted only when another one, of a second trading day, lacks it too. The delisted and their candles are kept for ever.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, Engine

from chartinsight_lib import ledger
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clients.base import Source
from chartinsight_lib.clock import Clock
from chartinsight_lib.collect import Report
from chartinsight_lib.db import instruments as held
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import IncompleteListing

VANISH_MOST = 0.02
"""This share of a board's listed instruments may be gone from one list to the next."""
FEW = 3
"""So many may be gone of the smallest board, of which a fiftieth would be less than one."""


def sync_instruments(
    engine: Engine, source: Source, *, run_id: UUID, clock: Clock, accept_vanished: bool = False
) -> Report:
    """Store the source's list of instruments, and with the date of today what changed of each.

    Of a source that lists the whole market: what it lacks gets a strike for the day, if it is a trading day, and is delisted
    at the second one, on the day of the first; what it has again is not delisted any more. Other sources delist nothing. A
    list that is refused changes nothing, and is the report's error. Errors of the source itself are raised.

    Args:
        accept_vanished: believe a list that lacks more than usual; it still takes two of them to delist.
    Raises:
        BeyondHorizon: something is gone, and the market's calendar does not know whether today is a trading day.
        Fenced: the run has been ended meanwhile.
    """
    today = clock().astimezone(MARKETS[source.market].zone).date()
    listed = source.instruments()
    report = Report("sync_instruments")
    try:
        with engine.begin() as conn:
            ledger.fence(conn, run_id)
            rows = _store(conn, source, listed, today, run_id, accept_vanished)
            ledger.record_item(conn, run_id, source.name, rows=rows, clock=clock, market=source.market)
    except IncompleteListing as error:
        report.errors[source.name] = str(error)
        with engine.begin() as conn:
            ledger.fence(conn, run_id)
            ledger.record_item(conn, run_id, source.name, rows={}, clock=clock, market=source.market, error=str(error))
        return report
    report.items[source.name] = rows
    return report


def check_listing(active: pd.DataFrame, listed: pd.DataFrame, *, source: str, accept_vanished: bool = False) -> None:
    """Refuse a list of a whole market that is not to be believed.

    Args:
        active: what the source has listed before and is not delisted: index code, column board (may be missing values).
        listed: the list: column code, and board where it tells.
        accept_vanished: refuse nothing but a list without any instrument.
    Raises:
        IncompleteListing: the list is empty; or, of one board: everything is gone, more than half, or more than VANISH_MOST
            and more than FEW.
    """
    if listed.empty:
        raise IncompleteListing(f"{source}: the list of instruments is empty. Nothing was changed; try again later.")
    if accept_vanished:
        return
    gone = ~active.index.isin(listed["code"])
    boards = active["board"].fillna("no board")
    for board, had in boards.value_counts().items():
        lacks = active.index[gone & (boards == board)]
        if len(lacks) == had or len(lacks) > had / 2 or len(lacks) > max(VANISH_MOST * had, FEW):
            raise IncompleteListing(
                f"{source}: the list lacks {len(lacks)} of the {had} instruments of {board} that were listed "
                f"({', '.join(lacks[:5])}{', …' if len(lacks) > 5 else ''}); up to {max(int(VANISH_MOST * had), FEW)} are "
                "believed, and not the half of them. Nothing was changed. Try again later; if they are gone indeed, run "
                "sync_instruments once with accept_vanished."
            )


def _store(
    conn: Connection, source: Source, listed: pd.DataFrame, today: date, run_id: UUID, accept_vanished: bool
) -> Mapping[str, int]:
    held.lock_listing(conn, source.market)
    absent: list[int] = []
    whole = source.lists_whole_market
    if whole:
        active = held.active(conn, source.market, source.name)
        check_listing(active, listed, source=source.name, accept_vanished=accept_vanished)
        absent = active.loc[~active.index.isin(listed["code"]), "instrument_id"].tolist()
    changes = held.upsert_instruments(conn, listed, source=source.name, run_id=run_id, whole_market=whole)
    rows = {"read": len(listed), **asdict(changes)}
    present = held.instrument_ids(conn, source.market).reindex(listed["code"]).astype("int64").tolist()
    delisted: list[int] = []
    if whole:
        held.clear_strikes(conn, present)
        if absent and calendar(source.market).is_trading_day(today):
            delisted = held.strike(conn, absent, today, source=source.name, run_id=run_id)
        rows |= {"absent": len(absent) - len(delisted), "delisted": len(delisted)}
    held.record_history(conn, [*present, *delisted], today)
    return rows

"""The list of a market's instruments, kept in step with its source."""

from dataclasses import asdict
from uuid import UUID

from sqlalchemy import Engine

from chartinsight_lib import ledger
from chartinsight_lib.clients.base import Source
from chartinsight_lib.clock import Clock
from chartinsight_lib.collect import Report
from chartinsight_lib.db.instruments import upsert_instruments


def sync_instruments(engine: Engine, source: Source, *, run_id: UUID, clock: Clock) -> Report:
    """Store the source's list of instruments; one that the list lacks is kept as it is."""
    listed = source.instruments()
    with engine.begin() as conn:
        changes = upsert_instruments(conn, listed, source=source.name, run_id=run_id)
        rows = {"read": len(listed), **asdict(changes)}
        ledger.record_item(conn, run_id, source.name, rows=rows, clock=clock, market=source.market)
    return Report("sync_instruments", {source.name: rows})

"""Source -> normalise -> store: the only place where the three meet.

One transaction per batch holds its bars, gaps, factors, rejected rows and its record; a batch that fails leaves nothing but the
record of its failure, and the next one goes on. Everything can be repeated: the second time changes no row.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, Engine

from chartinsight_lib import ledger, normalise
from chartinsight_lib.clients.base import Batch, BulkSource
from chartinsight_lib.clock import Clock
from chartinsight_lib.db import store
from chartinsight_lib.domain import FACTOR, MARKETS, Flag
from chartinsight_lib.errors import ChartInsightError, RunFailed, SchemaError
from chartinsight_lib.factors import learn_factors

DAILY = "1d"


@dataclass(slots=True)
class Report:
    """What a collection did, item by item."""

    job: str
    items: dict[str, Mapping[str, int]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per item and a column per count, the last row their sum; for the last cell of a notebook."""
        table = pd.DataFrame.from_dict(self.items, orient="index").fillna(0).astype("int64")
        if len(table) > 1:
            table.loc["total"] = table.sum()
        return table

    def check(self) -> None:
        """Raise RunFailed when an item failed: what succeeded is stored all the same."""
        if self.errors:
            first = next(iter(self.errors.items()))
            raise RunFailed(
                f"{self.job}: {len(self.errors)} of {len(self.items | self.errors)} items failed; the others are stored. "
                f"First: {first[0]}: {first[1]} The others are in api.run_items."
            )


def sync_instruments(engine: Engine, source: BulkSource, *, run_id: UUID, clock: Clock) -> Report:
    """Store the source's list of instruments; one that the list lacks is kept as it is."""
    listed = source.instruments()
    with engine.begin() as conn:
        changes = store.upsert_instruments(conn, listed, source=source.name, run_id=run_id)
        rows = {"read": len(listed), **asdict(changes)}
        ledger.record_item(conn, run_id, source.name, rows=rows, clock=clock, market=source.market)
    return Report("sync_instruments", {source.name: rows})


def collect_daily(engine: Engine, source: BulkSource, *, run_id: UUID, clock: Clock) -> Report:
    """Store the source's daily bars: what is new or changed, no bar of an unfinished day as final, no bar twice.

    A batch or an instrument that cannot be stored is named in the report, and the others are stored.

    Raises:
        ConfigError, SchemaError: the source itself cannot be read; batches before that are stored.
    """
    report = Report("collect_daily")
    for batch in source.daily():
        try:
            with engine.begin() as conn:
                rows, refused = _store_daily(conn, batch, source, run_id, clock)
                for item in {batch.name, *refused}:
                    counted = rows if item == batch.name else {}  # a batch may be an instrument
                    ledger.record_item(
                        conn, run_id, item, rows=counted, clock=clock, market=source.market, error=refused.get(item)
                    )
        except ChartInsightError as error:
            report.errors[batch.name] = str(error)
            with engine.begin() as conn:
                ledger.record_item(
                    conn, run_id, batch.name, rows={}, clock=clock, market=source.market, error=str(error)
                )
            continue
        report.items[batch.name] = rows
        report.errors.update(refused)
    return report


def _store_daily(
    conn: Connection, batch: Batch, source: BulkSource, run_id: UUID, clock: Clock
) -> tuple[dict[str, int], dict[str, str]]:
    """Store one batch; return the count of its rows by what became of them, and why instruments were refused."""
    today = clock().astimezone(MARKETS[source.market].zone).date()
    daily = normalise.daily(
        batch.records, market=source.market, today=today, provisional_from=source.provisional_from(today)
    )
    ids = store.instrument_ids(conn, source.market)
    store.stage_candles(conn, daily.candles, ids)
    factors, refused = _factors(batch.records)
    refused |= {found.code: _restated(found) for found in store.restated(conn, DAILY)}
    candles = daily.candles[~daily.candles["code"].isin(refused)]
    gaps = daily.gaps[~daily.gaps["code"].isin(refused)]
    store.drop_staged(conn, [int(ids[code]) for code in refused])
    changes = store.upsert_staged(conn, DAILY, source=source.name, run_id=run_id)
    store.close_gaps(conn, DAILY)
    store.upsert_gaps(conn, gaps, ids, DAILY, source=source.name, run_id=run_id)
    store.drop_unfinished(conn, DAILY)
    store.add_quarantine(
        conn, daily.quarantine, DAILY, market=source.market, source=source.name, item=batch.name, run_id=run_id
    )
    if "adj_close" in batch.records:
        factors = factors[~factors["code"].isin(refused)]
        store.forget_factors(conn, factors, _spans(candles), ids, source=source.name)
        store.upsert_factors(conn, factors, ids, source=source.name, detected_at=clock(), run_id=run_id)
    rejected = daily.quarantine["action"] == "rejected"
    rows = {
        "read": daily.rows,
        **asdict(changes),
        "refused": len(daily.candles) - len(candles) + len(daily.gaps) - len(gaps),
        "duplicates": daily.duplicates,
        "rejected": int(rejected.sum()),
        **{str(kind): int(count) for kind, count in gaps["kind"].value_counts().items()},
        "of which provisional": int((candles["flags"] & Flag.PROVISIONAL.value != 0).sum()),
        "of which widened": int((candles["flags"] & Flag.WIDENED.value != 0).sum()),
    }
    return rows, refused


def _spans(candles: pd.DataFrame) -> pd.DataFrame:
    """Return code, first and last day (dates) of a candle frame."""
    days = candles.groupby("code")["ts"].agg(["min", "max"]).reset_index()
    return pd.DataFrame({"code": days["code"], "first": days["min"].dt.date, "last": days["max"].dt.date})


def _factors(records: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Learn the factors of each instrument from raw and adjusted closes, where the source gives both; return them, and
    the instruments whose two closes make no sense together, with the reason."""
    if "adj_close" not in records:
        return pd.DataFrame(columns=FACTOR), {}
    found: list[pd.DataFrame] = []
    unusable: dict[str, str] = {}
    for code, own in records.groupby("code", sort=True):
        try:
            found.append(learn_factors(own))
        except SchemaError as error:
            unusable[str(code)] = str(error)
    found = [frame for frame in found if not frame.empty]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=FACTOR), unusable


def _restated(found: store.Restated) -> str:
    return (
        f"its past was restated: {found.differing} of {found.overlap} closes held differ, by a factor of {found.ratio:.6g}. "
        "Nothing of it was changed, so that no two price bases mix."
    )

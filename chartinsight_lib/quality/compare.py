"""What is held against what another source says of the same days. Nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, text

from chartinsight_lib import normalise
from chartinsight_lib.clients.base import NOTHING_HELD, Source
from chartinsight_lib.clock import Clock
from chartinsight_lib.db.bars import panel
from chartinsight_lib.db.findings import raw_closes
from chartinsight_lib.domain import MARKETS, Flag
from chartinsight_lib.errors import NotFound
from chartinsight_lib.quality.comparison import compare

BAR = ["code", "day", "close", "volume"]


def compare_with(engine: Engine, source: Source, *, clock: Clock, codes: Sequence[str] = ()) -> pd.DataFrame:
    """Read a source's daily bars and compare them with those held of its market; of both, those of finished days.

    Each instrument is compared on two bases, raw (as stored) and price (corporate actions undone), and the one is told on which
    more closes are equal; price if that makes no difference.

    Args:
        codes: these instruments alone; empty: all that both have.
    Returns: columns comparison.COMPARISON, and basis.
    Raises:
        NotFound: nothing is held of these instruments. Errors of the source as `source.daily` raises them.
    """
    with engine.connect() as conn:
        held = {"price": _adjusted(conn, source.market), "raw": raw_closes(conn, source.market)}
    if codes:
        held = {basis: ours[ours["code"].isin(list(codes))] for basis, ours in held.items()}
    if held["price"].empty:
        raise NotFound(f"compare: no daily bars of {', '.join(codes) or source.market} are held. Collect some first.")
    told, unit = _told(source, set(held["price"]["code"]), clock), MARKETS[source.market].unit
    both = pd.concat([compare(ours, told, unit=unit).assign(basis=basis) for basis, ours in held.items()])
    best = both.sort_values("equal", ascending=False, kind="stable").drop_duplicates("code")
    return best.sort_values("code", ignore_index=True)


def _adjusted(conn: Connection, market: str) -> pd.DataFrame:
    held = panel(conn, market)
    rows = conn.execute(text("SELECT id, code FROM live.instruments WHERE market = :market"), {"market": market})
    codes = {row.id: row.code for row in rows}
    names = np.array([codes[int(number)] for number in held.ids], dtype=object)
    frame = {
        "code": pd.Series(np.repeat(names, np.diff(held.bounds)), dtype="str"),
        "day": held.ts.tz_localize(None).as_unit("s"),
        "close": held.columns["close"],
        "volume": held.columns["volume"],
    }
    return pd.DataFrame(frame)


def _told(source: Source, codes: set[str], clock: Clock) -> pd.DataFrame:
    """Return the finished daily bars that a source tells of some instruments, without what `normalise` rejects: columns BAR."""
    today = clock().astimezone(MARKETS[source.market].zone).date()
    parts = []
    for batch in source.daily(NOTHING_HELD):
        records = batch.records[batch.records["code"].isin(codes)]
        if records.empty:
            continue
        candles = normalise.daily(
            records, market=source.market, today=today, provisional_from=source.provisional_from(today)
        ).candles
        parts.append(candles[candles["flags"] & Flag.PROVISIONAL.value == 0])
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in zip(BAR, _KINDS, strict=True)})
    told = pd.concat(parts, ignore_index=True)
    return told.assign(day=told["ts"].dt.tz_localize(None).dt.as_unit("s"))[BAR]


_KINDS = ("str", "datetime64[s]", "float64", "float64")

"""What is stored against the rules: findings, kept in `ops.findings`. No bar is changed or dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from chartinsight_lib import ledger
from chartinsight_lib.calendars import calendar, disagreements
from chartinsight_lib.clock import Clock
from chartinsight_lib.db.bars import panel
from chartinsight_lib.db.findings import events, keep_findings
from chartinsight_lib.domain import MARKETS, Flag
from chartinsight_lib.quality.rules import Bars, findings


@dataclass(slots=True)
class Verified:
    """What the rules found about a market's daily bars; `calendar_days` are the days on which its calendar and its bars do
    not agree (columns of `calendars.disagreements`)."""

    market: str
    bars: int
    found: pd.DataFrame
    calendar_days: pd.DataFrame
    changes: dict[str, int] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per rule and state, with its count; for the cell of a notebook."""
        return self.found.groupby(["rule", "state"], as_index=False).size().rename(columns={"size": "findings"})


def verify(engine: Engine, market: str, *, run_id: UUID, clock: Clock) -> Verified:
    """Judge the final daily bars of a market, prices on one basis; safe to repeat.

    Raises:
        NotFound: no calendar is known of the market.
        Fenced: the run was given up.
    """
    known = calendar(market)
    with engine.begin() as conn:
        ledger.fence(conn, run_id)
        held = panel(conn, market)
        day = held.ts.tz_localize(None).to_numpy("datetime64[us]").astype("datetime64[D]")
        owner = np.repeat(held.ids, np.diff(held.bounds))
        after = (held.columns["flags"] & int(Flag.AFTER_MARKET)) != 0
        prices = {name: held.columns[name] for name in ("open", "high", "low", "close", "volume")}
        bars = Bars(owner, day, **prices, after_market=after)
        found = findings(
            bars,
            known.days(known.first, known.horizon),
            events(conn, market),
            limited=MARKETS[market].korean,
            unit=MARKETS[market].unit,
        )
        changes, forgotten = keep_findings(conn, market, "1d", found, now=clock(), run_id=run_id)
    traded = np.unique(day[held.columns["volume"] > 0])
    return Verified(
        market, len(day), found, disagreements(known, traded),
        {"new": changes.inserted, "changed": changes.updated, "known": changes.unchanged, "forgotten": forgotten},
    )  # fmt: skip

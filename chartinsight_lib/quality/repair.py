"""Works the ledger's queue: asks a source again for the instruments with due holes, counts the tries, gives up with a reason.

A try is counted before it is made, so that one that dies in the midst of it is waited for like any other; whoever runs next
goes on where it ended. The bars that come go the usual way (`collect`), which closes their holes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pandas as pd
from sqlalchemy import Engine

from chartinsight_lib import ledger
from chartinsight_lib.clients.base import Batch, IntradaySource, LiveSource, Source
from chartinsight_lib.clock import Clock
from chartinsight_lib.collect import Report, collect_daily, collect_intraday
from chartinsight_lib.db import gaps
from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.quality.check import Checked, check
from chartinsight_lib.settings import Settings
from chartinsight_lib.sources import open_source

Opener = Callable[[Sequence[str]], Source]
"""Opens the source to ask, for some codes alone; for a source that can only be asked for everything they are empty."""

MOST = 300
"""So many instruments are asked for in one run; the others wait for the next."""


@dataclass(slots=True)
class Repaired:
    """What a repair did: `before` and `after` are the checks about it, `asked` the codes, `report` what collecting did."""

    before: Checked
    after: Checked
    asked: list[str] = field(default_factory=list)
    report: Report = field(default_factory=lambda: Report("repair_gaps"))
    ended: dict[str, int] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row: holes before and after, instruments asked, and how the tries ended; for the cell of a notebook."""
        was, now = self.before.counts, self.after.counts
        row = {"missing before": was["missing"], "missing": now["missing"], "late before": was["late"], "late": now["late"],
               "instruments asked": len(self.asked), **self.ended, "completeness": self.after.completeness}  # fmt: skip
        return pd.DataFrame([row])


def opener(spec: str, settings: Settings, engine: Engine, **options: Any) -> Opener:
    """Return what opens the source that `spec` names; options as in `sources.open_source`."""
    return lambda codes: open_source(spec, settings, engine, codes=codes, **options)


def repair(
    engine: Engine,
    opened: Opener,
    *,
    run_id: UUID,
    clock: Clock,
    timeframe: str = "1d",
    most: int = MOST,
    again: bool = False,
) -> Repaired:
    """Check a market, ask its source again for what is missing or late and due, and check again.

    Args:
        most: instruments to ask for, those with the oldest holes first.
        again: also what was given up.
    Raises:
        ConfigError, UpstreamError: the source cannot be read at all; the tries are counted all the same.
    """
    source = opened(())
    market = source.market
    before = check(engine, market, run_id=run_id, clock=clock, timeframe=timeframe)
    now = clock()
    with engine.begin() as conn:
        ledger.fence(conn, run_id)
        if again:
            gaps.reopen(conn, market, timeframe, now=now)
        queue = gaps.due(conn, market, timeframe, now=now, most=most)
        ids = queue["instrument_id"].tolist()
        gaps.begin_tries(conn, ids, timeframe, now=now)
    if queue.empty:
        return Repaired(before, before)
    codes = queue.index.tolist()
    if isinstance(source, LiveSource):
        source = opened(codes)
    # Asked for what follows the day before its first hole, a source gives the holes, with an overlap of what is held.
    eve = {str(code): first - timedelta(days=1) for code, first in queue["first"].items()}
    asking = _AskingIntraday(source, eve) if isinstance(source, IntradaySource) else _Asking(source, eve)
    why: dict[str, str] = {}
    otherwise = f"{source.name} has no bar of it"
    try:
        if timeframe == "1d":
            report = collect_daily(engine, asking, run_id=run_id, clock=clock)
        else:
            report = collect_intraday(engine, asking, codes, run_id=run_id, clock=clock)
        # A batch that failed as a whole is named by itself, and not by its instruments.
        otherwise = next((said for item, said in report.errors.items() if item not in eve), otherwise)
        why = report.errors
    except ChartInsightError as error:
        otherwise = str(error)
        raise
    finally:
        with engine.begin() as conn:
            ledger.fence(conn, run_id)
            reasons = {number: why[code] for code, number in zip(codes, ids, strict=True) if code in why}
            ended = gaps.end_tries(conn, ids, timeframe, now=clock(), why=reasons, otherwise=otherwise)
    after = check(engine, market, run_id=run_id, clock=clock, timeframe=timeframe)
    return Repaired(before, after, codes, replace(report, job="repair_gaps"), ended)


class _Asking:
    """A source that is asked for some instruments from another day on than the newest held."""

    def __init__(self, source: Source, eve: Mapping[str, datetime]) -> None:
        self._source, self._eve = source, eve

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def market(self) -> str:
        return self._source.market

    @property
    def raw(self) -> bool:
        return self._source.raw

    @property
    def lists_whole_market(self) -> bool:
        return self._source.lists_whole_market

    def instruments(self) -> pd.DataFrame:
        return self._source.instruments()

    def provisional_from(self, today: date) -> date | None:
        return self._source.provisional_from(today)

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        del held  # are the newest bars, and the holes lie before them
        for batch in self._source.daily({code: ts.astimezone(UTC).date() for code, ts in self._eve.items()}):
            wanted = batch.records["code"].isin(list(self._eve)).to_numpy()
            if wanted.all():
                yield batch
            elif (
                wanted.any()
            ):  # a source that gives everything: what it says of the others is the collection's to store
                asked = {code: since for code, since in batch.asked.items() if code in self._eve}
                yield replace(batch, records=batch.records[wanted].reset_index(drop=True), asked=asked)


class _AskingIntraday(_Asking):
    """The same of a source that has shorter bars, too."""

    _source: IntradaySource

    def intraday(self, codes: Sequence[str], held: Mapping[str, datetime]) -> Iterator[Batch]:
        del held
        return self._source.intraday(codes, self._eve)

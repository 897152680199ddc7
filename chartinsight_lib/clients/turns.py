"""Instruments asked for one after the other: what came of each, in batches; and which day counts as finished.

For sources that serve one instrument a request and publish no quota. A fault of one instrument is its batch's error, and the
next one is asked for; a fault of the source itself (its quota, its refusal, too many failures in a row) ends the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from chartinsight_lib.calendars import calendar
from chartinsight_lib.clients.base import REQUIRED, Batch
from chartinsight_lib.errors import AuthFailed, ChartInsightError, ConfigError, RateLimited, Unavailable, reason

OVERLAP = timedelta(days=30)
"""Bars are read again so far back: a request costs the same, and a past that was restated shows in it."""
SETTLED = timedelta(hours=1)
"""A day counts as finished this long after its end: both services show prices late and mend closes and volumes."""
UNAVAILABLE_MOST = 5
"""So many instruments in a row that cannot be had are a service that does not work."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one instrument: `records` as in `Batch` without `row`; the events that the source names; and from which
    date on it was asked for, None: for everything."""

    records: pd.DataFrame
    asked_at: datetime
    factors: pd.DataFrame | None = None
    since: date | None = None


def in_turn(codes: Iterable[str], fetch: Callable[[str], Fetched], *, together: int = 1) -> Iterator[Batch]:
    """Yield batches of `together` instruments each, in the order of `codes`.

    Raises:
        RateLimited, AuthFailed, ConfigError: as `fetch` does: the next instrument would meet it too. What came before stands.
        Unavailable: so many instruments in a row could not be had.
    """
    part: list[tuple[str, Fetched | str]] = []
    failed = 0
    for code in codes:
        try:
            part.append((code, fetch(code)))
            failed = 0
        except (RateLimited, AuthFailed, ConfigError, Unavailable) as error:
            failed += 1
            if isinstance(error, Unavailable) and failed < UNAVAILABLE_MOST:
                part.append((code, reason(error)))
            else:
                if part:
                    yield _batch(part)
                raise
        except ChartInsightError as error:
            part.append((code, reason(error)))
            failed = 0
        if len(part) == together:
            yield _batch(part)
            part = []
    if part:
        yield _batch(part)


def unfinished_from(market: str, today: date, asked_at: datetime) -> date | None:
    """Return the first date up to `today` whose bars may still change, as a source knew them at `asked_at` (tz-aware); None: all
    are final."""
    first = calendar(market).last_ended(asked_at - SETTLED) + timedelta(days=1)
    return first if first <= today else None


def _batch(part: Sequence[tuple[str, Fetched | str]]) -> Batch:
    found = [one for _, one in part if isinstance(one, Fetched)]
    factors = [one.factors for one in found if one.factors is not None]
    records = (
        pd.concat([one.records for one in found], ignore_index=True) if found else pd.DataFrame(columns=[*REQUIRED])
    )
    return Batch(
        part[0][0] if len(part) == 1 else f"{part[0][0]}…{part[-1][0]}",
        records.assign(row=range(1, len(records) + 1)),
        errors={code: one for code, one in part if isinstance(one, str)},
        asked_at=min((one.asked_at for one in found), default=None),
        factors=pd.concat(factors, ignore_index=True) if factors else None,
        asked={code: one.since for code, one in part if isinstance(one, Fetched) and one.since is not None},
    )

"""Expected bars against held ones, for a whole market: the gap ledger and completeness, brought up to date.

Expected are, of an instrument of which anything is held or was asked, the trading days of the calendar from its beginning
(`states.begins`) until it is delisted, or until now. A source that does not grow, a file, is expected to hold no more than
the newest final day that is held of its market. Five-minute bars: see `intraday`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from chartinsight_lib import ledger
from chartinsight_lib.calendars import Calendar, calendar
from chartinsight_lib.clock import Clock
from chartinsight_lib.db import gaps
from chartinsight_lib.domain import Flag
from chartinsight_lib.errors import NotFound
from chartinsight_lib.quality import intraday, states
from chartinsight_lib.quality.states import KIND, Held, State

_log = logging.getLogger(__name__)

AT_A_TIME = 400
"""Instruments that are read and compared together: the bars of ten years of all of them would be some hundred megabytes."""
GROWS_NOT = ("files:", "sample")
"""How the names of sources begin that hold what they hold for ever."""
CHECK = "check"
"""The source of what the check itself explains."""

REASONS = {
    "missing": "the day has ended, and no bar of it came",
    "late": "the day has ended, and its final bar may still come",
    "halted": "its board traded nothing then, although it did before and after",
}


@dataclass(slots=True)
class Checked:
    """What a check found: counts of days of instruments, and what it did in the ledger."""

    market: str
    timeframe: str
    first: date | None
    last: date | None
    instruments: int = 0
    uncollected: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(gaps.COUNTS, 0))
    changes: dict[str, int] = field(default_factory=dict)

    @property
    def completeness(self) -> float:
        """Share of the expected days that are present or explained; NaN when none is expected."""
        expected = self.counts["expected"]
        return (self.counts["present"] + self.counts["explained"]) / expected if expected else float("nan")

    def table(self) -> pd.DataFrame:
        """One row; for the cell of a notebook."""
        row = {"market": self.market, "timeframe": self.timeframe, "first": self.first, "last": self.last,
               "instruments": self.instruments, "uncollected": self.uncollected, **self.counts,
               "completeness": self.completeness, **self.changes}  # fmt: skip
        return pd.DataFrame([row])


def check(engine: Engine, market: str, *, run_id: UUID, clock: Clock, timeframe: str = "1d") -> Checked:
    """Find the holes of a market and bring ledger and coverage up to date, in one transaction; safe to repeat.

    Args:
        timeframe: "1d" or "5m".
    Raises:
        BeyondHorizon: it is later than the calendar knows.
        NotFound: no calendar is known of the market, or there are no such bars.
        Fenced: the run was given up.
    """
    if timeframe not in {"1d", "5m"}:
        raise NotFound(f"check: there are no expected bars of {timeframe!r}. Check 1d or 5m.")
    known = calendar(market)
    with engine.begin() as conn:
        ledger.fence(conn, run_id)
        instruments = gaps.collected(conn, market, timeframe)
        # A simulated market has a time of its own, and has had none since it was asked last.
        asked = [moment for moment in instruments["asked_until"] if moment is not None]
        now = max(asked) if market == "SIM" and asked else clock()
        find = _find_daily if timeframe == "1d" else _find_intraday
        state, days, found, spans = find(conn, known, market, instruments, now)
        result = Checked(market, timeframe, *((days[0].item(), days[-1].item()) if len(days) else (None, None)))
        per_instrument = states.counts(state, axis=1)
        result.instruments, result.uncollected = len(instruments), int((per_instrument["expected"] == 0).sum())
        result.counts = {name: int(counted.sum()) for name, counted in per_instrument.items()}
        result.changes = gaps.keep_ledger(
            conn,
            market,
            timeframe,
            found,
            sources=_sources(instruments),
            reasons=REASONS,
            patient=set(instruments.index[~instruments["source"].map(grows).astype(bool)]),
            now=now,
            run_id=run_id,
        )
        coverage = pd.DataFrame({"instrument_id": instruments.index.to_numpy(), **spans, **per_instrument})
        per_day = pd.DataFrame({"day": days.astype(object), **states.counts(state, axis=0)})
        per_day = per_day[per_day["expected"] > 0]
        gaps.keep_coverage(conn, market, timeframe, coverage, per_day, now=now, run_id=run_id)
        ledger.record_item(
            conn, run_id, f"check {market} {timeframe}", rows=result.counts | result.changes, clock=clock, market=market
        )
    said = ", ".join(f"{count:,} {name}" for name, count in (result.counts | result.changes).items() if count)
    _log.info("check %s %s: %s", market, timeframe, said)
    return result


def grows(source: str) -> bool:
    """Whether a source can hold tomorrow what it does not hold today."""
    return not source.removeprefix("simulated (").startswith(GROWS_NOT)


_Found = tuple[NDArray[np.int8], NDArray[np.datetime64], pd.DataFrame, dict[str, list[date | None]]]
"""States (instruments, days), the days, the holes (columns gaps.LEDGER), and first and last day held of each instrument."""


def _find_daily(conn: Connection, known: Calendar, market: str, instruments: pd.DataFrame, now: datetime) -> _Found:
    days = known.days(known.first, known.last_ended(now))
    held = held_days(conn, instruments, days, "1d")
    known_column = held.known().any(axis=0)
    market_first = int(known_column.argmax()) if known_column.any() else len(days)
    first = states.begins(
        held,
        asked_from=_columns(instruments["asked_from"], days, side="left"),
        listed=_columns(instruments["listed_on"], days, side="left"),
        market_first=market_first,
    )
    # What does not grow is expected to reach as far as the newest day that the same source told of, and no further.
    ends = (
        pd.Series(states.last_true(held.final), index=instruments.index).groupby(instruments["source"]).transform("max")
    )
    grown = instruments["source"].map(grows).to_numpy(dtype=bool)
    last = np.where(grown, len(days) - 1, ends.to_numpy())
    delisted = _columns(instruments["delisted_on"], days, side="left") - 1  # on that day it is traded no more
    last = np.where(instruments["delisted_on"].notna().to_numpy(), np.minimum(last, delisted), last)
    asked = _asked(instruments["asked_until"], known, len(days))
    state = states.classify(held, first, last, asked=asked, fresh=len(days) - 1)
    # Days before the first bar of the market are no part of the answer.
    begin = min(int(first.min()), market_first) if len(first) else len(days)
    rows, columns = np.nonzero((state == State.MISSING) | (state == State.LATE))
    found = pd.DataFrame(
        {
            "instrument_id": instruments.index.to_numpy()[rows],
            "ts": gaps.stamps(days[columns]),
            "kind": pd.Series(state[rows, columns]).map(KIND).astype("str"),
        }
    )
    return state[:, begin:], days[begin:], found, _spans(held.final, days)


def _find_intraday(conn: Connection, known: Calendar, market: str, instruments: pd.DataFrame, now: datetime) -> _Found:
    days = known.days(known.first, known.last_ended(now))
    daily = gaps.bar_times(conn, instruments.index.tolist(), "1d")
    bars = gaps.bar_times(conn, instruments.index.tolist(), "5m")
    daily = {name: column[daily["flags"] & Flag.PROVISIONAL == 0] for name, column in daily.items()}
    ids = instruments.index.to_numpy()
    sessions = known.sessions(days[0].item(), days[-1].item())
    asked = _asked(instruments["asked_until"], known, len(days))
    state, holes = intraday.find(
        bars,
        daily,
        ids,
        days,
        sessions,
        boards=pd.factorize(instruments["board"])[0].astype(np.int64),
        asked=asked,
        fresh=len(days) - 1,
        zone=known.zone,
    )
    begin = int(np.argmax(state.any(axis=0))) if state.any() else len(days)
    return state[:, begin:], days[begin:], holes, _spans(state == State.PRESENT, days)


def held_days(conn: Connection, instruments: pd.DataFrame, days: NDArray[np.datetime64], timeframe: str) -> Held:
    """Return what is held of instruments (their index) on trading days; bars of other days are left out."""
    ids, shape = instruments.index.to_numpy(), (len(instruments), len(days))
    held = Held(*(np.zeros(shape, dtype=bool) for _ in range(4)))
    for start in range(0, len(ids), AT_A_TIME):
        part = ids[start : start + AT_A_TIME].tolist()
        bars = gaps.bar_times(conn, part, timeframe)
        provisional = bars["flags"] & Flag.PROVISIONAL != 0
        told = gaps.explained(conn, part, timeframe)
        _mark(held.final, ids, days, bars, ~provisional)
        _mark(held.provisional, ids, days, bars, provisional)
        _mark(held.halted, ids, days, told, told["halted"])
        _mark(held.no_trade, ids, days, told, ~told["halted"])
    return held


def _mark(
    into: NDArray[np.bool_], ids: NDArray[np.int64], days: NDArray[np.datetime64], rows: dict[str, Any],
    wanted: NDArray[np.bool_],
) -> None:  # fmt: skip
    day = rows["ts"][wanted].astype("datetime64[D]")
    column = np.minimum(np.searchsorted(days, day), len(days) - 1)
    known = days[column] == day
    into[np.searchsorted(ids, rows["instrument_id"][wanted][known]), column[known]] = True


def _columns(dates: pd.Series, days: NDArray[np.datetime64], *, side: Any) -> NDArray[np.int64]:
    """Return the column of the first day at or after each date; -1 where there is no date."""
    known = dates.notna().to_numpy()
    column = np.searchsorted(days, np.array(dates[known].tolist(), dtype="datetime64[D]"), side=side)
    found = np.full(len(dates), -1, dtype=np.int64)
    found[known] = column
    return found


def _asked(moments: pd.Series, known: Calendar, width: int) -> NDArray[np.int64]:
    """Return the column of the last day that had ended at each moment; where none is known, the last of all: then time alone
    tells whether a bar may still come."""
    first = known.first
    whole = {
        moment: len(known.days(first, known.last_ended(moment))) - 1
        for moment in moments.dropna().unique()
        if moment.astimezone(known.zone).date() > first + timedelta(days=10)
    }
    return np.array([width - 1 if pd.isna(moment) else whole.get(moment, -1) for moment in moments], dtype=np.int64)


def _spans(final: NDArray[np.bool_], days: NDArray[np.datetime64]) -> dict[str, list[date | None]]:
    first, last = states.first_true(final), states.last_true(final)
    listed: list[Any] = [*days.tolist(), None]
    return {"first": [listed[at] for at in first], "last": [listed[at] for at in last]}


def _sources(instruments: pd.DataFrame) -> dict[int, str]:
    return {
        int(number): source or CHECK for number, source in zip(instruments.index, instruments["source"], strict=True)
    }

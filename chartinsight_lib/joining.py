"""Staged bars beside held ones: which of them may be stored, and which factors lead from the one price basis to the other.

`basis` says how two tellings of one instrument join; here they are fetched, and what it says is done, in the transaction that
stores the bars. An instrument that agrees with what is held costs nothing more than the comparison in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection

from chartinsight_lib import basis
from chartinsight_lib.basis import Joined, Telling, Verdict
from chartinsight_lib.db import factors as chains
from chartinsight_lib.db import store
from chartinsight_lib.db.copy import EPOCH
from chartinsight_lib.db.stage import Stage, Suspect, suspects
from chartinsight_lib.domain import FACTOR, MARKETS, Flag
from chartinsight_lib.normalise import Days

DAILY = "1d"
NOTHING: Mapping[date, float] = {}


@dataclass(slots=True)
class Told:
    """The days that one collection has told of each instrument so far: what it tells next is on the same basis."""

    spans: dict[str, tuple[np.datetime64, np.datetime64]] = field(default_factory=dict)

    def holds(self, code: str, day: np.datetime64) -> bool:
        """Whether this collection told of a span that holds `day`."""
        first, last = self.spans.get(code, (day + 1, day))
        return bool(first <= day <= last)

    def add(self, code: str, days: Days) -> None:
        """Note that the collection told of these days, ascending."""
        first, last = self.spans.get(code, (days[0], days[-1]))
        self.spans[code] = (min(first, days[0]), max(last, days[-1]))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch's instruments.

    refused: {code: why nothing of it was stored}; factors: what may be stored of those that came with the bars; judged: the
    codes whose factors were decided here; unstaged: how many bars are held on another basis; changed: whether factors were.
    """

    refused: dict[str, str]
    factors: pd.DataFrame
    judged: set[str]
    unstaged: int
    changed: bool


def join_staged(
    conn: Connection,
    stage: Stage,
    candles: pd.DataFrame,
    factors: pd.DataFrame,
    *,
    market: str,
    source: str,
    raw: bool,
    told: Told,
    now: datetime,
    run_id: UUID,
) -> Outcome:
    """Compare what is staged with what is held, take out of the stage what may not stand beside it, and store the seams.

    Args:
        stage: the bars, staged; candles: the same, domain.CANDLE columns, daily, ascending in (code, ts).
        factors: domain.FACTOR columns, what the source tells of events of these instruments.
        raw: the source's prices are as they were traded, for ever.
        told: what this collection told before; the days of this batch are added.
    """
    rows = {str(code): np.asarray(at) for code, at in candles.groupby("code", sort=False).indices.items()}
    days = candles["ts"].dt.tz_localize(None).to_numpy("datetime64[D]")
    final = (candles["flags"].to_numpy() & int(Flag.PROVISIONAL)) == 0
    found = suspects(conn, stage)
    held = _held(conn, [one.id for one in found], source if raw else None)
    known = chains.chains(conn, [one.id for one in found])
    events = factors[factors["kind"] != "dividend"]
    mine = {
        code: dict(zip(part["ex_date"], part["price_factor"], strict=True)) for code, part in events.groupby("code")
    }
    done: list[tuple[Suspect, Joined]] = []
    for one in found:
        at = rows[one.code]
        own = at[final[at]] if final[at].any() else at
        telling = Telling(
            days[own],
            candles["close"].to_numpy()[own],
            candles["volume"].to_numpy("float64")[own],
            mine.get(one.code, NOTHING),
        )
        chain = known.get(one.id, chains.Chain({}, frozenset(), frozenset()))
        old_days, old_close, old_volume = held.get(one.id, (days[:0], np.empty(0), np.empty(0)))
        joined = basis.join(
            Telling(old_days, old_close, old_volume, chain.factors),
            telling,
            days[at],
            unit=MARKETS[market].unit,
            open_seams=chain.open_seams,
            found=chain.found,
            replaces=raw,
            one_basis=_follows(told, one.code, old_days, days[at]),
        )
        done.append((one, joined))
    stage.leave_out(np.concatenate([rows[one.code][~joined.take] for one, joined in done] or [np.empty(0, np.intp)]))
    changed = _store_seams(conn, done, source, now, run_id)
    refused = {
        one.code: f"its past was restated: {joined.detail}"
        for one, joined in done
        if joined.verdict is Verdict.DISAGREEING
    }
    for code, at in rows.items():
        if code not in refused:
            told.add(code, days[at])
    keep = {(one.code, day) for one, joined in done for day in joined.own}
    judged = {one.code for one in found}
    kept = [
        code not in judged or (code, day) in keep for code, day in zip(factors["code"], factors["ex_date"], strict=True)
    ]
    unstaged = sum(int((~joined.take).sum()) for one, joined in done if one.code not in refused)
    return Outcome(refused, factors[np.array(kept, dtype=bool)], judged, unstaged, changed)


def _follows(told: Told, code: str, held: Days, arriving: Days) -> bool:
    """Whether what this collection told before stands next to what comes now, among the days held."""
    before, after = held[held < arriving[0]], held[held > arriving[-1]]
    return (len(before) > 0 and told.holds(code, before[-1])) or (len(after) > 0 and told.holds(code, after[0]))


_Bars = tuple[Days, NDArray[np.float64], NDArray[np.float64]]


def _held(conn: Connection, ids: list[int], but_of: str | None) -> dict[int, _Bars]:
    """Return {instrument id: days, closes and volumes of its final bars, ascending}."""
    if not ids:
        return {}
    bars = store.final_closes(conn, ids, DAILY, but_of=but_of)
    days = (EPOCH + bars["ts"].astype("timedelta64[us]")).astype("datetime64[D]")
    numbers, first = np.unique(bars["instrument_id"], return_index=True)
    parts = [slice(start, stop) for start, stop in zip(first, [*first, len(days)][1:], strict=True)]
    volume = bars["volume"].astype("float64")
    return {
        int(number): (days[part], bars["close"][part], volume[part])
        for number, part in zip(numbers, parts, strict=True)
    }


def _store_seams(
    conn: Connection, done: Iterable[tuple[Suspect, Joined]], source: str, now: datetime, run_id: UUID
) -> bool:
    """Store the seams in the place of other factors of their days, and record what was found; return whether factors changed."""
    seams = [
        (one.code, one.id, seam.ex_date, seam.price, seam.volume, seam.kind)
        for one, joined in done
        for seam in joined.seams
    ]
    keys = [(one.id, day) for one, joined in done for day in joined.dropped] + [(seam[1], seam[2]) for seam in seams]
    dropped = chains.drop_factors(conn, keys)
    if seams:
        table = pd.DataFrame(seams, columns=["code", "id", *FACTOR[1:]])
        ids = table.drop_duplicates("code").set_index("code")["id"]
        chains.upsert_factors(conn, table[FACTOR], ids, source=source, detected_at=now, run_id=run_id)
    notes = [
        (one.id, str(joined.verdict), *_first(joined), joined.overlap, joined.differing, joined.detail, now)
        for one, joined in done
        if joined.seams
        or joined.verdict is Verdict.DISAGREEING
        or (joined.verdict is Verdict.APART and not joined.take.all())
    ]
    notes = [note for note in notes if note[1] != Verdict.SAME]  # no more than an unknown seam was moved
    if notes:
        columns = ["instrument_id", "verdict", "ex_date", "ratio", "overlap", "differing", "detail", "detected_at"]
        store.add_restatements(conn, pd.DataFrame(notes, columns=columns), DAILY, source=source, run_id=run_id)
    return bool(dropped or seams)


def _first(joined: Joined) -> tuple[date | None, float]:
    """Return the ex-date of the first seam whose factor was told, and that factor; else of the first of all, and the ratio."""
    told = [(seam.ex_date, seam.price) for seam in joined.seams if seam.kind in {"split", "restatement"}]
    return min(told) if told else (min((seam.ex_date for seam in joined.seams), default=None), joined.ratio)

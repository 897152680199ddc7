"""Candles of instruments: ka10081 days, ka10082 weeks, ka10083 months, ka10094 years. Unsigned, newest first.

A walk keeps the day it was asked for: its keys carry the `base_dt` that was in force on page 1, so that no page is on another
price basis than the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import numpy as np

from chartinsight_lib.simulator.adjusting import adjusted
from chartinsight_lib.simulator.model import Ints, Listing
from chartinsight_lib.simulator.reading import Query, instrument, shown_until
from chartinsight_lib.simulator.wire import Reply, change, date_text, days_text, limits, mark, million, percent, written
from chartinsight_lib.simulator.world import Rows, World

_COLUMNS = (
    "cur_prc",
    "trde_qty",
    "trde_prica",
    "dt",
    "open_pric",
    "high_pric",
    "low_pric",
    "pred_pre",
    "pred_pre_sig",
    "trde_tern_rt",
)
_PERIODS = {
    "ka10081": ("stk_dt_pole_chart_qry", "D", _COLUMNS),
    "ka10082": ("stk_stk_pole_chart_qry", "W", _COLUMNS),
    "ka10083": ("stk_mth_pole_chart_qry", "M", _COLUMNS),
    "ka10094": ("stk_yr_pole_chart_qry", "Y", _COLUMNS[:7]),
}
_LIMIT_30_SINCE = np.datetime64("2015-06-15")
"""Before it the daily price limit was 15 %, and rows there are never marked as at the limit."""


def candles(world: World, query: Query) -> Reply:
    """Answer ka10081, ka10082, ka10083 and ka10094."""
    list_key, period, columns = _PERIODS[query.api_id]
    reply = Reply({"stk_cd": query.body["stk_cd"]}, list_key, columns)
    found = instrument(world, query, reply)
    if isinstance(found, Reply):
        return found
    as_of, before = walk(query)
    rows = world.daily(found.symbol, query.now, shown_until(world, as_of, query.now))
    events = world.events(found.symbol.code, as_of) if query.body["upd_stkpc_tp"] == "1" else []
    if period != "D":
        rows, events = by_period(adjusted(rows, events), period), []
    stop = len(rows.day) if before is None else int(np.searchsorted(rows.day, np.datetime64(before)))
    start = max(stop - query.page_size(world), 0)
    if start == stop:
        return reply.blank()
    # One row more than the page: the oldest row's change refers to it.
    page = rows.cut(max(start - 1, 0), stop)
    texts = _texts(adjusted(page, events), page, found.listing, as_of, daily=period == "D")
    reply.rows = written(columns, [texts[name][::-1][: stop - start] for name in columns])
    reply.cursor = date_text(as_of) + days_text(rows.day[start : start + 1])[0] if start else None
    return reply


def _texts(rows: Rows, raw: Rows, listing: Listing, as_of: date, *, daily: bool) -> dict[str, Sequence[object]]:
    """Return every field of ascending rows; the traded value is never adjusted."""
    moves = np.diff(rows.close, prepend=rows.close[:1])
    moved = moves.tolist()
    at_limit = _at_limit(raw, listing.kind, moved) if daily else [False] * len(moved)
    # A period's volume is on the basis of its newest day, and so are the shares that it is compared with.
    shares = (_shares(listing, raw) if daily else np.full(len(moved), listing.shares_on(as_of))).tolist()
    return {
        "cur_prc": rows.close.tolist(),
        "trde_qty": rows.volume.tolist(),
        "trde_prica": million(raw.value) if daily else raw.value.tolist(),
        "dt": days_text(rows.day),
        "open_pric": rows.open.tolist(),
        "high_pric": rows.high.tolist(),
        "low_pric": rows.low.tolist(),
        "pred_pre": [change(move) for move in moved],
        "pred_pre_sig": [mark(move, at_limit=limit) for move, limit in zip(moved, at_limit, strict=True)],
        "trde_tern_rt": [percent(part, whole) for part, whole in zip(raw.volume.tolist(), shares, strict=True)],
    }


def _at_limit(raw: Rows, kind: str, moved: list[int]) -> list[bool]:
    """Return which rows closed at the day's price limit; far from it, nothing is calculated."""
    far = np.abs(raw.official - raw.base) * 100 < raw.base * 25
    known = (raw.day >= _LIMIT_30_SINCE) & ~far
    found = [False] * len(moved)
    for at in np.flatnonzero(known).tolist():
        found[at] = int(raw.official[at]) in limits(int(raw.base[at]), kind)
    return found


def _shares(listing: Listing, rows: Rows) -> Ints:
    since = np.array([day for day, _ in listing.shares], "datetime64[D]")
    at = np.searchsorted(since, rows.day, side="right") - 1
    return np.array([count for _, count in listing.shares], np.int64)[np.maximum(at, 0)]


def by_period(rows: Rows, period: str) -> Rows:
    """Sum days up to weeks (W), months (M) or years (Y), stamped with the first day of each."""
    if not len(rows.day):
        return rows
    # 1970-01-01 was a Thursday: four days on, weeks begin on Mondays.
    key = (
        (rows.day.astype(np.int64) + 3) // 7
        if period == "W"
        else rows.day.astype(f"datetime64[{period}]").astype(np.int64)
    )
    starts = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    ends = np.append(starts[1:], len(key)) - 1
    return Rows(
        rows.day[starts],
        rows.open[starts],
        np.maximum.reduceat(rows.high, starts),
        np.minimum.reduceat(rows.low, starts),
        rows.close[ends],
        np.add.reduceat(rows.volume, starts),
        np.add.reduceat(rows.value, starts),
        rows.base[starts],
        rows.official[ends],
    )


def walk(query: Query, name: str = "base_dt") -> tuple[date, date | None]:
    """Return the day as of which a walk reads, and the day before which this page begins."""
    if not (cursor := query.place.cursor):
        return query.date(name), None
    # Dates as text have no zone, and need none.
    as_of, before = (datetime.strptime(text, "%Y%m%d").date() for text in (cursor[:8], cursor[8:]))  # noqa: DTZ007
    return as_of, before

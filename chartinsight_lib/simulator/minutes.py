"""Minute candles: ka10080. Signed against the day's base price, newest first; prices may be adjusted, volume never is.

A row is stamped with its start, and a minute without a trade has none. Longer bars begin at multiples of their length from
midnight, which is also from 09:00 for every length that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from chartinsight_lib.simulator.adjusting import products, scaled
from chartinsight_lib.simulator.model import Days, Ints, MinuteBars
from chartinsight_lib.simulator.reading import Query, instrument
from chartinsight_lib.simulator.wire import Reply, change, date_text, mark, signed_all, written
from chartinsight_lib.simulator.world import Symbol, World

SCOPES = ("1", "3", "5", "10", "15", "30", "45", "60")
_COLUMNS = (
    "cur_prc",
    "trde_qty",
    "cntr_tm",
    "open_pric",
    "high_pric",
    "low_pric",
    "acc_trde_qty",
    "pred_pre",
    "pred_pre_sig",
)


class _Bars(NamedTuple):
    """Bars of one day, ascending."""

    start: Days
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    total: Ints
    """The day's volume up to the bar's end."""
    base: Ints

    def each(self, change: Callable[[Any], Any]) -> _Bars:
        """Return the bars with every column changed."""
        return _Bars(*map(change, self))


def minute_candles(world: World, query: Query) -> Reply:
    """Answer ka10080."""
    reply = Reply({"stk_cd": query.body["stk_cd"]}, "stk_min_pole_chart_qry", _COLUMNS)
    found = instrument(world, query, reply)
    if isinstance(found, Reply):
        return found
    as_of, before = _walk(query)
    wanted, rows, oldest = query.page_size(world), list[str](), ""
    for bars in _days(world, found.symbol, query, as_of, before):
        if len(rows) == wanted:  # a day further back has bars: there is another page
            reply.cursor = date_text(as_of) + oldest
            break
        stop = len(bars.start) if before is None else int(np.searchsorted(bars.start, np.datetime64(before, "m")))
        start = max(stop - (wanted - len(rows)), 0)
        if start == stop:
            continue
        rows += _written(bars.each(itemgetter(slice(start, stop))))
        oldest = _times(bars.start[start : start + 1])[0]
        if start:
            reply.cursor = date_text(as_of) + oldest
            break
    if not rows:
        return reply.blank()
    reply.rows = rows
    return reply


def _days(world: World, symbol: Symbol, query: Query, as_of: date, before: datetime | None) -> Iterator[_Bars]:
    """Yield the days that have bars, newest first, back to where the server's memory ends."""
    scope, life = int(query.body["tic_scope"]), world.life(symbol.code)
    events = world.events(symbol.code, as_of) if query.body["upd_stkpc_tp"] == "1" else []
    first = query.now.date() - timedelta(days=world.options.minute_days)
    newest = as_of if before is None else min(as_of, before.date())
    start, stop = np.searchsorted(life.day, [np.datetime64(first), np.datetime64(newest + timedelta(days=1))])
    for at in range(int(stop) - 1, int(start) - 1, -1):
        day: date = life.day[at].astype("datetime64[D]").astype(object)
        minutes = world.minutes(symbol, day, query.now)
        if len(minutes.start):
            bars = _gathered(minutes, scope, int(life.base[at]))
            for _, _, product in products(life.day[at : at + 1], events):
                open_, high, low, close, base = (
                    scaled(prices, product) for prices in (bars.open, bars.high, bars.low, bars.close, bars.base)
                )
                bars = bars._replace(open=open_, high=high, low=low, close=close, base=base)
            yield bars


def _gathered(minutes: MinuteBars, scope: int, base: int) -> _Bars:
    total, bases = np.cumsum(minutes.volume), np.full(len(minutes.start), base)
    prices = (minutes.open, minutes.high, minutes.low, minutes.close)
    if scope == 1:
        return _Bars(minutes.start, *prices, minutes.volume, total, bases)
    span = minutes.start.astype("datetime64[m]").astype(np.int64) // scope
    starts = np.flatnonzero(np.diff(span, prepend=-1))
    ends = np.append(starts[1:], len(span)) - 1
    return _Bars(
        (span[starts] * scope).astype("datetime64[m]"),
        minutes.open[starts],
        np.maximum.reduceat(minutes.high, starts),
        np.minimum.reduceat(minutes.low, starts),
        minutes.close[ends],
        np.add.reduceat(minutes.volume, starts),
        total[ends],
        bases[starts],
    )


def _written(bars: _Bars) -> list[str]:
    """Return ascending bars as rows, newest first."""
    newest_first = bars.each(itemgetter(slice(None, None, -1)))
    moves = (newest_first.close - newest_first.base).tolist()
    texts: dict[str, list[str] | list[int]] = {
        "cur_prc": signed_all(newest_first.close, newest_first.base),
        "trde_qty": newest_first.volume.tolist(),
        "cntr_tm": _times(newest_first.start),
        "open_pric": signed_all(newest_first.open, newest_first.base),
        "high_pric": signed_all(newest_first.high, newest_first.base),
        "low_pric": signed_all(newest_first.low, newest_first.base),
        "acc_trde_qty": newest_first.total.tolist(),
        "pred_pre": [change(move) for move in moves],
        "pred_pre_sig": [mark(move) for move in moves],
    }
    return written(_COLUMNS, [texts[name] for name in _COLUMNS])


def _times(starts: Days) -> list[str]:
    minutes = starts.astype("datetime64[m]").astype(np.int64)
    day = str(np.datetime64(int(minutes[0]) // 1440, "D")).replace("-", "")
    return [f"{day}{n // 60:02d}{n % 60:02d}00" for n in (minutes % 1440).tolist()]


def _walk(query: Query) -> tuple[date, datetime | None]:
    """Return the day as of which a walk reads, and the minute before which this page begins."""
    if not (cursor := query.place.cursor):
        return query.date("base_dt"), None
    # Wall times as text have no zone, and need none.
    return datetime.strptime(cursor[:8], "%Y%m%d").date(), datetime.strptime(cursor[8:], "%Y%m%d%H%M%S")  # noqa: DTZ007

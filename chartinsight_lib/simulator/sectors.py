"""Indices: ka20006 days, ka20007 weeks, ka20008 months, ka20019 years (points x 100, unsigned); ka20001 and ka20003 (decimals)."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from chartinsight_lib.simulator.charts import by_period, walk
from chartinsight_lib.simulator.reading import Query, shown_until
from chartinsight_lib.simulator.wire import (
    MILLION,
    Refusal,
    Reply,
    date_text,
    days_text,
    dumps,
    mark,
    million,
    percent,
    points,
    written,
)
from chartinsight_lib.simulator.world import World

_COLUMNS = ("cur_prc", "trde_qty", "dt", "open_pric", "high_pric", "low_pric", "trde_prica")
_PERIODS = {
    "ka20006": ("inds_dt_pole_qry", "D"),
    "ka20007": ("inds_stk_pole_qry", "W"),
    "ka20008": ("inds_mth_pole_qry", "M"),
    "ka20019": ("inds_yr_pole_qry", "Y"),
}
_ALL = (
    "stk_cd", "stk_nm", "cur_prc", "pre_sig", "pred_pre", "flu_rt", "trde_qty", "wght", "trde_prica", "upl", "rising",
    "stdns", "fall", "lst", "flo_stk_num",
)  # fmt: skip
_MINUTES = ("tm_n", "cur_prc_n", "pred_pre_sig_n", "pred_pre_n", "flu_rt_n", "trde_qty_n", "acc_trde_qty_n")


def candles(world: World, query: Query) -> Reply:
    """Answer ka20006, ka20007, ka20008 and ka20019."""
    code = query.body["inds_cd"]
    list_key, period = _PERIODS[query.api_id]
    reply = Reply({"inds_cd": code}, list_key, _COLUMNS)
    if code not in world.sectors:
        return reply.blank()
    as_of, before = walk(query)
    rows = world.index(code, query.now, shown_until(world, as_of, query.now))
    if period != "D":
        rows = by_period(rows, period)
    stop = len(rows.day) if before is None else int(np.searchsorted(rows.day, np.datetime64(before)))
    start = max(stop - query.page_size(world), 0)
    if start == stop:
        return reply.blank()
    page = rows.cut(start, stop)
    values = (
        page.close.tolist(),
        page.volume.tolist(),
        days_text(page.day),
        page.open.tolist(),
        page.high.tolist(),
        page.low.tolist(),
        million(page.value),
    )
    reply.rows = written(_COLUMNS, [column[::-1] for column in values])
    reply.cursor = date_text(as_of) + days_text(rows.day[start : start + 1])[0] if start else None
    return reply


def current(world: World, query: Query) -> Reply:
    """Answer ka20001; `mrkt_tp` is ignored. The list has the newest of 20 minutes only: an index has no minutes here."""
    code = query.body["inds_cd"]
    if code not in world.sectors:
        raise Refusal(1901, f"업종코드={code}")
    row = _row(world, code, query.now)
    names = ("cur_prc", "pred_pre", "flu_rt", "trde_qty", "trde_prica", "upl", "rising", "stdns", "fall", "lst")
    rows = world.index(code, query.now, query.now.date())
    head = {"cur_prc": row["cur_prc"], "pred_pre_sig": row["pre_sig"], **{name: row[name] for name in names[1:]}}
    if len(rows.day):
        base = int(rows.base[-1])
        for name, column in (("open_pric", rows.open), ("high_pric", rows.high), ("low_pric", rows.low)):
            head[name] = signed_points(int(column[-1]), base)
    minute = (
        f"{query.now:%H%M%S}",
        row["cur_prc"],
        row["pre_sig"],
        row["pred_pre"],
        row["flu_rt"],
        "0",
        row["trde_qty"],
    )
    return Reply(head, "inds_cur_prc_tm", _MINUTES, written(_MINUTES, [[text] for text in minute]))


def all_sectors(world: World, query: Query) -> Reply:
    """Answer ka20003: every sector of the board whose index is asked for."""
    first = query.body["inds_cd"][0]
    rows = [dumps(_row(world, sector.code, query.now)) for sector in world.market.sectors if sector.code[0] == first]
    return Reply(list_key="all_inds_idex", columns=_ALL, rows=rows)


def signed_points(level: int, base: int) -> str:
    """Return an index level with the sign of its place above or below the base."""
    return f"{'+' if level > base else '-' if level < base else ''}{points(level)}"


def _row(world: World, code: str, now: datetime) -> dict[str, str]:
    row = dict.fromkeys(_ALL, "0") | {"stk_cd": code, "stk_nm": world.sectors[code].name, "wght": ""}
    rows = world.index(code, now, now.date())
    if len(rows.day):
        level, base = int(rows.close[-1]), int(rows.base[-1])
        row.update(
            cur_prc=signed_points(level, base),
            pre_sig=mark(level - base),
            pred_pre=f"{(level - base) / 100:+.2f}" if level != base else "0.00",
            flu_rt=percent(level - base, base),
            trde_qty=str(int(rows.volume[-1])),
            trde_prica=str(int(rows.value[-1]) // MILLION),
        )
    return row

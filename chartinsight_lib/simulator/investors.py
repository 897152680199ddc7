"""Investors: ka10059, ka10060 (chart), ka10086 (daily prices with flows). Newest first; prices signed against the day's base.

Today's net buys stay 0 until 15 minutes after the regular close, when the first settlement comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from chartinsight_lib.simulator.charts import walk
from chartinsight_lib.simulator.model import Ints
from chartinsight_lib.simulator.paging import LOOP
from chartinsight_lib.simulator.reading import Instrument, Query, instrument, shown_until
from chartinsight_lib.simulator.wire import (
    MILLION,
    Reply,
    change,
    date_text,
    days_text,
    doubled,
    mark,
    million,
    percent,
    signed_all,
    written,
)
from chartinsight_lib.simulator.world import Rows, World

KINDS = (
    "ind_invsr", "frgnr_invsr", "orgn", "fnnc_invt", "insrnc", "invtrt", "etc_fnnc", "bank", "penfnd_etc", "samo_fund",
    "natn", "etc_corp", "natfor",
)  # fmt: skip
_TABLE = ("dt", "cur_prc", "pre_sig", "pred_pre", "flu_rt", "acc_trde_qty", "acc_trde_prica", *KINDS)
_CHART = ("dt", "cur_prc", "pred_pre", "acc_trde_prica", *KINDS)
_PRICES = (
    "date", "open_pric", "high_pric", "low_pric", "close_pric", "pred_rt", "flu_rt", "trde_qty", "amt_mn", "crd_rt", "ind",
    "orgn", "for_qty", "frgn", "prm", "for_rt", "for_poss", "for_wght", "for_netprps", "orgn_netprps", "ind_netprps",
    "crd_remn_rt",
)  # fmt: skip
_SETTLED_AFTER = timedelta(minutes=15)


def investors(world: World, query: Query) -> Reply:
    """Answer ka10059."""
    return _flows(world, query, "stk_invsr_orgn", _TABLE)


def chart(world: World, query: Query) -> Reply:
    """Answer ka10060, whose `acc_trde_prica` is a number of shares, whatever its name says."""
    return _flows(world, query, "stk_invsr_orgn_chart", _CHART)


def _flows(world: World, query: Query, list_key: str, columns: Sequence[str]) -> Reply:
    reply = Reply({}, list_key, columns)
    found = instrument(world, query, reply)
    if isinstance(found, Reply):
        return found
    page, reply.cursor = _page(world, query, found, "dt")
    if not len(page.day):
        return reply.blank()
    moves = page.close - page.base
    texts: dict[str, Sequence[object]] = {
        "dt": days_text(page.day),
        "cur_prc": signed_all(page.close, page.base),
        "pre_sig": [mark(move) for move in moves.tolist()],
        "pred_pre": [change(move) for move in moves.tolist()],
        # Hundredths of a percent without a point: +698 is 6.98 %.
        "flu_rt": [change(n) for n in _rounded(moves * 10_000, page.base).tolist()],
        "acc_trde_qty": page.volume.tolist(),
        "acc_trde_prica": page.volume.tolist() if columns is _CHART else million(page.value),
    }
    for kind, net in _net(world, query, found, page).items():
        texts[kind] = _in_unit(query, net, page).tolist()
    reply.rows = written(columns, [texts[name] for name in columns])
    return reply


def daily_prices(world: World, query: Query) -> Reply:
    """Answer ka10086, with its endless walk: past the beginning of an NXT code come an empty page and then page 1."""
    reply = Reply({}, "daly_stkpc", _PRICES)
    found = instrument(world, query, reply)
    if isinstance(found, Reply):
        return found
    on_nxt = found.symbol.suffix == "NX"
    page, reply.cursor = _page(world, query, found, "qry_dt")
    if not len(page.day):
        if not on_nxt or not query.place.cursor:
            return reply.blank()
        reply.cursor = query.place.cursor[:8] + LOOP
        return reply
    if on_nxt and reply.cursor is None:
        reply.cursor = date_text(walk(query, "qry_dt")[0]) + days_text(page.day[-1:])[0]
    net = {kind: shares.tolist() for kind, shares in _net(world, query, found, page).items()}
    moves = (page.close - page.base).tolist()
    amounts = query.body["indc_tp"] == "1"
    shown = {kind: _amounts(np.array(n), page).tolist() if amounts else n for kind, n in net.items()}
    blank = [""] * len(page.day)
    texts: dict[str, Sequence[object]] = dict.fromkeys(_PRICES, blank) | {
        "date": days_text(page.day),
        "open_pric": signed_all(page.open, page.base),
        "high_pric": signed_all(page.high, page.base),
        "low_pric": signed_all(page.low, page.base),
        "close_pric": signed_all(page.close, page.base),
        "pred_rt": [change(move) for move in moves],
        "flu_rt": [percent(move, base) for move, base in zip(moves, page.base.tolist(), strict=True)],
        "trde_qty": page.volume.tolist(),
        "amt_mn": million(page.value),
        "ind": [doubled(n) for n in shown["ind_invsr"]],
        "orgn": [doubled(n) for n in shown["orgn"]],
        "for_qty": [doubled(n) for n in net["frgnr_invsr"]],  # a number of shares, also where amounts are asked for
        "frgn": [doubled(n) for n in shown["frgnr_invsr"]],
        "for_netprps": [doubled(n) for n in net["frgnr_invsr"]],
        "orgn_netprps": [doubled(n) for n in shown["orgn"]],
        "ind_netprps": [doubled(n) for n in shown["ind_invsr"]],
    }
    reply.rows = written(_PRICES, [texts[name] for name in _PRICES])
    return reply


def _page(world: World, query: Query, found: Instrument, field: str) -> tuple[Rows, str | None]:
    """Return a page of days, newest first, and where the next begins."""
    as_of, before = walk(query, field)
    rows = world.daily(found.symbol, query.now, shown_until(world, as_of, query.now))
    stop = len(rows.day) if before is None else int(np.searchsorted(rows.day, np.datetime64(before)))
    start = max(stop - query.page_size(world), 0)
    cursor = date_text(as_of) + days_text(rows.day[start : start + 1])[0] if start else None
    return rows.cut(start, stop).newest_first(), cursor


def _net(world: World, query: Query, found: Instrument, page: Rows) -> dict[str, Ints]:
    """Return the net shares of each kind on the days of a page."""
    flows = world.market.flows(found.symbol.code)
    at = np.searchsorted(flows.day, page.day)
    known = at < len(flows.day)
    known[known] = flows.day[at[known]] == page.day[known]
    session = world.session(query.now.date())
    if session is not None and query.now < session.closes + _SETTLED_AFTER:
        known &= page.day != np.datetime64(query.now.date())
    net = {}
    for kind in KINDS:
        shares = np.zeros(len(page.day), np.int64)
        if kind in flows.columns:
            shares[known] = flows.columns[kind][at[known]]
        net[kind] = shares
    return net


def _in_unit(query: Query, net: Ints, page: Rows) -> Ints:
    """Return net buys, or the gross buys or sells behind them, in the unit that was asked for."""
    shares = net
    if (side := query.body["trde_tp"]) != "0":
        # The market knows net buys only: behind each lies a twentieth of the day's volume both ways.
        shares = page.volume // 20 + (np.maximum(net, 0) if side == "1" else np.maximum(-net, 0))
    if query.body["amt_qty_tp"] == "1":
        return _amounts(shares, page)
    return shares if query.body["unit_tp"] == "1" else _rounded(shares, np.full(len(shares), 1000))


def _amounts(shares: Ints, page: Rows) -> Ints:
    """Return shares in million won at the day's average price, cut off towards zero."""
    average = page.value / np.maximum(page.volume, 1)
    return np.trunc(shares * average / MILLION).astype(np.int64)


def _rounded(part: Ints, whole: Ints) -> Ints:
    return np.rint(part / np.maximum(whole, 1)).astype(np.int64)

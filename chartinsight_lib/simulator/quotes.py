"""Quotes: ka10095 (up to 100 codes) and ka10001 (one).

A quote turns to the new day an hour before its opening: then all is at 기준가 and nothing has traded. `cur_prc` goes on with
the after-market, while `close_pric` holds the regular session's close from its end on, and is empty before.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from chartinsight_lib.simulator.model import Listing
from chartinsight_lib.simulator.reading import Query, instrument, split_symbol
from chartinsight_lib.simulator.wire import (
    MILLION,
    Refusal,
    Reply,
    change,
    date_text,
    dumps,
    limits,
    mark,
    percent,
    signed,
    tick,
)
from chartinsight_lib.simulator.world import Rows, Symbol, World

BATCH = 100
_LEAD = timedelta(hours=1)
_ELW = (
    "cap_support", "elwexec_pric", "cnvt_rt", "elwexpr_dt", "cntr_engg", "cntr_pred_pre", "theory_pric", "innr_vltl",
    "delta", "gamma", "theta", "vega", "law",
)  # fmt: skip
_LEVELS = range(1, 6)
QUOTE_COLUMNS = (
    "stk_cd", "stk_nm", "cur_prc", "base_pric", "pred_pre", "pred_pre_sig", "flu_rt", "trde_qty", "trde_prica",
    "cntr_qty", "cntr_str", "pred_trde_qty_pre", "sel_bid", "buy_bid",
    *(f"sel_{n}th_bid" for n in _LEVELS), *(f"buy_{n}th_bid" for n in _LEVELS),
    "upl_pric", "lst_pric", "open_pric", "high_pric", "low_pric", "close_pric", "cntr_tm", "exp_cntr_pric",
    "exp_cntr_qty", "cap", "fav", "mac", "stkcnt", "bid_tm", "dt", "pri_sel_req", "pri_buy_req", "pri_sel_cnt",
    "pri_buy_cnt", "tot_sel_req", "tot_buy_req", "tot_sel_cnt", "tot_buy_cnt", "prty", "gear", "pl_qutr", *_ELW,
)  # fmt: skip
_PAR = 100  # won; the market says nothing of par values
_HUNDRED_MILLION = 100_000_000


@dataclass(frozen=True)
class Quote:
    """An instrument at a moment; prices in won, 0 for what has not been yet."""

    symbol: Symbol
    listing: Listing
    day: date
    price: int
    base: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    previous_volume: int
    last_trade: str
    last_volume: int
    history: Rows


def quote(world: World, symbol: Symbol, listing: Listing, now: datetime) -> Quote | None:
    """Return an instrument's quote; None: it has no day yet."""
    day = world.newest_day(now, lead=_LEAD)
    rows = world.daily(symbol, now, now.date())
    if day is None or (not len(rows.day) and not listing.listed(day)):
        return None
    if not len(rows.day) or rows.day[-1] < np.datetime64(day):
        base = world.base(symbol.code, day)
        before = int(rows.volume[-1]) if len(rows.day) else 0
        return Quote(symbol, listing, day, base, base, 0, 0, 0, 0, 0, 0, before, "", 0, rows)
    session, minutes = world.session(day), world.minutes(symbol, day, now)
    closed = day < now.date() or (session is not None and now > session.closes)
    last = str(minutes.start[-1])[11:].replace(":", "") + "00" if len(minutes.start) else ""
    price, base, open_, high, low, volume, value = (
        int(column[-1]) for column in (rows.close, rows.base, rows.open, rows.high, rows.low, rows.volume, rows.value)
    )
    before = int(rows.volume[-2]) if len(rows.day) > 1 else 0
    close = int(rows.official[-1]) if closed else 0
    last_volume = int(minutes.volume[-1]) * (1 if minutes.close[-1] >= minutes.open[-1] else -1) if last else 0
    return Quote(
        symbol, listing, day, price, base, open_, high, low, close, volume, value, before, last, last_volume, rows
    )


def watched(world: World, query: Query) -> Reply:
    """Answer ka10095. Raises Refusal: 1634 for more than a hundred codes."""
    codes = query.body["stk_cd"].split("|")
    if len(codes) > BATCH:
        raise Refusal(1634, f"최대={BATCH}")
    reply = Reply(list_key="atn_stk_infr", columns=QUOTE_COLUMNS)
    empty = dumps(dict.fromkeys(QUOTE_COLUMNS, ""))
    for text in codes:
        symbol = split_symbol(text)
        listing = world.listings.get(symbol.code)
        served = not symbol.suffix or (
            world.options.serves_suffixes and (symbol.suffix == "AL" or (listing and listing.nxt))
        )
        if listing and not listing.nxt:
            symbol = Symbol(symbol.code)
        found = (
            quote(world, symbol, listing, query.now)
            if served and listing and listing.listed(query.now.date())
            else None
        )
        reply.rows.append(dumps(_row(found, text, query.now)) if found else empty)
    return reply


def _row(one: Quote, text: str, now: datetime) -> dict[str, str]:
    kind, base, price = one.listing.kind, one.base, one.price
    low, high = limits(base, kind)
    step = tick(price, kind)
    shares = one.listing.shares_on(one.day)
    row = dict.fromkeys(QUOTE_COLUMNS, "")
    row.update(
        stk_cd=text,
        stk_nm=one.listing.name_on(now.date()),
        cur_prc=signed(price, base),
        base_pric=str(base),
        pred_pre=change(price - base),
        pred_pre_sig=mark(price - base, at_limit=price in (low, high)),
        flu_rt=percent(price - base, base),
        trde_qty=str(one.volume),
        trde_prica=str(one.value // MILLION),
        cntr_qty=change(one.last_volume),
        cntr_str=f"{80 + zlib.crc32(f'{one.symbol}{one.day}'.encode()) % 4000 / 100:.2f}",
        pred_trde_qty_pre=percent(one.volume, one.previous_volume),
        sel_bid=signed(price + step, base),
        buy_bid=signed(price, base),
        upl_pric=signed(high, base),
        lst_pric=signed(low, base),
        open_pric=_so_far(one.open, base),
        high_pric=_so_far(one.high, base),
        low_pric=_so_far(one.low, base),
        close_pric=signed(one.close, base) if one.close else "",
        cntr_tm=one.last_trade,
        exp_cntr_pric="0",
        exp_cntr_qty="0",
        cap=str(shares * _PAR // _HUNDRED_MILLION),
        fav=str(_PAR),
        mac=str(shares * price // _HUNDRED_MILLION),
        stkcnt=str(shares // 1000),
        bid_tm=one.last_trade,
        dt=date_text(one.day),
        tot_sel_req="0",
        tot_buy_req="0",
    )
    for n in _LEVELS:
        row[f"sel_{n}th_bid"] = signed(price + n * step, base)
        row[f"buy_{n}th_bid"] = signed(max(price - (n - 1) * step, 1), base)
    return row


def _so_far(price: int, base: int) -> str:
    """Return a price of the day; before the first trade there is none, and it is 0."""
    return signed(price, base) if price else "0"


def basics(world: World, query: Query) -> Reply:
    """Answer ka10001."""
    empty = Reply(dict.fromkeys(_BASICS, ""))
    found = instrument(world, query, empty)
    if isinstance(found, Reply):
        return empty  # a flat answer has no rows to be without: its fields are empty
    one = quote(world, found.symbol, found.listing, query.now)
    return Reply(_basics(one, query)) if one else empty


_BASICS = (
    "stk_cd", "stk_nm", "setl_mm", "fav", "cap", "flo_stk", "crd_rt", "oyr_hgst", "oyr_lwst", "mac", "mac_wght",
    "for_exh_rt", "repl_pric", "per", "eps", "roe", "pbr", "ev", "bps", "sale_amt", "bus_pro", "cup_nga", "250hgst",
    "250lwst", "high_pric", "open_pric", "low_pric", "upl_pric", "lst_pric", "base_pric", "exp_cntr_pric",
    "exp_cntr_qty", "250hgst_pric_dt", "250hgst_pric_pre_rt", "250lwst_pric_dt", "250lwst_pric_pre_rt", "cur_prc",
    "pre_sig", "pred_pre", "flu_rt", "trde_qty", "trde_pre", "fav_unit", "dstr_stk", "dstr_rt",
)  # fmt: skip


def _basics(one: Quote, query: Query) -> dict[str, str]:
    quoted = _row(one, query.body["stk_cd"], query.now)
    row = dict.fromkeys(_BASICS, "")
    row.update({name: quoted[name] for name in _BASICS if name in quoted})
    shares = one.listing.shares_on(one.day)
    row.update(
        setl_mm="12",
        fav_unit="원",
        flo_stk=str(shares // 1000),
        pre_sig=quoted["pred_pre_sig"],
        trde_pre=quoted["pred_trde_qty_pre"],
        dstr_stk=str(shares * 6 // 10 // 1000),
        dstr_rt="60.0",
    )
    # Raw extremes: what a split does to them on the real host is not known.
    past = one.history.cut(max(len(one.history.day) - 250, 0), len(one.history.day))
    if len(past.day):
        year = one.history.day >= np.datetime64(one.day - timedelta(days=365))
        row["oyr_hgst"] = signed(int(one.history.high[year].max(initial=0)), one.base)
        row["oyr_lwst"] = signed(int(one.history.low[year].min(initial=one.price)), one.base)
        for name, prices, at in (("250hgst", past.high, past.high.argmax()), ("250lwst", past.low, past.low.argmin())):
            extreme = int(prices[at])
            row[name] = signed(extreme, one.base)
            row[f"{name}_pric_dt"] = str(past.day[at]).replace("-", "")
            row[f"{name}_pric_pre_rt"] = percent(one.price - extreme, extreme)
    return row

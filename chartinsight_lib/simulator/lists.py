"""What there is: ka10099 and ka10100 (instruments), ka10101 (sectors), ka10102 (brokers)."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

import numpy as np

from chartinsight_lib.simulator.model import Listing
from chartinsight_lib.simulator.reading import Query
from chartinsight_lib.simulator.wire import Refusal, Reply, date_text, dumps
from chartinsight_lib.simulator.world import World

MARKETS = ("0", "10", "3", "8", "30", "50", "5", "4", "6", "9", "60")
_KINDS = {"etf": ("8", "ETF"), "etn": ("60", "ETN"), "reit": ("6", "리츠"), "fund": ("2", "인프라투융자")}
_ORDER_WARNINGS = {"정리매매": "2", "단기과열": "3", "투자위험": "4", "투자경고": "5", "투자경과": "5"}
_ONLY_IN_STATE = ("관리종목", "거래정지", "정리매매", "단기과열")
_COLUMNS = (
    "code", "name", "listCount", "auditInfo", "regDay", "lastPrice", "state", "marketCode", "marketName", "upName",
    "upSizeName", "companyClassName", "orderWarning", "nxtEnable", "kind",
)  # fmt: skip
_BROKERS = (
    ("001", "교보"), ("002", "신한투자증권"), ("003", "한국투자증권"), ("004", "대신"), ("005", "미래에셋증권"),
    ("012", "NH투자증권"), ("017", "KB증권"), ("030", "삼성"), ("045", "골드만"), ("050", "키움증권"),
)  # fmt: skip


class _Day(NamedTuple):
    """What a list says of an instrument on a day beside its listing."""

    previous_close: int
    halted: bool


class Lists:
    """The lists of a world. Remembers the closes of every instrument, since a list needs all of them at once."""

    def __init__(self, world: World) -> None:
        """Read from `world`."""
        self._world = world
        self._closes: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._day: tuple[date | None, dict[str, str]] = (None, {})

    def instruments(self, _: World, query: Query) -> Reply:
        """Answer ka10099: the whole of a market in one page."""
        market, today = query.body["mrkt_tp"], query.now.date()
        chosen = [one for one in self._world.listings.values() if one.listed(today) and _in_market(one, market)]
        if self._day[0] != today:
            self._day = (today, {})
        rows = self._day[1]
        for one in chosen:
            if one.code not in rows:
                rows[one.code] = dumps(self._row(one, today))
        return Reply(list_key="list", columns=_COLUMNS, rows=[rows[one.code] for one in chosen])

    def instrument(self, _: World, query: Query) -> Reply:
        """Answer ka10100."""
        code, today = query.body["stk_cd"], query.now.date()
        listing = self._world.listings.get(code)
        if listing is None or not listing.listed(today):
            raise Refusal(1902, f"종목코드={code}")
        return Reply(self._row(listing, today))

    def _row(self, listing: Listing, today: date) -> dict[str, str]:
        day = self._of(listing.code, today)
        warnings = [
            text for since, until, text in listing.warnings if since <= today and (until is None or today < until)
        ]
        if day.halted and "거래정지" not in warnings:
            warnings.append("거래정지")
        market_code, market_name = _market_of(listing)
        sector = self._world.sectors.get(listing.sector)
        state = ["증거금100%", *warnings] if warnings else ["증거금20%", "담보대출", "신용가능"]
        values = (
            listing.code,
            listing.name_on(today),
            f"{listing.shares_on(today):016d}",
            next((text for text in warnings if text not in _ONLY_IN_STATE), "정상"),
            date_text(listing.listed_on),
            f"{day.previous_close:08d}",
            "|".join(state),
            market_code,
            market_name,
            sector.name if sector else "",
            listing.size,
            "",
            next((_ORDER_WARNINGS[text] for text in warnings if text in _ORDER_WARNINGS), "0"),
            "Y" if listing.nxt else "",
            "A" if listing.board == "KOSPI" else "Q",
        )
        return dict(zip(_COLUMNS, values, strict=True))

    def _of(self, code: str, today: date) -> _Day:
        if code not in self._closes:
            bars = self._world.market.daily(code)
            self._closes[code] = (bars.day.astype(np.int64).astype(np.int32), bars.close.astype(np.int32), bars.halted)
        days, closes, halted = self._closes[code]
        number = np.datetime64(today).astype(np.int64)
        at = int(np.searchsorted(days, number))
        return _Day(
            int(closes[at - 1]) if at else 0,
            bool(at < len(days) and days[at] == number and halted[at]),
        )


def sectors(world: World, query: Query) -> Reply:
    """Answer ka10101."""
    market = query.body["mrkt_tp"]
    first = {"0": "0", "1": "1", "2": "2", "4": "4", "7": "7"}[market]
    rows = [
        dumps({"marketCode": market, "code": sector.code, "name": sector.name, "group": sector.code[1:]})
        for sector in world.market.sectors
        if sector.code.startswith(first)
    ]
    return Reply(list_key="list", columns=("marketCode", "code", "name", "group"), rows=rows)


def brokers(_: World, __: Query) -> Reply:
    """Answer ka10102."""
    rows = [dumps({"code": code, "name": name, "gb": "0"}) for code, name in _BROKERS]
    return Reply(list_key="list", columns=("code", "name", "gb"), rows=rows)


def _market_of(listing: Listing) -> tuple[str, str]:
    return _KINDS.get(listing.kind) or (("0", "거래소") if listing.board == "KOSPI" else ("10", "코스닥"))


def _in_market(listing: Listing, market: str) -> bool:
    """Whether a list holds an instrument: 0 holds all of KOSPI, whatever its kind, and 10 all of KOSDAQ."""
    if market == "0":
        return listing.board == "KOSPI"
    return listing.board == "KOSDAQ" if market == "10" else _market_of(listing)[0] == market

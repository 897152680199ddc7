"""Which TR is served where, what it needs, and who answers it: the checks before an answer, in the order of the real host.

The order of required fields is the document's, since the first that is missing is the one that is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chartinsight_lib.simulator import charts, investors, lists, minutes, quotes, sectors
from chartinsight_lib.simulator.reading import Query
from chartinsight_lib.simulator.wire import Refusal, Reply
from chartinsight_lib.simulator.world import World

CODE = re.compile(r"[0-9A-Z]{6}(_NX|_AL)?")
PLAIN_CODE = re.compile(r"[0-9A-Z]{6}")
CODES = re.compile(r"[0-9A-Z]{6}(_NX|_AL)?(\|[0-9A-Z]{6}(_NX|_AL)?)*")
DATE = re.compile(r"\d{8}")
SECTOR = re.compile(r"\d{3}")

Reader = Callable[[World, Query], Reply]


@dataclass(frozen=True)
class Tr:
    """One TR: its path below /api/dostk/, its required fields in order, its optional ones, and its reader."""

    path: str
    read: Reader
    required: Mapping[str, re.Pattern[str]]
    optional: Mapping[str, re.Pattern[str]]


def _choice(*values: str) -> re.Pattern[str]:
    return re.compile("|".join(values))


_BINARY = _choice("0", "1")


def table(own: lists.Lists) -> dict[str, Tr]:
    """Return {api-id: TR}."""
    chart = {"stk_cd": CODE, "base_dt": DATE, "upd_stkpc_tp": _BINARY}
    flow = {
        "dt": DATE,
        "stk_cd": CODE,
        "amt_qty_tp": _choice("1", "2"),
        "trde_tp": _choice("0", "1", "2"),
        "unit_tp": _choice("1000", "1"),
    }
    sector_day = {"inds_cd": SECTOR, "base_dt": DATE}
    found: dict[str, Tr] = {}

    def serve(
        api_ids: str, path: str, read: Reader, required: Mapping[str, re.Pattern[str]], **optional: re.Pattern[str]
    ) -> None:
        found.update({api_id: Tr(path, read, required, optional) for api_id in api_ids.split()})

    serve("ka10081 ka10082 ka10083 ka10094", "chart", charts.candles, chart)
    minute = {"stk_cd": CODE, "tic_scope": _choice(*minutes.SCOPES), "upd_stkpc_tp": _BINARY}
    serve("ka10080", "chart", minutes.minute_candles, minute, base_dt=DATE)
    serve("ka20006 ka20007 ka20008 ka20019", "chart", sectors.candles, sector_day)
    serve("ka10060", "chart", investors.chart, flow)
    serve("ka10059", "stkinfo", investors.investors, flow)
    serve("ka10086", "mrkcond", investors.daily_prices, {"stk_cd": CODE, "qry_dt": DATE, "indc_tp": _BINARY})
    serve("ka10095", "stkinfo", quotes.watched, {"stk_cd": CODES})
    serve("ka10001", "stkinfo", quotes.basics, {"stk_cd": CODE})
    serve("ka10099", "stkinfo", own.instruments, {"mrkt_tp": _choice(*lists.MARKETS)})
    serve("ka10100", "stkinfo", own.instrument, {"stk_cd": PLAIN_CODE})
    serve("ka10101", "stkinfo", lists.sectors, {"mrkt_tp": _choice("0", "1", "2", "4", "7")})
    serve("ka10102", "stkinfo", lists.brokers, {})
    serve("ka20001", "sect", sectors.current, {"mrkt_tp": _choice("0", "1", "2"), "inds_cd": SECTOR})
    serve("ka20003", "sect", sectors.all_sectors, {"inds_cd": SECTOR})
    return found


def routed(trs: Mapping[str, Tr], path: str, api_id: str) -> Tr:
    """Return the TR of a request. Raises Refusal: 1501 none named, 1505 unknown, 1504 not on this path."""
    if not api_id:
        raise Refusal(1501)
    if (tr := trs.get(api_id)) is None:
        raise Refusal(1505, f"API ID={api_id[:10]}")
    if tr.path != path:
        raise Refusal(1504, f"API ID={api_id}, URI=/api/dostk/{path[:40]}")
    return tr


def bearer(authorization: str | None) -> str:
    """Return the token of a header. Raises Refusal: 1513 no header, 1514 not `Bearer TOKEN`, 1516 no token in it."""
    if not authorization:
        raise Refusal(1513)
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(1514)
    if not token.strip():
        raise Refusal(1516)
    if " " in token.strip():
        raise Refusal(1514)
    return token.strip()


def checked(tr: Tr, body: Mapping[str, object]) -> dict[str, str]:
    """Return a body's fields as text. Raises Refusal: 1511 for the first that is missing, 1517 for the first that is wrong.

    What the TR does not know is kept, since it is part of what a next-key is sealed to, and ignored.
    """
    for name in tr.required:
        if body.get(name) in (None, ""):
            raise Refusal(1511, f"필수입력 파라미터={name}")
    for name, pattern in (*tr.required.items(), *tr.optional.items()):
        value = body.get(name)
        if value not in (None, "") and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise Refusal(1517, f"파라미터={name}")
    return {name: str(value) for name, value in body.items()}

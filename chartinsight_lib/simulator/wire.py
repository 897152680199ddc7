"""How Kiwoom writes: the envelope, refusals, signs and units. Pure: strings out of numbers.

Every data field is a JSON string. A price's sign says above or below the day's base price and is not part of the price; the
sign of a change or of a net buy is its value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np

from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.simulator.model import Days, Ints

JSON = "application/json;charset=UTF-8"
HTML = "text/html;charset=UTF-8"
OK = "정상적으로 처리되었습니다"
MILLION = 1_000_000

_CLASS_TEXT = {
    1: "잘못된 요청입니다",
    2: "입력 값 오류입니다",
    3: "인증에 실패했습니다",
    5: "허용된 요청 개수를 초과하였습니다",
    7: "서비스를 처리하는 중에 오류가 발생했습니다",
}
_CODES: dict[int, tuple[int, str]] = {
    1501: (1, "API ID가 Null이거나 값이 없습니다"),
    1504: (1, "해당 URI에서는 지원하는 API ID가 아닙니다"),
    1505: (1, "해당 API ID는 존재하지 않습니다"),
    1511: (2, "필수 입력 값에 값이 존재하지 않습니다"),
    1512: (2, "Http header에 값이 설정되지 않았거나 읽을 수 없습니다"),
    1513: (2, "Http Header에 authorization 필드를 설정해야 합니다"),
    1514: (2, "입력으로 들어온 Http Header의 authorization 필드 형식이 맞지 않습니다"),
    1515: (2, "Http Header의 authorization 필드 내 Grant Type이 미리 정의된 형식이 아닙니다"),
    1516: (2, "Http Header의 authorization 필드 내 Token이 정의되어 있지 않습니다"),
    1517: (2, "입력 값 형식이 올바르지 않습니다"),
    1634: (5, "한번에 조회할 수 있는 종목 수를 초과하였습니다"),
    1687: (5, "재귀 호출이 발생하여 API 호출을 제한합니다"),
    1700: (5, "허용된 API 요청 개수를 초과하였습니다"),
    1701: (5, "허용된 전체 요청 개수를 초과하였습니다"),
    1702: (5, "허용된 그룹 요청 개수를 초과하였습니다"),
    1901: (7, "시장 코드값이 존재하지 않습니다"),
    1902: (7, "종목 정보가 없습니다. 입력한 종목코드 값을 확인바랍니다"),
    1903: (7, "해당 거래소에 종목 정보가 없습니다. 입력한 종목코드 값을 확인바랍니다"),
    1999: (7, "예기치 못한 에러가 발생했습니다"),
    8001: (3, "App Key와 Secret Key 정보가 일치하지 않습니다"),
    8002: (3, "App Key와 Secret Key 검증에 실패했습니다"),
    8003: (3, "Access Token을 조회하는데 실패했습니다"),
    8005: (3, "Token이 유효하지 않습니다"),
    8006: (3, "Access Token을 생성하는데 실패했습니다"),
    8009: (3, "Access Token을 발급하는데 실패했습니다"),
    8010: (3, "Token을 발급받은 IP와 서비스를 요청한 IP가 동일하지 않습니다"),
    8011: (3, "Access Token을 발급하는데 실패했습니다. 입력값에 grant_type이 들어오지 않았습니다"),
    8012: (3, "Access Token을 발급하는데 실패했습니다. grant_type의 값이 맞지 않습니다"),
    8015: (3, "Access Token을 폐기하는데 실패했습니다"),
    8016: (3, "Token을 폐기하는데 실패했습니다. 입력값에 Token이 들어오지 않았습니다"),
    8020: (3, "App Key 또는 Secret Key 값이 들어오지 않았습니다"),
    8030: (2, "투자구분(실전/모의)이 달라서 Appkey를 사용할수가 없습니다"),
    8031: (3, "투자구분(실전/모의)이 달라서 Token을 사용할수가 없습니다"),
    8040: (3, "단말기 인증에 실패했습니다"),
    8050: (3, "지정단말기 인증에 실패했습니다"),
    8103: (3, "토큰 인증 또는 단말기인증에 실패했습니다"),
    8104: (3, "모의투자에서는 지원하지 않는 기능입니다"),
    8200: (3, "법인 고객만 사용할 수 있습니다"),
}
CODES = frozenset(_CODES)
"""The documented codes that can be answered."""


class Refusal(ChartInsightError):
    """An answer that says no: a documented code with its class and HTTP status."""

    def __init__(self, code: int, detail: str = "", *, status: int = 200, retry_after: float | None = None) -> None:
        """Refuse with `code`; `detail` follows its text, as in "종목코드=118970"."""
        self.code, self.status, self.retry_after = code, status, retry_after
        self.return_code, text = _CODES[code]
        self.message = f"{_CLASS_TEXT[self.return_code]}[{code}:{f'{text}. {detail}' if detail else text}]"
        super().__init__(self.message)

    def body(self) -> str:
        """Return the JSON that is sent."""
        return dumps({"return_code": self.return_code, "return_msg": self.message})


@dataclass
class Reply:
    """A successful answer, before it is written: top-level fields and, for most TRs, one list of rows."""

    head: Mapping[str, str] = field(default_factory=dict)
    list_key: str = ""
    """The name of the list; "": the TR has none and all is in `head`."""
    columns: Sequence[str] = ()
    rows: list[str] = field(default_factory=list)
    """Each row as JSON."""
    cursor: str | None = None
    """Where the next page begins; None: this is the last."""

    def body(self) -> str:
        """Return the JSON that is sent."""
        parts = [f"{dumps(name)}:{dumps(value)}" for name, value in self.head.items()]
        if self.list_key:
            parts.append(f'"{self.list_key}":[{",".join(self.rows)}]')
        parts.append(f'"return_code":0,"return_msg":"{OK}"')
        return "{" + ",".join(parts) + "}"

    def blank(self) -> Reply:
        """Return the same with one row whose every field is empty: how "no data" looks."""
        return Reply(self.head, self.list_key, self.columns, [dumps(dict.fromkeys(self.columns, ""))])


def dumps(value: object) -> str:
    """Return JSON as Kiwoom writes it: compact, Korean as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def written(columns: Sequence[str], values: Sequence[Sequence[object]]) -> list[str]:
    """Return rows as JSON from whole columns. Nothing is escaped: for numbers, dates and codes only."""
    template = "{" + ",".join(f'"{name}":"%s"' for name in columns) + "}"
    return [template % row for row in zip(*values, strict=True)]


def signed(price: int, base: int) -> str:
    """Return a price with the sign of its place above or below the base."""
    return f"+{price}" if price > base else f"-{price}" if price < base else str(price)


def signed_all(prices: Ints, bases: Ints) -> list[str]:
    """`signed` over arrays."""
    pairs = zip(prices.tolist(), bases.tolist(), strict=True)
    return [f"+{p}" if p > b else f"-{p}" if p < b else str(p) for p, b in pairs]


def change(value: int) -> str:
    """Return a change with its sign; none has none."""
    return f"{value:+d}" if value else "0"


def doubled(value: int) -> str:
    """Return a flow as ka10086 writes it: a mark of colour, then the value: `--714` is minus 714."""
    return f"-{value}" if value < 0 else change(value)


def percent(part: float, whole: float) -> str:
    """Return part / whole in percent, signed, two decimals; 0.00 when either is none."""
    return f"{100 * part / whole:+.2f}" if part and whole else "0.00"


def points(hundredths: int) -> str:
    """Return an index level, held times 100, as a decimal."""
    return f"{hundredths / 100:.2f}"


def mark(change_: int, *, at_limit: bool = False) -> str:
    """Return pred_pre_sig: 1 upper limit, 2 up, 3 unchanged, 4 lower limit, 5 down."""
    if change_ > 0:
        return "1" if at_limit else "2"
    return ("4" if at_limit else "5") if change_ < 0 else "3"


class _Dates(dict[int, str]):
    """{days since 1970: YYYYMMDD}, filled as it is asked: formatting the same dates again would cost most of a page."""

    def __missing__(self, day: int) -> str:
        text = self[day] = str(np.datetime64(day, "D")).replace("-", "")
        return text


_dates = _Dates()


def days_text(days: Days) -> list[str]:
    """Return dates as YYYYMMDD."""
    return [_dates[day] for day in days.astype("datetime64[D]").astype(np.int64).tolist()]


def date_text(day: date | datetime) -> str:
    """Return one date as YYYYMMDD."""
    return f"{day:%Y%m%d}"


def million(value: Ints) -> list[int]:
    """Return won in million won, cut off."""
    return list((value // MILLION).tolist())


def tick(price: int, kind: str = "stock") -> int:
    """Return the KRX price step at a price (rules in force since 2023-01-25)."""
    if kind in ("etf", "etn"):
        return 1 if price < 2_000 else 5
    steps = ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500))
    return next((step for below, step in steps if price < below), 1_000)


def limits(base: int, kind: str = "stock") -> tuple[int, int]:
    """Return the day's lowest and highest price: 30 % from the base, towards it onto the tick grid."""
    span = base * 3 // 10 // tick(base, kind) * tick(base, kind)
    high, low = base + span, base - span
    return -(-low // tick(low, kind)) * tick(low, kind), high // tick(high, kind) * tick(high, kind)


def notice(start: datetime, end: datetime) -> str:
    """Return the page that is shown during maintenance."""
    weekday = "월화수목금토일"[start.weekday()]
    until = f"{end:%H:%M}" if end.date() == start.date() else f"{end.month}/{end.day} {end:%H:%M}"
    return (
        "<!DOCTYPE html><html><head><meta charset='utf-8'><title>시스템 점검 안내</title></head><body>"
        f"<h1>시스템 점검 안내</h1><p>중단 일시 : {start.month}/{start.day}({weekday}) {start:%H:%M} ~ {until}</p></body></html>"
    )


BLOCKED = (
    "<html><head><title>Request Blocked</title></head><body><h1>Request Blocked</h1>"
    "<p>The request was blocked by the security policy.</p></body></html>"
)

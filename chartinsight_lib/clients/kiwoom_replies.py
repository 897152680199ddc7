"""What a reply of Kiwoom's means: fine, or which error. The documented code stands in brackets inside `return_msg`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from chartinsight_lib.clients._http import Answer
from chartinsight_lib.errors import (
    AuthFailed,
    RateLimited,
    RequestRefused,
    SchemaError,
    Unavailable,
    UnknownCode,
    UpstreamError,
)

Record = dict[str, str]
"""One row as the server sends it: every value is text."""

_BRACKETED = re.compile(r"\[(\d{4}):|\(RC(\d{4}):")

# Source: the API document, page 526, and measurements of clients in use.
WRONGLY_ASKED = {"1501", "1504", "1505", "1511", "1512", "1513", "1514", "1515", "1516", "1517", "1634"}
TOO_MANY = {"1687", "1700", "1701", "1702"}
OVERALL = {"1701", "1702"}
"""Of these: quotas over all API ids."""
NO_SUCH_STOCK = {"1901", "1902", "1903"}
TOKEN_REFUSED = {"8003", "8005", "8103"}
ADVICE = {
    "8001": "The appkey and the secretkey do not belong together. Copy both anew from Kiwoom's REST API page.",
    "8002": "The appkey and the secretkey do not belong together. Copy both anew from Kiwoom's REST API page.",
    "8006": "Kiwoom could not make a token. Try again later.",
    "8009": "Kiwoom could not issue a token. Try again later.",
    "8010": "The token was issued to another IP address. Use one network, or register this one with Kiwoom.",
    "8011": "The token was asked for without its grant type; this is a fault of the program.",
    "8012": "The token was asked for with a wrong grant type; this is a fault of the program.",
    "8020": "A key is empty. Set CHARTINSIGHT_KIWOOM_APPKEY and CHARTINSIGHT_KIWOOM_SECRETKEY.",
    "8030": "The appkey is of the other environment: a key of mock trading works on https://mockapi.kiwoom.com alone, a real "
    "one on https://api.kiwoom.com alone. Set CHARTINSIGHT_KIWOOM_URL accordingly.",
    "8031": "The token is of the other environment (real or mock). Set CHARTINSIGHT_KIWOOM_URL accordingly.",
    "8040": "This device is not authenticated. Register it on Kiwoom's REST API page.",
    "8050": "This machine's IP address is not registered for the appkey. Register it on Kiwoom's REST API page (지정단말기).",
    "8104": "Mock trading does not support this.",
    "8200": "Only corporate customers may ask this.",
}


class TokenRefused(UpstreamError):
    """The token is not taken (any more); another may be."""


def judge(api_id: str, answer: Answer) -> None:
    """Return when the reply is fine.

    Raises:
        TokenRefused, RateLimited, Unavailable: trying again may help.
        AuthFailed, RequestRefused, UnknownCode, UpstreamError: it does not.
        SchemaError: the reply is not what the specification says.
    """
    if answer.body is None:
        # Gateways, maintenance and firewalls answer with pages; a reply cut short is no JSON.
        raise Unavailable(
            f"kiwoom {api_id}: HTTP {answer.status} with {answer.seen} where JSON was expected"
            + (" (maintenance?)." if "HTML" in answer.seen else ".")
        )
    message = str(answer.body.get("return_msg", ""))
    found = _BRACKETED.search(message)
    code = (found[1] or found[2]) if found else ""
    told = f"kiwoom {api_id}: {message or 'no message'} (HTTP {answer.status}, return_code {answer.body.get('return_code')!r})."
    if answer.status == 429 or code in TOO_MANY:
        raise RateLimited(told, code=code or "429")
    if code in TOKEN_REFUSED or answer.status == 401:
        raise TokenRefused(told, code=code or "401")
    if answer.status >= 500 or code == "1999":
        raise Unavailable(told, code=code)
    if code in ADVICE:
        raise AuthFailed(f"{told} {ADVICE[code]}", code=code)
    if code in WRONGLY_ASKED:
        raise RequestRefused(told, code=code)
    if code in NO_SUCH_STOCK:
        raise UnknownCode(told, code=code)
    if _class_number(api_id, answer) != 0 or answer.status >= 400:
        raise UpstreamError(told, code=code)


def records(api_id: str, answer: Answer, name: str) -> list[Record]:
    """Return the rows of a reply that is fine; a blank row, which says that there is nothing, is none.

    Raises:
        SchemaError: there is no list of this name, or it holds something else than rows.
    """
    rows = (answer.body or {}).get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        found = ", ".join(map(str, answer.body or {})) or "nothing"
        raise SchemaError(
            f"kiwoom {api_id}: the reply has no rows under {name}; found {found}. The API may have changed."
        )
    return [_texts(row) for row in rows if not blank(row.values())]


def flat(api_id: str, answer: Answer, needed: str) -> Record:
    """Return a reply that is one row itself. Raises SchemaError when the field `needed` is absent."""
    row = _texts({key: value for key, value in (answer.body or {}).items() if not isinstance(value, list | dict)})
    if needed not in row:
        raise SchemaError(
            f"kiwoom {api_id}: the reply has no {needed}; found {', '.join(row)}. The API may have changed."
        )
    return row


def blank(values: Iterable[object]) -> bool:
    """Whether a row says nothing."""
    for value in values:  # noqa: SIM110 - a generator costs more than the first value, which tells of nearly every row
        if value is not None and not (isinstance(value, str) and not value.strip()):
            return False
    return True


def _texts(row: dict[str, Any]) -> Record:
    if set(map(type, row.values())) == {str}:  # as it should be
        return row
    return {key: value if isinstance(value, str) else "" if value is None else str(value) for key, value in row.items()}


def _class_number(api_id: str, answer: Answer) -> int:
    written = (answer.body or {}).get("return_code")
    try:
        return int(str(written))
    except ValueError as error:
        raise SchemaError(
            f"kiwoom {api_id}: return_code is {str(written)[:40]!r}, and a number is expected. The API may have changed."
        ) from error

"""Open DART, the Korean supervisor's register of filings: pace, the day's allowance, retries. Hands on records as they come.

The vendor wants its key in every address. It is added on the wire alone, behind everything that logs or quotes an address.
Dates are KST. Source: the developers' guide at opendart.fss.or.kr.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import time
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from chartinsight_lib.clients._http import JsonHttp, read_answer
from chartinsight_lib.clock import Clock, system_clock
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import (
    AuthFailed,
    ConfigError,
    RateLimited,
    RequestRefused,
    SchemaError,
    TruncatedReply,
    Unavailable,
    UnknownCode,
    UpstreamError,
)
from chartinsight_lib.pace import Allowance, LocalAllowance, LocalSlots, Pacer

URL = "https://opendart.fss.or.kr"
DAILY = 20_000
"""Requests per key and day. Source: the guide's text of status 020, "20,000 or more"; that it is a day's is practice."""
RATE = 5.0
"""Requests per second. More than a thousand a minute get an address blocked for a day, as clients in use found out."""
TRIES = 5
BACK_OFF_S, BACK_OFF_MOST_S = 1.0, 30.0
PER_PAGE = 100
MAX_PAGES = 400
CONSOLIDATED, SEPARATE = "CFS", "OFS"

Record = dict[str, Any]
"""One row as the server sends it; its values are text, as a rule."""

# Source: the guide, 메시지 설명.
OK, NO_DATA, USED_UP = "000", "013", "020"
ADVICE = {
    "010": "The key is not registered. Copy it anew from opendart.fss.or.kr into CHARTINSIGHT_DART_KEY.",
    "011": "The key is suspended. Ask Open DART, or apply for another one.",
    "012": "The key may not be used from this address. Register it with Open DART, or leave the list of addresses empty.",
    "901": "The key has expired with the consent to keep personal data. Renew it at opendart.fss.or.kr.",
}
WRONGLY_ASKED = {"014", "021", "100", "101"}
LATER = {"800", "900"}

_Read = TypeVar("_Read")
_KEY = re.compile(r"[0-9A-Za-z]{40}")
_XML_STATUS = re.compile(r"<status>(\d{3})</status>\s*<message>([^<]*)</message>")


class DartClient:
    """A connection to Open DART. Use it in a `with`, from any number of threads."""

    def __init__(
        self,
        key: str,
        *,
        base_url: str = URL,
        pacer: Pacer | None = None,
        allowance: Allowance | None = None,
        daily: int = DAILY,
        clock: Clock = system_clock,
        timeout_s: float = 30.0,
        deadline_s: float = 180.0,
        back_off_s: float = BACK_OFF_S,
        sleep: Callable[[float], None] = time.sleep,
        dice: random.Random | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            key: forty letters and digits.
            pacer, allowance: where the pace and the day's count are shared; default: this process alone.
            daily: requests that a day allows.
            timeout_s, deadline_s: for one answer, and for one request with all its tries and waits.
            back_off_s: the first wait after a failure; doubled each time, with jitter.
            sleep, dice: seams for tests.
        Raises:
            ConfigError: the key is none; it is not shown.
        """
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"dart: a key has 40 letters and digits; the one given has {len(key)} characters. Copy it anew from "
                "opendart.fss.or.kr into CHARTINSIGHT_DART_KEY."
            )
        self._key, self._daily, self._clock = key, daily, clock
        self._pacer = pacer or Pacer(LocalSlots(), RATE)
        self._allowance = allowance or LocalAllowance()
        self._deadline_s, self._back_off_s, self._sleep = deadline_s, back_off_s, sleep
        self._dice = dice or random.Random()  # noqa: S311 - jitter
        self._http = JsonHttp(base_url, timeout_s=timeout_s, transport=_Keyed(key, _wire(base_url)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # What can be asked.

    def corporations(self) -> Iterator[dict[str, str]]:
        """Yield all listed companies (corpCode.xml): corp_code (8 digits), corp_name, stock_code (6 characters), modify_date."""
        for company in self._ask("corpCode.xml", {}, _companies):
            if company["stock_code"]:
                yield company

    def company(self, corp_code: str) -> Record:
        """Return what the register says of a company (company.json), `acc_mt` among it: the month its fiscal year ends in.

        Raises:
            UnknownCode: it knows none of this code.
        """
        reply = self._ask("company.json", {"corp_code": corp_code}, _reply)
        if reply["status"] == NO_DATA:
            raise UnknownCode(f"dart company.json: the register knows no company {corp_code}.", code=NO_DATA)
        return reply

    def filings(self, since: date, until: date, *, corp_code: str = "") -> Iterator[Record]:
        """Yield the periodic reports received from `since` to `until`, both included, oldest first, corrections too.

        Without `corp_code` those of all companies, and three calendar months at most.

        Raises:
            TruncatedReply: the pages end before the number of filings that the first one names.
        """
        params = {
            "bgn_de": f"{since:%Y%m%d}", "end_de": f"{until:%Y%m%d}", "pblntf_ty": "A", "last_reprt_at": "N",
            # New ones arrive at the end: what was on a page stays on it.
            "sort": "date", "sort_mth": "asc", "page_count": str(PER_PAGE),
        }  # fmt: skip
        if corp_code:
            params["corp_code"] = corp_code
        promised, seen = 0, set()
        for number in range(1, MAX_PAGES + 1):
            reply = self._ask("list.json", params | {"page_no": str(number)}, _reply)
            rows = _rows("list.json", reply)
            promised = promised or _count(reply, "total_count", of=rows)
            yield from (row for row in rows if row.get("rcept_no") not in seen)
            seen |= {row.get("rcept_no") for row in rows}
            if number >= _count(reply, "total_page", of=rows):
                break
            if not rows:
                raise TruncatedReply(f"dart list.json: page {number} is empty, and more are promised. Try again later.")
        else:
            raise TruncatedReply(
                f"dart list.json: stopped after {MAX_PAGES} pages, and there are more. Ask for fewer days."
            )
        if len(seen) < promised:
            raise TruncatedReply(
                f"dart list.json {since} to {until}: {promised} filings are promised, and {len(seen)} came. Try again later."
            )

    def statements(self, corp_code: str, bsns_year: str, reprt_code: str, fs_div: str) -> list[Record]:
        """Return the rows of all statements in a report (fnlttSinglAcntAll), of its newest correction; none where the register
        has none."""
        asked = {"corp_code": corp_code, "bsns_year": bsns_year, "reprt_code": reprt_code, "fs_div": fs_div}
        return _rows("fnlttSinglAcntAll.json", self._ask("fnlttSinglAcntAll.json", asked, _reply))

    def share_counts(self, corp_code: str, bsns_year: str, reprt_code: str) -> list[Record]:
        """Return the numbers of shares by class in a report (stockTotqySttus); none where the register has none."""
        asked = {"corp_code": corp_code, "bsns_year": bsns_year, "reprt_code": reprt_code}
        return _rows("stockTotqySttus.json", self._ask("stockTotqySttus.json", asked, _reply))

    # One request.

    def _ask(
        self, name: str, params: Mapping[str, str], read: Callable[[str, int, Mapping[str, str], bytes], _Read]
    ) -> _Read:
        """Send a request, as often as it takes and is allowed; return what `read` makes of the answer."""
        until = time.monotonic() + self._deadline_s
        for tried in range(1, TRIES + 1):
            day = self._clock().astimezone(KST).date()
            if not self._allowance.take("day", day, self._daily):
                raise RateLimited(
                    f"dart: the {self._daily:,} requests of {day} (KST) are used up. What is left is asked tomorrow.",
                    code=USED_UP,
                )
            self._pacer.wait("all", until=until)
            try:
                http, headers, content = self._http.get(f"/api/{name}", params, within_s=until - time.monotonic())
                # Should the server repeat the key, nothing that is made of its answer does.
                return read(name, http, headers, content.replace(self._key.encode(), b"***"))
            except RateLimited:
                self._allowance.use_up("day", day, self._daily)
                raise
            except Unavailable as error:
                told = f"{error} Asked for {' '.join(params.values()) or name}."
                wait_s = min(BACK_OFF_MOST_S, self._back_off_s * 2 ** (tried - 1)) * self._dice.uniform(0.8, 1.2)
                if tried == TRIES or time.monotonic() + wait_s >= until:
                    raise Unavailable(f"{told} Gave up after {tried} tries.", code=error.code) from None
                self._sleep(wait_s)
            except UpstreamError as error:
                told = f"{error} Asked for {' '.join(params.values()) or name}."
                raise type(error)(told, code=error.code) from None
        raise AssertionError("unreachable")


def fingerprint(key: str, url: str) -> str:
    """Return sixteen hexadecimal digits that stand for a key on a host where it must not be seen."""
    return hashlib.sha256(f"chartinsight dart key:{urlsplit(url).hostname}:{key}".encode()).hexdigest()[:16]


class _Keyed(httpx.BaseTransport):
    """Adds the key to each request on its way out. What stands before it, and logs addresses, never sees the key."""

    def __init__(self, key: str, wire: httpx.BaseTransport) -> None:
        self._key, self._wire = key, wire

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        keyed = httpx.Request(
            request.method, request.url.copy_add_param("crtfc_key", self._key), headers=request.headers,
            stream=request.stream, extensions=request.extensions,
        )  # fmt: skip
        return self._wire.handle_request(keyed)

    def close(self) -> None:
        self._wire.close()


def _wire(base_url: str) -> httpx.HTTPTransport:
    """Return a transport that goes by the system's proxy, as httpx itself would."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    near = host.startswith("127.") or host == "localhost" or proxy_bypass(host)  # a proxy has no way to this machine
    return httpx.HTTPTransport(proxy=None if near else getproxies().get(parts.scheme))


# What an answer means.


def _reply(name: str, status: int, headers: Mapping[str, str], content: bytes) -> Record:
    """Return a reply that is fine, or one that says there is no data."""
    answer = read_answer(status, headers, content)
    if answer.body is None:
        maintenance = " (maintenance?)" if "HTML" in answer.seen else ""
        raise Unavailable(f"dart {name}: HTTP {status} with {answer.seen} where JSON was expected{maintenance}.")
    _judge(name, status, str(answer.body.get("status", "")), str(answer.body.get("message", "")))
    return answer.body


def _judge(name: str, http: int, status: str, message: str) -> None:
    """Return when a reply's status says that it is fine, or that there is no data.

    Raises: RateLimited, Unavailable, AuthFailed, RequestRefused, UpstreamError, SchemaError.
    """
    told = f"dart {name}: {message or 'no message'} (HTTP {http}, status {status or 'none'})."
    if status == USED_UP or "사용한도" in message:
        raise RateLimited(f"{told} What is left is asked tomorrow.", code=USED_UP)
    if status in LATER or http == 429 or http >= 500:
        raise Unavailable(told, code=status or str(http))
    if status in ADVICE:
        raise AuthFailed(f"{told} {ADVICE[status]}", code=status)
    if status in WRONGLY_ASKED:
        raise RequestRefused(told, code=status)
    if status in {OK, NO_DATA} and http < 400:
        return
    if re.fullmatch(r"\d{3}", status) or http >= 400:
        raise UpstreamError(told, code=status or str(http))
    raise SchemaError(
        f"dart {name}: status is {status[:40]!r}, and three digits are expected. The API may have changed."
    )


def _rows(name: str, reply: Record) -> list[Record]:
    rows = reply.get("list", [] if reply["status"] == NO_DATA else None)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        found = ", ".join(map(str, reply))
        raise SchemaError(f"dart {name}: the reply has no rows under list; found {found}. The API may have changed.")
    return rows


def _count(reply: Record, name: str, *, of: list[Record]) -> int:
    if reply["status"] == NO_DATA:
        return 0
    written = str(reply.get(name, ""))
    if not written.isascii() or not written.isdigit():
        raise SchemaError(
            f"dart list.json: {name} is {written[:30]!r} beside {len(of)} rows, and a number is expected. The API may have changed."
        )
    return int(written)


def _companies(name: str, status: int, headers: Mapping[str, str], content: bytes) -> list[dict[str, str]]:
    """Read the zipped list of companies; an error comes as XML or JSON in its place."""
    if not content.startswith(b"PK"):
        if found := _XML_STATUS.search(content[:2000].decode("utf-8", "replace")):
            _judge(name, status, found[1], found[2])
        else:
            _reply(name, status, headers, content)
        raise SchemaError(f"dart {name}: a ZIP archive is expected; found {len(content)} bytes of something else.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(archive.namelist()[0]) as xml:
            root = ET.fromstring(xml.read())  # noqa: S314 - expat bounds the growth of entities, and the host is known
    except (zipfile.BadZipFile, zlib.error, EOFError, IndexError, ET.ParseError) as error:
        raise Unavailable(
            f"dart {name}: the archive of {len(content):,} bytes is damaged or cut off ({type(error).__name__})."
        ) from None
    fields = ("corp_code", "corp_name", "stock_code", "modify_date")
    companies = [{field: (one.findtext(field) or "").strip() for field in fields} for one in root.iter("list")]
    if wrong := [one for one in companies if not re.fullmatch(r"\d{8}", one["corp_code"])]:
        raise SchemaError(f"dart {name}: corp_code is {wrong[0]['corp_code'][:30]!r}, and 8 digits are expected.")
    return companies

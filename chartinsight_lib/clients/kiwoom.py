"""Kiwoom's REST API: token, pace, connection, pages. Hands on records as the server sends them.

Every request has a deadline and a bounded number of tries; nothing is cut short in silence: a history that ends before its
`since` for another reason than its own end is an error. Dates are KST. Which TR says what: docs/kiwoom.md.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import httpx

from chartinsight_lib.clients._http import Answer, JsonHttp
from chartinsight_lib.clients.kiwoom_auth import (
    BETWEEN_ISSUES_S,
    Credentials,
    MemoryTokens,
    Token,
    TokenOwner,
    TokenStore,
)
from chartinsight_lib.clients.kiwoom_replies import OVERALL, Record, TokenRefused, flat, judge, records
from chartinsight_lib.clock import Clock, system_clock
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import AuthFailed, RateLimited, SchemaError, TruncatedReply, Unavailable, UpstreamError
from chartinsight_lib.pace import LocalSlots, Pacer

_log = logging.getLogger(__name__)

REAL_URL, MOCK_URL = "https://api.kiwoom.com", "https://mockapi.kiwoom.com"
REAL_RATE, MOCK_RATE = 5.0, 1.0
"""Requests per second and API id, as the servers' own refusals say (유량=5, 유량=1)."""
CODES_PER_CALL = 100
TRIES = 10
BACK_OFF_S, BACK_OFF_MOST_S = 0.5, 15.0
RE_ASKS = 3
"""So often a page that makes no sense (empty, repeated, out of order) is asked for again before the history counts as cut off."""
MAX_PAGES = 400


class Tr(NamedTuple):
    """A TR: where it is asked, under which name its rows stand, and which of their fields says when."""

    path: str
    rows: str = ""
    time: str = ""


TRS = {
    "ka10001": Tr("/api/dostk/stkinfo"),
    "ka10059": Tr("/api/dostk/stkinfo", "stk_invsr_orgn", "dt"),
    "ka10080": Tr("/api/dostk/chart", "stk_min_pole_chart_qry", "cntr_tm"),
    "ka10081": Tr("/api/dostk/chart", "stk_dt_pole_chart_qry", "dt"),
    "ka10095": Tr("/api/dostk/stkinfo", "atn_stk_infr"),
    "ka10099": Tr("/api/dostk/stkinfo", "list"),
    "ka10100": Tr("/api/dostk/stkinfo"),
    "ka10101": Tr("/api/dostk/stkinfo", "list"),
    "ka20006": Tr("/api/dostk/chart", "inds_dt_pole_qry", "dt"),
}
# Source: the API document. ka10099 and ka10101 number the markets differently.
LISTS = {"KOSPI": "0", "KOSDAQ": "10", "KONEX": "50", "ETF": "8", "ETN": "60", "REIT": "6"}
SECTORS = {"KOSPI": "0", "KOSDAQ": "1", "KOSPI200": "2", "KOSPI100": "4", "KRX100": "7"}


def is_kiwoom(url: str) -> bool:
    """Whether an address is Kiwoom's own; everything else is a simulator, and what it says is marked as such."""
    host = urlsplit(url).hostname or ""
    return host == "kiwoom.com" or host.endswith(".kiwoom.com")


def usual_rate(url: str) -> float:
    """Return the quota of a host, requests per second and API id."""
    return MOCK_RATE if urlsplit(url).hostname == urlsplit(MOCK_URL).hostname else REAL_RATE


class KiwoomClient:
    """A connection to Kiwoom. Use it in a `with`, from any number of threads."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        base_url: str = REAL_URL,
        pacer: Pacer | None = None,
        total: Pacer | None = None,
        tokens: TokenStore | None = None,
        clock: Clock = system_clock,
        timeout_s: float = 10.0,
        deadline_s: float = 120.0,
        back_off_s: float = BACK_OFF_S,
        between_issues_s: float = BETWEEN_ISSUES_S,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        dice: random.Random | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            pacer: paces each API id; default: this process alone, at the host's usual quota.
            total: paces all requests together, for a quota over everything; default: none.
            tokens: where the token is shared; default: this process alone.
            timeout_s, deadline_s: for one answer, and for one request with all its tries and waits.
            back_off_s: the first wait after a failure; doubled each time, with jitter.
            transport, sleep, dice: seams for tests.
        """
        self._keys = credentials
        self._pacer = pacer or Pacer(LocalSlots(), usual_rate(base_url))
        self._total = total
        self._clock, self._deadline_s, self._back_off_s, self._sleep = clock, deadline_s, back_off_s, sleep
        self._window_s = min(1.0, REAL_RATE * self._pacer.interval_s)
        self._dice = dice or random.Random()  # noqa: S311 - jitter
        self._secrets = {credentials.appkey, credentials.secretkey}
        self._http = JsonHttp(base_url, timeout_s=timeout_s, transport=transport)
        store = tokens or MemoryTokens()
        self._owner = TokenOwner(
            credentials.fingerprint(base_url), self._issue, store, clock, between_issues_s=between_issues_s, sleep=sleep
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The token lives on: others may use it."""
        self._http.close()

    # What can be asked.

    def daily_candles(self, code: str, *, since: date, until: date, adjusted: bool = False) -> Iterator[Record]:
        """Yield daily bars (ka10081) from `until` back to `since`, both included, newest first.

        Adjusted prices are relative to `until`: events after it are not applied.
        """
        yield from self._history("ka10081", _daily(code, until, adjusted=adjusted), f"{since:%Y%m%d}")

    def daily_pages(self, code: str, *, since: date, until: date, adjusted: bool = False) -> Iterator[list[Record]]:
        """As `daily_candles`, page by page, the last one whole: what it holds of the days before `since` costs nothing."""
        yield from self._pages("ka10081", _daily(code, until, adjusted=adjusted), f"{since:%Y%m%d}")

    def minute_candles(self, code: str, *, since: datetime, minutes: int = 5) -> Iterator[Record]:
        """Yield raw minute bars (ka10080) from now back to `since` (tz-aware), newest first; about a year is kept."""
        body = {"stk_cd": code, "tic_scope": str(minutes), "upd_stkpc_tp": "0"}
        yield from self._history("ka10080", body, f"{since.astimezone(KST):%Y%m%d%H%M%S}")

    def index_candles(self, sector: str, *, since: date, until: date) -> Iterator[Record]:
        """Yield daily bars of an index or sector (ka20006): points times 100."""
        yield from self._history("ka20006", {"inds_cd": sector, "base_dt": f"{until:%Y%m%d}"}, f"{since:%Y%m%d}")

    def investor_flows(self, code: str, *, since: date, until: date) -> Iterator[Record]:
        """Yield each day's net buys by kind of investor, in shares (ka10059)."""
        body = {"dt": f"{until:%Y%m%d}", "stk_cd": code, "amt_qty_tp": "2", "trde_tp": "0", "unit_tp": "1"}
        yield from self._history("ka10059", body, f"{since:%Y%m%d}")

    def quotes(self, codes: Sequence[str]) -> Iterator[Record]:
        """Yield the quotes of any number of instruments (ka10095), a hundred per request; an unknown code has none."""
        for start in range(0, len(codes), CODES_PER_CALL):
            body = {"stk_cd": "|".join(codes[start : start + CODES_PER_CALL])}
            rows, *_ = self._page("ka10095", body, "", "", "", 1, "")  # one page, always; but it has to make sense
            yield from rows

    def instruments(self, board: str) -> list[Record]:
        """Return all instruments of a list (ka10099): a key of LISTS. KOSPI's holds ETFs, ETNs and REITs too."""
        return self._all("ka10099", {"mrkt_tp": LISTS[board]})

    def instrument(self, code: str) -> Record:
        """Return what the list says of one instrument (ka10100)."""
        return flat("ka10100", self._call("ka10100", {"stk_cd": code}), "code")

    def basics(self, code: str) -> Record:
        """Return an instrument's vendor fundamentals and prices (ka10001)."""
        return flat("ka10001", self._call("ka10001", {"stk_cd": code}), "stk_cd")

    def sectors(self, board: str) -> list[Record]:
        """Return the codes of indices and sectors (ka10101): a key of SECTORS."""
        return self._all("ka10101", {"mrkt_tp": SECTORS[board]})

    def check(self) -> datetime:
        """Return until when the token is good, after getting one where there is none. Raises as any request does."""
        return self._owner.token(within_s=self._deadline_s).expires_at

    def revoke(self) -> None:
        """Give the token back (au10002): every program that shares it needs another one then."""
        token = self._owner.token(within_s=self._deadline_s)
        self._call_without_token("/oauth2/revoke", "au10002", {"token": token.value}, within_s=self._deadline_s)
        self._owner.forget(token)

    # Pages.

    def _all(self, tr: str, body: Mapping[str, str]) -> list[Record]:
        return [row for rows in self._pages(tr, body, "") for row in rows]

    def _history(self, tr: str, body: Mapping[str, str], since: str) -> Iterator[Record]:
        field = TRS[tr].time
        for rows in self._pages(tr, body, since):
            yield from (row for row in rows if row[field] >= since)

    def _pages(self, tr: str, body: Mapping[str, str], since: str) -> Iterator[list[Record]]:
        """Yield pages, newest first, until `since` is reached ("": to the end)."""
        key, came_by, before = "", "", ""
        for number in range(1, MAX_PAGES + 1):
            rows, oldest, key, came_by = self._page(tr, body, key, came_by, before, number, since)
            yield rows
            if not key or (since and oldest and oldest <= since):
                return
            before = oldest
        raise TruncatedReply(
            f"kiwoom {tr} {_who(body)}: stopped after {MAX_PAGES} pages, and the server has more. Ask for a nearer `since`."
        )

    def _page(
        self, tr: str, body: Mapping[str, str], key: str, came_by: str, before: str, number: int, since: str
    ) -> tuple[list[Record], str, str, str]:
        """Return one page: its rows, the time of the oldest, the key of the next ("": there is none), and its own key.

        `came_by` is the key of the page before. A page that makes no sense is asked for again; then the page before is, whose
        key may have been the fault.
        """
        wrong = ""
        for attempt in range(RE_ASKS + 1):
            if attempt > 1 and number > 1:
                key = _following(self._call(tr, body, next_key=came_by)) or key
            answer = self._call(tr, body, next_key=key)
            rows = records(tr, answer, TRS[tr].rows)
            following = _following(answer)
            oldest = _oldest(tr, rows)
            if not rows and following:
                wrong = "has no rows, and yet more are promised"
            elif rows and before and oldest >= before:
                wrong = f"goes back to {oldest}, and the page before it went back to {before} already"
            elif following and following == key and not (since and oldest <= since):
                wrong = "names itself as the next page"
            else:
                return rows, oldest, following, key
        raise TruncatedReply(
            f"kiwoom {tr} {_who(body)}: page {number} {wrong}; so it was {RE_ASKS + 1} times. The history is cut off there, "
            "and nothing of it was taken for whole. Try again later."
        )

    # One request.

    def _call(self, tr: str, body: Mapping[str, str], *, next_key: str = "") -> Answer:
        """Send a request, as often as it takes and is allowed; return a reply that is fine."""
        until = time.monotonic() + self._deadline_s
        refused: Token | None = None
        tried = 0
        while True:
            token = self._owner.token(refused=refused, within_s=until - time.monotonic())
            self._secrets.add(token.value)
            headers = {"api-id": tr, "authorization": f"Bearer {token.value}"}
            if next_key:
                headers |= {"cont-yn": "Y", "next-key": next_key}
            if self._total:
                self._total.wait("*", until=until)
            self._pacer.wait(tr, until=until)  # last, so that its slots stay even
            tried += 1
            sent_at = time.monotonic()
            try:
                answer = self._http.post(TRS[tr].path, body, headers, within_s=until - sent_at)
                judge(tr, answer)
                return answer
            except TokenRefused as error:
                if refused is not None:  # one other token, one more try
                    raise AuthFailed(
                        self._without_secrets(f"{error} A new token was refused too."), code=error.code
                    ) from None
                refused = token
                _log.warning("kiwoom %s: the token is refused, and another is used", tr)
            except RateLimited as error:
                wait_s = answer.retry_after_s if answer.retry_after_s is not None else 1.1 * self._window_s
                if self._total and error.code in OVERALL:
                    self._total.slow_down("*", wait_s=wait_s, sent_at=sent_at)
                self._pacer.slow_down(tr, wait_s=wait_s, sent_at=sent_at)
                _log.info("kiwoom %s: the server asks for a pause; %.1f s (try %d)", tr, wait_s, tried)
                self._give_up(error, tried, until, wait_s)
            except Unavailable as error:
                wait_s = self._back_off(tried)
                self._give_up(error, tried, until, wait_s)
                _log.warning("%s Again in %.1f s (try %d).", self._without_secrets(str(error)), wait_s, tried)
                self._sleep(wait_s)
            except UpstreamError as error:
                raise type(error)(self._without_secrets(f"{error} Asked for {_who(body)}."), code=error.code) from None

    def _give_up(self, error: UpstreamError, tried: int, until: float, wait_s: float) -> None:
        if tried >= TRIES or time.monotonic() + wait_s >= until:
            raise type(error)(self._without_secrets(f"{error} Gave up after {tried} tries."), code=error.code) from None

    def _back_off(self, tried: int) -> float:
        return float(min(BACK_OFF_MOST_S, self._back_off_s * 2 ** (tried - 1)) * self._dice.uniform(0.5, 1.0))

    def _issue(self, within_s: float) -> Token:
        """Ask for a token (au10001)."""
        asked = {"grant_type": "client_credentials"}
        answer = self._call_without_token("/oauth2/token", "au10001", asked, within_s=within_s)
        value, expires = (str((answer.body or {}).get(name, "")) for name in ("token", "expires_dt"))
        try:
            expires_at = datetime.strptime(expires, "%Y%m%d%H%M%S").replace(tzinfo=KST)
        except ValueError:
            expires_at = None
        if not _sendable(value) or expires_at is None:
            raise SchemaError(
                f"kiwoom au10001: a token and its end (expires_dt) are expected; the reply has {', '.join(answer.body or {})}, "
                f"and expires_dt is {expires[:20]!r}."
            )
        return Token(value, expires_at, issued_at=self._clock())

    def _call_without_token(self, path: str, name: str, body: Mapping[str, str], *, within_s: float) -> Answer:
        until = time.monotonic() + within_s
        full = {**body, "appkey": self._keys.appkey, "secretkey": self._keys.secretkey}
        tried = 0
        while True:
            tried += 1
            try:
                answer = self._http.post(path, full, {"api-id": name}, within_s=until - time.monotonic())
                judge(name, answer)
                return answer
            except (Unavailable, RateLimited) as error:
                wait_s = self._back_off(tried)
                self._give_up(error, tried, until, wait_s)
                self._sleep(wait_s)
            except UpstreamError as error:
                kind = AuthFailed if isinstance(error, TokenRefused) else type(error)
                raise kind(self._without_secrets(str(error)), code=error.code) from None

    def _without_secrets(self, message: str) -> str:
        """Return a message without keys and tokens, should the server repeat one."""
        for secret in self._secrets:
            message = message.replace(secret, "***") if secret else message
        return message


def _following(answer: Answer) -> str:
    """Return the key of the next page, "" where there is none."""
    more = answer.headers.get("cont-yn", "").strip().upper() == "Y"
    key = answer.headers.get("next-key", "").strip() if more else ""
    if key and not _sendable(key):
        raise SchemaError(f"kiwoom: next-key is {key[:50]!r}, and plain ASCII is expected. The API may have changed.")
    return key


def _sendable(word: str) -> bool:
    """Whether a header can carry a word."""
    return bool(word) and word.isascii() and word.isprintable()


def _daily(code: str, until: date, *, adjusted: bool) -> dict[str, str]:
    return {"stk_cd": code, "base_dt": f"{until:%Y%m%d}", "upd_stkpc_tp": "1" if adjusted else "0"}


def _who(body: Mapping[str, str]) -> str:
    return body.get("stk_cd") or body.get("inds_cd") or " ".join(body.values())


def _oldest(tr: str, rows: Sequence[Record]) -> str:
    """Return the least time of a page's rows; one of zeros is none, and `normalise` rejects its row. Raises SchemaError for a
    row without a time."""
    field = TRS[tr].time
    if not field or not rows:
        return ""
    times = [written for row in rows if (written := row.get(field, "")).strip("0") or not written]
    for written in times:
        if not (written.isascii() and written.isdigit() and len(written) in {8, 14}):
            raise SchemaError(f"kiwoom {tr}: a row's {field} is {written[:30]!r}, and a date is expected.")
    return min(times, default="")

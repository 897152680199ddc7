"""yfinance's session, watched: every answer of Yahoo's chart API is looked at where it arrives, and a fault gets its name.

yfinance turns most faults into an empty table or a missing ticker; it is made to speak, and what it says is judged by the
answer itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from chartinsight_lib.errors import (
    AuthFailed,
    ChartInsightError,
    RateLimited,
    RequestRefused,
    SchemaError,
    TruncatedReply,
    Unavailable,
    UnknownCode,
)
from chartinsight_lib.pace import Pacer

CHART = "/v8/finance/chart/"
KEY = "yahoo chart"
TIMEOUT_S, PATIENCE_S = 30.0, 60.0
HEAD = ("currency", "instrumentType", "exchangeTimezoneName")
QUOTES = ("open", "high", "low", "close", "volume")
_one_at_a_time = threading.Lock()  # yfinance keeps one session and one configuration for the process


@dataclass(frozen=True, slots=True)
class Reply:
    """What the chart API answered last."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One ticker's history: yfinance's table; `meta`, what Yahoo says of it; the dates that have a price and no volume."""

    table: pd.DataFrame
    meta: dict[str, Any]
    without_volume: list[date]


class YahooWire:
    """Asks yfinance for histories, one at a time, in step with the quota that is kept."""

    def __init__(self, pacer: Pacer, *, cache: Path | None = None, session: Any = None) -> None:
        """Open nothing yet; `cache` and `session` as in `YahooSource`."""
        self._pacer, self._cache, self._session = pacer, cache, session
        self._watched = False
        self._last: Reply | None = None

    def history(self, ticker: str, **window: Any) -> Answer:
        """Return the daily history of a ticker in `window` (yfinance's `start` or `period`). Raises what it met, by name."""
        import yfinance  # type: ignore[import-untyped]

        with _one_at_a_time, _outspoken():
            session = self._watch()
            self._last = None
            try:
                table = yfinance.Ticker(ticker, session=session).history(
                    **window, interval="1d", auto_adjust=False, actions=True, keepna=True, timeout=TIMEOUT_S
                )
            except ChartInsightError:
                raise
            except Exception as error:  # of several libraries, and new ones with each version
                raise _fault(ticker, self._last, error) from error
            meta, without_volume = _checked(ticker, self._last)
        return Answer(table, meta, without_volume)

    def _watch(self) -> Any:
        """Return the session, watched. It is yfinance's own kind: Yahoo serves only what looks like a browser."""
        if self._watched:
            return self._session
        import yfinance
        from yfinance._http import new_session  # type: ignore[import-untyped]

        if self._cache is not None:
            self._cache.mkdir(parents=True, exist_ok=True)
            yfinance.set_tz_cache_location(str(self._cache))
        if self._session is None:
            self._session = new_session()
        send = self._session.request

        def request(*args: Any, **options: Any) -> Any:
            url = str(options.get("url") or args[1])
            if CHART not in url:
                return send(*args, **options)
            self._pacer.wait(KEY, until=time.monotonic() + PATIENCE_S)
            self._last = None
            reply = send(*args, **options)
            self._last = Reply(int(reply.status_code), str(reply.text))
            return reply

        self._session.request = request
        self._watched = True
        return self._session


@contextmanager
def _outspoken() -> Iterator[None]:
    """Make yfinance raise what it meets, and ask anew for what it has asked before."""
    from yfinance.config import YfConfig  # type: ignore[import-untyped]
    from yfinance.data import YfData  # type: ignore[import-untyped]

    YfData.cache_get.cache_clear()  # it remembers refusals as well
    before = YfConfig.debug.hide_exceptions
    YfConfig.debug.hide_exceptions = False
    try:
        yield
    finally:
        YfConfig.debug.hide_exceptions = before


def _fault(ticker: str, reply: Reply | None, error: Exception) -> ChartInsightError:
    """Return the named error for what yfinance raised, judged by the last answer of the chart API."""
    said = f"{type(error).__name__}: {str(error)[:200]}"
    if type(error).__name__ == "YFRateLimitError" or (reply and "Too Many Requests" in reply.text[:200]):
        reply = Reply(429, "")
    if reply is None:
        return Unavailable(f"yahoo {ticker}: no answer came ({said}). Check the network, and try again later.")
    if refusal := _refusal(ticker, reply.status):
        return refusal
    try:
        _checked(ticker, reply)
    except ChartInsightError as fault:
        return fault
    return SchemaError(
        f"yahoo {ticker}: yfinance does not understand an answer that is whole ({said}). Install the version that the project's "
        "lock names."
    )


def _refusal(ticker: str, status: int) -> ChartInsightError | None:
    """Return the named error for a status that says enough by itself."""
    code = str(status)
    if status == 429:
        return RateLimited(
            f"yahoo {ticker}: Yahoo says that too many requests came from here. Wait an hour, then collect again; what came "
            "before is stored.",
            code=code,
        )
    if status in {401, 403}:
        return AuthFailed(
            f"yahoo {ticker}: Yahoo does not serve this machine (HTTP {status}). Try from another network, or with a newer "
            "yfinance.",
            code=code,
        )
    if status >= 500:
        return Unavailable(f"yahoo {ticker}: Yahoo is out of order (HTTP {status}). Try again later.", code=code)
    return None


def _chart(ticker: str, reply: Reply) -> dict[str, Any]:
    """Return the answer's one object. Raises TruncatedReply, Unavailable (a page) or SchemaError."""
    body = reply.text.strip()
    try:
        chart = json.loads(body).get("chart")
    except (ValueError, AttributeError):
        if body.startswith("{"):
            raise TruncatedReply(
                f"yahoo {ticker}: the answer ends after {len(body)} characters, in the midst of its data. Try again."
            ) from None
        raise Unavailable(
            f"yahoo {ticker}: a page came instead of data, beginning with {body[:40]!r}. Yahoo is being maintained, or asks for "
            "consent; try again later.",
            code=str(reply.status),
        ) from None
    if not isinstance(chart, dict):
        raise SchemaError(f"yahoo {ticker}: the answer holds neither data nor an error, beginning with {body[:60]!r}.")
    return chart


def _told(ticker: str, told: Any, status: int) -> ChartInsightError:
    """Return the named error for one that Yahoo explains itself."""
    code, words = str(told.get("code", "")), str(told.get("description", ""))[:200]
    if status == 404 or code == "Not Found":
        return UnknownCode(
            f"yahoo {ticker}: Yahoo knows no such ticker, or it was delisted ({words}). Check how Yahoo writes it; what is held of "
            "it is kept.",
            code=code,
        )
    if "doesn't exist for" in words:
        return TruncatedReply(
            f"yahoo {ticker}: no bar came, not even of days that have some ({words}). Try again later.", code=code
        )
    return RequestRefused(f"yahoo {ticker}: Yahoo refuses the question ({code}: {words}).", code=code)


def _checked(ticker: str, reply: Reply | None) -> tuple[dict[str, Any], list[date]]:
    """Return the head of a whole answer, and its dates with a price and no volume.

    Raises:
        UnknownCode: Yahoo knows the ticker, and no bar of it.
        SchemaError: a field is missing, or the columns are not of one length.
    """
    if reply is None:
        raise Unavailable(f"yahoo {ticker}: yfinance asked for nothing. Try again.")
    chart = _chart(ticker, reply)
    if told := chart.get("error"):
        raise _told(ticker, told, reply.status)
    try:
        result = chart["result"][0]
        meta = result["meta"]
        quote = result["indicators"]["quote"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise SchemaError(f"yahoo {ticker}: the answer has another shape than it used to ({error!r}).") from error
    if absent := [name for name in HEAD if not meta.get(name)]:
        raise SchemaError(f"yahoo {ticker}: the answer's head lacks {absent}; found {sorted(meta)}.")
    stamps = result.get("timestamp")
    if not stamps and not quote:
        raise UnknownCode(f"yahoo {ticker}: Yahoo knows the ticker, and no daily bar of it. Check how Yahoo writes it.")
    if absent := [name for name in QUOTES if name not in quote]:
        raise SchemaError(f"yahoo {ticker}: the answer's quotes lack {absent}; found {sorted(quote)}.")
    if odd := [name for name in QUOTES if len(quote[name]) != len(stamps or [])]:
        raise SchemaError(f"yahoo {ticker}: {odd} have not as many values as there are days ({len(stamps or [])}).")
    zone = ZoneInfo(meta["exchangeTimezoneName"])
    without = [
        pd.Timestamp(stamp, unit="s", tz=zone).date()
        for stamp, close, volume in zip(stamps, quote["close"], quote["volume"], strict=True)
        if close is not None and volume is None
    ]
    return meta, without

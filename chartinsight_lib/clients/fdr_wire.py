"""FinanceDataReader, with our own hands on the wire: every request it makes is sent by us, with a time-out and in step, and its
answer is looked at before the library reads it.

By itself the library waits for ever, looks at no status, prints, and turns a refusal into an empty table or swallows it: from
what it returns nobody could tell a used-up quota from an unknown code.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import httpx
import pandas as pd

from chartinsight_lib.errors import (
    AuthFailed,
    ChartInsightError,
    RateLimited,
    SchemaError,
    TruncatedReply,
    Unavailable,
    UnknownCode,
)
from chartinsight_lib.pace import Pacer

TIMEOUT_S, PATIENCE_S = 30.0, 60.0
_one_at_a_time = threading.Lock()  # the library's modules are lent our hands for the time of a call


class FdrWire:
    """Asks FinanceDataReader for tables, one at a time. Every fault has a name."""

    def __init__(self, pacer: Pacer, *, transport: httpx.BaseTransport | None = None) -> None:
        """Open nothing yet; tests pass a transport."""
        self._pacer = pacer
        self._http = httpx.Client(
            timeout=TIMEOUT_S, follow_redirects=True, transport=transport, headers={"User-Agent": "Mozilla/5.0"}
        )
        self._fault: ChartInsightError | None = None
        self._about = ""

    def listing(self, kind: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """Return a list of KRX (`KRX`, `KRX-DESC`, `KRX-DELISTING`), which has at least `columns` and a row."""
        import FinanceDataReader as fdr  # type: ignore[import-untyped]  # noqa: N813

        table = self._read(f"krx {kind}", lambda: fdr.StockListing(kind))
        return self._whole(table, columns)

    def history(self, code: str, since: date | None) -> pd.DataFrame:
        """Return Naver's daily bars of a code from `since` on: Open, High, Low, Close, Volume; index Date, ascending, unique."""
        import FinanceDataReader as fdr  # noqa: N813

        # NAVER is named: a code that does not look Korean to it the library would look for at Yahoo.
        table = self._read(f"krx {code}", lambda: fdr.DataReader(f"NAVER:{code}", since))
        table = self._whole(table, ("Open", "High", "Low", "Close", "Volume"))
        days = table.index
        if not (isinstance(days, pd.DatetimeIndex) and days.is_unique and days.is_monotonic_increasing):
            raise SchemaError(f"krx {code}: Naver's {len(table)} days are no dates, or one occurs twice.")
        return table

    def _read(self, about: str, call: Callable[[], Any]) -> Any:
        with _one_at_a_time, _lent(self), contextlib.redirect_stdout(io.StringIO()):
            self._fault, self._about = None, about
            try:
                table = call()
            except Exception as error:  # whatever the library makes of an answer that it does not understand
                raise (self._fault or self._drift(repr(error)[:200])) from error
            if self._fault is not None:  # it was swallowed
                raise self._fault
        return table

    def _whole(self, table: Any, columns: tuple[str, ...]) -> pd.DataFrame:
        if not isinstance(table, pd.DataFrame) or table.empty:
            raise self._drift("an empty table came of an answer that is whole")
        if absent := [name for name in columns if name not in table.columns]:
            raise self._drift(f"the columns {absent} are missing; found {list(map(str, table.columns))}")
        return table

    def _drift(self, seen: str) -> SchemaError:
        return SchemaError(
            f"{self._about}: the service answers in another shape than it used to ({seen}). Install the version of "
            "FinanceDataReader that the project's lock names; if it is, the service has changed."
        )

    def get(self, url: str, **_: Any) -> Any:
        """Stand for `requests.get`: send, look at the answer, hand it on. The library's own options are not taken over."""
        try:
            return self._looked_at(url)
        except ChartInsightError as fault:
            self._fault = self._fault or fault
            raise

    def read_csv(self, source: Any, *args: Any, **options: Any) -> Any:
        """Stand for `pandas.read_csv`, which would fetch an address by itself."""
        if isinstance(source, str) and source.startswith("http"):
            source = io.StringIO(self.get(source).text)
        return pd.read_csv(source, *args, **options)

    def _looked_at(self, url: str) -> httpx.Response:
        host, about = urlsplit(url).netloc, self._about
        self._pacer.wait(host, until=time.monotonic() + PATIENCE_S)
        try:
            reply = self._http.get(url)
        except httpx.RemoteProtocolError as error:
            raise TruncatedReply(f"{about}: {host} broke off in the midst of its answer. Try again.") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{about}: {host} does not answer ({type(error).__name__}). Try again later.") from error
        code, text = str(reply.status_code), reply.text.strip()
        if reply.status_code == 429:
            raise RateLimited(f"{about}: {host} says that too many requests came from here. Wait an hour.", code=code)
        if reply.status_code in {401, 403} or text == "LOGOUT":
            raise AuthFailed(
                f"{about}: {host} does not serve this machine, or not without a login (HTTP {code}). Use another source.",
                code=code,
            )
        if reply.status_code == 404:
            raise Unavailable(f"{about}: {host} has no such file, perhaps not yet today. Try again later.", code=code)
        if reply.status_code >= 400:
            raise Unavailable(f"{about}: {host} is out of order (HTTP {code}). Try again later.", code=code)
        if re.match(r"<(!doctype )?html", text, re.IGNORECASE):
            raise Unavailable(
                f"{about}: {host} sent a page instead of data. It is being maintained; try again later.", code=code
            )
        if host.startswith("fchart."):
            _check_chart(about, text)
        return reply


def _check_chart(about: str, text: str) -> None:
    """Look whether an answer of Naver's chart is whole, and about something."""
    if "<protocol" not in text:
        raise SchemaError(f"{about}: Naver's answer is no chart, beginning with {text[:60]!r}.")
    if not re.search(r"</protocol>\s*$|<protocol\s*/>", text):
        raise TruncatedReply(
            f"{about}: Naver's answer ends after {len(text)} characters, in the midst of its bars. Try again."
        )
    if "<item" not in text:
        raise UnknownCode(
            f"{about}: Naver knows no bar of this code. It is new, delisted, or misspelt; what is held is kept."
        )


class _Lent:
    """A module as the library sees it, with one function that is ours."""

    def __init__(self, module: Any, ours: Mapping[str, Callable[..., Any]]) -> None:
        self._module, self._ours = module, ours

    def __getattr__(self, name: str) -> Any:
        return self._ours.get(name) or getattr(self._module, name)


@contextmanager
def _lent(wire: FdrWire) -> Iterator[None]:
    """Lend the library's modules our hands, and take them back."""
    import FinanceDataReader.krx.listing as lists  # type: ignore[import-untyped]
    import FinanceDataReader.naver.data as charts  # type: ignore[import-untyped]

    places: list[tuple[Any, str, Any]] = [
        (charts, "requests", _Lent(charts.requests, {"get": wire.get})),
        (lists, "requests", _Lent(lists.requests, {"get": wire.get})),
        (lists, "pd", _Lent(pd, {"read_csv": wire.read_csv})),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    try:
        for module, name, ours in places:
            setattr(module, name, ours)
        yield
    finally:
        for module, name, theirs in before:
            setattr(module, name, theirs)

"""Yahoo Finance through the package yfinance (extra `public`): daily bars as traded, with splits and dividends.

No account is needed and nothing is promised: the service is unofficial and changes. Whatever it answers is a bar or an error
with a name, never an empty table (`yahoo_wire`); and its prices are turned back into those that were traded (`normalise_yahoo`).

`raw` is False all the same: whether they are as traded depends on Yahoo's list of splits, which it is known to keep out of step
with its prices for days. So a past that comes differently is taken for a restatement, and not for a correction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from chartinsight_lib.clients.base import NOTHING_HELD, Batch
from chartinsight_lib.clients.turns import OVERLAP, Fetched, in_turn, unfinished_from
from chartinsight_lib.clients.yahoo_wire import Answer, YahooWire
from chartinsight_lib.clock import Clock
from chartinsight_lib.domain import INSTRUMENT, MARKETS
from chartinsight_lib.errors import ConfigError, SchemaError, UnknownCode
from chartinsight_lib.normalise_yahoo import COLUMNS, as_traded, events
from chartinsight_lib.pace import LocalSlots, Pacer

US_TICKER, KRX_TICKER = re.compile(r"[A-Z]{1,5}(-[A-Z]{1,2})?"), re.compile(r"(\d[0-9A-Z]{5})\.K[SQ]")
RATE = 2.0
"""Requests per second. Yahoo publishes no quota; this is slower than a person's browser loads a page of charts."""
KINDS = {"EQUITY": "stock", "ETF": "etf", "MUTUALFUND": "fund"}


class YahooSource:
    """Tickers of one market from Yahoo. Opening it asks for nothing."""

    name = "yahoo"
    raw = False
    lists_whole_market = False

    def __init__(
        self,
        tickers: Sequence[str],
        *,
        codes: Sequence[str] = (),
        clock: Clock,
        cache: Path | None = None,
        session: Any = None,
        pacer: Pacer | None = None,
    ) -> None:
        """Ask for nothing yet.

        Args:
            tickers: as Yahoo writes them, of one market: AAPL, BRK-B; or 005930.KS (KOSPI), 035720.KQ (KOSDAQ).
            codes: of these tickers those with one of our codes (AAPL, 005930) alone; empty: all.
            cache: where yfinance may keep cookies and time zones; None: its own place.
            session: of curl_cffi or requests, for tests; None: what yfinance would use.
        Raises:
            ConfigError: a ticker is none of these, two are of different markets, a code is of none, or the package is absent.
        """
        if find_spec("yfinance") is None:
            raise ConfigError(
                "source 'yahoo': the package yfinance is not installed. "
                "Install the extra: pip install 'chartinsight-studio[public]'."
            )
        self.market, self._tickers = _read_tickers(tickers)
        if strange := sorted(set(codes) - self._tickers.keys()):
            raise ConfigError(f"source 'yahoo': it names no ticker of {strange[0]}, but of {', '.join(self._tickers)}.")
        self._tickers = {code: ticker for code, ticker in self._tickers.items() if not codes or code in codes}
        self._clock = clock
        self._wire = YahooWire(pacer or Pacer(LocalSlots(), RATE), cache=cache, session=session)

    def instruments(self) -> pd.DataFrame:
        """Return the tickers that Yahoo knows, a request each: the columns `domain.INSTRUMENT`. One that it does not know is
        left out, and named when its bars are asked for. Other errors as `daily`, and of any ticker."""
        rows = []
        for code, ticker in sorted(self._tickers.items()):
            try:
                meta = self._ask(ticker, period="5d").meta
            except UnknownCode:
                continue
            name = meta.get("longName") or meta.get("shortName") or code
            rows.append((code, str(name), KINDS.get(str(meta["instrumentType"]), "other")))
        frame = pd.DataFrame(rows, columns=["code", "name", "kind"]).astype("str")
        frame = frame.assign(market=self.market, sector=None, listed_on=None, delisted_on=None)
        return frame.assign(currency=MARKETS[self.market].currency)[INSTRUMENT]

    def provisional_from(self, today: date) -> date | None:
        """Return the first date up to `today` that may still change: until an hour after its end a day is unfinished."""
        return unfinished_from(self.market, today, self._clock())

    def daily(self, held: Mapping[str, date] = NOTHING_HELD) -> Iterator[Batch]:
        """Yield a batch per ticker, named by its code, from `held` with an overlap, or the whole history, with its events.

        What cannot be had of one ticker is its batch's error: UnknownCode, TruncatedReply, SchemaError (another shape).

        Raises:
            RateLimited: Yahoo's quota is used up.
            AuthFailed: Yahoo does not serve this machine.
            Unavailable: several tickers in a row could not be had.
        """

        def fetch(code: str) -> Fetched:
            ticker, asked_at, market = self._tickers[code], self._clock(), MARKETS[self.market]
            today = asked_at.astimezone(market.zone).date()
            since = held[code] - OVERLAP if code in held else None
            # No end is given: Yahoo's prices are relative to the real present, whatever our clock says.
            table = self._ask(ticker, **({"start": since} if since else {"period": "max"})).table
            records = as_traded(ticker, table, unit=market.unit, today=today)
            return Fetched(records.assign(code=code), asked_at, events(ticker, code, table, today=today), since)

        return in_turn(self._tickers, fetch)

    def _ask(self, ticker: str, **window: Any) -> Answer:
        """Return an answer about one ticker whose table is as promised: COLUMNS, index the dates, ascending and unique."""
        answer, market = self._wire.history(ticker, **window), MARKETS[self.market]
        if (currency := answer.meta["currency"]) != market.currency:
            raise SchemaError(f"yahoo {ticker}: its prices are in {currency}, and in {market.currency} they should be.")
        table = answer.table.copy()
        if absent := [name for name in COLUMNS if name not in table.columns]:
            raise SchemaError(
                f"yahoo {ticker}: yfinance gave the columns {list(table.columns)}; {absent} are missing. Install the version that "
                "the project's lock names."
            )
        days = pd.DatetimeIndex(table.index)
        if str(days.tz) != str(market.zone):
            raise SchemaError(f"yahoo {ticker}: its days are of {days.tz}, and of {market.zone} they should be.")
        table.index = days = days.tz_localize(None).normalize()
        if table.empty or not (days.is_unique and days.is_monotonic_increasing):
            raise SchemaError(f"yahoo {ticker}: its {len(table)} days are not ascending, or one occurs twice.")
        # A volume that is missing comes as 0, and is not.
        table["Volume"] = table["Volume"].astype("float64").mask(days.isin(pd.to_datetime(answer.without_volume)))
        return Answer(table, answer.meta, answer.without_volume)


def _read_tickers(tickers: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the market and {our code: Yahoo's ticker}. Raises ConfigError."""
    found: dict[str, str] = {}
    markets = set()
    for ticker in tickers:
        korean = KRX_TICKER.fullmatch(ticker)
        if not korean and not US_TICKER.fullmatch(ticker):
            raise ConfigError(
                f"source 'yahoo': {ticker!r} is no ticker of the US or of Korea. Write AAPL or BRK-B, or 005930.KS for KOSPI and "
                "035720.KQ for KOSDAQ."
            )
        code = korean[1] if korean else ticker
        if found.setdefault(code, ticker) != ticker:
            raise ConfigError(f"source 'yahoo': {found[code]} and {ticker} are one code on two boards. Name one.")
        markets.add("KRX" if korean else "US")
    if len(markets) != 1:
        raise ConfigError(
            "source 'yahoo': name tickers of one market, as in yahoo:AAPL,MSFT or yahoo:005930.KS,035720.KQ"
            + (", and of the other in a source of its own." if markets else ".")
        )
    return markets.pop(), found

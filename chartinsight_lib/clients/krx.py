"""Korean stocks without an account, through the package FinanceDataReader (extra `public`): KRX's list, Naver's daily bars.

Naver's prices are adjusted for splits, bonus and rights issues as of the day they are asked for, not for dividends; halted days
come as zeros; volumes are adjusted for some events only. It serves the last 6,000 trading days. The list is that of stocks on
KOSPI, KOSDAQ and KONEX, without ETFs, published on a trading day for that day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.util import find_spec

import httpx
import pandas as pd

from chartinsight_lib import normalise_krx
from chartinsight_lib.clients.base import NOTHING_HELD, Batch
from chartinsight_lib.clients.fdr_wire import FdrWire
from chartinsight_lib.clients.layouts import KRX_CODE
from chartinsight_lib.clients.turns import OVERLAP, Fetched, in_turn, unfinished_from
from chartinsight_lib.clock import Clock
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.pace import LocalSlots, Pacer

RATE = 4.0
"""Requests per second to each host. Naver publishes no quota; 2,700 stocks take eleven minutes."""
TOGETHER = 25
"""So many instruments are stored in one transaction."""
LIST, DESCRIPTIONS, DELISTED = normalise_krx.LIST, normalise_krx.DESCRIPTIONS, normalise_krx.DELISTED


class KrxSource:
    """KRX's stocks with Naver's bars. Opening it asks for nothing."""

    name = "krx"
    market = "KRX"
    raw = False

    def __init__(
        self,
        codes: Sequence[str] = (),
        *,
        clock: Clock,
        transport: httpx.BaseTransport | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        """Ask for nothing yet.

        Args:
            codes: these stocks alone; empty: all that are listed.
            transport: for tests.
        Raises:
            ConfigError: a code is none of KRX, or the package is absent.
        """
        if find_spec("FinanceDataReader") is None:
            raise ConfigError(
                "source 'krx': the package finance-datareader is not installed. "
                "Install the extra: pip install 'chartinsight-studio[public]'."
            )
        if odd := [code for code in codes if not KRX_CODE.fullmatch(code)]:
            raise ConfigError(
                f"source 'krx': {odd[0]!r} is no code of KRX. Write six characters, as in krx:005930,0007C0."
            )
        self._codes, self._clock = list(dict.fromkeys(codes)), clock
        self._wire = FdrWire(pacer or Pacer(LocalSlots(), RATE), transport=transport)
        self._listed: pd.DataFrame | None = None

    @property
    def lists_whole_market(self) -> bool:
        """Whether all stocks are asked for."""
        return not self._codes

    def instruments(self) -> pd.DataFrame:
        """Return what is listed (six requests): the columns `domain.INSTRUMENT`, and board, section, shares and states of
        `domain.ATTRIBUTES`. Of the codes asked for, those that are not listed are left out. Errors as `daily`."""
        return self._list().copy()

    def delistings(self) -> pd.DataFrame:
        """Return the stocks that were delisted since 1960, newest last: code, name, board, listed_on, delisted_on, reason."""
        return normalise_krx.delistings(self._wire.listing("KRX-DELISTING", DELISTED))

    def provisional_from(self, today: date) -> date | None:
        """Return the first date up to `today` that may still change: until an hour after its end a day is unfinished."""
        return unfinished_from(self.market, today, self._clock())

    def daily(self, held: Mapping[str, date] = NOTHING_HELD) -> Iterator[Batch]:
        """Yield daily bars, 25 instruments a batch, from `held` with an overlap, or the whole history.

        What cannot be had of one instrument is its batch's error: UnknownCode, TruncatedReply, SchemaError (another shape).

        Raises:
            RateLimited, AuthFailed: KRX or Naver serves this machine no more.
            Unavailable: the list cannot be had, or several instruments in a row could not be.
            SchemaError, TruncatedReply: of the list.
        """
        zone = MARKETS[self.market].zone

        def fetch(code: str) -> Fetched:
            asked_at = self._clock()
            since = held[code] - OVERLAP if code in held else None
            bars = self._wire.history(code, since)
            bars = bars[bars.index.date <= asked_at.astimezone(zone).date()]  # type: ignore[attr-defined]
            records = bars.rename(columns=str.lower)[["open", "high", "low", "close", "volume"]]
            records = records.rename_axis("date").reset_index().assign(code=code)
            return Fetched(records, asked_at, since=since)

        return in_turn(self._codes or self._list()["code"].tolist(), fetch, together=TOGETHER)

    def _list(self) -> pd.DataFrame:
        if self._listed is None:
            told, more = self._wire.listing("KRX", LIST), self._wire.listing("KRX-DESC", DESCRIPTIONS)
            listed = normalise_krx.instruments(told, more)
            self._listed = listed[listed["code"].isin(self._codes)] if self._codes else listed
            self._listed = self._listed.reset_index(drop=True)
        return self._listed

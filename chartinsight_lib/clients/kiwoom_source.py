"""Kiwoom as a source: the whole market's daily bars from where the last collection ended, quotes, and five-minute bars.

Raw prices are what is handed on; the adjusted ones come along in pairs, for the factors. Several requests are under way at a
time, so that the quota and not the distance to the server decides the speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import count, islice

import numpy as np
import pandas as pd

from chartinsight_lib import normalise_kiwoom
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clients.kiwoom import CODES_PER_CALL, KiwoomClient
from chartinsight_lib.clients.kiwoom_replies import Record
from chartinsight_lib.clock import Clock
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import (
    AuthFailed,
    ChartInsightError,
    ConfigError,
    DatabaseError,
    TruncatedReply,
    Unavailable,
    reason,
)

BOARDS = ("KOSPI", "KOSDAQ")
KINDS = frozenset({"stock", "etf", "reit", "fund"})
"""What bars are collected of; debt notes (ETN) are listed, and left out."""
OVERLAP = timedelta(days=10)
"""Daily bars are read again so far back: a corporate action shows between a bar that is held and the one after it."""
INTRADAY_OVERLAP = timedelta(minutes=15)
INTRADAY_DAYS = 30
"""How far back five-minute bars are asked for the first time; Kiwoom keeps a year."""
SETTLED = timedelta(days=7)
"""An instrument listed this long has bars; that it should have none is not believed."""
MINUTES = 5
UNAVAILABLE_MOST = 20
"""So many instruments in a row that cannot be had, each after all its tries, are a server that does not work."""
TOGETHER = 25
"""So many instruments are stored in one transaction; what a crash loses has to be fetched again."""
BAR_FIELDS = ("open", "high", "low", "close", "volume")


class KiwoomSource:
    """Kiwoom's market through a client. Opening it asks for nothing."""

    def __init__(
        self,
        client: KiwoomClient,
        *,
        name: str,
        market: str,
        clock: Clock,
        years: int = 10,
        codes: Sequence[str] = (),
        workers: int = 4,
    ) -> None:
        """Ask for nothing yet.

        Args:
            name, market: what is stored with every bar.
            years: how far back daily bars are asked for the first time.
            codes: collect these alone; empty: every instrument listed, of the kinds KINDS.
            workers: requests under way at a time.
        """
        self._client, self._name, self._market, self._clock = client, name, market, clock
        self._years, self._codes, self._workers = years, list(codes), workers
        self._listed: list[Record] | None = None

    @property
    def name(self) -> str:
        """What is stored with every bar."""
        return self._name

    @property
    def market(self) -> str:
        """Code of the market."""
        return self._market

    @property
    def raw(self) -> bool:
        """Return True: prices are asked for as they were traded."""
        return True

    @property
    def lists_whole_market(self) -> bool:
        """Return True: the list of a board is one page with all there is on it."""
        return True

    @property
    def since(self) -> date:
        """Return from when on daily bars are asked for the first time."""
        return self._today() - timedelta(days=round(365.25 * self._years))

    def instruments(self) -> pd.DataFrame:
        """Return what is listed now (two requests): the columns INSTRUMENT and ATTRIBUTES of `domain`. Errors as the client's."""
        self._listed = None  # a list of yesterday is no evidence of today
        return normalise_kiwoom.instruments(self._list(), self._market)

    def provisional_from(self, today: date) -> date | None:
        """Return today: its row grows until after 20:00, and only the next day's is proof that it has ended."""
        return today

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        """Yield the daily bars of each instrument, in no order, from `held` with an overlap, or of some years.

        Raises:
            UpstreamError: the list of instruments cannot be had, the keys are not taken, or one instrument after the other is
                unavailable. What cannot be had of one instrument is its batch's error.
        """
        states = {row.get("code", "").strip(): row for row in self._list()}
        start = self.since
        wanted = self._wanted()

        def fetch(code: str) -> _Fetched:
            since = held[code] - OVERLAP if code in held else start
            return self._daily(code, since, states.get(code, {}))

        yield from _together(self._each(wanted, fetch), TOGETHER)

    def quotes(self) -> Iterator[Batch]:
        """Yield the running daily bars, a hundred instruments a portion; errors as the client's."""
        wanted = self._wanted()
        parts = {
            f"quotes {wanted[at]}…": wanted[at : at + CODES_PER_CALL] for at in range(0, len(wanted), CODES_PER_CALL)
        }

        def fetch(name: str) -> _Fetched:
            asked_at = self._clock()
            rows = list(self._client.quotes(parts[name]))
            return _Fetched(normalise_kiwoom.quotes(rows, now=asked_at), asked_at)

        for name, found in self._each(parts, fetch):
            yield _batch(name, [(name, found)])

    def intraday(self, codes: Sequence[str], held: Mapping[str, datetime]) -> Iterator[Batch]:
        """Yield five-minute bars of each code, from `held` with an overlap, or of a month."""

        def fetch(code: str) -> _Fetched:
            asked_at = self._clock()
            since = held[code] - INTRADAY_OVERLAP if code in held else asked_at - timedelta(days=INTRADAY_DAYS)
            rows = list(self._client.minute_candles(code, since=since, minutes=MINUTES))
            return _Fetched(normalise_kiwoom.minutes(rows, code), asked_at)

        for code, found in self._each(codes, fetch):
            yield _batch(f"{code} {MINUTES}m", [(code, found)])

    def _daily(self, code: str, since: date, state: Record) -> _Fetched:
        asked_at = self._clock()
        today = asked_at.astimezone(KST).date()
        raw, adjusted = (
            [row for page in self._client.daily_pages(code, since=since, until=today, adjusted=kind) for row in page]
            for kind in (False, True)
        )
        if not raw:
            listed = normalise_kiwoom.instruments([state], self._market)["listed_on"].iloc[0] if state else None
            if listed is not None and listed < today - SETTLED:
                raise TruncatedReply(
                    f"kiwoom ka10081 {code}: no daily bar came, although it has been listed since {listed}. Try again later."
                )
            return _Fetched(normalise_kiwoom.daily([], code, now=asked_at), asked_at)
        whole = normalise_kiwoom.daily(raw, code, now=asked_at, halted=normalise_kiwoom.halted_now(state))
        # A row without a date is no day before `since`: it goes on, to be rejected and kept.
        wanted = np.array([row["dt"] >= f"{since:%Y%m%d}" or not row["dt"].strip("0") for row in raw])
        pairs = _pairs(code, raw, adjusted, whole, today)
        return _Fetched(whole[wanted].reset_index(drop=True), asked_at, pairs)

    def _each(self, keys: Iterable[str], fetch: Callable[[str], _Fetched]) -> Iterator[tuple[str, _Fetched | str]]:
        """Yield what was fetched of each key, or why it could not be, in the order of the keys; several are fetched at a
        time, and no more lies ready than the workers can hold."""
        in_a_row = count(1)

        def attempt(key: str) -> tuple[str, _Fetched | str]:
            nonlocal in_a_row
            try:
                found = fetch(key)
            except (AuthFailed, ConfigError, DatabaseError):
                raise  # of no instrument: the next one would meet it too
            except Unavailable as error:
                if next(in_a_row) >= UNAVAILABLE_MOST:
                    raise
                return key, reason(error)
            except ChartInsightError as error:
                return key, reason(error)
            in_a_row = count(1)
            return key, found

        waiting: deque[Future[tuple[str, _Fetched | str]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="kiwoom")
        try:
            for key in keys:
                waiting.append(pool.submit(attempt, key))
                if len(waiting) >= 2 * self._workers + TOGETHER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _wanted(self) -> list[str]:
        listed = normalise_kiwoom.instruments(self._list(), self._market)
        return self._codes or listed.loc[listed["kind"].isin(KINDS), "code"].tolist()

    def _list(self) -> list[Record]:
        if self._listed is None:
            self._listed = [row for board in BOARDS for row in self._client.instruments(board)]
        return self._listed

    def _today(self) -> date:
        return self._clock().astimezone(KST).date()


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Records of one request or instrument, and its pairs of raw and adjusted bars where there are any."""

    records: pd.DataFrame
    asked_at: datetime
    pairs: pd.DataFrame | None = None


def _pairs(
    code: str, raw: Sequence[Record], adjusted: Sequence[Record], whole: pd.DataFrame, today: date
) -> pd.DataFrame:
    """Return raw and adjusted bars of the same finished days; today's differ, because they were read one after another.
    `whole`: the raw rows, read. Raises TruncatedReply when the two walks did not meet the same days."""
    limit = f"{today:%Y%m%d}"
    ended = np.array([row["dt"] < limit and bool(row["dt"].strip("0")) for row in raw])
    ours = [row for row, has in zip(raw, ended, strict=True) if has]
    others = [row for row in adjusted if row["dt"] < limit and row["dt"].strip("0")]
    if {row["dt"] for row in ours} != {row["dt"] for row in others}:
        raise TruncatedReply(
            f"kiwoom ka10081 {code}: {len(ours)} days of raw prices came and {len(others)} of adjusted ones, not all the same. "
            "One of the two histories was cut off. Try again later."
        )
    bars = whole.loc[ended, ["date", *BAR_FIELDS]].set_index("date")
    if others == ours:  # nothing was ever adjusted, as of most instruments
        other = bars
    else:
        noon = datetime.combine(today, time(12), KST)
        other = normalise_kiwoom.daily(others, code, now=noon).set_index("date")[[*BAR_FIELDS]]
    both = bars.join(other.add_prefix("adj_"), how="inner").reset_index()
    return both.assign(code=code, based_on=pd.Timestamp(today))


def _together(fetched: Iterator[tuple[str, _Fetched | str]], size: int) -> Iterator[Batch]:
    """Make batches of several instruments each: a transaction apiece would take longer than fetching them."""
    while part := list(islice(fetched, size)):
        yield _batch(part[0][0] if len(part) == 1 else f"{part[0][0]}…{part[-1][0]}", part)


def _batch(name: str, part: Sequence[tuple[str, _Fetched | str]]) -> Batch:
    found = [one for _, one in part if isinstance(one, _Fetched)]
    # Frames without rows have columns of other types, and would change those of the whole.
    frames = [one.records for one in found if len(one.records)] or [one.records for one in found[:1]]
    pairs = [one.pairs for one in found if one.pairs is not None and len(one.pairs)]
    records = pd.concat(frames, ignore_index=True) if frames else None
    return Batch(
        name,
        _NOTHING if records is None else records.assign(row=range(1, len(records) + 1)),
        pd.concat(pairs, ignore_index=True) if pairs else None,
        {key: one for key, one in part if isinstance(one, str)},
        min((one.asked_at for one in found), default=None),
    )


_NOTHING = pd.DataFrame(columns=["code", "date", *BAR_FIELDS, "row"]).assign(ts=pd.Series(dtype="datetime64[us, UTC]"))

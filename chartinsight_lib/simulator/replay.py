"""Real candles, played again: every day as it was recorded, minutes bridged where none were recorded.

Invented, and only because candles do not say it: the path within a day, investors' flows, and listed shares where the records
lack a column `shares`. Days without a row have no bar; the first and the last row stand for listing and delisting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator import sessions
from chartinsight_lib.simulator.flows import invented_flows
from chartinsight_lib.simulator.intraday import day_of, index_minutes, minute_bars
from chartinsight_lib.simulator.model import (
    AFTER_MARKET_SINCE,
    DailyBars,
    Days,
    Event,
    Flows,
    Listing,
    MinuteBars,
    Sector,
    Session,
    empty_minutes,
)
from chartinsight_lib.simulator.prices import STOCK_GRID, WON_GRID, Grid, frozen, generator
from chartinsight_lib.simulator.recorded import (
    Factor,
    Recording,
    average_index,
    read_database,
    read_minutes,
    read_records,
    sound_records,
    to_events,
)

if TYPE_CHECKING:
    import pandas as pd

_SECTORS = (Sector("001", "종합(KOSPI)", "KOSPI"), Sector("101", "종합(KOSDAQ)", "KOSDAQ"))


class ReplayMarket:
    """A `model.Market` of recorded days; arrays are read-only. Safe to use from several threads."""

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        label: str,
        *,
        minutes: Mapping[tuple[str, date], MinuteBars] | None = None,
        after_market_since: date | None = AFTER_MARKET_SINCE,
        keep_minutes: int = 1_500,
    ) -> None:
        """Take what `recorded` read; `from_records`, `from_path` and `from_database` do both.

        Raises:
            ConfigError: there is no recording.
        """
        if not recordings:
            raise ConfigError(f"simulator: {label} holds no daily bars. Name a source that does.")
        self._recordings = dict(sorted(recordings.items()))
        self._label, self._after_market_since = label, after_market_since
        self._given = dict(minutes or {})
        self._days: Days = frozen(np.unique(np.concatenate([one.bars.day for one in self._recordings.values()])))
        self._listings = tuple(self._listing(code, one) for code, one in self._recordings.items())
        self._index = lru_cache(len(_SECTORS))(self._make_index)
        self._minutes = lru_cache(keep_minutes)(self._make_minutes)

    @classmethod
    def from_records(
        cls,
        records: pd.DataFrame,
        label: str,
        *,
        factors: Iterable[Factor] = (),
        minutes: pd.DataFrame | None = None,
        widen_won: int = 0,
        after_market_since: date | None = AFTER_MARKET_SINCE,
    ) -> ReplayMarket:
        """Play daily records.

        Args:
            records: code, date, open, high, low, close, volume; optionally value, name, board, kind, shares; whole won.
            factors: the corporate actions that the prices do not yet include.
            minutes: code, ts_kst (KST wall time) or ts (tz-aware), open, high, low, close, volume and optionally value;
                bars of any whole number of minutes, served as they are on the days they hold.
            widen_won: a high or low that leaves out its own open or close by up to this much is moved there. Adjusted prices
                are rounded one by one and miss by a won; 0: every row as it is, or an error.

        Raises:
            ConfigError: there are no records.
            SchemaError: a column is missing, or a row is contradictory, unreadable or there twice; names code and day.
        """
        recordings = read_records(records, widen_won=widen_won)
        for code, events in to_events(factors, recordings).items():
            recordings[code] = recordings[code]._replace(events=events)
        given = None if minutes is None else read_minutes(minutes)
        return cls(recordings, label, minutes=given, after_market_since=after_market_since)

    @classmethod
    def from_path(
        cls,
        path: str | Path,
        *,
        minutes: str | Path | None = None,
        widen_won: int = 5,
        after_market_since: date | None = AFTER_MARKET_SINCE,
    ) -> ReplayMarket:
        """Play CSV or Parquet files of daily bars: a file, a directory or a glob; `minutes`: one file of intraday bars.

        Rows that are unreadable or contradictory are left out, and `label` says how many. The rest as in `from_records`.

        Raises:
            ConfigError: there are no files, or they cannot be read.
            SchemaError: as in `from_records`.
        """
        import pandas as pd

        from chartinsight_lib.clients.files import FileSource

        source = FileSource([str(path)], market="KRX")
        records = pd.concat([batch.records.astype({"code": "str"}) for batch in source.daily()], ignore_index=True)
        records, left_out = sound_records(records, widen_won=widen_won)
        label = f"replay of {Path(path).name}" + (f", {left_out:,} damaged rows left out" if left_out else "")
        return cls.from_records(
            records,
            label,
            minutes=None if minutes is None else _table(Path(minutes)),
            widen_won=widen_won,
            after_market_since=after_market_since,
        )

    @classmethod
    def from_database(
        cls, url: str, *, market: str = "KRX", after_market_since: date | None = AFTER_MARKET_SINCE
    ) -> ReplayMarket:
        """Play the raw candles of a tradesmart database, with the splits that its factors know.

        Raises:
            ConfigError: the address is none, or no daily candles of the market are held.
            DatabaseError: the database does not answer.
            SchemaError: as in `from_records`.
        """
        records, factors = read_database(url, market)
        return cls.from_records(
            records, f"replay of {market} in a database", factors=factors, after_market_since=after_market_since
        )

    @property
    def label(self) -> str:
        """Return what is played."""
        return self._label

    @property
    def days(self) -> Days:
        """Return the days on which anything was recorded."""
        return self._days

    @property
    def listings(self) -> Sequence[Listing]:
        """Return what was recorded, ascending in code."""
        return self._listings

    @property
    def sectors(self) -> Sequence[Sector]:
        """Return the two boards' indices."""
        return _SECTORS

    def session(self, day: date) -> Session | None:
        """Return the hours of a day; None: nothing was recorded on it."""
        at = np.datetime64(day, "D")
        row = int(np.searchsorted(self._days, at))
        if row == len(self._days) or self._days[row] != at:
            return None
        return sessions.session(day, after_market_since=self._after_market_since)

    def daily(self, code: str) -> DailyBars:
        """Return an instrument's days as they were recorded. Raises KeyError."""
        return self._recordings[code].bars

    def minutes(self, code: str, day: date) -> MinuteBars:
        """Return the recorded minutes of a day, else bridged ones; of an instrument or an index. Raises KeyError."""
        if (code, day) in self._given:
            return self._given[code, day]
        if code not in self._recordings:
            self.index(code)
        return self._minutes(code, day)

    def events(self, code: str) -> tuple[Event, ...]:
        """Return the corporate actions that the prices do not include. Raises KeyError."""
        return self._recordings[code].events

    def index(self, code: str) -> DailyBars:
        """Return a board's index: the equal-weight average of what was recorded, 1,000 points at first. Raises KeyError."""
        if code not in {sector.code for sector in _SECTORS}:
            raise KeyError(code)
        return self._index(code)

    def flows(self, code: str) -> Flows:
        """Return invented net buys; candles do not say who bought. Raises KeyError."""
        return invented_flows(self.daily(code), generator(0, code, "flows"))

    def _listing(self, code: str, one: Recording) -> Listing:
        first, last = one.bars.day[0].item(), one.bars.day[-1]
        later = self._days[np.searchsorted(self._days, last, side="right") :]
        return Listing(
            code=code, board=one.board, kind=one.kind, names=one.names, sector="", size="", listed_on=first,
            delisted_on=later[0].item() if len(later) else None, shares=one.shares,
        )  # fmt: skip

    def _make_index(self, code: str) -> DailyBars:
        board = next(sector.board for sector in _SECTORS if sector.code == code)
        members = [one for one in self._recordings.values() if one.board == board]
        return average_index(members, self._days)

    def _make_minutes(self, code: str, day: date) -> MinuteBars:
        of_index = code not in self._recordings
        bars = self.index(code) if of_index else self.daily(code)
        row, session = int(np.searchsorted(bars.day, np.datetime64(day, "D"))), self.session(day)
        if session is None or row == len(bars.day) or bars.day[row] != np.datetime64(day, "D"):
            return empty_minutes()
        one, rng = day_of(bars, row), generator(0, code, "minutes", day.toordinal())
        if of_index:
            return index_minutes(one, session, rng, WON_GRID)
        prices = np.array([one.open, one.high, one.low, one.close])
        # Adjusted prices are on no grid of KRX.
        grid: Grid = STOCK_GRID if np.array_equal(STOCK_GRID.nearest(prices), prices) else WON_GRID
        return minute_bars(one, session, rng, grid)


def _table(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file as it is, codes as text."""
    import pandas as pd

    try:
        return pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path, dtype={"code": "str"})
    except (OSError, ValueError) as error:
        raise ConfigError(f"simulator: {path} cannot be read ({error}). Expected a .csv or .parquet file.") from error

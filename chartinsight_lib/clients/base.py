"""What a source gives. For now: sources that hand over whole daily histories at once (files, the sample)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    import pandas as pd

REQUIRED = ("code", "date", "open", "high", "low", "close", "volume")
"""Columns that every batch has: the market's code as text, the trading date, prices in currency, volume in shares."""

OPTIONAL = ("value", "adj_close", "name")
"""Columns that a batch may have: value in currency, close adjusted by the source, name of the instrument."""


@dataclass(frozen=True)
class Batch:
    """A portion of a source: `name` says which (a file, say); a key (code, date) of it occurs in no other batch.

    `records` has the columns REQUIRED, those of OPTIONAL that the source has, and `row`: the number of the row in its
    portion, 1 being the first. Values are as the source has them, good or bad; what is unreadable stays as it was.
    """

    name: str
    records: pd.DataFrame


class BulkSource(Protocol):
    """A source that hands over whole daily histories of one market."""

    @property
    def name(self) -> str:
        """What is stored with every bar that comes from here, such as "sample" or "files:krx.parquet"."""
        ...

    @property
    def market(self) -> str:
        """Code of the market, a key of `domain.MARKETS`."""
        ...

    def instruments(self) -> pd.DataFrame:
        """Return what the source has candles of: the columns `domain.INSTRUMENT`, ascending and unique in code."""
        ...

    def provisional_from(self, today: date) -> date | None:
        """Return the first trading date up to `today` whose bars the source cannot prove to be finished; None: all are."""
        ...

    def daily(self) -> Iterator[Batch]:
        """Yield the daily records, portion by portion; each call begins anew."""
        ...

"""What a source gives: daily histories, whole or from where the last collection ended; some also shorter bars and quotes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date, datetime

    import pandas as pd

REQUIRED = ("code", "date", "open", "high", "low", "close", "volume")
"""Columns that every batch has: the market's code as text, the trading date, prices in currency, volume in shares."""

NOTHING_HELD: Mapping[str, date] = MappingProxyType({})
NO_BAR_HELD: Mapping[str, datetime] = MappingProxyType({})
"""For a source that is asked for everything."""

OPTIONAL = ("value", "adj_close", "name")
"""Columns that a batch may have: value in currency, close adjusted by the source, name of the instrument."""


@dataclass(frozen=True)
class Batch:
    """A portion of a source: `name` says which (a file, say); a key (code, date) of it occurs in no other batch.

    `records` has the columns REQUIRED, those of OPTIONAL that the source has, and `row`: the number of the row in its
    portion, 1 being the first. Values are as the source has them, good or bad; what is unreadable stays as it was.

    `pairs` are raw and adjusted prices and volumes of the same days, from which factors are learnt (`factors.learn_chain`);
    they may reach further back than `records`. `errors` says of which instruments nothing could be had, and why. `asked_at`
    (tz-aware) is from when on the source may have answered: what it called unfinished then is so; None: it does not change.
    `factors` (columns `domain.FACTOR`) are the events that the source itself names: of each code all that took effect after
    its first date in `records`, up to its last; None: it names none, which does not say that there were none.
    `stays`: it lies where it holds what it holds, such as in a file: a row is known there by its number, and a bar that it lacks is
    no news. `asked` says from which date on each instrument was asked about, bars or none; {}: from its first record on.
    """

    name: str
    records: pd.DataFrame
    pairs: pd.DataFrame | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    asked_at: datetime | None = None
    factors: pd.DataFrame | None = None
    asked: Mapping[str, date] = field(default_factory=dict)
    stays: bool = False


class Source(Protocol):
    """A source of daily histories of one market."""

    @property
    def name(self) -> str:
        """What is stored with every bar that comes from here, such as "sample" or "files:krx.parquet"."""
        ...

    @property
    def market(self) -> str:
        """Code of the market, a key of `domain.MARKETS`."""
        ...

    @property
    def raw(self) -> bool:
        """Whether its prices are as they were traded, for ever: then a bar that it tells differently is a correction, and
        never another price basis."""
        ...

    @property
    def lists_whole_market(self) -> bool:
        """Whether `instruments` tells of all that is listed on the boards that it tells of, now: then what it lacks is gone."""
        ...

    def instruments(self) -> pd.DataFrame:
        """Return what the source has candles of: the columns `domain.INSTRUMENT` and those of `domain.ATTRIBUTES` that it
        knows, ascending and unique in code."""
        ...

    def provisional_from(self, today: date) -> date | None:
        """Return the first trading date up to `today` whose bars the source cannot prove to be finished; None: all are."""
        ...

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        """Yield the daily records, portion by portion; each call begins anew.

        `held`: the newest final trading date held of each code. A source that can be asked for a part gives what follows it,
        with an overlap; one that cannot gives everything.
        """
        ...


@runtime_checkable
class Windowed(Protocol):
    """A source that is not asked for everything it may have."""

    @property
    def since(self) -> date:
        """From which date on it is asked for bars of an instrument of which none are held."""
        ...


@runtime_checkable
class IntradaySource(Source, Protocol):
    """A source that also has bars shorter than a day."""

    def intraday(self, codes: Sequence[str], held: Mapping[str, datetime]) -> Iterator[Batch]:
        """Yield the five-minute bars of some instruments, portion by portion, with `ts` (tz-aware) in place of `date`.

        `codes`: which; a source that holds what it holds gives all for none. `held`: the start of the newest final bar held of
        each code.
        """
        ...


@runtime_checkable
class LiveSource(IntradaySource, Protocol):
    """A source that also knows the running day."""

    def quotes(self) -> Iterator[Batch]:
        """Yield the running daily bars of the whole market, portion by portion; what has not traded has none."""
        ...

"""CSV and Parquet files of daily bars, as people have them: in, raw records out.

A file holds several instruments (a code column) or one (the code is in the file's name: 005930.csv, A005930.csv,
prices_005930.parquet, AAPL.csv). Codes are text: leading zeros and letters matter. How a file is read: `tables`.

A file that was exported by us has a manifest beside it: it is the same file, or it is refused; what it says of names, kinds,
unfinished bars and corporate actions is taken over, and that prices are simulated is not forgotten.

What a file says is handed on unjudged: numbers that cannot be read stay text and are dealt with by `normalise`. Refused
as a whole is only what cannot be daily bars: a missing column, intraday times, bytes that are no table.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from chartinsight_lib.clients.base import NOTHING_HELD, OPTIONAL, REQUIRED, Batch
from chartinsight_lib.clients.manifest import Manifest, one_market, vouching
from chartinsight_lib.clients.tables import HEADERS, KRX_CODE, US_CODE, Layout, read_layout, read_records, read_spans
from chartinsight_lib.domain import FACTOR, INSTRUMENT, MARKETS
from chartinsight_lib.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class _Scan:
    """What is known of all files once their codes and dates are read: instruments (code, name), and the dates of those that
    do not say which of their bars are finished."""

    layouts: list[Layout]
    market: str
    names: pd.DataFrame
    dates: set[date]


class FileSource:
    """Daily bars from files. Opening finds them; what they hold is read when asked for, prices only by `daily`."""

    def __init__(
        self,
        paths: Sequence[str],
        *,
        market: str | None = None,
        columns: Mapping[str, str] | None = None,
        last_day: str = "provisional",
    ) -> None:
        """Find the files behind `paths` (files, directories, globs); options as in `clients.open_source`.

        Raises:
            ConfigError: a path leads to no .csv or .parquet file, or `columns` has a name that is not ours.
        """
        self._files = list(dict.fromkeys(file for path in paths for file in _expand(path)))
        self._name = "files:" + ",".join(_labels([Path(path) for path in paths]))
        self._market = market
        self._mapping = dict(columns or {})
        self._last_day = last_day
        if unknown := sorted(self._mapping.keys() - HEADERS.keys()):
            raise ConfigError(f"{self._name}: columns names {unknown}. Our names are {', '.join(HEADERS)}.")

    @property
    def name(self) -> str:
        """Return "files:" and the last parts of the paths; where a manifest says so, that it is simulated."""
        return f"simulated ({self._name})" if any(one.simulated for one in self._told) else self._name

    @property
    def raw(self) -> bool:
        """Return False: a file may be adjusted."""
        return False

    @property
    def lists_whole_market(self) -> bool:
        """Return False: files hold what somebody saved."""
        return False

    @property
    def market(self) -> str:
        """Return the market asked for or told by manifests; else the one the codes look like. Reads codes, dates and names."""
        return self._told_market or self._market or self._scan.market

    def instruments(self) -> pd.DataFrame:
        """Return the instruments of all files: the columns `domain.INSTRUMENT`; without a name the code stands for it.

        Reads codes, dates and names only.

        Raises:
            ConfigError: a file cannot be opened.
            SchemaError: a file is no table of daily bars, or two files hold the same days of the same code.
        """
        frame = self._scan.names.assign(market=self.market, kind="stock", sector=None, listed_on=None, delisted_on=None)
        frame = frame.assign(currency=MARKETS[self.market].currency)[INSTRUMENT]
        told = {str(one.get("code")): one for manifest in self._told for one in manifest.instruments}
        if not told:
            return frame
        for name in ("name", "kind", "sector", "listed_on", "delisted_on"):
            known = [told.get(code, {}).get(name) for code in frame["code"]]
            mine = frame[name].astype(object)
            frame[name] = [old if new is None else new for old, new in zip(mine, known, strict=True)]
        for name in ("listed_on", "delisted_on"):
            frame[name] = [None if day is None else date.fromisoformat(str(day)) for day in frame[name]]
        return frame

    def provisional_from(self, today: date) -> date | None:
        """Return the newest date of all files, those after `today` left out: no file can prove that its newest day is
        finished, unless it was exported with that knowledge. None: it is final, or there is none."""
        return (
            None if self._last_day == "final" else max((day for day in self._scan.dates if day <= today), default=None)
        )

    def daily(self, held: Mapping[str, date] = NOTHING_HELD) -> Iterator[Batch]:
        """Yield one batch per file, with `code` categorical and `row` counted from 1; errors as in `instruments`."""
        for layout, label in zip(self._scan.layouts, _labels(self._files), strict=True):
            told = self._manifests[layout.path]
            optional = OPTIONAL if told is None else (*OPTIONAL, "flags")
            names = [name for name in (*REQUIRED, *optional) if name in layout.columns or name == "code"]
            records = read_records(layout, names, self.market)
            if "flags" in records:
                records["flags"] = records["flags"].astype("int16")
            factors = _factors(told, records["code"].astype("str")) if told is not None else None
            yield Batch(label, records.assign(row=np.arange(1, len(records) + 1)), factors=factors)

    @cached_property
    def _manifests(self) -> dict[Path, Manifest | None]:
        """The manifest of each file, whose digest was compared."""
        found = {path: vouching(path) for path in self._files}
        for path, manifest in found.items():
            if manifest is not None and manifest.timeframe != "1d":
                raise SchemaError(
                    f"{path}: holds bars of {manifest.timeframe}, says its manifest. Importing these from files is not supported "
                    "yet; export bars of 1d."
                )
        return found

    @property
    def _told(self) -> list[Manifest]:
        return [one for one in self._manifests.values() if one is not None]

    @cached_property
    def _told_market(self) -> str | None:
        market = one_market(self._name, self._told, self._market)
        if market is not None and market not in MARKETS:
            raise SchemaError(
                f"{self._name}: its manifest tells of the market {market!r}. Known are {', '.join(MARKETS)}."
            )
        return market

    @cached_property
    def _scan(self) -> _Scan:
        layouts = [read_layout(path, self._mapping) for path in self._files]
        asked = self._told_market or self._market
        scanned = [read_spans(layout, asked) for layout in layouts]
        spans = pd.concat([frame.assign(file=number) for number, (frame, _) in enumerate(scanned)], ignore_index=True)
        if spans.empty:
            raise SchemaError(f"{self._name}: no row has a code and a date. Give files that hold daily bars.")
        _refuse_overlap(spans, self._files)
        market = asked or _market_of(self._name, spans["code"].drop_duplicates())
        names = spans.sort_values("last").groupby("code")["name"].last().reset_index()
        names = names.assign(name=names["name"].fillna(names["code"]))
        open_ended = [dates for layout, (_, dates) in zip(layouts, scanned, strict=True) if not self._proves(layout)]
        return _Scan(layouts, market, names, set().union(*open_ended))

    def _proves(self, layout: Layout) -> bool:
        """Whether a file says of its bars which are finished: by their flags, or because no other was exported."""
        told = self._manifests[layout.path]
        return told is not None and (told.final_only or "flags" in layout.columns)


def _factors(told: Manifest, codes: pd.Series) -> pd.DataFrame | None:
    """Return the corporate actions of a file's codes that its prices do not know of yet, None where it has undone any."""
    if told.applied or told.basis != "raw":
        return None
    frame = pd.DataFrame(told.factors, columns=[*FACTOR])
    frame = frame[frame["code"].isin(codes.unique())].reset_index(drop=True)
    kinds = {"code": "str", "price_factor": "float64", "volume_factor": "float64", "kind": "str"}
    frame["ex_date"] = [date.fromisoformat(str(day)) for day in frame["ex_date"]]
    return frame.astype(kinds)


def _labels(paths: Sequence[Path]) -> list[str]:
    """Name paths apart: by their last parts, or from their common folder on where two end alike."""
    names = [path.name or str(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [str(path.absolute().relative_to(common)) for path in paths]


def _expand(path: str) -> list[Path]:
    """Return the files a path stands for, sorted; those of a directory or glob that are hidden or start with _ not."""
    place = Path(path).expanduser()
    try:
        if place.is_file():
            if place.suffix.lower() not in SUFFIXES:
                raise ConfigError(f"{path}: the file's kind is told by its name. Expected .csv or .parquet.")
            return [place]
        if place.is_dir():
            found = place.iterdir()
        elif any(sign in path for sign in "*?["):
            root = Path(place.anchor)
            found = root.glob(str(place.relative_to(root)))
        else:
            raise ConfigError(
                f"{path}: there is no such file or directory. Check the path; it is read from {Path.cwd()}."
            )
        files = sorted(
            file for file in found
            if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "_"))
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{path}: cannot be looked into ({error}). Check the path and its permissions.") from error
    if not files:
        raise ConfigError(f"{path}: holds no .csv or .parquet file. Check the path; it is read from {Path.cwd()}.")
    return files


def _market_of(name: str, codes: pd.Series) -> str:
    """Return KRX when a code looks Korean (six characters, a digit first), US when all look like US tickers."""
    if codes.str.fullmatch(KRX_CODE.pattern).any():
        return "KRX"
    if not (odd := codes[~codes.str.fullmatch(US_CODE.pattern)]).empty:
        raise SchemaError(
            f"{name}: the code {odd.iloc[0]} looks neither Korean (005930) nor American (AAPL). "
            f"Say which market the codes are of: --market, one of {', '.join(MARKETS)}."
        )
    return "US"


def _refuse_overlap(spans: pd.DataFrame, files: Sequence[Path]) -> None:
    """Refuse two files that hold the same days of a code: they may be adjusted differently, and none is the truer."""
    spans = spans.sort_values(["code", "first"], kind="stable")
    before = spans.groupby("code")[["last", "file"]].shift()
    before["last"] = before.groupby(spans["code"])["last"].cummax()
    clash = spans[spans["first"] <= before["last"]]
    if len(clash):
        one = clash.iloc[0]
        other = files[int(before["file"].loc[clash.index].iloc[0])]
        raise SchemaError(
            f"{other} and {files[int(one['file'])]}: both hold {one['code']} around {one['first']:%Y-%m-%d}; they may "
            "contradict each other or be adjusted differently. Import them one after the other, the truer one last."
        )

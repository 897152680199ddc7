"""CSV and Parquet files of bars, daily or of five minutes, as people have them: in, raw records out.

A file holds several instruments (a code column) or one (the code is in the file's name: 005930.csv, A005930.csv,
prices_005930.parquet, AAPL.csv). Codes are text: leading zeros and letters matter. How a file is read: `layouts`, `tables`.

A file that was exported by us has a manifest beside it: it is the same file, or it is refused; what it says of names, kinds,
unfinished bars and corporate actions is taken over, and that prices are simulated is not forgotten.

What a file says is handed on unjudged: numbers that cannot be read stay text and are dealt with by `normalise`. Refused
as a whole is only what cannot be bars, or tells of them in more than one way. Among others such a file is its own error, and
the others go in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from chartinsight_lib.calendars import calendar
from chartinsight_lib.clients.base import NO_BAR_HELD, NOTHING_HELD, OPTIONAL, REQUIRED, Batch
from chartinsight_lib.clients.layouts import HEADERS, KRX_CODE, US_CODE, Layout, read_layout
from chartinsight_lib.clients.manifest import Manifest, one_market, vouching
from chartinsight_lib.clients.moments import check_five_minutes, starts, trading_days
from chartinsight_lib.clients.paths import expand, labels
from chartinsight_lib.clients.tables import Rows, read_rows, read_texts
from chartinsight_lib.clients.tellings import refuse_mixture
from chartinsight_lib.clock import system_clock
from chartinsight_lib.domain import AS_TRADED, FACTOR, INSTRUMENT, MARKETS
from chartinsight_lib.errors import BeyondHorizon, ChartInsightError, ConfigError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chartinsight_lib.clients.moments import Written
    from chartinsight_lib.clock import Clock

DAYS, FIVE_MINUTES = "1d", "5m"
SHOWN = 12
KOREAN_WORDS = ("KOSPI",)
"""What looks like an American ticker, and is an index of Seoul."""


@dataclass(frozen=True)
class _File:
    layout: Layout
    label: str
    told: Manifest | None
    timeframe: str

    @property
    def proves(self) -> bool:
        """Whether it says of its bars which are finished: by their flags, or because no other was exported."""
        return self.told is not None and (self.told.final_only or "flags" in self.layout.columns)


@dataclass(frozen=True)
class _Scan:
    """What is known of all files once their codes and dates are read: instruments (code, name); of those files that do not say
    which of their bars are finished the days, and the newest start of a shorter bar; and what the others cannot be taken for."""

    files: list[_File]
    bad: dict[str, ChartInsightError]
    market: str
    names: pd.DataFrame
    days: set[date]
    newest: datetime | None


class FileSource:
    """Bars from files. Opening finds them; what they hold is read when asked for, prices only by `daily` and `intraday`."""

    def __init__(
        self,
        paths: Sequence[str],
        *,
        market: str | None = None,
        columns: Mapping[str, str] | None = None,
        last_day: str = "provisional",
        only: Mapping[str, str] | None = None,
        prices: str = "adjusted",
        clock: Clock = system_clock,
    ) -> None:
        """Find the files behind `paths` (files, directories, globs); options as in `clients.open_source`.

        Raises:
            ConfigError: a path leads to no .csv or .parquet file, or `columns` has a name that is not ours.
        """
        self._paths = list(dict.fromkeys(file for path in paths for file in expand(path)))
        self._only = dict(only or {})
        self._raw = prices == "raw"
        chosen = "".join(f"[{theirs}={value}]" for theirs, value in self._only.items())
        self._name = (
            "files:" + ",".join(labels([Path(path) for path in paths])) + chosen + (AS_TRADED if self._raw else "")
        )
        self._market = market
        self._mapping = dict(columns or {})
        self._last_day = last_day
        self._clock = clock
        if unknown := sorted(self._mapping.keys() - HEADERS.keys()):
            raise ConfigError(f"{self._name}: columns names {unknown}. Our names are {', '.join(HEADERS)}.")

    @property
    def name(self) -> str:
        """Return "files:", the last parts of the paths, and what of them was asked for; where a manifest says so, that it is
        simulated."""
        return f"simulated ({self._name})" if any(one.simulated for one in self._told) else self._name

    @property
    def raw(self) -> bool:
        """Whether it was said that prices are as they were traded; a file does not say so itself."""
        return self._raw

    @property
    def lists_whole_market(self) -> bool:
        """Return False: files hold what somebody saved."""
        return False

    @property
    def market(self) -> str:
        """Return the market asked for or told by manifests; else the one the codes look like. Reads codes, dates and names."""
        return self._told_market or self._market or self._scan.market

    @property
    def timeframes(self) -> set[str]:
        """Return which bars the files hold: "1d", "5m". Reads codes, dates and names."""
        return {one.timeframe for one in self._scan.files}

    def instruments(self) -> pd.DataFrame:
        """Return the instruments of all files: the columns `domain.INSTRUMENT`; without a name the code stands for it.

        Reads codes, dates and names only.

        Raises:
            ConfigError: no file can be opened.
            SchemaError: no file is a table of bars, two hold the same time of the same code, or codes of two markets.
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
            None if self._last_day == "final" else max((day for day in self._scan.days if day <= today), default=None)
        )

    def daily(self, held: Mapping[str, date] = NOTHING_HELD) -> Iterator[Batch]:
        """Yield one batch per file of daily bars; then one for each file that cannot be read, with its error.

        Errors as in `instruments`; and SchemaError where there are no daily bars.
        """
        del held  # a file is read whole
        for one in self._of(DAYS):
            rows = self._rows(one, [name for name in (*REQUIRED, *OPTIONAL) if name != "date"])
            records = rows.frame
            records.insert(1, "date", trading_days(rows.written))
            factors = _factors(one.told, records["code"].astype("str")) if one.told is not None else None
            yield Batch(one.label, records, factors=factors, stays=True)
        yield from self._errors("date")

    def intraday(self, codes: Sequence[str] = (), held: Mapping[str, datetime] = NO_BAR_HELD) -> Iterator[Batch]:
        """Yield one batch per file of five-minute bars, as `daily`. Times without a zone are those of the market.

        Args:
            codes: these alone; none: all.
        """
        del held
        zone = MARKETS[self.market].zone
        for one in self._of(FIVE_MINUTES):
            rows = self._rows(one, [*(name for name in REQUIRED if name != "date"), "value"])
            records = rows.frame
            records.insert(1, "ts", starts(rows.written, zone))
            if codes:
                records = records[records["code"].isin(list(codes))].reset_index(drop=True)
            newest = None if one.proves or self._last_day == "final" else self._scan.newest
            # The newest bar may have been forming when it was saved.
            asked_at = None if newest is None else newest + timedelta(minutes=1)
            yield Batch(one.label, records, asked_at=asked_at, stays=True)
        yield from self._errors("ts")

    def _of(self, timeframe: str) -> list[_File]:
        files = [one for one in self._scan.files if one.timeframe == timeframe]
        if not files:
            wanted, job = (
                ("five minutes", "collect_daily") if timeframe == FIVE_MINUTES else ("a day", "collect_intraday")
            )
            raise SchemaError(
                f"{self._name}: holds no bars of {wanted}. Collect those that it holds: `chartinsight run {job} -p source=…`."
            )
        return files

    def _rows(self, one: _File, names: Sequence[str]) -> Rows:
        rows = read_rows(one.layout, [*names, *(["flags"] if one.told is not None else [])], self.market)
        if "flags" in rows.frame:
            rows.frame["flags"] = rows.frame["flags"].astype("int16")
        return rows

    def _errors(self, time: str) -> Iterator[Batch]:
        for label, error in self._scan.bad.items():
            nothing = pd.DataFrame(
                {name: pd.Series(dtype="float64") for name in REQUIRED if name not in {"code", "date"}}
            )
            stamps = pd.Series(dtype="datetime64[us, UTC]" if time == "ts" else "datetime64[s]")
            nothing = nothing.assign(code=pd.Categorical([]), row=pd.Series(dtype="int64"))
            nothing[time] = stamps
            yield Batch(label, nothing, errors={label: str(error)}, stays=True)

    @cached_property
    def _manifests(self) -> dict[Path, Manifest | SchemaError | None]:
        """The manifest of each file, whose digest was compared; or what is wrong with it."""
        found: dict[Path, Manifest | SchemaError | None] = {}
        for path in self._paths:
            try:
                found[path] = vouching(path)
            except SchemaError as error:
                found[path] = error
        return found

    @property
    def _told(self) -> list[Manifest]:
        return [one for one in self._manifests.values() if isinstance(one, Manifest)]

    @cached_property
    def _told_market(self) -> str | None:
        market = one_market(self._name, self._told, self._market)
        if market is not None and market not in MARKETS:
            raise SchemaError(
                f"{self._name}: its manifest tells of the market {market!r}. Known are {', '.join(MARKETS)}."
            )
        if self._told and self._raw:
            raise ConfigError(f"{self._name}: its manifest tells the basis of its prices. Leave --prices out.")
        return market

    @cached_property
    def _scan(self) -> _Scan:
        asked = self._told_market or self._market
        looked: list[tuple[_File, Rows]] = []
        bad: dict[str, ChartInsightError] = {}
        for path, label in zip(self._paths, labels(self._paths), strict=True):
            try:
                looked.append(self._look(path, label, asked))
            except (ConfigError, SchemaError) as error:
                bad[label] = error
        if looked:
            codes = [
                pd.Series(codes := head.frame["code"].cat.categories, index=[str(one.layout.path)] * len(codes))
                for one, head in looked
            ]
            market = _market_of(pd.concat(codes).drop_duplicates(), asked)
            shut = {one.label: fault for one, _ in looked if (fault := _closed(one.layout, market))}
            looked, bad = [pair for pair in looked if pair[0].label not in shut], bad | shut
        if not looked:
            raise next(iter(bad.values()))
        spans = pd.concat([_spans(head).assign(file=at) for at, (_, head) in enumerate(looked)], ignore_index=True)
        if spans.empty:
            raise SchemaError(f"{self._name}: {self._not_there(looked[0][0].layout)}")
        _refuse_overlap(spans, [one for one, _ in looked])
        names = spans.sort_values("last").groupby("code")["name"].last().reset_index()
        names = names.assign(name=names["name"].fillna(names["code"]))
        open_ended = [(one, head.written) for one, head in looked if not one.proves]
        days = {day.date() for one, written in open_ended if one.timeframe == DAYS for day in _known_days(written)}
        newest = [self._newest(written, market) for one, written in open_ended if one.timeframe == FIVE_MINUTES]
        return _Scan(
            [one for one, _ in looked], bad, market, names, days, max((one for one in newest if one), default=None)
        )

    def _look(self, path: Path, label: str, asked: str | None) -> tuple[_File, Rows]:
        """Read a file's header, codes, dates and names, and refuse what is no table of bars, or several in one."""
        told = self._manifests[path]
        if isinstance(told, SchemaError):
            raise told
        if told is not None and told.timeframe not in {DAYS, FIVE_MINUTES}:
            raise SchemaError(
                f"{path}: holds bars of {told.timeframe}, says its manifest. These are made of shorter ones on read; export those, "
                "of 1d or 5m."
            )
        layout = read_layout(path, self._mapping, self._only)
        head = read_rows(layout, ["name"], asked)
        if not self._only and _spans(head).empty:
            raise SchemaError(f"{path}: no row has a code and a date. Give files that hold bars.")
        refuse_mixture(layout, head)
        if head.written.timed:
            check_five_minutes(head.written, head.frame["code"].array, path)
        return _File(layout, label, told, FIVE_MINUTES if head.written.timed else DAYS), head

    def _newest(self, written: Written, market: str) -> datetime | None:
        """Return the newest start that is not in the future."""
        moments = starts(written, MARKETS[market].zone).dropna()
        moments = moments[moments <= self._clock()]
        return None if moments.empty else moments.max().to_pydatetime()

    def _not_there(self, layout: Layout) -> str:
        """Say which values there are instead of those asked for."""
        wanted = " and ".join(f"{theirs}={value}" for theirs, value in self._only.items())
        every = np.arange(1, len(read_rows(replace(layout, only=()), [], self._market).frame) + 1)
        found = [
            f"{layout.headers[at]}: {', '.join(sorted(read_texts(layout, at, every).unique())[:SHOWN])}"
            for at, _ in layout.only
        ]
        return f"no row has {wanted}. Found are {'; '.join(found)}."


def _known_days(written: Written) -> list[datetime]:
    days: list[datetime] = written.days[~np.isnat(written.days)].tolist()
    return days


def _spans(head: Rows) -> pd.DataFrame:
    """Return code, name (missing when unknown), first and last (datetime64) of each code in a file."""
    rows = head.frame.assign(at=head.written.local)
    by_code = rows.groupby("code", observed=True)
    spans = pd.DataFrame({"first": by_code["at"].min(), "last": by_code["at"].max()})
    spans["name"] = by_code["name"].last() if "name" in rows else pd.Series(np.nan, index=spans.index, dtype="str")
    spans = spans.dropna(subset=["first"]).reset_index()
    return spans.assign(code=spans["code"].astype("str"))


def _closed(layout: Layout, market: str) -> SchemaError | None:
    """Return the error for a file whose name holds a day on which its market was closed."""
    if layout.day is None:
        return None
    day = layout.day.astype(object)
    try:
        if calendar(market).is_trading_day(day):
            return None
    except BeyondHorizon:
        return None
    return SchemaError(
        f"{layout.path}: {day}, of the file's name, is no trading day of {market}; perhaps it was fetched then. Name the file "
        "after its trading day."
    )


def _factors(told: Manifest, codes: pd.Series) -> pd.DataFrame | None:
    """Return the corporate actions of a file's codes that its prices do not know of yet, None where it has undone any."""
    if told.applied or told.basis != "raw":
        return None
    frame = pd.DataFrame(told.factors, columns=[*FACTOR])
    frame = frame[frame["code"].isin(codes.unique())].reset_index(drop=True)
    kinds = {"code": "str", "price_factor": "float64", "volume_factor": "float64", "kind": "str"}
    frame["ex_date"] = [date.fromisoformat(str(day)) for day in frame["ex_date"]]
    return frame.astype(kinds)


def _market_of(codes: pd.Series, asked: str | None) -> str:
    """Return the market asked for; else KRX when a code looks Korean (six characters, a digit first), US when all look like US
    tickers. Refused are codes that look like another market's. `codes`: of each the first file that holds it is the index."""
    korean = codes.str.fullmatch(KRX_CODE.pattern)
    american = codes.str.fullmatch(US_CODE.pattern) & ~codes.isin(KOREAN_WORDS)
    market = asked or ("KRX" if korean.any() else "US")
    foreign = codes[american] if MARKETS[market].korean else codes[korean]
    if len(foreign):
        looks = "American" if MARKETS[market].korean else "Korean"
        because = "" if asked else f", because {codes[korean].iloc[0]} looks Korean"
        raise SchemaError(
            f"{foreign.index[0]}: the code {foreign.iloc[0]} looks {looks}, and the market is {market}{because}. "
            "Import one market at a time."
        )
    if asked is None and not (odd := codes[~korean & ~american]).empty and market == "US":
        raise SchemaError(
            f"{odd.index[0]}: the code {odd.iloc[0]} looks neither Korean (005930) nor American (AAPL). "
            f"Say which market the codes are of: --market, one of {', '.join(MARKETS)}."
        )
    return market


def _refuse_overlap(spans: pd.DataFrame, files: Sequence[_File]) -> None:
    """Refuse two files that hold the same time of a code: they may be adjusted differently, and none is the truer."""
    spans = spans.assign(timeframe=[files[at].timeframe for at in spans["file"]])
    spans = spans.sort_values(["timeframe", "code", "first"], kind="stable")
    key = [spans["timeframe"], spans["code"]]
    before = spans.groupby(["timeframe", "code"])[["last", "file"]].shift()
    before["last"] = before.groupby(key)["last"].cummax()
    clash = spans[spans["first"] <= before["last"]]
    if len(clash):
        one = clash.iloc[0]
        other = files[int(before["file"].loc[clash.index].iloc[0])]
        raise SchemaError(
            f"{other.layout.path} and {files[int(one['file'])].layout.path}: both hold {one['code']} around "
            f"{one['first']:%Y-%m-%d}; they may contradict each other or be adjusted differently. Import them one after the other, "
            "the truer one last."
        )

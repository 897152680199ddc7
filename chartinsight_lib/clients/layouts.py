"""How one file is to be read: which of its columns are ours, by their headers or because the caller names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chartinsight_lib.clients.base import REQUIRED
from chartinsight_lib.clients.raw_tables import read_header
from chartinsight_lib.domain import PRICES
from chartinsight_lib.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Our name -> headers that mean it, in lower case without blanks and underscores. Sources: the pages of the Korea
# Exchange and Naver (Korean; TDD_OPNPRC …), Kiwoom REST API guide ka10081 (dt, open_pric …), yfinance (Adj Close).
HEADERS = {
    "code": {"code", "ticker", "symbol", "종목코드", "단축코드", "코드", "stkcd", "isusrtcd"},
    "date": {"date", "day", "dt", "trddd", "datetime", "timestamp", "time", "ts", "tskst", "날짜", "일자", "거래일",
             "거래일자", "기준일", "기준일자"},
    "open": {"open", "openprice", "openpric", "tddopnprc", "시가"},
    "high": {"high", "highprice", "highpric", "tddhgprc", "고가"},
    "low": {"low", "lowprice", "lowpric", "tddlwprc", "저가"},
    "close": {"close", "closeprice", "curprc", "tddclsprc", "종가", "현재가"},
    "adj_close": {"adjclose", "adjustedclose", "수정종가"},
    "volume": {"volume", "vol", "trdeqty", "acctrdvol", "거래량"},
    "value": {"value", "amount", "trdeprica", "acctrdval", "거래대금"},
    "name": {"name", "stknm", "isuabbrv", "종목명"},
    "flags": {"flags"},  # of our own exports; read where a manifest vouches for them
}  # fmt: skip
UNNAMED = {"", "unnamed:0", "indexlevel0", "index"}  # how tools write the header of a table's index
ADJUSTED = {"adj", "adjusted", "수정"}
"""What a price's header begins or ends with that is the same telling on another basis (Tiingo, Quandl): it is left out."""

KRX_CODE = re.compile(r"\d[0-9A-Z]{5}")
US_CODE = re.compile(r"[A-Z]{1,5}([.-][A-Z]{1,2})?")

FILE_NAME = "@name"
"""In the place of a file's own header for `date`: the one date that the file's name holds is that of all its rows."""
NAMED_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)(?!\d)")


@dataclass(frozen=True)
class Layout:
    """How to read one file: `columns` is {our name: position}, `headers` what the file calls its columns."""

    path: Path
    headers: list[str]
    columns: dict[str, int]
    separator: str | None  # None: Parquet
    code: str | None  # from the file's name, where there is no code column
    day: np.datetime64 | None  # from the file's name, where that is asked for
    only: tuple[tuple[int, str], ...]
    """Position and value: rows that have another value there are left out."""

    def says(self, name: str) -> str:
        """Return the file's own word for a column of ours, in the short form of HEADERS."""
        return short(self.headers[self.columns[name]])

    def place(self, theirs: str, option: str) -> int:
        """Return the position of a column that an option asks for, by the file's name or by ours."""
        if theirs not in self.headers and theirs in self.columns:
            return self.columns[theirs]
        return _position(self.path, self.headers, theirs, option)


def short(header: str) -> str:
    """Return a header as HEADERS has it."""
    return re.sub(r"[\s_\ufeff]", "", header).casefold()


def read_layout(path: Path, mapping: Mapping[str, str], only: Mapping[str, str]) -> Layout:
    """Find out how to read a file: its columns, its separator, its code. Reads the head only, except of encodings.

    Raises:
        ConfigError: the file cannot be opened.
        SchemaError: it is no table of bars, or its columns can be understood in two ways.
    """
    headers, separator = read_header(path)
    by_name = mapping.get("date") == FILE_NAME
    named = {ours: theirs for ours, theirs in mapping.items() if not (ours == "date" and by_name)}
    columns = _recognise(path, headers, named)
    day = _named_day(path) if by_name else None
    if by_name:
        columns.pop("date", None)
    if missing := [
        name for name in REQUIRED if name not in columns and name != "code" and not (name == "date" and by_name)
    ]:
        raise _missing(path, headers, missing)
    _refuse_second_telling(path, headers, columns, named)
    code = None if "code" in columns else _code_of(path, headers)
    layout = Layout(path, headers, columns, separator, code, day, ())
    wanted = tuple((layout.place(theirs, "only"), value) for theirs, value in only.items())
    return Layout(path, headers, columns, separator, code, day, wanted)


def _recognise(path: Path, headers: Sequence[str], mapping: Mapping[str, str]) -> dict[str, int]:
    """Return {our name: position} of the columns that are ours; what `mapping` says wins."""
    columns = {ours: _position(path, headers, theirs, "columns") for ours, theirs in mapping.items()}
    for ours, words in HEADERS.items():
        if ours in mapping:
            continue
        found = [
            place for place, header in enumerate(headers) if short(header) in words and place not in columns.values()
        ]
        if len(found) > 1:
            both = [headers[place] for place in found]
            if len(set(both)) < len(both):
                raise _twice(path, both[0])
            together = " A date and a time of day belong into one column." if ours == "date" else ""
            raise SchemaError(
                f"{path}: the columns {both} all look like {ours}. Say which, as in {_example(ours, both[0])}.{together}"
            )
        if found:
            columns[ours] = found[0]
    if "date" not in columns and headers and short(headers[0]) in UNNAMED:
        columns["date"] = 0
    return columns


def _position(path: Path, headers: Sequence[str], theirs: str, option: str) -> int:
    if theirs not in headers:
        raise SchemaError(f"{path}: {option} asks for {theirs!r}, found are {list(headers)}. Correct the name.")
    if list(headers).count(theirs) > 1:
        raise _twice(path, theirs)
    return list(headers).index(theirs)


def _twice(path: Path, header: str) -> SchemaError:
    return SchemaError(f"{path}: the header names {header!r} more than once. Rename or remove one of these columns.")


def _example(ours: str, theirs: str) -> str:
    return f"--map {ours}={theirs!r} (in a notebook columns={{{ours!r}: {theirs!r}}})"


def _missing(path: Path, headers: Sequence[str], missing: Sequence[str]) -> SchemaError:
    found = f"{path}: no column is recognised as {', '.join(missing)}. Found: {list(headers)}."
    if missing == ["date"] and NAMED_DAY.search(path.stem):
        return SchemaError(
            f"{found} If {_named_day(path)}, of the file's name, is the trading day of all rows, and not the day of their "
            f"fetching, say {_example('date', FILE_NAME)}."
        )
    if len(missing) > len(REQUIRED) / 2:  # a summary, a list: no option makes bars of it
        return SchemaError(f"{found} These are no bars: bars have {', '.join(REQUIRED)}.")
    return SchemaError(
        f"{found} Bars need {', '.join(REQUIRED)}; name a column that is there, as in {_example(missing[0], 'its header')}."
    )


def missing_dates(layout: Layout) -> SchemaError:
    """Return the error for a file whose unnamed first column turned out to hold no dates."""
    return _missing(layout.path, layout.headers, ["date"])


def _named_day(path: Path) -> np.datetime64:
    """Return the one date that a file's name holds."""
    found = set()
    for year, _, month, day in NAMED_DAY.findall(path.stem):
        try:
            found.add(np.datetime64(f"{year}-{month}-{day}", "D"))
        except ValueError:
            continue
    if len(found) != 1:
        says = f"the dates {', '.join(map(str, sorted(found)))}" if found else "no date"
        raise SchemaError(f"{path}: its name holds {says}, and one is expected, as in krx_20240805.csv.")
    return found.pop()


def _code_of(path: Path, headers: Sequence[str]) -> str:
    """Return the one code that a file's name holds."""
    words = [word for word in re.split(r"[^0-9A-Z]+", path.stem.upper()) if word]
    codes = {code for word in words if KRX_CODE.fullmatch(code := without_creon(word))}
    if not codes and US_CODE.fullmatch(path.stem):
        codes = {path.stem}
    if len(codes) != 1:
        found = f"the codes {sorted(codes)}" if codes else "no code"
        raise SchemaError(
            f"{path}: there is no code column, and the file's name holds {found}. Found: {list(headers)}. "
            "Name the file after its one code, as in 005930.csv or AAPL.csv, or name the column, as in "
            f"{_example('code', 'its header')}."
        )
    return codes.pop()


def without_creon(code: str) -> str:
    """Strip the A that Creon and Kiwoom put before the six characters of a Korean code."""
    return code[1:] if code.startswith("A") and KRX_CODE.fullmatch(code[1:]) else code


def _refuse_second_telling(
    path: Path, headers: Sequence[str], columns: Mapping[str, int], mapping: Mapping[str, str]
) -> None:
    """Refuse a file that tells each bar twice, in columns such as open … and open_2026 …, unless the caller says which is meant,
    and means one."""
    own = {name: headers[columns[name]] for name in (*PRICES, "volume")}
    if not (others := _tellings(headers)):
        return
    first = all(short(header) in HEADERS[name] for name, header in own.items())
    whole = first or any(all(header == told.get(name, header) for name, header in own.items()) for told in others)
    if whole and not mapping.keys().isdisjoint(PRICES):
        return
    second = others[0]
    plain = next((header for header in headers if short(header) in HEADERS["open"]), own["open"])
    raise SchemaError(
        f"{path}: tells each bar more than once, in {plain} … and in {', '.join(second.values())}. Say which is meant: "
        f"{' '.join(f'--map {name}={header}' for name, header in second.items())}; or --map open={plain} (in a notebook columns=…)."
    )


def _tellings(headers: Sequence[str]) -> list[dict[str, str]]:
    """Return {our name: header} of each further set of prices, whose headers have one beginning or end in common."""
    shorts = {short(header): header for header in headers}
    found = []
    for word in HEADERS["open"]:
        for form in shorts:
            before, met, after = form.partition(word)
            if not met or not before + after or before + after in ADJUSTED:
                continue
            telling = {
                name: shorts[before + other + after]
                for name in (*PRICES, "volume")
                for other in HEADERS[name]
                if before + other + after in shorts and before + other + after not in HEADERS[name]
            }
            if telling.keys() >= set(PRICES) and telling not in found:
                found.append(telling)
    return found

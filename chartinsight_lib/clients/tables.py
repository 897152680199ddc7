"""One table of daily bars, CSV or Parquet: its columns recognised, its rows handed on under our names.

Columns are recognised by the headers of HEADERS, or named by the caller. CSV is UTF-8 with or without BOM, or cp949,
separated by comma, semicolon or tab. Numbers that cannot be read stay text; refused is only what cannot be daily bars.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from chartinsight_lib.clients.base import REQUIRED
from chartinsight_lib.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
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

KIWOOM_VALUE = "trdeprica"  # Kiwoom's value is in millions of won
KIWOOM_PRICES = {"openpric", "highpric", "lowpric", "curprc"}  # their sign is the direction against yesterday

NULLS = ["", "-", "nan", "NaN", "null", "NULL", "N/A", "None"]
KRX_CODE = re.compile(r"\d[0-9A-Z]{5}")
US_CODE = re.compile(r"[A-Z]{1,5}([.-][A-Z]{1,2})?")
FOREIGN_BYTES = {b"PAR1": "Parquet", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip or Excel", b"\xd0\xcf\x11\xe0": "Excel",
                 b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # fmt: skip

DAY = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|(\d\d)(\d\d))(?P<time>[T ]?[\d:.]+)?(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True)
class Layout:
    """How to read one file: `columns` is {our name: position}, `headers` what the file calls its columns."""

    path: Path
    headers: list[str]
    columns: dict[str, int]
    separator: str | None  # None: Parquet
    code: str | None  # from the file's name, where there is no code column

    def says(self, name: str) -> str:
        """Return the file's own word for a column of ours, in the short form of HEADERS."""
        return _short(self.headers[self.columns[name]])


def _short(header: str) -> str:
    return re.sub(r"[\s_\ufeff]", "", header).casefold()


def read_layout(path: Path, mapping: Mapping[str, str]) -> Layout:
    """Find out how to read a file: its columns, its separator, its code. Reads the head only, except of encodings."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Check the path and its permissions.") from error
    if not head:
        raise SchemaError(f"{path}: the file is empty. Expected a table with a header.")
    if path.suffix.lower() == ".parquet":
        headers, separator = _parquet_headers(path, head), None
    else:
        headers, separator = _csv_headers(path)
    layout = Layout(path, headers, _recognise(path, headers, mapping), separator, None)
    if missing := [name for name in REQUIRED if name not in layout.columns and name != "code"]:
        raise _missing(layout, missing)
    return layout if "code" in layout.columns else replace(layout, code=_code_of(layout))


def _parquet_headers(path: Path, head: bytes) -> list[str]:
    if head != b"PAR1":
        raise SchemaError(f"{path}: not a Parquet file. If it is text, name it .csv; else get it again.")
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: the Parquet file is damaged ({error}). Get it again.") from error


def _csv_headers(path: Path) -> tuple[list[str], str]:
    line = re.split(rb"[\r\n]", _csv_bytes(path), maxsplit=1)[0].decode()
    separator = max(",;\t", key=line.count)
    try:
        return [header.strip() for header in next(csv.reader([line], delimiter=separator), [])], separator
    except csv.Error as error:
        raise SchemaError(f"{path}: the first line is no header ({error}). Expected the names of columns.") from error


def _csv_bytes(path: Path) -> bytes:
    """Return a CSV file's text as UTF-8 without BOM, beginning with its header and ending with a line's end."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Check the path and its permissions.") from error
    for magic, kind in FOREIGN_BYTES.items():
        if raw.startswith(magic):
            raise SchemaError(f"{path}: the name says CSV, the bytes say {kind}. Rename it or save it as CSV in UTF-8.")
    if b"\0" in raw:
        raise SchemaError(f"{path}: holds binary data at byte {raw.index(0)}, not text. Save it as CSV in UTF-8.")
    raw = raw.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    try:
        _check_utf8(raw)
    except UnicodeDecodeError:
        try:
            raw = raw.decode("cp949").encode()
        except UnicodeDecodeError as error:
            raise SchemaError(f"{path}: neither UTF-8 nor cp949 ({error}). Save it as CSV in UTF-8.") from error
    if not raw.strip():
        raise SchemaError(f"{path}: the file is empty. Expected a table with a header.")
    return raw if raw.endswith((b"\n", b"\r")) else raw + b"\n"


def _check_utf8(raw: bytes, *, step: int = 1 << 20) -> None:
    """Decode piece by piece, so that a large file is not held twice."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), step):
        decoder.decode(raw[start : start + step], final=start + step >= len(raw))


def _recognise(path: Path, headers: Sequence[str], mapping: Mapping[str, str]) -> dict[str, int]:
    """Return {our name: position} of the columns that are ours; what `mapping` says wins."""
    if absent := [theirs for theirs in mapping.values() if theirs not in headers]:
        raise SchemaError(f"{path}: columns asks for {absent}, found are {list(headers)}. Correct the mapping.")
    columns = {ours: headers.index(theirs) for ours, theirs in mapping.items()}
    for ours, words in HEADERS.items():
        if ours in mapping:
            continue
        found = [
            place for place, header in enumerate(headers) if _short(header) in words and place not in columns.values()
        ]
        if len(found) > 1:
            both = [headers[place] for place in found]
            raise SchemaError(
                f"{path}: the columns {both} all look like {ours}. Say which, as in {_example(ours, both[0])}."
            )
        if found:
            columns[ours] = found[0]
    if "date" not in columns and headers and _short(headers[0]) in UNNAMED:
        columns["date"] = 0
    return columns


def _example(ours: str, theirs: str) -> str:
    return f"--map {ours}='{theirs}' (in a notebook columns={{{ours!r}: {theirs!r}}})"


def _missing(layout: Layout, missing: Sequence[str]) -> SchemaError:
    return SchemaError(
        f"{layout.path}: no column is recognised as {', '.join(missing)}. Found: {layout.headers}. Daily bars need "
        f"{', '.join(REQUIRED)}; name a column that is there, as in {_example(missing[0], 'its header')}."
    )


def _code_of(layout: Layout) -> str:
    """Return the one code that a file's name holds."""
    stem = layout.path.stem
    words = [word for word in re.split(r"[^0-9A-Z]+", stem.upper()) if word]
    codes = {code for word in words if KRX_CODE.fullmatch(code := _without_creon(word))}
    if not codes and US_CODE.fullmatch(stem):
        codes = {stem}
    if len(codes) != 1:
        found = f"the codes {sorted(codes)}" if codes else "no code"
        raise SchemaError(
            f"{layout.path}: there is no code column, and the file's name holds {found}. Found: {layout.headers}. "
            "Name the file after its one code, as in 005930.csv or AAPL.csv, or name the column, as in "
            f"{_example('code', 'its header')}."
        )
    return codes.pop()


def _without_creon(code: str) -> str:
    """Strip the A that Creon and Kiwoom put before the six characters of a Korean code."""
    return code[1:] if code.startswith("A") and KRX_CODE.fullmatch(code[1:]) else code


def read_records(layout: Layout, names: Sequence[str], market: str | None) -> pd.DataFrame:
    """Read the columns `names` of a file, under our names: code categorical text, date a day where all are readable."""
    table = _table(layout, [name for name in names if name in layout.columns])
    series = {name: table.column(name) for name in table.column_names}
    frame: dict[str, Any] = {}
    for name in names:
        if name == "code":
            frame[name] = _codes(layout, series.get("code"), len(table), market)
        elif name == "date":
            frame[name] = _days(layout, series[name])
        elif name == "name":
            frame[name] = series[name].cast(pa.string()).to_pandas()
        else:
            frame[name] = _number(layout, name, series[name])
    return pd.DataFrame(frame, copy=False)


def _table(layout: Layout, names: Sequence[str]) -> Any:
    """Return an Arrow table of the columns `names`; those of a CSV are text, or numbers where every value is one."""
    positions = [layout.columns[name] for name in names]
    try:
        if layout.separator is None:
            return pq.read_table(
                layout.path, columns=[layout.headers[at] for at in positions], partitioning=None
            ).select([layout.headers[at] for at in positions]).rename_columns(list(names))  # fmt: skip
        raw = _csv_bytes(layout.path)
        try:
            table = _csv_table(raw, layout, names, numbers=pa.float64())
        except pa.ArrowInvalid:  # a number is not plain (2,650,000), or the table is damaged: the second reading tells
            table = _csv_table(raw, layout, names, numbers=pa.string())
    except OSError as error:
        raise SchemaError(f"{layout.path}: the file is damaged or cannot be read ({error}). Get it again.") from error
    except pa.ArrowException as error:
        raise SchemaError(f"{layout.path}: the table is damaged ({error}). Get it again or mend it.") from error
    return table


def _csv_table(raw: bytes, layout: Layout, names: Sequence[str], *, numbers: Any) -> Any:
    places = {name: f"c{layout.columns[name]}" for name in names}
    types = {place: pa.string() if name in {"code", "date", "name"} else numbers for name, place in places.items()}
    return pacsv.read_csv(
        pa.BufferReader(raw),
        read_options=pacsv.ReadOptions(
            column_names=[f"c{place}" for place in range(len(layout.headers))],
            skip_rows=1,
            use_threads=numbers == pa.float64(),  # one thread tells the row of an error
        ),
        parse_options=pacsv.ParseOptions(delimiter=layout.separator),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(places.values()),
            column_types=types,
            null_values=NULLS,
            strings_can_be_null=True,
        ),
    ).rename_columns(list(names))


def _codes(layout: Layout, column: Any, rows: int, market: str | None) -> pd.Categorical:
    """Return codes as categorical text. A number is no code: zeros are put back for KRX, when KRX was asked for."""
    if column is None:
        return pd.Categorical.from_codes(np.zeros(rows, dtype="int8"), pd.Index([layout.code], dtype="str"))
    whole = pa.types.is_integer(column.type)
    if not whole and not _is_text(column.type):
        raise SchemaError(
            f"{layout.path}: the codes are of type {column.type}. Save them as text: leading zeros matter."
        )
    coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    texts = pd.Series(coded.dictionary.to_pandas(), dtype="str")
    texts = texts.str.strip("'=\" ").str.upper().map(_without_creon, na_action="ignore")
    short = texts.str.fullmatch(r"\d+", na=False) & ((texts.str.len() < 6) | whole)
    if short.any() and market != "KRX":
        raise SchemaError(
            f"{layout.path}: the codes are numbers, such as {texts[short].iloc[0]}; a Korean code has six characters, "
            "and leading zeros get lost in numbers. If these are Korean, say --market KRX and the zeros are put back; "
            "else save the codes as text."
        )
    texts = texts.mask(short, texts.str.zfill(6))
    places, codes = pd.factorize(texts.where(texts != ""), sort=True)
    rows_of = coded.indices.fill_null(len(places)).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(np.append(places, -1)[rows_of], pd.Index(codes, dtype="str"))


def _is_text(kind: Any) -> bool:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values))


def _days(layout: Layout, column: Any) -> Any:
    """Return trading dates as datetime64 without zone; when some cannot be read, objects: those stay as they were."""
    kind = column.type
    if pa.types.is_date(kind):
        return column.cast(pa.date32()).to_numpy().astype("datetime64[s]")
    if pa.types.is_timestamp(kind):
        # A stamp with a zone names the day in that zone.
        local = pc.local_timestamp(column) if kind.tz else column
        texts = pc.strftime(local.cast(pa.timestamp("us")), format="%Y-%m-%d %H:%M:%S")
    elif pa.types.is_integer(kind) or _is_text(kind):
        texts = column.cast(pa.string())
    else:
        raise SchemaError(
            f"{layout.path}: the dates are of type {kind}. Expected dates, text or integers like 20240805."
        )
    coded = texts.combine_chunks().dictionary_encode()
    words = [str(word).strip() for word in coded.dictionary.to_pylist()]
    days = np.array([_day(layout, word) for word in words] + ["NaT"], dtype="datetime64[s]")
    rows = coded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    unread = np.isnat(days[rows])
    if not unread.any():
        return days[rows]
    if unread.all():
        found = ", ".join(words[:3])
        if _short(layout.headers[layout.columns["date"]]) in UNNAMED:
            raise _missing(layout, ["date"])
        raise SchemaError(
            f"{layout.path}: no value of {layout.headers[layout.columns['date']]!r} is a date; found {found}. "
            "Expected dates such as 2024-08-05, 20240805 or 2024/08/05."
        )
    mixed = pd.Series(days[rows]).astype(object)
    return mixed.where(~unread, pd.Series([*words, None], dtype=object).take(rows).reset_index(drop=True))


def _day(layout: Layout, word: str) -> str:
    """Return the ISO date of one text, NaT when it is none.

    Raises:
        SchemaError: the text has a time of day other than midnight.
    """
    parts = DAY.fullmatch(word)
    if parts is None:
        return "NaT"
    if re.search("[1-9]", parts["time"] or ""):
        raise SchemaError(
            f"{layout.path}: holds times of day, such as {word}. Importing intraday bars from files is not supported "
            "yet; give a file of daily bars."
        )
    year, month, day = int(parts[1]), int(parts[3] or parts[5]), int(parts[4] or parts[6])
    try:
        return str(np.datetime64(f"{year:04}-{month:02}-{day:02}"))
    except ValueError:
        return "NaT"


def _number(layout: Layout, name: str, column: Any) -> pd.Series:
    """Return a column of numbers as it is, but for what Kiwoom's own headers are known to mean."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    elif pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    values: pd.Series = column.to_pandas()
    header = layout.says(name)
    if header in KIWOOM_PRICES:
        return values.abs() if pd.api.types.is_numeric_dtype(values) else values.astype("str").str.lstrip("+-")
    if header == KIWOOM_VALUE:
        plain = pd.to_numeric(values.astype("str").str.replace(",", ""), errors="coerce") * 1e6
        return plain if plain.notna().equals(values.notna()) else plain.astype(object).where(plain.notna(), values)
    return values


def read_spans(layout: Layout, market: str | None) -> tuple[pd.DataFrame, set[date]]:
    """Return what codes a file holds: columns code, name (missing when unknown), first and last (datetime64 days); and
    all of its dates."""
    names = ["code", "date"] + ["name"] * ("name" in layout.columns)
    records = read_records(layout, names, market)
    if records["date"].dtype == object:
        readable = records["date"].map(lambda day: isinstance(day, pd.Timestamp))
        records["date"] = pd.to_datetime(records["date"].where(readable))
    days = records.groupby("code", observed=True)["date"]
    spans = pd.DataFrame({"first": days.min(), "last": days.max()})
    if "name" in records:
        spans["name"] = records.groupby("code", observed=True)["name"].last()
    else:
        spans["name"] = pd.Series(np.nan, index=spans.index, dtype="str")
    spans = spans.dropna(subset=["first"]).reset_index()
    dates = {day.date() for day in records["date"].dropna().unique()}
    return spans.assign(code=spans["code"].astype("str")), dates

"""The bytes of a CSV or Parquet file -> its header, and Arrow columns by their positions. What they mean is no matter here.

CSV is UTF-8 with or without BOM, or cp949, separated by comma, semicolon or tab.
"""

from __future__ import annotations

import codecs
import csv
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from chartinsight_lib.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LONGEST = 100_000
"""A first line of more bytes is no header."""
NULLS = ["", "-", "nan", "NaN", "null", "NULL", "N/A", "None"]
FOREIGN_BYTES = {b"PAR1": "Parquet", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip or Excel", b"\xd0\xcf\x11\xe0": "Excel",
                 b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # fmt: skip


def read_header(path: Path) -> tuple[list[str], str | None]:
    """Return a file's header and its separator, None for Parquet.

    Raises:
        ConfigError: the file cannot be opened.
        SchemaError: it is empty, damaged, or not what its name says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Check the path and its permissions.") from error
    if not head:
        raise SchemaError(f"{path}: the file is empty. Expected a table with a header.")
    return (_parquet_header(path, head), None) if path.suffix.lower() == ".parquet" else _csv_header(path)


def _parquet_header(path: Path, head: bytes) -> list[str]:
    if head != b"PAR1":
        raise SchemaError(f"{path}: not a Parquet file. If it is text, name it .csv; else get it again.")
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: the Parquet file is damaged ({error}). Get it again.") from error


def _csv_header(path: Path) -> tuple[list[str], str]:
    found = re.split(rb"[\r\n]", _csv_bytes(path), maxsplit=1)[0]
    if len(found) > LONGEST:
        raise SchemaError(
            f"{path}: the first line is {len(found):,} bytes long, and no header. Expected the names of columns."
        )
    line = found.decode()
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


def read_columns(
    path: Path, headers: Sequence[str], separator: str | None, places: Mapping[str, int], texts: set[str]
) -> Any:
    """Return an Arrow table of the columns `places` ({our name: position}).

    Those of a CSV are text, or numbers where every value is one; those named in `texts` always text.

    Raises:
        SchemaError: the table is damaged.
    """
    positions = sorted(set(places.values()))
    try:
        if separator is None:
            table = pq.read_table(path, columns=[headers[at] for at in positions], partitioning=None)
            table = table.select([headers[at] for at in positions])
        else:
            raw = _csv_bytes(path)
            as_text = {places[name] for name in texts}
            try:
                table = _csv_table(raw, len(headers), separator, positions, as_text)
            except (
                pa.ArrowInvalid
            ):  # a number is not plain (2,650,000), or the table is damaged: the second reading tells
                table = _csv_table(raw, len(headers), separator, positions, set(positions))
    except OSError as error:
        raise SchemaError(f"{path}: the file is damaged or cannot be read ({error}). Get it again.") from error
    except pa.ArrowException as error:
        raise SchemaError(f"{path}: the table is damaged ({error}). Get it again or mend it.") from error
    return pa.table({name: table.column(positions.index(at)) for name, at in places.items()})


def _csv_table(raw: bytes, width: int, separator: str, positions: Sequence[int], as_text: set[int]) -> Any:
    return pacsv.read_csv(
        pa.BufferReader(raw),
        read_options=pacsv.ReadOptions(
            column_names=[f"c{at}" for at in range(width)],
            skip_rows=1,
            use_threads=len(as_text) < len(positions),  # one thread tells the row of an error
        ),
        parse_options=pacsv.ParseOptions(delimiter=separator),
        convert_options=pacsv.ConvertOptions(
            include_columns=[f"c{at}" for at in positions],
            column_types={f"c{at}": pa.string() if at in as_text else pa.float64() for at in positions},
            null_values=NULLS,
            strings_can_be_null=True,
        ),
    )

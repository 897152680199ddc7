"""PostgreSQL's binary COPY, packed and unpacked by numpy: the fast road into and out of tables.

A row on the wire is its number of fields (int16), then for each field its length (int32) and its big-endian bytes. With
fixed-width types and no NULL every row has the same size, so a whole table is one numpy array of a structured type. NULL
travels as NaN and is turned at the SQL side.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psycopg2 import extensions

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
CHUNK_ROWS = 100_000
EPOCH = np.datetime64("2000-01-01T00:00:00", "us")  # PostgreSQL counts microseconds from here

WIRE = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float8": ">f8", "timestamptz": ">i8"}


def to_wire_time(times: pd.Series) -> NDArray[np.int64]:
    """Turn tz-aware timestamps into PostgreSQL's microseconds since 2000-01-01 UTC."""
    utc = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    since: NDArray[np.int64] = (utc - EPOCH).astype("timedelta64[us]").astype(np.int64)
    return since


def from_wire_time(microseconds: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Turn PostgreSQL's microseconds since 2000-01-01 UTC into tz-aware timestamps."""
    return pd.DatetimeIndex(EPOCH + microseconds.astype("timedelta64[us]")).tz_localize("UTC")


def copy_in(cursor: extensions.cursor, table: str, columns: Mapping[str, tuple[str, NDArray[Any]]]) -> None:
    """COPY arrays of equal length into `table`: {column: (type, values)}, types as in WIRE, no NULL.

    `table` and the columns' names are ours, never a user's.
    """
    dtype = _row_dtype([kind for kind, _ in columns.values()])
    rows = len(next(iter(columns.values()))[1])
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    for start in range(0, rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, rows)
        packed = np.empty(stop - start, dtype)
        packed["fields"] = len(columns)
        for number, (_, values) in enumerate(columns.values()):
            packed[f"length{number}"] = dtype[f"value{number}"].itemsize
            packed[f"value{number}"] = values[start:stop]
        cursor.copy_expert(statement, io.BytesIO(HEADER + packed.tobytes() + TRAILER))


def copy_out(
    cursor: extensions.cursor, query: str, parameters: Mapping[str, Any], columns: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """Run `query` (values bound as %(name)s) and return its columns as arrays: {column: type}, types as in WIRE.

    The query must yield exactly these columns, in this order, of these types, and no NULL.
    """
    bound = cursor.mogrify(query, parameters).decode()
    buffer = io.BytesIO()
    cursor.copy_expert(f"COPY ({bound}) TO STDOUT (FORMAT binary)", buffer)
    dtype = _row_dtype(list(columns.values()))
    payload = buffer.getbuffer()[len(HEADER) : -len(TRAILER)]
    whole = len(payload) % dtype.itemsize == 0
    rows = np.frombuffer(payload, dtype) if whole else np.empty(0, dtype)
    # A row with a NULL is shorter, so that all after it are out of step: the lengths say so where their sum does not.
    widths = {f"length{number}": dtype[f"value{number}"].itemsize for number in range(len(columns))}
    if not (whole and all((rows[name] == width).all() for name, width in {"fields": len(columns), **widths}.items())):
        raise ValueError(f"copy_out: the rows are not of the types {list(columns.values())}, or a NULL slipped in")
    return {
        name: rows[f"value{number}"].astype(dtype[f"value{number}"].newbyteorder("="))
        for number, name in enumerate(columns)
    }


def _row_dtype(kinds: Sequence[str]) -> np.dtype[Any]:
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for number, kind in enumerate(kinds):
        fields += [(f"length{number}", ">i4"), (f"value{number}", WIRE[kind])]
    return np.dtype(fields)

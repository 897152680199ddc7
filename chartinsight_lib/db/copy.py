"""PostgreSQL's binary COPY, packed and unpacked by numpy: the fast road into and out of tables.

A row on the wire is its number of fields (int16), then for each field its length (int32) and its big-endian bytes. With
fixed-width types and no NULL every row has the same size, so a whole table is one numpy array of a structured type. On the
way out NULL travels as NaN and is turned at the SQL side; on the way in, rows with a NULL are packed apart.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

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


def copy_in(
    cursor: extensions.cursor,
    table: str,
    columns: Mapping[str, tuple[str, NDArray[Any]]],
    *,
    constants: Mapping[str, str | UUID] | None = None,
    nullable: str | None = None,
) -> None:
    """COPY arrays of equal length into `table`: {column: (type, values)}, types as in WIRE, no NULL.

    `table` and the columns' names are ours, never a user's.

    Args:
        constants: {column: text or uuid that every row gets}.
        nullable: a float8 column whose NaN is stored as NULL; the rows that have one go in after the others.
    """
    constants = constants or {}
    rows = np.arange(len(next(iter(columns.values()))[1]))
    missing = np.isnan(columns[nullable][1]) if nullable else np.zeros(len(rows), bool)
    statement = f"COPY {table} ({', '.join([*columns, *constants])}) FROM STDIN (FORMAT binary)"
    for chosen, left_out in ((rows[~missing] if missing.any() else rows, None), (rows[missing], nullable)):
        for start in range(0, len(chosen), CHUNK_ROWS):
            part = chosen[start : start + CHUNK_ROWS]
            # Rows that follow one another are a view and no copy.
            where = slice(part[0], part[-1] + 1) if part[-1] - part[0] + 1 == len(part) else part
            packed = _packed(columns, constants, where, len(part), left_out)
            cursor.copy_expert(statement, io.BytesIO(HEADER + packed.tobytes() + TRAILER))


def _packed(
    columns: Mapping[str, tuple[str, NDArray[Any]]],
    constants: Mapping[str, str | UUID],
    where: slice | NDArray[np.int64],
    rows: int,
    null: str | None,
) -> NDArray[Any]:
    """Return rows as they go over the wire; the column `null` is NULL in all of them."""
    same = {name: value.bytes if isinstance(value, UUID) else value.encode() for name, value in constants.items()}
    kinds = [(name, None if name == null else WIRE[kind]) for name, (kind, _) in columns.items()]
    kinds += [(name, f"V{len(value)}") for name, value in same.items()]
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for number, (_, form) in enumerate(kinds):
        fields += [(f"length{number}", ">i4"), *([(f"value{number}", form)] if form else [])]
    packed = np.empty(rows, np.dtype(fields))
    packed["fields"] = len(kinds)
    for number, (name, form) in enumerate(kinds):
        packed[f"length{number}"] = packed.dtype[f"value{number}"].itemsize if form else -1
        if name in same:
            packed[f"value{number}"] = np.void(same[name])
        elif form:
            packed[f"value{number}"] = columns[name][1][where]
    return packed


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

"""What goes through PostgreSQL's binary COPY comes back unchanged, and is what a plain INSERT and SELECT would say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg2 import extensions
from sqlalchemy import Connection

from chartinsight_lib.db import copy

KINDS = ["int2", "int4", "int8", "float8"]
NUMPY = {"int2": np.int16, "int4": np.int32, "int8": np.int64, "float8": np.float64}
EXTREMES = [0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.1, 2.0**53 + 2]
UNITS = ["s", "ms", "us", "ns"]
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 12, 31, 23, 59, 59, tzinfo=UTC)

# One transaction serves all examples: each makes the table anew.
many = hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, tuple[str, np.ndarray]]:
    """Columns of one length and any types, in any order."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    rows = draw(st.integers(0, 12))
    columns = {}
    for number, kind in enumerate(kinds):
        if kind == "float8":
            values = st.one_of(st.sampled_from(EXTREMES), st.floats(allow_nan=True, allow_infinity=True))
        else:
            limits = np.iinfo(NUMPY[kind])
            values = st.integers(int(limits.min), int(limits.max))
        drawn = draw(st.lists(values, min_size=rows, max_size=rows))
        columns[f"c{number}"] = (kind, np.array(drawn, dtype=NUMPY[kind]))
    return columns


def cursor_of(conn: Connection) -> extensions.cursor:
    return conn.connection.cursor()


def make_table(cursor: extensions.cursor, columns: dict[str, str]) -> None:
    listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    cursor.execute(f"DROP TABLE IF EXISTS wire; CREATE TEMPORARY TABLE wire (at serial, {listed})")


@given(table=tables())
@many
def test_arrays_come_back_bit_by_bit_and_as_a_plain_select_reads_them(conn, table):
    cursor = cursor_of(conn)
    kinds = {name: kind for name, (kind, _) in table.items()}
    make_table(cursor, kinds)
    copy.copy_in(cursor, "wire", table)
    names = ", ".join(table)
    back = copy.copy_out(cursor, f"SELECT {names} FROM wire ORDER BY at", {}, kinds)
    assert list(back) == list(table)
    for name, (kind, values) in table.items():
        assert back[name].dtype == NUMPY[kind]
        # NaN is NaN, whichever; all else, the sign of zero too, is the same bits.
        np.testing.assert_array_equal(back[name], values)
        if kind == "float8":
            np.testing.assert_array_equal(np.signbit(back[name][values == 0]), np.signbit(values[values == 0]))
    cursor.execute(f"SELECT {names} FROM wire ORDER BY at")
    for row, plain in enumerate(cursor.fetchall()):
        np.testing.assert_array_equal(plain, [values[row] for _, values in table.values()])


@given(
    moments=st.lists(
        st.datetimes(FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None), timezones=st.just(UTC)), max_size=12
    ),
    unit=st.sampled_from(UNITS),
    zone=st.sampled_from(["UTC", "Asia/Seoul", "America/New_York"]),
)
@many
def test_times_come_back_and_as_a_plain_select_reads_them(conn, moments, unit, zone):
    if unit == "s":
        moments = [moment.replace(microsecond=0) for moment in moments]
    if unit == "ms":
        moments = [moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in moments]
    series = pd.Series(moments, dtype="datetime64[us, UTC]").dt.tz_convert(zone).astype(f"datetime64[{unit}, {zone}]")
    cursor = cursor_of(conn)
    make_table(cursor, {"ts": "timestamptz"})
    copy.copy_in(cursor, "wire", {"ts": ("timestamptz", copy.to_wire_time(series))})

    wire = copy.copy_out(cursor, "SELECT ts FROM wire ORDER BY at", {}, {"ts": "timestamptz"})["ts"]
    # By hand: whole microseconds since PostgreSQL's new year of 2000.
    assert wire.tolist() == [
        (moment - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for moment in moments
    ]
    back = copy.from_wire_time(wire)
    assert str(back.tz) == "UTC"
    assert [moment.to_pydatetime() for moment in back] == moments
    cursor.execute("SELECT ts FROM wire ORDER BY at")
    assert [moment for (moment,) in cursor.fetchall()] == moments


def test_a_daily_stamp_is_midnight_utc_of_its_day(conn):
    day = pd.Series(pd.DatetimeIndex(["2024-08-05"], tz="UTC"))
    cursor = cursor_of(conn)
    make_table(cursor, {"ts": "timestamptz"})
    copy.copy_in(cursor, "wire", {"ts": ("timestamptz", copy.to_wire_time(day))})
    cursor.execute("SELECT to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM wire")
    assert cursor.fetchall() == [("2024-08-05 00:00:00",)]


def test_more_rows_than_one_portion_come_back_whole_and_in_order(conn, monkeypatch):
    monkeypatch.setattr(copy, "CHUNK_ROWS", 7)
    cursor = cursor_of(conn)
    make_table(cursor, {"n": "int4"})
    numbers = np.arange(7 * 3 + 1, dtype=np.int32)
    copy.copy_in(cursor, "wire", {"n": ("int4", numbers)})
    back = copy.copy_out(cursor, "SELECT n FROM wire ORDER BY at", {}, {"n": "int4"})
    assert back["n"].tolist() == numbers.tolist()


def test_values_are_bound_and_never_pasted(conn):
    asked = "'; DROP TABLE wire; --"
    query = "SELECT length(%(word)s)::int4 AS n"
    assert copy.copy_out(cursor_of(conn), query, {"word": asked}, {"n": "int4"})["n"].tolist() == [len(asked)]


# A row of one float8 takes 14 bytes, and a NULL leaves 8 of them out: seven NULLs are as many bytes as three rows.
@pytest.mark.parametrize("rows", [1, 2, 7, 14])
@pytest.mark.parametrize("numbers", [0, 1, 3])
def test_a_null_is_an_error_however_many_there_are(conn, rows, numbers):
    query = """
        SELECT CASE WHEN n > %(numbers)s THEN NULL ELSE n END::float8 AS x
        FROM generate_series(1, %(rows)s) AS n ORDER BY n
    """
    asked: dict[str, Any] = {"numbers": numbers, "rows": numbers + rows}
    with pytest.raises(ValueError, match="NULL"):
        copy.copy_out(cursor_of(conn), query, asked, {"x": "float8"})


def test_a_column_of_another_type_than_said_is_an_error(conn):
    with pytest.raises(ValueError, match="copy_out"):
        copy.copy_out(cursor_of(conn), "SELECT n::int4, n::int8 FROM generate_series(1, 3) AS n", {},
                      {"a": "int8", "b": "int4"})  # fmt: skip


@given(
    values=st.lists(st.one_of(st.just(float("nan")), st.floats(allow_nan=False)), max_size=25),
    word=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    run=st.uuids(),
    chunk=st.integers(1, 9),
)
@many
def test_constants_and_missing_numbers_are_what_a_plain_select_reads(conn, values, word, run, chunk):
    cursor = cursor_of(conn)
    make_table(cursor, {"n": "int4", "x": "float8", "word": "text", "run": "uuid"})
    numbers = np.arange(len(values), dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy, "CHUNK_ROWS", chunk)
        columns = {"n": ("int4", numbers), "x": ("float8", np.array(values, dtype="float64"))}
        copy.copy_in(cursor, "wire", columns, constants={"word": word, "run": run}, nullable="x")
    cursor.execute("SELECT n, x, word, run::text FROM wire ORDER BY n")
    expected = [(n, None if np.isnan(x) else x, word, str(run)) for n, x in enumerate(values)]
    assert cursor.fetchall() == expected


def test_without_a_nullable_column_a_missing_number_stays_one(conn):
    cursor = cursor_of(conn)
    make_table(cursor, {"x": "float8"})
    copy.copy_in(cursor, "wire", {"x": ("float8", np.array([np.nan, 1.0]))})
    cursor.execute("SELECT x = 'NaN' FROM wire ORDER BY at")
    assert cursor.fetchall() == [(True,), (False,)]

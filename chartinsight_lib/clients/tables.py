"""The rows of one file under our names: codes as text, numbers as they are, dates as they are written.

Numbers that cannot be read stay text; refused is only what cannot be bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from chartinsight_lib.clients.layouts import UNNAMED, missing_dates, short, without_creon
from chartinsight_lib.clients.moments import Written, is_text, one_day, read_written
from chartinsight_lib.clients.raw_tables import read_columns
from chartinsight_lib.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from chartinsight_lib.clients.layouts import Layout

KIWOOM_VALUE = "trdeprica"  # Kiwoom's value is in millions of won
KIWOOM_PRICES = {"openpric", "highpric", "lowpric", "curprc"}  # their sign is the direction against yesterday


@dataclass(frozen=True)
class Rows:
    """Rows of a file: `frame` has the columns asked for, but the date, and `row`, the number of each in the file from 1 on."""

    frame: pd.DataFrame
    written: Written
    """Their dates."""


def read_rows(layout: Layout, names: Sequence[str], market: str | None) -> Rows:
    """Read the columns `names` of a file, `code` (categorical text) and the dates; those rows alone that `layout.only` wants.

    Raises:
        SchemaError: the table is damaged, no date can be read, or the codes are numbers that have lost their zeros.
    """
    own = [name for name in ("code", "date", *names) if name in layout.columns]
    places = {name: layout.columns[name] for name in own} | {f"only {at}": at for at, _ in layout.only}
    if not places:  # one column will do to count the rows
        places = {"": 0}
    texts = {name for name in places if name in {"code", "date", "name"} or name.startswith("only ")}
    table = read_columns(layout.path, layout.headers, layout.separator, places, texts)
    numbers = np.arange(len(table))
    for at, value in layout.only:
        numbers = numbers[_has(table.column(f"only {at}"), value)[numbers]]
    if layout.only:
        table = table.take(pa.array(numbers))
    frame: dict[str, Any] = {
        "code": _codes(layout, table.column("code") if "code" in own else None, len(table), market)
    }
    for name in (name for name in own if name not in {"code", "date"}):
        column = table.column(name)
        frame[name] = column.cast(pa.string()).to_pandas() if name == "name" else _number(layout, name, column)
    written = (
        one_day(layout.day, len(table)) if layout.day is not None else read_written(table.column("date"), layout.path)
    )
    if len(table) and np.isnat(written.days).all():
        if layout.says("date") in UNNAMED:
            raise missing_dates(layout)
        raise SchemaError(
            f"{layout.path}: no value of {layout.headers[layout.columns['date']]!r} is a date; found "
            f"{', '.join(written.words[:3]) or 'nothing'}. Expected dates such as 2024-08-05, 20240805 or 2024/08/05."
        )
    return Rows(pd.DataFrame({**frame, "row": numbers + 1}, copy=False), written)


def read_texts(layout: Layout, position: int, rows: NDArray[np.int64]) -> pd.Series:
    """Return one column as text, missing values as "", at some rows (numbers from 1 on)."""
    column = read_columns(layout.path, layout.headers, layout.separator, {"text": position}, {"text"}).column("text")
    texts: pd.Series = _text(column).combine_chunks().take(pa.array(rows - 1)).to_pandas()
    return texts.fillna("").astype("str").str.strip()


def holds_text(layout: Layout, position: int) -> bool:
    """Whether a column may hold words: in CSV every one may."""
    if layout.separator is not None:
        return True
    column = read_columns(layout.path, layout.headers, None, {"": position}, set()).column(0)
    return is_text(column.type)


def _has(column: Any, value: str) -> NDArray[np.bool_]:
    same = pc.equal(pc.utf8_trim_whitespace(_text(column)), value)
    return np.asarray(same.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _text(column: Any) -> Any:
    return (column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column).cast(pa.string())


def _codes(layout: Layout, column: Any, rows: int, market: str | None) -> pd.Categorical:
    """Return codes as categorical text. A number is no code: zeros are put back for KRX, when KRX was asked for."""
    if column is None:
        return pd.Categorical.from_codes(np.zeros(rows, dtype="int8"), pd.Index([layout.code], dtype="str"))
    whole = pa.types.is_integer(column.type)
    if not whole and not is_text(column.type):
        raise SchemaError(
            f"{layout.path}: the codes are of type {column.type}. Save them as text: leading zeros matter."
        )
    coded = _text(column).combine_chunks().dictionary_encode()
    texts = pd.Series(coded.dictionary.to_pandas(), dtype="str")
    texts = texts.str.strip("'=\" ").str.upper().map(without_creon, na_action="ignore")
    digits = texts.str.fullmatch(r"\d+", na=False) & ((texts.str.len() < 6) | whole)
    if digits.any() and market != "KRX":
        raise SchemaError(
            f"{layout.path}: the codes are numbers, such as {texts[digits].iloc[0]}; a Korean code has six characters, "
            "and leading zeros get lost in numbers. If these are Korean, say --market KRX and the zeros are put back; "
            "else save the codes as text."
        )
    texts = texts.mask(digits, texts.str.zfill(6))
    places, codes = pd.factorize(texts.where(texts != ""), sort=True)
    rows_of = coded.indices.fill_null(len(places)).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(np.append(places, -1)[rows_of], pd.Index(codes, dtype="str"))


def _number(layout: Layout, name: str, column: Any) -> pd.Series:
    """Return a column of numbers as it is, but for what Kiwoom's own headers are known to mean."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    elif pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    values: pd.Series = column.to_pandas()
    header = short(layout.headers[layout.columns[name]])
    if header in KIWOOM_PRICES:
        return values.abs() if pd.api.types.is_numeric_dtype(values) else values.astype("str").str.lstrip("+-")
    if header == KIWOOM_VALUE:
        plain = pd.to_numeric(values.astype("str").str.replace(",", ""), errors="coerce") * 1e6
        return plain if plain.notna().equals(values.notna()) else plain.astype(object).where(plain.notna(), values)
    return values

"""Dates and times as files write them -> trading days, or the starts of shorter bars.

Each word is read once, however many rows have it. What is no date stays as it was, for the quarantine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from chartinsight_lib.errors import SchemaError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from numpy.typing import NDArray

FIVE_MINUTES = 300
DAY = re.compile(
    r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|(\d\d)(\d\d))(?P<time>[T ]?[\d:.]+)?(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
TIME = re.compile(r"[T ]?(\d\d?)(?::?(\d\d))(?::?(\d\d)(?:\.\d+)?)?")


@dataclass(frozen=True)
class Written:
    """A column of dates: each distinct word, and which of them every row has (-1: none).

    days: datetime64[s], NaT where the word is no date; seconds: the time of day, 0 where none is written; east: seconds by which
    the word's zone is ahead of UTC, NaN where it names none.
    """

    words: list[str]
    rows: NDArray[np.int64]
    days: NDArray[np.datetime64]
    seconds: NDArray[np.int64]
    east: NDArray[np.float64]

    @property
    def timed(self) -> bool:
        """Whether some word has a time of day other than midnight: then these are no days."""
        return bool((self.seconds > 0).any())

    @property
    def example(self) -> str:
        """The first word with a time of day."""
        return self.words[int(np.argmax(self.seconds > 0))]

    @property
    def local(self) -> NDArray[np.datetime64]:
        """Date and time of each row as they are written, datetime64[s]; NaT for what is none."""
        return np.append(self.days + self.seconds, np.datetime64("NaT", "s"))[self.rows]

    def kept(self, rows: NDArray[np.int64]) -> Written:
        """Return these rows alone."""
        return Written(self.words, self.rows[rows], self.days, self.seconds, self.east)


def read_written(column: Any, path: object) -> Written:
    """Read an Arrow column of dates, stamps, text or integers. Raises SchemaError, with `path`, for any other type."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    coded = column.combine_chunks().dictionary_encode()
    kind, found = column.type, coded.dictionary
    if pa.types.is_timestamp(kind):
        stamps = found.cast(pa.timestamp("s", kind.tz), safe=False)
        found = pc.strftime(stamps, format="%Y-%m-%d %H:%M:%S" + ("%z" if kind.tz else ""))
    elif pa.types.is_date(kind):
        found = found.cast(pa.date32()).cast(pa.string())
    elif not (pa.types.is_integer(kind) or is_text(kind)):
        raise SchemaError(f"{path}: the dates are of type {kind}. Expected dates, text or integers like 20240805.")
    words = [str(word).strip() for word in found.to_pylist()]
    read = [_read(word) for word in words]
    return Written(
        words,
        np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64),
        np.array([day for day, _, _ in read], dtype="datetime64[s]"),
        np.array([seconds for _, seconds, _ in read], dtype=np.int64),
        np.array([east for _, _, east in read], dtype=np.float64),
    )


def one_day(day: np.datetime64, rows: int) -> Written:
    """Return a column that has one date in every row."""
    return Written(
        [str(day)],
        np.zeros(rows, dtype=np.int64),
        np.array([day], dtype="datetime64[s]"),
        np.zeros(1, dtype=np.int64),
        np.array([np.nan]),
    )


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds text, encoded or not."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values))


def trading_days(written: Written) -> Any:
    """Return trading dates as datetime64[s]; when some cannot be read, objects: those stay as they were."""
    days = np.append(written.days, np.datetime64("NaT", "s"))[written.rows]
    unread = np.isnat(days)
    if not unread.any():
        return days
    mixed = pd.Series(days).astype(object)
    return mixed.where(
        ~unread, pd.Series([*written.words, None], dtype=object).take(written.rows).reset_index(drop=True)
    )


def starts(written: Written, zone: ZoneInfo) -> pd.Series:
    """Return moments, datetime64[us, UTC]; a word that names no zone is in that of the market. NaT for what is none."""
    naive = pd.Series(written.days + written.seconds).astype("datetime64[us]")
    here = naive.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")
    there = (naive - pd.to_timedelta(pd.Series(written.east), unit="s")).dt.tz_localize("UTC")
    moments = here.where(np.isnan(written.east), there).astype("datetime64[us, UTC]")
    return (
        pd.concat([moments, pd.Series([pd.NaT], dtype=moments.dtype)], ignore_index=True)
        .take(written.rows)
        .reset_index(drop=True)
    )


def check_five_minutes(written: Written, codes: pd.Categorical, path: object) -> None:
    """Raise SchemaError when times of day are not the starts of five-minute bars."""
    stamps, code = written.local, np.asarray(codes.codes)
    known = ~np.isnat(stamps) & (code >= 0)
    order = np.lexsort((stamps[known], code[known]))
    stamps, code = stamps[known][order], code[known][order]
    steps = (stamps[1:] - stamps[:-1]).astype(np.int64)
    same = (code[1:] == code[:-1]) & (stamps[1:].astype("datetime64[D]") == stamps[:-1].astype("datetime64[D]"))
    steps = steps[same & (steps > 0)]
    if not len(steps):
        raise SchemaError(
            f"{path}: holds one bar a day, with a time of day, such as {written.example}. Write the dates alone, as in 2024-08-05."
        )
    if steps.min() != FIVE_MINUTES or (written.seconds % FIVE_MINUTES).any():
        raise SchemaError(
            f"{path}: holds bars of {np.gcd.reduce(np.append(steps, written.seconds)) / 60:g} minutes, such as {written.example}. "
            "Kept are bars of a day and of five minutes, named by their starts; make such of them first."
        )


def _read(word: str) -> tuple[str, int, float]:
    """Return ISO date (NaT: it is none), seconds of the day, and seconds east of UTC (NaN: no zone) of one word."""
    nothing = ("NaT", 0, np.nan)
    parts = DAY.fullmatch(word)
    if parts is None:
        return nothing
    time = TIME.fullmatch(parts["time"]) if parts["time"] else None
    if parts["time"] and (time is None or int(time[1]) > 23 or int(time[2]) > 59):
        return nothing
    seconds = int(time[1]) * 3600 + int(time[2]) * 60 + int(time[3] or 0) if time else 0
    zone, east = parts["zone"], np.nan
    if zone:
        digits = zone[1:].replace(":", "")
        east = 0.0 if zone == "Z" else float(zone[0] + "1") * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)
    year, month, day = int(parts[1]), int(parts[3] or parts[5]), int(parts[4] or parts[6])
    try:
        return str(np.datetime64(f"{year:04}-{month:02}-{day:02}")), seconds, east
    except ValueError:
        return nothing

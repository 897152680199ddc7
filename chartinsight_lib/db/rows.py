"""Frames of few rows -> tables, by one multi-row INSERT; what an upsert did, counted. Many rows go by `copy`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psycopg2 import Error as DriverError
from psycopg2 import extensions
from psycopg2.extras import execute_values
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from chartinsight_lib.errors import SchemaError

REFUSALS = (SQLAlchemyError, DriverError)
"""What the database raises when it refuses something or cannot be reached: the driver's own where its cursor was used."""


def refusal(error: Exception) -> str:
    """Say that the database refused something, by the name of the error alone: what the driver says may hold the rows."""
    return f"the database refused it ({type(getattr(error, 'orig', None) or error).__name__})."


@dataclass(frozen=True, slots=True)
class Changes:
    """What an upsert did with the rows it was given."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0

    @property
    def changed(self) -> int:
        """Rows that are different now."""
        return self.inserted + self.updated


def upsert_rows(conn: Connection, statement: str, rows: pd.DataFrame, *constants: object) -> Changes:
    """Run an upsert that returns, for each row it wrote, whether it is new; `constants` follow the values of each row."""
    if rows.empty:
        return Changes()
    values = [(*row, *constants) for row in _tuples(rows)]
    written = execute_values(driver_cursor(conn), statement, values, page_size=1000, fetch=True)
    inserted = sum(1 for (fresh,) in written if fresh)
    return Changes(inserted, len(written) - inserted, len(values) - len(written))


def numbers_of(codes: pd.Series, ids: pd.Series) -> NDArray[np.int32]:
    """Return the instrument ids of codes. Raises SchemaError for a code that is no instrument."""
    place, words = pd.factorize(codes)
    numbers = ids.reindex(words)
    if numbers.isna().any():
        unknown = sorted(numbers.index[numbers.isna()])
        raise SchemaError(
            f"store: {len(unknown)} codes are no instruments yet ({', '.join(unknown[:5])}). Sync instruments first."
        )
    return numbers.to_numpy("int32")[place]


def driver_cursor(conn: Connection) -> extensions.cursor:
    """The driver's cursor inside SQLAlchemy's transaction: COPY and multi-row VALUES need it."""
    return conn.connection.cursor()


def _tuples(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Turn a frame into rows of plain Python values for the driver: no numpy scalar, and a missing value is None."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns]
    return list(zip(*([_plain(value) for value in column] for column in columns), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if isinstance(value, np.generic) else value

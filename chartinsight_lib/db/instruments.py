"""Instruments: what is listed now. The caller owns the transaction."""

from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, text

from chartinsight_lib.db.rows import Changes, upsert_rows
from chartinsight_lib.domain import INSTRUMENT


def upsert_instruments(conn: Connection, instruments: pd.DataFrame, *, source: str, run_id: UUID) -> Changes:
    """Insert new instruments, overwrite what changed of known ones. `instruments`: domain.INSTRUMENT columns."""
    return upsert_rows(
        conn,
        """
        INSERT INTO live.instruments AS i
               (market, code, name, kind, sector, listed_on, delisted_on, currency, source, run_id)
        VALUES %s
        ON CONFLICT (market, code) DO UPDATE  -- a source that does not know takes nothing away; a code is no name
        SET    name = CASE excluded.name WHEN excluded.code THEN i.name ELSE excluded.name END, kind = excluded.kind,
               sector = COALESCE(excluded.sector, i.sector), listed_on = COALESCE(excluded.listed_on, i.listed_on),
               delisted_on = COALESCE(excluded.delisted_on, i.delisted_on), currency = excluded.currency,
               source = excluded.source, run_id = excluded.run_id
        WHERE  (excluded.name <> excluded.code AND i.name <> excluded.name)
           OR  (i.kind, i.currency, i.sector, i.listed_on, i.delisted_on) IS DISTINCT FROM
               (excluded.kind, excluded.currency, COALESCE(excluded.sector, i.sector),
                COALESCE(excluded.listed_on, i.listed_on), COALESCE(excluded.delisted_on, i.delisted_on))
        RETURNING (xmax = 0)
        """,
        instruments[INSTRUMENT].sort_values(["market", "code"]),
        source,
        str(run_id),
    )


def instrument_ids(conn: Connection, market: str) -> pd.Series:
    """Return {code: id} of a market's instruments as a Series (int, index code)."""
    rows = conn.execute(text("SELECT code, id FROM live.instruments WHERE market = :market"), {"market": market})
    return pd.Series({code: number for code, number in rows}, dtype="int64")  # noqa: C416 - rows are no pairs to mypy

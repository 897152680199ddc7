"""Instruments: what is listed now, what was known of it from which date on, and which ones the newest lists lack.

The caller owns the transaction. NULL is not known, and a source that does not know takes nothing away.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from uuid import UUID

import pandas as pd
from psycopg2 import sql
from sqlalchemy import Connection, text

from chartinsight_lib.db.rows import Changes, driver_cursor, upsert_rows
from chartinsight_lib.domain import ATTRIBUTES, INSTRUMENT

STRIKES = 2
"""On so many trading days a whole list has to lack an instrument before it counts as delisted."""

_TOLD = ["sector", "listed_on", "currency", *ATTRIBUTES]
_DATED = [
    "name", "kind", "board", "sector", "section", "shares", "states", "nxt_enabled", "listed_on", "delisted_on"
]  # fmt: skip
_LIST_LOCK = 0x1157  # one list of a market at a time


def upsert_instruments(
    conn: Connection, instruments: pd.DataFrame, *, source: str, run_id: UUID, whole_market: bool = False
) -> Changes:
    """Insert new instruments, overwrite what changed of known ones.

    Args:
        instruments: the columns domain.INSTRUMENT; those of domain.ATTRIBUTES may be missing. A name that is the code is none.
        whole_market: the source lists all there is of the market, now. What such a list has is not delisted; and of what one
            has listed, other sources only add what is not known: a file of prices cannot tell a fund from a stock.
    """
    rows = instruments.reindex(columns=[*INSTRUMENT, *ATTRIBUTES]).sort_values(["market", "code"])
    statement = sql.SQL("""
        INSERT INTO live.instruments AS i ({columns}, listed_by, source, run_id) VALUES %s
        ON CONFLICT (market, code) DO UPDATE
        SET    ({set}) = ROW ({new}), source = excluded.source, run_id = excluded.run_id
        WHERE  ({old}) IS DISTINCT FROM ({new})
        RETURNING (xmax = 0)
    """)
    changed = ["name", "kind", "delisted_on", "listed_by", *_TOLD]
    composed = statement.format(
        columns=_listed([*INSTRUMENT, *ATTRIBUTES], "{}"),
        set=_listed(changed, "{}"),
        old=_listed(changed, "i.{}"),
        new=sql.SQL(", ").join([*map(sql.SQL, (_NAME, _KIND, _DELISTED_ON, _LISTED_BY)), _listed(_TOLD, _VALUE)]),
    )
    listed_by = [source] if whole_market else []
    return upsert_rows(conn, composed.as_string(driver_cursor(conn)), rows, listed_by, source, str(run_id))


# Whether the newcomer knows better than what is held: it lists the whole market, or nobody who does has told of it.
_BETTER = "(excluded.listed_by <> '{{}}' OR i.listed_by = '{{}}')"  # doubled for sql.SQL.format
_VALUE = f"CASE WHEN {_BETTER} THEN COALESCE(excluded.{{0}}, i.{{0}}) ELSE COALESCE(i.{{0}}, excluded.{{0}}) END"
_NAME = (
    f"CASE WHEN {_BETTER} THEN COALESCE(NULLIF(excluded.name, excluded.code), i.name) "
    "ELSE COALESCE(NULLIF(i.name, i.code), excluded.name) END"
).format()
# KRX calls everything that is listed a stock: that is no word against a list that knows of another kind.
_KIND = (
    f"CASE WHEN {_BETTER} AND NOT (excluded.kind = 'stock' AND NOT i.listed_by <@ excluded.listed_by) "
    "THEN excluded.kind ELSE i.kind END"
).format()
_DELISTED_ON = (
    "CASE WHEN excluded.listed_by <> '{}' THEN excluded.delisted_on WHEN i.listed_by <> '{}' THEN i.delisted_on "
    "ELSE COALESCE(excluded.delisted_on, i.delisted_on) END"
)
_LISTED_BY = "CASE WHEN i.listed_by @> excluded.listed_by THEN i.listed_by ELSE i.listed_by || excluded.listed_by END"


def instrument_ids(conn: Connection, market: str) -> pd.Series:
    """Return {code: id} of a market's instruments as a Series (int, index code)."""
    rows = conn.execute(text("SELECT code, id FROM live.instruments WHERE market = :market"), {"market": market})
    return pd.Series({code: number for code, number in rows}, dtype="int64")  # noqa: C416 - rows are no pairs to mypy


def lock_listing(conn: Connection, market: str) -> None:
    """Wait until no other transaction keeps a market's list, and keep it until this one ends."""
    conn.execute(text("SELECT pg_advisory_xact_lock(:key, hashtext(:market))"), {"key": _LIST_LOCK, "market": market})


def active(conn: Connection, market: str, source: str) -> pd.DataFrame:
    """Return what `source`, which lists the whole market, has listed and is not delisted: index code; instrument_id, board."""
    rows = conn.execute(
        text("""
            SELECT code, id, board FROM live.instruments
            WHERE  market = :market AND delisted_on IS NULL AND :source = ANY(listed_by) ORDER BY code
        """),
        {"market": market, "source": source},
    )
    return pd.DataFrame(rows.all(), columns=["code", "instrument_id", "board"]).set_index("code")


def strike(conn: Connection, instrument_ids: Sequence[int], day: date, *, source: str, run_id: UUID) -> list[int]:
    """Note that a whole list of `day`, a trading day, lacks listed instruments; return those that are delisted by this, on
    the first day on which they were lacked. A second list of the same day, or one of an earlier day, notes nothing."""
    values = {
        "ids": list(instrument_ids), "day": day, "source": source, "run_id": run_id, "enough": STRIKES
    }  # fmt: skip
    conn.execute(
        text("""
            INSERT INTO ops.listing_strikes AS s (instrument_id, first_absent, last_absent, strikes, run_id)
            SELECT id, :day, :day, 1, :run_id FROM unnest(CAST(:ids AS int[])) AS absent (id)
            ON CONFLICT (instrument_id) DO UPDATE
            SET    last_absent = excluded.last_absent, strikes = s.strikes + 1, run_id = excluded.run_id
            WHERE  s.last_absent < excluded.last_absent
        """),
        values,
    )
    delisted = conn.execute(
        text("""
            UPDATE live.instruments AS i SET delisted_on = s.first_absent, source = :source, run_id = :run_id
            FROM   ops.listing_strikes AS s
            WHERE  s.instrument_id = i.id AND i.id = ANY(:ids) AND i.delisted_on IS NULL AND s.strikes >= :enough
            RETURNING i.id
        """),
        values,
    )
    return sorted(delisted.scalars())


def clear_strikes(conn: Connection, instrument_ids: Sequence[int]) -> None:
    """Forget that lists lacked these instruments: a whole list has them."""
    conn.execute(text("DELETE FROM ops.listing_strikes WHERE instrument_id = ANY(:ids)"), {"ids": list(instrument_ids)})


def record_history(conn: Connection, instrument_ids: Sequence[int], day: date) -> int:
    """Keep what is known now of these instruments as their state from `day` (a date of their market) on, where it is another
    than the one before; a state of the same day is replaced. Return how many rows changed."""
    columns = _listed(_DATED, "{}")
    statement = sql.SQL("""
        INSERT INTO live.instrument_history AS h (instrument_id, valid_from, {columns}, source, run_id)
        SELECT i.id, %(day)s, {current}, i.source, i.run_id
        FROM   live.instruments AS i
        LEFT   JOIN LATERAL (
            SELECT * FROM live.instrument_history AS b
            WHERE  b.instrument_id = i.id AND b.valid_from <= %(day)s ORDER BY b.valid_from DESC LIMIT 1
        ) AS b ON true
        WHERE  i.id = ANY(%(ids)s) AND (b.instrument_id IS NULL OR ({before}) IS DISTINCT FROM ({current}))
        ORDER  BY i.id
        ON CONFLICT (instrument_id, valid_from) DO UPDATE
        SET    ({columns}, source, run_id) = ROW ({new}, excluded.source, excluded.run_id)
    """).format(
        columns=columns, current=_listed(_DATED, "i.{}"), before=_listed(_DATED, "b.{}"), new=_listed(_DATED, "excluded.{}")
    )  # fmt: skip
    cursor = driver_cursor(conn)
    cursor.execute(statement, {"day": day, "ids": list(instrument_ids)})
    return int(cursor.rowcount)


def universe_as_of(conn: Connection, market: str, day: date) -> pd.DataFrame:
    """Return what was listed on `day`, as it was known on that day.

    What a list told first on a later day is not carried back. Of such an instrument only the listing dates are taken (without
    one, the date of its first daily bar): it is in the frame, `certain` is false, and its attributes are missing values.
    Rows that are certain stay as they are, whatever is learnt after `day`.

    Returns:
        index instrument_id, ascending. market, code (text); name, kind, board, sector, section (text); shares (Int64); states
        (list of text, None: not known); nxt_enabled (boolean); listed_on, delisted_on (date; a delisting known ahead);
        close (the last final daily bar up to `day`, as stored: in currency, on the basis of its source; NaN: none);
        known_from (date of the first state that is known, None: none); certain (bool).
    """
    rows = conn.execute(
        text("""
            SELECT i.id AS instrument_id, i.market, i.code, h.name, h.kind, h.board, h.sector, h.section, h.shares, h.states,
                   h.nxt_enabled, COALESCE(h.listed_on, i.listed_on) AS listed_on,
                   CASE WHEN h.instrument_id IS NULL THEN i.delisted_on ELSE h.delisted_on END AS delisted_on,
                   (SELECT c.close FROM live.candles AS c
                    WHERE  c.instrument_id = i.id AND c.timeframe = '1d' AND c.ts < :end AND (c.flags & 1) = 0
                    ORDER  BY c.ts DESC LIMIT 1) AS close,
                   (SELECT min(k.valid_from) FROM live.instrument_history AS k WHERE k.instrument_id = i.id) AS known_from,
                   h.instrument_id IS NOT NULL AS certain
            FROM   live.instruments AS i
            LEFT   JOIN LATERAL (
                SELECT * FROM live.instrument_history AS b
                WHERE  b.instrument_id = i.id AND b.valid_from <= :day ORDER BY b.valid_from DESC LIMIT 1
            ) AS h ON true
            WHERE  i.market = :market AND CASE
                WHEN h.instrument_id IS NOT NULL
                THEN COALESCE(h.listed_on <= :day, true) AND COALESCE(:day < h.delisted_on, true)
                ELSE COALESCE(:day < i.delisted_on, true) AND COALESCE(i.listed_on, (
                         SELECT (min(c.ts) AT TIME ZONE 'UTC')::date FROM live.candles AS c
                         WHERE  c.instrument_id = i.id AND c.timeframe = '1d'
                     )) <= :day
                END
            ORDER  BY i.id
        """),
        {"market": market, "day": day, "end": datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)},
    )
    frame = pd.DataFrame(rows.all(), columns=list(rows.keys())).set_index("instrument_id")
    return frame.astype(_TYPES).where(frame.notna() | ~frame.columns.isin(_OBJECTS), None)


_OBJECTS = ["states", "listed_on", "delisted_on", "known_from"]
_TYPES = {
    **dict.fromkeys(["market", "code", "name", "kind", "board", "sector", "section"], "str"),
    **dict.fromkeys(_OBJECTS, "object"),
    "shares": "Int64", "nxt_enabled": "boolean", "close": "float64", "certain": "bool",
}  # fmt: skip


def _listed(names: Sequence[str], form: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(form).format(sql.Identifier(name)) for name in names)

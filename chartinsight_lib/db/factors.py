"""The events between prices of different days: what sources tell of, and the seams found between two of them.

For each instrument and ex-date the newest finding stands (`api.factors`); a dividend stands beside it. The caller owns the
transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, text

from chartinsight_lib.db.rows import Changes, numbers_of, upsert_rows

OPEN = ("unknown", "assumed")
"""Kinds of a seam whose factor nothing has told yet."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The factors that hold for the stored bars of one instrument, dividends left out; `open_seams`: those of kind OPEN."""

    factors: dict[date, float]
    open_seams: frozenset[date]


def chains(conn: Connection, instrument_ids: Sequence[int]) -> dict[int, Chain]:
    """Return {instrument id: its chain} of those that have any factor."""
    rows = conn.execute(
        text("""
            SELECT instrument_id, ex_date, price_factor, kind FROM api.factors
            WHERE  instrument_id = ANY(:ids) AND kind <> 'dividend'
        """),
        {"ids": list(instrument_ids)},
    )
    found: dict[int, tuple[dict[date, float], set[date]]] = {}
    for number, ex_date, factor, kind in rows:
        factors, seams = found.setdefault(number, ({}, set()))
        factors[ex_date] = factor
        if kind in OPEN:
            seams.add(ex_date)
    return {number: Chain(factors, frozenset(seams)) for number, (factors, seams) in found.items()}


def drop_factors(conn: Connection, keys: Sequence[tuple[int, date]]) -> int:
    """Drop every source's factors of these (instrument id, ex-date), dividends left alone; return how many there were."""
    if not keys:
        return 0
    found = conn.execute(
        text("""
            DELETE FROM live.factors AS f
            USING  unnest(CAST(:ids AS int[]), CAST(:days AS date[])) AS k (id, day)
            WHERE  f.instrument_id = k.id AND f.ex_date = k.day AND f.kind <> 'dividend'
        """),
        {"ids": [number for number, _ in keys], "days": [day for _, day in keys]},
    )
    return int(found.rowcount)


def forget_factors(conn: Connection, factors: pd.DataFrame, spans: pd.DataFrame, ids: pd.Series, *, source: str) -> int:
    """Drop the factors of a source that it does not tell of any more; return how many.

    Args:
        factors: domain.FACTOR columns, what the source tells of now.
        spans: code, first, last (dates): the days that `factors` were learnt from; a factor outside them is left alone.
        ids: {code: instrument id}.
    """
    if spans.empty:
        return 0
    found = conn.execute(
        text("""
            DELETE FROM live.factors AS f
            USING  unnest(CAST(:ids AS int[]), CAST(:first AS date[]), CAST(:last AS date[])) AS s (id, first, last)
            WHERE  f.instrument_id = s.id AND f.source = :source AND f.ex_date > s.first AND f.ex_date <= s.last
            AND    f.kind NOT IN ('restatement', 'unknown', 'assumed')  -- those were found, not told
            AND    (f.instrument_id, f.ex_date) NOT IN (SELECT * FROM unnest(CAST(:told AS int[]), CAST(:days AS date[])))
        """),
        {
            "source": source,
            "ids": numbers_of(spans["code"], ids).tolist(),
            "first": spans["first"].tolist(),
            "last": spans["last"].tolist(),
            "told": numbers_of(factors["code"], ids).tolist(),
            "days": factors["ex_date"].tolist(),
        },
    )
    return int(found.rowcount)


def told_factors(conn: Connection, ids: pd.Series, *, source: str) -> dict[str, dict[date, float]]:
    """Return {code: {ex-date: price factor}} of what a source has told of; `ids`: {code: instrument id}."""
    rows = conn.execute(
        text(
            "SELECT instrument_id, ex_date, price_factor FROM live.factors "
            "WHERE source = :source AND kind NOT IN ('dividend', 'restatement', 'unknown', 'assumed')"
        ),
        {"source": source},
    )
    codes = {number: code for code, number in ids.items()}
    found: dict[str, dict[date, float]] = {}
    for number, ex_date, factor in rows:
        if number in codes:
            found.setdefault(str(codes[number]), {})[ex_date] = factor
    return found


def upsert_factors(
    conn: Connection, factors: pd.DataFrame, ids: pd.Series, *, source: str, detected_at: datetime, run_id: UUID
) -> Changes:
    """Insert new factors, overwrite revised ones. `factors`: domain.FACTOR columns; unitless multipliers."""
    factors = factors.assign(instrument_id=numbers_of(factors["code"], ids)).sort_values(["instrument_id", "ex_date"])
    return upsert_rows(
        conn,
        """
        INSERT INTO live.factors AS f
               (instrument_id, ex_date, price_factor, volume_factor, kind, source, detected_at, run_id)
        VALUES %s
        ON CONFLICT (instrument_id, ex_date, source, cash) DO UPDATE
        SET    price_factor = excluded.price_factor, volume_factor = excluded.volume_factor, kind = excluded.kind,
               detected_at = excluded.detected_at, run_id = excluded.run_id
        WHERE  (f.price_factor, f.volume_factor, f.kind)
               IS DISTINCT FROM (excluded.price_factor, excluded.volume_factor, excluded.kind)
        RETURNING (xmax = 0)
        """,
        factors[["instrument_id", "ex_date", "price_factor", "volume_factor", "kind"]],
        source,
        detected_at,
        str(run_id),
    )

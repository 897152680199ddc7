"""Filings and figures in the database: what is listed, what was fetched, what follows from it. The caller owns the transaction.

Values go in as rows of plain types, and come out so: who reads them makes of them what it needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

KEY = ("kind", "period_end", "fs_div", "known_from", "rcept_no", "minus_rcept_no")
FIGURES = (
    *KEY, "currency", "revenue", "operating_income", "owner_income", "revenue_to_date", "operating_income_to_date",
    "owner_income_to_date", "owner_equity", "shares", "eps", "notes",
)  # fmt: skip
"""The columns of live.financials that a figure fills."""

FETCHED, SUPERSEDED, WITHOUT = "fetched", "superseded", "without"


@dataclass(frozen=True, slots=True)
class Filing:
    """A row of live.filings; `bsns_year`, `reprt_code`, `fs_div`: under which its statements were found, once they were."""

    rcept_no: str
    corp_code: str
    stock_code: str
    instrument_id: int | None
    report_name: str
    form: str
    period_end: date
    received_on: date
    state: str
    bsns_year: str | None = None
    reprt_code: str | None = None
    fs_div: str | None = None


class Fetched(NamedTuple):
    """Statements and share counts of one filing, as received."""

    bsns_year: str
    reprt_code: str
    fs_div: str
    payload: Sequence[Mapping[str, Any]]
    shares: Sequence[Mapping[str, Any]]


class Changes(NamedTuple):
    """What became of rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0


# Put together from names of columns; values are bound.
_DELETE = text(
    f"DELETE FROM live.financials WHERE instrument_id = :instrument_id AND {' AND '.join(f'{name} = :{name}' for name in KEY)}"  # noqa: S608
)
_UPSERT = text(f"""
    INSERT INTO live.financials (instrument_id, run_id, {", ".join(FIGURES)})
    VALUES (:instrument_id, :run_id, {", ".join(f":{name}" for name in FIGURES)})
    ON CONFLICT (instrument_id, {", ".join(KEY)}) DO UPDATE
    SET run_id = excluded.run_id, {", ".join(f"{name} = excluded.{name}" for name in FIGURES[len(KEY) :])}
""")  # noqa: S608
_FILING = (
    "rcept_no, corp_code, stock_code, instrument_id, report_name, form, period_end, received_on, state, bsns_year, "
    "reprt_code, fs_div"
)


def add_filings(conn: Connection, filings: Iterable[Mapping[str, Any]], *, now: datetime, run_id: UUID) -> int:
    """Insert filings that are listed and not known yet; return how many.

    Args:
        filings: rcept_no, corp_code, stock_code, report_name, form, period_end, received_on.
    """
    rows = [dict(one) | {"now": now, "run_id": run_id} for one in filings]
    if not rows:
        return 0
    count = text("SELECT count(*) FROM live.filings")
    before = conn.execute(count).scalar_one()
    conn.execute(
        text("""
            INSERT INTO live.filings
                   (rcept_no, corp_code, stock_code, report_name, form, period_end, received_on, listed_at, run_id)
            VALUES (:rcept_no, :corp_code, :stock_code, :report_name, :form, :period_end, :received_on, :now, :run_id)
            ON CONFLICT (rcept_no) DO NOTHING
        """),
        rows,
    )
    return int(conn.execute(count).scalar_one() - before)


def link_instruments(conn: Connection, market: str) -> None:
    """Link filings to the instruments of a market that have become known since; an instrument's code is its stock code."""
    conn.execute(
        text("""
            UPDATE live.filings AS f SET instrument_id = i.id
            FROM   live.instruments AS i
            WHERE  i.market = :market AND i.code = f.stock_code AND f.instrument_id IS NULL
        """),
        {"market": market},
    )


def record_list(conn: Connection, first: date, last: date, *, filings: int, now: datetime, run_id: UUID) -> None:
    """Record that the list of all filings received from `first` to `last` was read to its end."""
    conn.execute(
        text("""
            INSERT INTO live.filing_lists (first_day, last_day, filings, listed_at, run_id)
            VALUES (:first, :last, :filings, :now, :run_id)
            ON CONFLICT (first_day, last_day) DO UPDATE
            SET filings = excluded.filings, listed_at = excluded.listed_at, run_id = excluded.run_id
        """),
        {"first": first, "last": last, "filings": filings, "now": now, "run_id": run_id},
    )


def listed_days(conn: Connection, zone: str) -> list[tuple[date, date]]:
    """Return the spans (first, last day) of which the list of filings is final: it was read after their last day had ended in
    `zone`. A span that was read while its last day ran is final up to the day before."""
    rows = conn.execute(
        text("""
            SELECT first_day, LEAST(last_day, (listed_at AT TIME ZONE :zone)::date - 1) AS last_day
            FROM   live.filing_lists ORDER BY 1, 2
        """),
        {"zone": zone},
    )
    return [(first, last) for first, last in rows if last >= first]


def companies_to_ask(conn: Connection, market: str, codes: Sequence[str], since: date) -> list[str]:
    """Return the corp_codes of instruments with filings whose statements are still to be had, those that filed last first.

    Args:
        codes: of these instruments alone; empty: of all.
        since: filings received before are left alone.
    """
    rows = conn.execute(
        text("""
            SELECT f.corp_code
            FROM   live.filings AS f JOIN live.instruments AS i ON i.id = f.instrument_id
            WHERE  f.state = 'listed' AND i.market = :market AND f.received_on >= :since
            AND    (CAST(:codes AS text[]) = '{}' OR i.code = ANY(:codes))
            GROUP  BY f.corp_code
            ORDER  BY max(f.received_on) DESC, f.corp_code
        """),
        {"market": market, "codes": list(codes), "since": since},
    )
    return list(rows.scalars())


def corp_codes(conn: Connection, codes: Sequence[str]) -> dict[str, str]:
    """Return {stock code: corp_code} as far as filings tell."""
    rows = conn.execute(
        text("SELECT DISTINCT stock_code, corp_code FROM live.filings WHERE stock_code = ANY(:codes)"),
        {"codes": list(codes)},
    )
    return {stock: corp for stock, corp in rows}  # noqa: C416 - rows are no pairs to mypy


def filings_of(conn: Connection, corp_code: str) -> list[Filing]:
    """Return all filings of a company, oldest period first, each period's oldest filing first."""
    rows = conn.execute(
        text(f"SELECT {_FILING} FROM live.filings WHERE corp_code = :corp ORDER BY period_end, rcept_no"),  # noqa: S608
        {"corp": corp_code},
    )
    return [Filing(*row) for row in rows]


def keep_statements(conn: Connection, rcept_no: str, found: Fetched, *, now: datetime, run_id: UUID) -> None:
    """Store a filing's statements as received. They are kept for ever: a filing is never fetched twice."""
    conn.execute(
        text("""
            UPDATE live.filings
            SET    state = 'fetched', bsns_year = :bsns_year, reprt_code = :reprt_code, fs_div = :fs_div,
                   payload = CAST(:payload AS jsonb), shares = CAST(:shares AS jsonb), fetched_at = :now, run_id = :run_id
            WHERE  rcept_no = :rcept_no AND state <> 'fetched'
        """),
        {
            "rcept_no": rcept_no, "bsns_year": found.bsns_year, "reprt_code": found.reprt_code, "fs_div": found.fs_div,
            "payload": json.dumps(found.payload, ensure_ascii=False), "shares": json.dumps(found.shares, ensure_ascii=False),
            "now": now, "run_id": run_id,
        },
    )  # fmt: skip


def give_up(conn: Connection, rcept_nos: Sequence[str], state: str, *, now: datetime, run_id: UUID) -> None:
    """Record that filings have no statements to be had: SUPERSEDED or WITHOUT."""
    conn.execute(
        text("""
            UPDATE live.filings SET state = :state, fetched_at = :now, run_id = :run_id
            WHERE  rcept_no = ANY(:rcept_nos) AND state = 'listed'
        """),
        {"rcept_nos": list(rcept_nos), "state": state, "now": now, "run_id": run_id},
    )


def payloads(conn: Connection, corp_code: str) -> list[tuple[Filing, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return a company's fetched filings with their statements and share counts, oldest first."""
    rows = conn.execute(
        text(f"""
            SELECT {_FILING}, payload, shares FROM live.filings
            WHERE  corp_code = :corp AND state = 'fetched' ORDER BY period_end, rcept_no
        """),  # noqa: S608
        {"corp": corp_code},
    )
    return [(Filing(*row[:-2]), row[-2], row[-1] or []) for row in rows]


def replace_figures(
    conn: Connection, instrument_id: int, figures: Sequence[Mapping[str, Any]], *, run_id: UUID
) -> Changes:
    """Make an instrument's figures these; rows that stay as they are are not written.

    Args:
        figures: rows of FIGURES, unique in KEY.
    """
    held = {tuple(row[: len(KEY)]): tuple(row) for row in _figures(conn, [instrument_id])[instrument_id]}
    given = {tuple(one[name] for name in KEY): tuple(one[name] for name in FIGURES) for one in figures}
    gone = [key for key in held if key not in given]
    new = [row for key, row in given.items() if key not in held]
    changed = [row for key, row in given.items() if key in held and held[key] != row]
    own = {"instrument_id": instrument_id, "run_id": run_id}
    if gone:
        conn.execute(_DELETE, [dict(zip(KEY, key, strict=True)) | own for key in gone])
    if new or changed:
        conn.execute(_UPSERT, [dict(zip(FIGURES, row, strict=True)) | own for row in new + changed])
    return Changes(len(new), len(changed), len(given) - len(new) - len(changed), len(gone))


def figures_held(
    conn: Connection, market: str, *, as_of: date, code: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return {code: rows of FIGURES} of a market, received by the end of `as_of`; of one instrument where `code` is given."""
    codes = _instruments(conn, market, code)
    return {
        codes[number]: [dict(zip(FIGURES, row, strict=True)) for row in rows]
        for number, rows in _figures(conn, list(codes), as_of).items()
    }


def share_factors(
    conn: Connection, market: str, *, as_of: date, code: str | None = None
) -> dict[str, list[tuple[date, float]]]:
    """Return {code: (ex-date, factor)} of the events up to `as_of` that made more or fewer shares of what there was: splits,
    and the part of rights and bonus issues that was a gift."""
    rows = conn.execute(
        text("""
            SELECT code, ex_date, volume_factor FROM api.factors
            WHERE  market = :market AND ex_date <= :as_of AND code = COALESCE(:code, code)
            AND    kind NOT IN ('dividend', 'restatement', 'unknown') AND volume_factor <> 1
            ORDER  BY code, ex_date
        """),
        {"market": market, "as_of": as_of, "code": code},
    )
    found: dict[str, list[tuple[date, float]]] = {}
    for own_code, ex_date, factor in rows:
        found.setdefault(own_code, []).append((ex_date, factor))
    return found


def _instruments(conn: Connection, market: str, code: str | None) -> dict[int, str]:
    rows = conn.execute(
        text("SELECT id, code FROM live.instruments WHERE market = :market AND code = COALESCE(:code, code)"),
        {"market": market, "code": code},
    )
    return {number: own_code for number, own_code in rows}  # noqa: C416 - rows are no pairs to mypy


def _figures(conn: Connection, ids: Sequence[int], as_of: date | None = None) -> dict[int, list[tuple[Any, ...]]]:
    rows = conn.execute(
        text(f"""
            SELECT instrument_id, {", ".join(FIGURES)} FROM live.financials
            WHERE  instrument_id = ANY(:ids) AND (CAST(:as_of AS date) IS NULL OR known_from <= :as_of)
            ORDER  BY instrument_id, {", ".join(KEY)}
        """),  # noqa: S608 - names of columns, no values
        {"ids": list(ids), "as_of": as_of},
    )
    found: dict[int, list[tuple[Any, ...]]] = {number: [] for number in ids}
    for number, *values in rows:
        found[number].append(tuple(values))
    return found

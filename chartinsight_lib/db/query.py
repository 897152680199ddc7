"""What is held -> frames and rows: instruments, their newest bars, the radar; bars themselves are read by `bars`.

Ranges are half-open, columns named, order stated; read as `chartinsight_reader`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import Connection, text

from chartinsight_lib.domain import Flag
from chartinsight_lib.errors import NotFound


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of live.instruments, as far as a chart needs it."""

    id: int
    market: str
    code: str
    name: str
    currency: str


def instrument(conn: Connection, instrument_id: int) -> Instrument:
    """Return an instrument by its id. Raises NotFound."""
    row = conn.execute(
        text("SELECT id, market, code, name, currency FROM live.instruments WHERE id = :id"), {"id": instrument_id}
    ).one_or_none()
    if row is None:
        raise NotFound(f"instrument {instrument_id}: there is none with this id.")
    return Instrument(*row)


def find_instrument(conn: Connection, code: str, market: str | None = None) -> Instrument:
    """Return an instrument by its code. Raises NotFound, also when two markets know the code and none was named."""
    rows = conn.execute(
        text(
            "SELECT id, market, code, name, currency FROM live.instruments "
            "WHERE code = :code AND market = COALESCE(:market, market) ORDER BY market"
        ),
        {"code": code, "market": market},
    ).all()
    if len(rows) == 1:
        return Instrument(*rows[0])
    if rows:
        raise NotFound(f"{code}: known in the markets {', '.join(row.market for row in rows)}. Name one of them.")
    raise NotFound(
        f"{code}: no such instrument{f' in {market}' if market else ''}. `api.radar` and live.instruments list them."
    )


def instruments(conn: Connection, market: str) -> pd.DataFrame:
    """Return a market's instruments: index instrument_id, sorted; code, name, kind, sector, currency, source."""
    rows = conn.execute(
        text(
            "SELECT id, code, name, kind, sector, currency, source FROM live.instruments WHERE market = :market ORDER BY id"
        ),
        {"market": market},
    ).all()
    columns = ["instrument_id", "code", "name", "kind", "sector", "currency", "source"]
    return pd.DataFrame(rows, columns=columns).set_index("instrument_id")


def provenance(conn: Connection, instrument_id: int) -> tuple[str, int]:
    """Return where an instrument's daily bars came from, joined by commas, and how many events of it are undone: splits,
    rights and bonus issues."""
    row = conn.execute(
        text("""
            SELECT (SELECT string_agg(DISTINCT source, ', ' ORDER BY source) FROM live.candles WHERE instrument_id = :id),
                   (SELECT count(*) FROM api.factors WHERE instrument_id = :id AND kind <> 'dividend')
        """),
        {"id": instrument_id},
    ).one()
    return row[0] or "", row[1]


def bar_sources(conn: Connection, market: str, timeframe: str, as_of: date) -> pd.Series:
    """Return {instrument id: source of its last final bar up to `as_of`} as a Series of text."""
    rows = conn.execute(
        text("""
            SELECT i.id, b.source
            FROM   live.instruments AS i
            CROSS  JOIN LATERAL (
                SELECT c.source FROM live.candles AS c
                WHERE  c.instrument_id = i.id AND c.timeframe = :timeframe AND c.ts < :until
                AND    (c.flags & :provisional) = 0
                ORDER  BY c.ts DESC LIMIT 1
            ) AS b
            WHERE  i.market = :market
        """),
        {"market": market, "timeframe": timeframe, "until": _until(as_of), "provisional": int(Flag.PROVISIONAL)},
    ).all()
    return pd.Series({row.id: row.source for row in rows}, dtype="str", name="source")


def radar_table(conn: Connection, market: str, timeframe: str = "1d") -> pd.DataFrame:
    """Return the newest scan of a market: index instrument_id, sorted by code; the columns of radar.snapshot that a page
    shows, with `trend` and `trend_long` as numbers; `provisional`: whether an unfinished bar is held after `day`, and that
    bar's running_close, running_value, running_volume; final_close: the close of `day` on its basis."""
    rows = conn.execute(
        text("""
            SELECT r.instrument_id, r.market, r.code, r.name, r.day, r.close, r.currency, r.change_pct,
                   r.trend, r.trend_bars AS trend_days, r.trend_long, r.high_52w_pct, r.bars_52w, r.rsi_14 AS rsi14,
                   r.volume, r.value, r.bars,
                   p.close IS NOT NULL AS provisional, p.close AS running_close, p.value AS running_value,
                   p.volume AS running_volume, r.close * COALESCE(f.price, 1) AS final_close
            FROM   api.radar AS r
            LEFT   JOIN LATERAL (
                SELECT c.ts, c.close, c.value, c.volume FROM live.candles AS c
                WHERE  c.instrument_id = r.instrument_id AND c.timeframe = r.timeframe AND c.ts > r.day
                AND    (c.flags & :provisional) <> 0
                ORDER  BY c.ts DESC LIMIT 1
            ) AS p ON true
            LEFT   JOIN LATERAL (
                SELECT api.product(e.price_factor) AS price FROM api.factors AS e
                WHERE  e.instrument_id = r.instrument_id AND e.kind <> 'dividend' AND e.ex_date > r.day
                AND    e.ex_date <= (p.ts AT TIME ZONE 'UTC')::date
            ) AS f ON p.ts IS NOT NULL
            WHERE  r.market = :market AND r.timeframe = :timeframe
            ORDER  BY r.code
        """),
        {"market": market, "timeframe": timeframe, "provisional": int(Flag.PROVISIONAL)},
    )
    table = pd.DataFrame(rows.all(), columns=list(rows.keys())).set_index("instrument_id")
    numbers = ["close", "change_pct", "high_52w_pct", "rsi14", "value", "running_close", "running_value", "final_close"]
    numbers.append("running_volume")  # missing where there is no unfinished bar
    return table.astype(dict.fromkeys(numbers, "float64"))


def health(conn: Connection, market: str, timeframe: str = "1d") -> dict[str, Any]:
    """Return what is held of a market: source, instruments, last_bar, provisional, simulated, collected_at (when bars came
    last); of its newest scan: as_of, scanned, scanned_at, run_id (None where there is none); and of the newest check: complete
    (share of the expected bars that are held or explained; None before the first check), and how many are missing and late."""
    bars = conn.execute(
        text("""
            SELECT string_agg(DISTINCT b.source, ', ' ORDER BY b.source) AS source,
                   (max(b.ts) AT TIME ZONE 'UTC')::date AS last_bar, count(*) AS instruments,
                   count(*) FILTER (WHERE (b.flags & :provisional) <> 0) AS provisional,
                   COALESCE(bool_or(b.source LIKE 'simulat%'), false) AS simulated
            FROM   live.instruments AS i
            LEFT   JOIN LATERAL (  -- the newest bar of each, straight from the key
                SELECT c.ts, c.flags, c.source FROM live.candles AS c
                WHERE  c.instrument_id = i.id AND c.timeframe = :timeframe ORDER BY c.ts DESC LIMIT 1
            ) AS b ON true
            WHERE  i.market = :market
        """),
        {"market": market, "timeframe": timeframe, "provisional": int(Flag.PROVISIONAL)},
    ).one()
    scanned = conn.execute(
        text("""
            SELECT max(as_of) AS as_of, count(*) AS scanned, max(scanned_at) AS scanned_at,
                   (array_agg(run_id::text ORDER BY scanned_at DESC))[1] AS run_id
            FROM   api.radar WHERE market = :market AND timeframe = :timeframe
        """),
        {"market": market, "timeframe": timeframe},
    ).one()
    checked = conn.execute(
        text("""
            SELECT max(completeness) AS complete, COALESCE(max(missing), 0) AS missing, COALESCE(max(late), 0) AS late
            FROM   api.quality WHERE market = :market AND timeframe = :timeframe
        """),
        {"market": market, "timeframe": timeframe},
    ).one()
    collected_at = conn.execute(
        text("""
            SELECT i.finished_at FROM ops.run_items AS i JOIN ops.runs AS r USING (run_id)
            WHERE  i.market = :market AND i.state = 'done' AND r.job LIKE 'collect%'
            ORDER  BY i.finished_at DESC LIMIT 1
        """),
        {"market": market},
    ).scalar_one_or_none()
    return {
        **bars._mapping,
        **scanned._mapping,
        **checked._mapping,
        "source": bars.source or "",
        "collected_at": collected_at,
    }


def last_final_day(conn: Connection, market: str, timeframe: str = "1d") -> date | None:
    """Return the date of the newest final bar of a market, or None when there is none."""
    day: date | None = conn.execute(
        text("""
            SELECT (max(b.ts) AT TIME ZONE 'UTC')::date
            FROM   live.instruments AS i
            CROSS  JOIN LATERAL (
                SELECT c.ts FROM live.candles AS c
                WHERE  c.instrument_id = i.id AND c.timeframe = :timeframe AND (c.flags & :provisional) = 0
                ORDER  BY c.ts DESC LIMIT 1
            ) AS b
            WHERE  i.market = :market
        """),
        {"market": market, "timeframe": timeframe, "provisional": int(Flag.PROVISIONAL)},
    ).scalar_one()
    return day


def newest_final(conn: Connection, market: str, timeframe: str, source: str | None = None) -> dict[str, datetime]:
    """Return {code: ts of the newest final bar} of a market's instruments that have one; `source`: among bars of it alone."""
    rows = conn.execute(
        text("""
            SELECT i.code, b.ts
            FROM   live.instruments AS i
            CROSS  JOIN LATERAL (
                SELECT c.ts FROM live.candles AS c
                WHERE  c.instrument_id = i.id AND c.timeframe = :timeframe AND (c.flags & :provisional) = 0
                AND    c.source = COALESCE(:source, c.source)
                ORDER  BY c.ts DESC LIMIT 1
            ) AS b
            WHERE  i.market = :market
        """),
        {"market": market, "timeframe": timeframe, "provisional": int(Flag.PROVISIONAL), "source": source},
    )
    return {row.code: row.ts for row in rows}


def most_traded(conn: Connection, market: str, count: int) -> list[str]:
    """Return the codes of the stocks with the highest traded value on the market's newest final day, highest first."""
    rows = conn.execute(
        text("""
            SELECT i.code
            FROM   live.candles AS c JOIN live.instruments AS i ON i.id = c.instrument_id
            WHERE  i.market = :market AND i.kind = 'stock' AND c.timeframe = '1d' AND (c.flags & :provisional) = 0
            AND    c.ts = (SELECT max(b.ts) FROM live.instruments AS j CROSS JOIN LATERAL (
                               SELECT ts FROM live.candles WHERE instrument_id = j.id AND timeframe = '1d'
                               AND (flags & :provisional) = 0 ORDER BY ts DESC LIMIT 1) AS b
                           WHERE j.market = :market)
            ORDER  BY COALESCE(c.value, c.volume * c.close) DESC, i.code LIMIT :count
        """),
        {"market": market, "count": count, "provisional": int(Flag.PROVISIONAL)},
    )
    return list(rows.scalars())


def markets(conn: Connection) -> list[str]:
    """Return the markets that have instruments, the one collected last first, and a simulated one after every real one."""
    rows = conn.execute(
        text("""
            SELECT i.market
            FROM   (SELECT DISTINCT market FROM live.instruments) AS i
            LEFT   JOIN (SELECT market, max(finished_at) AS at FROM ops.run_items GROUP BY market) AS r USING (market)
            ORDER  BY i.market = 'SIM', r.at DESC NULLS LAST, i.market
        """)
    )
    return list(rows.scalars())


def _until(as_of: date) -> datetime:
    """The first stamp of a daily bar after `as_of`."""
    if as_of.year == date.max.year:
        return datetime(9999, 12, 31, tzinfo=UTC)
    return datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC) + timedelta(days=1)

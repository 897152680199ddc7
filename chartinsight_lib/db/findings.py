"""What verifying and comparing read, and findings about stored bars, into the database. The caller owns the transaction."""

from datetime import datetime
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, text

from chartinsight_lib.db.copy import copy_out, from_wire_time
from chartinsight_lib.db.rows import Changes, driver_cursor, upsert_rows
from chartinsight_lib.domain import Flag


def events(conn: Connection, market: str) -> pd.DataFrame:
    """Return the ex-days by which adjusted reads of a market move: columns instrument_id, ex_date (datetime64[s])."""
    rows = conn.execute(
        text("SELECT instrument_id, ex_date FROM api.factors WHERE market = :market AND kind <> 'dividend'"),
        {"market": market},
    )
    frame = pd.DataFrame(rows.all(), columns=["instrument_id", "ex_date"])
    return frame.astype({"instrument_id": "int64", "ex_date": "datetime64[s]"})


def raw_closes(conn: Connection, market: str) -> pd.DataFrame:
    """Return the final daily bars of a market as they are stored: code, day (datetime64[s]), close, volume."""
    held = copy_out(
        driver_cursor(conn),
        """
        SELECT c.instrument_id, c.ts, c.close, c.volume
        FROM   live.candles AS c JOIN live.instruments AS i ON i.id = c.instrument_id
        WHERE  i.market = %(market)s AND c.timeframe = '1d' AND (c.flags & %(provisional)s) = 0
        ORDER  BY c.instrument_id, c.ts
        """,
        {"market": market, "provisional": int(Flag.PROVISIONAL)},
        {"instrument_id": "int4", "ts": "timestamptz", "close": "float8", "volume": "int8"},
    )
    rows = conn.execute(text("SELECT id, code FROM live.instruments WHERE market = :market"), {"market": market})
    codes = pd.Series({row.id: row.code for row in rows}, dtype="str")
    frame = {
        "code": pd.Series(held["instrument_id"]).map(codes).astype("str"),
        "day": from_wire_time(held["ts"]).tz_localize(None).as_unit("s"),
        "close": held["close"],
        "volume": held["volume"].astype("float64"),
    }
    return pd.DataFrame(frame)


def keep_findings(
    conn: Connection, market: str, timeframe: str, found: pd.DataFrame, *, now: datetime, run_id: UUID
) -> tuple[Changes, int]:
    """Store what was found about a market; what is found no more is forgotten, and what a person dismissed stays so.

    Args:
        found: columns quality.rules.FINDING, unique in (instrument_id, ts, rule).
    Returns: what was stored; how many findings are forgotten.
    """
    gone = conn.execute(
        text("""
            DELETE FROM ops.findings AS f USING live.instruments AS i
            WHERE  i.id = f.instrument_id AND i.market = :market AND f.timeframe = :timeframe AND f.state <> 'dismissed'
            AND    (f.instrument_id, f.ts, f.rule) NOT IN (
                       SELECT * FROM unnest(CAST(:ids AS int[]), CAST(:ts AS timestamptz[]), CAST(:rules AS text[])))
            RETURNING 1
        """),
        {
            "market": market,
            "timeframe": timeframe,
            "ids": found["instrument_id"].tolist(),
            "ts": [ts.to_pydatetime() for ts in found["ts"]],
            "rules": found["rule"].tolist(),
        },
    )
    forgotten = len(gone.all())
    stored = upsert_rows(
        conn,
        """
        INSERT INTO ops.findings AS f (instrument_id, ts, rule, detail, state, timeframe, first_seen, run_id) VALUES %s
        ON CONFLICT (instrument_id, timeframe, ts, rule) DO UPDATE
        SET    detail = excluded.detail, state = excluded.state, run_id = excluded.run_id
        WHERE  f.state <> 'dismissed' AND (f.detail, f.state) IS DISTINCT FROM (excluded.detail, excluded.state)
        RETURNING (xmax = 0)
        """,
        found[["instrument_id", "ts", "rule", "detail", "state"]],
        timeframe,
        now,
        str(run_id),
    )
    return stored, forgotten


def listed(conn: Connection, market: str, *, most: int) -> pd.DataFrame:
    """Return the newest open findings about a market's bars: code, name, day, rule, detail."""
    rows = conn.execute(
        text("""
            SELECT code, name, day, rule, detail FROM api.findings
            WHERE  market = :market AND state = 'open' ORDER BY day DESC, code, rule LIMIT :most
        """),
        {"market": market, "most": most},
    )
    return pd.DataFrame(rows.all(), columns=["code", "name", "day", "rule", "detail"])

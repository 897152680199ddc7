"""Kiwoom: quotas and tokens that programs share; factors of every event that moves the base price, not of splits alone.

Stored rows: none change. `api.candles` undoes rights and bonus issues too, which no source told of before.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPS = """
CREATE TABLE ops.pace (
    key        text PRIMARY KEY,
    next_at    timestamptz NOT NULL,
    interval_s float8 NOT NULL CHECK (interval_s > 0),
    slowed_at  timestamptz
);
COMMENT ON TABLE ops.pace IS 'one row per (appkey fingerprint, api-id): the next free slot of the quota, by the server''s clock';

CREATE TABLE ops.tokens (
    fingerprint text PRIMARY KEY,
    sealed      bytea NOT NULL,
    kept_at     timestamptz NOT NULL
);
COMMENT ON TABLE ops.tokens IS 'access tokens, encrypted with a key that only the owner of the secretkey can make';
REVOKE ALL ON ops.tokens FROM chartinsight_reader;

CREATE INDEX run_items_newest ON ops.run_items (market, finished_at DESC) WHERE state = 'done';

COMMENT ON COLUMN live.candles.flags IS
    '1 provisional, 2 close of the after-market, 4 range widened to hold open and close, 8 official close confirmed';
"""

# 1e-9: the product of factors is a float, and what should end in a half must not fall below it.
VIEWS = """
CREATE FUNCTION api.day_of(market text, timeframe text, ts timestamptz) RETURNS date LANGUAGE sql IMMUTABLE
RETURN (ts AT TIME ZONE
    CASE WHEN timeframe = '1d' THEN 'UTC' WHEN market = 'US' THEN 'America/New_York' ELSE 'Asia/Seoul' END)::date;
COMMENT ON FUNCTION api.day_of IS
    'the trading date of a bar: of a daily one the date that stamps it, of a shorter one that of its market';
GRANT EXECUTE ON FUNCTION api.day_of TO chartinsight_loader, chartinsight_reader;

CREATE OR REPLACE VIEW api.candles_raw AS
SELECT i.market, i.code, i.name, c.timeframe, c.ts, api.day_of(i.market, c.timeframe, c.ts) AS day,
       c.open, c.high, c.low, c.close, c.volume, c.value,
       (c.flags & 1) = 0 AS final, c.flags, c.source, c.run_id
FROM   live.candles AS c
JOIN   live.instruments AS i ON i.id = c.instrument_id;

CREATE OR REPLACE VIEW api.candles AS
SELECT i.market, i.code, i.name, c.timeframe, c.ts, api.day_of(i.market, c.timeframe, c.ts) AS day,
       c.open * f.price AS open, c.high * f.price AS high, c.low * f.price AS low, c.close * f.price AS close,
       floor(c.volume * f.volume + 0.5 + 1e-9)::bigint AS volume, c.value,
       (c.flags & 1) = 0 AS final, c.flags, c.source, c.run_id
FROM   live.candles AS c
JOIN   live.instruments AS i ON i.id = c.instrument_id
CROSS  JOIN LATERAL (
    SELECT api.product(f.price_factor) AS price, api.product(f.volume_factor) AS volume
    FROM   api.factors AS f
    WHERE  f.instrument_id = c.instrument_id AND f.kind <> 'dividend'
    AND    f.ex_date > api.day_of(i.market, c.timeframe, c.ts)
) AS f;
COMMENT ON VIEW api.candles IS
    'candles with splits, rights and bonus issues undone by live.factors, to the prices of the newest basis; dividends are not';
"""


def upgrade() -> None:
    for part in (OPS, VIEWS):
        op.execute(part)

"""The first road: instruments, candles, factors, gaps; runs; the radar's snapshot; the views people read.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LIVE = """
CREATE SCHEMA live;

CREATE TABLE live.instruments (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market      text NOT NULL,
    code        text NOT NULL,
    name        text NOT NULL,
    kind        text NOT NULL,
    sector      text,
    listed_on   date,
    delisted_on date,
    currency    text NOT NULL,
    attributes  jsonb NOT NULL DEFAULT '{}',
    source      text NOT NULL,
    run_id      uuid NOT NULL,
    UNIQUE (market, code)
);

-- No foreign keys here: the loader takes the ids from live.instruments in the same transaction, instruments are never
-- deleted, and a key check per row would cost a third of the speed of a bulk load.
CREATE TABLE live.candles (
    instrument_id int NOT NULL,
    timeframe     text NOT NULL CHECK (timeframe IN ('1m', '5m', '1d')),
    ts            timestamptz NOT NULL,
    open          float8 NOT NULL,
    high          float8 NOT NULL,
    low           float8 NOT NULL,
    close         float8 NOT NULL,
    volume        bigint NOT NULL CHECK (volume >= 0),
    value         float8,
    flags         smallint NOT NULL,
    source        text NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, timeframe, ts),
    CHECK (low > 0 AND low <= open AND low <= close AND high >= open AND high >= close)
);
COMMENT ON COLUMN live.candles.flags IS '1 provisional, 2 close of the after-market, 4 range widened to hold open and close';
COMMENT ON COLUMN live.candles.ts IS 'intraday: start of the bar; daily: 00:00 UTC of the trading date';

CREATE TABLE live.factors (
    instrument_id int NOT NULL,
    ex_date       date NOT NULL,
    source        text NOT NULL,
    price_factor  float8 NOT NULL CHECK (price_factor > 0),
    volume_factor float8 NOT NULL CHECK (volume_factor > 0),
    kind          text NOT NULL,
    detected_at   timestamptz NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, ex_date, source)
);
COMMENT ON TABLE live.factors IS 'bars before ex_date are multiplied by the factors to compare with bars from it on';
"""

OPS = """
CREATE SCHEMA ops;

CREATE TABLE ops.runs (
    run_id       uuid PRIMARY KEY,
    job          text NOT NULL,
    parameters   jsonb NOT NULL,
    state        text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'lost')),
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    code_version text NOT NULL,
    host         text NOT NULL,
    output_path  text,
    rows         jsonb,
    error        text
);

CREATE TABLE ops.run_items (
    run_id      uuid NOT NULL REFERENCES ops.runs,
    item        text NOT NULL,
    market      text,
    state       text NOT NULL CHECK (state IN ('done', 'failed')),
    rows        jsonb NOT NULL,
    error       text,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, item)
);

CREATE TABLE ops.gaps (
    instrument_id int NOT NULL,
    timeframe     text NOT NULL,
    ts            timestamptz NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('no-trade', 'halted', 'missing', 'late')),
    source        text NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, timeframe, ts)
);

CREATE TABLE ops.quarantine (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market     text NOT NULL,
    code       text,
    timeframe  text NOT NULL,
    ts         timestamptz,
    rule       text NOT NULL,
    action     text NOT NULL CHECK (action IN ('rejected', 'widened')),
    source     text NOT NULL,
    item       text NOT NULL,
    source_row bigint NOT NULL,
    payload    jsonb NOT NULL,
    run_id     uuid NOT NULL,
    digest     text GENERATED ALWAYS AS (md5(payload::text)) STORED,
    UNIQUE (source, item, source_row, rule, digest)
);
"""

RADAR = """
CREATE SCHEMA radar;

CREATE TABLE radar.snapshot (
    as_of         date NOT NULL,
    timeframe     text NOT NULL,
    instrument_id int NOT NULL,
    day           date NOT NULL,
    close         float8 NOT NULL,
    change_pct    float8,
    volume        bigint NOT NULL,
    value         float8,
    trend         smallint NOT NULL,
    trend_bars    int NOT NULL,
    trend_long    smallint NOT NULL,
    high_52w      float8,
    high_52w_pct  float8,
    bars_52w      int NOT NULL,
    sma_20        float8,
    rsi_14        float8,
    atr_14        float8,
    bars          int NOT NULL,
    source        text NOT NULL,
    scanned_at    timestamptz NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (as_of, timeframe, instrument_id)
);
COMMENT ON COLUMN radar.snapshot.as_of IS 'what was known at the end of this trading date; day: the date of the last final bar';
COMMENT ON COLUMN radar.snapshot.trend IS '1 up, -1 down, 0 sideways; trend_bars: since how many bars; trend_long: of wide swings';
"""

VIEWS = """
CREATE SCHEMA api;

CREATE AGGREGATE api.product(float8) (SFUNC = float8mul, STYPE = float8, INITCOND = '1');

CREATE VIEW api.factors AS
SELECT DISTINCT ON (f.instrument_id, f.ex_date)
       f.instrument_id, i.market, i.code, f.ex_date, f.kind, f.price_factor, f.volume_factor, f.source, f.detected_at
FROM   live.factors AS f JOIN live.instruments AS i ON i.id = f.instrument_id
ORDER  BY f.instrument_id, f.ex_date, f.detected_at DESC, f.source;
COMMENT ON VIEW api.factors IS 'one factor per event: several sources may know of the same, the newest finding stands';

CREATE VIEW api.candles_raw AS
SELECT i.market, i.code, i.name, c.timeframe, c.ts, (c.ts AT TIME ZONE 'UTC')::date AS day,
       c.open, c.high, c.low, c.close, c.volume, c.value,
       (c.flags & 1) = 0 AS final, c.flags, c.source, c.run_id
FROM   live.candles AS c
JOIN   live.instruments AS i ON i.id = c.instrument_id;

CREATE VIEW api.candles AS
SELECT i.market, i.code, i.name, c.timeframe, c.ts, (c.ts AT TIME ZONE 'UTC')::date AS day,
       c.open * f.price AS open, c.high * f.price AS high, c.low * f.price AS low, c.close * f.price AS close,
       round(c.volume * f.volume)::bigint AS volume, c.value,
       (c.flags & 1) = 0 AS final, c.flags, c.source, c.run_id
FROM   live.candles AS c
JOIN   live.instruments AS i ON i.id = c.instrument_id
CROSS  JOIN LATERAL (
    SELECT api.product(f.price_factor) AS price, api.product(f.volume_factor) AS volume
    FROM   api.factors AS f
    WHERE  f.instrument_id = c.instrument_id AND f.kind = 'split' AND f.ex_date > (c.ts AT TIME ZONE 'UTC')::date
) AS f;
COMMENT ON VIEW api.candles IS 'candles with splits undone by live.factors; a source that adjusts by itself has no factors';

CREATE VIEW api.radar AS
SELECT i.market, i.code, i.name, i.kind, i.sector, i.currency, s.*
FROM   radar.snapshot AS s
JOIN   live.instruments AS i ON i.id = s.instrument_id
WHERE  (i.market, s.timeframe, s.as_of) IN (
    SELECT m.market, n.timeframe, max(n.as_of)
    FROM   radar.snapshot AS n JOIN live.instruments AS m ON m.id = n.instrument_id
    GROUP  BY m.market, n.timeframe
);
COMMENT ON VIEW api.radar IS 'the newest scan of each market and timeframe';

CREATE VIEW api.health AS
SELECT i.market, c.timeframe, c.source, count(DISTINCT c.instrument_id) AS instruments, count(*) AS bars,
       min((c.ts AT TIME ZONE 'UTC')::date) AS first_day, max((c.ts AT TIME ZONE 'UTC')::date) AS last_day,
       count(*) FILTER (WHERE (c.flags & 1) <> 0) AS provisional
FROM   live.candles AS c JOIN live.instruments AS i ON i.id = c.instrument_id
GROUP  BY i.market, c.timeframe, c.source;

CREATE VIEW api.runs AS SELECT * FROM ops.runs;
CREATE VIEW api.run_items AS SELECT * FROM ops.run_items;
CREATE VIEW api.quarantine AS SELECT * FROM ops.quarantine;
CREATE VIEW api.gaps AS
SELECT i.market, i.code, g.timeframe, g.ts, g.kind, g.source, g.run_id
FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id;
"""

GRANTS = """
GRANT SELECT ON public.alembic_version TO chartinsight_loader, chartinsight_reader;
GRANT USAGE ON SCHEMA live, ops, radar, api TO chartinsight_loader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA live, ops, radar TO chartinsight_loader;
GRANT SELECT ON ALL TABLES IN SCHEMA api TO chartinsight_loader;

GRANT USAGE ON SCHEMA live, ops, radar, api TO chartinsight_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA live, ops, radar, api TO chartinsight_reader;

-- Later migrations make their tables as this same owner: what they add is readable and writable in the same way.
ALTER DEFAULT PRIVILEGES IN SCHEMA live, ops, radar GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO chartinsight_loader;
ALTER DEFAULT PRIVILEGES IN SCHEMA live, ops, radar, api GRANT SELECT ON TABLES TO chartinsight_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA api GRANT SELECT ON TABLES TO chartinsight_loader;
"""


def upgrade() -> None:
    for part in (LIVE, OPS, RADAR, VIEWS, GRANTS):
        op.execute(part)

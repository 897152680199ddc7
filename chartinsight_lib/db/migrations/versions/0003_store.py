"""The store: cursors, kept revisions, restatements; a watermark that moves with every change.

Stored rows: none change.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LIVE = """
CREATE TABLE live.revisions (
    instrument_id int NOT NULL,
    timeframe     text NOT NULL,
    ts            timestamptz NOT NULL,
    open          float8 NOT NULL,
    high          float8 NOT NULL,
    low           float8 NOT NULL,
    close         float8 NOT NULL,
    volume        bigint NOT NULL,
    value         float8,
    flags         smallint NOT NULL,
    source        text NOT NULL,
    run_id        uuid NOT NULL,
    replaced_at   timestamptz NOT NULL,
    replaced_by   uuid NOT NULL,
    PRIMARY KEY (instrument_id, timeframe, ts, replaced_at, replaced_by)
);
COMMENT ON TABLE live.revisions IS
    'final bars as they stood until replaced_at, when the run replaced_by told them differently; run_id is the run that '
    'stored them';

-- The number comes from a sequence of the whole database: it never comes twice, whatever is truncated or rolled back; and its
-- last twenty bits are random, so that it does not come twice either when the database is restored and goes another way.
CREATE SEQUENCE live.watermark AS bigint;
CREATE FUNCTION live.next_watermark() RETURNS bigint LANGUAGE sql VOLATILE
RETURN (nextval('live.watermark') << 20) | floor(random() * 1048576)::bigint;
CREATE TABLE live.watermarks (
    market    text NOT NULL,
    timeframe text NOT NULL,
    version   bigint NOT NULL,
    PRIMARY KEY (market, timeframe)
);
COMMENT ON TABLE live.watermarks IS
    'moves in every transaction that changes bars or factors of a market: a copy of them is current while it stands';
GRANT USAGE ON SEQUENCE live.watermark TO chartinsight_loader;
GRANT EXECUTE ON FUNCTION live.next_watermark TO chartinsight_loader;

-- Who changes rows by hand does not know of watermarks: then all of them move.
CREATE FUNCTION live.move_watermarks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('chartinsight.moves_watermark', true) IS DISTINCT FROM 'itself' THEN
        UPDATE live.watermarks SET version = live.next_watermark();
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER moves_watermark AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON live.candles
FOR EACH STATEMENT EXECUTE FUNCTION live.move_watermarks();
CREATE TRIGGER moves_watermark AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON live.factors
FOR EACH STATEMENT EXECUTE FUNCTION live.move_watermarks();

-- An instrument may pay a dividend and be split on one day.
ALTER TABLE live.factors ADD COLUMN cash boolean NOT NULL GENERATED ALWAYS AS (kind = 'dividend') STORED;
ALTER TABLE live.factors DROP CONSTRAINT factors_pkey, ADD PRIMARY KEY (instrument_id, ex_date, source, cash);

COMMENT ON COLUMN live.factors.kind IS
    'split, rights, …: an event; dividend; restatement: the source moved to another basis; unknown: nothing tells how the'
    ' bars before compare with those from ex_date on, so adjusted reads begin there';
"""

OPS = """
CREATE TABLE ops.identity (
    id  uuid NOT NULL DEFAULT gen_random_uuid(),
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
INSERT INTO ops.identity DEFAULT VALUES;
COMMENT ON TABLE ops.identity IS
    'tells this database from every other, for copies that lie outside of it';

CREATE TABLE ops.cursors (
    instrument_id int NOT NULL,
    timeframe     text NOT NULL,
    source        text NOT NULL,
    asked_from    date NOT NULL,
    asked_until   timestamptz NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, timeframe, source)
);
COMMENT ON TABLE ops.cursors IS
    'what a source was asked about an instrument, whether it had bars or not: from this date, up to this moment';

CREATE TABLE ops.restatements (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instrument_id int NOT NULL,
    timeframe     text NOT NULL,
    source        text NOT NULL,
    verdict       text NOT NULL CHECK (verdict IN ('rebased', 'apart', 'disagreeing')),
    ex_date       date,
    ratio         float8,
    overlap       int NOT NULL,
    differing     int NOT NULL,
    detail        text NOT NULL,
    detected_at   timestamptz NOT NULL,
    run_id        uuid NOT NULL,
    UNIQUE NULLS NOT DISTINCT (instrument_id, timeframe, source, verdict, ex_date, ratio, overlap, differing)
);
COMMENT ON TABLE ops.restatements IS
    'a source told the past of an instrument differently. rebased: by a factor that stands in live.factors; apart: it has'
    ' no day in common with what is held; disagreeing: by no factor, so nothing of it was stored';
"""

VIEWS = """
CREATE OR REPLACE VIEW api.factors AS
SELECT DISTINCT ON (f.instrument_id, f.ex_date, f.cash)
       f.instrument_id, i.market, i.code, f.ex_date, f.kind, f.price_factor, f.volume_factor, f.source, f.detected_at
FROM   live.factors AS f JOIN live.instruments AS i ON i.id = f.instrument_id
ORDER  BY f.instrument_id, f.ex_date, f.cash, f.detected_at DESC, f.source;
COMMENT ON VIEW api.factors IS
    'one factor per event: several sources may know of the same, the newest finding stands; dividends stand beside';

CREATE OR REPLACE VIEW api.candles AS
SELECT i.market, i.code, i.name, c.timeframe, c.ts, api.day_of(i.market, c.timeframe, c.ts) AS day,
       c.open * f.price AS open, c.high * f.price AS high, c.low * f.price AS low, c.close * f.price AS close,
       floor(c.volume * f.volume + 0.5 + 1e-9)::bigint AS volume, c.value,
       (c.flags & 1) = 0 AS final, c.flags, c.source, c.run_id
FROM   live.candles AS c
JOIN   live.instruments AS i ON i.id = c.instrument_id
CROSS  JOIN LATERAL (
    SELECT api.product(f.price_factor) AS price, api.product(f.volume_factor) AS volume,
           COALESCE(bool_or(f.kind = 'unknown'), false) AS apart
    FROM   api.factors AS f
    WHERE  f.instrument_id = c.instrument_id AND f.kind <> 'dividend'
    AND    f.ex_date > api.day_of(i.market, c.timeframe, c.ts)
) AS f
WHERE  NOT f.apart;
COMMENT ON VIEW api.candles IS
    'candles with splits, rights and bonus issues undone by live.factors, to the prices of the newest basis; dividends '
    'are not. Bars whose basis is not known are in api.candles_raw alone';

CREATE VIEW api.restatements AS
SELECT i.market, i.code, i.name, r.timeframe, r.source, r.verdict, r.ex_date, r.ratio, r.overlap, r.differing, r.detail,
       r.detected_at, r.run_id
FROM   ops.restatements AS r JOIN live.instruments AS i ON i.id = r.instrument_id;

CREATE VIEW api.revisions AS
SELECT i.market, i.code, i.name, r.timeframe, r.ts, api.day_of(i.market, r.timeframe, r.ts) AS day,
       r.open, r.high, r.low, r.close, r.volume, r.value, r.flags, r.source, r.run_id, r.replaced_at, r.replaced_by
FROM   live.revisions AS r JOIN live.instruments AS i ON i.id = r.instrument_id;
"""


def upgrade() -> None:
    for part in (LIVE, OPS, VIEWS):
        op.execute(part)

"""Gaps with a state, coverage and completeness; findings about what is stored.

Stored rows: gaps that sources told of become `explained`; nothing else changes.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

GAPS = """
ALTER TABLE ops.gaps
    ADD COLUMN state        text NOT NULL DEFAULT 'explained'
               CHECK (state IN ('explained', 'open', 'repairing', 'resolved', 'given_up')),
    ADD COLUMN first_seen   timestamptz,
    ADD COLUMN last_checked timestamptz,
    ADD COLUMN tries        int NOT NULL DEFAULT 0,
    ADD COLUMN next_try     timestamptz,
    ADD COLUMN reason       text;
COMMENT ON COLUMN ops.gaps.state IS
    'explained: a source says why there is no bar; open, repairing: to be asked again; resolved: it came; given_up: see reason';
COMMENT ON COLUMN ops.gaps.source IS 'who explains it, or whose bars stand about it';
CREATE INDEX gaps_due ON ops.gaps (next_try, ts) WHERE state IN ('open', 'repairing');
"""

COVERAGE = """
CREATE TABLE ops.coverage (
    instrument_id int NOT NULL,
    timeframe     text NOT NULL,
    first         date,
    last          date,
    expected      int NOT NULL,
    present       int NOT NULL,
    explained     int NOT NULL,
    missing       int NOT NULL,
    late          int NOT NULL,
    checked_at    timestamptz NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, timeframe),
    CHECK (expected = present + explained + missing + late)
);
COMMENT ON TABLE ops.coverage IS 'trading days of each instrument, at the last check; first, last: the days of its bars';

CREATE TABLE ops.coverage_days (
    market     text NOT NULL,
    timeframe  text NOT NULL,
    day        date NOT NULL,
    expected   int NOT NULL,
    present    int NOT NULL,
    explained  int NOT NULL,
    missing    int NOT NULL,
    late       int NOT NULL,
    checked_at timestamptz NOT NULL,
    PRIMARY KEY (market, timeframe, day),
    CHECK (expected = present + explained + missing + late)
);
COMMENT ON TABLE ops.coverage_days IS 'instruments of each trading day of a market, at the last check';

CREATE TABLE ops.findings (
    instrument_id int NOT NULL,
    timeframe     text NOT NULL,
    ts            timestamptz NOT NULL,
    rule          text NOT NULL,
    detail        text NOT NULL,
    state         text NOT NULL CHECK (state IN ('open', 'explained', 'dismissed')),
    first_seen    timestamptz NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, timeframe, ts, rule)
);
COMMENT ON TABLE ops.findings IS
    'stored bars that break a rule and may be real all the same; explained: by what else is known; dismissed: by a person';
"""

VIEWS = """
CREATE OR REPLACE VIEW api.gaps AS
SELECT i.market, i.code, g.timeframe, g.ts, g.kind, g.source, g.run_id,
       i.name, api.day_of(i.market, g.timeframe, g.ts) AS day,
       g.state, g.first_seen, g.last_checked, g.tries, g.next_try, g.reason
FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id
WHERE  g.state <> 'resolved';
COMMENT ON VIEW api.gaps IS 'bars that are expected and not there, and why';

CREATE VIEW api.gaps_resolved AS
SELECT i.market, i.code, i.name, g.timeframe, g.ts, api.day_of(i.market, g.timeframe, g.ts) AS day,
       g.kind, g.source, g.first_seen, g.last_checked, g.tries
FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id
WHERE  g.state = 'resolved';
COMMENT ON VIEW api.gaps_resolved IS 'bars that were missing or late once, and came';

CREATE VIEW api.coverage AS
SELECT i.market, i.code, i.name, i.kind, c.timeframe, c.first, c.last, c.expected, c.present, c.explained, c.missing, c.late,
       (c.present + c.explained)::float8 / NULLIF(c.expected, 0) AS completeness, c.checked_at
FROM   ops.coverage AS c JOIN live.instruments AS i ON i.id = c.instrument_id;
COMMENT ON VIEW api.coverage IS 'one row per instrument and timeframe: days expected, and what became of them';

CREATE VIEW api.completeness AS
SELECT d.market, d.timeframe, d.day, d.expected, d.present, d.explained, d.missing, d.late,
       (d.present + d.explained)::float8 / NULLIF(d.expected, 0) AS completeness, d.checked_at
FROM   ops.coverage_days AS d;
COMMENT ON VIEW api.completeness IS 'one row per trading day of a market: instruments expected, and what became of them';

CREATE VIEW api.findings AS
SELECT i.market, i.code, i.name, f.timeframe, f.ts, api.day_of(i.market, f.timeframe, f.ts) AS day,
       f.rule, f.detail, f.state, f.first_seen, f.run_id
FROM   ops.findings AS f JOIN live.instruments AS i ON i.id = f.instrument_id;

CREATE VIEW api.quality AS
SELECT c.*, (c.present + c.explained)::float8 / NULLIF(c.expected, 0) AS completeness,
       g.oldest_open, COALESCE(g.given_up, 0) AS given_up, COALESCE(f.findings, 0) AS findings
FROM  (SELECT i.market, c.timeframe, count(*) AS instruments, count(*) FILTER (WHERE c.expected = 0) AS uncollected,
              sum(c.expected) AS expected, sum(c.present) AS present, sum(c.explained) AS explained,
              sum(c.missing) AS missing, sum(c.late) AS late, min(c.checked_at) AS checked_at
       FROM   ops.coverage AS c JOIN live.instruments AS i ON i.id = c.instrument_id
       GROUP  BY i.market, c.timeframe) AS c
LEFT   JOIN (SELECT i.market, g.timeframe, count(*) FILTER (WHERE g.state = 'given_up') AS given_up,
                    min(api.day_of(i.market, g.timeframe, g.ts)) FILTER (WHERE g.state <> 'given_up') AS oldest_open
             FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id
             WHERE  g.state IN ('open', 'repairing', 'given_up')
             GROUP  BY i.market, g.timeframe) AS g USING (market, timeframe)
LEFT   JOIN (SELECT i.market, f.timeframe, count(*) AS findings
             FROM   ops.findings AS f JOIN live.instruments AS i ON i.id = f.instrument_id
             WHERE  f.state = 'open'
             GROUP  BY i.market, f.timeframe) AS f USING (market, timeframe);
COMMENT ON VIEW api.quality IS
    'one row per market and timeframe, for the page: how complete, what is missing or late, what was given up, open findings';
"""


def upgrade() -> None:
    for part in (GAPS, COVERAGE, VIEWS):
        op.execute(part)

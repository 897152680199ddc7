"""Instruments with a dated history, and strikes before one is taken for delisted.

Stored rows: instruments keep what they hold; attributes that nobody wrote are dropped, and the dated ones are unknown until the
next sync. History begins with that sync: what was true before it is not known.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LIVE = """
ALTER TABLE live.instruments
    DROP COLUMN attributes,
    ADD COLUMN board       text,
    ADD COLUMN section     text,
    ADD COLUMN shares      bigint CHECK (shares > 0),
    ADD COLUMN states      text[],
    ADD COLUMN nxt_enabled boolean,
    ADD COLUMN listed_by   text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN live.instruments.states IS 'such as halted, administrative; {}: none; NULL: not known';
COMMENT ON COLUMN live.instruments.listed_by IS
    'the sources that list the whole market and have listed it: when they do not any more, it is delisted';
COMMENT ON COLUMN live.instruments.delisted_on IS
    'the first trading day on which it was not listed any more; its candles are kept';

CREATE TABLE live.instrument_history (
    instrument_id int NOT NULL,
    valid_from    date NOT NULL,
    name          text NOT NULL,
    kind          text NOT NULL,
    board         text,
    sector        text,
    section       text,
    shares        bigint,
    states        text[],
    nxt_enabled   boolean,
    listed_on     date,
    delisted_on   date,
    source        text NOT NULL,
    run_id        uuid NOT NULL,
    PRIMARY KEY (instrument_id, valid_from)
);
COMMENT ON TABLE live.instrument_history IS
    'what was known of an instrument from the date valid_from (of its market) on; NULL: not known';
"""

OPS = """
CREATE TABLE ops.listing_strikes (
    instrument_id int PRIMARY KEY,
    first_absent  date NOT NULL,
    last_absent   date NOT NULL,
    strikes       int NOT NULL CHECK (strikes > 0),
    run_id        uuid NOT NULL
);
COMMENT ON TABLE ops.listing_strikes IS
    'listed instruments that whole lists lacked, and on how many trading days; two of them delist';
"""

VIEWS = """
CREATE VIEW api.instruments AS
SELECT i.id AS instrument_id, i.market, i.code, i.name, i.kind, i.board, i.sector, i.section, i.shares, i.states,
       i.nxt_enabled, i.listed_on, i.delisted_on, s.first_absent AS absent_since, i.currency, i.source, i.run_id
FROM   live.instruments AS i
LEFT   JOIN ops.listing_strikes AS s ON s.instrument_id = i.id;
COMMENT ON VIEW api.instruments IS 'what is known now; absent_since: the newest lists lack it';

CREATE VIEW api.instrument_history AS
SELECT h.instrument_id, i.market, i.code, h.valid_from,
       lead(h.valid_from) OVER (PARTITION BY h.instrument_id ORDER BY h.valid_from) AS valid_until,
       h.name, h.kind, h.board, h.sector, h.section, h.shares, h.states, h.nxt_enabled, h.listed_on, h.delisted_on,
       h.source, h.run_id
FROM   live.instrument_history AS h JOIN live.instruments AS i ON i.id = h.instrument_id;
COMMENT ON VIEW api.instrument_history IS 'each row holds from valid_from up to, and without, valid_until';
"""


def upgrade() -> None:
    for part in (LIVE, OPS, VIEWS):
        op.execute(part)

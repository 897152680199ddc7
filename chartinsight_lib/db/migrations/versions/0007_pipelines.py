"""Runs say what they ran on; slots say what was due.

Stored rows: earlier runs keep what they hold; what was not recorded of them stays NULL.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OPS = """
ALTER TABLE ops.runs
    ADD COLUMN market      text,
    ADD COLUMN slot        timestamptz,
    ADD COLUMN attempt     int NOT NULL DEFAULT 1,
    ADD COLUMN engine      text NOT NULL DEFAULT 'person',
    ADD COLUMN expires_at  timestamptz,
    ADD COLUMN lock_hash   text,
    ADD COLUMN watermark   jsonb,
    ADD COLUMN error_class text,
    ADD COLUMN error_cell  int,
    ADD COLUMN log_path    text,
    ADD COLUMN replay_of   uuid;
COMMENT ON COLUMN ops.runs.started_at IS 'by the clock of the market, which a simulator may drive; so is finished_at';
COMMENT ON COLUMN ops.runs.expires_at IS 'by the clock of this server: a run that is running later than this is lost';
COMMENT ON COLUMN ops.runs.engine IS 'who started it: person, up, scheduler, airflow';
COMMENT ON COLUMN ops.runs.lock_hash IS 'the lock of the packages, shortened SHA-256';
COMMENT ON COLUMN ops.runs.watermark IS '{market timeframe: watermark} of what was stored when it began';
CREATE INDEX runs_running ON ops.runs (run_id) WHERE state = 'running';
CREATE INDEX runs_started ON ops.runs (started_at);

CREATE TABLE ops.slots (
    job         text NOT NULL,
    market      text NOT NULL,
    slot        timestamptz NOT NULL,
    day         date NOT NULL,
    state       text NOT NULL CHECK (state IN ('running', 'retrying', 'succeeded', 'failed', 'skipped', 'covered')),
    run_id      uuid,
    pool        text,
    attempts    int NOT NULL DEFAULT 0,
    most        int NOT NULL DEFAULT 1 CHECK (most >= 1),
    next_try    timestamptz,
    reason      text,
    claimed_by  text NOT NULL,
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (job, market, slot),
    CHECK ((state = 'retrying') = (next_try IS NOT NULL)),
    CHECK (state NOT IN ('skipped', 'covered') OR reason IS NOT NULL)
);
COMMENT ON TABLE ops.slots IS
    'what was due, once each: a row is a claim, and its state what became of it. covered: a later run stands for it';
COMMENT ON COLUMN ops.slots.day IS 'the date of the slot in the zone of its market';
COMMENT ON COLUMN ops.slots.most IS 'so many attempts there may be';
CREATE INDEX slots_open ON ops.slots (job, market) WHERE state IN ('running', 'retrying');
CREATE INDEX slots_run ON ops.slots (run_id);
"""

VIEWS = """
CREATE OR REPLACE VIEW api.runs AS SELECT * FROM ops.runs;
CREATE VIEW api.slots AS SELECT * FROM ops.slots;
COMMENT ON VIEW api.slots IS 'what was due, and what became of it';
"""


def upgrade() -> None:
    for part in (OPS, VIEWS):
        op.execute(part)

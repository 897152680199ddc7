"""Schedulers say that they are alive; the newest run of a job is found at once.

Stored rows: none change.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OPS = """
CREATE TABLE ops.schedulers (
    name         text PRIMARY KEY,
    market       text NOT NULL,
    host         text NOT NULL,
    pid          int NOT NULL,
    started_at   timestamptz NOT NULL,
    seen_at      timestamptz NOT NULL,
    jobs_running int NOT NULL CHECK (jobs_running >= 0)
);
COMMENT ON TABLE ops.schedulers IS 'who runs jobs; one that was killed leaves its row, which is forgotten after a week';
COMMENT ON COLUMN ops.schedulers.seen_at IS 'by the clock of this server, whatever the clock of the market; so is started_at';

CREATE INDEX runs_of_job ON ops.runs (job, started_at DESC);
"""

VIEWS = """
CREATE VIEW api.schedulers AS
SELECT s.*, extract(epoch FROM clock_timestamp() - s.seen_at)::float8 AS age_s FROM ops.schedulers AS s;
COMMENT ON VIEW api.schedulers IS 'age_s: so many seconds ago it was heard of last; one that is alive says so each five';
"""


def upgrade() -> None:
    for part in (OPS, VIEWS):
        op.execute(part)

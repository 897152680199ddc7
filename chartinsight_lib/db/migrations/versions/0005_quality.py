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
    ADD COLUMN reason       text,
    ADD CHECK ((state = 'explained') = (kind IN ('halted', 'no-trade')));
COMMENT ON COLUMN ops.gaps.state IS
    'explained: a source says why there is no bar; open, repairing: to be asked again; resolved: it came; given_up: see reason';
CREATE INDEX gaps_due ON ops.gaps (next_try, ts) WHERE state IN ('open', 'repairing');
"""


def upgrade() -> None:
    op.execute(GAPS)

"""The jobs' login reads where the sequences stand, so that it can make backups.

Stored rows: none change.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

GRANTS = """
GRANT SELECT ON ALL SEQUENCES IN SCHEMA live, ops, radar TO chartinsight_loader;
ALTER DEFAULT PRIVILEGES IN SCHEMA live, ops, radar GRANT SELECT ON SEQUENCES TO chartinsight_loader;
"""


def upgrade() -> None:
    op.execute(GRANTS)

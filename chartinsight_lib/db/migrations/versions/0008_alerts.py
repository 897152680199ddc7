"""Alerts: what was found, whom it was told, and the rules of the radar; what the planner knows of final bars.

Stored rows: none change.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OPS = """
CREATE TABLE ops.alerts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market      text NOT NULL,
    kind        text NOT NULL,
    key         text NOT NULL,
    level       text NOT NULL CHECK (level IN ('info', 'warning', 'critical')),
    standing    boolean NOT NULL,
    subject     text NOT NULL,
    body        text NOT NULL,
    occurred_at timestamptz NOT NULL,
    opened_at   timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL,
    seen        int NOT NULL DEFAULT 1,
    told_at     timestamptz,
    resolved_at timestamptz,
    CHECK (standing OR resolved_at IS NULL)
);
CREATE UNIQUE INDEX alerts_once ON ops.alerts (market, key) WHERE resolved_at IS NULL OR NOT standing;
COMMENT ON TABLE ops.alerts IS
    'what deserved a notice, newest id last. standing: it holds until resolved_at, and stands here once while it does; else it '
    'happened, once';
COMMENT ON COLUMN ops.alerts.market IS 'empty: of no market, as the pace of a quota';
COMMENT ON COLUMN ops.alerts.seen IS 'so many checks found it';
COMMENT ON COLUMN ops.alerts.told_at IS 'when it was last put down to be told, by the clock of the market, as all times here';

CREATE TABLE ops.notices (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id bigint NOT NULL REFERENCES ops.alerts,
    channel  text NOT NULL,
    what     text NOT NULL CHECK (what IN ('opened', 'reminder', 'resolved')),
    state    text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'sent', 'given_up')),
    tries    int NOT NULL DEFAULT 0,
    next_try timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at  timestamptz,
    error    text
);
CREATE INDEX notices_due ON ops.notices (channel, next_try) WHERE state IN ('waiting', 'sending');
CREATE INDEX notices_alert ON ops.notices (alert_id);
COMMENT ON TABLE ops.notices IS
    'an alert to be told on a channel, and what became of it; all times by the clock of this server. A channel is named by the '
    'scheme of its address and a fingerprint, because the address holds secrets';
COMMENT ON COLUMN ops.notices.next_try IS 'not before this; of one that is being sent: from then on its sender counts as dead';

CREATE TABLE ops.mutes (
    key   text PRIMARY KEY,
    until timestamptz NOT NULL
);
COMMENT ON TABLE ops.mutes IS 'alerts of this key, and of keys that begin with it and a colon, are recorded and not told';
"""

RADAR = """
CREATE TABLE radar.alert_rules (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market     text NOT NULL,
    name       text NOT NULL,
    kind       text NOT NULL,
    code       text,
    parameters jsonb NOT NULL,
    level      text NOT NULL DEFAULT 'info' CHECK (level IN ('info', 'warning', 'critical')),
    enabled    boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    state      jsonb NOT NULL DEFAULT '{}',
    UNIQUE (market, name)
);
COMMENT ON TABLE radar.alert_rules IS 'what of the market a person wants to be told';
COMMENT ON COLUMN radar.alert_rules.state IS 'what the rule saw last: it speaks when that changes, and not while it stays';
"""

# Without it the planner takes final bars for rare ones and reads the whole history of each instrument to find its newest: on
# 2,700 instruments 100 times as long, and a check asks for it each minute.
LIVE = "CREATE STATISTICS live.candles_final ON (flags & 1) FROM live.candles"

VIEWS = """
CREATE VIEW api.alerts AS
SELECT a.*, COALESCE(n.sent, 0) AS sent, COALESCE(n.waiting, 0) AS waiting, n.error
FROM   ops.alerts AS a
LEFT   JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'sent') AS sent,
           count(*) FILTER (WHERE state IN ('waiting', 'sending')) AS waiting,
           string_agg(DISTINCT channel || ': ' || error, '; ') FILTER (WHERE state <> 'sent') AS error
    FROM   ops.notices WHERE alert_id = a.id
) AS n ON true;
COMMENT ON VIEW api.alerts IS 'the history of alerts: how many notices went, how many wait, and why';

CREATE VIEW api.alert_rules AS SELECT * FROM radar.alert_rules;
"""


def upgrade() -> None:
    for part in (OPS, RADAR, LIVE, VIEWS):
        op.execute(part)

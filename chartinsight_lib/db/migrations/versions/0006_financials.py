"""Filings as they came, with the date on which they were received, and the figures worked out from them.

Stored rows: none change.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

LIVE = """
CREATE TABLE live.filings (
    rcept_no      text PRIMARY KEY CHECK (rcept_no ~ '^[0-9]{14}$'),
    corp_code     text NOT NULL CHECK (corp_code ~ '^[0-9]{8}$'),
    stock_code    text NOT NULL CHECK (stock_code ~ '^[0-9A-Z]{6}$'),
    instrument_id int,
    report_name   text NOT NULL,
    form          text NOT NULL CHECK (form IN ('annual', 'half', 'quarter')),
    period_end    date NOT NULL,
    received_on   date NOT NULL,
    state         text NOT NULL DEFAULT 'listed' CHECK (state IN ('listed', 'fetched', 'superseded', 'without')),
    bsns_year     text CHECK (bsns_year ~ '^[0-9]{4}$'),
    reprt_code    text CHECK (reprt_code IN ('11013', '11012', '11014', '11011')),
    fs_div        text CHECK (fs_div IN ('CFS', 'OFS')),
    payload       jsonb,
    shares        jsonb,
    listed_at     timestamptz NOT NULL,
    fetched_at    timestamptz,
    run_id        uuid NOT NULL,
    CHECK ((state = 'fetched') = (payload IS NOT NULL))
);
CREATE INDEX filings_corp ON live.filings (corp_code, period_end);
CREATE INDEX filings_instrument ON live.filings (instrument_id);
COMMENT ON TABLE live.filings IS
    'periodic reports at Open DART. payload: the rows of fnlttSinglAcntAll, shares: those of stockTotqySttus, as received';
COMMENT ON COLUMN live.filings.state IS
    'listed: its statements are still to be had; fetched; superseded: a later correction took its place before it was'
    ' fetched; without: it brought no statements of its own';

CREATE TABLE live.filing_lists (
    first_day date NOT NULL,
    last_day  date NOT NULL,
    filings   int NOT NULL,
    listed_at timestamptz NOT NULL,
    run_id    uuid NOT NULL,
    PRIMARY KEY (first_day, last_day)
);
COMMENT ON TABLE live.filing_lists IS 'days of which the list of all filings was read to its end, in one transaction with it';

CREATE TABLE live.financials (
    instrument_id            int NOT NULL,
    kind                     text NOT NULL CHECK (kind IN ('quarter', 'annual')),
    period_end               date NOT NULL,
    fs_div                   text NOT NULL CHECK (fs_div IN ('CFS', 'OFS')),
    known_from               date NOT NULL,
    rcept_no                 text NOT NULL,
    minus_rcept_no           text NOT NULL,
    currency                 text NOT NULL,
    revenue                  float8,
    operating_income         float8,
    owner_income             float8,
    revenue_to_date          float8,
    operating_income_to_date float8,
    owner_income_to_date     float8,
    owner_equity             float8,
    shares                   float8,
    eps                      float8,
    notes                    text NOT NULL,
    run_id                   uuid NOT NULL,
    PRIMARY KEY (instrument_id, kind, period_end, fs_div, known_from, rcept_no, minus_rcept_no)
);
COMMENT ON TABLE live.financials IS
    'figures of live.filings, worked out again whenever a filing of the instrument is fetched; NULL: not known';
COMMENT ON COLUMN live.financials.known_from IS 'the day on which the filing was received; what came later is a row of its own';
COMMENT ON COLUMN live.financials.minus_rcept_no IS
    'of a fourth quarter: the nine-month report that was subtracted from the annual one; else empty';
COMMENT ON COLUMN live.financials.shares IS
    'shares outstanding at period_end, of all classes, without treasury shares, as they were counted then: not split-adjusted';
COMMENT ON COLUMN live.financials.notes IS 'why a figure is NULL';
COMMENT ON COLUMN live.financials.eps IS 'owner_income / shares, in the currency; not split-adjusted';
"""

OPS = """
CREATE TABLE ops.allowances (
    key  text NOT NULL,
    day  date NOT NULL,
    used int NOT NULL CHECK (used >= 0),
    PRIMARY KEY (key, day)
);
COMMENT ON TABLE ops.allowances IS 'requests of a day (KST), one row per fingerprint of a key';
"""

VIEWS = """
CREATE VIEW api.filings AS
SELECT i.market, f.stock_code AS code, i.name, f.corp_code, f.rcept_no, f.report_name, f.form, f.period_end, f.received_on,
       f.state, f.bsns_year, f.reprt_code, f.fs_div, f.payload, f.shares, f.listed_at, f.fetched_at, f.run_id
FROM   live.filings AS f
LEFT   JOIN live.instruments AS i ON i.id = f.instrument_id;
COMMENT ON VIEW api.filings IS 'periodic reports, also of companies that are no instrument here (market is then NULL)';

CREATE VIEW api.financials AS
SELECT i.market, i.code, i.name, f.kind, f.period_end, f.fs_div, f.known_from,
       row_number() OVER (PARTITION BY f.instrument_id, f.kind, f.period_end, f.fs_div
                          ORDER BY f.known_from DESC, f.rcept_no DESC, f.minus_rcept_no DESC) = 1 AS newest,
       f.currency, f.revenue, f.operating_income, f.owner_income,
       f.revenue_to_date, f.operating_income_to_date, f.owner_income_to_date,
       f.owner_equity, f.shares, f.eps, f.notes, f.rcept_no, f.minus_rcept_no, f.run_id
FROM   live.financials AS f
JOIN   live.instruments AS i ON i.id = f.instrument_id;
COMMENT ON VIEW api.financials IS
    'figures by the day from which they were known; newest: no later filing tells this period differently';
"""


def upgrade() -> None:
    for part in (LIVE, OPS, VIEWS):
        op.execute(part)

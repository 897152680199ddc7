"""What has to be true of the database at any time: each rule passes where it is, and finds what breaks it."""

from uuid import uuid4

import pytest
from backing import CLOCK, acting, bars
from holding import know
from sqlalchemy import text

from chartinsight_lib import ledger
from chartinsight_lib.db import invariants
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role


def found(database: Database) -> dict[str, bool | None]:
    with acting(database, Role.LOADER) as conn:
        return {one.what: one.good for one in invariants.check(conn)}


def test_a_database_as_it_should_be_passes_every_check(database, loader):
    with loader.begin() as conn:
        know(conn, "005930")
        bars(conn, "005930", {"2024-08-05": (1, 1, 1, 1, 1, 1, 8)})
    with loader.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        ledger.begin(conn, run_id=uuid4(), job="a", parameters={}, clock=CLOCK)  # it runs, and its lock is held
        assert set(found(database).values()) <= {True, None}


BROKEN = {
    "instruments": "INSERT INTO ops.cursors VALUES (99, '1d', 's', '2024-08-05', '2024-08-05', gen_random_uuid())",
    "identity": "DELETE FROM ops.identity",
    "watermarks": "DELETE FROM live.watermarks",
    "watermark": "UPDATE live.watermarks SET version = 9223372036854775807",
    "coverage": "INSERT INTO ops.coverage SELECT id, '1d', '2024-08-05', '2024-08-06', 2, 2, 0, 0, 0, now(), gen_random_uuid() "
    "FROM live.instruments",
    "resolved gaps": "INSERT INTO ops.gaps (instrument_id, timeframe, ts, kind, source, run_id, state) "
    "SELECT id, '1d', '2024-08-06 00:00+00', 'missing', 's', gen_random_uuid(), 'resolved' FROM live.instruments",
    "runs": "INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host) "
    "VALUES ('f0000000-0000-4000-8000-000000000000', 'a', '{}', 'running', now(), '', '')",
    "slots": "INSERT INTO ops.slots (job, market, slot, day, state, run_id, claimed_by, changed_at) "
    "VALUES ('a', 'KRX', now(), '2024-08-05', 'running', gen_random_uuid(), 'me', now())",
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database, loader, what):
    with loader.begin() as conn:
        know(conn, "005930")
        bars(conn, "005930", {"2024-08-05": (1, 1, 1, 1, 1, 1, 8)})
    with loader.connect() as conn:  # rolled back, so that the identity is not lost to other tests
        conn.execute(text("SET LOCAL chartinsight.moves_watermark = 'itself'"))
        conn.execute(text(BROKEN[what]))
        findings = list(invariants.check(conn))
        assert [one.what for one in findings if one.good is False] == [what]
        assert all(one.remedy for one in findings if one.good is False)
        conn.rollback()


def test_another_schema_is_said_and_its_rules_are_not_tried(database):
    engine = database.engine(Role.OWNER)
    with engine.connect() as conn:
        conn.execute(text("UPDATE public.alembic_version SET version_num = '0006'"))
        assert [(one.what, one.good) for one in invariants.check(conn)] == [("schema", False)]
        conn.rollback()
    engine.dispose()

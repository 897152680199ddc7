"""Fixtures for the tests of backups: a second server to restore on."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from backing import acting
from sqlalchemy import text

from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.settings import Settings


@pytest.fixture(scope="session")
def second() -> Iterator[Database]:
    """A second server, with the schema."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    with open_database(Settings(home=home, _env_file=None)) as found:
        upgrade(found)
        yield found
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def target(second: Database) -> Iterator[Database]:
    """The second server, with nothing in its tables."""
    yield second
    with acting(second) as conn:
        names = conn.execute(
            text("""
                SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
                WHERE schemaname IN ('live', 'ops', 'radar') AND tablename <> 'identity'
            """)
        ).scalar_one()
        conn.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")

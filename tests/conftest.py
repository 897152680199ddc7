"""Fixtures for every test: a PostgreSQL of its own, started as the product starts it and stopped at the end."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values
from sqlalchemy import Connection, Engine, text

from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import DATABASE, Role
from chartinsight_lib.settings import PREFIX, PROJECT, Settings


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data beside the checkout; a test that asks for it is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real market data in {folder}, which are not redistributed")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_user() -> Iterator[None]:
    """Nobody's environment decides a test, and no test writes into a database of somebody's."""
    if "DATABASE_URL" in dotenv_values(PROJECT / ".env"):
        pytest.exit(f"{PROJECT / '.env'} sets DATABASE_URL, and the tests would write there. Move it away first.", 2)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX) or name == "DATABASE_URL"]:
            patch.delenv(name)
        yield


@pytest.fixture
def empty_home() -> Iterator[Path]:
    """A new data directory that the server's user can reach, also where the tests run as root."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def settings() -> Iterator[Settings]:
    """Settings with a data directory of the test session's own."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    yield Settings(home=home, runs_dir=home / "runs", _env_file=None)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def database(settings: Settings) -> Iterator[Database]:
    """The session's PostgreSQL, migrated. Tests that commit use `loader`, which empties it.

    A commit does not wait for the disk here: the tests in which a server dies start their own.
    """
    with open_database(settings) as found:
        upgrade(found)
        owner = found.engine(Role.OWNER)
        with owner.begin() as connection:
            connection.execute(text(f"ALTER DATABASE {DATABASE} SET synchronous_commit = off"))
        owner.dispose()
        yield found


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    """A connection as the loader, in a transaction that is rolled back."""
    engine = database.engine(Role.LOADER)
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()
    engine.dispose()


@pytest.fixture
def loader(database: Database) -> Iterator[Engine]:
    """An engine as the loader; what a test commits is emptied again after it."""
    engine = database.engine(Role.LOADER)
    yield engine
    engine.dispose()
    _truncate(database)


@pytest.fixture(scope="session")
def emptied(database: Database) -> Callable[[], None]:
    """Empties the tables, as if the database were a new one."""
    return lambda: _truncate(database)


# Most tests fill two or three of thirty tables, and to truncate an empty one costs as much as to truncate a full one.
_EMPTY = """
DO $$
DECLARE
    place text;
    holds boolean;
    filled text[];
BEGIN
    FOR place IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('live', 'ops', 'radar') AND tablename <> 'identity'
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || place || ')' INTO holds;
        IF holds THEN
            filled := filled || place;
        END IF;
    END LOOP;
    IF filled IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || array_to_string(filled, ', ') || ' CASCADE';
    END IF;
    PERFORM setval(format('%I.%I', schemaname, sequencename), start_value, false) FROM pg_sequences
    WHERE schemaname IN ('live', 'ops', 'radar') AND last_value IS NOT NULL;
END $$
"""


def _truncate(database: Database) -> None:
    """Empty all tables but the one that tells the database from others; numbers begin at their first again."""
    owner = database.engine(Role.OWNER)
    with owner.begin() as connection:
        connection.execute(text(_EMPTY))
    owner.dispose()

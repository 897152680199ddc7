"""Brings the schema of `tradesmart` up to date: forward only, and nothing to do the second time."""

from pathlib import Path

from psycopg2 import errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role, ensure_roles
from chartinsight_lib.errors import DatabaseError

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x7AADE5  # one upgrade at a time, whoever starts it


def check_schema(database: Database) -> str:
    """Return the schema's version. Raises DatabaseError when this program needs another."""
    engine = database.login_engine()  # the roles may not be there yet
    try:
        with engine.connect() as conn:
            current = _current(conn)
    finally:
        engine.dispose()
    if current != head():
        raise DatabaseError(
            f"database: its schema is version {current or 'none'}, and this program needs {head()}. "
            "Run `chartinsight db upgrade` with an administrator's address, or update the program."
        )
    return current


def upgrade(database: Database) -> str:
    """Make the roles where they are missing, run the migrations that are missing; return the schema's version.

    Raises:
        DatabaseError: the login of DATABASE_URL may not create roles, or the schema is newer than this program.
    """
    if database.embedded is None:
        _ensure_roles(database)
    newest = head()
    engine = database.engine(Role.OWNER)
    try:
        with engine.begin() as conn:
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            current = _current(conn)
            if current > newest:
                raise DatabaseError(
                    f"database: its schema is version {current}, newer than this program's {newest}. Update the program."
                )
            if current < newest:
                _migrate(conn)
        return newest
    finally:
        engine.dispose()


def head() -> str:
    """Return the schema's version that this program needs."""
    return max(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def _current(conn: Connection) -> str:
    """Return the schema's version, "" where there is none yet; versions are ordered texts, as in 0001."""
    if conn.execute(text("SELECT to_regclass('public.alembic_version')")).scalar_one() is None:
        return ""
    return str(conn.execute(text("SELECT version_num FROM public.alembic_version")).scalar_one())


def _migrate(conn: Connection) -> None:
    from alembic import command  # takes a third of a second: only where there is something to do
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def _ensure_roles(database: Database) -> None:
    engine = database.login_engine()
    try:
        with engine.begin() as conn:
            ensure_roles(conn.connection.cursor())
            name = conn.execute(text("SELECT current_database()")).scalar_one()
            quoted = conn.dialect.identifier_preparer.quote(name)
            # The owner makes schemas, the loader stages rows in temporary tables.
            conn.execute(text(f"GRANT CREATE, CONNECT ON DATABASE {quoted} TO {Role.OWNER.value}"))
            conn.execute(text(f"GRANT TEMPORARY, CONNECT ON DATABASE {quoted} TO {Role.LOADER.value}"))
            conn.execute(text(f"GRANT CONNECT ON DATABASE {quoted} TO {Role.READER.value}"))
            conn.execute(text(f"GRANT CREATE ON SCHEMA public TO {Role.OWNER.value}"))
    except (DBAPIError, errors.InsufficientPrivilege) as error:  # the driver's cursor raises the driver's own
        if not isinstance(getattr(error, "orig", error), errors.InsufficientPrivilege):
            raise
        raise DatabaseError(
            "DATABASE_URL: this login may not create the roles chartinsight_owner, _loader and _reader. Run "
            "`chartinsight db upgrade` once with an administrator's address, or make them by hand and grant them to this login."
        ) from error
    finally:
        engine.dispose()

"""Who may do what, on the embedded server and on one that DATABASE_URL names; and how a bad address is refused."""

import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from chartinsight_lib.db.embedded import start_embedded
from chartinsight_lib.db.engine import Database, open_database, open_engine
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import DATABASE, READER_TIMEOUT, Role
from chartinsight_lib.errors import ConfigError, DatabaseError
from chartinsight_lib.settings import Settings
from chartinsight_lib.studio import read_command

SECRET = "hunter2-hunter2"
INSTRUMENT = (
    "INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id) "
    "VALUES ('KRX', '005930', 'Samsung', 'stock', 'KRW', 'test', gen_random_uuid())"
)


@pytest.fixture
def reader(database: Database) -> Iterator[Connection]:
    yield from _connected(database.engine(Role.READER))


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    yield from _connected(database.engine(Role.OWNER))


def _connected(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as conn:
        yield conn
        conn.rollback()
    engine.dispose()


def with_url(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(url)})


def superuser_url(home: Path, port: int, database: str) -> str:
    password = json.loads((home / "postgres" / "credentials.json").read_text())["postgres"]
    return f"postgresql://postgres:{password}@127.0.0.1:{port}/{database}"


@contextmanager
def administrator(url: str) -> Iterator[Callable[[str], None]]:
    """Runs statements one by one, each committed at once."""
    conn = psycopg2.connect(url)
    conn.autocommit = True
    with conn.cursor() as cursor:
        yield cursor.execute
    conn.close()


@pytest.fixture
def second(database: Database, settings: Settings) -> Iterator[str]:
    """The address, as superuser, of an empty second database on the session's server."""
    assert database.embedded is not None
    port = database.embedded.port
    with administrator(superuser_url(settings.home, port, "postgres")) as run:
        run("CREATE DATABASE second")
        yield superuser_url(settings.home, port, "second")
        run("DROP DATABASE second WITH (FORCE)")


def names(conn: Connection, query: str) -> list[str]:
    return list(conn.execute(text(query)).scalars())


# What a role may do.


def test_the_reader_sees_candles_and_every_view_of_the_api(reader):
    views = names(reader, "SELECT table_name FROM information_schema.views WHERE table_schema = 'api' ORDER BY 1")
    assert {"candles", "candles_raw", "radar", "health", "runs", "run_items", "quarantine", "gaps"} <= set(views)
    for relation in ["live.candles", *(f"api.{view}" for view in views)]:
        assert reader.execute(text(f"SELECT count(*) FROM {relation}")).scalar_one() >= 0


FORBIDDEN = {
    "insert": INSTRUMENT,
    "update": "UPDATE live.candles SET close = 1",
    "delete": "DELETE FROM live.candles",
    "truncate": "TRUNCATE live.candles",
    "drop": "DROP TABLE live.candles",
    "create in public": "CREATE TABLE public.mine (n int)",
    "create in live": "CREATE TABLE live.mine (n int)",
    "create a view in api": "CREATE VIEW api.mine AS SELECT 1 AS n",
    "create a schema": "CREATE SCHEMA mine",
    "write through a view": "UPDATE api.runs SET error = ''",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_reader_changes_nothing(reader, what):
    with pytest.raises(DBAPIError, match="permission denied|read-only|must be owner|not a simple|cannot"):
        reader.execute(text(FORBIDDEN[what]))


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_reader_changes_nothing_either_when_it_asks_for_writable_transactions(reader, what):
    reader.execute(text("SET default_transaction_read_only = off"))
    reader.commit()
    with pytest.raises(DBAPIError, match="permission denied|must be owner"):
        reader.execute(text(FORBIDDEN[what]))


def test_the_reader_is_cut_off_after_a_while(reader):
    assert names(reader, "SHOW statement_timeout") == [READER_TIMEOUT]
    reader.execute(text("SET statement_timeout = '50ms'"))
    with pytest.raises(DBAPIError, match="statement timeout"):
        reader.execute(text("SELECT pg_sleep(5)"))


def test_the_loader_writes_rows(conn):
    assert conn.execute(text(INSTRUMENT)).rowcount == 1
    assert conn.execute(text("DELETE FROM live.instruments")).rowcount == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE live.mine (n int)",
        "CREATE TABLE public.mine (n int)",
        "CREATE SCHEMA mine",
        "DROP TABLE live.candles",
        "TRUNCATE live.candles",
        "ALTER TABLE live.candles ADD COLUMN mine int",
        "DROP VIEW api.candles",
        "UPDATE public.alembic_version SET version_num = '0'",
    ],
)
def test_the_loader_changes_no_table(conn, statement):
    with pytest.raises(DBAPIError, match="permission denied|must be owner"):
        conn.execute(text(statement))


def test_none_of_the_three_is_more_than_a_login(reader):
    rows = reader.execute(
        text("""
            SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS mighty
            FROM pg_roles WHERE rolname LIKE 'chartinsight%' ORDER BY rolname
        """)
    ).all()
    assert rows == [("chartinsight_loader", False), ("chartinsight_owner", False), ("chartinsight_reader", False)]


@pytest.mark.parametrize("role", list(Role))
def test_every_connection_acts_in_its_role_and_speaks_utc(database, role):
    engine = database.engine(role)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT current_user::text, current_setting('timezone')")).one() == (role, "UTC")
    engine.dispose()


# The schema.


def described(conn: Connection) -> list[Any]:
    return [
        *conn.execute(text("SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns "
                           "WHERE table_schema IN ('live', 'ops', 'radar', 'api', 'public') ORDER BY 1, 2, 3")).all(),
        *conn.execute(text("SELECT nspname, relname, relacl::text, c.oid FROM pg_class c JOIN pg_namespace n "
                           "ON n.oid = relnamespace WHERE nspname IN ('live', 'ops', 'radar', 'api') ORDER BY 1, 2")).all(),
    ]  # fmt: skip


def test_upgrading_twice_changes_nothing(database, owner):
    before = described(owner)
    owner.rollback()
    version = upgrade(database)
    assert names(owner, "SELECT version_num FROM public.alembic_version") == [version]
    assert described(owner) == before


def test_a_schema_newer_than_the_program_is_refused(second, settings):
    with open_database(with_url(settings, second)) as database:
        version = upgrade(database)
        with administrator(second) as run:
            run("UPDATE public.alembic_version SET version_num = '9999'")
        with pytest.raises(DatabaseError, match=f"9999, newer than this program's {version}. Update the program"):
            upgrade(database)


# A server that DATABASE_URL names.


def acts_as(engine: Engine) -> str:
    with engine.connect() as conn:
        user: str = conn.execute(text("SELECT current_user::text")).scalar_one()
    engine.dispose()
    return user


def check_the_three_roles(settings: Settings) -> None:
    """Whatever the login of DATABASE_URL: it is made ready twice, and each role can do its own and no more."""
    with open_database(settings) as database:
        assert upgrade(database) == upgrade(database)
        assert database.embedded is None
        assert [acts_as(database.engine(role)) for role in Role] == list(Role)
        loader = database.engine(Role.LOADER)
        with loader.begin() as conn:
            conn.execute(text(INSTRUMENT))
            conn.execute(text("CREATE TEMPORARY TABLE stage (n int) ON COMMIT DROP"))
        with loader.connect() as conn, pytest.raises(DBAPIError, match="permission denied|must be owner"):
            conn.execute(text("DROP TABLE live.candles"))
        loader.dispose()
    reader = open_engine(settings)
    with reader.connect() as conn:
        assert names(conn, "SELECT code FROM live.instruments") == ["005930"]
        conn.execute(text("SET default_transaction_read_only = off"))
        conn.commit()
        with pytest.raises(DBAPIError, match="permission denied"):
            conn.execute(text("DELETE FROM live.instruments"))
    reader.dispose()


def test_an_address_of_a_superuser_works_through_the_roles(second, settings):
    check_the_three_roles(with_url(settings, second))


@pytest.fixture(scope="module")
def bare_server() -> Iterator[tuple[Path, int]]:
    """A server that has never heard of us: no database `tradesmart`, none of the three roles."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        server = stack.enter_context(start_embedded(home))
        with administrator(superuser_url(home, server.port, "postgres")) as run:
            run(f"DROP DATABASE {DATABASE}")
            for role in Role:
                run(f"DROP ROLE {role}")
        yield home, server.port


@pytest.fixture
def hosted(bare_server: tuple[Path, int]) -> Iterator[tuple[Callable[[str], None], Callable[[str], str]]]:
    """As a hosted database is given out: (runs a statement as administrator, makes a login's address)."""
    home, port = bare_server
    made = []

    def address(options: str) -> str:
        login, password = f"login_{secrets.token_hex(4)}", secrets.token_hex(8)
        run(f"CREATE ROLE {login} LOGIN PASSWORD '{password}' {options}")
        run(f"CREATE DATABASE of_{login} OWNER {login}")
        made.append(login)
        return f"postgresql://{login}:{password}@127.0.0.1:{port}/of_{login}"

    with administrator(superuser_url(home, port, "postgres")) as run:
        yield run, address
        for login in made:
            run(f"DROP DATABASE of_{login} WITH (FORCE)")
        for role in Role:
            run(f"DROP ROLE IF EXISTS {role}")
        for login in made:
            run(f"DROP ROLE {login}")


def test_an_address_that_may_create_roles_but_is_no_superuser_works_through_the_roles(hosted, settings):
    _, address = hosted
    # Since version 16 of PostgreSQL, who creates a role is its administrator, but may not act as it by that alone.
    check_the_three_roles(with_url(settings, address("CREATEROLE")))


def test_an_address_that_was_granted_roles_made_by_hand_works_through_them(hosted, settings):
    run, address = hosted
    url = address("")
    for role in Role:
        run(f"CREATE ROLE {role}")
        run(f"GRANT {role} TO {make_url(url).username}")
    check_the_three_roles(with_url(settings, url))


def test_an_address_that_may_not_create_roles_is_told_what_to_do(hosted, settings):
    _, address = hosted
    url = address("")
    with (
        open_database(with_url(settings, url)) as database,
        pytest.raises(DatabaseError, match="may not create the roles chartinsight_owner") as raised,
    ):
        upgrade(database)
    assert make_url(url).password not in str(raised.value)


@pytest.mark.parametrize("grant", ["no membership", "a membership without the right to act"])
def test_a_notebook_whose_address_may_not_act_as_the_reader_is_told_what_to_do(hosted, settings, grant):
    run, address = hosted
    url = address("")
    for role in Role:
        run(f"CREATE ROLE {role}")
        if grant != "no membership":
            run(f"GRANT {role} TO {make_url(url).username} WITH SET FALSE")
    with pytest.raises(DatabaseError, match="may not act as chartinsight_reader") as raised:
        open_engine(with_url(settings, url))
    assert make_url(url).password not in str(raised.value)


# Addresses that are wrong.

ADDRESSES = {
    "another database's": (f"mysql://me:{SECRET}@127.0.0.1/tradesmart", ConfigError, "'mysql' is not supported"),
    "no database": (f"postgresql://me:{SECRET}@127.0.0.1:5432", ConfigError, "no database is named"),
    "no database after a slash": (f"postgresql://me:{SECRET}@127.0.0.1:5432/", ConfigError, "no database is named"),
    "no address": (f"me {SECRET}", ConfigError, "not an address"),
    "a port that is a word": (f"postgresql://me:{SECRET}@127.0.0.1:{SECRET}/tradesmart", ConfigError, "not an address"),
    "a password with an @": (f"postgresql://me:x@{SECRET}@127.0.0.1/tradesmart", ConfigError, "%40"),
    "a host that is none": (f"postgresql://me:{SECRET}@no-such-host.invalid/tradesmart", DatabaseError, "no-such-host"),
    "a password in the query": (f"postgresql://me@no-such-host.invalid/t?password={SECRET}", DatabaseError, "no-such-host"),
}  # fmt: skip


@pytest.mark.parametrize("which", ADDRESSES)
@pytest.mark.parametrize("way", ["database", "engine"])
def test_a_wrong_address_is_refused_without_showing_the_password(settings, which, way):
    url, kind, says = ADDRESSES[which]
    with pytest.raises(kind, match="DATABASE_URL") as raised:
        _open(with_url(settings, url), way)
    assert says in str(raised.value)
    _hides(raised.value, SECRET)


@pytest.mark.parametrize("way", ["database", "engine"])
def test_a_server_that_does_not_listen_is_refused_without_showing_the_password(settings, way):
    with socket.socket() as silent:  # bound, so nobody else listens there, and not listening
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(DatabaseError, match=f"127.0.0.1:{port}/tradesmart does not answer") as raised:
            _open(with_url(settings, f"postgresql://me:{SECRET}@127.0.0.1:{port}/tradesmart"), way)
    assert "unset DATABASE_URL" in str(raised.value)
    _hides(raised.value, SECRET)


@pytest.mark.parametrize("way", ["database", "engine"])
def test_a_wrong_password_is_refused_without_showing_it(database, settings, way):
    url = database.urls[Role.READER].set(password=SECRET, drivername="postgresql")
    with pytest.raises(DatabaseError, match="password authentication failed") as raised:
        _open(with_url(settings, url.render_as_string(hide_password=False)), way)
    _hides(raised.value, SECRET)


def _open(settings: Settings, way: str) -> None:
    if way == "engine":
        open_engine(settings)
    else:
        with open_database(settings):
            pass


def _hides(error: BaseException | None, secret: str) -> None:
    """The whole report of an error, its causes included where they are shown, does not hold the secret."""
    while error is not None:
        assert secret not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_command_that_reads_shows_our_readers_password_and_nobody_elses(database):
    assert read_command(database).startswith("psql 'postgresql://chartinsight_reader:")
    foreign = Database(dict.fromkeys(Role, make_url("postgresql+psycopg2://admin:secret@host/tradesmart")))
    assert read_command(foreign) == "./studio db shell"

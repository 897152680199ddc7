"""How a process reaches `tradesmart`: by DATABASE_URL where it is set, else by the embedded server of this machine.

Every connection speaks UTC and acts in one role, whatever login it came with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chartinsight_lib.db.embedded import EmbeddedServer, start_embedded
from chartinsight_lib.db.roles import READER_TIMEOUT, Role, acting_privilege
from chartinsight_lib.errors import ConfigError, DatabaseError
from chartinsight_lib.settings import Settings

CONNECT_TIMEOUT_S = 10
_MAY_ACT_AS = text("SELECT COALESCE((SELECT pg_has_role(oid, :privilege) FROM pg_roles WHERE rolname = :role), false)")


@dataclass(frozen=True, slots=True)
class Database:
    """An address per role. `embedded` is the server this process keeps alive, or None for a server of somebody else's."""

    urls: dict[Role, URL]
    embedded: EmbeddedServer | None = None

    def url(self, role: Role) -> str:
        """Return the address for `role`, with its password: for a child process's environment.

        With DATABASE_URL it is that login's for every role: our engines take on the role, others need not.
        """
        return self.urls[role].set(drivername="postgresql").render_as_string(hide_password=False)

    def engine(self, role: Role) -> Engine:
        """Return a new engine that acts as `role`; the caller disposes of it."""
        return _engine(self.urls[role], role)

    @contextmanager
    def transaction(self, role: Role) -> Iterator[Connection]:
        """Give one transaction as `role`, on a connection of its own; it is committed at the end of the `with`."""
        engine = self.engine(role)
        try:
            with engine.begin() as conn:
                yield conn
        finally:
            engine.dispose()

    def psql_environment(self, role: Role) -> dict[str, str]:
        """Return libpq's variables for a psql that acts as `role`."""
        url = self.urls[role]
        named = {
            "PGHOST": url.host,
            "PGPORT": str(url.port or 5432),
            "PGUSER": url.username,
            "PGPASSWORD": url.password,
            "PGDATABASE": url.database,
            # Without it a server would be spoken to in plain text whose address demands TLS.
            **{f"PG{name.upper()}": url.query.get(name) for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")},
        }
        return {name: str(value) for name, value in named.items() if value} | {"PGOPTIONS": _options(role)}

    def login_engine(self) -> Engine:
        """Return a new engine that acts as the login of DATABASE_URL itself: to make the roles or to see whether they are."""
        return create_engine(self.urls[Role.OWNER], connect_args={"connect_timeout": CONNECT_TIMEOUT_S})


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Give the database for the length of a `with`; start the embedded server when no DATABASE_URL is set.

    Raises:
        ConfigError: DATABASE_URL is no PostgreSQL address, or this machine cannot run the embedded server.
        DatabaseError: the server does not start or does not answer.
    """
    if settings.database_url is not None:
        url = _parse(settings.database_url.get_secret_value())
        _check(url)
        yield Database(dict.fromkeys(Role, url))
        return
    with start_embedded(settings.home) as server:
        yield Database({role: make_url(server.url(role)) for role in Role}, server)


_kept_alive: dict[Path, EmbeddedServer] = {}


def open_engine(settings: Settings, role: Role = Role.READER) -> Engine:
    """Return an engine for a notebook: the database stays up until the process ends. Errors as `open_database`."""
    if settings.database_url is not None:
        url = _parse(settings.database_url.get_secret_value())
        _check(url, role)
        return _engine(url, role)
    if settings.home not in _kept_alive:
        _kept_alive[settings.home] = start_embedded(settings.home)
    return _engine(make_url(_kept_alive[settings.home].url(role)), role)


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # ValueError: the port is no number
        raise ConfigError(  # the cause would print the address, and a password in it
            "DATABASE_URL: not an address. Expected postgresql://user:password@host:5432/tradesmart."
        ) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ConfigError(f"DATABASE_URL: {url.drivername!r} is not supported. Expected postgresql://…/tradesmart.")
    if not url.database:
        raise ConfigError(
            "DATABASE_URL: no database is named. Expected postgresql://user:password@host:5432/tradesmart."
        )
    if "@" in (url.host or ""):
        raise ConfigError("DATABASE_URL: the host has an @ in it. If the password has one, write it there as %40.")
    return url.set(drivername="postgresql+psycopg2")


def _check(url: URL, role: Role | None = None) -> None:
    engine = create_engine(url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    try:
        with engine.connect() as conn:
            version = conn.execute(text("SHOW server_version_num")).scalar_one()
            asked = {"role": role, "privilege": acting_privilege(int(version))}
            if role is not None and not conn.execute(_MAY_ACT_AS, asked).scalar_one():
                raise DatabaseError(
                    f"DATABASE_URL: the login {url.username} may not act as {role.value}. Use a login that may, "
                    "or run `chartinsight db upgrade` once with an administrator's address, which makes the roles."
                )
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise DatabaseError(
            f"DATABASE_URL: {url.set(query={}).render_as_string(hide_password=True)} does not answer: {cause}. "
            "Start that server or correct the address; unset DATABASE_URL to use the embedded one."
        ) from None
    finally:
        engine.dispose()
    if int(version) < 150000:
        raise DatabaseError(f"DATABASE_URL: the server is version {int(version) // 10000}, and 15 or newer is needed.")


def _engine(url: URL, role: Role) -> Engine:
    args = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "chartinsight", "options": _options(role)}
    return create_engine(url, connect_args=args, pool_pre_ping=True)


def _options(role: Role) -> str:
    options = ["-c timezone=UTC", f"-c role={role.value}"]
    if role is Role.READER:
        options += ["-c default_transaction_read_only=on", f"-c statement_timeout={READER_TIMEOUT}"]
    return " ".join(options)

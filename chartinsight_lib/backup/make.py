"""Makes a backup: dump and manifest of one snapshot, beside jobs that write."""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from chartinsight_lib.backup import digests, manifest
from chartinsight_lib.backup.manifest import DUMP, MANIFEST, Backup, Manifest, Table
from chartinsight_lib.backup.tools import environment, find_tools, running
from chartinsight_lib.clock import Clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role, acting_privilege
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ConfigError, DatabaseError
from chartinsight_lib.ledger import package_version

logger = logging.getLogger(__name__)

LEFT_OUT = ("ops.tokens",)
"""Tables that come back empty."""
COMPRESSION = (
    1  # of gzip: a million candles are 60 MB in 3.4 s; at 6, the usual one, 56 MB in 6.6 s (benchmarks/backup.py)
)
_UNFINISHED = ".unfinished-"


def backup(database: Database, folder: Path, clock: Clock) -> Backup:
    """Make a backup in `folder`, which is made where it is missing. What is already in there is not touched.

    Args:
        clock: the machine's, whatever drives the market's.


    Raises:
        ConfigError: the folder cannot be used, another backup is being made in it, or pg_dump is missing or too old.
        DatabaseError: there is nothing of ours in the database, or the dump failed, on a full disk for example; nothing is left
            of the attempt.
    """
    with _alone(folder):
        role = dumping_role(database)
        engine = database.engine(role)
        part = folder / f"{_UNFINISHED}{uuid4().hex}"
        try:
            part.mkdir(mode=0o700)
            made = _make(engine, database, role, part, clock)
            made.dump.chmod(0o600)
            _write(part / MANIFEST, made.manifest.text())
            _sync(made.dump)
            _sync(part)
            whole = folder / f"{made.manifest.made_at:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
            part.rename(whole)  # dump and manifest appear together
            _sync(folder)
        except DBAPIError as error:
            raise DatabaseError(f"backup: the database refused it ({_first_line(error)}).") from error
        except OSError as error:
            raise DatabaseError(
                f"backup: {folder} cannot be written ({error.strerror}). Make room there, or name another folder by --to or "
                "CHARTINSIGHT_BACKUP_DIR."
            ) from error
        finally:
            engine.dispose()
            shutil.rmtree(part, ignore_errors=True)
    made = Backup(whole, made.manifest)
    logger.info("backup: %s, %d bytes, %d rows", made.path, made.manifest.bytes, made.manifest.rows)
    return made


def dumping_role(database: Database) -> Role:
    """Return the role that dumps: the owner, who may read everything; for a login of the jobs the loader, who may as well."""
    engine = database.login_engine()
    try:
        with engine.connect() as conn:
            version = int(conn.execute(text("SHOW server_version_num")).scalar_one())
            may = conn.execute(
                text(
                    "SELECT COALESCE((SELECT pg_has_role(oid, :privilege) FROM pg_roles WHERE rolname = :role), false)"
                ),
                {"role": Role.OWNER.value, "privilege": acting_privilege(version)},
            ).scalar_one()
    finally:
        engine.dispose()
    return Role.OWNER if may else Role.LOADER


def _make(engine: Engine, database: Database, role: Role, part: Path, clock: Clock) -> Backup:
    made_at = clock()
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        conn.execute(text("SET TRANSACTION READ ONLY"))
        conn.execute(text(digests.SAME_TEXT))
        if (
            not (inside := digests.schemas(conn))
            or conn.execute(text("SELECT to_regclass('public.alembic_version')")).scalar_one() is None
        ):
            raise DatabaseError("backup: this database holds nothing of ours yet. Is it the right one?")
        server = str(conn.execute(text("SHOW server_version")).scalar_one()).split()[0]
        tools = find_tools(int(server.partition(".")[0]))
        snapshot = conn.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        command = [
            tools.path("pg_dump"), "--format=custom", f"--compress={COMPRESSION}", f"--snapshot={snapshot}",
            f"--file={part / DUMP}", "--no-password",
            *(f"--schema={_pattern(name)}" for name in inside), *(f"--exclude-table-data={name}" for name in LEFT_OUT),
        ]  # fmt: skip
        with running(command, environment(database, role)) as dumping:
            # While it runs: both read the same snapshot.
            all_of_them = digests.tables(conn, inside)
            said = {name: digests.digest(conn, name) for name in all_of_them if name not in LEFT_OUT}
            identity, version, newest = _identity(conn), _version(conn), _newest_days(conn)
            dumping.finish()
    dump = part / DUMP
    return Backup(
        part,
        Manifest(
            made_at=made_at,
            code_version=package_version(),
            server_version=server,
            tool=f"pg_dump {tools.major}",
            tables=said | {name: Table(0, "0") for name in LEFT_OUT if name in all_of_them},
            left_out=tuple(name for name in LEFT_OUT if name in all_of_them),
            newest_days=newest,
            database=identity,
            schema_version=version,
            bytes=dump.stat().st_size,
            sha256=manifest.sha256(dump),
        ),
    )


def _identity(conn: Connection) -> str:
    """Return what tells this database from others; "" where the schema is too old to say."""
    if conn.execute(text("SELECT to_regclass('ops.identity')")).scalar_one() is None:
        return ""
    return str(conn.execute(text("SELECT id FROM ops.identity")).scalar_one())


def _version(conn: Connection) -> str:
    return str(conn.execute(text("SELECT version_num FROM public.alembic_version")).scalar_one())


def _newest_days(conn: Connection) -> dict[str, dict[str, str]]:
    """Return {market: {timeframe: date of its newest bar}}."""
    newest = conn.execute(
        text("""
            SELECT i.market, f.timeframe, max(c.ts)
            FROM   live.instruments AS i CROSS JOIN (VALUES ('1d'), ('5m'), ('1m')) AS f (timeframe)
            CROSS  JOIN LATERAL (SELECT max(ts) AS ts FROM live.candles AS c
                                 WHERE c.instrument_id = i.id AND c.timeframe = f.timeframe) AS c
            WHERE  c.ts IS NOT NULL GROUP BY i.market, f.timeframe ORDER BY 1, 2
        """)
    )
    found: dict[str, dict[str, str]] = {}
    for market, timeframe, ts in newest:
        zone = MARKETS[market].zone if timeframe != "1d" and market in MARKETS else UTC
        found.setdefault(market, {})[timeframe] = ts.astimezone(zone).date().isoformat()
    return found


def _pattern(name: str) -> str:
    """Write a name as pg_dump's patterns want it."""
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One backup at a time in a folder; what killed ones left behind is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(
            f"backup: {folder} cannot be used ({error.strerror}). Name a folder that you may write, by --to or "
            "CHARTINSIGHT_BACKUP_DIR."
        ) from error
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for rest in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(rest, ignore_errors=True)
        yield
    except BlockingIOError:
        raise ConfigError(f"backup: another one is being made in {folder}. Wait for its end.") from None
    finally:
        os.close(opened)


def _write(path: Path, content: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

"""Puts a dump in the place of what a database holds, in one transaction: compared with the manifest before it is kept."""

import json
import shutil
from typing import IO, Any, cast

from psycopg2 import sql
from sqlalchemy import Connection, text

from chartinsight_lib.backup import digests
from chartinsight_lib.backup.manifest import Backup
from chartinsight_lib.backup.tools import Program, environment, find_tools, running
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, DatabaseError

WAIT = "60s"
"""So long others may go on reading before it gives up."""

# Nobody begins a run from here on; one that began since it was looked is seen.
_CLEAR = """
\\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET lock_timeout = {wait};
BEGIN;
LOCK TABLE ops.runs IN ACCESS EXCLUSIVE MODE;
DO $$ BEGIN
    IF EXISTS (SELECT FROM ops.runs WHERE state = 'running') THEN RAISE EXCEPTION 'a job is running'; END IF;
END $$;
SELECT set_config('chartinsight.watermark', last_value::text, false) AS kept FROM live.watermark \\gset
DROP SCHEMA {schemas} CASCADE;
"""

# A copy of bars outside of the database is believed while identity and watermark are what it says. Both move: the identity,
# because this is another database now; the watermarks, beyond all that either has had, for who compares them alone.
_KEEP = """
{same_text};
SELECT set_config('chartinsight.expected', {expected}, true) AS told \\gset
DO $$
DECLARE expected record; found record; name regclass;
BEGIN
    FOR expected IN SELECT key, value ->> 'rows' AS rows, value ->> 'digest' AS digest
                    FROM jsonb_each(current_setting('chartinsight.expected')::jsonb) LOOP
        name := to_regclass(expected.key);
        IF name IS NULL THEN RAISE EXCEPTION '% is not there', expected.key; END IF;
        EXECUTE format('SELECT count(*)::text AS rows, ({shares})::text AS digest FROM %s AS t', name) INTO found;
        IF (found.rows, found.digest) IS DISTINCT FROM (expected.rows, expected.digest) THEN
            RAISE EXCEPTION '% has % rows with the checksum %, and the manifest says % and %',
                expected.key, found.rows, found.digest, expected.rows, expected.digest;
        END IF;
    END LOOP;
END $$;
UPDATE public.alembic_version SET version_num = {version};
DO $$ BEGIN
    IF to_regclass('ops.identity') IS NOT NULL THEN
        UPDATE ops.identity SET id = gen_random_uuid();
        PERFORM setval('live.watermark', greatest(current_setting('chartinsight.watermark')::bigint,
                                                  (SELECT last_value FROM live.watermark)));
        UPDATE live.watermarks SET version = live.next_watermark();
    END IF;
END $$;
COMMIT;
"""


def load(database: Database, backup: Backup) -> None:
    """Replace all schemas of ours by those of a dump; the caller has verified it, and brings the schema up to date afterwards.

    Until it ends, others see the old contents or wait; if anything is wrong, nothing has changed.

    Raises:
        ConfigError: somebody else's views read our tables, or there is no pg_restore here that could read the dump.
        DatabaseError: a job runs, others would not let go of a table, or what came out is not what the manifest says.
    """
    engine = database.engine(Role.OWNER)
    try:
        with engine.connect() as conn:
            major = int(conn.execute(text("SHOW server_version_num")).scalar_one()) // 10000
            inside = digests.schemas(conn)
            _check_dependants(conn, inside)
            clear, keep = _clear(conn, inside), _keep(conn, backup)
        tools = find_tools(major, reads=int(backup.manifest.tool.rpartition(" ")[2]))
        surroundings = environment(database, Role.OWNER)
        restore = [tools.path("pg_restore"), "--no-owner", "--file=-", str(backup.dump)]
        psql = [tools.path("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-password", "--file=-"]
        with running(psql, surroundings, stdin=True) as taking, running(restore, surroundings, stdout=True) as giving:
            _pass_on(giving, taking, clear, keep)
        # Statistics are not in a dump, and without them the next scan would be planned as if the tables were empty.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("ANALYZE"))
    finally:
        engine.dispose()


def _pass_on(giving: Program, taking: Program, clear: str, keep: str) -> None:
    """Feed psql. What ends the transaction is sent when pg_restore has ended well, and not before."""
    source, sink = cast(IO[bytes], giving.process.stdout), cast(IO[bytes], taking.process.stdin)
    try:
        sink.write(clear.encode())
        shutil.copyfileobj(source, sink, 1 << 20)
        giving.finish()
        sink.write(keep.encode())
        sink.close()
    except BrokenPipeError:
        pass  # it has ended, and says why
    code = taking.process.wait()
    if code:
        reason = taking.reason(code)
        raise DatabaseError(f"restore: nothing was changed, because the database refused it: {reason}.")


def _check_dependants(conn: Connection, inside: list[str]) -> None:
    """Raise ConfigError for views outside of our schemas that would be dropped with them."""
    found = conn.execute(
        text("""
            SELECT DISTINCT format('%I.%I', n.nspname, v.relname)
            FROM   pg_depend AS d
            JOIN   pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
            JOIN   pg_class AS v ON v.oid = r.ev_class JOIN pg_namespace AS n ON n.oid = v.relnamespace
            JOIN   pg_class AS t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
            JOIN   pg_namespace AS m ON m.oid = t.relnamespace
            WHERE  m.nspname = ANY(:inside) AND n.nspname <> ALL(:inside) ORDER BY 1
        """),
        {"inside": inside},
    ).scalars()
    if views := list(found):
        raise ConfigError(
            f"restore: {', '.join(views)} read our tables, are none of ours, and would go with them. Keep their definitions "
            "elsewhere and drop them, then restore."
        )


def _clear(conn: Connection, inside: list[str]) -> str:
    names = sql.SQL(", ").join(map(sql.Identifier, inside))
    return _written(conn, sql.SQL(_CLEAR).format(wait=sql.Literal(WAIT), schemas=names))


def _keep(conn: Connection, backup: Backup) -> str:
    expected = {
        name: {"rows": str(table.rows), "digest": table.digest} for name, table in backup.manifest.tables.items()
    }
    composed = sql.SQL(_KEEP).format(
        same_text=sql.SQL(digests.SAME_TEXT),
        expected=sql.Literal(json.dumps(expected)),
        shares=sql.SQL(digests.SHARES.replace("'", "''")),  # inside of a text
        version=sql.Literal(backup.manifest.schema_version),
    )
    return _written(conn, composed)


def _written(conn: Connection, composed: sql.Composed) -> str:
    driver: Any = conn.connection.driver_connection
    return str(composed.as_string(driver))

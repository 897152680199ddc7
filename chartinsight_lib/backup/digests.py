"""What is in each table, in one number, whatever the order of its rows: to tell whether a restored table is the same.

A row's share is the first 64 bits of the MD5 of its text; the digest is the sum of the shares. MD5 of text is the same on every
version and every machine; it guards against loss and mix-ups, not against forgery.
"""

from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection, text

from chartinsight_lib.backup.manifest import Table
from chartinsight_lib.db.roles import Role

SAME_TEXT = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; " \
            "SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL search_path = ''"  # fmt: skip
"""Under these a row has the same text everywhere, and a table the same name."""
SHARES = "COALESCE(sum(('x' || left(md5(t::text), 16))::bit(64)::bigint), 0)"


def schemas(conn: Connection) -> list[str]:
    """Return the schemas that are ours: those that the owner owns."""
    return list(
        conn.execute(
            text("SELECT nspname FROM pg_namespace WHERE pg_get_userbyid(nspowner) = :owner ORDER BY 1"),
            {"owner": Role.OWNER.value},
        ).scalars()
    )


def tables(conn: Connection, inside: list[str]) -> list[str]:
    """Return the tables of schemas, named as SQL names them."""
    found = conn.execute(
        text("""
            SELECT format('%I.%I', n.nspname, c.relname)
            FROM   pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE  c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ANY(:inside) ORDER BY 1
        """),
        {"inside": inside},
    )
    return list(found.scalars())


def digest(conn: Connection, table: str) -> Table:
    """Read a table through; `table` as `tables` names it. Under SAME_TEXT."""
    found = _one(conn, sql.SQL("SELECT count(*), {} FROM {} AS t").format(sql.SQL(SHARES), sql.SQL(table)))
    return Table(int(found[0]), str(found[1]))


def holds_rows(conn: Connection, table: str) -> bool:
    """Whether there is any row in a table."""
    return bool(_one(conn, sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.SQL(table)))[0])


def _one(conn: Connection, statement: sql.Composed) -> Any:
    cursor: Any = conn.connection.cursor()
    cursor.execute(statement)
    return cursor.fetchone()

"""Who may do what in `tradesmart`. No superuser is in use after the set-up.

owner   runs the migrations and owns every object
loader  the jobs: reads and writes rows, changes no table
reader  dashboards and people: reads, in read-only transactions with a time limit
"""

from collections.abc import Mapping
from enum import StrEnum

from psycopg2 import extensions, sql

DATABASE = "tradesmart"
READER_TIMEOUT = "30s"


class Role(StrEnum):
    """The three roles of the database."""

    OWNER = "chartinsight_owner"
    LOADER = "chartinsight_loader"
    READER = "chartinsight_reader"


def ensure_roles(cursor: extensions.cursor, passwords: Mapping[Role, str] | None = None) -> None:
    """Create the roles that are missing, as logins where `passwords` are given. Needs CREATEROLE.

    Without passwords, the login in use is made a member, so that it can take on each role (`SET ROLE`).
    """
    for role in Role:
        name = sql.Identifier(role.value)
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role.value])
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {}").format(name))
        if passwords is not None:
            cursor.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(passwords[role])))
            if role is Role.READER:  # also for psql, DBeaver and the like, which bring no options of ours
                cursor.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name))
                cursor.execute(
                    sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(name, sql.Literal(READER_TIMEOUT))
                )
            continue
        cursor.execute("SELECT pg_has_role(%s, %s)", [role.value, acting_privilege(cursor.connection.server_version)])
        if not cursor.fetchone()[0]:
            cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))


def acting_privilege(server_version: int) -> str:
    """Name what a login needs to take on a role: since version 16 being a member, as who made it is, is not enough."""
    return "SET" if server_version >= 160000 else "MEMBER"

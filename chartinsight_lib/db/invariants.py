"""What has to be true of `tradesmart` at any time: each rule counts what breaks it. Reads alone; quality of data is `quality`."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from chartinsight_lib.db.migrate import head
from chartinsight_lib.db.roles import READER_TIMEOUT, Role


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule. `good` is None where it could not be checked. `remedy` is what to do where it is broken."""

    what: str
    good: bool | None
    says: str
    remedy: str = ""


RESTORE = "Look at server.log and the disk; then `chartinsight db restore newest --replace`."
AGAIN = "`chartinsight up` or any job closes them at its start."
CHECK = "`chartinsight data gaps` counts anew."

# {what: (query that counts what breaks it, what that is, remedy)}. A run's lock is that of `ledger`: the first 63 bits of its id.
RULES: dict[str, tuple[str, str, str]] = {
    "instruments": (
        """
        SELECT count(*) FROM (
            SELECT DISTINCT instrument_id FROM live.candles UNION SELECT instrument_id FROM live.factors
            UNION SELECT instrument_id FROM live.revisions UNION SELECT instrument_id FROM live.instrument_history
            UNION SELECT instrument_id FROM live.financials UNION SELECT instrument_id FROM ops.gaps
            UNION SELECT instrument_id FROM ops.cursors UNION SELECT instrument_id FROM ops.coverage
            UNION SELECT instrument_id FROM ops.findings UNION SELECT instrument_id FROM radar.snapshot) AS n
        WHERE NOT EXISTS (SELECT FROM live.instruments AS i WHERE i.id = n.instrument_id)
        """,
        "ids in other tables that no instrument has",
        RESTORE,
    ),
    "identity": ("SELECT abs(1 - count(*)) FROM ops.identity", "rows too many or too few in ops.identity", RESTORE),
    "watermarks": (
        """
        SELECT count(*) FROM (SELECT DISTINCT i.market, f.timeframe
            FROM live.instruments AS i CROSS JOIN (VALUES ('1d'), ('5m'), ('1m')) AS f (timeframe)
            WHERE EXISTS (SELECT FROM live.candles AS c WHERE c.instrument_id = i.id AND c.timeframe = f.timeframe)) AS held
        WHERE NOT EXISTS (SELECT FROM live.watermarks AS w WHERE (w.market, w.timeframe) = (held.market, held.timeframe))
        """,
        "markets with bars and without a watermark, so that no copy of them can be current",
        "Collect again: the next change sets it.",
    ),
    "watermark": (
        "SELECT count(*) FROM live.watermarks WHERE version >> 20 > (SELECT last_value FROM live.watermark)",
        "watermarks beyond their sequence, which would come a second time",
        "As owner: SELECT setval('live.watermark', (SELECT max(version >> 20) FROM live.watermarks)).",
    ),
    "coverage": (
        """
        SELECT count(*) FROM ops.coverage AS c JOIN live.instruments AS i ON i.id = c.instrument_id
        WHERE c.present > 0 AND NOT EXISTS (SELECT FROM live.candles AS b
              WHERE b.instrument_id = c.instrument_id AND b.timeframe = c.timeframe
              AND api.day_of(i.market, b.timeframe, b.ts) = c.last)
        """,
        "instruments whose last day by ops.coverage is not among their bars",
        CHECK,
    ),
    "resolved gaps": (
        """
        SELECT count(*) FROM ops.gaps AS g WHERE g.state = 'resolved' AND g.timeframe = '1d' AND NOT EXISTS (
            SELECT FROM live.candles AS c WHERE (c.instrument_id, c.timeframe, c.ts) = (g.instrument_id, g.timeframe, g.ts))
        """,
        "gaps that are said to be filled, by bars that are not there",
        CHECK,
    ),
    "runs": (
        """
        SELECT count(*) FROM ops.runs AS r WHERE r.state = 'running' AND NOT EXISTS (
            SELECT FROM pg_locks AS l
            CROSS  JOIN (SELECT (('x' || left(replace(r.run_id::text, '-', ''), 16))::bit(64) >> 1)::bigint) AS k (key)
            WHERE  l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
            AND    l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND    ((l.classid::bigint << 32) | l.objid::bigint) = k.key)
        """,
        "runs that count as running, and nobody holds their lock",
        AGAIN,
    ),
    "slots": (
        """
        SELECT count(*) FROM ops.slots AS s WHERE s.state = 'running'
        AND NOT EXISTS (SELECT FROM ops.runs AS r WHERE r.run_id = s.run_id AND r.state = 'running')
        """,
        "slots that count as running, and their run does not",
        "The scheduler tries a slot again when its run is closed; if none is, `chartinsight run` the job.",
    ),
    "indexes": (
        "SELECT count(*) FROM pg_index WHERE NOT indisvalid OR NOT indisready",
        "indexes that are not valid",
        "As owner: REINDEX DATABASE.",
    ),
    "constraints": (
        "SELECT count(*) FROM pg_constraint WHERE NOT convalidated",
        "constraints that were never validated",
        "As owner: ALTER TABLE … VALIDATE CONSTRAINT …",
    ),
}  # fmt: skip


def check(conn: Connection) -> Iterator[Finding]:
    """Yield what was found, rule by rule; `conn` acts as the loader, in a transaction that only reads."""
    schema = _schema(conn)
    yield schema
    if not schema.good:  # the rules are those of this program's schema
        return
    yield _roles(conn)
    for what, (query, broken, remedy) in RULES.items():
        count = int(conn.execute(text(query)).scalar_one())
        yield Finding(what, count == 0, f"{count:,} {broken}", remedy if count else "")
    yield _pages(conn)
    yield _btrees(conn)


def _schema(conn: Connection) -> Finding:
    there = conn.execute(text("SELECT to_regclass('public.alembic_version')")).scalar_one() is not None
    current = conn.execute(text("SELECT version_num FROM public.alembic_version")).scalar_one() if there else "none"
    return Finding(
        "schema",
        current == head(),
        f"version {current}, and this program needs {head()}",
        "`chartinsight db upgrade`, or a newer program.",
    )


def _roles(conn: Connection) -> Finding:
    wrong = []
    for role in Role:
        row = conn.execute(
            text("SELECT rolsuper, rolcanlogin, rolconfig FROM pg_roles WHERE rolname = :role"), {"role": role.value}
        ).one_or_none()
        if row is None:
            wrong.append(f"{role.value} does not exist")
        elif row.rolsuper:
            wrong.append(f"{role.value} is a superuser")
        elif role is Role.READER and row.rolcanlogin:
            wanted = {"default_transaction_read_only=on", f"statement_timeout={READER_TIMEOUT}"}
            wrong += [f"{role.value} lacks {setting}" for setting in sorted(wanted - set(row.rolconfig or ()))]
    writes = conn.execute(
        text("""
            SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE  c.relkind = 'r' AND n.nspname IN ('live', 'ops', 'radar')
            AND    has_table_privilege(:reader, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
        """),
        {"reader": Role.READER.value},
    ).scalar_one() if not wrong else 0  # fmt: skip
    wrong += [f"{Role.READER.value} may write to {writes} tables"] if writes else []
    return Finding(
        "roles",
        not wrong,
        "; ".join(wrong) or "owner, loader and reader are there, and the reader reads alone",
        "`chartinsight db upgrade` with an administrator's address makes what is missing.",
    )


def _pages(conn: Connection) -> Finding:
    if conn.execute(text("SHOW data_checksums")).scalar_one() == "off":
        return Finding("pages", None, "this server keeps no checksums of its pages")
    damaged = conn.execute(
        text("SELECT COALESCE(sum(checksum_failures), 0) FROM pg_stat_database WHERE datname = current_database()")
    ).scalar_one()
    return Finding("pages", damaged == 0, f"{damaged:,} damaged ones were read by the server", RESTORE)


def _btrees(conn: Connection) -> Finding:
    """Have the server look through its indexes, where its extension for that is installed and we may call it."""
    try:
        with conn.begin_nested():
            count = conn.execute(
                text("""
                    SELECT count(amcheck.checked) FROM (
                        SELECT bt_index_check(c.oid, true) IS NULL AS checked
                        FROM   pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
                        JOIN   pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_am AS a ON a.oid = c.relam
                        WHERE  a.amname = 'btree' AND n.nspname IN ('live', 'ops', 'radar')) AS amcheck
                """)
            ).scalar_one()
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", "")
        if code in {"42883", "42501"}:  # no such function; not allowed to
            return Finding("indexes inside", None, "the extension amcheck is not installed, or not for this login")
        return Finding("indexes inside", False, str(error.orig).strip().splitlines()[0], "As owner: REINDEX DATABASE.")
    return Finding("indexes inside", True, f"amcheck read {count} of them")

"""Says whether a backup is what its manifest says: by its checksum and its contents, or by restoring it on a server of its own."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from chartinsight_lib.backup import manifest
from chartinsight_lib.backup.load import load
from chartinsight_lib.backup.manifest import Backup
from chartinsight_lib.backup.tools import find_tools, output_of
from chartinsight_lib.db.embedded import start_embedded
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import DatabaseError, SchemaError

_ROWS_OF = re.compile(r"^\d+; \d+ \d+ TABLE DATA (\S+) (\S+) ", re.MULTILINE)


def verify(backup: Backup) -> str:
    """Compare a dump with its manifest, and return what was found in a sentence.

    Raises:
        SchemaError: it is cut short, changed, or does not hold what it should.
        ConfigError: there is no pg_restore here that could read it.
    """
    told = backup.manifest
    try:
        size = backup.dump.stat().st_size
    except OSError as error:
        raise SchemaError(f"backup {backup.path}: its dump is gone ({error.strerror}). Use another backup.") from error
    if size != told.bytes:
        raise SchemaError(
            f"backup {backup.path}: its dump has {size:,} bytes, and the manifest says {told.bytes:,}. Use another backup."
        )
    if manifest.sha256(backup.dump) != told.sha256:
        raise SchemaError(
            f"backup {backup.path}: its dump is not the one that was made (SHA-256 differs). Use another backup."
        )
    tools = find_tools(0, reads=_made_by(backup))
    try:
        contents = output_of([tools.path("pg_restore"), "--list", backup.dump])
    except DatabaseError as error:
        raise SchemaError(f"backup {backup.path}: pg_restore cannot read it: {error}") from error
    inside = {f"{schema}.{table}" for schema, table in _ROWS_OF.findall(contents)}
    if missing := sorted(set(told.tables) - set(told.left_out) - inside):
        raise SchemaError(f"backup {backup.path}: its dump lacks {', '.join(missing)}. Use another backup.")
    return f"{told.bytes:,} bytes with the right SHA-256, {len(inside)} tables"


def rehearse(backup: Backup) -> str:
    """Restore a backup on an embedded server in a temporary directory (of TMPDIR), compare every table with the manifest, bring
    the schema up to date, and return what was done in a sentence. Errors as `verify` and `restore`."""
    with _server() as database:
        upgrade(database)
        load(database, backup)
        version = upgrade(database)
    told = backup.manifest
    return (
        f"{told.rows:,} rows in {len(told.tables)} tables are the same, schema {told.schema_version} went to {version}"
    )


def _made_by(backup: Backup) -> int:
    return int(backup.manifest.tool.rpartition(" ")[2])


@contextmanager
def _server() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="chartinsight-check-", ignore_cleanup_errors=True) as made:
        home = Path(made)
        if os.geteuid() == 0:
            home.chmod(0o711)  # the server's user passes through; what lies in it is private
        with start_embedded(home) as server:
            yield Database({role: make_url(server.url(role)) for role in Role}, server)

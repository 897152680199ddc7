"""What a backup says of itself, and where the backups of a folder lie."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartinsight_lib.errors import NotFound, SchemaError

if TYPE_CHECKING:
    import pandas as pd

DUMP = "tradesmart.dump"
MANIFEST = "manifest.json"
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
FORMAT = 1
NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Table:
    """How many rows a table had, and the sum of what `digests` makes of each."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a dump.

    `made_at` is by the clock of the machine, UTC: a simulated market's days pass in minutes. `database` tells which database it is
    of (`ops.identity`). `tables` are named as SQL names them; those in `left_out` came without their rows. `newest_days` is
    {market: {timeframe: date}}.
    """

    made_at: datetime
    database: str
    schema_version: str
    code_version: str
    server_version: str
    tool: str
    tables: Mapping[str, Table]
    left_out: tuple[str, ...]
    newest_days: Mapping[str, Mapping[str, str]]
    bytes: int
    sha256: str

    @property
    def rows(self) -> int:
        """Of all tables together."""
        return sum(table.rows for table in self.tables.values())

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self), "made_at": self.made_at.isoformat()}, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup and the folder in which it lies."""

    path: Path
    manifest: Manifest

    @property
    def dump(self) -> Path:
        """The file that pg_restore reads."""
        return self.path / DUMP

    def table(self) -> "pd.DataFrame":
        """Return the tables with their rows, for people; those without any are left out."""
        import pandas as pd

        rows = {name: table.rows for name, table in self.manifest.tables.items() if table.rows}
        return pd.DataFrame({"table": list(rows), "rows": list(rows.values())})


def read(path: Path) -> Backup:
    """Read the manifest of a backup. Raises SchemaError for what is none, or one that this program does not understand."""
    try:
        told: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if told.pop("format") != FORMAT:
            raise ValueError("it is of another format; update the program")
        told["made_at"] = datetime.fromisoformat(told["made_at"])
        told["tables"] = {name: Table(int(table["rows"]), table["digest"]) for name, table in told["tables"].items()}
        told["left_out"] = tuple(told["left_out"])
        return Backup(path, Manifest(**told))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SchemaError(
            f"backup {path}: its {MANIFEST} cannot be read ({type(error).__name__}: {error}). Use another backup."
        ) from error


def listed(folder: Path) -> list[Backup]:
    """Return the backups of a folder, the oldest first; what has no legible manifest is none."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            try:
                found.append(read(path))
            except SchemaError:  # not ours to judge here: `db check NAME` says what is wrong with it
                continue
    return sorted(found, key=lambda backup: (backup.manifest.made_at, backup.path.name))


def find(name: str, folder: Path) -> Backup:
    """Return a backup by its path, by its name in the folder, or the `newest` there. Raises NotFound, SchemaError."""
    if name == NEWEST:
        if not (all_of_them := listed(folder)):
            raise NotFound(f"backup: there is none in {folder}. Make one with `chartinsight db backup`.")
        return all_of_them[-1]
    for path in (folder / name, Path(name).expanduser().absolute()):
        if path.is_dir():
            return read(path)
    known = ", ".join(backup.path.name for backup in listed(folder)) or "none"
    raise NotFound(f"backup {name!r}: there is none of this name. In {folder} there are: {known}.")


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What lies beside exported files and says what they are: which bars, on which basis, as known when, and the files' digests.

A file with a manifest is exactly what was exported, or it is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chartinsight_lib.errors import ConfigError, SchemaError

FORMAT = "chartinsight-export/1"
IN_FOLDER, BESIDE = "manifest.json", ".manifest.json"
"""The manifest of a folder of exported files; what is added to the name of a single one."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an export holds.

    market, timeframe, basis (`db.held.Basis`), style; as_of, since, until: ISO dates, None: no such limit; final_only: whether
    unfinished bars were left out, `provisional` is how many are in. sources: where the bars came from; simulated: whether any
    of them is made up. factors: the corporate actions known of these instruments, and `applied` those kinds of them that are
    undone in the prices. files: {name: sha256, bytes, rows}.
    """

    market: str
    timeframe: str
    basis: str
    style: str
    as_of: str | None
    since: str | None
    until: str | None
    final_only: bool
    provisional: int
    rows: int
    columns: list[str]
    sources: list[str]
    simulated: bool
    exported_at: str
    code_version: str
    instruments: list[dict[str, Any]]
    factors: list[dict[str, Any]]
    applied: list[str]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def text(self) -> str:
        """Return it as JSON, for people to read as well."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, indent=1, default=str) + "\n"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises ConfigError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Check the path and its permissions.") from error


def vouching(path: Path) -> Manifest | None:
    """Return the manifest that vouches for a file; None: none lies beside it, or none that names it.

    Raises:
        SchemaError: the manifest is damaged, or the file is not what was exported.
    """
    for beside in (path.with_name(path.name + BESIDE), path.with_name(IN_FOLDER)):
        if beside.is_file() and (found := read_manifest(beside)) is not None and path.name in found.files:
            if (is_now := digest(path)) != (was := found.files[path.name].get("sha256")):
                raise SchemaError(
                    f"{path}: it is not what was exported: its SHA-256 is {is_now[:12]}…, and {str(was)[:12]}… was written into "
                    f"{beside.name}. Export it again; or, if the change is meant, remove {beside.name}."
                )
            return found
    return None


def read_manifest(path: Path) -> Manifest | None:
    """Return what a manifest says; None: it is JSON of somebody else's. Raises SchemaError when it is damaged or unknown."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: the manifest cannot be read ({error}). Export again, or remove it.") from error
    if not isinstance(told, Mapping) or not str(told.get("format", "")).startswith("chartinsight-export/"):
        return None
    if told["format"] != FORMAT:
        raise SchemaError(f"{path}: its format is {told['format']}, and {FORMAT} is known. Install a newer version.")
    try:
        found = Manifest(**{name: value for name, value in told.items() if name != "format"})
    except TypeError as error:
        raise SchemaError(f"{path}: the manifest has other entries than {FORMAT} ({error}). Export again.") from error
    if not isinstance(found.files, Mapping) or not all(isinstance(one, Mapping) for one in found.files.values()):
        raise SchemaError(f"{path}: the manifest names no files. Export again.")
    return found


def one_market(source: str, found: Sequence[Manifest], asked: str | None) -> str | None:
    """Return the market that manifests tell of, None without any. Raises ConfigError when they, or the one asked for, differ."""
    markets = sorted({manifest.market for manifest in found} | ({asked} if asked and found else set()))
    if len(markets) > 1:
        raise ConfigError(
            f"{source}: its manifests and --market tell of different markets, {' and '.join(markets)}. Import one market at a "
            "time, and leave --market out."
        )
    return markets[0] if markets else None

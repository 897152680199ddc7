"""Tables into files: each whole or not at all, with the manifest beside them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from chartinsight_lib.clients.manifest import BESIDE, IN_FOLDER, Manifest, digest, read_manifest
from chartinsight_lib.errors import ConfigError

FORMATS = ("parquet", "csv")


def format_of(to: Path, file_format: str | None, *, one_file: bool) -> str:
    """Return the format that is asked for, else the one that `to` ends like, else parquet; `one_file`: `to` is no folder.

    Raises:
        ConfigError: there is no such format, or the end of a file's name says another one or none.
    """
    ending = to.suffix.lower().removeprefix(".")
    if file_format is not None and file_format not in FORMATS:
        raise ConfigError(f"export: format {file_format!r} is not known. Choose one of {', '.join(FORMATS)}.")
    if ending in FORMATS and file_format not in {None, ending}:
        raise ConfigError(
            f"export: {to.name} ends like {ending}, and {file_format} is asked for. Leave one of the two out."
        )
    if one_file and ending not in FORMATS:
        raise ConfigError(
            f"export: {to.name} is to be one file. End its name in {' or '.join(f'.{one}' for one in FORMATS)}."
        )
    return file_format or (ending if ending in FORMATS else "parquet")


def refuse_taken(to: Path, *, one_file: bool, force: bool) -> None:
    """Raise ConfigError when nothing can be written to `to`, or something lies there that is not to be replaced."""
    if not to.parent.is_dir():
        raise ConfigError(f"export: there is no folder {to.parent}. Make it first.")
    if not to.exists():
        return
    if not force:
        raise ConfigError(f"export: {to} exists already. Name another, or add --force to replace it.")
    if not (to.is_file() if one_file else to.is_dir() and _nothing_else_in(to)):
        raise ConfigError(f"export: {to} holds something that was not exported, and is not replaced. Name another.")


def _nothing_else_in(folder: Path) -> bool:
    """Whether a folder holds what its manifest names, and nothing besides."""
    names = {path.name for path in folder.iterdir()}
    told = read_manifest(folder / IN_FOLDER) if IN_FOLDER in names else None
    return names <= ({IN_FOLDER, *told.files} if told is not None else set())


def write_file(to: Path, table: pd.DataFrame, manifest: Manifest, file_format: str) -> Manifest:
    """Write one table to `to` and the manifest beside it; return the manifest with the file's digest."""
    beside = to.with_name(to.name + BESIDE)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as part:
        data = Path(part) / to.name
        manifest = _with_files(manifest, {to.name: (_write_table(data, table, file_format), len(table))})
        (Path(part) / beside.name).write_text(manifest.text(), encoding="utf-8")
        # Between the two an old manifest does not fit the new file, so that nobody takes it for what it was.
        data.replace(to)
        (Path(part) / beside.name).replace(beside)
    return manifest


def write_folder(to: Path, tables: Mapping[str, pd.DataFrame], manifest: Manifest, file_format: str) -> Manifest:
    """Write {name of a file: table} into a new folder with the manifest, and put it in the place of `to`."""
    part = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        written = {name: (_write_table(part / name, table, file_format), len(table)) for name, table in tables.items()}
        manifest = _with_files(manifest, written)
        (part / IN_FOLDER).write_text(manifest.text(), encoding="utf-8")
        part.chmod(0o755)
        old = part.with_name(part.name + ".old")
        if to.exists():
            to.rename(old)
        part.rename(to)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _write_table(path: Path, table: pd.DataFrame, file_format: str) -> Path:
    """Write one table, and have it on the disk."""
    named = not isinstance(table.index, pd.RangeIndex)
    if file_format == "parquet":
        table.to_parquet(path, index=named)
    else:
        texts = table.select_dtypes(include=["str", "object"]).columns
        words = {name: {word: plain(word) for word in table[name].unique()} for name in texts}
        safe = table.assign(**{name: table[name].map(known) for name, known in words.items()})
        safe.to_csv(path, index=named, lineterminator="\n", encoding="utf-8")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def _with_files(manifest: Manifest, written: dict[str, tuple[Path, int]]) -> Manifest:
    files = {
        name: {"sha256": digest(path), "bytes": path.stat().st_size, "rows": rows}
        for name, (path, rows) in written.items()
    }
    return replace(manifest, files=files)


def plain(word: Any) -> Any:
    """Return a text that a spreadsheet takes for no formula and a page for no markup; other values as they are.

    What is a formula's first character is preceded by an apostrophe; line ends become blanks.
    """
    if not isinstance(word, str):
        return word
    word = " ".join(word.split()) if any(sign in word for sign in "\r\n\t") else word
    word = word.replace("<", "&lt;").replace(">", "&gt;")
    return f"'{word}" if word.startswith(("=", "+", "-", "@")) else word

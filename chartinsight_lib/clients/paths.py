"""What a person writes for files -> the files, and short names that tell them apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from chartinsight_lib.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIXES = (".csv", ".parquet")
REPLIES = (".json", ".xml")
"""Kinds of files in which web services answer: their own clients read them."""


def labels(paths: Sequence[Path]) -> list[str]:
    """Name paths apart: by their last parts, or from their common folder on where two end alike."""
    names = [path.name or str(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [str(path.absolute().relative_to(common)) for path in paths]


def expand(path: str) -> list[Path]:
    """Return the files a path stands for, sorted; those of a directory or glob that are hidden or start with _ not."""
    place = Path(path).expanduser()
    try:
        if place.is_file():
            if (suffix := place.suffix.lower()) in REPLIES:
                raise ConfigError(
                    f"{path}: is the answer of a web service, which its own client reads: --source krx:005930 asks KRX and Naver. "
                    "From files come .csv and .parquet."
                )
            if suffix not in SUFFIXES:
                raise ConfigError(f"{path}: the file's kind is told by its name. Expected .csv or .parquet.")
            return [place]
        if place.is_dir():
            found = place.iterdir()
        elif any(sign in path for sign in "*?["):
            root = Path(place.anchor)
            found = root.glob(str(place.relative_to(root)))
        else:
            raise ConfigError(
                f"{path}: there is no such file or directory. Check the path; it is read from {Path.cwd()}."
            )
        files = sorted(
            file for file in found
            if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "_"))
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{path}: cannot be looked into ({error}). Check the path and its permissions.") from error
    if not files:
        raise ConfigError(f"{path}: holds no .csv or .parquet file. Check the path; it is read from {Path.cwd()}.")
    return files

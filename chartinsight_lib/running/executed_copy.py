"""Where the executed copy of a run lies, and how it appears there: whole or not at all.

runs/JOB/20240805T223000Z-1a2b3c4d.ipynb    the copy; the time is that of the start, the rest begins the run's id
runs/JOB/20240805T223000Z-1a2b3c4d.log      what its processes said beside it, where they said something
runs/JOB/20240805T223000Z-1a2b3c4d.part.ipynb    while it runs
"""

import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.jobs import NAME


def place(runs: Path, job: str, started: datetime, run_id: UUID) -> Path:
    """Return the path of the copy of a run that starts, in a folder that is made.

    Raises:
        ConfigError: it cannot be made, or would lie elsewhere than in `runs`.
    """
    if not NAME.fullmatch(job):
        raise ConfigError(
            f"job {job!r}: a name is a folder's name under runs/: use a to z, 0 to 9 and _, a letter first."
        )
    folder = runs / job
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"runs: {folder} cannot be made ({error.strerror}). Set CHARTINSIGHT_RUNS_DIR to a folder you may write."
        ) from error
    if folder.resolve() != runs.resolve() / job:
        raise ConfigError(f"runs: {folder} leads to {folder.resolve()}. Remove that link; `runs` itself may be one.")
    return folder / f"{started:%Y%m%dT%H%M%SZ}-{run_id.hex[:8]}.ipynb"


def part_of(output: Path) -> Path:
    """Return where the copy is written while the notebook runs."""
    return output.with_suffix(".part.ipynb")


def publish(output: Path) -> None:
    """Give the copy its name once it is whole; one that is not, is dropped.

    Whoever found the run lost and whoever still runs it may do so at the same time: the first does it, for both.
    """
    part = part_of(output)
    part.with_name(part.name + ".tmp").unlink(missing_ok=True)
    try:
        whole = isinstance(json.loads(part.read_bytes())["cells"], list)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        part.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(output)


def left_by(runs: Path, run_id: UUID) -> list[Path]:
    """Return the files of a run: its copy, finished or not, and its log."""
    return [path for path in runs.glob(f"*/*-{run_id.hex[:8]}.*") if path.suffix in {".ipynb", ".log"}]


def unfinished(runs: Path) -> set[str]:
    """Return the first eight digits of the runs whose copies are still being written, or were never settled."""
    return {path.name.removesuffix(".part.ipynb")[-8:] for path in runs.glob("*/*.part.ipynb")}


def settle_unfinished(runs: Path, run_id: UUID) -> None:
    """Give what a run that died left its name where it is whole, and remove it where it is not."""
    for path in runs.glob(f"*/*-{run_id.hex[:8]}.part.ipynb"):
        publish(path.with_name(path.name.replace(".part.ipynb", ".ipynb")))
    for path in runs.glob(f"*/*-{run_id.hex[:8]}.*.tmp"):
        path.unlink(missing_ok=True)

"""What the tests of runs share: notebooks made for a test, the records they leave, and whether a process is left."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil
from sqlalchemy import Engine, text

from chartinsight_lib.jobs import Job
from chartinsight_lib.settings import Settings

NOW = datetime(2013, 3, 4, 21, 30, tzinfo=UTC)
PARAMETERS = 'code: str = "AAPL"  # text\nrows: int = 3\nshare: float = 0.5\nfull: bool = False\nnames: dict = {}'


def made_job(folder: Path, *cells: str, parameters: str | None = PARAMETERS, timeout_s: int = 60, **told: Any) -> Job:
    """Make a job whose notebook has parameters, a text cell, and the given cells of code."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    made.cells.append(nbformat.v4.new_markdown_cell("Made for a test."))
    if parameters is not None:
        made.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path = folder / "made.ipynb"
    nbformat.write(made, path)
    return Job("made", path, timeout_s, **told)


def processes_of(place: Settings) -> list[str]:
    """What runs of this test's folder: the child has its output open there, a kernel has a run's id and our home."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if "CHARTINSIGHT_RUN_ID" in environment and environment.get("CHARTINSIGHT_HOME") == str(place.home):
                found.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def records(engine: Engine) -> list[Any]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT * FROM ops.runs ORDER BY started_at")).all())


def only_record(engine: Engine) -> Any:
    (record,) = records(engine)
    return record


def slots_of(engine: Engine) -> list[Any]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT * FROM ops.slots ORDER BY slot")).all())


def files(folder: Path) -> list[str]:
    """The files below a folder, without the logs."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")


def until(condition: Callable[[], Any], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def shown(path: Path | str) -> list[str]:
    """What the code cells of an executed copy show, a text each."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in cells
    ]

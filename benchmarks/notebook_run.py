"""What a notebook's run costs over the bare function call, beside plain papermill: printed, with the goals.

    python benchmarks/notebook_run.py [--repeat 7]

The notebook is as that of the five-minute cycle: it imports the library, opens the database and reads once. An embedded PostgreSQL
of its own is started and thrown away. Each round measures every way once, so that a busy machine disturbs all of them alike; the
median of the rounds counts. The ways: the function call in a process that has all imported; `papermill` as a command, and called
in a process that has it imported; `run_job` with a process started for it, and with one that waited; `chartinsight run`. It takes
about a minute.

Exit code 1: a goal is missed. A machine that is busy disturbs it: the load stands at the end.
"""

# ruff: noqa: T201 - it prints: that is what it is for
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

import nbformat
import papermill
from _stage import fresh_home, load
from sqlalchemy import text

from chartinsight_lib.db.engine import Database, open_database, open_engine
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.jobs import Job
from chartinsight_lib.runner import Warm, run_job
from chartinsight_lib.running.job_environment import job_environment
from chartinsight_lib.settings import PREFIX, Settings

COLD_AT_MOST, WARM_AT_MOST = 1.10, 0.50
"""Of the time of the command `papermill`."""
WARM_S = 120.0
IMPORTS = (
    "from sqlalchemy import text\n"
    "from chartinsight_lib import ledger\n"
    "from chartinsight_lib.collect import collect_intraday\n"
    "from chartinsight_lib.db.engine import open_engine\n"
    "from chartinsight_lib.db.roles import Role\n"
    "from chartinsight_lib.settings import Settings\n"
    "from chartinsight_lib.sources import open_source\n"
    "settings = Settings.from_env()\n"
    "engine = open_engine(settings, Role.LOADER)"
)
READS = (
    "with engine.connect() as conn:\n    held = conn.execute(text('SELECT count(*) FROM live.candles')).scalar_one()"
)


def main() -> int:
    """Run everything, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="rounds; the median counts [7]")
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(PREFIX) or name == "DATABASE_URL"]:
        del os.environ[name]
    with fresh_home() as home:
        (home / "pipelines").mkdir()
        (home / "pipelines" / "jobs.yaml").write_text("jobs: {made: {notebook: made.ipynb, timeout_s: 600}}\n")
        job = Job("made", _notebook(home / "made.ipynb"), 600)
        settings = Settings(_env_file=None, home=home, project=home, runs_dir=home / "runs")
        with open_database(settings) as database:
            upgrade(database)
            medians = _measure(database, settings, job, asked.repeat)
    bare, plain = medians["function call"], medians["papermill, the command"]
    print(f"medians of {asked.repeat} rounds, seconds; over: beyond the function call")
    for name, seconds in medians.items():
        print(f"  {name:<46} {seconds:7.3f}   over {seconds - bare:7.3f}   {seconds / plain:5.2f} of papermill's")
    missed = 0
    for name, most in (("run_job, cold", COLD_AT_MOST), ("run_job, warm", WARM_AT_MOST)):
        ratio = medians[name] / plain
        missed += ratio > most
        print(f"  {name:<46} {ratio:7.2f}   goal \u2264 {most:.2f}   {'reached' if ratio <= most else 'MISSED'}")
    print(load())
    return 1 if missed else 0


def _notebook(path: Path) -> Path:
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    made.cells.append(nbformat.v4.new_code_cell("rows: int = 3", metadata={"tags": ["parameters"]}))
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in (IMPORTS, READS, "held, rows")]
    nbformat.write(made, path)
    return path


def _measure(database: Database, settings: Settings, job: Job, repeat: int) -> dict[str, float]:
    environment = job_environment(database, settings, UUID(int=1))
    del environment[f"{PREFIX}RUN_ID"]
    told = settings.model_copy(update={"database_url": None})
    out = settings.home / "out.ipynb"
    beside = Path(sys.executable).parent
    own = environment | {f"{PREFIX}PROJECT": str(settings.project), f"{PREFIX}RUNS_DIR": str(settings.runs)}

    def call() -> None:
        engine = open_engine(told, Role.LOADER)
        with engine.connect() as conn:
            conn.execute(text("SELECT count(*) FROM live.candles")).scalar_one()
        engine.dispose()

    def in_process() -> None:
        os.environ.update(environment)
        try:
            papermill.execute_notebook(str(job.notebook), str(out), {"rows": 5}, progress_bar=False)
        finally:
            for name in environment:
                if name.startswith(PREFIX) or name == "DATABASE_URL":
                    del os.environ[name]

    with Warm(database, settings) as warm:
        ways: dict[str, Callable[[], object]] = {
            "function call": call,
            "papermill, the command": lambda: _command(
                [beside / "papermill", job.notebook, out, "-p", "rows", "5"], environment
            ),
            "papermill, in a process that has it imported": in_process,
            "run_job, cold": lambda: run_job(database, settings, job, {"rows": 5}),
            "run_job, warm": lambda: run_job(database, settings, job, {"rows": 5}, warm=warm),
            "chartinsight run, the command": lambda: _command(
                [beside / "chartinsight", "run", "made", "-p", "rows=5"], own
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeat + 1):
            for name, way in ways.items():
                if name == "run_job, warm":
                    warm.refill()
                    if not warm.ready(WARM_S):
                        raise RuntimeError("no process became warm")
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}  # the first reads from the disk


def _command(arguments: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    quiet = subprocess.DEVNULL
    subprocess.run(arguments, env=environment, check=True, stdout=quiet, stderr=quiet)


if __name__ == "__main__":
    sys.exit(main())

"""Whatever of a run is killed, and whenever: no process stays, the record says so, and what is left of the copy is whole."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from running import only_record, processes_of, until

from chartinsight_lib import ledger
from chartinsight_lib.db.roles import Role
from chartinsight_lib.runner import discard_unfinished

RUNS = int(os.environ.get("FAULT_RUNS", "4"))
"""How many kills; so many as a person wants to wait for: FAULT_RUNS=500 takes half an hour."""
SHOWS_MUCH = "for n in range(20): print('x' * 100_000)"  # 2 MB a cell, so that writing the copy takes a while
pytestmark = pytest.mark.usefixtures("nothing_is_left")


def the_processes(place, runner: psutil.Process) -> dict[str, psutil.Process]:
    """The runner, the child that holds papermill, and the kernel: those of them that are there."""
    found = {"runner": runner}
    for line in processes_of(place):
        process = psutil.Process(int(line.split()[0]))
        found["kernel" if "ipykernel_launcher" in line else "child"] = process
    return found


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_kill_leaves_a_whole_copy_a_true_record_and_no_process(database, place, loader, notebook, seed):
    chance = random.Random(seed)  # noqa: S311 - no secret
    victims = ("runner", "child", "kernel", "runner and child")
    victim = victims[seed % len(victims)]
    job = notebook(*[SHOWS_MUCH] * 12)
    program = (
        "from pathlib import Path\nfrom chartinsight_lib.db.engine import open_database\n"
        "from chartinsight_lib.jobs import Job\nfrom chartinsight_lib.runner import run_job\n"
        "from chartinsight_lib.settings import Settings\nsettings = Settings.from_env()\n"
        "with open_database(settings) as database:\n"
        f"    run_job(database, settings, Job('made', Path({str(job.notebook)!r}), 120), {{}})"
    )
    environment = {
        **os.environ,
        "CHARTINSIGHT_HOME": str(place.home),
        "CHARTINSIGHT_RUNS_DIR": str(place.runs),
        "CHARTINSIGHT_NOW": str(place.now),
        "DATABASE_URL": database.url(Role.LOADER),
    }
    runner = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list(place.runs.glob("*/*.part.ipynb")), seconds=60)  # papermill has begun to write
        time.sleep(chance.uniform(0, 1.5))  # the moment is the test's chance; nothing is awaited by it
        there = the_processes(place, psutil.Process(runner.pid))
        for name in victim.split(" and "):
            if name in there:
                os.kill(there[name].pid, signal.SIGKILL)
        if "runner" in victim:
            runner.wait(30)
            until(lambda: not processes_of(place), seconds=5)
        else:
            runner.wait(60)
    finally:
        runner.kill()
        runner.wait()

    for path in place.runs.rglob("*.ipynb"):
        json.loads(path.read_bytes())
    with loader.begin() as conn:
        lost = until(lambda: ledger.reap(conn, place.clock) or only_record(loader).state != "running", seconds=10)
    record = only_record(loader)
    if lost == [record.run_id]:
        discard_unfinished(database, place, record.run_id)
    assert record.state in {"lost", "failed", "succeeded"}
    assert (record.state == "lost") <= ("runner" in victim)
    left = [path for path in place.runs.rglob("*") if path.suffix != ".log" and path.is_file()]
    assert [path.name for path in left if ".part" in path.name] == []
    for path in left:
        cells = json.loads(path.read_bytes())["cells"]
        assert len(cells) in {14, 16}  # two more where papermill marks the cell that failed

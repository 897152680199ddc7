"""A process that waits for the next run makes it quick and changes nothing else; it never outlives its owner."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from running import only_record, processes_of, records, shown, until

from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.runner import run_job
from chartinsight_lib.running import warm as warm_module
from chartinsight_lib.running.notebook_process import RUN_ID

pytestmark = pytest.mark.usefixtures("nothing_is_left")
PID = "import os, sys\nprint(os.getpid(), 'pandas' in sys.modules, sorted(name for name in dir() if not name.startswith('_')))"


def waiting(place) -> list[psutil.Process]:
    """The kernels of this test that are there."""
    found = [psutil.Process(int(line.split()[0])) for line in processes_of(place)]
    return [process for process in found if "ipykernel_launcher" in " ".join(process.cmdline())]


def kernel_of(place) -> psutil.Process:
    (kernel,) = until(lambda: waiting(place), seconds=60)
    return kernel


def test_a_run_takes_the_kernel_that_waits_which_then_has_run_nothing_else(database, place, loader, notebook, warm):
    job = notebook(PID, "rows")
    warm.refill()
    first = kernel_of(place)
    marked = first.environ()[RUN_ID]
    warm.refill()
    assert [kernel.pid for kernel in waiting(place)] == [first.pid]  # one is enough
    run = run_job(database, place, job, {"rows": 5}, warm=warm)
    assert str(run.run_id) == marked == str(only_record(loader).run_id)
    _, _, said, rows = shown(run.output)
    pid, pandas, names = said.split(maxsplit=2)
    assert (int(pid), pandas, rows) == (first.pid, "True", "5")
    # What was imported before left no name behind.
    assert names.strip() == str(
        ["In", "Out", "code", "exit", "full", "get_ipython", "names", "open", "os", "quit", "rows", "share", "sys"]
    )
    assert waiting(place) == []  # used once

    cold = run_job(database, place, job, {}, warm=warm)  # there is none now
    assert shown(cold.output)[-2].split()[1] == "False"
    warm.refill()
    assert kernel_of(place).pid != first.pid


def test_what_a_warm_run_leaves_is_called_as_that_of_any_other(database, place, loader, notebook, warm):
    warm.refill()
    kernel_of(place)
    run = run_job(database, place, notebook("import os; os.write(2, b'said by C')"), {}, warm=warm)
    assert run.output.name == f"20130304T213000Z-{run.run_id.hex[:8]}.ipynb"
    log = run.output.with_suffix(".log")
    assert log.read_text().endswith("said by C")
    assert only_record(loader).log_path == str(log)
    assert sorted(path.name for path in place.runs.rglob("*") if path.is_file()) == [run.output.name, log.name]


@pytest.mark.parametrize("what", ["settings", "code", "dead"])
def test_a_process_that_would_not_be_what_a_new_one_is_is_thrown_away(
    database, place, loader, notebook, warm, monkeypatch, tmp_path, what
):
    warm.refill()
    kernel = kernel_of(place)
    if what == "settings":
        monkeypatch.setenv("SOMETHING", "else")
    elif what == "code":
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "newer.py").touch()
        monkeypatch.setattr(warm_module, "_PACKAGE", tmp_path / "package")
    else:
        child = kernel.parent()
        child.kill()
        psutil.wait_procs([child], timeout=10)
    run = run_job(database, place, notebook(PID), {}, warm=warm)
    pid, pandas, _ = shown(run.output)[-1].split(maxsplit=2)
    assert (int(pid) != kernel.pid, pandas) == (True, "False")
    living = {one.pid for one in psutil.process_iter(["status"]) if one.info["status"] != psutil.STATUS_ZOMBIE}
    assert kernel.pid not in living


def test_a_process_that_dies_over_its_order_is_replaced_by_a_cold_start(database, place, loader, notebook, warm):
    warm.refill()
    kernel = kernel_of(place)
    until(lambda: kernel.num_threads() > 5, seconds=60)
    kernel.kill()  # its parent waits for an order, and does not notice
    run = run_job(database, place, notebook(PID), {}, warm=warm)
    assert int(shown(run.output)[-1].split()[0]) != kernel.pid
    assert [record.state for record in records(loader)] == ["succeeded"]


def test_a_run_that_is_refused_leaves_the_process_to_the_next(database, place, loader, notebook, warm):
    warm.refill()
    kernel = kernel_of(place)
    with pytest.raises(ConfigError):
        run_job(database, place, notebook("1"), {"no": 1}, warm=warm)
    (place.runs / "made").symlink_to(place.home)
    with pytest.raises(ConfigError, match="leads to"):
        run_job(database, place, notebook("1"), {}, warm=warm)
    (place.runs / "made").unlink()
    run = run_job(database, place, notebook(PID), {}, warm=warm)
    assert int(shown(run.output)[-1].split()[0]) == kernel.pid


def test_a_process_that_dies_unused_is_not_replaced_at_once(place, database, warm):
    warm.refill()
    child = kernel_of(place).parent()
    child.kill()
    psutil.wait_procs([child], timeout=10)
    warm.refill()
    assert processes_of(place) == []


def test_a_process_that_waits_ends_with_its_owner(database, place, loader, notebook):
    program = (
        "import time\nfrom chartinsight_lib.db.engine import open_database\n"
        "from chartinsight_lib.runner import Warm\nfrom chartinsight_lib.settings import Settings\n"
        "settings = Settings.from_env()\n"
        "with open_database(settings) as database, Warm(database, settings) as warm:\n"
        "    warm.refill(); time.sleep(600)"
    )
    environment = {
        **os.environ,
        "CHARTINSIGHT_HOME": str(place.home),
        "CHARTINSIGHT_RUNS_DIR": str(place.runs),
        "DATABASE_URL": database.url(Role.LOADER),
    }
    owner = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        kernel_of(place)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    until(lambda: not processes_of(place), seconds=5)

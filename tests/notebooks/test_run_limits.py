"""A run ends at its limits, and says which one it was and where."""

import json
import sys
import time

import pytest
from running import files, only_record, shown

from chartinsight_lib.errors import RunFailed
from chartinsight_lib.runner import run_job
from chartinsight_lib.running import watch

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize(
    "endless",
    [
        "while True: pass",
        # Deaf to being asked, and the interpreter's lock never free: a C function that runs for minutes.
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); sum(range(10**11))",
        # A child of the kernel in a session of its own.
        "import subprocess; subprocess.run(['sleep', '600'], start_new_session=True)",
    ],
    ids=["python", "c", "grandchild"],
)
def test_a_cell_that_never_ends_is_stopped_at_the_time_limit(database, place, loader, passing, notebook, endless):
    started = time.monotonic()
    with pytest.raises(RunFailed, match="made: cell 2: stopped: it ran longer than its 600 s"):
        run_job(database, place, notebook(passing(601) + endless, timeout_s=600), {})
    assert time.monotonic() - started < 60
    assert only_record(loader).state == "failed"
    assert [name for name in files(place.runs) if ".part" in name or ".result" in name] == []


def test_the_limit_of_a_run_lets_a_cell_roll_back_what_it_holds(database, place, loader, passing, notebook, tmp_path):
    told = tmp_path / "told"
    job = notebook(
        "import time\nfrom pathlib import Path\n"
        f"try:\n    {passing(601)}    time.sleep(600)\n"
        f"except KeyboardInterrupt:\n    Path({str(told)!r}).write_text('rolled back'); raise",
        timeout_s=600,
    )
    with pytest.raises(
        RunFailed, match=r"made: cell 2: stopped: it ran longer than its 600 s\. The executed copy: "
    ) as failure:
        run_job(database, place, job, {})
    assert told.read_text() == "rolled back"
    assert (failure.value.error_class, failure.value.temporary) == ("RunTimeLimit", True)
    assert (only_record(loader).error_class, only_record(loader).error_cell) == ("RunTimeLimit", 2)


def test_the_limit_of_a_cell_is_that_of_each_cell(database, place, loader, passing, notebook):
    # Three cells of 200 s are longer than one may be, and none of them is.
    endless = "import time\nwhile True:\n    " + passing(100) + "    time.sleep(0.1)"
    job = notebook(*[passing(200)] * 3, endless, timeout_s=3600, cell_timeout_s=500)
    with pytest.raises(RunFailed, match="made: cell 5: stopped: the cell ran longer than its 500 s"):
        run_job(database, place, job, {})
    assert only_record(loader).error_class == "CellTimeLimit"


def test_a_cell_that_is_deaf_to_its_limit_is_killed_after_the_grace(database, place, loader, passing, notebook):
    deaf = (
        "import time\nwhile True:\n    try:\n        "
        + passing(100)
        + "        time.sleep(0.1)\n    except KeyboardInterrupt: pass"
    )
    with pytest.raises(RunFailed, match="cell 2: stopped: the cell ran longer than its 500 s"):
        run_job(database, place, notebook(deaf, timeout_s=100_000, cell_timeout_s=500), {})
    cell = json.loads(next(place.runs.rglob("*.ipynb")).read_bytes())["cells"][-1]
    assert cell["metadata"]["papermill"]["status"] == "running"  # it did not end by itself


def test_a_kernel_that_does_not_start_is_given_up(database, place, loader, notebook, monkeypatch, tmp_path):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "mute", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))  # before that of the environment
    with pytest.raises(RunFailed, match="made: stopped: its kernel did not start within 2 s") as failure:
        run_job(database, place, notebook("1", start_timeout_s=2), {})
    assert failure.value.temporary
    assert (only_record(loader).error_class, only_record(loader).error_cell) == ("KernelNotStarted", None)


@pytest.mark.parametrize(
    "greedy",
    [
        "held = bytearray(400_000_000)\nfor n in range(0, len(held), 4096): held[n] = 1\nimport time; time.sleep(600)",
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'held = b\"1\" * 400_000_000; import time; time.sleep(600)'])",
    ],
    ids=["kernel", "grandchild"],
)
def test_a_run_that_outgrows_its_memory_is_stopped_and_not_tried_again(database, place, loader, notebook, greedy):
    with pytest.raises(RunFailed, match=r"made: cell 2: stopped: it held [\d,]+ MB, and 350 are allowed") as failure:
        run_job(database, place, notebook(greedy, memory_mb=350), {})
    assert not failure.value.temporary
    assert only_record(loader).error_class == "MemoryLimit"


def test_memory_that_processes_share_counts_once(database, place, loader, notebook):
    # Three forks of a process that holds 200 MB hold what it holds; added up they would be 800 MB and more.
    job = notebook(
        "import os, time\nheld = b'1' * 200_000_000\n"
        "children = []\n"
        "for _ in range(3):\n"
        "    if (child := os.fork()) == 0:\n        time.sleep(2); os._exit(0)\n"
        "    children.append(child)\n"
        "for child in children: os.waitpid(child, 0)",
        memory_mb=600,
    )
    run_job(database, place, job, {})
    assert only_record(loader).state == "succeeded"


def test_a_kernel_whose_death_nobody_notices_ends_the_run(database, place, loader, notebook, monkeypatch):
    monkeypatch.setattr(watch, "DEAD_KERNEL_S", 1.0)
    # The child is stopped, as one that waits where it does not ask; then the machine kills the kernel for its memory.
    job = notebook("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nos.kill(os.getpid(), signal.SIGKILL)")
    started = time.monotonic()
    with pytest.raises(RunFailed, match="made: cell 2: the kernel died, and nobody noticed") as failure:
        run_job(database, place, job, {})
    assert time.monotonic() - started < 30
    assert failure.value.temporary


def test_much_output_neither_fails_a_run_nor_fills_the_disk(database, place, loader, notebook):
    job = notebook(
        "for n in range(20_000): print(n)",
        "for n in range(30): print('x' * 1_000_000)",
        "'the end'",
    )
    run = run_job(database, place, job, {})
    many, much, last = shown(run.output)[1:]
    assert many.split() == [str(n) for n in range(20_000)]
    assert len(much) < 11_000_000
    assert "the rest is left out: a cell may show 10,000,000 characters" in much
    assert last == "'the end'"
    assert run.output.stat().st_size < 12_000_000

"""A run that fails says in which cell and why, and leaves a copy that is whole or none."""

import time

import nbformat
import pytest
from running import NOW, files, only_record

from chartinsight_lib.errors import RunFailed
from chartinsight_lib.runner import run_job

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_a_cell_that_raises_fails_the_run_with_cell_and_error(database, place, loader, notebook):
    job = notebook("fine = 1", "raise ValueError('no candle of 005930')", "never = 1")
    with pytest.raises(RunFailed) as failure:
        run_job(database, place, job, {"rows": 1})

    record = only_record(loader)
    assert (record.state, record.finished_at) == ("failed", NOW)
    (name,) = files(place.runs)
    assert record.output_path == str(place.runs / "made" / name)
    # The injected parameters are a cell of their own: In [1] defaults, In [2] injected, In [3] fine, In [4] raises.
    assert record.error == "cell 4: ValueError: no candle of 005930"
    assert str(failure.value) == f"made: {record.error}. The executed copy: {record.output_path}"
    executed = nbformat.read(record.output_path, as_version=4)
    (raised,) = [cell for cell in executed.cells if "raise" in cell.source]
    assert raised.execution_count == 4
    assert raised.outputs[0].evalue == "no candle of 005930"
    assert executed.cells[-1].execution_count is None


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_kernel_that_dies_fails_the_run_in_bounded_time(database, place, loader, notebook, death):
    started = time.monotonic()
    with pytest.raises(RunFailed, match="Kernel died"):
        run_job(database, place, notebook(f"import os, signal\n{death}"), {})
    assert time.monotonic() - started < 30
    record = only_record(loader)
    assert record.state == "failed"
    assert "Kernel died" in record.error
    nbformat.read(record.output_path, as_version=4)


def test_the_child_killed_by_the_machine_fails_the_run_and_its_kernel_ends(database, place, loader, notebook, tmp_path):
    # What the kernel's starter gets when memory runs out; the kernel holds the interpreter's lock and cannot notice.
    job = notebook("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nsum(range(10**11))")
    with pytest.raises(RunFailed, match=r"the notebook's process died \(exit code -9\)"):
        run_job(database, place, job, {})
    assert only_record(loader).state == "failed"


def test_an_executed_copy_that_was_cut_off_is_neither_kept_nor_named(database, place, loader, notebook):
    job = notebook(
        "import os, signal\nfrom pathlib import Path\n"
        f"(part,) = Path({str(place.runs / 'made')!r}).glob('*.part.ipynb')\n"
        "part.write_text(part.read_text()[:100])\n"
        "os.kill(os.getppid(), signal.SIGKILL)"
    )
    with pytest.raises(RunFailed) as failure:
        run_job(database, place, job, {})
    assert "executed copy" not in str(failure.value)
    assert only_record(loader).output_path is None
    assert files(place.runs) == []

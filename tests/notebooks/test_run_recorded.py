"""A run that succeeds is recorded with what it ran on, and its executed copy is kept."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import nbformat
import pytest
from running import NOW, files, only_record

from chartinsight_lib.runner import run_job

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_a_run_is_recorded_and_its_executed_copy_is_kept(database, place, loader, notebook):
    job = notebook("code * rows, share, full, names")
    told = {"code": "005930", "rows": 2, "share": 1, "names": {"close": "종가"}}
    run = run_job(database, place, job, told)

    record = only_record(loader)
    assert (record.run_id, record.job, record.state, record.error) == (run.run_id, "made", "succeeded", None)
    assert record.parameters == told
    assert record.started_at == record.finished_at == NOW
    assert record.code_version.startswith(version("chartinsight-studio"))
    assert record.output_path == str(run.output)
    assert record.rows is None
    assert run.rows == {}

    assert run.output.parent == place.runs / "made"
    assert run.output.name == f"20130304T213000Z-{run.run_id.hex[:8]}.ipynb"
    assert files(run.output.parent) == [run.output.name]
    if sys.platform == "linux":  # elsewhere the kernel warns in a log that TCP is not private
        assert "TCP" not in "".join(log.read_text() for log in run.output.parent.glob("*.log"))
    executed = nbformat.read(run.output, as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "('005930005930', 1, False, {'close': '종가'})"


def test_runs_at_the_same_time_do_not_get_in_each_others_way(database, place, loader, notebook):
    job = notebook("rows * 2")
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda n: run_job(database, place, job, {"rows": n}), range(3)))
    answers = [nbformat.read(run.output, as_version=4).cells[-1].outputs[0].data["text/plain"] for run in done]
    assert answers == ["0", "2", "4"]
    assert not list(place.project.glob("kernel-ipc-*"))  # where a kernel's sockets lie by default


def test_the_rows_of_a_run_are_the_sums_over_its_items(database, place, loader, notebook):
    job = notebook(
        "from chartinsight_lib import ledger\n"
        "from chartinsight_lib.db.engine import open_engine\n"
        "from chartinsight_lib.db.roles import Role\n"
        "from chartinsight_lib.settings import Settings\n"
        "settings = Settings.from_env()\n"
        "with open_engine(settings, Role.LOADER).begin() as conn:\n"
        "    for item, read in {'a': 3, 'b': 4}.items():\n"
        "        rows = {'read': read, 'inserted': 1}\n"
        "        ledger.record_item(conn, settings.run_id, item, rows=rows, clock=settings.clock)"
    )
    run = run_job(database, place, job, {})
    assert run.rows == only_record(loader).rows == {"read": 7, "inserted": 2}


def test_a_kernel_of_the_users_own_is_not_taken(database, place, loader, notebook, monkeypatch, tmp_path):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/python"], "display_name": "old", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    run_job(database, place, notebook("import sys", "sys.prefix"), {})
    assert only_record(loader).state == "succeeded"

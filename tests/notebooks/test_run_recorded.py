"""A run that succeeds is recorded with what it ran on, and its executed copy is kept."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import nbformat
import pytest
from running import NOW, files, only_record

from chartinsight_lib.runner import run_job
from chartinsight_lib.running.provenance import code_version, lock_hash
from chartinsight_lib.settings import PROJECT

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_a_run_is_recorded_and_its_executed_copy_is_kept(database, place, loader, notebook):
    job = notebook("code * rows, share, full, names")
    told = {"code": "005930", "rows": 2, "share": 1, "names": {"close": "종가"}}
    run = run_job(database, place, job, told)

    record = only_record(loader)
    assert (record.run_id, record.job, record.state, record.error) == (run.run_id, "made", "succeeded", None)
    assert record.parameters == told
    assert record.started_at == record.finished_at == NOW
    assert record.code_version == code_version(PROJECT)
    assert record.code_version.startswith(version("chartinsight-studio"))
    lock = hashlib.sha256((PROJECT / "requirements.lock").read_bytes()).hexdigest()
    assert record.lock_hash == lock[:12]
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


def test_a_checkout_says_its_commit_and_whether_files_of_it_were_changed(tmp_path):
    package = version("chartinsight-studio")
    assert (code_version(tmp_path), lock_hash(tmp_path)) == (package, None)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "requirements.lock").write_text("one\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")[:12]
    (tmp_path / "left over").touch()  # what is not of the checkout changes nothing
    assert code_version(tmp_path) == f"{package}+g{commit}"
    (tmp_path / "requirements.lock").write_text("two\n")
    assert code_version(tmp_path) == f"{package}+g{commit}.dirty"
    # printf 'two\n' | sha256sum
    assert lock_hash(tmp_path) == "27dd8ed44a83"


def test_a_version_is_told_where_there_is_no_git(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "/nowhere")
    assert code_version(tmp_path) == version("chartinsight-studio")

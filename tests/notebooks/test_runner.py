"""A run is checked before it starts, recorded whatever becomes of it, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, RunFailed
from chartinsight_lib.jobs import Job
from chartinsight_lib.runner import check_parameters, parse_parameters, run_job
from chartinsight_lib.settings import Settings

NOW = datetime(2013, 3, 4, 21, 30, tzinfo=UTC)
PARAMETERS = 'code: str = "AAPL"  # text\nrows: int = 3\nshare: float = 0.5\nfull: bool = False\nnames: dict = {}'


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a runs folder of the test's own and the clock standing still."""
    return settings.model_copy(update={"runs_dir": tmp_path / "runs", "now": NOW.isoformat()})


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Job]:
    """Makes a job whose notebook has the parameters above, a text cell, and the given cells of code."""

    def make(*cells: str, parameters: str | None = PARAMETERS, timeout_s: int = 60) -> Job:
        made = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        )
        made.cells.append(nbformat.v4.new_markdown_cell("Made for a test."))
        if parameters is not None:
            made.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = tmp_path / "made.ipynb"
        nbformat.write(made, path)
        return Job("made", path, timeout_s)

    return make


@pytest.fixture(autouse=True)
def _nothing_is_left(place: Settings) -> Iterator[None]:
    """After every run, however it ended, no process works for it; asked at once, not after a while."""
    yield
    assert _processes_of(place) == []


def _processes_of(place: Settings) -> list[str]:
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


def _records(engine: Engine) -> list[Any]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT * FROM ops.runs ORDER BY started_at")).all())


def _record(engine: Engine) -> Any:
    (record,) = _records(engine)
    return record


def _files(folder: Path) -> list[str]:
    """The files below a folder, without the logs."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")


def _until(condition: Callable[[], Any], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


# --- a run that succeeds --------------------------------------------------------------------------


def test_a_run_is_recorded_and_its_executed_copy_is_kept(database, place, loader, notebook):
    job = notebook("code * rows, share, full, names")
    told = {"code": "005930", "rows": 2, "share": 1, "names": {"close": "종가"}}
    run = run_job(database, place, job, told)

    record = _record(loader)
    assert (record.run_id, record.job, record.state, record.error) == (run.run_id, "made", "succeeded", None)
    assert record.parameters == told
    assert record.started_at == record.finished_at == NOW
    assert record.code_version.startswith(version("chartinsight-studio"))
    assert record.output_path == str(run.output)
    assert record.rows is None
    assert run.rows == {}

    assert run.output.parent == place.runs / "made"
    assert run.output.name == f"20130304T213000Z-{run.run_id.hex[:8]}.ipynb"
    assert _files(run.output.parent) == [run.output.name]
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
    assert run.rows == _record(loader).rows == {"read": 7, "inserted": 2}


def test_a_kernel_of_the_users_own_is_not_taken(database, place, loader, notebook, monkeypatch, tmp_path):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/python"], "display_name": "old", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    run_job(database, place, notebook("import sys", "sys.prefix"), {})
    assert _record(loader).state == "succeeded"


# --- what is refused before anything starts -------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"cod": "005930"}, "it has no parameter 'cod'. Its parameters are code, rows, share, full, names."),
        ({"code": 5930}, "parameter code must be str, and 5930 is int."),
        ({"rows": "3"}, "parameter rows must be int, and '3' is str."),
        ({"rows": True}, "parameter rows must be int, and True is bool."),
        ({"rows": None}, "parameter rows must be int, and None is NoneType."),
        ({"full": 1}, "parameter full must be bool, and 1 is int."),
        ({"names": ["close"]}, "parameter names must be dict, and ['close'] is list."),
        ({"code\nopen('proof', 'w')\n": "x"}, """it has no parameter "code\\nopen('proof', 'w')\\n". """),
        ({"share": float("nan")}, "a parameter holds what a record cannot"),
        ({"names": {"close": NOW}}, "a parameter holds what a record cannot"),
        ({"code": "\udcff"}, "a parameter holds what a record cannot"),
        ({"code": "a\0b"}, "a parameter holds what a record cannot"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(database, place, loader, notebook, told, sentence):
    with pytest.raises(ConfigError) as refusal:
        run_job(database, place, notebook("1"), told)
    assert f"made.ipynb: {sentence}" in str(refusal.value)
    assert _records(loader) == []
    assert not place.runs.exists()


def test_a_notebook_without_parameters_takes_none(database, place, loader, notebook):
    job = notebook("1", parameters=None)
    with pytest.raises(ConfigError, match=r"it has no parameter 'code'\. Its parameters are none\."):
        run_job(database, place, job, {"code": "005930"})
    assert _records(loader) == []
    assert not place.runs.exists()


def test_a_parameter_without_a_plain_type_cannot_be_set(notebook):
    job = notebook(parameters="untyped = 3\nodd: int | None = None")
    with pytest.raises(ConfigError, match="parameter untyped is declared as 'None'; declare it as one of str, int,"):
        check_parameters(job.notebook, {"untyped": 3})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"code": "005930"}, {"code": "005930"}),
        ({"code": "true"}, {"code": "true"}),
        ({"rows": "20"}, {"rows": 20}),
        ({"share": "0.25"}, {"share": 0.25}),
        ({"full": "yes"}, {"full": True}),
        ({"names": "{close: 종가}"}, {"names": {"close": "종가"}}),
    ],
)
def test_what_a_person_writes_is_read_as_the_type_that_the_notebook_declares(notebook, written, meant):
    assert parse_parameters(notebook().notebook, written) == meant


def test_a_text_that_is_no_number_is_refused_with_the_parameters_name(notebook):
    with pytest.raises(ConfigError, match="parameter rows must be int, and 'many' is str"):
        parse_parameters(notebook().notebook, {"rows": "many"})
    with pytest.raises(ConfigError, match=r"parameter names: '\{' cannot be read as dict"):
        parse_parameters(notebook().notebook, {"names": "{"})


def test_a_runs_folder_that_cannot_be_made_is_said_before_anything_starts(database, place, loader, notebook, tmp_path):
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(ConfigError, match=r"runs: .* cannot be made .*CHARTINSIGHT_RUNS_DIR"):
        run_job(database, place, notebook("1"), {})
    assert _records(loader) == []


# --- runs that fail -------------------------------------------------------------------------------


def test_a_cell_that_raises_fails_the_run_with_cell_and_error(database, place, loader, notebook):
    job = notebook("fine = 1", "raise ValueError('no candle of 005930')", "never = 1")
    with pytest.raises(RunFailed) as failure:
        run_job(database, place, job, {"rows": 1})

    record = _record(loader)
    assert (record.state, record.finished_at) == ("failed", NOW)
    (name,) = _files(place.runs)
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
    record = _record(loader)
    assert record.state == "failed"
    assert "Kernel died" in record.error
    nbformat.read(record.output_path, as_version=4)


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
def test_a_cell_that_never_ends_is_stopped_at_the_time_limit(database, place, loader, notebook, endless):
    started = time.monotonic()
    with pytest.raises(RunFailed, match="made: cell 2: stopped: it ran longer than its 3 s"):
        run_job(database, place, notebook(endless, timeout_s=3), {})
    assert time.monotonic() - started < 15
    assert _record(loader).state == "failed"
    assert [name for name in _files(place.runs) if ".part" in name or ".result" in name] == []


def test_the_child_killed_by_the_machine_fails_the_run_and_its_kernel_ends(database, place, loader, notebook, tmp_path):
    # What the kernel's starter gets when memory runs out; the kernel holds the interpreter's lock and cannot notice.
    job = notebook("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nsum(range(10**11))")
    with pytest.raises(RunFailed, match=r"the notebook's process died \(exit code -9\)"):
        run_job(database, place, job, {})
    assert _record(loader).state == "failed"


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
    assert _record(loader).output_path is None
    assert _files(place.runs) == []


def test_no_password_is_in_the_executed_copy_the_log_or_the_record(database, place, loader, notebook):
    job = notebook(
        "from chartinsight_lib.db.engine import open_engine\n"
        "from chartinsight_lib.db.roles import Role\n"
        "from chartinsight_lib.settings import Settings\n"
        "import logging; logging.basicConfig(level=logging.DEBUG)\n"
        "settings = Settings.from_env(); settings",
        "engine = open_engine(settings, Role.LOADER); engine",
        "engine.url",
        "with engine.begin() as conn: conn.exec_driver_sql('SELECT 1 FROM nowhere')",
    )
    with pytest.raises(RunFailed, match="nowhere") as failure:
        run_job(database, place, job, {})
    secret = database.urls[Role.LOADER].password
    assert secret
    assert len(secret) >= 20
    assert secret not in str(failure.value)
    assert secret not in str(_record(loader))
    kept = [path for path in place.runs.rglob("*") if path.is_file()]
    assert any("nowhere" in path.read_text() for path in kept)
    assert [path for path in kept if secret in path.read_text()] == []


# --- interruption ---------------------------------------------------------------------------------


def test_ctrl_c_ends_the_run_as_failed_with_nothing_left_running(database, place, loader, notebook, tmp_path):
    reached = tmp_path / "reached"
    job = notebook(f"from pathlib import Path\nPath({str(reached)!r}).touch()", "import time\ntime.sleep(600)")

    def press() -> None:
        _until(reached.exists, seconds=60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_job(database, place, job, {})
    thread.join()
    assert time.monotonic() - started < 60
    record = _record(loader)
    assert (record.state, record.error) == ("failed", "interrupted: KeyboardInterrupt")
    (name,) = _files(place.runs)
    assert record.output_path == str(place.runs / "made" / name)
    nbformat.read(record.output_path, as_version=4)


def test_kernels_end_at_once_when_the_runner_is_killed(database: Database, place, loader, notebook, tmp_path):
    reached = tmp_path / "reached"
    # Deaf to being asked, and unable to notice that its starter is gone.
    job = notebook(
        f"from pathlib import Path\nPath({str(reached)!r}).touch()\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); sum(range(10**11))"
    )
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from chartinsight_lib.db.engine import open_database\nfrom chartinsight_lib.jobs import Job\n"
        "from chartinsight_lib.runner import run_job\nfrom chartinsight_lib.settings import Settings\n"
        "settings = Settings.from_env()\n"
        "with open_database(settings) as database:\n"
        f"    run_job(database, settings, Job('made', Path({str(job.notebook)!r}), 60), {{}})"
    )
    environment = {
        **os.environ,
        "CHARTINSIGHT_HOME": str(place.home),
        "CHARTINSIGHT_RUNS_DIR": str(place.runs),
        "DATABASE_URL": database.url(Role.LOADER),
    }
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        _until(reached.exists, seconds=60)
    finally:
        process.kill()
        process.wait()
    _until(lambda: not _processes_of(place), seconds=5)
    assert _record(loader).state == "running"  # the next start says `lost`

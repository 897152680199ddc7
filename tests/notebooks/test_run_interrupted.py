"""A run that is cut off leaves no process, and its record says so."""

import os
import signal
import subprocess
import sys
import threading
import time

import nbformat
import pytest
from running import files, only_record, processes_of, until

from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.runner import run_job

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_ctrl_c_ends_the_run_as_failed_with_nothing_left_running(database, place, loader, notebook, tmp_path):
    reached = tmp_path / "reached"
    job = notebook(f"from pathlib import Path\nPath({str(reached)!r}).touch()", "import time\ntime.sleep(600)")

    def press() -> None:
        until(reached.exists, seconds=60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_job(database, place, job, {})
    thread.join()
    assert time.monotonic() - started < 60
    record = only_record(loader)
    assert (record.state, record.error) == ("failed", "interrupted: KeyboardInterrupt")
    (name,) = files(place.runs)
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
        until(reached.exists, seconds=60)
    finally:
        process.kill()
        process.wait()
    until(lambda: not processes_of(place), seconds=5)
    assert only_record(loader).state == "running"  # the next start says `lost`

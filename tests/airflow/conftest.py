"""A simulated Kiwoom, a migrated `tradesmart`, and an Airflow beside them with its jobs. The market stands still at this
machine's time, so that what is asked twice is answered twice alike.

    AIRFLOW_ENV=/path/to/airflow/venv pytest tests/airflow
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import nbformat
import pytest
import stack
import yaml

from chartinsight_lib.db.embedded import free_port, start_embedded
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.processes import spawn, stop_group
from chartinsight_lib.settings import Settings

CANARIES = {"appkey": "canary-appkey-7f3a91", "secretkey": "canary-secretkey-c04e52"}

NAPS = [f"nap_{number}" for number in range(1, 7)]
EXTRA = {"sleep_long": 600, **dict.fromkeys(NAPS, 3)}
"""Jobs beside the real ones, of the same pool, that do nothing for so many seconds."""


@pytest.fixture(scope="session")
def programs() -> Path:
    """The programs of the environment that holds Airflow; without one these tests fail."""
    found = Path(os.environ.get("AIRFLOW_ENV", "airflow-env-is-not-set")) / "bin"
    assert (found / "airflow").exists(), (
        "set AIRFLOW_ENV to an environment made from pipelines/airflow/requirements.lock"
    )
    return found


@pytest.fixture(scope="session")
def project() -> Iterator[Path]:
    """A checkout with the real list of jobs, and one job more that sleeps until it is killed."""
    folder = Path(tempfile.mkdtemp(prefix="chartinsight-airflow-"))
    folder.chmod(0o755)
    (folder / "notebooks").symlink_to(stack.ROOT / "notebooks")
    (folder / "pipelines").mkdir()
    listed = (stack.ROOT / "pipelines" / "jobs.yaml").read_text()
    for name, seconds in EXTRA.items():
        listed += f"\n  {name}: {{notebook: {name}.ipynb, timeout_s: 900, pool: kiwoom_api_pool}}"
        cells = [
            nbformat.v4.new_markdown_cell("# Sleeps"),
            nbformat.v4.new_code_cell(f"import time\ntime.sleep({seconds})"),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")
    (folder / "pipelines" / "jobs.yaml").write_text(f"{listed}\n")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chartinsight(project: Path, settings: Settings, database: Database) -> Iterator[dict[str, str]]:
    """The settings of jobs, as variables without secrets; the simulator that they point at stands."""
    port = free_port()
    given = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ},
        "CHARTINSIGHT_PROJECT": str(project),
        "CHARTINSIGHT_HOME": str(settings.home),
        "CHARTINSIGHT_RUNS_DIR": str(settings.runs),
        "CHARTINSIGHT_SOURCE": "simulated",
        "CHARTINSIGHT_KIWOOM_URL": f"http://127.0.0.1:{port}",
        "CHARTINSIGHT_KIWOOM_RATE": "200",
        "CHARTINSIGHT_KIWOOM_YEARS": "1",
    }
    keys = {f"CHARTINSIGHT_KIWOOM_{name.upper()}": value for name, value in CANARIES.items()}
    command = [
        sys.executable, "-m", "chartinsight_lib.cli", "simulate", f"--port={port}", "--start=now", "--speed=0", "--instruments=30",
        f"--clock-file={settings.home}/clock",
    ]  # fmt: skip
    environment = {**given, **keys, "CHARTINSIGHT_PROJECT": str(stack.ROOT)}
    with (settings.home / "simulator.out").open("wb") as log:
        simulator = spawn(command, env=environment, cwd=stack.ROOT, log=log)
    try:
        stack.until("the simulator answers", lambda: _answers(port), within_s=300)
        yield given
    finally:
        stop_group(simulator, patience_s=20)


def _answers(port: int) -> bool | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/_simulator", timeout=2, trust_env=False).is_success or None
    except httpx.HTTPError:
        return None


@pytest.fixture(scope="session")
def secrets(database: Database) -> dict[str, str]:
    """The connections, as they are given to what runs tasks."""
    return {
        "AIRFLOW_CONN_TRADESMART": database.url(Role.LOADER),
        "AIRFLOW_CONN_KIWOOM": f"generic://{CANARIES['appkey']}:{CANARIES['secretkey']}@",
    }


@pytest.fixture(scope="session")
def airflow(programs: Path, chartinsight: dict[str, str], secrets: dict[str, str]) -> Iterator[stack.Airflow]:
    """An Airflow that runs the jobs; its metadata lie on a PostgreSQL of its own."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-airflow-"))
    home.chmod(0o755)
    with start_embedded(home / "metadata") as server:
        environment = {
            **chartinsight,
            **secrets,
            "CHARTINSIGHT_BIN": str(Path(sys.executable).parent / "chartinsight"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url(Role.OWNER).replace(
                "postgresql:", "postgresql+psycopg2:"
            ),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        }
        with stack.standing(environment, programs, home / "airflow", free_port()) as found:
            yield found
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def listed(project: Path) -> dict[str, dict[str, object]]:
    """The jobs as the file says them."""
    return dict(yaml.safe_load((project / "pipelines" / "jobs.yaml").read_text())["jobs"])

"""Every notebook of the project runs on stored data, and lies in git as it should."""

import ast
import io
import os
import subprocess
import sys
import tokenize
from datetime import datetime
from pathlib import Path

import nbformat
import papermill
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from chartinsight_lib.db.roles import Role
from chartinsight_lib.jobs import read_jobs
from chartinsight_lib.runner import run_job
from chartinsight_lib.running.parameters import TYPES
from chartinsight_lib.settings import PROJECT
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.model import KST
from chartinsight_lib.simulator.options import Options as SimulatorOptions
from chartinsight_lib.simulator.server import SimulatorServer

NOTEBOOKS = sorted(path for path in (PROJECT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
JOBS = [path for path in NOTEBOOKS if path.parent.name == "jobs"]
# Friday 2013-03-01 is the sample's newest day; on the Monday after it, before New York opens, it is fresh.
NOW = "2013-03-04T13:00:00+00:00"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_job = pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def parameters_cells(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]


def test_every_cell_of_every_notebook_runs_on_the_sample(database, settings, loader):
    # Each with the login it has in the product: only jobs write. In the order of their names they fill the database.
    usual = {job.notebook for job in read_jobs(PROJECT).values() if not job.live and not job.on_request}
    jobs = [path for path in JOBS if path in usual]
    run_all_cells(jobs, DATABASE_URL=database.url(Role.LOADER), CHARTINSIGHT_HOME=str(settings.home))
    with loader.connect() as conn:
        filled = "SELECT (SELECT count(*) FROM live.candles), (SELECT count(*) FROM api.radar WHERE market = 'US')"
        assert conn.execute(text(filled)).one() == (12_154, 5)
    others = [path for path in NOTEBOOKS if path not in JOBS]
    run_all_cells(others, DATABASE_URL=database.url(Role.READER), CHARTINSIGHT_HOME=str(settings.home))


def test_every_cell_of_the_live_jobs_runs_on_a_simulated_market(database, settings, loader, tmp_path):
    clock = SimulatedClock(datetime(2026, 10, 13, 11, tzinfo=KST), speed=0, published=tmp_path / "clock")
    with SimulatorServer(GeneratedMarket(3, instruments=12), clock, SimulatorOptions(quota=10_000)) as server:
        simulated = {
            "now": f"@{tmp_path / 'clock'}", "kiwoom_url": server.url, "kiwoom_rate": 10_000.0, "kiwoom_years": 1,
            "kiwoom_appkey": SecretStr("simulated-appkey"), "kiwoom_secretkey": SecretStr("simulated-secretkey"),
        }  # fmt: skip
        here = settings.model_copy(update={"runs_dir": tmp_path / "runs", **simulated})
        jobs = [job for job in read_jobs(PROJECT).values() if not job.on_request]
        for job in jobs:
            told = {"market": "SIM"} if job.name == "scan_radar" else {"source": "simulated"}
            run = run_job(database, here, job, told)
            assert run.rows["expected" if job.name == "repair_gaps" else "read"] > 0
        live = [job.notebook for job in jobs if job.live or job.name == "collect_daily"]
        environment = here.for_children() | {"CHARTINSIGHT_SOURCE": "simulated"}
        run_all_cells(live, DATABASE_URL=database.url(Role.LOADER), CHARTINSIGHT_HOME=str(settings.home), **environment)


def run_all_cells(notebooks: list[Path], **environment: str) -> None:
    usual = {"CHARTINSIGHT_NOW": NOW, "CHARTINSIGHT_SOURCE": "sample", "JUPYTER_PREFER_ENV_PATH": "1"}
    usual["CHARTINSIGHT_RUNS_DIR"] = "/nonexistent"  # the copies of who runs the tests are not to be pruned
    environment = usual | environment
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-cell-timeout=120",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    done = subprocess.run(
        [*command, *map(str, notebooks)],
        cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    cells = sum(cell.cell_type == "code" for path in notebooks for cell in read(path).cells)
    assert f"{cells} passed" in done.stdout


def test_there_are_notebooks_of_all_three_kinds():
    assert {path.parent.name for path in NOTEBOOKS} == {"jobs", "research", "dashboards"}


def test_every_job_notebook_is_in_the_list_of_jobs():
    assert sorted({job.notebook for job in read_jobs(PROJECT).values()}) == JOBS


@each_notebook
def test_a_notebook_holds_no_outputs_and_no_counts(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
        assert set(cell.metadata) <= {"tags"}
    assert "widgets" not in read(path).metadata


@each_notebook
def test_a_notebook_asks_for_the_kernel_python3_and_is_valid(path):
    found = read(path)
    nbformat.validate(found)
    assert found.metadata.kernelspec.name == "python3"
    assert found.metadata.kernelspec.language == "python"


@each_notebook
def test_a_notebook_opens_with_a_title_and_defines_nothing(path):
    found = read(path)
    assert found.cells[0].cell_type == "markdown"
    assert found.cells[0].source.startswith("# ")
    for cell in found.cells:
        if cell.cell_type == "code":
            forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try)
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)]


@each_job
def test_a_job_has_one_cell_of_parameters_with_plain_types_and_literals(path):
    (source,) = parameters_cells(path)
    names = []
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.AnnAssign), "every parameter has a type"
        assert isinstance(statement.annotation, ast.Name), "papermill's parser understands plain names only"
        assert isinstance(statement.target, ast.Name)
        default = ast.literal_eval(statement.value)
        assert isinstance(default, TYPES[statement.annotation.id])
        names.append(statement.target.id)
    # The parser that checks a run's parameters sees the same.
    assert {name: found["inferred_type_name"] for name, found in papermill.inspect_notebook(str(path)).items()} == {
        statement.target.id: statement.annotation.id for statement in ast.parse(source).body
    }
    assert len(names) == len(set(names))


@each_job
def test_a_comment_of_a_parameter_says_what_it_is_and_holds_no_equals_sign(path):
    (source,) = parameters_cells(path)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    assert len(comments) == len(ast.parse(source).body)
    assert not [comment for comment in comments if "=" in comment]


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path not in JOBS], ids=lambda path: path.stem)
def test_only_jobs_have_parameters(path):
    assert parameters_cells(path) == []

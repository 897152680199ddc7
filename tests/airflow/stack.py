"""A whole Airflow on this machine: scheduler, DAG processor and API server, LocalExecutor, its metadata on a PostgreSQL.

It is set up by `pipelines/airflow/deploy.py`, as everywhere, and driven over its REST API, as a person's browser does.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from sqlalchemy import Engine, create_engine, text

from chartinsight_lib.processes import spawn, stop_group

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines" / "airflow"
Found = TypeVar("Found")
ENDED = {"success", "failed", "skipped", "removed", "upstream_failed"}


def until(what: str, look: Callable[[], Found | None], *, within_s: float) -> Found:
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {within_s:g} s")


@dataclass
class Airflow:
    """An Airflow that stands. `environment` is that of its processes; `meta` its own database."""

    environment: Mapping[str, str]
    programs: Path
    home: Path
    url: str
    meta: Engine
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, *command: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of its environment."""
        return subprocess.run(
            [self.programs / command[0], *command[1:]], env={**self.environment, **changes}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    @property
    def password(self) -> str:
        """What deploy.py made up."""
        return str(json.loads((self.home / "passwords.json").read_text())["admin"])

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask its REST API as the admin."""
        with httpx.Client(base_url=self.url, timeout=120, trust_env=False) as http:
            login = http.post("/auth/token", json={"username": "admin", "password": self.password})
            login.raise_for_status()
            bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
            reply = http.request(method, f"/api/v2/{path}", json=body, headers=bearer)
            assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
            return reply.json() if reply.content else None

    def trigger(self, job: str, **params: str) -> str:
        """Trigger a DAG as a person does; return the run's id."""
        return str(self.api("POST", f"dags/{job}/dagRuns", {"logical_date": None, "conf": params})["dag_run_id"])

    def task(self, job: str, run_id: str) -> dict[str, Any]:
        """Return the task of a DAG run."""
        return dict(self.api("GET", f"dags/{job}/dagRuns/{self.quoted(run_id)}/taskInstances/run"))

    @staticmethod
    def quoted(run_id: str) -> str:
        """Return a run's id, in which there is a + and colons, as a part of a path."""
        return quote(run_id, safe="")

    def running(self, *jobs: str) -> list[Any]:
        """Return the tasks of jobs that have not ended."""
        return self.rows(
            "SELECT dag_id FROM task_instance WHERE dag_id = ANY(:jobs) AND (state IS NULL OR state <> ALL(:ended))",
            jobs=list(jobs), ended=sorted(ENDED),
        )  # fmt: skip

    def ended(self, job: str, run_id: str, *, within_s: float = 900) -> str:
        """Wait for the end of a DAG run's task; return its state."""

        def look() -> str | None:
            state = self.task(job, run_id)["state"]
            return state if state in ENDED else None

        try:
            return until(f"{job} {run_id}", look, within_s=within_s)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.task(job, run_id)}\n{self.log_text(job, run_id)}") from None

    def clear(self, job: str, run_id: str) -> None:
        """Clear a task, as a person who wants it run again does."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": ["run"],
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self.api("POST", f"dags/{job}/clearTaskInstances", body)

    def log_text(self, job: str, run_id: str) -> str:
        """Return all that a task's log holds, of all its tries."""
        folder = self.home / "logs" / f"dag_id={job}" / f"run_id={run_id}" / "task_id=run"
        return "".join(path.read_text() for path in sorted(folder.glob("attempt=*.log")))

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Ask its database."""
        with self.meta.connect() as conn:
            return list(conn.execute(text(query), values))


@contextmanager
def standing(environment: Mapping[str, str], programs: Path, home: Path, port: int) -> Iterator[Airflow]:
    """Deploy an Airflow and start it; stop all of it at the end."""
    url = f"http://127.0.0.1:{port}"
    own = {
        **environment,
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{PIPELINES}",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__WORKERS": "1",
    }
    done = subprocess.run(
        [programs / "python", PIPELINES / "deploy.py"], env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = Airflow(own, programs, home, url, create_engine(own["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]))
    try:
        for part in ("api-server", "dag-processor", "scheduler"):
            with (home / f"{part}.out").open("wb") as log:
                found.processes.append(spawn([programs / "airflow", part], env=own, cwd=home, log=log))
        until("airflow answers", lambda: _healthy(url), within_s=300)
        yield found
    finally:
        for process in reversed(found.processes):
            stop_group(process, patience_s=20)
        found.meta.dispose()


def _healthy(url: str) -> bool | None:
    try:
        told = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    parts = ("metadatabase", "scheduler", "dag_processor")
    return True if all(told.get(part, {}).get("status") == "healthy" for part in parts) else None


def now() -> datetime:
    """The machine's time: Airflow knows no other."""
    return datetime.now(UTC)

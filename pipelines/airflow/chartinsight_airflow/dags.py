"""Makes the DAGs: one for each job of `pipelines/jobs.yaml`, which is read as data. No database, no network, no clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param

from chartinsight_airflow.child import WAIT_S
from chartinsight_airflow.rule import Rule
from chartinsight_airflow.task import RunJob
from chartinsight_airflow.timetable import SINCE_EVER, SlotTimetable
from chartinsight_lib.jobs import Job, read_list

MARGIN = timedelta(seconds=WAIT_S) + timedelta(minutes=2)
"""So much later than the job's own time limit Airflow ends a task: the runner's end is the orderly one."""
RETRIES, RETRY_DELAY = 3, timedelta(minutes=1)
"""For a task whose worker died or was never heard of. What failed for its own reasons is counted and timed in our database."""
LIVE = ("kiwoom", "simulated")


def build(project: Path, environ: Mapping[str, str]) -> dict[str, DAG]:
    """Return {job: its DAG}. Raises ConfigError, naming file, line and entry, for a wrong list."""
    market = environ.get("CHARTINSIGHT_MARKET") or "KRX"
    live = (environ.get("CHARTINSIGHT_SOURCE") or "simulated") in LIVE
    return {name: _dag(job, market, project, live) for name, job in read_list(project).jobs.items()}


def _dag(job: Job, market: str, project: Path, live: bool) -> DAG:
    rule = Rule.of(job) if job.schedule is not None and job.suits(market, live=live) else None
    text, declared = _notebook(job.notebook)
    params = {}
    if job.schedule is not None:
        params["slot"] = _param("date-time", "The slot to run, ISO 8601 with an offset; empty: a run without a slot.")
    if "as_of" in declared:
        params["as_of"] = _param("date", "The trading day to look at; empty: as the notebook says.")
    tags = {"chartinsight", market, *((job.pool,) if job.pool else ()), *(("live",) if job.live else ())}
    with DAG(
        job.name,
        description=text.splitlines()[0].lstrip("# ") if text else None,
        doc_md=f"{text}\n",  # what ends in .md would be taken for a file's name
        schedule=None if rule is None else SlotTimetable(market, rule),
        start_date=SINCE_EVER,
        catchup=rule is not None and rule.every_slot,
        max_active_runs=1,
        is_paused_upon_creation=False,  # the list of jobs says what runs
        params=params,
        tags=tags,
    ) as made:
        RunJob(
            task_id="run",
            job=job.name,
            market=market,
            project=project,
            rule=rule,
            pool=job.pool or "default_pool",
            retries=RETRIES,
            retry_delay=RETRY_DELAY,
            execution_timeout=timedelta(seconds=job.timeout_s) + MARGIN,
        )
    return made


def _param(form: str, says: str) -> Param:
    return Param(None, type=["null", "string"], format=form, description=says)


def _notebook(path: Path) -> tuple[str, set[str]]:
    """Return a notebook's first text and the names of its parameters; nothing of it is executed."""
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = next(("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"), "")
    told = next((cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", [])), [])
    return text, {line.partition(":")[0].strip() for line in "".join(told).splitlines() if ":" in line}

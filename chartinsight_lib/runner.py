"""Runs one notebook as one recorded run.

Parameters are checked against the notebook before anything starts. The notebook runs in a process group of its own (papermill
and its kernel), which dies with us and is killed at the time limit. The executed copy appears under `runs/` whole or not at
all, also when the run fails: it is where the error is read.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import nbformat
import papermill
import yaml
from sqlalchemy import Connection

from chartinsight_lib import ledger, slots
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, RunFailed, SlotRefused
from chartinsight_lib.jobs import Job
from chartinsight_lib.processes import kill_marked, spawn, stop_group
from chartinsight_lib.settings import PREFIX, Settings

RUN_ID = f"{PREFIX}RUN_ID"
NAME = re.compile(r"[a-z_][a-z0-9_]*")  # papermill pastes a parameter's name into the notebook as code
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list,),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run that succeeded: `output` is the executed notebook, `rows` the sums over its items."""

    run_id: UUID
    output: Path
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """Which slot a run is to be for; handed to `slots.claim`, which says what each means. `slot` is tz-aware."""

    slot: datetime
    by: str
    pools: Mapping[str, int] = field(default_factory=dict)
    waits_for: Mapping[str, datetime] = field(default_factory=dict)
    covers: tuple[datetime, ...] = ()
    again: bool = False


class Warm:
    """Keeps a process that has everything imported and waits for the next run. Use it in a `with`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End the process that waits."""

    def refill(self) -> None:
        """Start a process that waits, where there is none. Call it from a thread that lives as long as this process."""


def declared(notebook: Path) -> list[str]:
    """Return the names of a notebook's parameters, in its order."""
    return list(papermill.inspect_notebook(str(notebook)))


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError for a parameter the notebook does not have, of another type than it says, or not recordable."""
    known = papermill.inspect_notebook(str(notebook))
    for name, value in parameters.items():
        if not NAME.fullmatch(name) or name not in known:
            raise ConfigError(
                f"{notebook.name}: it has no parameter {name!r}. Its parameters are {', '.join(known) or 'none'}."
            )
        wanted = known[name]["inferred_type_name"]
        allowed = TYPES.get(wanted)
        if allowed is None:
            raise ConfigError(
                f"{notebook.name}: parameter {name} is declared as {wanted!r}; declare it as one of {', '.join(TYPES)}."
            )
        if not isinstance(value, allowed) or (isinstance(value, bool) and wanted != "bool"):
            raise ConfigError(
                f"{notebook.name}: parameter {name} must be {wanted}, and {value!r} is {type(value).__name__}."
            )
    try:
        written = json.dumps(dict(parameters), allow_nan=False, ensure_ascii=False).encode()
        if rb"\u0000" in written:
            raise ValueError("a NUL character")
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{notebook.name}: a parameter holds what a record cannot ({error}). Use plain text, numbers, true and false."
        ) from error


def parse_parameters(notebook: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Turn a person's NAME=VALUE texts into the types that the notebook declares. Raises ConfigError."""
    known = papermill.inspect_notebook(str(notebook))
    values: dict[str, Any] = {}
    for name, written in texts.items():
        declared = known.get(name, {}).get("inferred_type_name", "str")
        try:
            values[name] = written if declared == "str" else yaml.safe_load(written)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"{notebook.name}: parameter {name}: {written!r} cannot be read as {declared}."
            ) from error
    check_parameters(notebook, values)
    return values


def run_job(
    database: Database,
    settings: Settings,
    job: Job,
    parameters: Mapping[str, Any],
    *,
    engine: str = "person",
    market: str | None = None,
    slot: SlotRequest | None = None,
    warm: Warm | None = None,
    stop: threading.Event | None = None,
    replay_of: UUID | None = None,
) -> Run:
    """Run a job's notebook and record it.

    Args:
        parameters: beside those that the job sets itself, and before them.
        engine: what starts it: person, up, scheduler or airflow.
        slot: for which slot of `market` it is; it is claimed, and settled when the run has ended.
        stop: when set, the run is interrupted.
        replay_of: the run of which this one is a repetition.
    Raises:
        ConfigError: a parameter is unknown or ill-typed, or the runs folder cannot be written; nothing was started.
        SlotRefused: the slot is not to be run, or not now; a skip is recorded.
        RunFailed: the notebook failed or took too long; the message names cell, error and executed copy.
    """
    told = {**job.parameters, **parameters}
    check_parameters(job.notebook, told)
    clock, run_id = settings.clock, uuid4()
    folder = _folder(settings.runs / job.name)
    output = folder / f"{clock():%Y%m%dT%H%M%SZ}-{run_id.hex[:8]}.ipynb"
    pool = database.engine(Role.LOADER)
    try:
        with pool.connect() as conn:
            with conn.begin():
                refusal, attempt = _claim(conn, job, market, slot, run_id, clock())
                if refusal is None:
                    stamp = ledger.Stamp(
                        engine=engine, market=market, slot=slot.slot if slot else None, attempt=attempt, replay_of=replay_of,
                        limit_s=job.timeout_s + 60,
                    )  # fmt: skip
                    ledger.begin(conn, run_id=run_id, job=job.name, parameters=told, clock=clock, stamp=stamp)
            if refusal is not None:
                raise SlotRefused(f"{job.name}: {refusal.reason}.", why=refusal.why, reason=refusal.reason)
            try:
                error = _execute(job, told, output, _environment(database, settings, run_id), settings.project)
            except BaseException as interruption:
                reason = f"interrupted: {type(interruption).__name__}"
                with conn.begin():
                    ledger.finish(conn, run_id, state="failed", clock=clock, output=_kept(output), error=reason)
                    slots.settle(conn, run_id, slots.Outcome.LOST, now=clock(), reason=reason)
                raise
            with conn.begin():
                state = "failed" if error else "succeeded"
                rows = ledger.finish(conn, run_id, state=state, clock=clock, output=_kept(output), error=error)
                outcome = slots.Outcome.FAILED if error else slots.Outcome.SUCCEEDED
                after = timedelta(seconds=job.retry_after_s)
                slots.settle(conn, run_id, outcome, now=clock(), reason=error, retry_after=after)
    finally:
        pool.dispose()
    if error:
        kept = f" The executed copy: {output}" if _kept(output) else ""
        raise RunFailed(f"{job.name}: {error}{kept}", run_id=run_id)
    return Run(run_id, output, rows)


def _claim(
    conn: Connection, job: Job, market: str | None, wanted: SlotRequest | None, run_id: UUID, now: datetime
) -> tuple[slots.Refusal | None, int]:
    if wanted is None:
        return None, 1
    if market is None:
        raise ConfigError(f"{job.name}: a slot is one of a market. Name the market.")
    found = slots.claim(
        conn, job, market, wanted.slot, run_id=run_id, now=now, by=wanted.by, pools=wanted.pools,
        waits_for=wanted.waits_for, covers=wanted.covers, again=wanted.again,
    )  # fmt: skip
    return (found, 0) if isinstance(found, slots.Refusal) else (None, found.attempt)


def discard_unfinished(runs: Path, run_id: UUID) -> None:
    """Remove what a run that died left half written; an executed copy that is whole stays."""
    for ending in ("part.ipynb", "result.json"):
        for path in runs.glob(f"*/*-{run_id.hex[:8]}.{ending}"):
            path.unlink(missing_ok=True)


def _kept(output: Path) -> str | None:
    return str(output) if output.exists() else None


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"runs: {path} cannot be made ({error.strerror}). Set CHARTINSIGHT_RUNS_DIR to a folder you may write."
        ) from error
    return path


def _environment(database: Database, settings: Settings, run_id: UUID) -> dict[str, str]:
    """What a job's kernel sees: the process's environment, with the loader's address instead of the login's."""
    return {
        **os.environ,
        **settings.for_children(),
        "DATABASE_URL": database.url(Role.LOADER),
        f"{PREFIX}HOME": str(settings.home),
        RUN_ID: str(run_id),
        "JUPYTER_PREFER_ENV_PATH": "1",  # a kernel of this environment, whatever kernels the user has installed elsewhere
        "PYTHONWARNINGS": "ignore::RuntimeWarning:platformdirs",
    }


def _execute(
    job: Job, parameters: Mapping[str, Any], output: Path, environment: Mapping[str, str], project: Path
) -> str | None:
    """Run papermill in a process group of its own; return what went wrong, or None."""
    part, result = output.with_suffix(".part.ipynb"), output.with_suffix(".result.json")
    sockets = Path(tempfile.mkdtemp(prefix="ci-"))  # the kernel's, for this run alone
    order = {
        "notebook": str(job.notebook), "output": str(part), "result": str(result), "parameters": dict(parameters),
        "timeout_s": job.timeout_s, "cwd": str(project), "sockets": str(sockets),
    }  # fmt: skip
    log = output.with_suffix(".log")
    try:
        with log.open("wb") as out:
            process = spawn(
                [sys.executable, "-m", "chartinsight_lib.papermill_child"],
                env=environment,
                cwd=project,
                log=out,
                stdin=subprocess.PIPE,
            )
            try:
                process.communicate(json.dumps(order).encode(), timeout=job.timeout_s)
            except subprocess.TimeoutExpired:
                return f"stopped: it ran longer than its {job.timeout_s} s."
            finally:
                stop_group(process)
                kill_marked(RUN_ID, environment[RUN_ID])
        outcome = (
            json.loads(result.read_text(encoding="utf-8"))
            if result.exists()
            else {"error": _died(process.returncode, log)}
        )
    finally:
        _publish(part, output)
        result.unlink(missing_ok=True)
        shutil.rmtree(sockets, ignore_errors=True)
        if log.exists() and not log.stat().st_size:
            log.unlink()
    error = outcome["error"]
    return None if error is None else str(error)


def _died(code: int, log: Path) -> str:
    tail = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
    return f"the notebook's process died (exit code {code}). {tail}"


def _publish(part: Path, output: Path) -> None:
    """Give the executed copy its name once it is whole; one that was cut off by a kill is dropped."""
    try:
        nbformat.read(part, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        part.unlink(missing_ok=True)
        return
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(output)

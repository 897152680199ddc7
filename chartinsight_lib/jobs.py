"""Reads `pipelines/jobs.yaml`, the one list of jobs: which notebook, when, how long, after which others, and what if it fails.

A wrong entry is refused with its line. The same list is run by `up` and `scheduler` on one machine, and by Airflow on many.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from chartinsight_lib.errors import ConfigError, NotFound
from chartinsight_lib.schedule import Schedule, parse_schedule

NAME = re.compile(r"[a-z][a-z0-9_]*")  # a job's name is a folder's name under runs/
POOL = "kiwoom_api_pool"
"""The pool of the jobs that ask a broker; so it is called in Airflow, too."""

CatchUp = Literal["latest", "all"]
After = Literal["succeeded", "ended"]
NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Job:
    """A notebook that is run by name.

    `notebook` is absolute. `parameters` are set on every run, beside what a run brings along. Limits: `timeout_s` bounds the
    whole run, `cell_timeout_s` one cell (None: the run's), `start_timeout_s` the kernel's start, `memory_mb` what the run's
    processes hold together. A run that failed for a reason that may pass is tried `retries` times again, first after
    `retry_after_s`, then twice as long after each.

    `catch_up` says what becomes of slots that passed while nothing ran: `latest`, one run stands for all of them; `all`, each
    has its run. A slot of which more than `within_min` minutes have passed is left out, and said to be. `after` names jobs
    whose slot of the same day must have succeeded, or ended, before. `needs` names settings without which a slot is skipped.
    A `live` job needs a source that knows the running day; one that is `real` is not run by the clock of a made-up market; one
    `on_request` is never part of `up --once`.
    """

    name: str
    notebook: Path
    timeout_s: int
    live: bool = False
    on_request: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    pool: str | None = None
    cell_timeout_s: int | None = None
    start_timeout_s: int = 180
    memory_mb: int = 4096
    retries: int = 0
    retry_after_s: int = 60
    catch_up: CatchUp = "latest"
    within_min: int | None = None
    after: Mapping[str, After] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    real: bool = False

    def suits(self, market: str, *, live: bool) -> bool:
        """Whether it is run when it is due, on a market and a source that knows the running day, or does not."""
        return (live or not self.live) and not (self.real and market == "SIM")


@dataclass(frozen=True, slots=True)
class JobList:
    """What the file says: the jobs by name in its order, and how many runs of a pool may be under way at a time."""

    jobs: Mapping[str, Job]
    pools: Mapping[str, int]


def read_list(project: Path) -> JobList:
    """Return the jobs and pools of a checkout. Raises ConfigError, naming file, line and entry."""
    path = project / "pipelines" / "jobs.yaml"
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except FileNotFoundError as error:
        raise ConfigError(
            f"jobs: {path} does not exist. Run from the checkout, or set CHARTINSIGHT_PROJECT to it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"jobs: {path} cannot be read ({error}). Expected a text file in UTF-8.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"jobs: {path} is not YAML: {' '.join(str(error).split())}.") from error
    for line, what in _twice(root):
        raise ConfigError(f"jobs: {path}:{line}: {what!r} stands twice.")
    content = yaml.SafeLoader.construct_document(yaml.SafeLoader(""), root) if root is not None else None
    if not isinstance(content, dict) or not isinstance(content.get("jobs"), dict) or not content["jobs"]:
        raise ConfigError(f"jobs: {path} lists no jobs. Expected jobs: NAME: {{notebook: …, timeout_s: …}}.")
    try:
        read = _File.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_said(path, root, error)) from None
    jobs = {name: _job(path, project, root, name, entry, read) for name, entry in read.jobs.items()}
    _check_order(path, root, jobs)
    return JobList(jobs, dict(read.pools))


def read_jobs(project: Path) -> dict[str, Job]:
    """Return the jobs by name, in the order of the file. Raises ConfigError, naming file, line and entry."""
    return dict(read_list(project).jobs)


def find_job(project: Path, name: str) -> Job:
    """Return one job. Raises NotFound, naming those there are."""
    jobs = read_jobs(project)
    if name not in jobs:
        raise NotFound(f"job {name!r}: there is none of this name. Known are {', '.join(jobs)}.")
    return jobs[name]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Seconds = Annotated[int, Field(ge=1)]
JobName = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]


class _Entry(_Strict):
    notebook: str
    timeout_s: Seconds
    live: bool = False
    on_request: bool = False
    parameters: dict[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")], Any] = Field(default_factory=dict)
    schedule: Schedule | None = None
    pool: str | None = None
    cell_timeout_s: Seconds | None = None
    start_timeout_s: Seconds = 180
    memory_mb: Annotated[int, Field(ge=128)] = 4096
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    retry_after_s: Seconds = 60
    catch_up: CatchUp = "latest"
    within_min: Annotated[int, Field(ge=1)] | None = None
    after: dict[str, After] = Field(default_factory=dict)
    needs: list[Literal["dart_key", "watchlist"]] = Field(default_factory=list)
    real: bool = False

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule(cls, told: Any) -> Schedule | None:
        return None if told is None else parse_schedule(told)


class _File(_Strict):
    jobs: dict[JobName, _Entry]
    pools: dict[JobName, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)


def _job(path: Path, project: Path, root: yaml.Node, name: str, entry: _Entry, read: _File) -> Job:
    notebook = project / entry.notebook
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        raise ConfigError(
            f"jobs: {path}:{_line(root, ('jobs', name, 'notebook'))}: {name}: notebook {notebook} does not exist. Expected an "
            f".ipynb file, its path as seen from {project}."
        )
    if entry.pool is not None and entry.pool not in read.pools:
        raise ConfigError(
            f"jobs: {path}:{_line(root, ('jobs', name, 'pool'))}: {name}: there is no pool {entry.pool!r}. "
            f"Known are {', '.join(read.pools) or 'none'}; list it under pools: with how many runs it allows at a time."
        )
    told = {key: getattr(entry, key) for key in type(entry).model_fields if key not in {"notebook", "needs"}}
    return Job(name=name, notebook=notebook, needs=tuple(entry.needs), **told)


def _check_order(path: Path, root: yaml.Node, jobs: Mapping[str, Job]) -> None:
    """A job comes after those it waits for: so nothing waits in a circle, and one pass through the file runs all."""
    seen: set[str] = set()
    for name, job in jobs.items():
        for other in job.after:
            if other not in seen:
                why = "stands below it" if other in jobs and other != name else "is no other job of the list"
                raise ConfigError(
                    f"jobs: {path}:{_line(root, ('jobs', name, 'after'))}: {name}: it is to run after {other!r}, which {why}. "
                    "Name jobs that stand above it."
                )
        seen.add(name)


def _said(path: Path, root: yaml.Node, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = tuple(part for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        owner = _Entry if len(place) == 3 and place[0] == "jobs" else _File
        what = f"is not known here. Known are {', '.join(owner.model_fields)}"
    elif first["type"] == "missing":
        what = "is missing"
    elif first["type"] == "model_type":
        what = f"expected {{notebook: …, timeout_s: …}}; found {first['input']!r}"
    elif first["type"] == "string_pattern_mismatch":
        what = "is no name: use a to z, 0 to 9 and _, a letter first"
    else:
        what = f"{first['msg'].removeprefix('Value error, ')}; found {first['input']!r}"
    return f"jobs: {path}:{_line(root, place)}: {'.'.join(map(str, place))}: {what.rstrip('.')}."


def _line(root: yaml.Node, place: tuple[Any, ...]) -> int:
    """Return the line, from 1, of what stands at a place; of what is around it where it is not there."""
    node, line = root, root.start_mark.line
    for part in place:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [(key, value) for key, value in pairs if key.value == str(part)]
        if not found:
            break
        line, node = found[0][0].start_mark.line, found[0][1]
    return int(line) + 1


def _twice(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield keys that stand twice in one mapping, where YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value)

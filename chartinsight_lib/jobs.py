"""Reads `pipelines/jobs.yaml`, the one list of jobs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chartinsight_lib.errors import ConfigError, NotFound

NAME = re.compile(r"[a-z][a-z0-9_]*")  # a job's name is a folder's name under runs/
FIELDS = ("notebook", "timeout_s")
MAY_HAVE = ("live", "on_request")


@dataclass(frozen=True, slots=True)
class Job:
    """A notebook that is run by name. `notebook` is absolute; `timeout_s` bounds the whole run, seconds; a `live` one needs a
    source that knows the running day; one `on_request` is run by its name alone, because it needs a key that not everybody has."""

    name: str
    notebook: Path
    timeout_s: int
    live: bool = False
    on_request: bool = False


def read_jobs(project: Path) -> dict[str, Job]:
    """Return the jobs by name, in the order of the file. Raises ConfigError, naming file and entry."""
    path = project / "pipelines" / "jobs.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise ConfigError(
            f"jobs: {path} does not exist. Run from the checkout, or set CHARTINSIGHT_PROJECT to it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"jobs: {path} cannot be read ({error}). Expected a text file in UTF-8.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"jobs: {path} is not YAML: {' '.join(str(error).split())}.") from error
    listed = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise ConfigError(f"jobs: {path} lists no jobs. Expected jobs: NAME: {{notebook: …, timeout_s: …}}.")
    return {name: _job(path, project, name, entry) for name, entry in listed.items()}


def find_job(project: Path, name: str) -> Job:
    """Return one job. Raises NotFound, naming those there are."""
    jobs = read_jobs(project)
    if name not in jobs:
        raise NotFound(f"job {name!r}: there is none of this name. Known are {', '.join(jobs)}.")
    return jobs[name]


def _job(path: Path, project: Path, name: Any, entry: Any) -> Job:
    def wrong(what: str) -> ConfigError:
        return ConfigError(f"jobs: {path}: {name}: {what}")

    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise wrong("a job's name is made of a to z, 0 to 9 and _, a letter first.")
    if not isinstance(entry, dict) or not set(FIELDS) <= entry.keys() <= {*FIELDS, *MAY_HAVE}:
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise wrong(f"expected {' and '.join(FIELDS)}, and perhaps {', '.join(MAY_HAVE)}; found {found or 'nothing'}.")
    timeout_s = entry["timeout_s"]
    if not isinstance(timeout_s, int) or isinstance(timeout_s, bool) or timeout_s < 1:
        raise wrong(f"timeout_s must be a whole number of seconds, 1 or more, and {timeout_s!r} is not.")
    for switch in MAY_HAVE:
        if not isinstance(value := entry.get(switch, False), bool):
            raise wrong(f"{switch} must be true or false, and {value!r} is neither.")
    notebook = project / str(entry["notebook"])
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        raise wrong(f"notebook {notebook} does not exist. Expected an .ipynb file, its path as seen from {project}.")
    return Job(name, notebook, timeout_s, **{switch: entry.get(switch, False) for switch in MAY_HAVE})


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses a key that stands twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep=deep))

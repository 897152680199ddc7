"""The list of jobs: what is wrong in it is said with the file and the entry."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chartinsight_lib.errors import ConfigError, NotFound
from chartinsight_lib.jobs import Job, find_job, read_jobs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a project with two empty notebooks and the given list of jobs."""

    def make(listed: str | bytes) -> Path:
        (tmp_path / "pipelines").mkdir()
        (tmp_path / "notebooks").mkdir()
        for name in ("a.ipynb", "b.ipynb"):
            (tmp_path / "notebooks" / name).write_text("{}")
        content = listed if isinstance(listed, bytes) else listed.encode()
        (tmp_path / "pipelines" / "jobs.yaml").write_bytes(content)
        return tmp_path

    return make


TWO = """
jobs:
  second_by_name:
    notebook: notebooks/b.ipynb
    timeout_s: 600
  first_by_name:
    notebook: notebooks/a.ipynb
    timeout_s: 60
"""


def test_jobs_are_read_in_the_order_of_the_file(project):
    place = project(TWO)
    assert list(read_jobs(place).values()) == [
        Job("second_by_name", place / "notebooks" / "b.ipynb", 600),
        Job("first_by_name", place / "notebooks" / "a.ipynb", 60),
    ]


def test_the_projects_own_jobs_run_instruments_then_candles_then_the_running_day_then_the_scan():
    assert list(read_jobs(ROOT)) == [
        *("sync_instruments", "collect_daily", "collect_quotes", "collect_intraday", "repair_gaps", "scan_radar"),
        "collect_financials",
    ]
    assert [job.name for job in read_jobs(ROOT).values() if job.on_request] == ["collect_financials"]
    assert [job.name for job in read_jobs(ROOT).values() if job.live] == ["collect_quotes", "collect_intraday"]


def test_an_unknown_job_names_those_that_are_known(project):
    with pytest.raises(NotFound) as refusal:
        find_job(project(TWO), "third")
    assert str(refusal.value) == ("job 'third': there is none of this name. Known are second_by_name, first_by_name.")


def test_without_a_list_the_setting_that_finds_it_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"jobs\.yaml does not exist.*CHARTINSIGHT_PROJECT"):
        read_jobs(tmp_path)


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ("", "lists no jobs. Expected jobs: NAME: {notebook: …, timeout_s: …}."),
        ("jobs:\n", "lists no jobs. Expected jobs: NAME: {notebook: …, timeout_s: …}."),
        ("jobs: [scan]\n", "lists no jobs. Expected jobs: NAME: {notebook: …, timeout_s: …}."),
        ("- scan\n", "lists no jobs. Expected jobs: NAME: {notebook: …, timeout_s: …}."),
        ("jobs: {scan: [\n", "is not YAML: while parsing a flow node expected the node content"),
        (b"jobs: \xff\n", "cannot be read ('utf-8' codec can't decode byte 0xff in position 6"),
    ],
)
def test_a_file_that_is_no_list_of_jobs_is_named(project, listed, sentence):
    place = project(listed)
    with pytest.raises(ConfigError) as refusal:
        read_jobs(place)
    assert str(refusal.value).startswith(f"jobs: {place / 'pipelines' / 'jobs.yaml'} {sentence}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            "scan: {notebook: notebooks/a.ipynb}",
            "scan: expected notebook and timeout_s, and perhaps live, on_request; found notebook.",
        ),
        ("scan:", "scan: expected notebook and timeout_s, and perhaps live, on_request; found None."),
        (
            "scan: notebooks/a.ipynb",
            "scan: expected notebook and timeout_s, and perhaps live, on_request; found 'notebooks/a.ipynb'.",
        ),
        (
            "scan: {notebook: notebooks/a.ipynb, timeout_s: 60, retires: 3}",
            "scan: expected notebook and timeout_s, and perhaps live, on_request; found notebook, timeout_s, retires.",
        ),
        (
            "scan: {notebook: notebooks/a.ipynb, timeout_s: soon}",
            "scan: timeout_s must be a whole number of seconds, 1 or more, and 'soon' is not.",
        ),
        (
            "scan: {notebook: notebooks/a.ipynb, timeout_s: 0}",
            "scan: timeout_s must be a whole number of seconds, 1 or more, and 0 is not.",
        ),
        (
            "scan: {notebook: notebooks/a.ipynb, timeout_s: yes}",
            "scan: timeout_s must be a whole number of seconds, 1 or more, and True is not.",
        ),
        (
            "scan: {notebook: notebooks/a.ipynb, timeout_s: 60, on_request: 1}",
            "scan: on_request must be true or false, and 1 is neither.",
        ),
        ("../scan: {notebook: notebooks/a.ipynb, timeout_s: 60}", "../scan: a job's name is made of a to z,"),
        ("1: {notebook: notebooks/a.ipynb, timeout_s: 60}", "1: a job's name is made of a to z,"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(project, entry, sentence):
    place = project(f"jobs:\n  {entry}\n")
    with pytest.raises(ConfigError) as refusal:
        read_jobs(place)
    assert str(refusal.value).startswith(f"jobs: {place / 'pipelines' / 'jobs.yaml'}: {sentence}")


@pytest.mark.parametrize("notebook", ["notebooks/c.ipynb", "notebooks", "pipelines/jobs.yaml"])
def test_a_notebook_that_does_not_exist_is_named_with_its_entry(project, notebook):
    place = project(f"jobs:\n  scan: {{notebook: {notebook}, timeout_s: 60}}\n")
    with pytest.raises(ConfigError) as refusal:
        read_jobs(place)
    assert f"jobs.yaml: scan: notebook {place / notebook} does not exist." in str(refusal.value)


def test_a_job_that_stands_twice_is_refused_instead_of_the_last_being_taken(project):
    entry = "  scan: {notebook: notebooks/a.ipynb, timeout_s: 60}\n"
    place = project("jobs:\n" + entry + entry)
    with pytest.raises(ConfigError, match=r"jobs\.yaml is not YAML: 'scan' stands twice"):
        read_jobs(place)

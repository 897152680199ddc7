"""The list of jobs: what is wrong in it is said with the file and the entry."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from chartinsight_lib.errors import ConfigError, NotFound
from chartinsight_lib.jobs import Job, find_job, read_jobs, read_list
from chartinsight_lib.runner import check_parameters
from chartinsight_lib.schedule import At, Moment

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


SCAN = "scan: {notebook: notebooks/a.ipynb"
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
    once = [job.name for job in read_jobs(ROOT).values() if not job.on_request]
    assert once[:6] == [
        *("sync_instruments", "collect_daily", "collect_quotes", "collect_intraday", "repair_gaps", "scan_radar"),
    ]
    assert [job.name for job in read_jobs(ROOT).values() if job.live] == [
        *("collect_quotes", "collect_intraday", "official_closes"),
    ]


@pytest.mark.parametrize(
    ("told", "market", "live", "suits"),
    [
        ({}, "SIM", False, True),
        ({"live": True}, "KRX", False, False),
        ({"live": True}, "KRX", True, True),
        ({"real": True}, "SIM", True, False),
        ({"real": True}, "KRX", False, True),
    ],
)
def test_a_job_is_run_by_the_clock_where_its_market_and_source_suit_it(told, market, live, suits):
    assert Job("job", Path("job.ipynb"), 60, **told).suits(market, live=live) is suits


def test_the_projects_own_jobs_set_only_parameters_that_their_notebooks_have():
    for job in read_jobs(ROOT).values():
        check_parameters(job.notebook, job.parameters)


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
        ("scan: {notebook: notebooks/a.ipynb}", "2: jobs.scan.timeout_s: is missing."),
        ("scan:", "2: jobs.scan: expected {notebook: …, timeout_s: …}; found None."),
        (
            "scan: notebooks/a.ipynb",
            "2: jobs.scan: expected {notebook: …, timeout_s: …}; found 'note",
        ),
        (
            "scan:\n    notebook: notebooks/a.ipynb\n    timeout_s: 60\n    retires: 3",
            "5: jobs.scan.retires: is not known here. Known are notebook, timeout_s, live, on_request, parameters,",
        ),
        (
            "scan:\n    notebook: notebooks/a.ipynb\n    timeout_s: soon",
            "4: jobs.scan.timeout_s: Input should be a valid integer; found 'soon'.",
        ),
        (f"{SCAN}, timeout_s: 0}}", "2: jobs.scan.timeout_s: Input should be greater than or equal to 1; found 0."),
        (f"{SCAN}, timeout_s: yes}}", "2: jobs.scan.timeout_s: Input should be a valid integer; found True."),
        (
            f"{SCAN}, timeout_s: 60, on_request: 1}}",
            "2: jobs.scan.on_request: Input should be a valid boolean; found 1.",
        ),
        (
            f"{SCAN}, timeout_s: 60, catch_up: none}}",
            "2: jobs.scan.catch_up: Input should be 'latest' or 'all'; found 'none'.",
        ),
        (
            "scan:\n    notebook: notebooks/a.ipynb\n    timeout_s: 60\n    schedule: {at: noon}",
            "5: jobs.scan.schedule: 'noon' is no moment of a day. Expected begin, open, close, end, and minutes, as in open-30; "
            "found {'at': 'noon'}.",
        ),
        (
            f"{SCAN}, timeout_s: 60, pool: kiwoom}}",
            "2: scan: there is no pool 'kiwoom'. Known are none; list it under pools:",
        ),
        (
            f"{SCAN}, timeout_s: 60, after: {{collect: ended}}}}",
            "2: scan: it is to run after 'collect', which is no other job",
        ),
        (
            f"{SCAN}, timeout_s: 60, after: {{scan: ended}}}}",
            "2: scan: it is to run after 'scan', which is no other job",
        ),
        (
            f"{SCAN}, timeout_s: 60, after: {{late: ended}}}}\n  late: {{notebook: notebooks/b.ipynb, timeout_s: 1}}",
            "2: scan: it is to run after 'late', which stands below it. Name jobs that stand above it.",
        ),
        (
            f"{SCAN}, timeout_s: 60, parameters: {{'a\\nb': 1}}}}",
            "2: jobs.scan.parameters.a\\nb: is no name: use a to z, 0 to 9",
        ),
        (
            "../scan: {notebook: notebooks/a.ipynb, timeout_s: 60}",
            "2: jobs.../scan: is no name: use a to z, 0 to 9 and _, a",
        ),
        ("1: {notebook: notebooks/a.ipynb, timeout_s: 60}", "2: jobs.1: Input should be a valid string; found 1."),
    ],
)
def test_a_wrong_entry_is_named_with_its_file_and_line(project, entry, sentence):
    place = project(f"jobs:\n  {entry}\n")
    with pytest.raises(ConfigError) as refusal:
        read_jobs(place)
    assert str(refusal.value).startswith(f"jobs: {place / 'pipelines' / 'jobs.yaml'}:{sentence}")


@pytest.mark.parametrize("notebook", ["notebooks/c.ipynb", "notebooks", "pipelines/jobs.yaml"])
def test_a_notebook_that_does_not_exist_is_named_with_its_entry(project, notebook):
    place = project(f"jobs:\n  scan:\n    timeout_s: 60\n    notebook: {notebook}\n")
    with pytest.raises(ConfigError) as refusal:
        read_jobs(place)
    assert f"jobs.yaml:4: scan: notebook {place / notebook} does not exist." in str(refusal.value)


def test_a_job_that_stands_twice_is_refused_instead_of_the_last_being_taken(project):
    entry = "  scan: {notebook: notebooks/a.ipynb, timeout_s: 60}\n"
    place = project("jobs:\n" + entry + entry)
    with pytest.raises(ConfigError, match=r"jobs\.yaml:3: 'scan' stands twice\."):
        read_jobs(place)


def test_everything_that_an_entry_may_say_is_read(project):
    place = project(
        "pools: {broker: 2}\n"
        "jobs:\n"
        "  first: {notebook: notebooks/b.ipynb, timeout_s: 1}\n"
        "  scan: {notebook: notebooks/a.ipynb, timeout_s: 60, cell_timeout_s: 30, start_timeout_s: 20, memory_mb: 512,\n"
        "         schedule: {at: close+75}, pool: broker, retries: 2, retry_after_s: 5, catch_up: all, within_min: 90,\n"
        "         after: {first: succeeded}, needs: [dart_key], live: true, real: true, on_request: true, parameters: {top: 3}}\n"
    )
    listed = read_list(place)
    assert listed.pools == {"broker": 2}
    assert listed.jobs["scan"] == Job(
        name="scan", notebook=place / "notebooks" / "a.ipynb", timeout_s=60, cell_timeout_s=30, start_timeout_s=20,
        memory_mb=512, schedule=At(Moment("close", timedelta(minutes=75))), pool="broker", retries=2, retry_after_s=5,
        catch_up="all", within_min=90, after={"first": "succeeded"}, needs=("dart_key",), live=True, real=True, on_request=True,
        parameters={"top": 3},
    )  # fmt: skip

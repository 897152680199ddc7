"""What Airflow runs is right without an Airflow: which slot is next, what the task's program is told, the files themselves.

The rest is shown on a real one, by tests/airflow.
"""

import ast
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import make_url

from chartinsight_lib.calendars import calendar
from chartinsight_lib.errors import BeyondHorizon
from chartinsight_lib.jobs import read_list
from chartinsight_lib.schedule import parse_schedule

ROOT = Path(__file__).parents[2]
AIRFLOW = ROOT / "pipelines" / "airflow"
sys.path.append(str(AIRFLOW))

from chartinsight_airflow import child  # noqa: E402
from chartinsight_airflow.rule import Rule, next_run, stands_in  # noqa: E402

KRX = calendar("KRX")
SOURCES = {path.relative_to(AIRFLOW).as_posix(): ast.parse(path.read_text()) for path in sorted(AIRFLOW.rglob("*.py"))}
JOBS = read_list(ROOT).jobs


def at(written):
    """A moment of the market."""
    return datetime.fromisoformat(written).replace(tzinfo=KRX.zone)


def rule(every_slot=False, within_min=None, **schedule):
    within = None if within_min is None else timedelta(minutes=within_min)
    return Rule(parse_schedule({name.removesuffix("_"): told for name, told in schedule.items()}), every_slot, within)


CLOSE = {"at": "close+30"}  # 16:00
DURING = {"every": 30, "from_": "open", "until": "close"}  # 09:00, 09:30 … 15:30

# --- which slot is next ---------------------------------------------------------------------------


def test_the_last_slot_of_a_day_is_run_on_that_day():
    # As the interval before the next slot, which is how Airflow's cron schedules run, it would start on the next morning.
    assert next_run(rule(**DURING), KRX, now=at("2026-11-24 15:31"), last=at("2026-11-24 15:00")) == at(
        "2026-11-24 15:30"
    )


def test_a_slot_is_named_before_it_comes():
    assert next_run(rule(**DURING), KRX, now=at("2026-11-24 15:31"), last=at("2026-11-24 15:30")) == at(
        "2026-11-25 09:00"
    )


def test_a_holiday_has_no_slot():
    # Friday 2026-12-25 is Christmas.
    assert next_run(rule(**CLOSE), KRX, now=at("2026-12-24 17:00"), last=at("2026-12-24 16:00")) == at(
        "2026-12-28 16:00"
    )


def test_on_the_day_of_the_exam_a_slot_is_an_hour_later():
    # Thursday 2026-11-19: 10:00 to 16:30.
    assert next_run(rule(**CLOSE), KRX, now=at("2026-11-18 17:00"), last=at("2026-11-18 16:00")) == at(
        "2026-11-19 17:00"
    )


def test_after_three_days_off_the_newest_slot_stands_for_all():
    # 2026-11-20 to 24: Friday, Monday, Tuesday.
    assert next_run(rule(**CLOSE), KRX, now=at("2026-11-24 20:00"), last=at("2026-11-19 17:00")) == at(
        "2026-11-24 16:00"
    )


def test_after_three_days_off_each_slot_has_its_run_where_the_rule_says_so():
    found, last = [], at("2026-11-19 17:00")
    for _ in range(4):
        last = next_run(rule(every_slot=True, **CLOSE), KRX, now=at("2026-11-24 20:00"), last=last)
        found.append(f"{last:%m-%d}")
    assert found == ["11-20", "11-23", "11-24", "11-25"]


@pytest.mark.parametrize("every_slot", [False, True])
def test_a_job_that_never_ran_begins_with_its_newest_slot_and_not_with_the_past(every_slot):
    assert next_run(rule(every_slot, **CLOSE), KRX, now=at("2026-11-24 15:00")) == at("2026-11-23 16:00")


@pytest.mark.parametrize(("now", "found"), [("16:29", "2026-11-24 16:00"), ("16:31", "2026-11-25 16:00")])
def test_a_slot_for_which_it_is_too_late_is_passed_over(now, found):
    late = rule(within_min=30, **CLOSE)
    assert next_run(late, KRX, now=at(f"2026-11-24 {now}"), last=at("2026-11-20 16:00")) == at(found)


def test_a_range_that_a_person_asks_for_is_run_from_end_to_end_however_old():
    bounds = {"earliest": at("2026-01-05 16:00"), "latest": at("2026-01-07 16:00"), "every_slot": True}
    found, now = [], at("2026-11-24 20:00")
    while (
        slot := next_run(rule(within_min=30, **CLOSE), KRX, now=now, last=found[-1] if found else None, **bounds)
    ) is not None:
        found.append(slot)
    assert found == [at("2026-01-05 16:00"), at("2026-01-06 16:00"), at("2026-01-07 16:00")]


def test_nothing_is_run_after_the_end_of_the_calendar():
    last = KRX.session(KRX.days(KRX.first, KRX.horizon)[-1].item()).closes + timedelta(minutes=30)
    with pytest.raises(BeyondHorizon, match="Update ChartInsight Studio"):
        next_run(rule(**CLOSE), KRX, now=last, last=last)


@pytest.mark.parametrize(
    ("every_slot", "now", "newer"),
    [
        (False, "2026-11-24 15:00", None),
        (False, "2026-11-24 16:00", "2026-11-24 16:00"),
        (True, "2026-11-24 16:00", None),
    ],
)
def test_a_run_that_had_to_wait_until_the_next_slot_leaves_it_to_that_one(every_slot, now, newer):
    found = stands_in(rule(every_slot, **CLOSE), KRX, at("2026-11-23 16:00"), at(now))
    assert found == (None if newer is None else at(newer))


@pytest.mark.parametrize("name", [name for name, job in JOBS.items() if job.schedule is not None])
def test_a_rule_outlives_being_stored_by_airflow(name):
    assert Rule.from_json(Rule.of(JOBS[name]).to_json()) == Rule.of(JOBS[name])


# --- what the program is told ---------------------------------------------------------------------


def test_the_command_names_the_slot_with_its_offset():
    slot = datetime(2026, 11, 24, 22, 25, tzinfo=UTC)
    told = child.command("ci", "scan_radar", slot=slot, again=True, as_of="2026-11-24")
    assert told == [
        "ci",
        "run",
        "scan_radar",
        "--engine",
        "airflow",
        "--slot",
        "2026-11-24T22:25:00+00:00",
        "--again",
        "--wait",
        "300",
        "--as-of",
        "2026-11-24",
    ]


def test_the_program_takes_what_it_is_told():
    from chartinsight_lib.cli import main

    options = {name for option in main.commands["run"].params for name in option.opts}
    asked = child.command("ci", "scan_radar", slot=datetime.now(UTC), again=True, as_of="2026-11-24")
    assert {word for word in asked if word.startswith("--")} <= options


def test_of_airflows_environment_the_program_gets_neither_secrets_nor_paths_of_python():
    own = {
        "PATH": "/bin", "LC_ALL": "C", "CHARTINSIGHT_SOURCE": "kiwoom", "CHARTINSIGHT_BIN": "/venv/bin/chartinsight",
        "AIRFLOW__CORE__FERNET_KEY": "f", "AIRFLOW_CONN_KIWOOM": "k", "PYTHONPATH": "/airflow", "VIRTUAL_ENV": "/airflow",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://", "DATABASE_URL": "of somebody else",
    }  # fmt: skip
    assert child.environment(own, {"DATABASE_URL": "ours"}) == {
        "PATH": "/bin", "LC_ALL": "C", "CHARTINSIGHT_SOURCE": "kiwoom", "DATABASE_URL": "ours",
    }  # fmt: skip


def test_an_exit_code_means_what_the_program_says_it_means():
    from chartinsight_lib.cli.edge import exit_code
    from chartinsight_lib.errors import ConfigError, RunFailed, SlotRefused

    ends = {
        RunFailed("a cell raised"): child.End.FAILED,
        RunFailed("the source is closed", temporary=True): child.End.ASK_AGAIN,
        ConfigError("a key is wrong"): child.End.FAILED,
        SlotRefused("it waits", why="not yet", reason=""): child.End.ASK_AGAIN,
        SlotRefused("it has its run", why="taken", reason=""): child.End.SKIPPED,
        SlotRefused("a key lacks", why="skipped", reason=""): child.End.SKIPPED,
    }
    assert {error: child.end_of(exit_code(error)) for error in ends} == ends


def test_a_slot_that_used_up_its_tries_is_failed_and_not_skipped(conn):
    from uuid import uuid4

    from chartinsight_lib import slots

    job, slot, asked = (
        JOBS["collect_quotes"],
        at("2026-11-24 09:00"),
        {"now": at("2026-11-24 09:01"), "by": "x", "pools": {}},
    )
    run = uuid4()
    slots.claim(conn, job, "KRX", slot, run_id=run, waits_for={}, **asked)
    slots.settle(conn, run, slots.Outcome.FAILED, now=asked["now"], retry_after=timedelta(minutes=1))
    refusal = slots.claim(conn, job, "KRX", slot, run_id=uuid4(), waits_for={}, **asked)
    assert child.end_of(3, f"chartinsight: collect_quotes: {refusal.reason}.") is child.End.FAILED


@pytest.mark.parametrize("code", [-9, 130, 127])
def test_an_end_from_outside_is_tried_again(code):
    assert child.end_of(code) is child.End.BROKEN


def connection(**parts):
    return SimpleNamespace(**{"host": "db", "port": None, "schema": "tradesmart", "login": "loader", "password": None,
                              "extra_dejson": {}} | parts)  # fmt: skip


def test_a_connection_becomes_an_address_whatever_is_in_the_password():
    url = make_url(
        child.database_url(connection(port=5433, password="p@ss:/wörd%?", extra_dejson={"sslmode": "require"}))
    )
    assert (url.username, url.password, url.host, url.port) == ("loader", "p@ss:/wörd%?", "db", 5433)
    assert (url.drivername, url.database, dict(url.query)) == ("postgresql", "tradesmart", {"sslmode": "require"})


@pytest.mark.parametrize("part", ["host", "login", "schema"])
def test_a_connection_that_lacks_a_part_is_refused_without_its_password(part):
    with pytest.raises(ValueError, match="a host, a login and the name of the database are needed") as refused:
        child.database_url(connection(password="canary", **{part: None}))
    assert "canary" not in str(refused.value)


# --- the files ------------------------------------------------------------------------------------


def imported(tree, *, at_the_top=False):
    nodes = tree.body if at_the_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def called(tree):
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("name", SOURCES)
def test_no_text_is_executed_and_no_database_or_network_is_asked(name):
    assert called(SOURCES[name]) & {"exec", "eval", "compile", "__import__", "os.system"} == set()
    reached = {module.partition(".")[0] for module in imported(SOURCES[name])}
    assert reached & {"sqlalchemy", "psycopg2", "httpx", "requests", "urllib3", "jinja2"} == set()
    assert not [word.arg for word in ast.walk(SOURCES[name]) if isinstance(word, ast.keyword) and word.arg == "shell"]


def test_the_file_that_airflow_reads_again_and_again_does_one_thing():
    tree = SOURCES["dags/chartinsight_jobs.py"]
    assert called(tree) == {"globals().update", "globals", "build", "Path", "os.environ.get"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.For | ast.Try)]


def test_nothing_of_a_task_is_rendered_or_handed_on():
    task = next(node for node in SOURCES["chartinsight_airflow/task.py"].body if isinstance(node, ast.ClassDef))
    held = {ast.unparse(node.targets[0]): ast.unparse(node.value) for node in task.body if isinstance(node, ast.Assign)}
    assert held["template_fields"] == "()"
    written = ast.unparse(task)
    assert "do_xcom_push=False" in written
    assert "return code" not in written


@pytest.mark.parametrize("name", ["chartinsight_airflow/rule.py", "chartinsight_airflow/child.py", "deploy.py"])
def test_what_airflow_is_not_needed_for_does_not_import_it(name):
    assert {module for module in imported(SOURCES[name]) if module.partition(".")[0] == "airflow"} == set()


@pytest.mark.parametrize("name", ["requirements.lock", "executors.lock"])
def test_airflows_lock_names_no_host_and_a_hash_for_everything(name):
    lock = (AIRFLOW / name).read_text()
    assert "://" not in lock
    pinned = re.split(r"\n(?=\S)", lock.strip())
    assert len(pinned) > 100
    assert [entry.split()[0] for entry in pinned if "--hash=sha256:" not in entry or "==" not in entry] == []


def test_the_lock_of_the_other_executors_is_the_same_with_more():
    first, more = (set(re.findall(r"^([a-z0-9-]+==\S+)", (AIRFLOW / name).read_text(), re.MULTILINE))
                   for name in ("requirements.lock", "executors.lock"))  # fmt: skip
    assert first < more


def test_airflows_environment_has_what_our_package_imports_there():
    wanted = (AIRFLOW / "requirements.in").read_text()
    for module in ("cronsim", "numpy", "pandas", "psutil", "pydantic"):
        assert re.search(rf"^{module}$", wanted, re.MULTILINE)

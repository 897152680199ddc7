"""What is kept of runs: copies for as long as the rule says, and never one that somebody may still need."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from chartinsight_lib.jobs import Job
from chartinsight_lib.retention import Rule, prune, prune_copies
from chartinsight_lib.schedule import parse_schedule

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
DAILY = Job("collect_daily", Path("a.ipynb"), 60, schedule=parse_schedule({"at": "open-30"}))
QUOTES = Job("collect_quotes", Path("a.ipynb"), 60, live=True,
             schedule=parse_schedule({"every": 5, "from": "begin", "until": "end"}))  # fmt: skip
JOBS = {job.name: job for job in (DAILY, QUOTES)}


class Runs:
    """A folder of copies and the records of them."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder

    def record(
        self, job: Job | str, days: float, *, state: str = "succeeded", market: str | None = "KRX",
        rows: dict[str, int] | None = None, items: int = 0,
    ) -> UUID:  # fmt: skip
        run_id, at = uuid4(), NOW - timedelta(days=days)
        name = job if isinstance(job, str) else job.name
        with self.engine.begin() as conn:
            conn.execute(
                text(
                    "INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host, market, rows) "
                    "VALUES (:id, :job, '{}', :state, :at, '', '', :market, :rows)"
                ),
                {"id": run_id, "job": name, "state": state, "at": at, "market": market,
                 "rows": None if rows is None else json.dumps(rows)},
            )  # fmt: skip
            for number in range(items):
                conn.execute(
                    text(
                        "INSERT INTO ops.run_items (run_id, item, market, state, rows, finished_at) "
                        "VALUES (:id, :item, :market, 'done', '{}', :at)"
                    ),
                    {"id": run_id, "item": str(number), "market": market, "at": at},
                )
        return run_id

    def copy(self, job: Job | str, days: float, *, ending: str = "ipynb", run_id: UUID | None = None, **record) -> Path:
        """A copy that was written so many days ago, and the record of its run."""
        run_id = run_id or self.record(job, days, **record)
        at = NOW - timedelta(days=days)
        name = job if isinstance(job, str) else job.name
        path = self.folder / name / f"{at:%Y%m%dT%H%M%SZ}-{run_id.hex[:8]}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (at.timestamp(), at.timestamp()))
        return path

    def left(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.is_file()}

    def prune(self, rule: Rule = Rule(), **options):  # noqa: B008 - it is frozen
        return prune(self.engine, self.folder, JOBS, now=NOW, rule=rule, **options)


@pytest.fixture
def runs(loader: Engine, tmp_path: Path) -> Runs:
    return Runs(loader, tmp_path / "runs")


def test_copies_are_kept_for_as_long_as_their_kind_is(runs):
    kept = {
        runs.copy(DAILY, 0),
        runs.copy(DAILY, 89),
        runs.copy(DAILY, 91, state="failed"),
        runs.copy(DAILY, 179, state="lost"),
        runs.copy(QUOTES, 0),
        runs.copy(QUOTES, 6),
        runs.copy(QUOTES, 8, state="failed"),
    }
    gone = {
        runs.copy(DAILY, 91),
        runs.copy(DAILY, 181, state="failed"),
        runs.copy(QUOTES, 8),
    }
    done = runs.prune()
    assert runs.left() == kept
    assert set(done.files) == gone
    assert done.bytes == 2 * len(gone)


def test_what_a_run_said_goes_with_its_copy(runs):
    runs.copy(DAILY, 0)
    run_id = runs.record(DAILY, 100)
    gone = {runs.copy(DAILY, 100, run_id=run_id), runs.copy(DAILY, 100, run_id=run_id, ending="log")}
    assert set(runs.prune().files) == gone


def test_the_newest_copy_of_a_job_stays_however_old(runs):
    newest = runs.copy(DAILY, 1000)
    runs.copy(DAILY, 1001)
    real, simulated = runs.copy(QUOTES, 500), runs.copy(QUOTES, 300, market="SIM")
    runs.prune()
    assert runs.left() == {newest, real, simulated}


def test_nothing_of_a_run_under_way_goes(runs):
    runs.copy(DAILY, 0)
    run_id = runs.record(DAILY, 500, state="running")
    of_it = {runs.copy(DAILY, 500, run_id=run_id, ending=ending) for ending in ("log", "part.ipynb", "ipynb")}
    runs.prune()
    assert of_it < runs.left()


def test_one_whose_run_nobody_knows_counts_as_failed(runs):
    kept = {runs.copy(DAILY, 0), runs.copy(DAILY, 170, run_id=uuid4())}
    runs.copy(DAILY, 190, run_id=uuid4())
    runs.prune()
    assert runs.left() == kept


def test_a_job_that_is_in_the_list_no_more_is_pruned_too(runs):
    kept = runs.copy("former_job", 80)
    runs.copy("former_job", 100)
    runs.prune()
    assert runs.left() == {kept}


def test_of_a_simulated_market_so_many_are_kept_whatever_their_age(runs):
    old = [runs.copy(QUOTES, 300 - number, market="SIM") for number in range(6)]
    real = runs.copy(QUOTES, 5)
    runs.prune(Rule(simulated_copies=4))
    assert runs.left() == {real, *old[2:]}


def test_after_a_run_its_job_alone_is_looked_at(runs):
    copies = [runs.copy(QUOTES, 300 - number, market="SIM") for number in range(3)]
    others = [runs.copy(DAILY, days) for days in (200, 300)]
    done = prune_copies(runs.engine, runs.folder, QUOTES, now=NOW, rule=Rule(simulated_copies=1))
    assert done.files == [copies[1], copies[0]]
    assert runs.left() == {copies[2], *others}


def test_a_dry_run_says_all_of_it_and_removes_nothing(runs):
    runs.copy(DAILY, 0)
    gone = runs.copy(DAILY, 100)
    runs.record(QUOTES, 500, items=3)
    before = runs.left()
    said = runs.prune(dry_run=True)
    assert (said.files, said.rows) == ([gone], {"ops.run_items": 3, "ops.runs": 1, "ops.slots": 0})
    assert runs.left() == before
    assert runs.prune().rows == said.rows
    assert str(said) == "1 files (2 bytes), 3 rows of ops.run_items, 1 rows of ops.runs"


def test_links_are_neither_followed_nor_removed(runs, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    name = f"20200101T000000Z-{'a' * 8}.ipynb"
    (outside / name).write_text("precious")
    runs.copy(DAILY, 0)
    (runs.folder / "linked_job").symlink_to(outside)
    (runs.folder / DAILY.name / name).symlink_to(outside / name)
    for path in (outside / name, runs.folder / DAILY.name / name):
        os.utime(path, (0, 0), follow_symlinks=False)
    assert runs.prune().files == []
    assert (outside / name).read_text() == "precious"
    assert (runs.folder / DAILY.name / name).is_symlink()


def test_files_of_other_names_are_nobodys_business(runs):
    runs.copy(DAILY, 0)
    folder = runs.folder / DAILY.name
    for name in ("notes.ipynb", "20200101T000000Z-aaaaaaaa.ipynb.bak", "20200101T000000Z-AAAAAAAA.ipynb", "x.log"):
        (folder / name).write_text("")
        os.utime(folder / name, (0, 0))
    (folder / "20200101T000000Z-bbbbbbbb.ipynb").mkdir()
    assert runs.prune().files == []


def test_without_a_folder_of_runs_there_is_nothing_to_do(runs):
    assert runs.prune().files == []


# Records.


def test_records_that_stored_bars_name_stay_and_what_only_repeats_goes(runs):
    kept = {
        runs.record(DAILY, 500, rows={"read": 3}, items=1),  # once a day: few
        runs.record(QUOTES, 500, rows={"read": 3, "inserted": 1}, items=2),  # bars may name it
        runs.record(QUOTES, 399, rows={"read": 3}, items=3),
        runs.record(QUOTES, 500, state="running"),
        runs.record("former_job", 500),
    }
    runs.record(QUOTES, 500, rows={"read": 3, "unchanged": 3, "inserted": 0}, items=4)
    runs.record(QUOTES, 500, state="failed", items=5)
    done = runs.prune()
    assert done.rows == {"ops.run_items": 2 + 4 + 5, "ops.runs": 2, "ops.slots": 0}
    with runs.engine.connect() as conn:
        assert set(conn.execute(text("SELECT run_id FROM ops.runs")).scalars()) == kept
        assert conn.execute(text("SELECT count(*) FROM ops.run_items")).scalar_one() == 4


def test_records_of_a_simulated_market_go_by_its_own_time(runs):
    ahead = -4000.0  # its clock runs years ahead of this machine's
    kept = {runs.record(QUOTES, ahead, market="SIM"), runs.record(DAILY, ahead + 59, market="SIM", items=1)}
    runs.record(DAILY, ahead + 61, market="SIM", rows={"inserted": 5}, items=2)
    assert runs.prune().rows == {"ops.run_items": 2, "ops.runs": 1, "ops.slots": 0}
    with runs.engine.connect() as conn:
        assert set(conn.execute(text("SELECT run_id FROM ops.runs")).scalars()) == kept


def test_slots_that_were_covered_or_left_out_long_ago_go_and_no_others(runs):
    told = [
        (QUOTES, "KRX", 401, "covered"), (QUOTES, "KRX", 402, "skipped"),
        (QUOTES, "KRX", 403, "succeeded"), (QUOTES, "KRX", 399, "covered"), (DAILY, "KRX", 401, "covered"),
    ]  # fmt: skip
    with runs.engine.begin() as conn:
        for job, market, days, state in told:
            conn.execute(
                text(
                    "INSERT INTO ops.slots (job, market, slot, day, state, reason, claimed_by, changed_at) "
                    "VALUES (:job, :market, :at, '2026-01-01', :state, 'why', 'me', :at)"
                ),
                {"job": job.name, "market": market, "at": NOW - timedelta(days=days), "state": state},
            )
    assert runs.prune().rows["ops.slots"] == 2
    with runs.engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM ops.slots")).scalar_one() == 3


def test_pruning_twice_removes_nothing_more(runs):
    for days in (0, 95, 200):
        runs.copy(DAILY, days)
    runs.record(QUOTES, 500, items=2)
    assert runs.prune().files
    again = runs.prune()
    assert (again.files, sum(again.rows.values())) == ([], 0)


def test_the_rule_can_be_another(runs):
    runs.copy(DAILY, 0)
    gone = runs.copy(DAILY, 2)
    assert runs.prune(replace(Rule(), succeeded_days=1)).files == [gone]


def test_the_command_says_what_it_would_remove(runs, settings, monkeypatch):
    from chartinsight_lib.cli import main

    monkeypatch.setenv("CHARTINSIGHT_HOME", str(settings.home))
    monkeypatch.setenv("CHARTINSIGHT_RUNS_DIR", str(runs.folder))
    runs.copy("former_job", 0)
    old = runs.copy("former_job", 5000)
    done = CliRunner().invoke(main, ["runs", "prune", "--dry-run", "--succeeded-days", "1000"])
    assert (done.exit_code, old.exists()) == (0, True), done.output
    assert f"would be removed: {old}" in done.output
    done = CliRunner().invoke(main, ["runs", "prune", "--succeeded-days", "1000"])
    assert (done.exit_code, old.exists()) == (0, False), done.output

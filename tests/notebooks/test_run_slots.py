"""A run for a slot claims it, settles it, and says whether it is tried again."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from running import NOW, only_record, records, slots_of, until
from sqlalchemy import text

from chartinsight_lib.errors import ConfigError, RunFailed, SlotRefused
from chartinsight_lib.runner import SlotRequest, run_job
from chartinsight_lib.running.outcome import Failure

pytestmark = pytest.mark.usefixtures("nothing_is_left")
SLOT = datetime(2013, 3, 4, 21, tzinfo=UTC)
OLDER = datetime(2013, 3, 1, 21, tzinfo=UTC)


def wanted(**told: object) -> SlotRequest:
    return SlotRequest(SLOT, by="a test", **told)


def test_a_run_for_a_slot_succeeds_once(database, place, loader, notebook):
    job = notebook("rows", parameters="rows: int = 3\nagain: bool = False")
    job = replace(job, parameters={"again": True, "rows": 5})
    run = run_job(database, place, job, {"rows": 7}, engine="airflow", market="US", slot=wanted(covers=(OLDER,)))
    record = only_record(loader)
    assert (record.engine, record.market, record.slot, record.attempt) == ("airflow", "US", SLOT, 1)
    assert record.parameters == {"again": True, "rows": 7}  # the job's own, below those of the run
    older, slot = slots_of(loader)
    assert (slot.state, slot.run_id, slot.attempts, slot.claimed_by) == ("succeeded", run.run_id, 1, "a test")
    assert (older.state, older.run_id) == ("covered", run.run_id)

    with pytest.raises(SlotRefused, match="made: it is succeeded already") as refusal:
        run_job(database, place, job, {}, market="US", slot=wanted())
    assert (refusal.value.why, refusal.value.reason) == ("taken", f"it is succeeded already, run {run.run_id}")
    assert len(records(loader)) == 1  # who is refused leaves no record, no file
    assert len(list(place.runs.rglob("*.ipynb"))) == 1

    run_job(database, place, job, {}, market="US", slot=wanted(again=True), replay_of=run.run_id)
    assert [record.attempt for record in records(loader)] == [1, 2]
    assert {record.replay_of for record in records(loader)} == {None, run.run_id}


def test_a_slot_is_skipped_when_what_comes_before_it_failed_and_that_is_recorded(database, place, loader, notebook):
    before = notebook("raise ValueError('no')")
    with pytest.raises(RunFailed):
        run_job(database, place, before, {}, market="US", slot=wanted())
    after = replace(before, name="later", after={"made": "succeeded"})
    with pytest.raises(SlotRefused, match="made of 2013-03-04 16:00 failed") as refusal:
        run_job(database, place, after, {}, market="US", slot=wanted(waits_for={"made": SLOT}))
    assert refusal.value.why == "skipped"
    assert {row.job: row.state for row in slots_of(loader)} == {"made": "failed", "later": "skipped"}


def test_who_is_refused_again_and_again_leaves_no_connection(database, place, loader, notebook):
    job = notebook("1")
    run_job(database, place, job, {}, market="US", slot=wanted())
    refusals = []
    with loader.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:  # else it is told the same each time

        def connections() -> int:
            return conn.execute(
                text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            ).scalar_one()

        before = connections()
        for _ in range(5):
            with pytest.raises(SlotRefused) as refusal:
                run_job(database, place, job, {}, market="US", slot=wanted())
            refusals.append(refusal.value)  # with its traceback, as a thread of a scheduler may hold it
        until(lambda: connections() <= before, seconds=10)
    assert len(refusals) == 5


def test_the_last_try_of_a_slot_says_that_there_is_no_other(database, place, loader, notebook):
    with pytest.raises(RunFailed, match="Unavailable") as failure:
        run_job(database, place, notebook(UNAVAILABLE, retries=0), {}, market="US", slot=wanted())
    assert [slot.state for slot in slots_of(loader)] == ["failed"]
    assert failure.value.temporary is False


def test_a_slot_needs_a_market(database, place, loader, notebook):
    with pytest.raises(ConfigError, match=r"made: a slot is one of a market\. Name the market\."):
        run_job(database, place, notebook("1"), {}, slot=wanted())
    assert records(loader) == []


UNAVAILABLE = "from chartinsight_lib.errors import *\nraise Unavailable('kiwoom: closed for maintenance')"


@pytest.mark.parametrize(
    ("cell", "state", "kind"),
    [
        (UNAVAILABLE, "retrying", "Unavailable"),
        ("from chartinsight_lib.collect import Report\nfrom chartinsight_lib.errors import Passing\n"
         "Report('made', errors={'a': Passing('closed')}).check()", "retrying", "ItemsUnavailable"),
        ("from chartinsight_lib.collect import Report\nfrom chartinsight_lib.errors import Passing\n"
         "Report('made', errors={'a': Passing('closed'), 'b': 'no bar at all'}).check()", "failed", "RunFailed"),
        ("import os; os._exit(3)", "retrying", "DeadKernelError"),
        ("import no_such_module", "failed", "ModuleNotFoundError"),
        ("def f(:", "failed", "SyntaxError"),
    ],
    ids=["unavailable", "items", "mixed", "kernel", "import", "syntax"],
)  # fmt: skip
def test_whether_a_slot_is_tried_again_follows_from_the_error(database, place, loader, notebook, cell, state, kind):
    job = notebook(cell, retries=2, retry_after_s=90)
    with pytest.raises(RunFailed) as failure:
        run_job(database, place, job, {}, market="US", slot=wanted())
    (slot,) = slots_of(loader)
    record = only_record(loader)
    assert (slot.state, record.error_class, record.state) == (state, kind, "failed")
    assert failure.value.temporary is (state == "retrying")
    assert (failure.value.error_class, failure.value.run_id) == (kind, record.run_id)
    assert slot.next_try == (NOW + timedelta(seconds=90) if state == "retrying" else None)
    assert slot.reason == record.error


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("RateLimited", True, True),
        ("TruncatedReply", True, True),
        ("OperationalError", True, True),
        ("ProcessDied", True, True),
        ("RunTimeLimit", True, False),
        ("CellTimeLimit", True, False),
        ("MemoryLimit", False, False),
        ("ConfigError", False, False),
        ("SchemaError", False, False),
        ("AuthFailed", False, False),
        ("RequestRefused", False, False),
        ("NotFound", False, False),
        ("Fenced", False, False),
        ("AssertionError", False, False),
        ("KeyError", False, False),
    ],
)
def test_what_may_pass_is_tried_again_and_a_limit_once(kind, first, second):
    failure = Failure("of some reason", kind)
    assert (failure.temporary(1), failure.temporary(2)) == (first, second)


def test_a_run_that_is_told_to_stop_frees_its_slot_for_whoever_is_next(database, place, loader, notebook, tmp_path):
    reached, stop = tmp_path / "reached", threading.Event()
    job = notebook(f"import time\nfrom pathlib import Path\nPath({str(reached)!r}).touch()\ntime.sleep(600)")
    thread = threading.Thread(target=lambda: (until(reached.exists, seconds=60), stop.set()))
    thread.start()
    with pytest.raises(RunFailed, match="interrupted: whoever ran it was told to end") as failure:
        run_job(database, place, job, {}, market="US", slot=wanted(), stop=stop)
    thread.join()
    assert failure.value.temporary
    (slot,) = slots_of(loader)
    assert (only_record(loader).state, slot.state, slot.next_try) == ("failed", "retrying", NOW)

    quick = notebook("1")
    run_job(database, place, quick, {}, market="US", slot=wanted())
    assert [row.state for row in slots_of(loader)] == ["succeeded"]

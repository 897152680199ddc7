"""A run outlives the connections of its record, and does not outlive the record itself."""

import threading
import time
from uuid import uuid4

import pytest
from running import NOW, only_record, until
from sqlalchemy import text

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import DatabaseError, Fenced
from chartinsight_lib.runner import run_job
from chartinsight_lib.running import lease

pytestmark = pytest.mark.usefixtures("nothing_is_left")
CLOCK = fixed_clock(NOW)
LOCKS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND classid <> 0"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(lease.Lease.__init__, "__kwdefaults__", {"every_s": 0.2, "patience_s": 2.0})


def holders(engine) -> set[int]:
    """The sessions that hold the lock of a run."""
    with engine.connect() as conn:
        return set(conn.execute(text(LOCKS)).scalars())


def cut_off(engine) -> set[int]:
    """End the sessions that hold the lock of a run, as the end of the server does; return which."""
    ended = until(lambda: holders(engine), seconds=60)
    with engine.connect() as conn:
        for pid in ended:
            conn.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    return ended


def test_the_lock_of_a_run_is_taken_again_when_its_connection_breaks(database, place, loader, notebook, tmp_path):
    go = tmp_path / "go"
    job = notebook(f"import time\nfrom pathlib import Path\nwhile not Path({str(go)!r}).exists(): time.sleep(0.05)")
    found = []

    def disturb() -> None:
        try:
            ended = cut_off(loader)
            found.append(until(lambda: holders(loader) - ended, seconds=30))
            with loader.begin() as conn:
                found.append(ledger.reap(conn, CLOCK))
        finally:
            go.touch()

    thread = threading.Thread(target=disturb)
    thread.start()
    run_job(database, place, job, {})
    thread.join()
    assert len(found[0]) == 1
    assert found[1] == []  # it was held, so the run was not called lost
    assert (only_record(loader).state, only_record(loader).error) == ("succeeded", None)


def test_the_end_of_a_run_is_recorded_when_its_connection_breaks_just_then(
    database, place, loader, notebook, monkeypatch
):
    finish, times = ledger.finish, []

    def cut_off_at_first(conn, *arguments, **told):
        if not times:
            times.append(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
            with loader.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": times[0]})
        return finish(conn, *arguments, **told)

    monkeypatch.setattr(ledger, "finish", cut_off_at_first)
    run = run_job(database, place, notebook("1"), {})
    assert times
    record = only_record(loader)
    assert (record.run_id, record.state, record.output_path) == (run.run_id, "succeeded", str(run.output))


def test_the_end_of_a_run_whose_commit_was_not_answered_is_found_to_be_recorded(
    database, place, loader, notebook, monkeypatch
):
    settle, times = lease.Lease.record, []

    def answered_twice(self, write):
        rows = settle(self, write)
        times.append(rows)
        return settle(self, write)

    monkeypatch.setattr(lease.Lease, "record", answered_twice)
    run = run_job(database, place, notebook("1"), {})
    assert times == [run.rows]
    assert only_record(loader).state == "succeeded"


def test_a_run_that_was_given_up_is_ended(database, place, loader, notebook, tmp_path):
    reached = tmp_path / "reached"
    job = notebook(f"import time\nfrom pathlib import Path\nPath({str(reached)!r}).touch()\ntime.sleep(600)")

    def give_up() -> None:
        until(reached.exists, seconds=60)
        with loader.begin() as conn:
            conn.execute(text("UPDATE ops.runs SET expires_at = clock_timestamp() - interval '1 s'"))
        with loader.begin() as conn:
            assert len(ledger.reap(conn, CLOCK)) == 1

    thread = threading.Thread(target=give_up)
    thread.start()
    started = time.monotonic()
    with pytest.raises(Fenced, match="it counts as ended, so it was stopped"):
        run_job(database, place, job, {})
    thread.join()
    assert time.monotonic() - started < 30
    assert (only_record(loader).state, only_record(loader).error) == ("lost", "it did not end in its time")


def test_a_run_counts_as_running_for_little_longer_than_it_may(database, place, loader, notebook):
    run_job(database, place, notebook("1", timeout_s=500), {})
    with loader.connect() as conn:
        left = conn.execute(
            text("SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM ops.runs")
        ).scalar_one()
    assert 500 < left < 700


def test_a_server_that_stays_away_is_said_after_the_patience(database, loader):
    pool = database.engine(Role.LOADER)
    conn = pool.connect()
    run_id = uuid4()
    with conn.begin():
        ledger.begin(conn, run_id=run_id, job="made", parameters={}, clock=CLOCK)
    held = lease.Lease(pool, conn, run_id, every_s=60, patience_s=0.3)

    def away(_conn):
        raise lease.DBAPIError("no server", None, Exception("gone"), connection_invalidated=True)

    with pytest.raises(DatabaseError, match=r"it has ended, and the database did not take its record within 0 s"):
        held.record(away)
    held.close()
    pool.dispose()
    with loader.begin() as other:
        assert until(lambda: ledger.reap(other, CLOCK), seconds=10) == [run_id]

"""The record of runs says how each ended, also when its process died."""

import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, event, text

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import NotFound
from chartinsight_lib.runner import give_up_lost
from chartinsight_lib.running import executed_copy

NOW = datetime(2024, 8, 9, 9, tzinfo=UTC)
CLOCK = fixed_clock(NOW)


def runs(engine: Engine) -> list[tuple[Any, ...]]:
    statement = "SELECT job, state, started_at, finished_at, error, rows FROM api.runs ORDER BY started_at, job"
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement))]


def test_cells_that_a_person_executes_get_a_run_of_their_own(loader):
    with ledger.notebook_run(loader, None, job="by_hand", clock=CLOCK) as run_id:
        assert runs(loader) == [("by_hand", "running", NOW, None, None, None)]
        with loader.begin() as conn:
            ledger.record_item(conn, run_id, "one", rows={"read": 3, "inserted": 2}, clock=CLOCK)
            ledger.record_item(conn, run_id, "two", rows={"read": 4}, clock=CLOCK)
    assert runs(loader) == [("by_hand", "succeeded", NOW, NOW, None, {"read": 7, "inserted": 2})]


def test_a_run_that_the_runner_began_is_left_to_the_runner(loader):
    given_id = uuid4()
    with ledger.notebook_run(loader, given_id, job="by_runner", clock=CLOCK) as run_id:
        assert run_id == given_id
    assert runs(loader) == []


@pytest.mark.parametrize("error", [NotFound("no such thing"), KeyboardInterrupt()])
def test_a_run_that_raises_is_recorded_as_failed_with_its_error(loader, error):
    with pytest.raises(type(error)), ledger.notebook_run(loader, None, job="by_hand", clock=CLOCK):
        raise error
    assert [row[1] for row in runs(loader)] == ["failed"]
    assert runs(loader)[0][4] == f"{type(error).__name__}: {error}"


def begin(conn: Connection, job: str) -> UUID:
    run_id = uuid4()
    ledger.begin(conn, run_id=run_id, job=job, parameters={"day": date(2024, 8, 5)}, clock=CLOCK)
    conn.commit()
    return run_id


def reap(engine: Engine) -> list[UUID]:
    with engine.begin() as conn:
        return ledger.reap(conn, fixed_clock(NOW + timedelta(hours=1)))


def test_a_run_whose_connection_died_is_lost_and_a_living_one_is_not(loader):
    with loader.connect() as living, loader.connect() as dying:
        begin(living, "living")
        lost = begin(dying, "dying")
        assert reap(loader) == []
        dying.invalidate()  # the connection is closed, as when a process is killed
        assert eventually(lambda: reap(loader) == [lost])  # the server notices within moments
        assert reap(loader) == []
        assert [(row[0], row[1]) for row in runs(loader)] == [("dying", "lost"), ("living", "running")]
        assert runs(loader)[0][3:5] == (NOW + timedelta(hours=1), "its process died")


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_run_that_ends_while_it_is_looked_at_is_not_called_lost(loader):
    with loader.connect() as living, loader.connect() as other:
        run_id = begin(living, "living")

        def end_it(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "state = 'running'" in statement and statement.lstrip().startswith("SELECT"):
                ledger.finish(living, run_id, state="succeeded", clock=CLOCK)
                living.commit()

        event.listen(other, "after_cursor_execute", end_it)
        assert ledger.reap(other, CLOCK) == []
        other.commit()
    assert [row[1] for row in runs(loader)] == ["succeeded"]


def test_a_repeated_item_is_one_record_with_the_last_outcome(loader):
    with ledger.notebook_run(loader, None, job="by_hand", clock=CLOCK) as run_id, loader.begin() as conn:
        ledger.record_item(conn, run_id, "one", rows={}, clock=CLOCK, error="no")
        ledger.record_item(conn, run_id, "one", rows={"read": 1}, clock=CLOCK)
    with loader.connect() as conn:
        items = conn.execute(text("SELECT item, state, rows, error FROM api.run_items")).all()
    assert items == [("one", "done", {"read": 1}, None)]


def test_a_copy_over_which_its_finder_was_killed_is_settled_by_the_next(database, settings, loader, tmp_path):
    place = settings.model_copy(update={"runs_dir": tmp_path})
    lost, running = uuid4(), uuid4()
    secret = database.urls[Role.LOADER].password
    with loader.connect() as living:
        with living.begin():
            ledger.begin(living, run_id=running, job="made", parameters={}, clock=CLOCK)
            living.execute(
                text(
                    "INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host) "
                    "VALUES (:run_id, 'made', '{}', 'lost', :now, '0', 'here')"
                ),
                {"run_id": lost, "now": NOW},
            )
        for run_id in (lost, running):
            output = executed_copy.place(tmp_path, "made", NOW, run_id)
            executed_copy.part_of(output).write_text(json.dumps({"cells": [{"source": secret}]}))
        assert give_up_lost(database, place) == []
    stem = f"{NOW:%Y%m%dT%H%M%SZ}"
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(
        [f"{stem}-{lost.hex[:8]}.ipynb", f"{stem}-{running.hex[:8]}.part.ipynb"]
    )
    settled = (tmp_path / "made" / f"{stem}-{lost.hex[:8]}.ipynb").read_text()
    assert json.loads(settled) == {"cells": [{"source": "[hidden]"}]}

"""A slot has one run at a time and one success, however many ask for it."""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from chartinsight_lib import ledger, slots
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.jobs import Job
from chartinsight_lib.slots import Claim, Outcome, Refusal, Why

NOON = datetime(2026, 10, 13, 3, tzinfo=UTC)  # 12:00 in Seoul
FIVE = timedelta(minutes=5)
JOB = Job("collect", Path("collect.ipynb"), 60, retries=2)
RACES = int(os.environ.get("FAULT_RUNS", "20"))


def ask(conn: Connection, job: Job = JOB, slot: datetime = NOON, *, now: datetime = NOON, run_id=None, **how):
    """Claim a slot as a scheduler does."""
    told = {"by": "a test", "pools": {}, "waits_for": {}} | how
    return slots.claim(conn, job, "KRX", slot, run_id=run_id or uuid4(), now=now, **told)


def rows(conn: Connection) -> list[tuple]:
    return [
        (row.job, row.slot, row.state, row.attempts)
        for row in conn.execute(text("SELECT * FROM ops.slots ORDER BY job, slot"))
    ]


def test_a_slot_that_was_claimed_is_refused_with_who_has_it(conn):
    run_id = uuid4()
    assert ask(conn, run_id=run_id) == Claim(1)
    assert ask(conn) == Refusal(Why.TAKEN, f"it is running already, claimed by a test, run {run_id}")


def test_a_slot_that_succeeded_is_never_run_again_unless_that_is_wanted(conn):
    first = uuid4()
    ask(conn, run_id=first)
    assert slots.settle(conn, first, Outcome.SUCCEEDED, now=NOON) == "succeeded"
    assert ask(conn) == Refusal(Why.TAKEN, f"it is succeeded already, run {first}")
    assert ask(conn, again=True) == Claim(2)


def test_a_claim_says_the_day_of_the_slot_in_the_zone_of_the_market(conn):
    late = datetime(2026, 10, 13, 16, tzinfo=UTC)  # 01:00 of the 14th in Seoul
    ask(conn, slot=late)
    assert conn.execute(text("SELECT day FROM ops.slots")).scalar_one().isoformat() == "2026-10-14"


def test_a_run_that_failed_is_tried_again_after_twice_as_long_each_time_until_its_attempts_are_used_up(conn):
    minute, now, waits = timedelta(minutes=1), NOON, []
    for attempt in (1, 2, 3):
        run_id = uuid4()
        assert ask(conn, run_id=run_id, now=now) == Claim(attempt)
        state = slots.settle(conn, run_id, Outcome.FAILED, now=now, reason="it broke", retry_after=minute)
        held = conn.execute(text("SELECT next_try FROM ops.slots")).scalar_one()
        if attempt < 3:
            assert state == "retrying"
            waits.append(held - now)
            assert ask(conn, now=held - timedelta(seconds=1)).why is Why.NOT_YET
            now = held
    assert (state, held) == ("failed", None)
    assert waits == [minute, 2 * minute]
    assert ask(conn, now=now) == Refusal(Why.TAKEN, f"it is failed already, run {run_id}: it broke")


def test_a_failure_that_does_not_pass_is_not_tried_again(conn):
    run_id = uuid4()
    ask(conn, run_id=run_id)
    assert slots.settle(conn, run_id, Outcome.FAILED, now=NOON, reason="asked wrongly") == "failed"


def test_a_run_that_was_lost_is_tried_again_at_once_and_ends_when_it_always_is(conn):
    attempts, state = 0, "retrying"
    while state == "retrying":
        run_id = uuid4()
        assert ask(conn, run_id=run_id) == Claim(attempts := attempts + 1)
        state = slots.settle(conn, run_id, Outcome.LOST, now=NOON, reason="its process died")
    assert attempts == 3 + 5


def test_one_job_runs_once_at_a_time_and_another_beside_it(conn):
    ask(conn)
    assert ask(conn, slot=NOON + FIVE) == Refusal(Why.NOT_YET, "another slot of collect is running")
    assert ask(conn, Job("scan", Path("scan.ipynb"), 60)) == Claim(1)


def test_a_pool_that_is_full_keeps_others_waiting(conn):
    pooled = [Job(name, Path("a.ipynb"), 60, pool="broker") for name in ("a", "b", "c")]
    assert [type(ask(conn, job, pools={"broker": 2})) for job in pooled] == [Claim, Claim, Refusal]
    refusal = ask(conn, pooled[2], pools={"broker": 2})
    assert refusal == Refusal(Why.NOT_YET, "the pool broker is full: 2 of its jobs are running")


def test_older_slots_are_covered_by_the_run_of_the_newest_and_cannot_be_claimed(conn):
    run_id = uuid4()
    ask(conn, slot=NOON + 2 * FIVE, covers=[NOON, NOON + FIVE], run_id=run_id)
    slots.settle(conn, run_id, Outcome.SUCCEEDED, now=NOON)
    assert [state for *_, state, _ in rows(conn)] == ["covered", "covered", "succeeded"]
    refusal = ask(conn, slot=NOON)
    assert refusal.reason == f"it is covered already, run {run_id}: the run of 2026-10-13 12:10 stands for it"


def test_what_waits_for_its_next_try_is_covered_and_what_has_ended_keeps_what_it_is(conn):
    for slot, state in ((NOON, "retrying"), (NOON + FIVE, "failed")):
        run_id = uuid4()
        ask(conn, slot=slot, run_id=run_id)
        after = timedelta(minutes=1) if state == "retrying" else None
        assert slots.settle(conn, run_id, Outcome.FAILED, now=NOON, retry_after=after) == state
    ask(conn, slot=NOON + 2 * FIVE, covers=[NOON, NOON + FIVE])
    assert [state for *_, state, _ in rows(conn)] == ["covered", "failed", "running"]


def test_a_job_waits_until_the_one_before_it_has_ended_and_is_skipped_when_that_was_to_succeed(conn):
    before = {"collect": NOON}
    mild = Job("scan", Path("scan.ipynb"), 60, after={"collect": "ended"})
    strict = Job("measure", Path("measure.ipynb"), 60, after={"collect": "succeeded"})
    assert ask(conn, mild, waits_for=before) == Refusal(
        Why.NOT_YET, "it waits for collect of 2026-10-13 12:00, which is still to come"
    )
    run_id = uuid4()
    ask(conn, run_id=run_id)
    assert ask(conn, mild, waits_for=before).reason.endswith("which is running")
    slots.settle(conn, run_id, Outcome.FAILED, now=NOON)
    assert ask(conn, strict, waits_for=before) == Refusal(Why.SKIPPED, "collect of 2026-10-13 12:00 failed")
    assert ask(conn, mild, waits_for=before) == Claim(1)
    assert [(job, state) for job, _, state, _ in rows(conn)] == [
        ("collect", "failed"), ("measure", "skipped"), ("scan", "running"),
    ]  # fmt: skip


def test_a_covered_slot_before_it_counts_as_the_run_that_covered_it(conn):
    run_id = uuid4()
    ask(conn, slot=NOON + FIVE, covers=[NOON], run_id=run_id)
    strict = Job("measure", Path("measure.ipynb"), 60, after={"collect": "succeeded"})
    assert ask(conn, strict, waits_for={"collect": NOON}).why is Why.NOT_YET
    slots.settle(conn, run_id, Outcome.SUCCEEDED, now=NOON)
    assert ask(conn, strict, waits_for={"collect": NOON}) == Claim(1)


def test_what_a_lost_run_covered_waits_for_the_run_that_comes_in_its_place(conn):
    first, second, third = uuid4(), uuid4(), uuid4()
    mild = Job("scan", Path("scan.ipynb"), 60, after={"collect": "ended"})
    oldest = {"collect": NOON}
    ask(conn, slot=NOON + FIVE, covers=[NOON], run_id=first)
    slots.settle(conn, first, Outcome.LOST, now=NOON)
    assert ask(conn, slot=NOON + FIVE, run_id=second) == Claim(2)
    assert ask(conn, mild, waits_for=oldest).reason.endswith("which is running")
    slots.settle(conn, second, Outcome.LOST, now=NOON)
    ask(conn, slot=NOON + 2 * FIVE, covers=[NOON + FIVE], run_id=third)  # newer than both, which it stands for
    assert ask(conn, mild, waits_for=oldest).reason.endswith("which is running")
    slots.settle(conn, third, Outcome.SUCCEEDED, now=NOON)
    assert ask(conn, mild, waits_for=oldest) == Claim(1)


def test_what_a_lost_run_covered_is_left_out_with_it_when_it_is_too_late_for_another_try(conn):
    lost = uuid4()
    ask(conn, slot=NOON + FIVE, covers=[NOON], run_id=lost)
    slots.settle(conn, lost, Outcome.LOST, now=NOON)
    slots.skip(conn, JOB, "KRX", [NOON + FIVE], reason="it is too late", by="a test", now=NOON)
    found = conn.execute(text("SELECT state, run_id, reason FROM ops.slots ORDER BY slot")).all()
    assert [tuple(row) for row in found] == [("skipped", None, "it is too late")] * 2


def test_a_backfill_takes_slots_that_failed_or_were_skipped_into_its_run(conn):
    slots.skip(conn, JOB, "KRX", [NOON, NOON + FIVE], reason="nothing ran", by="a test", now=NOON)
    assert ask(conn).why is Why.TAKEN
    assert ask(conn, slot=NOON + FIVE, covers=[NOON], again=True) == Claim(1)
    assert [state for *_, state, _ in rows(conn)] == ["covered", "running"]


def test_a_run_whose_process_died_frees_its_slot(loader: Engine):
    run_id = uuid4()
    with loader.connect() as dying:
        with dying.begin():
            ask(dying, run_id=run_id)
            ledger.begin(dying, run_id=run_id, job="collect", parameters={}, clock=fixed_clock(NOON))
        with loader.begin() as conn:
            assert ledger.reap(conn, fixed_clock(NOON)) == []
        dying.invalidate()
    with loader.begin() as conn:
        _until_free(conn, run_id)
        assert ledger.reap(conn, fixed_clock(NOON)) == [run_id]
        assert [state for *_, state, _ in rows(conn)] == ["retrying"]
        assert ask(conn) == Claim(2)


def _until_free(conn: Connection, run_id) -> None:
    """The server notices a closed connection a moment later."""
    for _ in range(100):
        if conn.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": run_id.int >> 65}).scalar_one():
            return
        threading.Event().wait(0.05)
    raise AssertionError("the lock of a closed connection is still held")


def test_a_run_past_its_time_is_lost_though_its_process_lives_and_may_not_write_or_end_any_more(loader: Engine):
    run_id = uuid4()
    with loader.connect() as hanging:
        with hanging.begin():
            ask(hanging, run_id=run_id)
            stamp = ledger.Stamp(limit_s=-1.0)  # a second ago, by the server's clock
            ledger.begin(hanging, run_id=run_id, job="collect", parameters={}, clock=fixed_clock(NOON), stamp=stamp)
        with loader.begin() as conn:
            assert ledger.reap(conn, fixed_clock(NOON)) == [run_id]
            assert ask(conn) == Claim(2)
        with hanging.begin(), pytest.raises(ledger.Fenced, match="counts as lost, and is not to write any more"):
            ledger.fence(hanging, run_id)
        with hanging.begin(), pytest.raises(ledger.Fenced, match="counts as ended already"):
            ledger.finish(hanging, run_id, state="succeeded", clock=fixed_clock(NOON))
        states = hanging.execute(text("SELECT state FROM ops.runs WHERE run_id = :id"), {"id": run_id}).scalars().all()
    assert states == ["lost"]


def test_of_many_who_ask_for_one_slot_at_once_one_gets_it(loader: Engine):
    """`FAULT_RUNS` races, eight to a slot: some fail and are tried again, until each slot has succeeded, once."""
    seed = random.randrange(10**6)  # noqa: S311 - a seed
    print(f"seed {seed}, {RACES} races")  # noqa: T201 - pytest shows it when the test fails
    chance, won, guard = random.Random(seed), [], threading.Lock()  # noqa: S311 - not for secrets
    fates = {race: [chance.choice(["failed", "lost"]) for _ in range(chance.randrange(3))] for race in range(RACES)}

    def racer(race: int, start: threading.Barrier) -> None:
        slot = NOON + race * FIVE
        start.wait()
        for _ in range(200):
            run_id = uuid4()
            with loader.begin() as conn:
                answer = ask(conn, slot=slot, run_id=run_id)
            if isinstance(answer, Refusal):
                if answer.why is Why.TAKEN and "succeeded" in answer.reason:
                    return
                continue
            with guard:
                fate = fates[race].pop() if fates[race] else "succeeded"
                won.append((race, fate))
            with loader.begin() as conn:
                slots.settle(conn, run_id, Outcome(fate), now=NOON, retry_after=timedelta(0))
        raise AssertionError("the slot never succeeded")

    with ThreadPoolExecutor(8) as pool:
        for race in range(RACES):
            barrier = threading.Barrier(8)
            for done in [pool.submit(racer, race, barrier) for _ in range(8)]:
                done.result(60)
    successes = [race for race, fate in won if fate == "succeeded"]
    assert successes == list(range(RACES))
    assert all(not left for left in fates.values())
    with loader.begin() as conn:
        assert {state for *_, state, _ in rows(conn)} == {"succeeded"}

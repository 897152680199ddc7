"""A week of a market at six hundred times its speed, through the real scheduler, its notebooks, a simulator and PostgreSQL.

In it are the day of the university entrance exam, on which everything is an hour later, a stock of which five shares become one
after three days of standing still, and Christmas. However the schedulers are killed, stopped, or away: each slot has one run
that succeeded or a reason why it has none, every day is complete, and the tables are those of one clean load at the end.

    WEEK=full pytest tests/faults/test_simulated_week.py -n 0 -s      whole weeks, undisturbed and disturbed; about 40 minutes
    WEEK_SEED=…                                                      the same disturbances again, by the seed that was printed

At this speed a notebook takes as long as twenty minutes of the market, so most five-minute slots are covered by a later run.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, text
from week_place import FAST, GONE_WITHIN_S, SLOW, WATCHED, Place, family_of, off
from week_tables import (
    KNOWN,
    Span,
    check_slots,
    clean_load,
    completeness,
    counted,
    days_of,
    is_settled,
    official_closes,
    slots,
    tables,
)

from chartinsight_lib.db.engine import Database
from chartinsight_lib.simulator.model import KST

FULL = os.environ.get("WEEK") == "full"
SEED = int(os.environ.get("WEEK_SEED") or random.SystemRandom().randrange(10**9))
EXAM_AND_SPLIT = Span(datetime(2026, 11, 18, 8, 31, tzinfo=KST), datetime(2026, 11, 24, 8, 51, tzinfo=KST))
CHRISTMAS = Span(datetime(2026, 12, 23, 8, 31, tzinfo=KST), datetime(2026, 12, 29, 8, 51, tzinfo=KST))
SHORT = Span(datetime(2026, 11, 19, 9, 31, tzinfo=KST), datetime(2026, 11, 24, 8, 51, tzinfo=KST))
OFFS = (timedelta(minutes=5), timedelta(hours=8), timedelta(days=3))
SETTLED_WITHIN_S = 180.0
MORNING = ("sync_instruments", "collect_daily", "repair_gaps", "scan_radar")
"""What is run once a day, before it begins."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")


class Week:
    """A place, and what its database says."""

    def __init__(self, place: Place, engine: Engine, emptied: Callable[[], None], span: Span) -> None:
        self.place, self.engine, self.span, self._emptied = place, engine, span, emptied
        self.listed = place.listed
        self.most = 0
        """So many connections there were at a time, at the most."""

    def begin(self) -> None:
        """Let the first look of the first scheduler be at a known time, before the five-minute slots begin."""
        self.place.open_market()

    def settle(self, span: Span) -> None:
        """Wait until everything that was due has ended."""
        self.place.until(lambda: self._look() and is_settled(self.engine, self.listed, span), seconds=SETTLED_WITHIN_S)

    def first_morning(self) -> None:
        self.settle(Span(self.span.first, self.span.first))

    def live(self, seconds: float, runs: int = 0) -> None:
        """Let the market run, with whoever runs its jobs, until so many runs more have succeeded and for some seconds after."""
        before = self.succeeded()
        self.place.until(lambda: self._look() and self.succeeded() >= before + runs, seconds=SETTLED_WITHIN_S)
        until = time.monotonic() + seconds
        self.place.until(lambda: self._look() and time.monotonic() >= until, seconds=seconds + 30)

    def succeeded(self) -> int:
        """How many runs have succeeded."""
        with self.engine.connect() as conn:
            return int(conn.execute(text("SELECT count(*) FROM ops.runs WHERE state = 'succeeded'")).scalar_one())

    def _look(self) -> bool:
        with self.engine.connect() as conn:
            self.most = max(self.most, conn.execute(text("SELECT count(*) FROM pg_stat_activity")).scalar_one())
        return True

    def end(self) -> None:
        """Let the last morning come, slowly; wait until everything is done, a first look at the running day, too; end everybody."""
        morning = self.span.last - timedelta(minutes=20)
        self.place.speed(SLOW)
        self.place.move_to(max(morning, self.place.now()))
        self.settle(Span(self.span.first, morning))
        self.place.move_to(max(self.span.last, self.place.now()))
        self.settle(self.span)
        self.place.end_schedulers()

    def check(self, *, undisturbed: bool) -> None:
        """Hold what is stored against the calendar, the market and a clean load."""
        print(f"killed {self.place.killed} schedulers; at most {self.most} connections")  # noqa: T201 - for `pytest -s`
        print(f"\n{counted(self.engine, self.span.last)}")  # noqa: T201 - for `pytest -s`
        check_slots(self.engine, self.listed, self.span)
        days = KNOWN.days(self.span.first.date(), self.span.last.date()).tolist()
        for job in MORNING:
            found = days_of(self.engine, self.span, job)
            assert list(found) == days
            assert all(len(states) == 1 for states in found.values())
            once = undisturbed or job == "scan_radar"
            assert {state for states in found.values() for state in states} <= (
                {"succeeded"} if once else {"succeeded", "covered"}
            ), (job, found)
        whole = completeness(self.engine, self.place.settings, self.span)
        assert [row[:2] for row in whole["1d"]] == [(day, 1.0) for day in self.span.days()]
        assert [row[:2] for row in whole["5m"]] == [(day, 1.0) for day in self.span.days()]
        held = tables(self.engine, self.span)
        official = official_closes(held)
        traded = {(row[0], row[1]) for row in held.days if row[1].date() in self.span.days()}
        if undisturbed:
            assert set(official) == traded
        assert {row[0] for row in held.five_minutes} == set(WATCHED)
        self._emptied()
        self.place.move_to(KNOWN.session(self.span.after()).opens - timedelta(minutes=20))  # when nothing is under way
        clean_load(self.engine, self.place.settings, self.span, official)
        assert held.differences(tables(self.engine, self.span)) == {}
        print(  # noqa: T201 - for `pytest -s`
            f"equal to a clean load: {len(held.days):,} days ({len(official)} of the {len(traded)} of the week with their official "
            f"close), {len(held.five_minutes):,} five-minute bars, {len(held.factors)} factors, {len(held.gaps)} gaps explained, "
            f"{len(held.snapshots)} rows of snapshots; completeness 1.0 on each of {len(self.span.days())} days"
        )


@pytest.fixture
def make(database: Database, loader: Engine, emptied: Callable[[], None]) -> Iterator[Callable[..., Week]]:
    """Makes a week; all its processes are ended with the test."""
    places: list[Place] = []
    with tempfile.TemporaryDirectory(prefix="chartinsight-test-") as folder:

        def made(span: Span, **told: object) -> Week:
            places.append(Place(database, Path(folder), span.first, **told))
            return Week(places[-1], loader, emptied, span)

        yield made
        for place in places:
            place.close()
            assert place.left() == []


def test_two_days_with_schedulers_killed_and_away_end_as_one_clean_load(make):
    chance = seeded()
    week = make(SHORT)
    place = week.place
    week.begin()
    place.start()
    week.live(chance.uniform(2, 6))  # in the midst of the first collection
    place.kill(place.schedulers[0])
    place.start(3)
    week.first_morning()
    place.speed(FAST)
    week.live(chance.uniform(0, 2))
    place.kill(chance.choice(place.schedulers))
    for how_long in OFFS:
        week.live(chance.uniform(0, 2), runs=1)
        off(place, how_long)
        place.start(3 if how_long == OFFS[0] else 1)
    week.live(chance.uniform(0, 2), runs=1)
    week.end()
    week.check(undisturbed=False)


if FULL:  # ten minutes and more each

    @pytest.mark.parametrize("span", [EXAM_AND_SPLIT, CHRISTMAS], ids=["exam and split", "christmas"])
    def test_an_undisturbed_week_ends_as_one_clean_load(make, span):
        week = make(span)
        week.begin()
        week.place.start()
        week.first_morning()
        week.place.speed(FAST)
        week.place.until(lambda: week.place.now() >= span.last - timedelta(hours=11), seconds=1200)
        week.end()
        week.check(undisturbed=True)

    @pytest.mark.parametrize("span", [EXAM_AND_SPLIT, CHRISTMAS], ids=["exam and split", "christmas"])
    def test_a_week_with_schedulers_killed_and_away_ends_as_one_clean_load(make, span):
        chance = seeded()
        week = make(span)
        place = week.place
        week.begin()
        place.start(3)
        week.live(chance.uniform(2, 7))
        place.kill(chance.choice(place.schedulers))
        week.first_morning()
        place.speed(FAST)
        away = list(OFFS)
        while (left := span.last - timedelta(hours=11) - place.now()) > timedelta(0):
            week.live(min(chance.uniform(1, 20), max(left.total_seconds() / FAST, 0.5)))
            if chance.random() < 0.7 and len(place.schedulers) > 1:
                place.kill(chance.choice(place.schedulers))
            else:
                how_long = away.pop() if away and chance.random() < 0.5 else OFFS[0]
                off(place, min(how_long, max(left - timedelta(hours=10), OFFS[0])))
            place.start(3 - len(place.schedulers))
        week.end()
        week.check(undisturbed=False)


def test_a_scheduler_that_was_stopped_past_its_runs_time_writes_nothing_when_it_goes_on(make):
    week = make(SHORT, limits={"collect_daily": 60} if FULL else None)
    place = week.place
    week.begin()
    place.start()
    ghost = place.schedulers[0]

    def collecting() -> list:
        with week.engine.connect() as conn:
            return conn.execute(
                text("SELECT run_id FROM ops.runs WHERE job = 'collect_daily' AND state = 'running'")
            ).all()

    place.until(collecting, seconds=60)
    family = stopped_at_rest(week, ghost.pid)
    ((lost,),) = collecting()
    assert items_of(week.engine, lost) == 0
    place.start()
    if not FULL:  # its time, and two minutes to end and to be recorded, are made to be over
        with week.engine.begin() as conn:
            conn.execute(
                text("UPDATE ops.runs SET expires_at = clock_timestamp() WHERE run_id = :lost"), {"lost": lost}
            )
    place.until(lambda: is_settled(week.engine, week.listed, Span(week.span.first, week.span.first)), seconds=300)
    morning = Span(week.span.first, week.span.first)
    check_slots(week.engine, week.listed, morning)
    before = tables(week.engine, morning), slots(week.engine, week.span.first)
    row = before[1]["collect_daily", datetime(2026, 11, 19, 9, 30, tzinfo=KST)]
    print(f"the ghost's run {lost} was lost; {row.run_id} is the slot's, attempt {row.attempts}")  # noqa: T201 - for `pytest -s`

    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.resume()
    place.until(lambda: "FAILED" in place.said(), seconds=GONE_WITHIN_S)
    assert items_of(week.engine, lost) == 0
    with week.engine.connect() as conn:
        state = conn.execute(text("SELECT state FROM ops.runs WHERE run_id = :lost"), {"lost": lost}).scalar_one()
    assert state == "lost"
    assert (tables(week.engine, morning), slots(week.engine, week.span.first)) == before
    ghost.send_signal(signal.SIGINT)
    place.end_schedulers()


def stopped_at_rest(week: Week, pid: int) -> list[psutil.Process]:
    """Stop a scheduler with all that it has started, at a moment at which none of them has a transaction under way."""
    while True:
        family = [psutil.Process(pid), *family_of(pid)]
        for process in family:
            process.suspend()
        with week.engine.connect() as conn:
            busy = conn.execute(
                text("""
                    SELECT count(*) FROM pg_stat_activity
                    WHERE  datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
                """)
            ).scalar_one()
        if not busy:
            return family
        for process in family:
            process.resume()
        time.sleep(0.02)


def items_of(engine: Engine, run_id: object) -> int:
    with engine.connect() as conn:
        return int(
            conn.execute(text("SELECT count(*) FROM ops.run_items WHERE run_id = :run"), {"run": run_id}).scalar_one()
        )


def seeded() -> random.Random:
    print(f"\nseed {SEED}: repeat with WEEK_SEED={SEED}")  # noqa: T201 - for `pytest -s`
    return random.Random(SEED)  # noqa: S311 - chaos, not a secret

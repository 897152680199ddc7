"""How a market stands, from rows made by hand and a clock that stands.

Wednesday 2024-11-13 KRX trades from 09:00 to 15:30; on Thursday, the day of the university exam, from 10:00 to 16:30; on
2024-12-25 it does not trade.
"""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import jsonschema
import pytest
from click.testing import CliRunner, Result
from holding import hold, know, number
from pydantic import SecretStr
from sqlalchemy import Connection, text

from chartinsight_lib.backup.manifest import MANIFEST, Manifest
from chartinsight_lib.cli import main
from chartinsight_lib.clock import running_text, system_clock, write_clock
from chartinsight_lib.db import heartbeat
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import KST
from chartinsight_lib.jobs import Job, JobList
from chartinsight_lib.schedule import parse_schedule
from chartinsight_lib.settings import Settings
from chartinsight_lib.status import Status, as_json, as_text, no_answer, read_status
from chartinsight_lib.status.nouns import JobHealth

NOTEBOOK = Path("any.ipynb")
DAILY = Job("collect_daily", NOTEBOOK, 600, schedule=parse_schedule({"at": "begin-30"}), retries=3)
QUOTES = Job(
    "collect_quotes", NOTEBOOK, 600, live=True,
    schedule=parse_schedule({"every": 5, "from": "begin-10", "until": "end+10"}),
)  # fmt: skip
BY_HAND = Job("initial_load", NOTEBOOK, 600, on_request=True)
LISTED = JobList({job.name: job for job in (DAILY, QUOTES, BY_HAND)}, {})

TUESDAY, WEDNESDAY, THURSDAY = "2024-11-12", "2024-11-13", "2024-11-14"
MINUTES = timedelta(minutes=1)

Told = Callable[..., Status]


def at(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=KST)


@pytest.fixture
def told(conn: Connection, settings: Settings, tmp_path: Path) -> Told:
    """Gives the status at a time of Korea, "" for that of the simulator's clock, with settings of its own."""

    def ask(now: str, *, market: str = "KRX", **update: object) -> Status:
        own = {
            "now": at(now).isoformat() if now else None,
            "source": "krx",
            "home": tmp_path,
            "runs_dir": tmp_path / "runs",
        } | update
        return read_status(conn, settings.model_copy(update=own), market, LISTED)

    return ask


@pytest.fixture
def followed(told: Told) -> Told:
    """As `told`, of a market whose running day is followed."""
    return partial(told, source="kiwoom")


def final_bar(conn: Connection, day: str, *, market: str = "KRX", source: str = "kiwoom") -> None:
    know(conn, "005930", market=market, source=source)
    hold(conn, "005930", {day: (100, 110, 90, 105, 1000, 1e6, 0)}, market=market, source=source, now=at(f"{day} 23:00"))


def ran(
    conn: Connection, job: str, started: str, *, state: str = "succeeded", error: str | None = None, cell: int | None = None,
    market: str = "KRX", item_at: datetime | None = None, rows: str = '{"read": 3}', engine: str = "scheduler",
) -> UUID:  # fmt: skip
    """A run that took 90 seconds; with `item_at`, an item of it that was stored then."""
    run_id = uuid4()
    begun = at(started)
    ended = None if state == "running" else begun + timedelta(seconds=90)
    conn.execute(
        text("""
            INSERT INTO ops.runs (run_id, job, parameters, state, started_at, finished_at, code_version, host, rows, error, market,
                                  error_cell, engine)
            VALUES (:id, :job, '{}', :state, :begun, :ended, '1', 'h', CAST(:rows AS jsonb), :error, :market, :cell, :engine)
        """),
        {"id": run_id, "job": job, "state": state, "begun": begun, "ended": ended, "error": error, "market": market,
         "cell": cell, "rows": rows, "engine": engine},
    )  # fmt: skip
    if item_at:
        conn.execute(
            text("INSERT INTO ops.run_items VALUES (:id, 'quotes', :market, 'done', '{}', NULL, :at)"),
            {"id": run_id, "market": market, "at": item_at},
        )
    return run_id


def slot(
    conn: Connection, job: str, when: str, state: str, *, reason: str | None = None, attempts: int = 1, most: int = 1,
    next_try: datetime | None = None, market: str = "KRX",
) -> None:  # fmt: skip
    conn.execute(
        text("""
            INSERT INTO ops.slots (job, market, slot, day, state, attempts, most, next_try, reason, claimed_by, changed_at)
            VALUES (:job, :market, :slot, :day, :state, :attempts, :most, :next_try, :reason, 'test', :slot)
        """),
        {"job": job, "market": market, "slot": at(when), "day": at(when).date(), "state": state, "attempts": attempts,
         "most": most, "next_try": next_try, "reason": reason},
    )  # fmt: skip


def said(status: Status, about: str) -> list[tuple[str, str]]:
    return [(reason.state, reason.says) for reason in status.reasons if reason.about == about]


def job(status: Status, name: str) -> JobHealth:
    return next(found for found in status.jobs if found.name == name)


def test_data_of_exactly_two_cycles_are_fresh_in_an_open_market_and_a_second_more_is_red(
    conn: Connection, followed: Told
):
    final_bar(conn, TUESDAY)
    ran(conn, "collect_quotes", f"{WEDNESDAY} 10:19", item_at=at(f"{WEDNESDAY} 10:20:00"))
    fresh = followed(f"{WEDNESDAY} 10:30:00")
    assert fresh.freshness.live_age_cycles == 2.0
    assert (fresh.state, fresh.reasons) == ("green", ())
    stale = followed(f"{WEDNESDAY} 10:30:01")
    ((state, says),) = said(stale, "freshness")
    assert (stale.state, state) == ("red", "red")
    assert "told last at 10:20:00" in says
    assert "2 are allowed" in says


def test_the_night_before_does_not_count_after_the_opening(conn: Connection, followed: Told):
    final_bar(conn, TUESDAY)
    ran(conn, "collect_quotes", f"{TUESDAY} 15:38", item_at=at(f"{TUESDAY} 15:40"))
    assert followed(f"{WEDNESDAY} 09:10:00").freshness.live_age_cycles == 2.0
    assert followed(f"{WEDNESDAY} 09:10:00").state == "green"
    assert followed(f"{WEDNESDAY} 09:10:01").state == "red"


def test_on_the_day_of_the_exam_the_market_opens_an_hour_later(conn: Connection, followed: Told):
    final_bar(conn, WEDNESDAY)
    ran(conn, "collect_quotes", f"{WEDNESDAY} 15:38", item_at=at(f"{WEDNESDAY} 15:40"))
    before = followed(f"{THURSDAY} 09:59:59")
    assert (before.freshness.market_open, before.freshness.live_age_s, before.state) == (False, None, "green")
    assert followed(f"{THURSDAY} 10:10:00").state == "green"
    assert followed(f"{THURSDAY} 10:10:01").state == "red"


def test_on_a_holiday_and_at_night_nothing_is_late(conn: Connection, followed: Told):
    final_bar(conn, "2024-12-23")
    ran(conn, "collect_quotes", "2024-12-24 15:38", item_at=at("2024-12-24 15:40"))
    for now in ("2024-12-24 23:00", "2024-12-25 11:00"):
        found = followed(now)
        assert (found.state, found.freshness.market_open, found.freshness.daily_age_days) == ("green", False, 1)


def test_daily_bars_two_trading_days_old_are_red_from_the_opening_on(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    assert told(f"{THURSDAY} 09:59").state == "green"  # Wednesday alone has begun since: the exam moves the opening
    ((state, says),) = said(told(f"{THURSDAY} 10:00"), "freshness")
    assert state == "red"
    assert says == "The newest final daily bar is of 2024-11-12, 2 trading days old; 1 is allowed."


def test_a_running_bar_is_no_final_one_and_a_bar_of_five_minutes_is_news(conn: Connection, followed: Told):
    final_bar(conn, TUESDAY)
    hold(conn, "005930", {WEDNESDAY: (105, 106, 104, 105, 10, 1e3, 1)}, now=at(f"{WEDNESDAY} 10:00"))
    ran(conn, "collect_intraday", f"{WEDNESDAY} 09:00")
    ran(conn, "collect_quotes", f"{WEDNESDAY} 09:00", item_at=at(f"{WEDNESDAY} 09:01"))
    assert followed(f"{WEDNESDAY} 10:30").state == "red"
    bar = {f"{WEDNESDAY}T10:20:00+09:00": (105, 106, 104, 105, 10, 1e3, 0)}
    hold(conn, "005930", bar, timeframe="5m", now=at(f"{WEDNESDAY} 10:26"))
    found = followed(f"{WEDNESDAY} 10:30").freshness
    assert (found.daily_day, found.daily_age_days) == (date(2024, 11, 12), 1)
    assert found.live_at == at(f"{WEDNESDAY} 10:25")  # the end of that bar
    assert found.live_age_cycles == 1.0


def test_where_a_source_without_a_running_day_is_collected_it_is_not_late(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    ran(conn, "collect_intraday", f"{TUESDAY} 18:00", item_at=at(f"{TUESDAY} 18:01"))  # by a person, from files
    found = told(f"{WEDNESDAY} 14:00")
    assert (found.state, found.freshness.cycle_s) == ("green", None)


def test_a_source_that_has_told_nothing_since_the_opening_is_late(conn: Connection, followed: Told):
    final_bar(conn, TUESDAY)
    assert followed(f"{WEDNESDAY} 09:10:00").state == "green"
    ((_, says),) = said(followed(f"{WEDNESDAY} 09:10:01"), "freshness")
    assert "the source has told nothing yet" in says


def test_an_empty_database_is_red_and_says_what_to_do(told: Told):
    found = told(f"{WEDNESDAY} 10:00")
    assert found.state == "red"
    assert said(found, "freshness") == [("red", "No final daily bar is held yet. Collect first: `./studio up`.")]
    assert job(found, "collect_daily").next_slot is None  # nothing was ever claimed and nobody stands


def test_beyond_the_horizon_of_the_calendar_is_red(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    found = told("2099-01-05 10:00")
    assert found.state == "red"
    assert found.freshness.market_open is None
    assert [reason.about for reason in found.reasons] == ["freshness", "calendar"]


def test_a_slot_that_failed_for_good_is_red_until_a_later_run_succeeds(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_daily", f"{WEDNESDAY} 08:30", "failed", reason="kiwoom: no answer\nmore", attempts=4, most=4)
    ran(conn, "collect_daily", f"{WEDNESDAY} 08:31", state="failed", error="SchemaError: cell 4", cell=4)
    heartbeat.beat(conn, name="a", market="KRX", running=0)
    found = told(f"{WEDNESDAY} 08:45")
    assert said(found, "job collect_daily") == [
        ("red", "Its run of 2024-11-13 08:30 failed for good (attempt 4 of 4): kiwoom: no answer")
    ]
    last = job(found, "collect_daily").last_run
    assert last is not None
    assert (last.state, last.error_cell, last.duration_s) == ("failed", 4, 90.0)
    ran(conn, "collect_daily", f"{WEDNESDAY} 08:40")
    assert told(f"{WEDNESDAY} 08:45").state == "green"


def test_a_slot_that_waits_for_its_next_try_is_amber(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    again = at(f"{WEDNESDAY} 08:35:30")
    slot(conn, "collect_daily", f"{WEDNESDAY} 08:30", "retrying", reason="busy", attempts=2, most=4, next_try=again)
    heartbeat.beat(conn, name="a", market="KRX", running=0)
    found = told(f"{WEDNESDAY} 08:33")
    assert (found.state, said(found, "job collect_daily")) == (
        "amber", [("amber", "Its run of 2024-11-13 08:30 failed (attempt 2 of 4), and is tried again at 08:35:30: busy")]
    )  # fmt: skip


@pytest.mark.parametrize(("now", "late"), [("10:15:00", False), ("10:15:01", True)])
def test_a_slot_without_a_row_is_overdue_when_it_is_older_than_two_cycles(
    conn: Connection, told: Told, now: str, late: bool
):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_quotes", f"{WEDNESDAY} 10:00", "succeeded")  # so that 10:05 is the first without
    heartbeat.beat(conn, name="a", market="KRX", running=0)
    found = told(f"{WEDNESDAY} {now}")
    assert job(found, "collect_quotes").overdue is late
    assert bool(said(found, "job collect_quotes")) is late
    assert job(found, "collect_quotes").due_since == at(f"{WEDNESDAY} 10:05")


def test_what_is_at_work_is_not_overdue(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_quotes", f"{WEDNESDAY} 10:00", "running")
    found = told(f"{WEDNESDAY} 10:40")
    assert (job(found, "collect_quotes").due, said(found, "job collect_quotes")) == (0, [])


def test_the_cycles_of_a_daily_job_are_trading_days(conn: Connection, told: Told):
    # Friday's ran; Monday's, Tuesday's and Wednesday's have no row. One hour is waited for, two cycles are allowed.
    final_bar(conn, TUESDAY)
    slot(conn, "collect_daily", "2024-11-08 08:30", "succeeded")
    heartbeat.beat(conn, name="a", market="KRX", running=0)
    moments = ("2024-11-10 12:00", "2024-11-11 09:30", "2024-11-11 09:31", "2024-11-13 08:30", "2024-11-13 08:31")
    states = [[state for state, _ in said(told(now), "job collect_daily")] for now in moments]
    assert states == [[], [], ["amber"], ["amber"], ["red"]]


def test_a_job_tells_its_next_slot_and_the_slots_of_today(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_quotes", f"{WEDNESDAY} 08:50", "covered", reason="a newer one")
    slot(conn, "collect_quotes", f"{WEDNESDAY} 08:55", "skipped", reason="too late")
    slot(conn, "collect_quotes", f"{WEDNESDAY} 09:00", "succeeded")
    ran(conn, "collect_quotes", f"{WEDNESDAY} 09:00", item_at=at(f"{WEDNESDAY} 09:01"))
    quotes = job(told(f"{WEDNESDAY} 09:07"), "collect_quotes")
    assert quotes.next_slot == at(f"{WEDNESDAY} 09:10")
    assert [one.state for one in quotes.today[:5]] == ["covered", "skipped", "succeeded", "due", "to come"]
    assert (quotes.today[0].slot, quotes.today[-1].slot) == (at(f"{WEDNESDAY} 08:50"), at(f"{WEDNESDAY} 15:40"))
    assert job(told(f"{WEDNESDAY} 09:07"), "collect_daily").next_slot == at(f"{THURSDAY} 09:30")  # the exam again
    assert job(told("2024-12-25 11:00"), "collect_quotes").today == ()


def test_a_killed_scheduler_is_amber_unless_airflow_runs_the_jobs(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_quotes", f"{TUESDAY} 15:40", "succeeded")
    ran(conn, "collect_quotes", f"{TUESDAY} 15:40", item_at=at(f"{TUESDAY} 15:41"))
    heartbeat.beat(conn, name="host:1:KRX", market="KRX", running=0)
    assert told(f"{WEDNESDAY} 08:00").state == "green"
    conn.execute(text("UPDATE ops.schedulers SET seen_at = clock_timestamp() - interval '3 hours'"))
    assert said(told(f"{WEDNESDAY} 08:00"), "scheduler") == [
        ("amber", "No scheduler is alive: the last one was heard of 3 h ago. Start `./studio up`.")
    ]
    ran(conn, "collect_quotes", f"{TUESDAY} 15:41", engine="airflow")
    assert told(f"{WEDNESDAY} 08:00").state == "green"


def test_on_a_clock_sixty_times_as_fast_a_minute_of_real_time_is_waited(conn: Connection, told: Told, tmp_path: Path):
    # A run takes seconds of this machine: two cycles of that clock pass in ten of them, and an hour in sixty.
    final_bar(conn, TUESDAY, market="SIM", source="simulated (seed 7)")
    ran(conn, "collect_quotes", f"{WEDNESDAY} 10:00", market="SIM", item_at=at(f"{WEDNESDAY} 10:00"))
    (tmp_path / "simulator").mkdir()
    for now, state in ((f"{WEDNESDAY} 10:40", "green"), (f"{WEDNESDAY} 11:01", "red")):
        write_clock(tmp_path / "simulator" / "clock", running_text(at(now), 60.0, system_clock()))
        found = told("", market="SIM", source="simulated")
        assert (found.state, found.freshness.live_limit_s, found.freshness.simulated) == (state, 3600, True)
        run = job(found, "collect_quotes").last_run
        assert run is not None
        assert run.duration_s == 1.5  # 90 s of that clock


def test_completeness_counts_days_holes_and_what_was_given_up(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    number_of = number(conn, "005930")
    conn.execute(
        text("""
            INSERT INTO ops.coverage VALUES (:id, '1d', '2024-01-02', '2024-11-12', 200, 190, 6, 3, 1, :now, :run);
            INSERT INTO ops.coverage_days VALUES ('KRX', '1d', '2024-11-11', 200, 200, 0, 0, 0, :now),
                                                 ('KRX', '1d', '2024-11-12', 200, 195, 3, 1, 1, :now);
            INSERT INTO ops.gaps (instrument_id, timeframe, ts, kind, source, run_id, state, reason)
            VALUES (:id, '1d', '2024-11-04 00:00+00', 'missing', 'kiwoom', :run, 'given_up', 'tried 4 times'),
                   (:id, '1d', '2024-11-05 00:00+00', 'missing', 'kiwoom', :run, 'open', NULL)
        """),
        {"id": number_of, "now": at(f"{WEDNESDAY} 09:00"), "run": uuid4()},
    )
    found = told(f"{WEDNESDAY} 09:05").completeness
    assert (found.complete, found.explained, found.missing, found.late, found.given_up) == (0.98, 6, 3, 1, 1)
    assert [(day.day.isoformat(), day.complete) for day in found.days] == [(TUESDAY, 0.99), ("2024-11-11", 1.0)]
    assert [says for _, says in said(told(f"{WEDNESDAY} 09:05"), "completeness")] == [
        "1 expected bars were given up; `chartinsight data gaps` says why.",
        "2 expected bars are missing, and asked for again.",
    ]


def test_a_quota_that_was_slowed_down_and_an_allowance_nearly_used_are_amber(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    conn.execute(
        text("""
            INSERT INTO ops.pace (key, next_at, interval_s, slowed_at)
            VALUES ('0123456789abcdef:ka10081', clock_timestamp() + interval '180 seconds', 0.5, clock_timestamp()),
                   ('0123456789abcdef:ka10095', clock_timestamp(), 0.25, NULL),
                   ('fedcba9876543210:ka10095', clock_timestamp() - interval '2 days', 9, NULL);
            INSERT INTO ops.allowances VALUES ('dart:00ff:day', '2024-11-13', 18000), ('dart:00ff:day', '2024-11-12', 20000)
        """)
    )
    found = told(f"{WEDNESDAY} 09:05")
    assert [(pace.api, pace.slowed, round(pace.backlog_s / 60)) for pace in found.quota.paces] == [
        ("ka10081", True, 3), ("ka10095", False, 0)
    ]  # fmt: skip
    assert said(found, "quota") == [
        ("amber", "Refusals have slowed down ka10081: up to 2.0 times as long between two requests."),
        ("amber", "Requests wait for 3 min at ka10081."),
        ("amber", "18,000 of the 20,000 requests that today allows dart:00ff are used."),
    ]


def test_open_alerts_are_told_the_gravest_first(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    rows = [("stale", "KRX", "warning", None), ("lost", "", "critical", None), ("done", "KRX", "critical", at(f"{TUESDAY} 12:00")),
            ("other", "US", "critical", None)]  # fmt: skip
    for key, market, level, resolved in rows:
        conn.execute(
            text("""
                INSERT INTO ops.alerts (market, kind, key, level, standing, subject, body, occurred_at, opened_at, seen_at,
                                        resolved_at)
                VALUES (:market, 'test', :key, :level, true, :key, '', :at, :at, :at, :resolved)
            """),
            {"key": key, "market": market, "level": level, "at": at(f"{TUESDAY} 11:00"), "resolved": resolved},
        )
    assert [(alert.level, alert.subject) for alert in told(f"{WEDNESDAY} 08:00").alerts] == [
        ("critical", "lost"), ("warning", "stale")
    ]  # fmt: skip


def test_the_newest_backup_and_the_size_of_the_runs_are_told(conn: Connection, told: Told, tmp_path: Path):
    final_bar(conn, TUESDAY)
    assert told(f"{WEDNESDAY} 08:00").storage.backup_at is None
    assert "no backup yet" in "\n".join(as_text(told(f"{WEDNESDAY} 08:00")))
    for day, count in ((4, 111), (5, 222)):
        made = Manifest(
            made_at=datetime(2024, 11, day, 18, 30, tzinfo=UTC), database="d", schema_version="9", code_version="1",
            server_version="18", tool="18", tables={}, left_out=(), newest_days={}, bytes=count, sha256="0",
        )  # fmt: skip
        folder = tmp_path / "backups" / f"2024110{day}T183000Z-00000000"
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(made.text(), encoding="utf-8")
    storage = told(f"{WEDNESDAY} 08:00").storage
    assert (storage.backup_at, storage.backup_bytes) == (at("2024-11-06 03:30"), 222)
    (tmp_path / "runs" / "collect_daily").mkdir(parents=True)
    (tmp_path / "runs" / "collect_daily" / "a.ipynb").write_bytes(b"x" * 1000)
    assert told(f"{WEDNESDAY} 08:00").storage.runs_bytes == 1000


MOMENT, DAY = {"type": "string", "format": "date-time"}, {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"}


def maybe(schema: dict) -> dict:
    return {"anyOf": [schema, {"type": "null"}]}


def record(**fields: dict) -> dict:
    return {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}


def many(schema: dict) -> dict:
    return {"type": "array", "items": schema}


TEXT, COUNT, NUMBER, TRUTH = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
STATE = {"enum": ["green", "amber", "red"]}
SLOT = record(slot=MOMENT, state=TEXT, reason=maybe(TEXT), attempts=COUNT, most=COUNT, next_try=maybe(MOMENT))
RUN = record(
    run_id=TEXT, state=TEXT, engine=TEXT, started_at=MOMENT, finished_at=maybe(MOMENT), duration_s=maybe(NUMBER),
    rows={"type": "object", "additionalProperties": COUNT}, error=maybe(TEXT), error_class=maybe(TEXT), error_cell=maybe(COUNT),
)  # fmt: skip
SCHEMA = record(
    version={"const": 1}, market=TEXT, zone=TEXT, now=MOMENT, state=STATE,
    reasons=many(record(state=STATE, about=TEXT, says=TEXT)),
    jobs=many(record(
        name=TEXT, schedule=maybe(TEXT), live=TRUTH, next_slot=maybe(MOMENT), last_slot=maybe(SLOT), settled=maybe(SLOT),
        last_run=maybe(RUN), last_success=maybe(MOMENT), due=COUNT, due_since=maybe(MOMENT), overdue=TRUTH,
        today=many(record(slot=MOMENT, state=TEXT)),
    )),
    freshness=record(
        market_open=maybe(TRUTH), source=TEXT, simulated=TRUTH, collected_at=maybe(MOMENT), daily_day=maybe(DAY),
        daily_age_days=maybe(COUNT), live_at=maybe(MOMENT), cycle_s=maybe(NUMBER), live_age_s=maybe(NUMBER),
        live_limit_s=maybe(NUMBER), live_age_cycles=maybe(NUMBER),
    ),
    completeness=record(
        checked_at=maybe(MOMENT), complete=maybe(NUMBER), explained=COUNT, missing=COUNT, late=COUNT, given_up=COUNT,
        findings=COUNT, oldest_open=maybe(DAY),
        days=many(record(
            day=DAY, expected=COUNT, present=COUNT, explained=COUNT, missing=COUNT, late=COUNT, complete=maybe(NUMBER),
        )),
    ),
    quota=record(
        paces=many(record(owner=TEXT, api=TEXT, interval_s=NUMBER, usual_s=NUMBER, backlog_s=NUMBER, slowed=TRUTH)),
        allowances=many(record(owner=TEXT, used=COUNT, limit=COUNT)),
    ),
    alerts=many(record(level=TEXT, subject=TEXT, since=MOMENT)),
    schedulers=many(record(name=TEXT, alive=TRUTH, age_s=NUMBER, running=COUNT, started_at=MOMENT)),
    storage=record(database_bytes=COUNT, runs_bytes=COUNT, free_bytes=COUNT, backup_at=maybe(MOMENT), backup_bytes=maybe(COUNT)),
)  # fmt: skip


def test_the_json_has_the_documented_form_and_no_secret(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_daily", f"{WEDNESDAY} 08:30", "retrying", reason="busy", next_try=at(f"{WEDNESDAY} 08:40"))
    ran(conn, "collect_daily", f"{WEDNESDAY} 08:31", state="failed", error="x", cell=1)
    ran(conn, "collect_quotes", f"{WEDNESDAY} 09:00", item_at=at(f"{WEDNESDAY} 09:01"))
    heartbeat.beat(conn, name="a", market="KRX", running=1)
    conn.execute(text("INSERT INTO ops.pace VALUES ('0123456789abcdef:ka10081', clock_timestamp(), 0.25, NULL)"))
    conn.execute(text("INSERT INTO ops.coverage_days VALUES ('KRX', '1d', '2024-11-12', 1, 1, 0, 0, 0, now())"))
    canaries = {name: SecretStr(f"canary-{name}") for name in Settings.model_fields
                if Settings.model_fields[name].annotation == SecretStr | None and name != "database_url"}  # fmt: skip
    assert "kiwoom_appkey" in canaries
    found = told(f"{WEDNESDAY} 09:05", **canaries)
    written = json.dumps(as_json(found))
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(written))
    assert "canary" not in written + "\n".join(as_text(found))
    jsonschema.Draft202012Validator(
        record(version={"const": 1}, state={"const": "red"}, reasons=SCHEMA["properties"]["reasons"])
    ).validate(no_answer("down"))


def test_the_moments_of_the_json_are_those_of_the_market(conn: Connection, told: Told):
    final_bar(conn, TUESDAY)
    slot(conn, "collect_daily", f"{WEDNESDAY} 08:30", "succeeded")
    found = as_json(told(f"{WEDNESDAY} 09:05"))
    assert found["now"] == "2024-11-13T09:05:00+09:00"
    assert found["jobs"][0]["last_slot"]["slot"] == "2024-11-13T08:30:00+09:00"


def asked(database: Database, home: Path, *options: str, **environment: str) -> Result:
    own = {"DATABASE_URL": database.url(Role.READER), "CHARTINSIGHT_HOME": str(home)} | environment
    return CliRunner().invoke(main, ["status", *options], env=own)


def test_the_command_ends_with_one_on_an_empty_database(
    database: Database, emptied: Callable[[], None], tmp_path: Path
):
    emptied()
    found = asked(database, tmp_path, "--market", "KRX", CHARTINSIGHT_NOW="2024-11-13T10:00+09:00")
    assert found.exit_code == 1, found.output
    first, second, *_ = found.output.splitlines()
    assert first == "KRX  RED  2024-11-13 10:00:00 KST"
    assert second == "  RED    freshness: No final daily bar is held yet. Collect first: `./studio up`."


def test_the_command_ends_with_zero_when_green_and_with_one_of_what_is_amber_when_strict(
    database: Database, loader, tmp_path: Path
):
    with loader.begin() as conn:
        final_bar(conn, TUESDAY)
    now = {"CHARTINSIGHT_NOW": "2024-11-13T08:20+09:00"}
    green = asked(database, tmp_path, "--json", "--strict", **now)
    assert (green.exit_code, json.loads(green.output)["state"]) == (0, "green")
    with loader.begin() as conn:
        ran(conn, "collect_daily", f"{TUESDAY} 08:31", state="failed", error="SchemaError: a column lacks")
    assert asked(database, tmp_path, "--market", "KRX", **now).exit_code == 0
    assert asked(database, tmp_path, "--market", "KRX", "--strict", **now).exit_code == 1


def test_an_unknown_market_is_asked_wrongly(database: Database, tmp_path: Path):
    found = asked(database, tmp_path, "--market", "LSE")
    assert found.exit_code == 2
    assert "Known are KRX, SIM, US" in found.stderr


def test_a_dead_address_is_one_red_line_without_its_password(database: Database, tmp_path: Path):
    dead = {"DATABASE_URL": "postgresql://somebody:geheim@127.0.0.1:1/tradesmart"}
    found = asked(database, tmp_path, **dead)
    assert found.exit_code == 1
    (line,) = found.output.splitlines()
    assert line.startswith("RED  database: DATABASE_URL: ")
    assert "geheim" not in line
    told = json.loads(asked(database, tmp_path, "--json", **dead).output)
    assert (told["version"], told["state"], told["reasons"][0]["about"]) == (1, "red", "database")


def test_asking_starts_no_database(empty_home: Path):
    found = CliRunner().invoke(main, ["status"], env={"CHARTINSIGHT_HOME": str(empty_home)})
    assert found.exit_code == 1
    assert "does not run" in found.output
    assert not list(empty_home.rglob("PG_VERSION"))

"""What is wrong is found in what is recorded, and said with numbers that can be worked out by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from holding import hold, know
from sqlalchemy import Connection, text

from chartinsight_lib.alerts.alert import Alert, Level
from chartinsight_lib.alerts.conditions import Conditions, conditions
from chartinsight_lib.backup.manifest import Manifest
from chartinsight_lib.settings import Settings

# A Tuesday; the days before are Monday the 12th and Friday the 9th, which was Hangul Day and closed.
TUESDAY = datetime.fromisoformat("2026-10-13T12:00+09:00")
NIGHT = datetime.fromisoformat("2026-10-13T23:00+09:00")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def at(clock: str, day: int = 13) -> datetime:
    return datetime.fromisoformat(f"2026-10-{day}T{clock}+09:00")


@pytest.fixture
def found(conn: Connection, settings: Settings):
    def look(now: datetime = NIGHT, market: str = "KRX", **told: object) -> Conditions:
        return conditions(conn, settings.model_copy(update={"now": now.isoformat(), **told}), market, now)

    return look


def keys(held: Conditions) -> list[str]:
    return [alert.key for alert in held.alerts]


def only(held: Conditions) -> Alert:
    (alert,) = held.alerts
    return alert


def slot(
    conn: Connection,
    when: datetime,
    state: str,
    *,
    job: str = "collect_daily",
    run: str | None = None,
    attempts: int = 1,
) -> None:
    run_id = uuid4()
    if run is not None:
        a_run(conn, when, run, job=job, run_id=run_id)
    conn.execute(
        text("""
            INSERT INTO ops.slots (job, market, slot, day, state, run_id, attempts, next_try, reason, claimed_by, changed_at)
            VALUES (:job, 'KRX', :slot, :day, :state, :run_id, :attempts, :next_try, 'no route to the source', 'a test', :slot)
        """),
        {
            "job": job, "slot": when, "day": when.date(), "state": state, "run_id": run_id, "attempts": attempts,
            "next_try": when if state == "retrying" else None,
        },
    )  # fmt: skip


def a_run(
    conn: Connection,
    started: datetime,
    state: str,
    *,
    job: str = "collect_daily",
    market: str | None = "KRX",
    run_id=None,
) -> str:
    run_id = run_id or uuid4()
    conn.execute(
        text("""
            INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host, market)
            VALUES (:run_id, :job, '{}', :state, :started, '0', 'here', :market)
        """),
        {"run_id": run_id, "job": job, "state": state, "started": started, "market": market},
    )  # fmt: skip
    return run_id


# Jobs.


def test_in_an_empty_database_nothing_is_wrong(found):
    assert found(TUESDAY).alerts == []


def test_a_job_whose_newest_slot_failed_is_told_with_slot_and_reason(conn, found):
    slot(conn, at("08:00", 12), "succeeded")
    slot(conn, at("08:00"), "failed", attempts=4)
    alert = only(found())
    assert (alert.key, alert.level, alert.subject) == ("job:collect_daily", Level.WARNING, "collect_daily failed")
    assert alert.body.startswith("Slot 2026-10-13 08:00, run ")
    assert "no route to the source" in alert.body and "after 4 attempts" in alert.body
    assert (alert.market, alert.occurred_at) == ("KRX", at("08:00"))


@pytest.mark.parametrize("state", ["skipped", "covered"])
def test_a_slot_that_was_left_out_mends_nothing(conn, found, state):
    slot(conn, at("08:00", 12), "failed")
    slot(conn, at("08:00"), state)
    assert keys(found()) == ["job:collect_daily"]


def test_a_job_that_has_succeeded_since_is_well_again(conn, found):
    slot(conn, at("08:00", 12), "failed")
    slot(conn, at("08:00"), "succeeded")
    assert keys(found()) == []


def test_a_run_that_a_person_started_mends_a_job_too(conn, found):
    slot(conn, at("08:00"), "failed")
    a_run(conn, at("07:00"), "succeeded", market=None)
    assert keys(found()) == ["job:collect_daily"]
    a_run(conn, at("09:00"), "succeeded", market="US")
    assert keys(found()) == ["job:collect_daily"]
    a_run(conn, at("10:00"), "succeeded", market=None)
    assert keys(found()) == []


def test_a_failure_of_another_market_or_of_long_ago_is_none_of_this_one(conn, found):
    slot(conn, at("08:00"), "failed")
    assert keys(found(market="US")) == []
    assert keys(found(NIGHT + 15 * DAY)) == []


def test_a_run_that_was_cut_off_is_told_and_one_that_failed_and_is_tried_again_is_not_yet(conn, found):
    slot(conn, at("08:00"), "retrying", run="lost")
    slot(conn, at("08:00"), "retrying", run="failed", job="scan_radar")
    alert = only(found())
    assert (alert.key, alert.subject) == ("job:collect_daily", "collect_daily was cut off")
    assert alert.body.endswith("It is tried again.")


def test_what_was_told_is_not_over_while_it_is_tried_again(conn, found):
    slot(conn, at("08:00"), "running", attempts=2)
    assert keys(found()) == [], "nobody was told"
    conn.execute(
        text("""
            INSERT INTO ops.alerts (market, kind, key, level, standing, subject, body, occurred_at, opened_at, seen_at)
            VALUES ('KRX', 'job', 'job:collect_daily', 'warning', true, '', '', now(), now(), now())
        """)
    )
    assert keys(found()) == ["job:collect_daily"]


def test_a_list_of_jobs_that_cannot_be_read_is_told_and_nothing_is_said_of_jobs(conn, found, tmp_path):
    slot(conn, at("08:00"), "failed")
    held = found(project=tmp_path)
    assert keys(held) == ["list"]
    assert "jobs.yaml does not exist" in only(held).body
    assert {"job", "stale"} & held.judged == set()


# Stale data. KRX trades from 09:00, and collects each five minutes.


def bars_of(conn: Connection, day: str, *, flags: int = 0) -> None:
    know(conn, "000010")
    hold(conn, "000010", {day: (10, 11, 9, 10, 1, None, flags)})


@pytest.mark.parametrize(
    ("now", "stale"),
    [
        (at("08:59"), False),  # the 12th is the newest day, and the 13th has not begun
        (at("12:00"), False),  # one trading day old: no day has become final since
        (at("12:00", 14), True),
        (at("12:00", 15), True),
    ],
)
def test_daily_bars_are_stale_when_two_trading_days_have_begun_since(conn, found, now, stale):
    bars_of(conn, "2026-10-12")
    assert keys(found(now)) == ["stale:1d"] * stale


def test_a_holiday_makes_nothing_stale(conn, found):
    bars_of(conn, "2026-10-07")
    # The 8th is a Thursday, the 9th a holiday, the 10th and 11th a weekend.
    assert keys(found(at("20:00", 11))) == []
    assert only(found(at("20:00", 12))).subject == "Daily bars are 2 trading days old"


def test_an_unfinished_bar_is_no_final_one(conn, found):
    bars_of(conn, "2026-10-08")
    hold(conn, "000010", {"2026-10-13": (10, 11, 9, 10, 1, None, 1)})
    assert keys(found(TUESDAY)) == ["stale:1d"]


def test_bars_that_nobody_collects_any_more_are_history_and_not_stale(conn, found):
    bars_of(conn, "2013-03-01")
    assert keys(found()) == []


def told(conn: Connection, when: datetime, job: str = "collect_quotes") -> None:
    conn.execute(
        text("""
            INSERT INTO ops.run_items (run_id, item, market, state, rows, finished_at)
            VALUES (:run_id, 'all', 'KRX', 'done', '{}', :at)
        """),
        {"run_id": a_run(conn, when, "succeeded", job=job), "at": when},
    )


@pytest.mark.parametrize(
    ("last", "now", "stale"),
    [
        (at("11:50"), at("12:00"), False),  # two cycles
        (at("11:50"), at("12:00") + timedelta(seconds=1), True),
        (at("19:00", 12), at("09:10"), False),  # since the opening
        (at("19:00", 12), at("09:10") + timedelta(seconds=1), True),
        (at("19:00", 12), at("08:00"), False),  # closed
        (at("11:50"), at("12:00", 17), False),  # a Saturday
    ],
)
def test_in_an_open_market_what_is_older_than_two_cycles_is_critical(conn, found, last, now, stale):
    slot(conn, at("08:50", 12), "succeeded", job="collect_quotes")
    told(conn, last)
    assert keys(found(now)) == ["stale:live"] * stale
    assert all(alert.level is Level.CRITICAL for alert in found(now).alerts)


def test_a_source_that_told_nothing_yet_is_as_late_as_the_market_is_open(conn, found):
    slot(conn, at("08:50"), "succeeded", job="collect_quotes")
    assert keys(found(at("09:10"))) == []
    assert keys(found(at("09:11"))) == ["stale:live"]


def test_a_market_whose_running_day_no_scheduler_follows_is_not_late_with_it(conn, found):
    told(conn, at("09:00"))  # by a person
    slot(conn, at("08:10"), "succeeded", job="collect_daily")
    assert keys(found(TUESDAY)) == []


def test_where_the_calendar_ends_that_is_told_and_nothing_is_said_of_how_old_data_are(conn, found):
    bars_of(conn, "2026-10-12")
    held = found(datetime(2090, 1, 2, 3, tzinfo=UTC))
    assert keys(held) == ["calendar"]
    assert "stale" not in held.judged and "calendar" in held.judged


# Holes.


def coverage(conn: Connection, expected: int, missing: int, late: int = 0) -> None:
    know(conn, "000010")
    conn.execute(
        text("""
            INSERT INTO ops.coverage (instrument_id, timeframe, expected, present, explained, missing, late, checked_at, run_id)
            SELECT id, '1d', :expected, :expected - :missing - :late, 0, :missing, :late, :at, :run FROM live.instruments
        """),
        {"expected": expected, "missing": missing, "late": late, "at": at("09:00"), "run": uuid4()},
    )


@pytest.mark.parametrize(("missing", "told"), [(0, False), (10, False), (11, True)])
def test_less_than_99_percent_complete_is_told(conn, found, missing, told):
    coverage(conn, 1000, missing)
    assert keys(found()) == ["gaps:1d"] * told


def test_a_hole_is_told_with_what_is_missing_and_the_share_is_not_rounded_up(conn, found):
    coverage(conn, 3000, 31, late=1)  # 2,968 of 3,000: 98.93 %
    alert = only(found())
    assert alert.subject == "1d bars are 98.9 % complete"
    assert alert.body.startswith("31 bars are missing, 1 late, 0 given up.")


def test_what_was_given_up_is_told_once_and_for_information(conn, found):
    coverage(conn, 1000, 1)
    conn.execute(
        text("""
            INSERT INTO ops.gaps (instrument_id, timeframe, ts, kind, source, run_id, state, reason)
            SELECT id, '1d', '2026-10-01', 'missing', 'test', :run, 'given_up', 'four tries' FROM live.instruments
        """),
        {"run": uuid4()},
    )
    alert = only(found())
    assert (alert.key, alert.level, alert.subject) == ("gaps:1d:given-up", Level.INFO, "Given up: 1 hole in 1d bars")


# Quotas and backups.


@pytest.mark.parametrize(("minutes", "told"), [(9, True), (11, False)])
def test_a_source_that_slows_us_down_is_told_for_ten_minutes_and_without_the_key(conn, found, minutes, told):
    conn.execute(
        text("""
            INSERT INTO ops.pace (key, next_at, interval_s, slowed_at)
            SELECT 'f1ngerpr1nt:' || api, clock_timestamp(), 1, clock_timestamp() - make_interval(mins => :minutes)
            FROM   unnest(ARRAY['ka10081', 'ka10095']) AS api
        """),
        {"minutes": minutes},
    )
    held = found()
    assert keys(held) == ["quota:pace"] * told
    if told:
        assert "ka10081, ka10095" in only(held).body and "f1ngerpr1nt" not in only(held).body
        assert only(held).market == "", "all markets share it"


@pytest.mark.parametrize(
    ("used", "day", "told"), [(899, "2026-10-13", False), (900, "2026-10-13", True), (1000, "2026-10-12", False)]
)
def test_nine_tenths_of_a_days_requests_are_told(conn, found, used, day, told):
    conn.execute(
        text("INSERT INTO ops.allowances (key, day, used) VALUES ('f:dart', :day, :used)"), {"day": day, "used": used}
    )
    held = found(dart_daily=1000)
    assert keys(held) == ["quota:day"] * told
    if told:
        assert only(held).subject == "90.0 % of today's requests are used"


def backup(folder: Path, made: datetime) -> None:
    path = folder / f"{made.astimezone(UTC):%Y%m%dT%H%M%SZ}-00000000"
    path.mkdir(parents=True)
    told = Manifest(made.astimezone(UTC), "id", "0009", "0.1.0", "16", "pg_dump", {}, (), {}, 1, "0")
    (path / "manifest.json").write_text(told.text())


@pytest.mark.parametrize(("age", "told"), [(3 * DAY - MINUTE, False), (3 * DAY, True)])
def test_a_newest_backup_of_three_days_is_too_old(found, tmp_path, age, told):
    backup(tmp_path, NIGHT - 9 * DAY)
    backup(tmp_path, NIGHT - age)
    held = found(backup_dir=tmp_path)
    assert keys(held) == ["backup"] * told
    assert [alert.subject for alert in held.alerts] == ["The newest backup is 3 days old"] * told


def test_where_no_backup_was_ever_made_none_is_missed(found, tmp_path):
    assert keys(found(backup_dir=tmp_path)) == []

"""Restoring: all of a backup or nothing of it, and what was there is put aside first."""

import signal
from datetime import UTC, datetime
from uuid import uuid4

import psutil
import pytest
from backing import (
    CANARY,
    CLOCK,
    FILL,
    NASTY,
    NOW,
    RUN,
    acting,
    bars,
    command,
    contents,
    edit,
    fill,
    held_up,
    restored,
    until,
)
from holding import know
from sqlalchemy import text

from chartinsight_lib import ledger
from chartinsight_lib.backup.load import load
from chartinsight_lib.backup.make import backup
from chartinsight_lib.backup.manifest import MANIFEST, read
from chartinsight_lib.backup.restore import LOST
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import MIGRATIONS, head
from chartinsight_lib.db.panel_cache import held_market
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, DatabaseError
from chartinsight_lib.settings import Settings


def test_a_database_that_holds_something_is_replaced_only_when_told_and_put_aside_first(
    database, loader, target, tmp_path
):
    fill(loader)
    made = backup(database, tmp_path, CLOCK)
    with acting(target, Role.LOADER) as conn:
        know(conn, "035720")
        before = made
    earlier = contents(target)
    with pytest.raises(ConfigError, match=r"holds rows in .*live.instruments.* With --replace"):
        restored(target, before, tmp_path)
    assert contents(target) == earlier
    done = restored(target, before, tmp_path, replace=True)
    assert contents(target) == contents(database)
    # Nothing is lost: what was there comes back from where it was put.
    assert done.aside.path.parent == tmp_path / "aside"
    restored(target, done.aside, tmp_path, replace=True)
    assert contents(target) == earlier


def test_nothing_is_restored_while_a_job_runs(database, loader, target, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    with acting(target, Role.LOADER) as conn:
        ledger.begin(conn, run_id=uuid4(), job="collect_daily", parameters={}, clock=CLOCK)
    before = contents(target)
    with pytest.raises(ConfigError, match="collect_daily is running"):
        restored(target, made, tmp_path, replace=True)
    with pytest.raises(DatabaseError, match=r"nothing was changed.*a job is running"):  # it began after the look
        load(target, made)
    assert contents(target) == before


def test_a_restore_that_is_killed_half_way_has_changed_nothing(database, loader, settings, tmp_path):
    fill(loader)
    made = backup(database, tmp_path, CLOCK)
    with loader.begin() as conn:
        conn.execute(text("UPDATE live.instruments SET name = 'later'"))
    before = contents(database)
    with held_up(database, "radar.snapshot", "ACCESS SHARE") as waits:  # somebody reads: what only reads goes past
        running = command(settings, "db", "restore", made.path, "--replace", "--to", tmp_path)
        waits()
        running.send_signal(signal.SIGKILL)
        running.wait()
    until(lambda: not psutil.pid_exists(running.pid))
    assert contents(database) == before


def test_views_of_others_are_not_dropped_by_the_way(database, loader, target, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    with acting(target) as conn:
        conn.execute(text("CREATE VIEW public.mine AS SELECT count(*) FROM live.candles"))
    with pytest.raises(ConfigError, match=r"public.mine read our tables"):
        restored(target, made, tmp_path)
    with acting(target) as conn:
        assert conn.execute(text("SELECT count FROM public.mine")).scalar_one() == 0
        conn.execute(text("DROP VIEW public.mine"))


def test_a_backup_of_a_newer_program_is_refused(database, loader, target, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    edit(made.path / MANIFEST, lambda told: told.update(schema_version="9999"))
    with pytest.raises(ConfigError, match=r"schema 9999, newer than this program's"):
        restored(target, read(made.path), tmp_path)


def migrated_to(database: Database, version: str) -> None:
    from alembic import command as alembic
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with acting(database) as conn:
        config.attributes["connection"] = conn
        alembic.upgrade(config, version)


def test_a_backup_of_an_older_schema_is_restored_and_brought_up_to_date(target, empty_home, tmp_path):
    with open_database(Settings(home=empty_home, _env_file=None)) as old:
        migrated_to(old, "0006")
        with acting(old, Role.LOADER) as conn:
            for statement in FILL:
                conn.execute(text(statement), {"nasty": NASTY, "run": RUN, "canary": CANARY})
            conn.execute(
                text(
                    "INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host) "
                    "VALUES (:run, 'collect_daily', '{}', 'running', '2024-08-05', '0', 'h')"
                ),
                {"run": RUN},
            )
        made = backup(old, tmp_path, CLOCK)
        held = contents(old, "ops.runs")
    assert made.manifest.schema_version == "0006"
    done = restored(target, made, tmp_path)
    assert (done.version, done.lost) == (head(), 1)
    now = contents(target, "ops.runs")
    assert {name: now[name] for name in held} == held
    assert len(now) > len(held)
    with acting(target, Role.READER) as conn:
        row = conn.execute(text("SELECT state, error, finished_at, attempt FROM api.runs")).one()
        assert row == ("lost", LOST, NOW, 1)
        assert conn.execute(text("SELECT count(*) FROM api.slots")).scalar_one() == 0


def test_a_run_that_was_under_way_is_lost_and_its_slot_is_tried_again(database, loader, target, tmp_path):
    slot = datetime(2026, 11, 25, 3, tzinfo=UTC)
    with loader.begin() as conn:
        ledger.begin(conn, run_id=RUN, job="collect_daily", parameters={}, clock=CLOCK)
        conn.execute(
            text(
                "INSERT INTO ops.slots (job, market, slot, day, state, run_id, attempts, claimed_by, changed_at) "
                "VALUES ('collect_daily', 'KRX', :slot, '2026-11-25', 'running', :run, 1, 'me', :slot)"
            ),
            {"slot": slot, "run": RUN},
        )
    done = restored(target, backup(database, tmp_path, CLOCK), tmp_path)
    assert done.lost == 1
    with acting(target) as conn:
        assert conn.execute(text("SELECT state, error_class FROM ops.runs")).one() == ("lost", "Lost")
        assert conn.execute(text("SELECT state, next_try, reason FROM ops.slots")).one() == ("retrying", NOW, LOST)


def test_a_copy_of_bars_of_before_is_not_believed_after_a_restore(database, loader, tmp_path):
    cache = tmp_path / "cache"

    def closes() -> list[float]:
        with loader.connect() as conn:
            return held_market(conn, "KRX", "1d", cache).bars.columns["close"].tolist()

    def versions() -> tuple[str, int]:
        with loader.connect() as conn:
            return tuple(
                conn.execute(text("SELECT i.id, w.version FROM ops.identity AS i, live.watermarks AS w")).one()
            )

    def say(close: float) -> None:
        with loader.begin() as conn:
            bars(conn, "005930", {"2024-08-05": (close, close, close, close, 1, 1, 8)})

    with loader.begin() as conn:
        know(conn, "005930")
    say(100)
    assert closes() == [100]
    made, first = backup(database, tmp_path, CLOCK), versions()
    say(200)
    assert closes() == [200]
    second = versions()
    copies = {path: path.read_bytes() for path in cache.iterdir()}
    assert len(copies) == 1
    restored(database, made, tmp_path, replace=True)
    third = versions()
    assert third[0] not in {first[0], second[0]}
    assert third[1] >> 20 > second[1] >> 20 > first[1] >> 20  # the numbers of the time that is undone do not come again
    assert closes() == [100]
    for path, content in copies.items():
        path.write_bytes(content)
    assert closes() == [100]

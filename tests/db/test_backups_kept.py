"""Which backups are kept, and that the last good one always is."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from backing import CLOCK, NOW, edit, flip

from chartinsight_lib.backup.keep import Keep, discard, kept
from chartinsight_lib.backup.make import backup
from chartinsight_lib.backup.manifest import MANIFEST, Backup, Manifest, listed, read
from chartinsight_lib.backup.verify import verify
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.migrate import head
from chartinsight_lib.errors import SchemaError


def of(*when: str) -> list[Backup]:
    """Backups that exist on paper alone."""
    base = read_nothing()
    return [Backup(Path(at), replace(base, made_at=datetime.fromisoformat(at).replace(tzinfo=UTC))) for at in when]


def read_nothing() -> Manifest:
    return Manifest(NOW, "id", head(), "0", "18.4", "pg_dump 18", {}, (), {}, 0, "")


def test_the_newest_of_each_day_week_and_month_is_kept_by_a_calendar_worked_by_hand():
    # 2026-11-25 is a Wednesday; its week begins on the 23rd, the weeks before on the 16th, the 9th and the 2nd.
    backups = of("2026-11-25T02:00", "2026-11-25T01:00", "2026-11-24T01:00", "2026-11-22T01:00", "2026-11-21T01:00",
                 "2026-11-15T01:00", "2026-11-14T01:00", "2026-10-31T01:00", "2026-10-01T01:00", "2026-08-15T01:00")  # fmt: skip
    names = {str(path) for path in kept(backups, Keep(daily=2, weekly=3, monthly=3))}
    assert names == {
        "2026-11-25T02:00",  # the newest of its day, week and month
        "2026-11-24T01:00",  # the second day
        "2026-11-22T01:00", "2026-11-15T01:00",  # the Sundays end the second and the third week
        "2026-10-31T01:00", "2026-08-15T01:00",  # the second month that has one, and the third
    }  # fmt: skip


def test_fewer_than_the_rule_asks_for_are_all_kept():
    backups = of("2020-01-01", "2021-01-01")
    assert len(kept(backups, Keep())) == 2


def copies_of(made: Backup, count: int) -> list[Path]:
    """Older backups: the same, said to be of the days before."""
    paths = []
    for days in range(1, count + 1):
        at = NOW - timedelta(days=days)
        path = made.path.with_name(f"{at:%Y%m%dT%H%M%SZ}-{days:08x}")
        shutil.copytree(made.path, path)
        edit(path / MANIFEST, lambda told, at=at: told.update(made_at=at.isoformat()))
        paths.append(path)
    return paths


def test_older_ones_are_discarded_and_nothing_else_in_the_folder_is(database, loader, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    older = copies_of(made, 3)
    edit(older[2] / MANIFEST, lambda told: told.update(database=str(uuid4())))  # another database's
    stranger = tmp_path / "holiday-pictures"
    stranger.mkdir()
    assert discard(tmp_path, made, Keep(daily=1, weekly=0, monthly=0)) == [older[1], older[0]]
    assert {path.name for path in tmp_path.iterdir()} == {made.path.name, older[2].name, stranger.name}


def test_the_last_good_one_is_never_discarded(database, loader, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    (older,) = copies_of(made, 1)
    flip(made.dump)
    with pytest.raises(SchemaError, match="none of the .* newest is whole"):
        discard(tmp_path, made, Keep(daily=1, weekly=0, monthly=0))
    assert older.is_dir() and verify(read(older))


def test_one_made_by_a_clock_that_went_back_is_not_discarded_at_once(database, loader, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    back = backup(database, tmp_path, fixed_clock(NOW - timedelta(days=900)))
    assert discard(tmp_path, back, Keep(daily=1, weekly=0, monthly=0)) == []
    assert {made.path, back.path} == {one.path for one in listed(tmp_path)}

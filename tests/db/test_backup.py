"""Backups: of one moment while others write, whole or not there, compared when restored, and without a secret."""

import json
import os
import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from backing import (
    CANARY,
    CLOCK,
    NOW,
    acting,
    bars,
    command,
    contents,
    definitions,
    edit,
    fill,
    flip,
    held_up,
    restored,
    until,
)
from holding import know
from sqlalchemy import text

from chartinsight_lib import ledger
from chartinsight_lib.backup import tools
from chartinsight_lib.backup.make import backup, dumping_role
from chartinsight_lib.backup.manifest import DUMP, MANIFEST, Backup, find, listed, read
from chartinsight_lib.backup.tools import environment, find_tools, output_of
from chartinsight_lib.backup.verify import rehearse, verify
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import head
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, DatabaseError, NotFound, SchemaError
from chartinsight_lib.jobs import find_job
from chartinsight_lib.runner import run_job
from chartinsight_lib.settings import Settings

# What is backed up, and comes back.


def test_a_restored_database_is_the_same_to_the_last_row_grant_and_number(database, loader, target, tmp_path):
    fill(loader)
    made = backup(database, tmp_path, CLOCK)
    restored(target, made, tmp_path)
    assert contents(target) == contents(database)
    assert contents(target)["live.instruments"] is not None
    assert definitions(target) == definitions(database)
    # A sequence goes on where it stood, and nothing is numbered twice.
    new = text(
        "INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id) "
        "VALUES ('US', 'A', 'A', 'stock', 'USD', 'test', gen_random_uuid()) RETURNING id"
    )
    with acting(target, Role.LOADER) as theirs, acting(database, Role.LOADER) as ours:
        assert theirs.execute(new).scalar_one() == ours.execute(new).scalar_one()
    with acting(target, Role.READER) as conn:
        assert conn.execute(text("SELECT count(*) FROM api.candles_raw")).scalar_one() == 2


def test_the_manifest_says_what_is_in_it(database, loader, tmp_path):
    with loader.begin() as conn:
        know(conn, "005930")
        know(conn, "AAPL", market="US")
        bars(conn, "005930", {"2024-08-05": (1, 1, 1, 1, 1, 1, 8), "2024-08-06": (1, 1, 1, 1, 1, 1, 8)})
        # 20:00 UTC of the 6th is the 7th in Seoul.
        bars(conn, "005930", {"2024-08-06T20:00+00:00": (1, 1, 1, 1, 1, 1, 8)}, timeframe="5m")
        bars(conn, "AAPL", {"2024-08-02": (1, 1, 1, 1, 1, 1, 8)}, market="US")
    told = backup(database, tmp_path, CLOCK).manifest
    assert (told.made_at, told.schema_version, told.code_version) == (NOW, head(), ledger.package_version())
    assert told.newest_days == {"KRX": {"1d": "2024-08-06", "5m": "2024-08-07"}, "US": {"1d": "2024-08-02"}}
    assert {name: table.rows for name, table in told.tables.items() if table.rows} == {
        "live.instruments": 2, "live.candles": 4, "live.watermarks": 3, "ops.identity": 1,
    }  # fmt: skip
    assert told.left_out == ("ops.tokens",)


def test_a_backup_is_private(database, loader, tmp_path):
    made = backup(database, tmp_path / "new", CLOCK)
    modes = {
        path.name: oct(path.stat().st_mode & 0o777) for path in (made.path.parent, made.path, *made.path.iterdir())
    }
    assert modes == {"new": "0o700", made.path.name: "0o700", DUMP: "0o600", MANIFEST: "0o600"}


def test_what_others_write_meanwhile_is_in_it_as_a_whole_or_not_at_all(database, loader, target, tmp_path):
    pair = (
        "INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host) "
        "VALUES (:id, 'pair', '{}', 'succeeded', now(), '', '')",
        "INSERT INTO ops.run_items (run_id, item, state, rows, finished_at) VALUES (:id, 'one', 'done', '{}', now())",
    )
    written, stop = [], threading.Event()

    def write() -> None:
        while not stop.is_set():
            run_id = uuid4()
            with loader.begin() as conn:
                for statement in pair:
                    conn.execute(text(statement), {"id": run_id})
            written.append(run_id)

    made: list[Backup] = []
    writer = threading.Thread(target=write)
    dumper = threading.Thread(target=lambda: made.append(backup(database, tmp_path, CLOCK)))
    writer.start()
    until(lambda: len(written) > 20)
    with held_up(database) as waits:
        dumper.start()
        waits()  # its moment is fixed by now, and nothing has been read yet
        count = len(written)
        until(lambda: len(written) > count + 20)
    dumper.join(60)
    stop.set()
    writer.join(60)
    restored(target, made[0], tmp_path)
    with acting(target) as conn:
        runs = set(conn.execute(text("SELECT run_id FROM ops.runs")).scalars())
        items = set(conn.execute(text("SELECT run_id FROM ops.run_items")).scalars())
    assert runs == items == set(written[: len(runs)])
    assert 20 < len(runs) <= count + 1 < len(written) - 15


def test_a_login_that_may_only_load_makes_the_same_backup(database, loader, tmp_path):
    fill(loader)
    theirs = Database(dict.fromkeys(Role, database.urls[Role.LOADER]))
    assert (dumping_role(theirs), dumping_role(database)) == (Role.LOADER, Role.OWNER)
    one, other = backup(theirs, tmp_path, CLOCK), backup(database, tmp_path, CLOCK)
    assert one.manifest.tables == other.manifest.tables
    assert verify(one)


# Secrets.


def test_what_an_address_demands_of_the_connection_is_demanded_by_pg_dump_too(database):
    url = database.urls[Role.OWNER].update_query_dict({"sslmode": "verify-full", "sslrootcert": "/ca.pem"})
    told = environment(Database(dict.fromkeys(Role, url)), Role.OWNER)
    assert (told["PGSSLMODE"], told["PGSSLROOTCERT"]) == ("verify-full", "/ca.pem")
    assert "PGSSLKEY" not in database.psql_environment(Role.OWNER)


def test_no_password_and_no_token_is_in_a_backup_or_on_a_command_line(database, loader, settings, tmp_path):
    fill(loader)
    credentials = json.loads(next(settings.home.rglob("credentials.json")).read_text())
    seen: set[str] = set()
    with held_up(database) as waits:
        running = command(settings, "db", "backup", "--to", tmp_path)
        waits()
        for process in psutil.process_iter():
            try:
                seen.add("\0".join(process.cmdline()))
            except psutil.Error:
                continue
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said
    (made,) = listed(tmp_path)
    plain = output_of([find_tools(0, reads=18).path("pg_restore"), "--file=-", made.dump])
    written = [said, plain, (made.path / MANIFEST).read_text(), made.dump.read_bytes().decode("latin-1"), *seen]
    secrets = [*credentials.values(), CANARY, CANARY.encode().hex()]
    assert len(secrets) == 6 and any("pg_dump" in line for line in seen)
    assert [secret for secret in secrets for one in written if secret in one] == []
    assert "PASSWORD" not in plain and "005930" in plain


# What goes wrong while a backup is made.


def fingerprints(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_bytes().hex() for path in folder.rglob("*") if path.is_file()}


def test_one_that_is_killed_leaves_nothing_that_looks_whole_and_the_next_one_clears_up(
    database, loader, settings, tmp_path
):
    fill(loader)
    backup(database, tmp_path, CLOCK)
    before = fingerprints(tmp_path)
    with held_up(database) as waits:
        running = command(settings, "db", "backup", "--to", tmp_path)
        waits()
        dumping = [one for one in psutil.Process(running.pid).children(recursive=True) if one.name() == "pg_dump"]
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert len(dumping) == 1
        assert psutil.wait_procs(dumping, timeout=10)[1] == []  # it does not outlive its starter
    names = {path.name for path in tmp_path.iterdir()}
    assert len(listed(tmp_path)) == 1 and len(names) == 2 and any(name.startswith(".") for name in names)
    assert before.items() <= fingerprints(tmp_path).items()
    backup(database, tmp_path, CLOCK)
    assert len(listed(tmp_path)) == len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_nothing_and_is_said(database, loader, settings, tmp_path):
    with loader.begin() as conn:  # what does not compress
        conn.execute(
            text(
                "INSERT INTO ops.quarantine (market, timeframe, rule, action, source, item, source_row, payload, run_id) "
                "SELECT 'KRX', '1d', md5(n::text), 'rejected', md5((n * 3)::text), md5((n * 7)::text), n, '{}', "
                "gen_random_uuid() FROM generate_series(1, 5000) AS n"
            )
        )
    backup(database, tmp_path, CLOCK)
    before = fingerprints(tmp_path)
    limit = 300_000
    assert next(tmp_path.rglob(DUMP)).stat().st_size > limit
    running = command(
        settings, "db", "backup", "--to", tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "pg_dump failed" in said and "Traceback" not in said
    assert fingerprints(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_two_at_a_time_in_one_folder_are_refused(database, loader, tmp_path):
    with held_up(database) as waits:
        first = threading.Thread(target=lambda: backup(database, tmp_path, CLOCK))
        first.start()
        waits()
        with pytest.raises(ConfigError, match="another one is being made"):
            backup(database, tmp_path, CLOCK)
    first.join(60)
    assert len(listed(tmp_path)) == 1


def test_a_folder_that_cannot_be_is_said(database, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        backup(database, tmp_path / "file" / "backups", CLOCK)


def test_programs_that_are_too_old_are_said_with_what_to_install(monkeypatch):
    monkeypatch.setattr(tools, "client_folders", lambda: [(18, Path("/c")), (15, Path("/a")), (16, Path("/b"))])
    assert [find_tools(15).major, find_tools(17).major, find_tools(15, reads=16).major] == [15, 18, 16]
    with pytest.raises(ConfigError, match=r"PostgreSQL 19 or newer are needed, and this machine has 15, 16, 18\..*-19"):
        find_tools(19)


# What is wrong with a backup.


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda path: flip(path / DUMP), "SHA-256 differs"),
    "the end": (lambda path: os.truncate(path / DUMP, 1000), "has 1,000 bytes"),
    "the dump": (lambda path: (path / DUMP).unlink(), "its dump is gone"),
    "a table": (
        lambda path: edit(
            path / MANIFEST, lambda told: told["tables"].update({"ops.more": {"rows": 1, "digest": "1"}})
        ),
        "lacks ops.more",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_backup_that_was_damaged_or_tampered_with_is_refused(database, loader, target, tmp_path, what):
    fill(loader)
    made = backup(database, tmp_path, CLOCK)
    damage, message = DAMAGE[what]
    damage(made.path)
    before = contents(target)
    with pytest.raises(SchemaError, match=message):
        restored(target, find("newest", tmp_path), tmp_path)
    assert contents(target) == before


def test_one_whose_manifest_is_gone_or_of_another_format_is_none(database, loader, tmp_path):
    made = backup(database, tmp_path, CLOCK)
    edit(made.path / MANIFEST, lambda told: told.update(format=2))
    with pytest.raises(SchemaError, match="another format"):
        read(made.path)
    (made.path / MANIFEST).unlink()
    with pytest.raises(SchemaError, match="cannot be read"):
        read(made.path)
    with pytest.raises(NotFound, match="there is none"):
        find("newest", tmp_path)


def test_a_row_that_is_not_what_the_manifest_says_undoes_the_whole_restore(database, loader, target, tmp_path):
    fill(loader)
    made = backup(database, tmp_path, CLOCK)
    edit(made.path / MANIFEST, lambda told: told["tables"]["ops.allowances"].update(digest="1"))
    before, defined = contents(target), definitions(target)
    with pytest.raises(DatabaseError, match=r"nothing was changed.*ops.allowances has 500 rows with the checksum"):
        restored(target, read(made.path), tmp_path)
    assert (contents(target), definitions(target)) == (before, defined)


def test_a_rehearsal_restores_on_a_server_of_its_own_and_leaves_nothing(database, loader, tmp_path, monkeypatch):
    fill(loader)
    made = backup(database, tmp_path / "backups", CLOCK)
    place = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    place.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    assert f"{made.manifest.rows:,} rows in {len(made.manifest.tables)} tables are the same" in rehearse(made)
    assert list(place.iterdir()) == []
    edit(made.path / MANIFEST, lambda told: told["tables"]["live.candles"].update(rows=3))
    with pytest.raises(DatabaseError, match="live.candles has 2 rows"):
        rehearse(read(made.path))
    shutil.rmtree(place)


# The commands.


def test_the_commands_back_up_check_and_restore(empty_home):
    settings = Settings(home=empty_home, _env_file=None)

    def run(*arguments: str) -> tuple[int, str]:
        running = command(settings, *arguments)
        said, _ = running.communicate(timeout=120)
        return running.returncode, said

    assert run("db", "upgrade")[0] == 0
    with open_database(settings) as database:  # the server stays up meanwhile, which saves a start for each command
        with acting(database, Role.LOADER) as conn:
            know(conn, "005930")
        check_the_commands(run, settings)


def check_the_commands(run: Callable[..., tuple[int, str]], settings: Settings) -> None:
    code, said = run("db", "backup")
    assert code == 0 and "rows of" in said
    assert len(listed(settings.backups)) == 1
    code, said = run("db", "check", "newest", "--json")
    assert (code, [one["good"] for one in json.loads(said)]) == (0, [True, True])
    code, said = run("db", "restore", "newest")
    assert code == 2 and "--replace" in said
    code, said = run("db", "restore", "newest", "--replace")
    assert code == 0 and "put aside" in said and "restored" in said
    assert len(listed(settings.backups)) == 2
    flip(listed(settings.backups)[-1].dump)
    code, said = run("db", "check", "newest")
    assert code == 1 and "WRONG" in said and "-> " in said
    code, said = run("db", "check")
    assert code == 0 and "WRONG" not in said
    assert run("db", "restore", "nonsense")[0] == 2


def test_the_job_backs_up_with_the_login_of_the_jobs(database, loader, settings, tmp_path, monkeypatch):
    fill(loader)
    monkeypatch.setenv("CHARTINSIGHT_BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("CHARTINSIGHT_RUNS_DIR", str(tmp_path / "runs"))
    here = settings.model_copy(update={"runs_dir": tmp_path / "runs"})
    run = run_job(database, here, find_job(here.project, "backup"), {})
    assert "live.candles" in run.output.read_text()
    (made,) = listed(tmp_path / "backups")
    assert verify(made)
    assert made.manifest.tables["live.candles"].rows == 2

"""The log: whole lines of many processes, bounded in size, read by people, and without a secret."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from chartinsight_lib import logs
from chartinsight_lib.settings import Settings
from chartinsight_lib.sources import credentials

RUN = UUID("3f2c0000-0000-4000-8000-000000000001")
OTHER = UUID("77770000-0000-4000-8000-000000000002")
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO   |WARNING|ERROR  ) (\S+) (\S+) (.*)")
WRITER = """
import logging, sys
from pathlib import Path
from chartinsight_lib.logs import LogFile
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
logger = logging.getLogger("chartinsight_lib.writer")
logger.addHandler(LogFile(folder, most_bytes=20_000, kept=1000))
sys.stdin.read(1)  # all begin at once
for number in range(count):
    logger.warning("%s-%05d %s|", name, number, "x" * (number % 300))
"""
logger = logging.getLogger("chartinsight_lib.somewhere")


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings under which this process logs, until the test ends."""
    monkeypatch.setattr(logs, "_concealed", set())
    settings = Settings(
        home=tmp_path, database_url=SecretStr("postgresql://me:p%40ss-wörd-1@db/tradesmart"),
        kiwoom_secretkey=SecretStr("canary/secretkey+1"), dart_key=SecretStr("d" * 40), _env_file=None,
    )  # fmt: skip
    yield settings
    library = logging.getLogger(logs.LIBRARY)
    for handler in [found for found in library.handlers if isinstance(found, logs.LogFile)]:
        library.removeHandler(handler)
    library.setLevel(logging.NOTSET)


def written(home: Path) -> list[str]:
    return (home / "logs" / logs.FILE).read_text(encoding="utf-8").splitlines()


def test_a_line_says_time_level_run_job_and_message(configured):
    logs.configure(configured, run_id=RUN, job="collect_daily")
    logger.warning("kiwoom: %d of %d", 3, 4)
    (line,) = written(configured.home)
    found = LINE.fullmatch(line)
    assert found
    assert found.groups() == ("WARNING", str(RUN), "collect_daily", "kiwoom: 3 of 4")


def test_without_a_run_a_line_says_so(configured):
    logs.configure(configured)
    logger.info("hello")
    assert [LINE.fullmatch(line).groups()[1:] for line in written(configured.home)] == [("-", "-", "hello")]


def test_configured_twice_a_line_is_written_once(configured):
    logs.configure(configured)
    logs.configure(configured, run_id=RUN)
    logger.info("hello")
    assert len(written(configured.home)) == 1


def test_threads_that_work_for_different_runs_say_which(configured):
    logs.configure(configured)
    both = threading.Barrier(2, timeout=30)

    def work(run_id: UUID, job: str) -> None:
        with logs.run(run_id, job):
            both.wait()
            logger.info("mine")

    threads = [threading.Thread(target=work, args=pair) for pair in ((RUN, "one"), (OTHER, "two"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.info("after")
    said = {LINE.fullmatch(line).groups()[1:] for line in written(configured.home)}
    assert said == {(str(RUN), "one", "mine"), (str(OTHER), "two", "mine"), ("-", "-", "after")}


def test_the_log_is_private(configured):
    before = os.umask(0)
    try:
        logs.configure(configured)
        logger.info("hello")
    finally:
        os.umask(before)
    folder = configured.home / "logs"
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / logs.FILE)] == ["0o700", "0o600"]


SECRETS = {
    "a key of the settings": ("asked with canary/secretkey+1", "canary/secretkey"),
    "a key in an address": ("GET https://x/y?key=canary%2Fsecretkey%2B1", "canary%2F"),
    "the password of the database": ("password is p@ss-wörd-1", "ss-w"),
    "the address of the database": ("at postgresql://me:p%40ss-wörd-1@db/tradesmart", "ss-w"),
    "a password of nobody's settings": ("at postgresql://you:open-sesame@db:5432/x", "sesame"),
    "a bearer token": ("{'authorization': 'Bearer abc.def-123_x'}", "abc.def"),
    "a token in JSON": ('{"token": "WQJCwyqInphKnR3b", "code": 3}', "WQJC"),
    "a key in a query": ("/api/list.json?crtfc_key=0123456789abcdef&page=2", "0123456789"),
}


@pytest.mark.parametrize("what", SECRETS)
def test_no_secret_is_written(configured, what):
    message, secret = SECRETS[what]
    logs.configure(configured)
    logger.info("%s", message)
    try:
        raise ValueError(message)
    except ValueError:
        logger.exception("it failed")
    text = "\n".join(written(configured.home))
    assert secret not in text
    assert text.count(logs.HIDDEN) == 2 and "ValueError" in text


def test_what_a_key_stands_beside_stays_legible(configured):
    logs.configure(configured)
    logger.info("GET /list?crtfc_key=0123456789&page=2 from postgresql://me:open-sesame@db/x")
    assert written(configured.home)[0].endswith(
        "GET /list?crtfc_key=[hidden]&page=2 from postgresql://me:[hidden]@db/x"
    )


def test_a_secret_told_later_is_concealed_too(configured):
    logs.configure(configured)
    logs.conceal("from-the-keyring")
    logger.info("key from-the-keyring")
    assert "from-the-keyring" not in written(configured.home)[0]


def test_keys_of_the_keyring_are_concealed_once_they_are_used(configured, monkeypatch):
    monkeypatch.setattr("keyring.get_password", lambda _service, name: f"canary-of-{name}")
    logs.configure(configured)
    credentials(configured.model_copy(update={"kiwoom_secretkey": None}))
    logger.info("canary-of-kiwoom_appkey and canary-of-kiwoom_secretkey")
    assert written(configured.home)[0].endswith("[hidden] and [hidden]")


def test_a_text_with_more_lines_cannot_pass_for_records(configured):
    logs.configure(configured)
    logger.info("first\n2026-01-01T00:00:00.000Z ERROR   - - forged\r\x85more")
    assert [line[:4] == "    " for line in written(configured.home)] == [False, True, True, True]
    assert len(list(logs.read(configured.home / "logs"))) == 1


def test_records_are_chosen_by_run_and_job(configured):
    for run_id, job in ((RUN, "one"), (OTHER, "one"), (RUN, "two")):
        logs.configure(configured, run_id=run_id, job=job)
        logger.info("said\nin two lines")
    folder = configured.home / "logs"

    def chosen(**which: str) -> list[tuple[str, str]]:
        return [tuple(record.split()[2:4]) for record in logs.read(folder, **which)]

    assert chosen(run="3f2c") == [(str(RUN), "one"), (str(RUN), "two")]
    assert chosen(job="one") == [(str(RUN), "one"), (str(OTHER), "one")]
    assert chosen(run=str(RUN), job="two") == [(str(RUN), "two")]
    assert all(record.endswith("\n    in two lines") for record in logs.read(folder))


def record(number: int) -> logging.LogRecord:
    return logging.LogRecord(
        "x", logging.INFO, "x", 1, f"{number:03d} " + "x" * 95, None, None
    )  # 100 bytes with its end


def test_files_are_bounded_in_size_and_number_and_the_oldest_goes(tmp_path):
    handler = logs.LogFile(tmp_path, most_bytes=1000, kept=2)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for number in range(45):  # 10 in each file: 4 full ones, and 5 more
        handler.emit(record(number))
    firsts = {path.name: (path.read_text()[:3], path.stat().st_size) for path in tmp_path.iterdir()}
    assert firsts == {logs.FILE: ("040", 500), f"{logs.FILE}.1": ("030", 1000), f"{logs.FILE}.2": ("020", 1000)}


def test_a_rotation_that_was_cut_off_loses_no_file(tmp_path):
    handler = logs.LogFile(tmp_path, most_bytes=100, kept=3)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for number in range(4):
        handler.emit(record(number))
    # As if killed after the first of the renames that the next record needs: 3 is gone by rule, 2 became 3.
    (tmp_path / f"{logs.FILE}.2").replace(tmp_path / f"{logs.FILE}.3")
    handler.emit(record(4))
    assert {path.name: path.read_text()[:3] for path in tmp_path.iterdir()} == {
        logs.FILE: "004", f"{logs.FILE}.1": "003", f"{logs.FILE}.2": "002", f"{logs.FILE}.3": "001",
    }  # fmt: skip


def test_three_processes_that_write_and_rotate_lose_no_line_and_tear_none(tmp_path):
    count = 1500
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name, str(count)], stdin=subprocess.PIPE)
        for name in "abc"
    ]
    for writer in writers:
        writer.stdin.write(b"!")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    wanted = [f"{name}-{number:05d} {'x' * (number % 300)}|" for name in "abc" for number in range(count)]
    assert sorted(lines) == sorted(wanted)
    assert len(list(tmp_path.iterdir())) > 20
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000


def test_a_writer_that_is_killed_leaves_the_log_to_the_others(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, "k", "10000000"], stdin=subprocess.PIPE)
    killed.stdin.write(b"!")
    killed.stdin.flush()
    while not list(tmp_path.glob("*.5")):  # it is in the midst of it
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = subprocess.run([sys.executable, "-c", WRITER, tmp_path, "a", "100"], input=b"!", timeout=30, check=True)
    assert done.returncode == 0
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sum(line.startswith("a-") for line in lines) == 100
    assert all(line.endswith("|") for line in lines)


def test_one_who_follows_sees_every_record_across_rotations(tmp_path):
    handler = logs.LogFile(tmp_path, most_bytes=500, kept=50)
    handler.setFormatter(logging.Formatter("2026-01-01T00:00:00.000Z INFO    - - %(message)s"))
    handler.emit(record(0))
    following = logs.follow(tmp_path)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(next(following) for _ in range(40)), daemon=True)
    began = threading.Event()
    # The place from which it follows is taken at the first `next`: the thread is let go once that is done.
    place = logs._written

    def noting(*args: object) -> object:
        found = place(*args)
        began.set()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_written", noting)
        reader.start()
        assert began.wait(30)
        for number in range(1, 41):
            handler.emit(record(number))
        reader.join(30)
    assert [line.split()[4] for line in seen] == [f"{number:03d}" for number in range(1, 41)]


def test_a_log_of_another_program_is_cut_to_its_newest_lines_while_it_is_held_open(tmp_path):
    path = tmp_path / "server.log"
    with path.open("ab", buffering=0) as held:
        for number in range(50):
            held.write(f"line {number:04d}\n".encode())  # 10 bytes each
        logs.shorten(path, most_bytes=500)
        assert path.stat().st_size == 500
        logs.shorten(path, most_bytes=400)
        assert path.read_text().splitlines() == [f"line {number:04d}" for number in range(41, 50)]
        held.write(b"line 0050\n")
    assert path.read_text().splitlines()[-2:] == ["line 0049", "line 0050"]
    logs.shorten(tmp_path / "none.log")


def test_a_log_that_cannot_be_written_is_a_warning_without_the_message(configured):
    (configured.home / "logs").write_text("a file where the folder should be")
    logs.configure(configured)
    with pytest.warns(UserWarning, match="cannot be written") as warned:
        logger.warning("open-sesame")
    assert "open-sesame" not in str(warned[0].message)


def test_a_wrong_record_is_a_warning_without_its_arguments(configured, monkeypatch):
    monkeypatch.setattr(logging.getLogger(logs.LIBRARY), "propagate", False)  # pytest's own handler raises
    logs.configure(configured)
    with pytest.warns(UserWarning, match="TypeError") as warned:
        logger.warning("%d", "open-sesame")
    assert "open-sesame" not in str(warned[0].message)


def test_configuring_takes_nothing_heavy_along():
    program = (
        "import sys, json; from chartinsight_lib import logs; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"pandas", "numpy", "sqlalchemy", "plotly", "papermill"} & set(json.loads(done.stdout)) == set()

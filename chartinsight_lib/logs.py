"""The log of the library: one file that all processes of a data directory write, bounded in size, free of secrets.

    <home>/logs/chartinsight.log, chartinsight.log.1 (older) … chartinsight.log.9

    2026-11-25T03:20:11.123Z WARNING 3f2c…-… collect_daily kiwoom: the token is renewed, because the server refused it

Time is the machine's, in UTC, also where a simulator drives the clock: it is when something happened here. A record is one line;
what it has more (a trace) follows indented, so that no text can pass for a record. A writer holds the lock of the folder while it
appends a whole record, or gives the files their next numbers; the kernel frees the lock of one that is killed. So no line is
torn, and none is written into a file that another process has put aside. A file per process would need no lock, but a run has
several processes, and no bound would hold for all of their files together.
"""

import fcntl
import logging
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

from pydantic import SecretStr

from chartinsight_lib.settings import Settings

LIBRARY = "chartinsight_lib"
"""The logger above those of all modules, which are called after them."""
FILE = "chartinsight.log"
MOST_BYTES = 4 * 2**20
KEPT = 9
"""So many files there are beside the one that is written."""
HIDDEN = "[hidden]"
_SHORTEST = 4  # what is shorter is no secret, and taking it out would leave no text legible
_POLL_S = 0.5

# A password in an address; a bearer token; and what is called a secret, as in appkey=…, "secretkey": "…", crtfc_key=….
_IN_ADDRESS = re.compile(r"(?<=://)([^\s:/@]*):[^\s/]*@(?=[^\s@/])")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+")
_NAMED = re.compile(
    r"(?i)((?:\b|_)(?:password|passwd|pgpassword|appkey|secretkey|crtfc_key|access_token|token)['\"]?\s*[=:]\s*['\"]?)"
    r"(?!\s)[^\s'\",;&)}\]]+"
)
_HEAD = re.compile(r"(?P<when>\d{4}-\d\d-\d\dT[\d:.]+Z) (?P<level>[A-Z]+) +(?P<run>\S+) (?P<job>\S+) ")

_concealed: set[str] = set()
_about: ContextVar[tuple[str, str] | None] = ContextVar("the run that a thread works for", default=None)


def configure(settings: Settings, *, run_id: UUID | None = None, job: str | None = None) -> None:
    """Have what the library logs from now on written to the log of `settings`, as said by a run (default: that of the settings).

    The second call takes the place of the first. Nothing is opened before something is logged; a log that cannot be written is
    a warning of Python's, and stops no work.
    """
    conceal(*_secrets_of(settings))
    handler = LogFile(settings.home / "logs")
    handler.setFormatter(_Lines(run_id or settings.run_id, job))
    logger = logging.getLogger(LIBRARY)
    for old in [old for old in logger.handlers if isinstance(old, LogFile)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def conceal(*secrets: str) -> None:
    """Keep these values out of what this process logs, in the spellings of an address, too."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            _concealed.update({secret, quote(secret, safe="")})


@contextmanager
def run(run_id: UUID, job: str) -> Iterator[None]:
    """Say that what this thread logs in the `with` is about a run."""
    token = _about.set((str(run_id), job))
    try:
        yield
    finally:
        _about.reset(token)


def redact(text: str) -> str:
    """Return a text without the secrets that are known, passwords in addresses, bearer tokens and what is called a secret."""
    for secret in sorted(_concealed, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    return _NAMED.sub(rf"\1{HIDDEN}", text)


def _secrets_of(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
    if settings.database_url is not None:
        with suppress(ValueError):
            yield unquote(urlsplit(settings.database_url.get_secret_value()).password or "")


class _Lines(logging.Formatter):
    def __init__(self, run_id: UUID | None, job: str | None) -> None:
        super().__init__()
        self._about = (str(run_id) if run_id else "-", job or "-")

    def format(self, record: logging.LogRecord) -> str:
        run_id, job = _about.get() or self._about
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        first, *more = redact(super().format(record)).splitlines() or [""]
        return "\n    ".join([f"{when} {record.levelname:<7} {run_id} {job} {first}", *more])


class LogFile(logging.Handler):
    """Appends records to a file that other processes write, too; puts it aside when it would grow over `most_bytes`."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES, kept: int = KEPT) -> None:
        super().__init__()
        self.folder, self._most_bytes, self._kept = folder, most_bytes, kept

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._append(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            warnings.warn(
                f"logs: {self.folder} cannot be written ({error.strerror}); what is logged is lost.", stacklevel=2
            )
        except Exception as error:  # a wrong `%d` somewhere: the arguments may be secret, so the kind has to do
            warnings.warn(
                f"logs: a record of {record.name}, line {record.lineno}: {type(error).__name__}.", stacklevel=2
            )

    def _append(self, line: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / FILE
        with _locked(self.folder, fcntl.LOCK_EX):
            with suppress(FileNotFoundError):
                if (size := path.stat().st_size) and size + len(line) > self._most_bytes:
                    self._put_aside(path)
            # Opened for each record: nothing to be stale after a rotation by another process, or after a fork.
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(file).st_size
                if os.write(file, line) < len(line):  # the disk is full: none of it rather than a part
                    os.ftruncate(file, size)
                    raise OSError(28, "no space left on the device")
            finally:
                os.close(file)

    def _put_aside(self, path: Path) -> None:
        """Give the files their next numbers, up to the first number that is free: so one cut off in the midst loses nothing."""
        numbered = [path, *(path.with_name(f"{FILE}.{number}") for number in range(1, self._kept + 1))]
        free = next((place for place, file in enumerate(numbered) if not file.exists()), self._kept)
        for place in range(free, 0, -1):
            numbered[place - 1].replace(numbered[place])


def shorten(path: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Keep the last quarter of `most_bytes` of a log that has more: for the logs of other programs, which append to a file that
    they hold open, and of which a line may be lost that is written just now."""
    try:
        with path.open("r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size <= most_bytes:
                return
            file.seek(size - most_bytes // 4)
            file.readline()  # what is left of a line
            rest = file.read()
            file.seek(0)
            file.truncate()
            file.write(rest)
    except FileNotFoundError:
        return


def read(folder: Path, *, run: str | None = None, job: str | None = None) -> Iterator[str]:
    """Yield the records there are, each with its indented lines and without the last end of line, the oldest first.

    `run` leaves those of runs whose id begins so, `job` those of one job.
    """
    yield from _chosen(_written(folder, None)[1], run, job)


def follow(folder: Path, *, run: str | None = None, job: str | None = None) -> Iterator[str]:
    """Yield the records that are written from now on, for ever, chosen as by `read`."""
    place, _ = _written(folder, None)
    while True:
        place, lines = _written(folder, place)
        yield from _chosen(lines, run, job)
        time.sleep(_POLL_S)


def _chosen(lines: Iterable[str], run: str | None, job: str | None) -> Iterator[str]:
    record: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("    "):
            record.append(line)
            continue
        if (
            record
            and (head := _HEAD.match(record[0]))
            and head["run"].startswith(run or "")
            and job in {None, head["job"]}
        ):
            yield "\n".join(record)
        record = [line]


class _Place(NamedTuple):
    """Up to where was read: how many bytes of which file, which keeps its inode when it gets another name."""

    inode: int
    at: int


def _written(folder: Path, since: _Place | None) -> tuple[_Place | None, list[str]]:
    """Return the lines written since a place, of that file and of every newer one, and the place at which they end."""
    if not folder.is_dir():
        return None, []
    lines: list[str] = []
    place = since
    with _locked(folder, fcntl.LOCK_SH):  # no writer is in the midst of a record, and no file changes its name
        files = [(path.stat().st_ino, path) for path in sorted(folder.glob(f"{FILE}*"), key=_number, reverse=True)]
        inodes = [inode for inode, _ in files]
        first = inodes.index(since.inode) if since and since.inode in inodes else 0
        for inode, path in files[first:]:
            content = path.read_bytes()
            lines += (
                content[since.at if since and since.inode == inode else 0 :].decode("utf-8", "replace").splitlines()
            )
            place = _Place(inode, len(content))
    return place, lines


def _number(path: Path) -> int:
    """How old a file is: that of the log without a number is 0."""
    return int(path.suffix[1:]) if path.suffix[1:].isdecimal() else 0


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, kind)
        yield
    finally:
        os.close(opened)

"""One process that has everything imported and waits for the next run, which then starts at once.

It is used once and replaced, so each run has a kernel that nobody used before. It is thrown away when it would not be what a new
one is: another environment, or a module that is newer than it. Without it a run starts as it does without this module.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from chartinsight_lib.db.engine import Database
from chartinsight_lib.running.job_environment import job_environment
from chartinsight_lib.running.notebook_process import RUN_ID, NotebookProcess
from chartinsight_lib.settings import Settings

_PACKAGE = Path(__file__).parents[1]
_RETRY_S = 60.0
"""A process that died before it was used is not replaced sooner: the next one would likely do the same."""
_OLD_LOG_S = 86_400


@dataclass(frozen=True, slots=True)
class _Spare:
    process: NotebookProcess
    key: str


class Warm:
    """Keeps one process that waits. Use it in a `with`; its end is the end of that process."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._lock = threading.Lock()
        self._spare: _Spare | None = None
        self._not_before = 0.0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process that waits."""
        with self._lock:
            self._closed = True
            self._discard()

    def refill(self) -> None:
        """Start a process that waits, where there is none that will do. Call it again and again, from a thread that lives as
        long as this process: it ends with that thread."""
        with self._lock:
            key = self._key(job_environment(self._database, self._settings, UUID(int=0)))
            if self._spare is not None and not self._spare.process.alive:
                self._not_before = monotonic() + _RETRY_S
            if self._closed or (self._spare is not None and self._spare.process.alive and self._spare.key == key):
                return
            self._discard()
            if monotonic() < self._not_before:
                return
            run_id = uuid4()
            with suppress(OSError):  # where the folder cannot be made, the run itself says so
                self._settings.runs.mkdir(parents=True, exist_ok=True)
                log = self._settings.runs / f".spare-{run_id.hex[:8]}.log"
                environment = job_environment(self._database, self._settings, run_id)
                process = NotebookProcess(environment, project=self._settings.project, log=log, warm=True)
                self._spare = _Spare(process, key)

    def ready(self, within_s: float) -> bool:
        """Wait for up to so long until the process that waits could begin at once; return whether it could."""
        with self._lock:
            process = self._spare.process if self._spare is not None else None
            until = monotonic() + within_s
            while process is not None and not process.ready and (left_s := until - monotonic()) > 0:
                if process.events(left_s) is None:
                    return False
            return process is not None and process.ready

    def take(self) -> NotebookProcess | None:
        """Return a process that waits, which is the caller's to use or to give back; None: there is none that will do."""
        with self._lock:
            spare, self._spare = self._spare, None
            if spare is None:
                return None
            key = self._key(job_environment(self._database, self._settings, UUID(int=0)))
            if spare.process.alive and spare.key == key:
                return spare.process
            self._spare = spare
            self._discard()
            return None

    def give_back(self, process: NotebookProcess) -> None:
        """Take back a process that got no order."""
        with self._lock:
            if self._spare is None and not self._closed:
                key = self._key(job_environment(self._database, self._settings, UUID(int=0)))
                self._spare = _Spare(process, key)
                return
        process.end()
        process.log.unlink(missing_ok=True)

    def _discard(self) -> None:
        if self._spare is not None:
            self._spare.process.end()
            self._spare.process.log.unlink(missing_ok=True)
            self._spare = None

    def _key(self, environment: Mapping[str, str]) -> str:
        """Return what a process has to have been started with to be as good as a new one."""
        told = {name: value for name, value in environment.items() if name != RUN_ID}
        newest = max(path.stat().st_mtime_ns for path in _PACKAGE.rglob("*.py"))
        return hashlib.sha256(json.dumps([sorted(told.items()), newest]).encode()).hexdigest()

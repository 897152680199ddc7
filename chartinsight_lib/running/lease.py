"""Holds the record of a run that is under way: the lock that says it is alive, on a connection of its own, kept for as long.

A server that restarts takes the lock with it. It is taken again as soon as the server answers; until then the notebook goes on,
and its own writes fail by themselves. Whether the run still counts as running is asked all the while: one that was given up has
no business going on.
"""

import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError

from chartinsight_lib import ledger
from chartinsight_lib.errors import DatabaseError, Fenced

EVERY_S = 2.0
PATIENCE_S = 60.0
"""So long is tried to write the record of a run that has ended."""
_JOIN_S = 5.0
_OF_OURS = (DataError, IntegrityError, ProgrammingError)  # the statement is wrong, and stays it
T = TypeVar("T")


class Lease:
    """A run's lock on `conn`, which is this object's from now on. Ended by `record` or `close`."""

    def __init__(
        self, pool: Engine, conn: Connection, run_id: UUID, *, every_s: float = EVERY_S, patience_s: float = PATIENCE_S
    ) -> None:
        self._pool, self._conn, self._run_id = pool, conn, run_id
        self._every_s, self._patience_s = every_s, patience_s
        self._lost: str | None = None
        self._ended = threading.Event()
        # Asking a server that is cut off can take minutes; the limits of the run are kept meanwhile by another thread.
        self._keeper = threading.Thread(target=self._keep, name=f"lease of {run_id}", daemon=True)
        self._keeper.start()

    def lost(self) -> str | None:
        """Say why the run is nobody's any more; None: it is ours."""
        return self._lost

    def record(self, write: Callable[[Connection], T]) -> T:
        """Write the run's end in one transaction, again and again while the server is away.

        Raises:
            DatabaseError: it stayed away. The record says `running`, until somebody finds the lock free.
        """
        self._stop_keeping()
        until, wait_s = monotonic() + self._patience_s, 0.05
        conn = None if self._keeper.is_alive() else self._conn
        while True:
            try:
                if conn is None or conn.closed:
                    conn = self._pool.connect()
                with conn.begin():
                    written = write(conn)
                self._conn = conn
                return written
            except DBAPIError as error:
                if isinstance(error, _OF_OURS):
                    raise
                if monotonic() > until:
                    raise DatabaseError(
                        f"run {self._run_id}: it has ended, and the database did not take its record within "
                        f"{self._patience_s:.0f} s. It will be called lost. Start the database."
                    ) from error
                _drop(conn)
                conn = None
                sleep(wait_s)
                wait_s = min(2 * wait_s, 2.0)

    def close(self) -> None:
        """Free the lock."""
        self._stop_keeping()
        if not self._keeper.is_alive():
            _drop(self._conn)

    def _stop_keeping(self) -> None:
        self._ended.set()
        self._keeper.join(_JOIN_S)

    def _keep(self) -> None:
        wait_s = self._every_s
        while not self._ended.wait(wait_s):
            try:
                with self._conn.begin():
                    running = ledger.is_running(self._conn, self._run_id)
            except SQLAlchemyError:
                # Sooner than others look for runs whose lock is free.
                wait_s = self._every_s if self._resume() else self._every_s / 10
                continue
            wait_s = self._every_s
            if not running:
                self._lost = f"run {self._run_id}: it counts as ended, so it was stopped"
                return

    def _resume(self) -> bool:
        """Take the lock again on a new connection; return whether that succeeded."""
        _drop(self._conn)
        try:
            conn = self._pool.connect()
        except SQLAlchemyError:
            return False
        try:
            with conn.begin():
                # Where the old connection has not been noticed to be dead it still holds the lock, and that will do.
                conn.execute(
                    text("SELECT set_config('lock_timeout', :most, true)"), {"most": f"{self._every_s * 1000:.0f}ms"}
                )
                ledger.resume(conn, self._run_id)
        except Fenced as fenced:
            self._lost = str(fenced)
        except SQLAlchemyError:
            _drop(conn)
            return False
        self._conn = conn
        return True


def _drop(conn: Connection | None) -> None:
    """Close a connection for good: its session's locks go with it."""
    if conn is not None and not conn.closed:
        conn.invalidate()
        conn.close()

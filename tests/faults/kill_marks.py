"""What the notebooks of `test_runs_killed` do, imported by their kernels: marks in the database that tell what a run really did.

A mark is written as collected bars are: in a transaction that holds the run's fence, together with the record of an item. What
keeps a run busy meanwhile is chosen to be hard to stop.
"""

from __future__ import annotations

import math
import subprocess

from sqlalchemy import text

from chartinsight_lib import ledger
from chartinsight_lib.db.engine import open_engine
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings

SHOWN = 2_000_000
"""So many characters the cell shows that shows much."""


class Marks:
    """Marks of the run of this kernel."""

    def __init__(self) -> None:
        self._settings = Settings.from_env()
        self._engine = open_engine(self._settings, Role.LOADER)

    def leave(self, step: int, *, last: bool = False) -> None:
        """Leave mark number `step`, holding the fence a moment before and after; `last`: the run has done all it is there for."""
        run_id = self._settings.run_id
        assert run_id is not None
        with self._engine.begin() as conn:
            ledger.fence(conn, run_id)
            conn.execute(text("SELECT pg_sleep(0.1)"))
            conn.execute(
                text("INSERT INTO kills.marks (run_id, step, last) VALUES (:run_id, :step, :last)"),
                {"run_id": run_id, "step": step, "last": last},
            )
            ledger.record_item(conn, run_id, f"mark {step}", rows={"inserted": 1}, clock=self._settings.clock)
            conn.execute(text("SELECT pg_sleep(0.1)"))


def show_much() -> None:
    """Show two megabytes."""
    line = "0123456789" * 8
    for _ in range(SHOWN // len(line)):
        print(line)  # noqa: T201 - it is what this is for


def work_in_c() -> None:
    """Work for about a second in one call, which hears no signal and lets no other thread run."""
    math.factorial(90_000)


def leave_a_child() -> None:
    """Start a process in a session of its own, and forget it."""
    subprocess.Popen(["sleep", "600"], start_new_session=True)

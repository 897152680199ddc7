"""Whom to tell when something went wrong, or when the market does what somebody waits for.

    conditions ─┐
                ├──▶ history (ops.alerts, each once) ──▶ delivery (ops.notices) ──▶ sending ──▶ apprise, in a process of its own
    rules ──────┘

`check` goes this way once. It is called by whoever runs jobs, in as many processes as there are: the database decides who tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chartinsight_lib.alerts.alert import Alert, Level

if TYPE_CHECKING:
    from collections.abc import Callable

    from chartinsight_lib.alerts.checking import Checked
    from chartinsight_lib.db.engine import Database
    from chartinsight_lib.settings import Settings

__all__ = ["Alert", "Level", "check"]


def check(database: Database, settings: Settings, market: str, say: Callable[[str], None]) -> Checked:
    """Find what holds now and what happened since the last check, record it, and tell it; see `checking`."""
    from chartinsight_lib.alerts.checking import check as checked

    return checked(database, settings, market, say)

"""Write down what the package exchange_calendars says, as `published.csv`. Run once for each new version of it:

    python -c "from chartinsight_lib.calendars import published; published.write()"

Building its Korean calendar takes more than a second in each process: too long for a command and for a page. A test holds the
table to the package that is installed.
"""

import csv
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from chartinsight_lib.calendars.tables import CLOSED, EXAM, HOURS, LATE, RULES, Line, regular_session
from chartinsight_lib.domain import MARKETS

ZONES = {"XKRX": MARKETS["KRX"].zone, "XNYS": MARKETS["US"].zone}
PATH = Path(__file__).with_name("published.csv")


def lines(exchange: str) -> Iterator[Line]:
    """Yield, by day, where the package differs from the rules of an exchange; its weekdays only, for it has no Saturdays."""
    from exchange_calendars import get_calendar  # type: ignore[import-untyped]

    rules = RULES[exchange]
    # The package puts off the opening of the last day that it is asked for; so it is asked for more.
    calendar = get_calendar(exchange, start=rules.first, end=rules.horizon + timedelta(days=31))
    held = calendar.schedule[["open", "close"]].loc[: str(rules.horizon)]
    days = held.index.to_numpy("datetime64[D]")
    weekdays = np.arange(np.datetime64(rules.first, "D"), np.datetime64(rules.horizon, "D") + 1)
    weekdays = weekdays[np.is_busday(weekdays)]
    found = {day: Line(day, CLOSED) for day in np.setdiff1d(weekdays, days).tolist()}

    known, opens, closes, _, _ = regular_session(rules, found)
    at = np.searchsorted(known, days)
    local = held.apply(lambda moments: moments.dt.tz_convert(ZONES[exchange]).dt.tz_localize(None))
    ours = pd.DataFrame({"open": days + opens[at], "close": days + closes[at]}, index=local.index)
    late = (local == ours + LATE).all(axis="columns")
    for day in local.index[(local != ours).any(axis="columns")]:
        hours = local.loc[day]
        found[day.date()] = (
            Line(day.date(), EXAM)
            if late[day]
            else Line(day.date(), HOURS, hours["open"].time(), hours["close"].time())
        )
    yield from (found[day] for day in sorted(found))


def write() -> None:
    """Write `published.csv` beside this module."""
    with PATH.open("w", encoding="utf-8", newline="") as file:
        file.write(
            f"# exchange_calendars {version('exchange_calendars')} (Apache-2.0), where it differs from tables.RULES.\n"
        )
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["exchange", "day", "change", "opens", "closes"])
        for exchange in ZONES:
            for day, change, opens, closes in lines(exchange):
                writer.writerow([exchange, day, change, *(f"{one:%H:%M}" if one else "" for one in (opens, closes))])

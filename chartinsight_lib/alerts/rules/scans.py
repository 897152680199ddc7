"""The scans of a market, one after the other, and what every rule does that compares one with the next."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Row, text

from chartinsight_lib.alerts.alert import Alert
from chartinsight_lib.alerts.rules.watch import Rule, State, Watch

SHOWN = 30
"""So many instruments are named in a notice."""
Scan = Mapping[int, Row[Any]]
"""{instrument id: its row of radar.snapshot, with code and name}; `day` is that of the bar it tells of."""


class ScanWatch(Watch):
    """Tells of the instruments of which something holds in a scan and did not in the scan before."""

    @abstractmethod
    def _fresh(self, before: Scan, after: Scan) -> list[Row[Any]]:
        """Return the rows of `after` that are to be told."""

    @abstractmethod
    def _what(self) -> str:
        """Say what holds of them."""

    def look(self, conn: Connection, rule: Rule, state: State, now: datetime) -> tuple[list[Alert], State]:
        """See `Watch`. State: the day of the last scan that was seen."""
        days = _days(conn, rule.market, state)
        if not days:
            return [], state
        found = []
        before = _scan(conn, rule, days[0]) if len(days) > 1 else {}
        for earlier, day in pairwise(days):
            after = _scan(conn, rule, day)
            # Without the scan before nobody knows what is new.
            if before and (fresh := self._fresh(before, after)):
                found.append(rule.alert(day, *_text(self._what(), fresh, day, earlier), now))
            before = after
        return found, {"as_of": days[-1].isoformat()}


def _days(conn: Connection, market: str, state: State) -> list[date]:
    """Return the days of the scans that a rule has not seen, ascending, and before them the last that it has, if it is still
    there; [] where there is none to be seen."""
    if "as_of" not in state:
        first = _newest(conn, market)
        return [first] if first else []
    rows = conn.execute(
        text("""
            SELECT DISTINCT s.as_of FROM radar.snapshot AS s JOIN live.instruments AS i ON i.id = s.instrument_id
            WHERE  i.market = :market AND s.timeframe = '1d' AND s.as_of > :seen ORDER BY s.as_of
        """),
        {"market": market, "seen": date.fromisoformat(state["as_of"])},
    )
    fresh = list(rows.scalars())
    return [date.fromisoformat(state["as_of"]), *fresh] if fresh else []


def _newest(conn: Connection, market: str) -> date | None:
    """Return the day of a market's newest scan; None: there is none."""
    found: date | None = conn.execute(
        text("""
            SELECT s.as_of FROM radar.snapshot AS s JOIN live.instruments AS i ON i.id = s.instrument_id
            WHERE  i.market = :market AND s.timeframe = '1d' ORDER BY s.as_of DESC LIMIT 1
        """),
        {"market": market},
    ).scalar_one_or_none()
    return found


def _scan(conn: Connection, rule: Rule, as_of: date) -> Scan:
    """Return the rows of one scan that a rule looks at."""
    rows = conn.execute(
        text("""
            SELECT s.*, i.code, i.name, i.currency FROM radar.snapshot AS s JOIN live.instruments AS i ON i.id = s.instrument_id
            WHERE  s.timeframe = '1d' AND s.as_of = :as_of AND i.market = :market AND i.code = COALESCE(:code, i.code)
            ORDER  BY i.code
        """),
        {"market": rule.market, "as_of": as_of, "code": rule.code},
    )
    return {row.instrument_id: row for row in rows}


def _text(what: str, rows: Sequence[Row[Any]], as_of: date, before: date) -> tuple[str, str]:
    lines = [
        f"{row.code} {row.name}: {row.close:,.10g} {row.currency}, final close of {row.day}" for row in rows[:SHOWN]
    ]
    if len(rows) > SHOWN:
        lines.append(f"and {len(rows) - SHOWN:,} more")
    sources = ", ".join(sorted({row.source for row in rows}))
    lines.append(f"Scan of {as_of}, source {sources}; not so in the scan of {before}.")
    who = f"{rows[0].code} {rows[0].name}" if len(rows) == 1 else f"{len(rows):,} instruments"
    return f"{who}: {what}", "\n".join(lines)

"""Notices out, at least once each: what waits for a channel goes as one letter, and what became of it is recorded.

Who sends has claimed its notices for a while; if it dies, they are free again. A channel that is down is tried again later, less
and less often, and holds nobody up. These times are this server's; quiet hours are those of the market's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from chartinsight_lib.alerts.alert import EVERYWHERE, Level
from chartinsight_lib.alerts.channels import Channel
from chartinsight_lib.alerts.sending import LIMIT_S, Letter, send
from chartinsight_lib.domain import MARKETS

LEASE_S = 180
"""Longer than `sending` ever takes: a notice that is being sent for longer has lost its sender."""
FIRST_S, LONGEST_S = 60, 3600
"""After a failure a channel is left alone for so long, and twice as long after each further one, up to this."""
KEPT_DAYS = 3
"""A notice that could not be sent for so long is given up; the alert stays in the history."""
MOST, SHOWN = 200, 30
"""So many notices go in one letter; so many of them with their text, the others as a number."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """{channel: how many notices went, or why none did}."""

    sent: dict[str, int]
    failed: dict[str, str]


def waits(conn: Connection, market: str) -> bool:
    """Whether a notice waits for its time, or for a channel."""
    return bool(
        conn.execute(
            text("""
                SELECT EXISTS (SELECT FROM ops.notices AS n JOIN ops.alerts AS a ON a.id = n.alert_id
                               WHERE n.state IN ('waiting', 'sending') AND n.next_try <= clock_timestamp()
                               AND a.market IN (:market, :everywhere))
            """),
            {"market": market, "everywhere": EVERYWHERE},
        ).scalar_one()
    )


def deliver(
    engine: Engine, channels: Sequence[Channel], market: str, now: datetime, *, quiet: bool, limit_s: float = LIMIT_S
) -> Delivered:
    """Send what is due on each channel; in quiet hours only what is critical. No error of a channel is raised."""
    claimed: dict[Channel, list[Row[Any]]] = {}
    with engine.begin() as conn:
        _give_up(conn)
        for channel in channels:
            if rows := _claim(conn, channel, market, quiet=quiet):
                claimed[channel] = rows
    if not claimed:
        return Delivered({}, {})
    outcome: dict[str, str | None] = {channel.name: "it was interrupted" for channel in claimed}
    try:
        outcome |= send([_letter(channel, market, rows, now) for channel, rows in claimed.items()], limit_s=limit_s)
    finally:  # also when we are told to end: what was not sent need not wait until its claim runs out
        with engine.begin() as conn:
            for channel, rows in claimed.items():
                _settle(conn, rows, outcome[channel.name])
    return Delivered(
        {channel.name: len(rows) for channel, rows in claimed.items() if outcome[channel.name] is None},
        {name: error for name, error in outcome.items() if error is not None},
    )


def _claim(conn: Connection, channel: Channel, market: str, *, quiet: bool) -> list[Row[Any]]:
    """Claim what waits for a channel, and what somebody claimed and never settled; the oldest first."""
    rows = conn.execute(
        text("""
            WITH due AS (
                SELECT n.id FROM ops.notices AS n JOIN ops.alerts AS a ON a.id = n.alert_id
                WHERE  n.channel = :channel AND n.state IN ('waiting', 'sending') AND n.next_try <= clock_timestamp()
                AND    a.market IN (:market, :everywhere) AND (NOT :quiet OR a.level = 'critical')
                ORDER  BY n.id LIMIT :most FOR UPDATE OF n SKIP LOCKED),
            mine AS (
                UPDATE ops.notices AS n
                SET    state = 'sending', tries = n.tries + 1, next_try = clock_timestamp() + make_interval(secs => :lease)
                FROM   due WHERE n.id = due.id
                RETURNING n.id, n.alert_id, n.what, n.tries)
            SELECT m.id, m.what, m.tries, a.level, a.standing, a.subject, a.body, a.occurred_at, a.opened_at, a.resolved_at
            FROM   mine AS m JOIN ops.alerts AS a ON a.id = m.alert_id ORDER BY m.id
        """),
        {
            "channel": channel.name,
            "market": market,
            "everywhere": EVERYWHERE,
            "quiet": quiet,
            "most": MOST,
            "lease": LEASE_S,
        },
    )
    return list(rows)


def _settle(conn: Connection, rows: Sequence[Row[Any]], error: str | None) -> None:
    """Record how a letter fared; only of notices that are still ours."""
    conn.execute(
        text("""
            UPDATE ops.notices AS n
            SET    state = CASE WHEN :error IS NULL THEN 'sent' ELSE 'waiting' END, error = :error,
                   sent_at = CASE WHEN :error IS NULL THEN clock_timestamp() END,
                   next_try = clock_timestamp() + make_interval(secs => LEAST(:longest, :first * power(2, LEAST(:tries, 20) - 1)))
            FROM   unnest(CAST(:ids AS bigint[]), CAST(:claims AS int[])) AS c (id, tries)
            WHERE  n.id = c.id AND n.tries = c.tries AND n.state = 'sending'
        """),
        {
            "error": error,
            "first": FIRST_S,
            "longest": LONGEST_S,
            # The channel is down, and not this notice: all that wait for it wait as long.
            "tries": max(row.tries for row in rows),
            "ids": [row.id for row in rows],
            "claims": [row.tries for row in rows],
        },
    )


def _give_up(conn: Connection) -> None:
    """Give up what waited too long, also for a channel that is in nobody's settings any more."""
    conn.execute(
        text("""
            UPDATE ops.notices SET state = 'given_up', error = COALESCE(error, 'its channel was not there')
            WHERE  state IN ('waiting', 'sending') AND next_try <= clock_timestamp()
            AND    made_at < clock_timestamp() - make_interval(days => :days)
        """),
        {"days": KEPT_DAYS},
    )


def _letter(channel: Channel, market: str, rows: Sequence[Row[Any]], now: datetime) -> Letter:
    head = f"{'SIMULATED ' if market == 'SIM' else ''}{market}"
    if len(rows) == 1:
        (row,) = rows
        title, level = f"[{head}] {_subject(row)}", _level(row)
        return Letter(channel, title, _body(row, market, now), level)
    levels = {_level(row) for row in rows}
    worst = next(level for level in ("critical", "warning", "info", "success") if level in levels)
    parts = [f"{_subject(row)}\n{_body(row, market, now)}" for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        parts.append(f"And {len(rows) - SHOWN} more: `chartinsight alerts list`.")
    return Letter(channel, f"[{head}] {len(rows)} notices", "\n\n".join(parts), worst)


def _level(row: Row[Any]) -> str:
    return "success" if row.what == "resolved" else str(row.level)


def _subject(row: Row[Any]) -> str:
    if row.what == "resolved":
        return f"Over: {row.subject}"
    mark = "" if row.level == Level.INFO else f"{row.level.upper()}: "
    return f"{mark}{'Still: ' if row.what == 'reminder' and row.resolved_at is None else ''}{row.subject}"


def _body(row: Row[Any], market: str, now: datetime) -> str:
    zone = MARKETS[market].zone

    def at(moment: datetime) -> str:
        return f"{moment.astimezone(zone):%Y-%m-%d %H:%M %Z}"

    if not row.standing:
        return str(row.body)
    if row.resolved_at is not None:
        return f"{row.body}\nIt held from {at(row.opened_at)} to {at(row.resolved_at)}."
    return f"{row.body}\nSince {at(row.opened_at)}, as of {at(now)}."

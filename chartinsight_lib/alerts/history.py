"""What was found, once each, in `ops.alerts`; what is to be told of it, in `ops.notices`.

The caller owns the transaction and begins it with `lock`: then what it reads is what it records, and no other check comes
between. The unique key of the table stands behind that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from chartinsight_lib.alerts.alert import EVERYWHERE, Alert

REMIND = timedelta(hours=24)
NEWS = timedelta(days=1)
"""Something that happened longer ago, when nobody was to be told, is history."""
_LOCK = 0xA1_E2_75


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a check changed: alerts that are new, and standing ones that are over."""

    opened: list[Alert]
    resolved: list[str]


def lock(conn: Connection) -> None:
    """Let no other check of this database read or record until the transaction ends."""
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def record(conn: Connection, alerts: Iterable[Alert], *, market: str, judged: Iterable[str], now: datetime) -> Recorded:
    """Record what was found: new alerts, those that still stand, and those of the judged kinds that do not any more."""
    found = {(alert.market, alert.key): alert for alert in alerts}
    return Recorded(
        [alert for alert in found.values() if _keep(conn, alert, now)],
        _resolve(conn, [key for _, key in found], market=market, judged=judged, now=now),
    )


def _keep(conn: Connection, alert: Alert, now: datetime) -> bool:
    """Record an alert; return whether it is new."""
    fresh = conn.execute(
        text("""
            INSERT INTO ops.alerts AS a
                (market, kind, key, level, standing, subject, body, occurred_at, opened_at, seen_at)
            VALUES (:market, :kind, :key, :level, :standing, :subject, :body, :occurred_at, :now, :now)
            ON CONFLICT (market, key) WHERE resolved_at IS NULL OR NOT standing DO UPDATE
            SET    seen = a.seen + 1, seen_at = excluded.seen_at, subject = excluded.subject, body = excluded.body,
                   level = excluded.level
            WHERE  a.standing
            RETURNING xmax = 0
        """),
        {
            "market": alert.market,
            "kind": alert.kind,
            "key": alert.key,
            "level": alert.level.value,
            "standing": alert.standing,
            "subject": alert.subject,
            "body": alert.body,
            "occurred_at": alert.occurred_at,
            "now": now,
        },
    ).scalar_one_or_none()
    return bool(fresh)


def _resolve(conn: Connection, keys: Sequence[str], *, market: str, judged: Iterable[str], now: datetime) -> list[str]:
    """End the standing alerts that were not found; have it told where they were. Return their subjects."""
    over = conn.execute(
        text("""
            WITH over AS (
                UPDATE ops.alerts SET resolved_at = :now
                WHERE  standing AND resolved_at IS NULL AND market IN (:market, :everywhere) AND kind = ANY(:judged)
                AND    NOT (key = ANY(:keys))
                RETURNING id, subject),
            told AS (  -- a notice that still waits will say itself that it is over
                INSERT INTO ops.notices (alert_id, channel, what)
                SELECT DISTINCT o.id, n.channel, 'resolved' FROM over AS o JOIN ops.notices AS n ON n.alert_id = o.id
                WHERE  n.state IN ('sending', 'sent'))
            SELECT subject FROM over ORDER BY id
        """),
        {"now": now, "market": market, "everywhere": EVERYWHERE, "judged": list(judged), "keys": list(keys)},
    )
    return list(over.scalars())


def to_tell(conn: Connection, market: str, now: datetime) -> list[int]:
    """Return the ids of the alerts of which a notice is due: those that nobody was told of, and those that still stand a day
    after; not those that are muted."""
    rows = conn.execute(
        text("""
            SELECT a.id FROM ops.alerts AS a
            WHERE  a.market IN (:market, :everywhere)
            AND   (a.standing AND a.resolved_at IS NULL
                   AND (a.told_at IS NULL OR a.level <> 'info' AND a.told_at <= :reminded)
                   OR NOT a.standing AND a.told_at IS NULL AND a.opened_at > :news)
            AND    NOT EXISTS (SELECT FROM ops.mutes AS m WHERE m.until > :now
                               AND (a.key = m.key OR starts_with(a.key, m.key || ':')))
            ORDER  BY a.id
        """),
        {"market": market, "everywhere": EVERYWHERE, "now": now, "reminded": now - REMIND, "news": now - NEWS},
    )
    return list(rows.scalars())


def tell(conn: Connection, alerts: Sequence[int], channels: Sequence[str], now: datetime) -> None:
    """Put notices down, one for each alert and channel; a reminder not behind a notice that still waits, and none before the
    next try of a channel that is down."""
    conn.execute(
        text("""
            INSERT INTO ops.notices (alert_id, channel, what, next_try)
            SELECT a.id, c.channel, CASE WHEN a.told_at IS NULL THEN 'opened' ELSE 'reminder' END,
                   COALESCE((SELECT max(d.next_try) FROM ops.notices AS d
                             WHERE d.channel = c.channel AND d.state = 'waiting' AND d.tries > 0), clock_timestamp())
            FROM   ops.alerts AS a CROSS JOIN unnest(CAST(:channels AS text[])) AS c (channel)
            WHERE  a.id = ANY(:alerts)
            AND    NOT EXISTS (SELECT FROM ops.notices AS w
                               WHERE w.alert_id = a.id AND w.channel = c.channel AND w.state IN ('waiting', 'sending'))
        """),
        {"alerts": list(alerts), "channels": list(channels)},
    )
    conn.execute(
        text("UPDATE ops.alerts SET told_at = :now WHERE id = ANY(:alerts)"), {"now": now, "alerts": list(alerts)}
    )


def mute(conn: Connection, key: str, until: datetime) -> None:
    """Tell nothing of a key, nor of those below it, until a moment; one that has passed ends it."""
    conn.execute(
        text("""
            INSERT INTO ops.mutes (key, until) VALUES (:key, :until) ON CONFLICT (key) DO UPDATE SET until = excluded.until
        """),
        {"key": key, "until": until},
    )


def listed(conn: Connection, *, most: int, standing: bool = False) -> list[Row[Any]]:
    """Return alerts, the newest first: those of `api.alerts`, `standing`: that hold now."""
    return list(
        conn.execute(
            text("""
                SELECT market, kind, key, level, standing, subject, body, occurred_at, opened_at, seen, told_at, resolved_at,
                       sent, waiting, error
                FROM   api.alerts WHERE NOT :standing OR standing AND resolved_at IS NULL
                ORDER  BY id DESC LIMIT :most
            """),
            {"standing": standing, "most": most},
        )
    )

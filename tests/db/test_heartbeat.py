"""Schedulers say that they are alive, by the server's clock; who was killed is not alive soon after, and forgotten in the end."""

import os
import platform

from sqlalchemy import Connection, text

from chartinsight_lib.db import heartbeat


def seen_ago(conn: Connection, name: str, ago: str) -> None:
    conn.execute(
        text("UPDATE ops.schedulers SET seen_at = clock_timestamp() - CAST(:ago AS interval) WHERE name = :name"),
        {"name": name, "ago": ago},
    )


def test_who_beats_is_alive_in_its_own_market_alone(conn: Connection):
    heartbeat.beat(conn, name="a", market="KRX", running=2)
    (found,) = heartbeat.alive(conn, "KRX")
    assert (found.name, found.host, found.pid, found.running) == ("a", platform.node(), os.getpid(), 2)
    assert found.started_at.utcoffset() is not None
    assert heartbeat.alive(conn, "SIM") == []


def test_a_second_beat_moves_what_was_seen_and_not_when_it_began(conn: Connection):
    heartbeat.beat(conn, name="a", market="KRX", running=0)
    seen_ago(conn, "a", "20 seconds")
    (before,) = heartbeat.heard(conn, "KRX")
    heartbeat.beat(conn, name="a", market="KRX", running=3)
    (after,) = heartbeat.heard(conn, "KRX")
    assert (after.started_at, after.running) == (before.started_at, 3)
    assert before.age_s > 19
    assert after.age_s < 19


def test_who_was_killed_is_known_for_a_week_and_not_alive(conn: Connection):
    heartbeat.beat(conn, name="killed", market="KRX", running=1)
    seen_ago(conn, "killed", "31 seconds")
    heartbeat.beat(conn, name="standby", market="KRX", running=0)
    assert [one.name for one in heartbeat.alive(conn, "KRX")] == ["standby"]
    assert [one.name for one in heartbeat.heard(conn, "KRX")] == ["standby", "killed"]
    seen_ago(conn, "killed", "8 days")
    heartbeat.beat(conn, name="standby", market="KRX", running=0)
    assert [one.name for one in heartbeat.heard(conn, "KRX")] == ["standby"]


def test_who_leaves_is_not_known_any_more(conn: Connection):
    heartbeat.beat(conn, name="a", market="KRX", running=0)
    heartbeat.leave(conn, "a")
    assert heartbeat.heard(conn, "KRX") == []

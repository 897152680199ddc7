"""A check tells each thing once, however many check: when it begins, while it stays, when it is over; and what it was sent on."""

import logging
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from notice_sinks import Webhook, webhook
from pydantic import SecretStr
from sqlalchemy import Engine, text

from chartinsight_lib import alerts
from chartinsight_lib.alerts import history
from chartinsight_lib.alerts.checking import Checked
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import PROJECT, Settings

# A Saturday: the market is closed, and nothing about it is stale.
NOON = datetime.fromisoformat("2026-10-17T12:00+09:00")
HOUR = timedelta(hours=1)
CANARY = "canary1a2b3c4d5e6f"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Nobody's proxy stands between this machine and itself."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def sink():
    with webhook() as found:
        yield found


class Desk:
    """Somebody who checks at a time, and a job that fails and succeeds."""

    def __init__(self, database: Database, settings: Settings, engine: Engine) -> None:
        self.database, self.settings, self.engine = database, settings, engine
        self.said: list[str] = []

    def check(self, when: datetime = NOON, *sinks: Webhook, quiet: str = "", market: str = "KRX") -> Checked:
        urls = SecretStr(" ".join(sink.url(CANARY) for sink in sinks))
        told = {"alert_urls": urls, "quiet_hours": quiet, "now": when.isoformat()}
        return alerts.check(self.database, self.settings.model_copy(update=told), market, self.said.append)

    def slot(self, state: str, *, job: str = "collect_daily", market: str = "KRX", reason: str = "it broke") -> None:
        with self.engine.begin() as conn:
            conn.execute(
                text("""
                    INSERT INTO ops.slots (job, market, slot, day, state, run_id, attempts, reason, claimed_by, changed_at)
                    VALUES (:job, :market, :slot, '2026-10-16', :state, :run_id, 3, :reason, 'a test', :slot)
                    ON CONFLICT (job, market, slot) DO UPDATE SET state = excluded.state
                """),
                {"job": job, "market": market, "slot": NOON - 30 * HOUR, "state": state, "run_id": uuid4(), "reason": reason},
            )  # fmt: skip

    def ask(self, statement: str) -> list[tuple]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(statement))]

    def change(self, statement: str) -> None:
        with self.engine.begin() as conn:
            conn.execute(text(statement))


@pytest.fixture
def desk(database, settings, loader) -> Desk:
    return Desk(database, settings, loader)


def test_a_failure_is_told_when_it_begins_and_when_it_is_over_and_not_in_between(desk, sink):
    desk.slot("failed")
    assert desk.check(NOON, sink).opened == ["collect_daily failed"]
    assert desk.check(NOON + HOUR, sink) == Checked([], [])
    desk.slot("succeeded")
    assert desk.check(NOON + 2 * HOUR, sink).resolved == ["collect_daily failed"]
    assert desk.check(NOON + 3 * HOUR, sink) == Checked([], [])
    assert sink.titles == ["[KRX] WARNING: collect_daily failed", "[KRX] Over: collect_daily failed"]
    assert [one["type"] for one in sink.came] == ["warning", "success"]
    body = sink.came[0]["message"]
    assert "Slot 2026-10-16 06:00" in body and "it broke" in body and "after 3 attempts" in body
    assert "It held from 2026-10-17 12:00 KST to 2026-10-17 14:00 KST." in sink.came[1]["message"]
    assert desk.ask("SELECT kind, key, seen, sent, waiting FROM api.alerts") == [("job", "job:collect_daily", 2, 2, 0)]


def test_what_begins_again_is_told_again(desk, sink):
    for state in ("failed", "succeeded", "failed"):
        desk.slot(state)
        desk.check(NOON, sink)
    assert len(sink.came) == 3
    assert desk.ask("SELECT resolved_at IS NULL FROM ops.alerts ORDER BY id") == [(False,), (True,)]


def test_what_stays_is_told_again_after_a_day(desk, sink):
    desk.slot("failed")
    for hours in (0, 23, 24, 25, 47, 48):
        desk.check(NOON + hours * HOUR, sink)
    assert sink.titles == [
        "[KRX] WARNING: collect_daily failed",
        "[KRX] WARNING: Still: collect_daily failed",
        "[KRX] WARNING: Still: collect_daily failed",
    ]


def test_eight_who_check_at_once_tell_it_once(desk, sink):
    desk.slot("failed")
    start, ended = threading.Barrier(8), []

    def check() -> None:
        start.wait()
        ended.append(desk.check(NOON, sink))

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 8
    assert sink.titles == ["[KRX] WARNING: collect_daily failed"]
    assert sum(len(one.opened) for one in ended) == 1
    assert desk.ask("SELECT count(*), max(seen) FROM ops.alerts") == [(1, 8)]


def test_two_processes_that_check_at_once_tell_it_once(desk, sink):
    desk.slot("failed")
    environment = {
        **os.environ, "CHARTINSIGHT_ALERT_URLS": sink.url(), "CHARTINSIGHT_NOW": NOON.isoformat(),
        "CHARTINSIGHT_HOME": str(desk.settings.home), "DATABASE_URL": desk.database.url(Role.LOADER),
    }  # fmt: skip
    command = [sys.executable, "-m", "chartinsight_lib.cli", "alerts", "check", "--market", "KRX"]
    both = [
        subprocess.Popen(
            command, env=environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sink.titles == ["[KRX] WARNING: collect_daily failed"]


def test_in_quiet_hours_only_what_is_critical_is_told_and_the_rest_in_one_message_at_their_end(desk, sink):
    evening = datetime.fromisoformat("2026-10-16T23:30+09:00")
    quiet = "22:00-07:30"
    desk.slot("failed")
    desk.slot("failed", job="scan_radar")
    assert desk.check(evening, sink, quiet=quiet).sent == {}
    with desk.engine.begin() as conn:
        night = evening + 4 * HOUR
        history.lock(conn)
        critical = alerts.Alert("stale", "stale:live", alerts.Level.CRITICAL, "nothing comes in", "…", "KRX", night)
        history.record(conn, [critical], market="KRX", judged=[], now=night)
        # The market is closed: a check would find it over.
        conn.execute(text("UPDATE ops.alerts SET standing = false WHERE key = 'stale:live'"))
    desk.check(night, sink, quiet=quiet)
    assert sink.titles == ["[KRX] CRITICAL: nothing comes in"]
    desk.slot("succeeded", job="scan_radar")
    desk.check(evening + 5 * HOUR, sink, quiet=quiet)
    desk.check(datetime.fromisoformat("2026-10-17T07:29+09:00"), sink, quiet=quiet)
    assert len(sink.came) == 1
    desk.check(datetime.fromisoformat("2026-10-17T07:30+09:00"), sink, quiet=quiet)
    assert sink.titles[1:] == ["[KRX] 2 notices"]
    body = sink.came[1]["message"]
    assert body.index("WARNING: collect_daily failed") < body.index("WARNING: scan_radar failed")
    assert "It held from 2026-10-16 23:30 KST to 2026-10-17 04:30 KST." in body, "what passed meanwhile says so"
    desk.check(NOON, sink, quiet=quiet)
    assert len(sink.came) == 2, "and it is not told once more that it is over"


def test_a_channel_that_is_down_is_tried_again_later_and_holds_up_no_other(desk, sink):
    desk.slot("failed")
    with webhook(status=503) as down:
        first = desk.check(NOON, sink, down)
        assert list(first.sent.values()) == [1] and list(first.failed.values()) == ["the service answered 503"]
        desk.slot("failed", job="scan_radar")
        desk.check(NOON, sink, down)
        assert (len(sink.came), len(down.came)) == (2, 1), "it is left alone for a while, new notices too"
        waits = "SELECT extract(epoch FROM next_try - clock_timestamp()) FROM ops.notices WHERE state = 'waiting' ORDER BY id"
        assert [55 <= wait <= 60 for (wait,) in desk.ask(waits)] == [True, True]
        later = "UPDATE ops.notices SET next_try = clock_timestamp() WHERE state = 'waiting'"
        desk.change(later)
        desk.check(NOON, sink, down)
        assert [115 <= wait <= 120 for (wait,) in desk.ask(waits)] == [True, True]
        down.status = 200
        desk.change(later)
        desk.check(NOON, sink, down)
    assert down.titles[-1] == "[KRX] 2 notices"
    assert len(sink.came) == 2
    assert next(line for line in desk.said if "NOT SENT" in line).endswith(
        "it is tried again: the service answered 503"
    )
    assert desk.ask("SELECT DISTINCT state FROM ops.notices") == [("sent",)]


def test_a_notice_whose_sender_died_is_sent_by_the_next_check_once_its_claim_has_run_out(desk, sink):
    desk.slot("failed")
    desk.check(NOON, sink)
    claimed = "UPDATE ops.notices SET state = 'sending', sent_at = NULL, next_try = clock_timestamp() + interval '{} s'"
    desk.change(claimed.format(100))
    desk.check(NOON, sink)
    assert len(sink.came) == 1
    desk.change(claimed.format(-1))
    desk.check(NOON, sink)
    assert len(sink.came) == 2


def test_a_notice_that_could_not_be_sent_for_three_days_is_given_up_and_stays_in_the_history(desk, sink):
    desk.slot("failed")
    with webhook(status=503) as down:
        desk.check(NOON, down)
    desk.change("UPDATE ops.notices SET made_at = made_at - interval '73 hours', next_try = made_at")
    desk.check(NOON, sink)
    assert desk.ask("SELECT state, error FROM ops.notices") == [("given_up", "the service answered 503")]
    assert desk.ask("SELECT count(*) FROM ops.alerts") == [(1,)]


def test_without_a_channel_all_is_recorded_and_a_channel_that_comes_later_is_told_what_still_stands(desk, sink):
    desk.slot("failed")
    assert desk.check(NOON).opened == ["collect_daily failed"]
    assert desk.ask("SELECT count(*) FROM ops.notices") == [(0,)]
    desk.check(NOON + HOUR, sink)
    assert sink.titles == ["[KRX] WARNING: collect_daily failed"]


def test_a_list_of_channels_that_is_wrong_is_said_and_stops_no_check(desk):
    desk.slot("failed")
    wrong = desk.settings.model_copy(update={"alert_urls": SecretStr(CANARY), "now": NOON.isoformat()})
    assert alerts.check(desk.database, wrong, "KRX", desk.said.append).opened == ["collect_daily failed"]
    assert "address 1 of CHARTINSIGHT_ALERT_URLS" in desk.said[0] and CANARY not in desk.said[0]


def test_what_is_muted_is_recorded_and_not_told_until_it_ends(desk, sink):
    desk.slot("failed")
    with desk.engine.begin() as conn:
        history.mute(conn, "job", NOON + HOUR)
    desk.check(NOON, sink)
    assert sink.came == []
    assert desk.ask("SELECT count(*) FROM ops.alerts") == [(1,)]
    desk.check(NOON + HOUR, sink)
    assert len(sink.came) == 1


def test_what_the_simulated_market_does_is_marked(desk, sink):
    desk.slot("failed", market="SIM")
    desk.check(NOON, sink, market="SIM")
    assert sink.titles == ["[SIMULATED SIM] WARNING: collect_daily failed"]


def test_many_notices_are_one_message_of_bounded_length(desk, sink):
    with desk.engine.begin() as conn:
        many = [
            alerts.Alert("radar", f"rule:x:{n}", alerts.Level.INFO, f"number {n}", "…", "KRX", NOON, standing=False)
            for n in range(45)
        ]  # fmt: skip
        history.record(conn, many, market="KRX", judged=[], now=NOON)
    desk.check(NOON, sink)
    assert sink.titles == ["[KRX] 45 notices"]
    assert sink.came[0]["message"].count("number ") == 30
    assert sink.came[0]["message"].endswith("And 15 more: `chartinsight alerts list`.")


def test_no_secret_of_an_address_is_in_a_table_a_log_or_what_is_said(desk, sink, caplog):
    caplog.set_level(logging.DEBUG)
    desk.slot("failed")
    with webhook(status=500) as down:
        desk.check(NOON, sink, down)
        assert CANARY in down.paths[0] and CANARY in sink.paths[0], "it did go there"
    tables = desk.ask("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('live', 'ops', 'radar')")
    found = [
        (table, row)
        for schema, table in tables
        if table != "tokens"
        for (row,) in desk.ask(f'SELECT t::text FROM "{schema}"."{table}" AS t')
        if CANARY in row
    ]
    assert found == []
    assert desk.ask("SELECT count(*) FROM ops.notices WHERE channel ~ '^json:[0-9a-f]{8}$'") == [(2,)]
    assert CANARY not in caplog.text + "".join(desk.said)


def test_a_check_that_is_interrupted_leaves_its_notices_to_the_next(desk, sink, monkeypatch: pytest.MonkeyPatch):
    desk.slot("failed")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("chartinsight_lib.alerts.delivery.send", interrupted)
        desk.check(NOON, sink)
    assert desk.ask("SELECT state, error FROM ops.notices") == [("waiting", "it was interrupted")]
    desk.change("UPDATE ops.notices SET next_try = clock_timestamp()")
    desk.check(NOON, sink)
    assert len(sink.came) == 1


def test_a_check_that_finds_nothing_new_sends_nothing_and_costs_little(desk, sink):
    desk.slot("failed")
    desk.check(NOON, sink)
    took = []
    for _ in range(5):
        began = time.process_time()  # ours alone: other programs may keep the machine busy
        desk.check(NOON, sink)
        took.append(time.process_time() - began)
    assert min(took) < 0.25
    assert len(sink.came) == 1

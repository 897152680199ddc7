"""The health page in headless Chromium: red, amber and green in words and colours, on a wide screen and on a phone."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Connection, text

from chartinsight_lib.dashboard import start_dashboard
from chartinsight_lib.db import heartbeat
from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import KST
from chartinsight_lib.settings import PROJECT

pytestmark = pytest.mark.browser

NOW = datetime(2026, 10, 13, 10, 32, tzinfo=KST)  # a Tuesday with an after-market, until 20:00
STALE = "The market is open, and the source told last at 10:20:00: its data are 2.40 cycles of 5 minutes old, 2 are allowed."
READY = "document.querySelector('.ci-health .ci-jobs tbody tr') !== null"

# The lowest contrast of any text on the page, and where: the ground is that of the nearest ancestor that has one.
CONTRAST = """() => {
    const parts = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (place) => {
        for (; place; place = place.parentElement) {
            const [r, g, b, a = 1] = parts(getComputedStyle(place).backgroundColor);
            if (a > 0.99) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.querySelector('.ci-health'), NodeFilter.SHOW_TEXT);
    let worst = [99, ''];
    while (walker.nextNode()) {
        const node = walker.currentNode, place = node.parentElement;
        if (!node.data.trim() || place.closest('style') || !place.getClientRects().length) continue;
        const [a, b] = [light(parts(getComputedStyle(place).color)), light(ground(place))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < worst[0]) worst = [ratio, `${place.className}: ${node.data.slice(0, 40)}`];
    }
    return worst;
}"""


def seed(conn: Connection) -> None:
    """A KRX whose quotes are 12 minutes old at NOW, a daily job that is tried again, holes, a slow quota, an open alert."""
    conn.execute(
        text("""
            INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id)
            VALUES ('KRX', '005930', '삼성전자', 'stock', 'KRW', 'kiwoom', :run);
            INSERT INTO live.candles SELECT id, '1d', '2026-10-12 00:00+00', 1, 2, 1, 2, 10, 20, 0, 'kiwoom', :run
            FROM live.instruments;
            INSERT INTO ops.coverage SELECT id, '1d', '2026-01-02', '2026-10-12', 5000, 4980, 11, 8, 1, :now, :run
            FROM live.instruments;
            INSERT INTO ops.coverage_days (market, timeframe, day, expected, present, explained, missing, late, checked_at)
            SELECT 'KRX', '1d', day::date, 2700, 2690 - hole, 10, hole, 0, :now
            FROM  (SELECT day, CASE extract(day FROM day) WHEN 5 THEN 300 WHEN 8 THEN 4 ELSE 0 END AS hole
                   FROM generate_series(date '2026-09-14', date '2026-10-12', interval '1 day') AS day
                   WHERE extract(isodow FROM day) < 6) AS days;
            INSERT INTO ops.pace VALUES ('0123456789abcdef:ka10081', clock_timestamp() + interval '3 minutes', 0.42, now()),
                                        ('0123456789abcdef:ka10095', clock_timestamp(), 0.21, NULL);
            INSERT INTO ops.allowances VALUES ('dart:00ff:day', '2026-10-13', 7200);
            INSERT INTO ops.alerts (market, kind, key, level, standing, subject, body, occurred_at, opened_at, seen_at)
            VALUES ('KRX', 'test', 'k', 'critical', true, 'Stale <b>quotes</b>', '', :now, :now, :now)
        """),
        {"run": uuid4(), "now": NOW - timedelta(minutes=30)},
    )
    ran(conn, "sync_instruments", 8, 26, 41, "succeeded", '{"read": 2700, "updated": 3}')
    ran(conn, "collect_daily", 8, 31, 12, "failed", "null", "Unavailable: kiwoom ka10081: no answer within 10 s")
    run = ran(conn, "collect_quotes", 10, 19, 21, "succeeded", '{"read": 2700, "updated": 2412}')
    conn.execute(
        text("INSERT INTO ops.run_items VALUES (:run, 'quotes', 'KRX', 'done', '{}', NULL, :at)"),
        {"run": run, "at": NOW - timedelta(minutes=12)},
    )
    slot(conn, "sync_instruments", 8, 25, "succeeded")
    slot(conn, "collect_daily", 8, 30, "retrying", "kiwoom ka10081: no answer within 10 s")
    states = {9 * 60 + 5: "covered", 9 * 60 + 10: "skipped", 9 * 60 + 40: "failed"}
    for minute in range(8 * 60 + 50, 10 * 60 + 21, 5):
        slot(conn, "collect_quotes", minute // 60, minute % 60, states.get(minute, "succeeded"), "said why")
    heartbeat.beat(conn, name="laptop:4711:KRX", market="KRX", running=1)


def ran(
    conn: Connection, job: str, hour: int, minute: int, seconds: int, state: str, rows: str, error: str | None = None
) -> str:
    run, begun = str(uuid4()), NOW.replace(hour=hour, minute=minute)
    conn.execute(
        text("""
            INSERT INTO ops.runs (run_id, job, parameters, state, started_at, finished_at, code_version, host, rows, error, market,
                                  error_cell, engine)
            VALUES (:run, :job, '{}', :state, :begun, :ended, '1', 'h', NULLIF(CAST(:rows AS jsonb), 'null'), :error, 'KRX',
                    4, 'up')
        """),
        {"run": run, "job": job, "state": state, "begun": begun, "ended": begun + timedelta(seconds=seconds), "rows": rows,
         "error": error},
    )  # fmt: skip
    return run


def slot(conn: Connection, job: str, hour: int, minute: int, state: str, reason: str | None = None) -> None:
    when = NOW.replace(hour=hour, minute=minute)
    conn.execute(
        text("""
            INSERT INTO ops.slots (job, market, slot, day, state, attempts, most, next_try, reason, claimed_by, changed_at)
            VALUES (:job, 'KRX', :slot, :day, :state, 1, 4, :next, :reason, 'test', :slot)
        """),
        {"job": job, "slot": when, "day": when.date(), "state": state, "reason": reason,
         "next": NOW + timedelta(minutes=3) if state == "retrying" else None},
    )  # fmt: skip


@pytest.fixture(scope="module")
def health_url(database: Database, emptied: Callable[[], None], tmp_path_factory) -> Iterator[str]:
    """The address, with its token, of radar and health page on the rows of `seed`, whose clock stands."""
    emptied()
    home = tmp_path_factory.mktemp("home")
    engine = database.engine(Role.LOADER)
    with engine.begin() as conn:
        seed(conn)
    pages = PROJECT / "notebooks" / "dashboards"
    own = {
        "CHARTINSIGHT_NOW": NOW.isoformat(),
        "CHARTINSIGHT_HOME": str(home),
        "CHARTINSIGHT_RUNS_DIR": str(home / "runs"),
    }
    with start_dashboard(
        notebook=pages / "trading_radar.ipynb",
        pages={"health": pages / "health.ipynb"},
        port=free_port(),
        token=secrets.token_urlsafe(24),
        database_url=database.url(Role.READER),
        log=home / "radar.log",
        extra_env=own,
        preheat=False,
    ) as dashboard:
        dashboard.wait_ready()
        yield dashboard.url
    engine.dispose()
    emptied()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("These tests drive Chromium, and none is installed. Install it, or leave out -m browser.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page(browser: Browser, health_url: str) -> Iterator[Page]:
    """The health page, reached as a person does: by the link on the radar, with the cookie of the first visit."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(health_url, timeout=60_000)
    page.locator("a.ci-page", has_text="Health").click(timeout=60_000)
    page.wait_for_url("**/health")
    page.complaints = []  # type: ignore[attr-defined]
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.wait_for_function(READY, timeout=60_000)
    yield page
    page.close()


def test_the_link_leads_from_the_radar_to_the_health_page_without_the_token(page: Page):
    found = urlsplit(page.url)
    assert (found.path, found.query) == ("/health", "")
    assert (
        page.locator("a.ci-page", has_text="Trading Radar").evaluate("link => link.href") == f"http://{found.netloc}/"
    )


def test_old_data_in_an_open_market_are_red_with_the_reason(page: Page):
    state = page.locator(".ci-strip .ci-state")
    assert state.inner_text() == "RED"
    assert state.evaluate("badge => getComputedStyle(badge).backgroundColor") == "rgb(179, 38, 30)"
    reasons = page.locator(".ci-of-reasons li").all_inner_texts()
    assert STALE in reasons[0]
    assert any("tried again at 10:35:00: kiwoom ka10081" in reason for reason in reasons)


def test_the_jobs_say_what_ran_and_what_runs_next_in_the_time_of_the_market(page: Page):
    quotes = page.locator(".ci-jobs tbody tr", has=page.get_by_role("rowheader", name="collect_quotes")).inner_text()
    assert "10:35" in quotes  # next
    assert "10:20" in quotes  # its newest slot
    assert "21.0 s" in quotes
    assert "2,412 updated" in quotes
    strip = page.get_by_role("img", name="collect_quotes today")
    assert strip.get_attribute("aria-label") == (
        "collect_quotes today: 16 succeeded, 1 covered, 1 skipped, 1 failed, 2 due, 116 to come"
    )
    assert strip.locator(".ci-slot").count() == 137  # 08:50 to 20:10


def test_completeness_quota_and_alerts_are_told(page: Page):
    assert "99.82 %" in page.locator(".ci-of-completeness").inner_text()
    assert page.locator(".ci-day").count() == 20
    assert page.locator(".ci-day.ci-holed").count() == 1
    assert "SLOWED DOWN" in page.locator(".ci-quota", has_text="ka10081").inner_text()
    assert "full pace" in page.locator(".ci-quota", has_text="ka10095").inner_text()
    assert "Stale <b>quotes</b>" in page.locator(".ci-of-alerts").inner_text()


def test_every_text_stands_out_from_its_ground(page: Page):
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where


def test_the_page_reads_again_and_leaves_alone_what_is_the_same(page: Page, database: Database):
    page.evaluate("document.querySelector('.ci-of-completeness h2').dataset.mine = 'kept'")
    engine = database.engine(Role.LOADER)
    with engine.begin() as conn:
        for name in ("laptop:4711:KRX", "second:1:KRX"):  # the first may have been silent for as long as the tests took
            heartbeat.beat(conn, name=name, market="KRX", running=0)
    engine.dispose()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # somebody comes back to the tab
    page.locator(".ci-of-facts", has_text="2 alive").wait_for(timeout=30_000)
    assert page.evaluate("document.querySelector('.ci-of-completeness h2').dataset.mine") == "kept"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1440, 900)])
def test_everything_fits_into_the_width_of_a_phone_and_of_a_screen(page: Page, width: int, height: int):
    page.set_viewport_size({"width": width, "height": height})
    root = "document.querySelector('.ci-health')"
    page.wait_for_function(f"{root}.clientWidth <= {width} && {root}.clientWidth > {width - 20}")  # laid out anew
    beyond = f"filter(e => e.getBoundingClientRect().right > {width + 1}).map(e => e.className)"
    assert page.evaluate(f"[...{root}.querySelectorAll('*')].{beyond}") == []
    assert page.evaluate(f"{root}.scrollHeight") > height  # it scrolls, and nothing is cut off
    assert page.evaluate("document.scrollingElement.scrollHeight") <= height


def test_nothing_was_complained_of(page: Page):
    assert page.complaints == []  # type: ignore[attr-defined]

"""`up` without options, from nothing: a market that moves, said to be simulated, on a page that was prepared without data."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.db.layout import find_layout

pytestmark = pytest.mark.browser

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
READY = "document.querySelector('.ci-fitted .boxlayer path') && document.querySelector('.ci-body [data-code]')"
PRICES = """Object.fromEntries([...document.querySelectorAll('.ci-body [data-code]')].map(
    row => [row.dataset.code, row.children[2].textContent]))"""


@pytest.fixture(scope="module")
def up() -> Iterator[str]:
    """The address of the page, once `up` has collected and scanned for the first time."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    environment = {**os.environ, "CHARTINSIGHT_HOME": str(home), "CHARTINSIGHT_RUNS_DIR": str(home / "runs")}
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [CHARTINSIGHT, "up", "--no-browser", "--port", str(free_port())], env=environment, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 180
        while not (found := re.search(r"Trading Radar:\s+(\S+)", (home / "up.log").read_text())):
            assert process.poll() is None and time.monotonic() < until, (home / "up.log").read_text()
            time.sleep(0.2)
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(find_layout(home).data, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


def test_the_page_draws_what_came_after_it_was_prepared_says_simulated_and_moves(up):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        errors: list[str] = []
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(up)
        page.wait_for_function(READY, timeout=60_000)

        assert (
            page.locator(".ci-banner.ci-simulated").text_content() == "Simulated data: no price on this page is real."
        )
        assert page.locator(".ci-banner.ci-stale").count() == 0
        strip = page.locator(".ci-strip").text_content()
        assert "SIM" in strip and "simulated (seed 7)" in strip
        prices = page.evaluate(PRICES)
        assert len(prices) > 20
        assert sum(text.startswith("◦ ") for text in prices.values()) > 15  # unfinished, and marked so
        # Another stock's chart while the market moves under it.
        page.locator(".ci-body [data-code]").nth(3).click()
        before = page.evaluate(PRICES)
        moved = f"Object.entries({PRICES}).filter(([code, text]) => code in before && before[code] !== text)"
        page.wait_for_function(f"before => {moved}.length > 5", arg=before, timeout=90_000)
        page.wait_for_function(READY)
        assert errors == []
        browser.close()

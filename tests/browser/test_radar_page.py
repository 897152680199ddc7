"""The Trading Radar in headless Chromium, as a person uses it: look, click, arrow keys, another timeframe, a search."""

import base64
import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.browser

FIVE = {"AAPL", "FB", "GOOG", "IBM", "MSFT"}
"""The stocks of the sample data."""

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

TITLE = "(document.querySelector('.ci-panel .gtitle')?.textContent ?? '')"
READY = "document.querySelector('.ci-fitted .boxlayer path') && document.querySelector('.ci-body [data-code]')"

# Counts the pixels of an image that are near one of the colours.
COUNT = """async ([image, colours]) => {
    const drawn = Object.assign(new Image(), { src: image });
    await drawn.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: drawn.width, height: drawn.height });
    const context = canvas.getContext("2d");
    context.drawImage(drawn, 0, 0);
    const { data } = context.getImageData(0, 0, drawn.width, drawn.height);
    return colours.map(([r, g, b]) => {
        let near = 0;
        for (let i = 0; i < data.length; i += 4)
            near += Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 24;
        return near;
    });
}"""
GREEN, RED = [12, 134, 88], [213, 43, 43]


@dataclass
class Visit:
    """An open page, and what it said and asked for meanwhile."""

    page: Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str | None] = field(default_factory=set)

    def title(self) -> str:
        return str(self.page.evaluate(TITLE))

    def wait_for_another_title(self, before: str) -> str:
        self.page.wait_for_function(f"before => {TITLE} && {TITLE} !== before", arg=before, timeout=15_000)
        return self.title()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("These tests drive Chromium, and none is installed. Install it, or leave out -m browser.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def visit(browser: Browser, radar_url: str) -> Iterator[Visit]:
    """One page for all tests here: each visit costs a kernel. A test that moves something starts from what it finds."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    visit = Visit(page)
    page.on("console", lambda said: visit.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("request", lambda asked: visit.hosts.add(urlsplit(asked.url).hostname))
    page.on("websocket", lambda opened: visit.hosts.add(urlsplit(opened.url).hostname))
    page.goto(radar_url)
    page.wait_for_function(READY, timeout=60_000)
    yield visit
    page.close()


def test_the_table_lists_the_samples_five_stocks_and_one_is_charted(visit: Visit):
    codes = visit.page.locator(".ci-body [data-code]").evaluate_all("rows => rows.map(row => row.dataset.code)")
    assert set(codes) == FIVE
    chosen = visit.page.locator(".ci-body [aria-selected=true]")
    assert chosen.count() == 1
    assert chosen.get_attribute("data-code") in visit.title()


def test_the_status_says_as_of_when_and_from_where(visit: Visit):
    said = visit.page.locator(".ci-strip").inner_text()
    assert "as of" in said
    assert "instruments" in said
    assert "source" in said


def test_the_page_fills_the_window_and_no_more(visit: Visit):
    figure = visit.page.locator(".ci-figure .main-svg").first.bounding_box()
    assert figure is not None
    assert figure["x"] + figure["width"] == pytest.approx(1440, abs=2)
    assert figure["y"] + figure["height"] == pytest.approx(900, abs=2)
    assert visit.page.evaluate("document.scrollingElement.scrollHeight") <= 900


def test_candles_are_really_painted_in_both_colours(visit: Visit, browser: Browser):
    image = base64.b64encode(visit.page.locator(".ci-figure").screenshot()).decode()
    blank = browser.new_page()
    green, red = blank.evaluate(COUNT, [f"data:image/png;base64,{image}", [GREEN, RED]])
    blank.close()
    assert green > 1000
    assert red > 1000


def test_a_click_and_then_an_arrow_key_change_the_chart(visit: Visit):
    rows = visit.page.locator(".ci-body [data-code]")
    codes = rows.evaluate_all("rows => rows.map(row => row.dataset.code)")
    before = visit.title()
    chosen = visit.page.locator(".ci-body [aria-selected=true]").get_attribute("data-code")
    wanted = next(code for code in codes[:-1] if code != chosen)
    visit.page.locator(f"[data-code={wanted}]").click()
    clicked = visit.wait_for_another_title(before)
    assert wanted in clicked
    visit.page.keyboard.press("ArrowDown")
    below = visit.wait_for_another_title(clicked)
    assert codes[codes.index(wanted) + 1] in below


def test_weeks_and_months_are_drawn_from_their_buttons(visit: Visit):
    before = visit.title()
    for label, word in (("1W", "weekly"), ("1M", "monthly"), ("1D", "daily")):
        visit.page.get_by_role("button", name=label, exact=True).click()
        before = visit.wait_for_another_title(before)
        assert word in before


def test_dragging_shows_older_dates_and_reset_brings_the_newest_back(visit: Visit):
    labels = "[...document.querySelectorAll('.xtick text')].map(label => label.textContent).join()"
    newest = visit.page.evaluate(labels)
    box = visit.page.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + box["width"] / 2, y, steps=5)
    visit.page.mouse.up()
    visit.page.wait_for_function(f"before => {labels} !== before", arg=newest, timeout=10_000)
    visit.page.get_by_role("button", name="Reset").click()
    visit.page.wait_for_function(f"before => {labels} === before", arg=newest, timeout=10_000)


def test_a_search_narrows_the_table_and_escape_ends_it(visit: Visit):
    field_ = visit.page.get_by_role("searchbox")
    field_.fill("msf")
    assert visit.page.locator(".ci-body [data-code]").all_inner_texts()[0].startswith("MSFT")
    assert visit.page.locator(".ci-body [data-code]").count() == 1
    field_.press("Escape")
    assert visit.page.locator(".ci-body [data-code]").count() == len(FIVE)


def test_a_click_on_a_header_sorts_and_another_turns_the_order(visit: Visit):
    codes = "[...document.querySelectorAll('.ci-body [data-code]')].map(row => row.dataset.code)"
    header = visit.page.get_by_role("columnheader", name="Code")
    header.click()
    assert visit.page.evaluate(codes) == sorted(FIVE)
    header.click()
    assert visit.page.evaluate(codes) == sorted(FIVE, reverse=True)


def test_a_page_that_is_reloaded_or_left_takes_its_kernel_along(browser: Browser, radar_url: str):
    def kernels() -> int:
        count = 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # gone in between
                count += "ipykernel_launcher" in " ".join(process.cmdline())
        return count

    page = browser.new_page()
    page.goto(radar_url)
    page.wait_for_function(READY, timeout=60_000)
    before = kernels()
    for _ in range(3):
        page.reload()
        page.wait_for_function(READY, timeout=60_000)
    page.close(run_before_unload=True)
    deadline = time.monotonic() + 20
    while kernels() > before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert kernels() <= before


def test_without_the_token_there_is_no_page(browser: Browser, radar_url: str):
    page = browser.new_page()
    page.goto(radar_url.split("?", maxsplit=1)[0])
    assert "/login" in page.url
    assert page.locator(".ci-radar").count() == 0
    page.close()


def test_nothing_was_complained_of_and_nobody_else_was_asked(visit: Visit):
    assert visit.errors == []
    assert visit.hosts <= {"127.0.0.1", None}  # None: data: and blob:

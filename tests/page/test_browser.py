"""The page in a real browser: list, filter, live tail, detail, keys, both schemes of colours, nothing from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, async_playwright, expect
from playwright.async_api import Page as View
from tests.gateway import until
from tests.page.serving import CALLERS, KEY_A
from tests.services import Missing, or_skip
from tests.traces.memory import Ended
from tools.page_records import records, weather

from tools import browser
from trunkline_server.access import Callers
from trunkline_server.page.server import Page
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Record
from trunkline_server.traces.following import Feed
from trunkline_server.traces.readers import Readers, trace_id_of

#: Milliseconds that the browser has for a step, on a machine that does more than this.
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    with or_skip():
        if browser.found() is None:
            raise Missing("chromium not found; on Debian and Ubuntu: apt-get install chromium")
    async with async_playwright() as playwright, browser.launched(playwright) as launched:
        yield launched


class Looking:
    """A page with a day of records, and a browser on it."""

    def __init__(self, address: str, view: View, ended: Ended, page: Page) -> None:
        self.address, self.view, self.ended, self.page = address, view, ended, page

    def rows(self) -> Locator:
        return self.view.locator("#rows tr")


@asynccontextmanager
async def looking(
    chromium: Browser, folder: Path, *, callers: Callers | None = None, count: int = 80, **how: Any
) -> AsyncIterator[Looking]:
    """Every request that leaves the page's own origin, and every error of a script, fails the block."""
    backend = open_backend("sqlite:", folder)
    sink, reader = backend.sink(), backend.reader()
    assert reader is not None
    await sink.open()
    made = list(records(count, datetime.now(UTC)))
    await sink.write([Record(trace_id_of(one), one.SerializeToString()) for one in made])
    ended = Ended()
    page = Page(Readers([("sqlite", reader)]), Feed(ended.source), callers or Callers({}))
    address = await page.start("127.0.0.1", 0)
    context: BrowserContext = await chromium.new_context(viewport={"width": 1280, "height": 800}, **how)
    context.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    wrong: list[str] = []
    try:
        view = await context.new_page()
        view.on("request", lambda request: asked.append(request.url))
        view.on("pageerror", lambda error: wrong.append(str(error)))
        view.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        await view.goto(address)
        yield Looking(address, view, ended, page)
    finally:
        await context.close()
        await page.aclose()
        await reader.aclose()
        await sink.aclose()
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert wrong == []


async def test_the_list_shows_the_newest_calls_and_goes_back(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path) as at:
        await expect(at.rows()).to_have_count(50)
        first = at.rows().first
        await expect(first).to_contain_text("anthropic/claude-opus-4-5")
        await expect(first).to_contain_text("×2")
        await expect(first.locator("time")).not_to_contain_text("UTC")
        await at.view.get_by_role("link", name="Older").click()
        await expect(at.rows()).to_have_count(31)
        await at.view.get_by_role("link", name="Newest").click()
        await expect(at.rows()).to_have_count(50)


async def test_a_filter_narrows_the_list_and_is_cleared(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=40) as at:
        await at.view.get_by_label("Status").select_option("failed")
        await at.view.get_by_role("button", name="Filter", exact=True).click()
        count = await at.rows().count()
        assert 0 < count < 20
        await expect(at.rows().locator(".badge.bad")).to_have_count(count)
        await at.view.get_by_text("More", exact=True).click()
        await at.view.get_by_label("Provider").fill("nobody")
        await at.view.get_by_label("Provider").press("Enter")
        await expect(at.view.get_by_text("No call matches.")).to_be_visible()
        await expect(at.view.get_by_label("Provider")).to_have_value("nobody")
        await at.view.get_by_role("link", name="Clear").click()
        await expect(at.rows()).to_have_count(41)


async def test_live_puts_calls_on_top_as_they_end(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=10) as at:
        live = at.view.get_by_role("button", name="Live")
        await expect(live).to_have_attribute("aria-pressed", "false")
        await live.click()
        await expect(at.view.get_by_role("status")).to_have_text("Following.")
        at.ended.tell(weather(5000, datetime.now(UTC)))
        await expect(at.rows()).to_have_count(12)
        await expect(at.rows().first.locator("a")).to_have_attribute("href", f"/calls/cmpl_{5000:032x}")
        await expect(at.view.get_by_role("status")).to_have_text("Following: 1 new call.")
        # A feed that breaks is found again.
        at.ended.cut()
        await until(lambda: at.ended.opened == 2)
        at.ended.tell(weather(5001, datetime.now(UTC)))
        await expect(at.rows()).to_have_count(13)
        await live.click()
        await expect(live).to_have_attribute("aria-pressed", "false")
        await until(lambda: not at.ended.followed)


async def test_live_leads_to_the_key_when_the_old_one_is_taken_away(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, callers=Callers({"team-a": KEY_A}), count=3) as at:
        await at.view.get_by_label("Key", exact=True).fill(KEY_A)
        await at.view.keyboard.press("Enter")
        await at.view.get_by_role("button", name="Live").click()
        await expect(at.view.get_by_role("status")).to_have_text("Following.")
        at.page.become(Callers({"team-a": KEY_A[::-1]}))
        await expect(at.view.get_by_label("Key", exact=True)).to_be_visible()


async def test_live_follows_the_filter(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=10) as at:
        await at.view.goto(f"{at.address}?status=failed")
        count = await at.rows().count()
        await at.view.get_by_role("button", name="Live").click()
        await expect(at.view.get_by_role("status")).to_have_text("Following.")
        good, bad = weather(5000, datetime.now(UTC)), weather(5001, datetime.now(UTC))
        bad.status.code, bad.status.reason = 14, "LLM_OVERLOADED"
        at.ended.tell(good, bad)
        await expect(at.rows()).to_have_count(count + 1)
        await expect(at.rows().first).to_contain_text("LLM_OVERLOADED")


async def test_one_call_is_shown_in_full(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=3) as at:
        await at.rows().first.click()
        view = at.view
        await expect(view.get_by_role("heading", level=1)).to_contain_text("anthropic/claude-opus-4-5")
        for heading in ("Attempts", "Asked", "Answered", "Facts"):
            await expect(view.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        # On one time line: the second attempt begins where the first one ends.
        bars: list[Any] = [await rect.bounding_box() for rect in await view.locator(".line rect").all()]
        first_waits, first_answers, second_waits, second_answers = bars
        assert first_waits["x"] < first_answers["x"] < second_waits["x"] < second_answers["x"]
        assert second_waits["x"] == pytest.approx(first_answers["x"] + first_answers["width"], abs=4)
        assert second_answers["width"] > 3 * second_waits["width"]
        await expect(view.get_by_text("Take the waterproof jacket, and a fleece under it.")).to_be_visible()
        await expect(view.get_by_text('"place": "Bergen"')).to_be_visible()
        body = view.get_by_text('"rate_limit_exceeded"')
        await expect(body).to_be_hidden()
        await view.get_by_text("Attempt 1").click()
        await view.get_by_text("Body of the response").first.click()
        await expect(body).to_be_visible()
        async with view.expect_download() as download:
            await view.get_by_role("link", name="Whole record as JSON").click()
        assert (await (await download.value).path()).read_text().startswith("{")


async def test_it_is_used_by_keys_alone(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=5) as at:
        keys = at.view.keyboard
        await keys.press("?")
        await expect(at.view.get_by_role("dialog", name="Keys")).to_be_visible()
        await keys.press("Escape")
        await expect(at.view.get_by_role("dialog")).to_be_hidden()
        await keys.press("/")
        await expect(at.view.get_by_role("textbox", name="Model")).to_be_focused()
        await keys.type("jk?")  # letters of a text, not keys of the page
        await expect(at.view.get_by_role("textbox", name="Model")).to_have_value("jk?")
        await at.view.get_by_role("textbox", name="Model").fill("")
        await at.view.locator("main").focus()
        for key in ("j", "j", "k"):
            await keys.press(key)
        await expect(at.rows().first.locator("a")).to_be_focused()
        await keys.press("Enter")
        await expect(at.view.get_by_role("heading", name="Attempts")).to_be_visible()
        await keys.press("u")
        await expect(at.rows()).to_have_count(6)
        await keys.press("l")
        await expect(at.view.get_by_role("status")).to_have_text("Following.")
        await keys.press("g")
        await keys.press("u")
        await expect(at.view.get_by_role("heading", name="Usage")).to_be_visible()
        # By Tab alone: the first stop skips to the content.
        await at.view.goto(at.address)
        await keys.press("Tab")
        await expect(at.view.get_by_text("Skip to content")).to_be_focused()


async def test_back_leads_to_the_list_as_it_was_left(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=20) as at:
        await at.view.goto(f"{at.address}?provider=openai")
        await at.rows().first.click()
        await at.view.get_by_role("link", name="← Calls").click()
        await expect(at.view.get_by_label("Provider")).to_have_value("openai")


async def _ground(view: View) -> str:
    return str(await view.evaluate("getComputedStyle(document.body).backgroundColor"))


async def test_it_is_light_or_dark_as_the_viewer_wants(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=2, color_scheme="light") as at:
        assert await _ground(at.view) == "rgb(246, 247, 249)"
        await at.view.emulate_media(color_scheme="dark")
        assert await _ground(at.view) == "rgb(15, 19, 24)"


@pytest.mark.parametrize("where", ["", "usage", "call"])
async def test_it_fits_a_phone(chromium: Browser, tmp_path: Path, where: str) -> None:
    async with looking(chromium, tmp_path, count=20) as at:
        await at.view.set_viewport_size({"width": 360, "height": 740})
        if where == "call":
            await at.rows().first.click()
        else:
            await at.view.goto(at.address + where)
        await expect(at.view.get_by_role("heading", level=1)).to_be_visible()
        assert await at.view.evaluate("document.documentElement.scrollWidth") <= 360


async def test_the_plots_are_drawn_and_lead_to_their_calls(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=60) as at:
        await at.view.goto(f"{at.address}usage")
        await expect(at.view.locator("figure")).to_have_count(3)
        bars = at.view.locator("figure").first.locator("svg rect")
        assert await bars.count() > 10
        box = await bars.first.bounding_box()
        assert box
        assert box["height"] > 0
        title = await bars.first.locator("title").text_content()
        assert title
        assert "$" in title
        await bars.last.click()
        await expect(at.view.get_by_role("heading", name="Calls")).to_be_visible()
        assert await at.rows().count() >= 1


async def test_a_key_is_entered_once(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, callers=CALLERS, count=5) as at:
        await expect(at.view.get_by_role("heading", name="Sign in")).to_be_visible()
        await at.view.get_by_label("Key", exact=True).fill(KEY_A)
        await at.view.get_by_label("Key", exact=True).press("Enter")
        await expect(at.view.get_by_text("No calls yet")).to_be_visible()
        assert await at.view.evaluate("document.cookie") == ""
        await at.view.get_by_role("button", name="Live").click()
        await expect(at.view.get_by_role("status")).to_have_text("Following.")
        own, theirs = weather(5000, datetime.now(UTC)), weather(5001, datetime.now(UTC) + timedelta(seconds=1))
        own.caller = "team-a"
        at.ended.tell(theirs, own)
        await expect(at.rows()).to_have_count(1)
        await at.view.get_by_role("button", name="Sign out").click()
        await expect(at.view.get_by_label("Key", exact=True)).to_be_visible()
        await at.view.goto(at.address)
        await expect(at.view.get_by_label("Key", exact=True)).to_be_visible()


async def test_without_scripts_it_still_shows(chromium: Browser, tmp_path: Path) -> None:
    async with looking(chromium, tmp_path, count=5, java_script_enabled=False) as at:
        await expect(at.rows()).to_have_count(6)
        await expect(at.rows().first.locator("time")).to_contain_text("UTC")
        await expect(at.view.get_by_role("button", name="Live")).to_be_hidden()
        await at.rows().first.locator("a").click()
        await expect(at.view.get_by_role("heading", name="Attempts")).to_be_visible()

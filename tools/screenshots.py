"""Takes the pictures of docs/images: the page, over records that are made up, in the system's Chromium."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from playwright.async_api import Browser, async_playwright
from tools.browser import launched
from tools.page_records import records

from trunkline_server.access import Callers
from trunkline_server.page.server import Page
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Record
from trunkline_server.traces.following import Feed
from trunkline_server.traces.readers import Readers, trace_id_of
from trunkline_server.traces.tail import follow

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
COUNT = 900

#: Name of the picture to path, scheme of colours, width and height.
PICTURES = {
    "calls": ("/", "light", 1200, 640),
    "call": ("/calls/{shown}", "light", 1200, 1130),
    "usage": ("/usage", "dark", 1200, 720),
}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = open_backend("sqlite:", Path(folder))
        sink, reader = backend.sink(), backend.reader()
        assert reader is not None  # noqa: S101  # sqlite can be read
        made = list(records(COUNT, datetime.now(UTC)))
        await sink.open()
        await sink.write([Record(trace_id_of(trace), trace.SerializeToString()) for trace in made])
        page = Page(Readers([("sqlite", reader)]), Feed(partial(follow, Path(folder, "nobody"))), Callers({}))
        address = await page.start("127.0.0.1", 0)
        try:
            async with async_playwright() as playwright, launched(playwright) as browser:
                await _take(browser, address.rstrip("/"), trace_id_of(made[-1]))
        finally:
            await page.aclose()
            await reader.aclose()
            await sink.aclose()


async def _take(browser: Browser, address: str, shown: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, (path, scheme, width, height) in PICTURES.items():
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            timezone_id="UTC",
        )
        view = await context.new_page()
        await view.goto(address + path.format(shown=shown))
        await view.screenshot(path=IMAGES / f"{name}.png")
        await context.close()
        print(f"wrote docs/images/{name}.png, {(IMAGES / f'{name}.png').stat().st_size // 1000} KB")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

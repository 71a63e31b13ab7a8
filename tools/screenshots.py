"""Takes the pictures of docs/images in the system's Chromium, and writes down what they were taken of."""

from __future__ import annotations

import asyncio
import json
import sys

from playwright.async_api import Browser, async_playwright
from tools.browser import launched
from tools.pictures import IMAGES, NOW, PICTURES, TAKEN_OF, shown, taken_of


async def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with shown() as address:
        async with async_playwright() as playwright, launched(playwright) as browser:
            await _take(browser, address)
        TAKEN_OF.write_text(json.dumps(await taken_of(address), indent=2) + "\n")


async def _take(browser: Browser, address: str) -> None:
    for name, picture in PICTURES.items():
        context = await browser.new_context(
            viewport={"width": picture.width, "height": picture.height},
            color_scheme="dark" if picture.scheme == "dark" else "light",
            timezone_id="UTC",
            locale="en-GB",
        )
        view = await context.new_page()
        await view.clock.set_fixed_time(NOW)
        await view.goto(address + picture.path)
        await view.screenshot(path=IMAGES / f"{name}.png")
        await context.close()
        print(f"wrote docs/images/{name}.png, {(IMAGES / f'{name}.png').stat().st_size // 1000} KB")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

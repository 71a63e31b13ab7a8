"""The system's Chromium, driven by playwright: nothing is downloaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-sandbox",
)  # fmt: skip


def found() -> str | None:
    """Its path; None where it is not installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@asynccontextmanager
async def launched(playwright: Playwright) -> AsyncIterator[Browser]:
    """A headless browser with a profile of its own."""
    path = found()
    if path is None:
        raise SystemExit("no Chromium here: install it, on Debian with `apt-get install chromium`")
    with tempfile.TemporaryDirectory(prefix="chromium-") as home:
        browser = await playwright.chromium.launch(
            executable_path=path, headless=True, args=list(_FLAGS), env={"HOME": home, "XDG_CONFIG_HOME": home}
        )
        try:
            yield browser
        finally:
            await browser.close()

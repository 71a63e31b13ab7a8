"""The page over backends in memory, and a browser's manners without a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from tests.traces.memory import Ended, Memory

from trunkline_server.access import Callers
from trunkline_server.page.server import Page
from trunkline_server.traces.following import Feed
from trunkline_server.traces.readers import Readers

KEY_A, KEY_B, KEY_OPS = "team-a-0123456789abcdef", "team-b-0123456789abcdef", "ops-0123456789abcdef"
CALLERS = Callers({"team-a": KEY_A, "team-b": KEY_B, "ops": KEY_OPS}, operators=["ops"])

HTML = {"Accept": "text/html"}


@dataclass
class Served:
    """A page, and a client without cookies."""

    address: str
    http: aiohttp.ClientSession
    memory: Memory
    ended: Ended
    page: Page

    async def get(self, path: str, key: str = "", **headers: str) -> tuple[int, str]:
        """Status and text; redirects are not followed."""
        sent = {**HTML, **({"Authorization": f"Bearer {key}"} if key else {}), **headers}
        async with self.http.get(self.address + path, headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def serving(
    *, callers: Callers | None = None, names: Sequence[str] = (), backends: Mapping[str, Memory] | None = None
) -> AsyncIterator[Served]:
    memory, ended = Memory(), Ended()
    readers = Readers(list((backends or {"sqlite": memory}).items()))
    page = Page(readers, Feed(ended.source), callers or Callers({}), names=names)
    address = (await page.start("127.0.0.1", 0)).rstrip("/")
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            yield Served(address, http, memory, ended, page)
    finally:
        await page.aclose()

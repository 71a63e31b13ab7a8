"""What the pictures of docs/images show: the page over records that are made up, at one moment; and what they
were taken of, so that one older than the page is found without a browser.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
from tools.page_records import records

from trunkline_server.access import Callers
from trunkline_server.page.server import Page
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Record
from trunkline_server.traces.following import Feed
from trunkline_server.traces.readers import Readers, trace_id_of
from trunkline_server.traces.tail import follow

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
#: What each picture was taken of.
TAKEN_OF = IMAGES / "taken-of.json"

COUNT = 900
#: When it is on the page, and to the browser.
NOW = datetime(2026, 11, 28, 15, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Picture:
    """One view of the page."""

    path: str
    scheme: str
    width: int
    height: int


_SHOWN = f"cmpl_{COUNT + 1:032x}"
PICTURES: Mapping[str, Picture] = {
    "calls": Picture("/", "light", 1200, 640),
    "call": Picture(f"/calls/{_SHOWN}", "light", 1200, 1130),
    "usage": Picture("/usage", "dark", 1200, 720),
}

#: What a browser needs beside a view to draw it.
_FILES = ("/static/page.css", "/static/page.js", "/static/mark.svg")


@asynccontextmanager
async def shown() -> AsyncIterator[str]:
    """The address of the page, while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        backend = open_backend("sqlite:", Path(folder))
        sink, reader = backend.sink(), backend.reader()
        assert reader is not None  # noqa: S101  # sqlite can be read
        await sink.open()
        await sink.write([Record(trace_id_of(trace), trace.SerializeToString()) for trace in records(COUNT, NOW)])
        feed = Feed(partial(follow, Path(folder, "nobody")))
        page = Page(Readers([("sqlite", reader)]), feed, Callers({}), clock=lambda: NOW)
        try:
            yield (await page.start("127.0.0.1", 0)).rstrip("/")
        finally:
            await page.aclose()
            await reader.aclose()
            await sink.aclose()


async def taken_of(address: str) -> dict[str, dict[str, str]]:
    """By picture, the digests of the picture, of its view as it is served, and of how that is drawn."""
    async with aiohttp.ClientSession(address) as http:

        async def fetched(path: str) -> bytes:
            async with http.get(path, raise_for_status=True) as answer:
                return await answer.read()

        drawn = _digest(b"\0".join([await fetched(path) for path in _FILES]))
        return {
            name: {
                "picture": _digest((IMAGES / f"{name}.png").read_bytes()),
                "view": _digest(await fetched(picture.path)),
                "seen": _digest(json.dumps([picture.scheme, picture.width, picture.height]).encode()),
                "style and script": drawn,
            }
            for name, picture in PICTURES.items()
        }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

"""The page as a web server: routes, templates, files, and how it ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from trunkline_server.access import Callers
from trunkline_server.page import figures, forms
from trunkline_server.page.address import url_of
from trunkline_server.page.guard import Guard
from trunkline_server.page.sessions import Sessions
from trunkline_server.page.views import Views
from trunkline_server.traces.following import Feed
from trunkline_server.traces.readers import Readers

_HERE = Path(__file__).parent

#: Seconds that open answers have to end.
_GRACE = 1.0


def _now() -> datetime:
    return datetime.now(UTC)


class Page:
    """Serves the page on one event loop."""

    def __init__(
        self,
        readers: Readers,
        feed: Feed,
        callers: Callers,
        *,
        names: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """`names`: host names by which it is reached, beside localhost and addresses."""
        self._tls = tls
        self._callers = callers
        sessions = self._sessions = Sessions()
        views = Views(readers, feed, callers, sessions, _templates(), clock, secure=tls is not None)
        application = Guard(callers, sessions, names).application()
        application.add_routes(views.routes())
        application.router.add_get("/static/{name}", _static)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            # A browser that stops to follow is let go at once.
            handler_cancellation=True,
            shutdown_timeout=_GRACE,
        )

    def become(self, callers: Callers) -> None:
        """Lets in whom `callers` knows. Where those are others, all enter their keys again, and what follows ends."""
        if self._callers.become(callers):
            self._sessions.end_all()

    async def start(self, host: str, port: int) -> str:
        """Listens. Returns its address as a URL; raises OSError if it cannot."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        return url_of(host, self._runner.addresses[0][1], secure=self._tls is not None)

    async def serve(self, listening: socket.socket) -> None:
        """Serves on a socket that is bound."""
        await self._runner.setup()
        await web.SockSite(self._runner, listening, ssl_context=self._tls).start()

    async def aclose(self) -> None:
        await self._runner.cleanup()


def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(figures.FILTERS)
    made.globals["RANGES"] = forms.RANGES
    made.globals["METHODS"] = forms.METHODS
    made.globals["REASONS"] = forms.REASONS
    return made


_FILES: dict[str, tuple[bytes, str]] = {
    name: ((_HERE / "static" / name).read_bytes(), kind)
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("mark.svg", "image/svg+xml"))
}


async def _static(request: web.Request) -> web.StreamResponse:
    found: Any = _FILES.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound(text="There is no such file.\n")
    body, kind = found
    return web.Response(body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})

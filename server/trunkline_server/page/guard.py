"""What every request passes: it is for this host, its answer lets nothing in from elsewhere, and it has a viewer."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from aiohttp import hdrs, web

from trunkline_server.access import ANONYMOUS, Callers
from trunkline_server.errors import CallerUnauthenticated
from trunkline_server.page.sessions import Sessions

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: On every answer. Nothing is loaded from, sent to or shown in any other origin; no script but ours runs.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not "no-referrer": with that, browsers hide the origin of our own forms from us.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: Most bytes of a form.
_LARGEST_FORM = 16_384

#: What a stranger may see.
_OPEN = ("/sign-in", "/static/")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks."""

    name: str
    operator: bool

    @property
    def only(self) -> str | None:
        """Whose records they see; None: everybody's."""
        return None if self.operator else self.name


VIEWER = web.RequestKey("viewer", Viewer)


class Guard:
    """What stands before and behind the handlers of an application."""

    def __init__(self, callers: Callers, sessions: Sessions, names: Iterable[str]) -> None:
        """`names`: host names by which the page is reached, beside localhost and addresses."""
        self._callers = callers
        self._sessions = sessions
        self._names = frozenset(name.lower() for name in names) | {"localhost"}

    def application(self) -> web.Application:
        """One that it guards."""
        made = web.Application(middlewares=[self._for_this_host, self._for_a_viewer], client_max_size=_LARGEST_FORM)
        made.on_response_prepare.append(_with_headers)
        return made

    @web.middleware
    async def _for_this_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A page elsewhere can make its own name lead here; it cannot make the browser ask for another one."""
        host = _host(request.host)
        if host not in self._names and not _is_address(host):
            raise web.HTTPMisdirectedRequest(
                text=f"This page does not answer to the name {host!r}: add it to `page.names` in the configuration.\n"
            )
        origin = request.headers.get(hdrs.ORIGIN)
        if request.method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="This form was sent by another site.\n")
        return await handler(request)

    @web.middleware
    async def _for_a_viewer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = self._name(request)
        if name is not None:
            request[VIEWER] = Viewer(name, self._callers.is_operator(name))
        elif not request.path.startswith(_OPEN):
            if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
                raise web.HTTPUnauthorized(text="Send `authorization: Bearer KEY`, or sign in on the page.\n")
            raise web.HTTPSeeOther(f"/sign-in?next={quote(request.path_qs, safe='')}")
        return await handler(request)

    def _name(self, request: web.Request) -> str | None:
        """The caller's name; None: not known yet."""
        if not self._callers.keyed:
            return _certificate_name(request) or ANONYMOUS
        given = request.headers.get(hdrs.AUTHORIZATION)
        if given is not None:
            try:
                return self._callers.by_key(given)
            except CallerUnauthenticated:
                return None
        return self._sessions.name(request)


async def _with_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _host(value: str) -> str:
    return (urlsplit(f"//{value}").hostname or "").lower() if "@" not in value else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _certificate_name(request: web.Request) -> str:
    """Common name of the client's certificate; empty without one."""
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    for parts in (certificate or {}).get("subject", ()):
        for name, value in parts:
            if name == "commonName":
                return str(value)
    return ""

"""Who looks at the page: a key is entered once, and a cookie that no script can read stands for it from then on."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict

from aiohttp import web

COOKIE = "trunkline_session"

#: Seconds that a session lasts, and most sessions at once: the oldest goes.
LIFETIME = 12 * 3600.0
MOST = 1000


class Sessions:
    """Names of callers by the token in their cookie. Holds digests only, in memory."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def begin(self, name: str, response: web.StreamResponse, *, secure: bool) -> None:
        """Gives the caller a cookie."""
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = (name, time.monotonic() + LIFETIME)
        while len(self._open) > MOST:
            self._open.popitem(last=False)
        response.set_cookie(
            COOKIE, token, max_age=int(LIFETIME), path="/", httponly=True, samesite="Strict", secure=secure
        )

    def name(self, request: web.Request) -> str | None:
        """Whose session it is; None without one, or after its time."""
        token = request.cookies.get(COOKIE)
        if not token:
            return None
        name, until = self._open.get(_digest(token), ("", 0.0))
        return name if time.monotonic() < until else None

    def end_all(self) -> None:
        self._open.clear()

    def end(self, request: web.Request, response: web.StreamResponse) -> None:
        token = request.cookies.get(COOKIE)
        if token:
            self._open.pop(_digest(token), None)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

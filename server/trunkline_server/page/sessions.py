"""Who looks at the page: a key is entered once, and a cookie that no script can read stands for it from then on."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

COOKIE = "trunkline_session"

#: Seconds that a session lasts, and most sessions at once: the oldest goes.
LIFETIME = 12 * 3600.0
MOST = 1000


class Sessions:
    """Names of callers by the token in their cookie. Holds digests only, in memory."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        #: Answers that go on, by what ends each, with the session that it is for.
        self._answers: dict[asyncio.Timeout, bytes] = {}

    def begin(self, name: str, response: web.StreamResponse, *, secure: bool) -> None:
        """Gives the caller a cookie."""
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = (name, time.monotonic() + LIFETIME)
        while len(self._open) > MOST:
            self._end(next(iter(self._open)))
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

    @asynccontextmanager
    async def answering(self, request: web.Request) -> AsyncIterator[None]:
        """For an answer that goes on: raises TimeoutError in the block as soon as the session of the request ends, and
        when all do; without a session only then.
        """
        session = _digest(request.cookies.get(COOKIE, ""))
        _, until = self._open.get(session, ("", None))
        async with asyncio.timeout(None if until is None else until - time.monotonic()) as timer:
            self._answers[timer] = session
            try:
                yield
            finally:
                del self._answers[timer]

    def end_all(self) -> None:
        self._open.clear()
        self._stop(list(self._answers))

    def end(self, request: web.Request, response: web.StreamResponse) -> None:
        token = request.cookies.get(COOKIE)
        if token:
            self._end(_digest(token))
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")

    def _end(self, session: bytes) -> None:
        self._open.pop(session, None)
        self._stop([timer for timer, of in self._answers.items() if of == session])

    @staticmethod
    def _stop(timers: Iterable[asyncio.Timeout]) -> None:
        now = asyncio.get_running_loop().time()
        for timer in timers:
            if not timer.expired():
                timer.reschedule(now)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

"""Authentication that needs something of each request: a token that expires, or a signature over what is sent.

A key that never changes is a header of the upstream's and needs none of this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

#: Seconds before its end at which a token is replaced, while the old one is still used.
EARLY = 300.0
#: Seconds for which a token is not asked for again after that failed, while the old one is still good.
PAUSE = 15.0


class Authorizer(Protocol):
    """Authenticates requests, one at a time and many at once. Used on one event loop, which it never blocks."""

    async def authorize(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        """Headers to send beside `headers`, in whose place they stand where names are the same.

        `url` is the whole one, byte for byte as it is sent; `headers` has lower-case names and all that is sent but
        host and content-length, which the transport makes. Raises LLMAuthenticationError where there is no
        credential, LLMConnectionError and LLMTimeoutError where a token cannot be fetched.
        """


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token."""

    value: str
    #: Unix seconds; None: it does not expire.
    expires: float | None = None
    #: What belongs to it, such as the project that pays.
    headers: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"Token(expires={self.expires})"


class Kept(Generic[T]):
    """What is fetched when it is needed, kept, and replaced before it ends.

    `fetch` returns it with its end in Unix seconds, None if it has none. It may block: it runs in a thread, once at a
    time however many wait for it. It raises LLMError.
    """

    def __init__(self, fetch: Callable[[], tuple[T, float | None]], *, clock: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: T | None = None
        #: When it ends, and when it is to be replaced.
        self._end = self._renewal = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """Raises what `fetch` does."""
        now = self._clock()
        if now >= self._renewal:
            task = self._fetching
            if task is None:
                task = self._fetching = asyncio.create_task(self._replace())
                task.add_done_callback(self._done)
            if now >= self._end:
                # A caller who leaves does not take it away from those who wait for it too.
                await asyncio.shield(task)
        return self._value  # type: ignore[return-value]  # nothing is kept before the first one is there

    async def _replace(self) -> None:
        value, end = await asyncio.to_thread(self._fetch)
        end = float("inf") if end is None else end
        now = self._clock()
        # One that comes from a cache of its own may be about to end: it is asked for again, but not at once.
        self._value, self._end, self._renewal = value, end, max(end - EARLY, min(now + PAUSE, end))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and task.exception() is not None:
            self._renewal = min(self._clock() + PAUSE, self._end)


class BearerToken:
    """Sends a token that is fetched when it is needed, kept, and replaced before it ends.

    `fetch` may block: it runs in a thread, once at a time however many requests wait for it. It raises LLMError.
    """

    def __init__(self, fetch: Callable[[], Token], *, clock: Callable[[], float] = time.time) -> None:
        def headers() -> tuple[Mapping[str, str], float | None]:
            token = fetch()
            return {**(token.headers or {}), "authorization": f"Bearer {token.value}"}, token.expires

        self._headers = Kept(headers, clock=clock)

    async def authorize(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        return await self._headers.get()

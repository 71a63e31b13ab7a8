"""Records as calls end, for any number of followers: the feed is read once, and a slow follower loses some."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol, TypeAlias

from trunkline.v1alpha import trace_pb2
from trunkline_server.errors import StoreUnavailable
from trunkline_server.traces.base import BackendUnavailable
from trunkline_server.traces.matching import without_content

Trace: TypeAlias = trace_pb2.Trace


class Told(Protocol):
    """Records as they come, until the connection breaks."""

    #: Lost on the way here so far.
    dropped: int

    def __aiter__(self) -> AsyncIterator[Trace]: ...


#: Opens the feed: connected once entered, or BackendUnavailable.
Source: TypeAlias = Callable[[], AbstractAsyncContextManager[Told]]

#: What waits for a follower at most; what comes after that is dropped.
QUEUE_RECORDS, QUEUE_BYTES = 512, 8 * 1024 * 1024

#: Seconds before the feed is opened again after it broke: at first, and at most.
_AGAIN_FIRST, _AGAIN_MOST = 0.1, 2.0

#: Seconds that the first follower waits for the feed.
_OPENING = 5.0


class Follower:
    """What one reader is owed. Made by `Feed.follow`."""

    def __init__(self, wanted: Callable[[Trace], bool], *, full: bool) -> None:
        self._wanted = wanted
        self.full = full
        #: Records lost so far because they were not taken in time, here or on the way here.
        self.dropped = 0
        self._waiting: deque[tuple[Trace, int]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()

    def offer(self, trace: Trace, basic: Callable[[], Trace]) -> None:
        """Puts the record into the queue, if it is wanted and there is room. Never waits."""
        if not self._wanted(trace):
            return
        given = trace if self.full else basic()
        size = given.ByteSize()
        if len(self._waiting) >= QUEUE_RECORDS or (self._waiting and self._bytes + size > QUEUE_BYTES):
            self.dropped += 1
            return
        self._bytes += size
        self._waiting.append((given, size))
        self._arrived.set()

    async def next(self, patience: float) -> Trace | None:
        """The next record; None after `patience` seconds without one."""
        if not self._waiting:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._arrived.wait()
        if not self._waiting:
            return None
        trace, size = self._waiting.popleft()
        self._bytes -= size
        return trace


class Feed:
    """One reading of the feed, open while somebody follows."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._followers: set[Follower] = set()
        self._pump: asyncio.Task[None] | None = None
        self._open = asyncio.Event()

    @asynccontextmanager
    async def follow(self, wanted: Callable[[Trace], bool], *, full: bool) -> AsyncIterator[Follower]:
        """Once entered, no record is missed but those that it counts. Raises StoreUnavailable if there is no feed."""
        follower = Follower(wanted, full=full)
        self._followers.add(follower)
        try:
            if self._pump is None:
                self._pump = asyncio.create_task(self._read())
            try:
                async with asyncio.timeout(_OPENING):
                    await self._open.wait()
            except TimeoutError:
                raise StoreUnavailable(
                    "records cannot be followed: the process that delivers them does not answer; try again shortly"
                ) from None
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                await self.aclose()

    async def aclose(self) -> None:
        pump, self._pump = self._pump, None
        self._open.clear()
        if pump is not None:
            pump.cancel()
            await asyncio.wait({pump})

    async def _read(self) -> None:
        delay = _AGAIN_FIRST
        while True:
            with suppress(BackendUnavailable):
                async with self._source() as traces:
                    self._open.set()
                    delay = _AGAIN_FIRST
                    lost = 0
                    async for trace in traces:
                        if traces.dropped > lost:
                            for follower in self._followers:
                                follower.dropped += traces.dropped - lost
                            lost = traces.dropped
                        self._hand_out(trace)
            self._open.clear()
            await asyncio.sleep(delay)
            delay = min(delay * 2, _AGAIN_MOST)

    def _hand_out(self, trace: Trace) -> None:
        basic: Trace | None = None

        def stripped() -> Trace:
            nonlocal basic
            if basic is None:
                basic = without_content(trace)
            return basic

        for follower in self._followers:
            follower.offer(trace, stripped)

"""Events on their way to the caller: numbered, written one at a time, with a heartbeat when there is nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from trunkline_server.call import Call
from trunkline_server.errors import ReaderStalled
from trunkline_server.providers.assembly import StreamEvent, timestamp

#: Takes a serialized event and its number. Waits while whoever reads is behind.
Sink: TypeAlias = Callable[[bytes, int], Awaitable[None]]


class Line:
    """The way of one stream to its caller."""

    def __init__(self, context: Any, call: Call, patience: float) -> None:
        """`patience`: seconds that a write may wait for a caller who does not read, 0: for ever."""
        self._context = context
        self._call = call
        self._patience = patience
        #: What is written is added to what is kept of the call.
        self.recorded = True
        self._loop = asyncio.get_running_loop()
        self._begun = False
        #: Since when a write waits; 0: none does.
        self._since = 0.0

    async def send(self, data: bytes, number: int) -> None:
        """Waits until the transport takes the event: a slow caller slows the provider."""
        if self._begun:
            await self._send(data, number)
            return
        # The first event, and with it the headers. gRPC cannot end a call whose headers are halfway out: its caller
        # would wait for ever. So this write is waited for even when the call is ended meanwhile.
        self._begun = True
        sending = self._loop.create_task(self._send(data, number))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait({sending})
            raise

    async def _send(self, data: bytes, number: int) -> None:
        call = self._call
        # Counted before it is written: what gRPC has taken arrives, even if this task is ended while it waits.
        call.sequence = number
        call.sent_bytes += len(data)
        if self.recorded and call.answer.wants:
            call.answer.add(data)
        self._since = self._loop.time()
        try:
            with call.waiting:
                await self._context.write(data)
        except Exception as error:
            # Bytes can always be written, except to a caller who has left; gRPC has several private exceptions for it,
            # and may tell of it before it cancels the call.
            raise asyncio.CancelledError from error
        finally:
            self._since = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Ends what runs inside when the caller has not read for too long. Raises ReaderStalled."""
        patience = self._patience
        if not patience:
            yield
            return
        handle: asyncio.TimerHandle | None = None
        timer = asyncio.timeout(None)

        def look() -> None:
            nonlocal handle
            waited = self._loop.time() - self._since if self._since else 0.0
            if waited >= patience:
                timer.reschedule(self._loop.time())
            else:
                handle = self._loop.call_later(patience - waited, look)

        try:
            async with timer:
                handle = self._loop.call_later(patience, look)
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            raise ReaderStalled(
                f"the caller did not read for {patience:g} s (stream.stalled_reader): the stream was ended"
            ) from None
        finally:
            if handle is not None:
                handle.cancel()


class EventWriter:
    """Numbers the events of one stream. `close` it when the stream ends, whichever way."""

    def __init__(self, sink: Sink, call: Call, heartbeat: float, *, resumable: bool = False) -> None:
        """`heartbeat`: seconds of silence before a Heartbeat event; 0: none."""
        self._sink = sink
        self._call = call
        self._resumable = resumable
        self._number = 0
        self._interval = heartbeat
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self._writing = False
        self._beat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(heartbeat, self._tick) if heartbeat > 0 else None

    async def write(self, event: StreamEvent) -> None:
        """Waits while the sink does."""
        while self._beat is not None:
            # The sink takes one event at a time.
            await asyncio.wait({self._beat})
        self._writing = True
        try:
            if not self._number:
                await self._send(self._started())
            await self._send(event)
        finally:
            self._writing = False

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None and not self._beat.done():
            await asyncio.wait({self._beat}, timeout=1.0)

    async def _send(self, event: StreamEvent) -> None:
        self._number += 1
        event.sequence_number = self._number
        await self._sink(event.SerializeToString(), self._number)
        self._written_at = self._loop.time()

    def _started(self) -> StreamEvent:
        event = StreamEvent()
        event.started.completion_id = self._call.id
        event.started.create_time.CopyFrom(timestamp(self._call.create_time))
        event.started.resumable = self._resumable
        return event

    def _tick(self) -> None:
        quiet = self._loop.time() - self._written_at
        if quiet >= self._interval and not self._writing and self._beat is None:
            self._beat = self._loop.create_task(self._heartbeat())
            quiet = 0.0
        self._timer = self._loop.call_later(max(0.001, self._interval - quiet % self._interval), self._tick)

    async def _heartbeat(self) -> None:
        try:
            if not self._number:
                await self._send(self._started())
            event = StreamEvent()
            event.heartbeat.SetInParent()
            await self._send(event)
        except asyncio.CancelledError:
            return  # the stream is over; its own task learns that by itself
        finally:
            self._beat = None

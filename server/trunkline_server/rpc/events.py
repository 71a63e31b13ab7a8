"""Numbers the events of a stream and writes them; a heartbeat when nothing else was written for a while."""

from __future__ import annotations

import asyncio
from typing import Any

from trunkline_server.call import Call
from trunkline_server.providers.assembly import StreamEvent, timestamp


class EventWriter:
    """Writes one stream. `close` it when the stream ends, whichever way."""

    def __init__(self, context: Any, call: Call, heartbeat: float) -> None:
        """`heartbeat`: seconds of silence before a Heartbeat event; 0: none."""
        self._context = context
        self._call = call
        self._interval = heartbeat
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self._writing = False
        self._beat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(heartbeat, self._tick) if heartbeat > 0 else None

    async def write(self, event: StreamEvent) -> None:
        """Waits until the transport takes the event: a slow caller slows the provider."""
        while self._beat is not None:
            # The transport takes one message at a time.
            await asyncio.wait({self._beat})
        self._writing = True
        try:
            if not self._call.sequence:
                await self._begin()
            await self._send(event)
        finally:
            self._writing = False

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None and not self._beat.done():
            await asyncio.wait({self._beat}, timeout=1.0)

    async def _begin(self) -> None:
        """The first event, and with it the headers. gRPC cannot end a call whose headers are halfway out: its caller
        would wait for ever. So this write is waited for even when the call is ended meanwhile.
        """
        sending = self._loop.create_task(self._send(self._started()))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait({sending})
            raise

    async def _send(self, event: StreamEvent) -> None:
        # Counted before it is written: what gRPC has taken arrives, even if this task is ended while it waits.
        self._call.sequence += 1
        event.sequence_number = self._call.sequence
        data = event.SerializeToString()
        call = self._call
        call.sent_bytes += len(data)
        if call.answer.wants:
            call.answer.add(data)
        try:
            with call.waiting:
                await self._context.write(data)
        except Exception as error:
            # Bytes can always be written, except to a caller who has left; gRPC has several private exceptions for it,
            # and may tell of it before it cancels the call.
            raise asyncio.CancelledError from error
        self._written_at = self._loop.time()

    def _started(self) -> StreamEvent:
        event = StreamEvent()
        event.started.completion_id = self._call.id
        event.started.create_time.CopyFrom(timestamp(self._call.create_time))
        return event

    def _tick(self) -> None:
        quiet = self._loop.time() - self._written_at
        if quiet >= self._interval and not self._writing and self._beat is None:
            self._beat = self._loop.create_task(self._heartbeat())
            quiet = 0.0
        self._timer = self._loop.call_later(max(0.001, self._interval - quiet % self._interval), self._tick)

    async def _heartbeat(self) -> None:
        try:
            if not self._call.sequence:
                await self._send(self._started())
            event = StreamEvent()
            event.heartbeat.SetInParent()
            await self._send(event)
        except asyncio.CancelledError:
            return  # the stream is over; its own task learns that by itself
        finally:
            self._beat = None

"""Events on their way to the caller: numbered, written one at a time, with a heartbeat when there is nothing to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeAlias

from trunkline_server.call import Call
from trunkline_server.errors import ReaderStalled
from trunkline_server.providers.assembly import StreamEvent, timestamp

#: Takes a serialized event and its number. Waits while whoever reads is behind.
Sink: TypeAlias = Callable[[bytes, int], Awaitable[None]]


class Watch:
    """Ends streams whose callers have not read for too long. One timer looks after all of them."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds that a write may wait; 0: for ever."""
        self.patience = patience
        self._lines: set[Line] = set()
        self._every = max(0.05, min(1.0, patience / 10))
        self._handle: asyncio.TimerHandle | None = None

    def add(self, line: Line) -> None:
        if self.patience:
            self._lines.add(line)
            if self._handle is None:
                self._handle = asyncio.get_running_loop().call_later(self._every, self._look)

    def remove(self, line: Line) -> None:
        self._lines.discard(line)

    def _look(self) -> None:
        late = time.monotonic() - self.patience
        for line in self._lines:
            line.end_if_waiting_since(late)
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(self._every, self._look) if self._lines else None


class Line:
    """The way of one stream to its caller. What goes over it runs in `async with`, which raises ReaderStalled."""

    __slots__ = ("_begun", "_call", "_context", "_loop", "_since", "_stalled", "_task", "_watch", "recorded")

    def __init__(self, context: Any, call: Call, watch: Watch) -> None:
        self._context = context
        self._call = call
        self._watch = watch
        #: What is written is added to what is kept of the call, and its waits to those of the call. Else they belong to
        #: a completion in a task of its own, which waits by itself.
        self.recorded = True
        self._loop = asyncio.get_running_loop()
        self._begun = False
        #: Since when a write waits; 0: none does.
        self._since = 0.0
        self._stalled = False
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._watch.add(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.remove(self)
        task, self._task = self._task, None
        if self._stalled and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            patience = self._watch.patience
            raise ReaderStalled(
                f"the caller did not read for {patience:g} s (stream.stalled_reader): the stream was ended"
            ) from None

    def end_if_waiting_since(self, then: float) -> None:
        """Ends what runs inside if a write has waited since then, or longer."""
        if self._since and self._since <= then and not self._stalled and self._task is not None:
            self._stalled = True
            self._task.cancel()

    def send(self, data: bytes, number: int) -> Awaitable[None]:
        """Waits until the transport takes the event: a slow caller slows the provider."""
        return self._send(data, number) if self._begun else self._begin(data, number)

    async def _begin(self, data: bytes, number: int) -> None:
        """Sends the first event, and with it the headers."""
        # gRPC cannot end a call whose headers are halfway out: its caller would wait for ever. So this write is waited
        # for even when the call is ended meanwhile.
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
        self._since = began = time.monotonic()
        try:
            await self._context.write(data)
        except Exception as error:
            # Bytes can always be written, except to a caller who has left; gRPC has several private exceptions for it,
            # and may tell of it before it cancels the call.
            raise asyncio.CancelledError from error
        finally:
            self._since = 0.0
            if self.recorded:
                call.waiting.sum += time.monotonic() - began


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
                await self._sink(self._numbered(self._started()), 1)
            await self._sink(self._numbered(event), self._number)
            self._written_at = self._loop.time()
        finally:
            self._writing = False

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None and not self._beat.done():
            await asyncio.wait({self._beat}, timeout=1.0)

    def _numbered(self, event: StreamEvent) -> bytes:
        self._number += 1
        event.sequence_number = self._number
        return event.SerializeToString()

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
                await self._sink(self._numbered(self._started()), 1)
            event = StreamEvent()
            event.heartbeat.SetInParent()
            await self._sink(self._numbered(event), self._number)
            self._written_at = self._loop.time()
        except asyncio.CancelledError:
            return  # the stream is over; its own task learns that by itself
        finally:
            self._beat = None

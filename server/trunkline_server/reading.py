"""One attempt at a stream: from the request to batches of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from trunkline_server.call import Attempt, Call, Cause
from trunkline_server.errors import LLMConnectionError, LLMError, LLMTimeoutError
from trunkline_server.exchange import Prepared, streamed
from trunkline_server.providers.assembly import Assembly, StreamEvent
from trunkline_server.providers.base import Decoder
from trunkline_server.providers.framing import FRAMINGS, Framer
from trunkline_server.providers.provider import Chunks
from trunkline_server.routing.attempts import Try

#: Seconds that a provider has to end a stream in which it has said all.
LINGER = 1.0


@dataclass(slots=True)
class Reading:
    """A stream whose provider has given the first part of the answer."""

    ready: Prepared
    attempt: Attempt
    assembly: Assembly
    first: list[StreamEvent]
    #: All after `first`. Raises LLMError.
    rest: AsyncGenerator[list[StreamEvent]]

    async def aclose(self) -> None:
        await self.rest.aclose()


async def begin(
    call: Call, ready: Prepared, cause: Cause, assembly: Assembly, *, window: float = 0.0, restarted: str = ""
) -> Reading:
    """Asks, and waits for the first part. Raises LLMError; then nothing came that a caller has to see.

    `window`: seconds in which chunks are joined. `restarted`: why what was sent before is to be forgotten.
    """
    trying = Try(call, ready.candidate, cause, streamed=True)
    rest = _read(trying, ready, assembly, window, restarted)
    first = await anext(rest)
    return Reading(ready, trying.attempt, assembly, first, rest)


async def _read(  # noqa: C901, PLR0912, PLR0915  # a loop on the way of every event, where each call counts
    trying: Try, ready: Prepared, assembly: Assembly, window: float, restarted: str
) -> AsyncGenerator[list[StreamEvent]]:
    """Batches of events that leave together; the first has the first part of the answer."""
    call, candidate = trying.call, ready.candidate
    waiting = call.waiting
    limits, dialect = candidate.limits, candidate.dialect
    held: list[StreamEvent] | None = []
    async with trying:
        attempt = trying.attempt
        try:
            async with (
                _within(limits.first_token, limits.total_stream) as patience,
                streamed(call, attempt, candidate, ready.request) as reply,
            ):
                ready.sent()
                kept = attempt.response
                chunks: Chunks = reply.chunks()
                if window:
                    chunks = _windowed(chunks, window)
                stream = _Decoding(FRAMINGS[dialect.framing](), dialect.decoder(assembly), assembly)
                ended = False
                following = chunks.__anext__
                async with aclosing(chunks):
                    while not ended:
                        coming = _lingering(chunks) if assembly.ended else following()
                        began = time.monotonic()
                        try:
                            if held is None:
                                chunk: bytes | None = await coming
                            else:
                                # Another attempt may wait beside it.
                                with waiting:
                                    chunk = await coming
                        except StopAsyncIteration:
                            chunk = None
                        finally:
                            if held is None:
                                waiting.sum += time.monotonic() - began
                        ended = chunk is None
                        if chunk is not None and kept.wants:
                            kept.add(chunk)
                        failure = stream.take(chunk)
                        if assembly.has_events:
                            events = assembly.events()
                            if held is not None:
                                held += events
                                if assembly.answering:
                                    patience.reschedule(None)
                                    call.limit(limits.total_stream, since=attempt.began)
                                    trying.answered()
                                    events, held = _introduced(trying, assembly, held, restarted), None
                            # Up to the first part another attempt costs the caller nothing: nothing is sent.
                            if held is None:
                                yield events
                        if failure is not None:
                            raise failure
        finally:
            tell(attempt, assembly)
            call.spend()
            if call.first_token_at is None:
                call.first_token_at = assembly.first_token_at


def tell(attempt: Attempt, assembly: Assembly) -> None:
    """What the record of an attempt has from its answer."""
    attempt.usage = assembly.spent()
    attempt.response_model, attempt.response_id = assembly.model, assembly.response_id
    attempt.finish_reasons = assembly.finish_reasons


def _introduced(trying: Try, assembly: Assembly, events: list[StreamEvent], restarted: str) -> list[StreamEvent]:
    """The first events, after what tells of the attempt. One that goes on with the text before needs no telling."""
    attempt = trying.attempt
    if attempt.cause is Cause.CONTINUE:
        return events
    event = StreamEvent()
    started = event.attempt_started
    started.attempt = attempt.number
    started.provider = attempt.provider
    started.model = assembly.model
    started.provider_response_id = assembly.response_id
    before = [event]
    if restarted:
        event = StreamEvent()
        event.restarted.attempt = attempt.number
        event.restarted.reason = restarted
        before.insert(0, event)
    return before + events


@dataclass(slots=True)
class _Decoding:
    """Bytes to events of one stream."""

    framer: Framer
    decoder: Decoder
    assembly: Assembly

    def take(self, chunk: bytes | None) -> LLMError | None:
        """Decodes what a chunk completes; None: the stream has ended.

        An error is returned, so that what came before it is delivered first.
        """
        assembly, decoder = self.assembly, self.decoder
        try:
            for event in self.framer.end() if chunk is None else self.framer.feed(chunk):
                if assembly.include_raw:
                    assembly.raw_event(event.name, event.data)
                decoder.event(event)
            if chunk is None:
                decoder.end()
                assembly.require_order()
        except LLMError as error:
            return error
        return None


@asynccontextmanager
async def _within(first_token: float | None, total: float) -> AsyncIterator[asyncio.Timeout]:
    """Bounds the wait for the first part of an answer, headers and connection included, until it is rescheduled."""
    limit = total if first_token is None else min(first_token, total)
    timer = asyncio.timeout(limit)
    try:
        async with timer:
            yield timer
    except TimeoutError:
        if not timer.expired():
            raise
        raise LLMTimeoutError(f"the provider gave no part of an answer for {limit:g} s") from None


async def _lingering(chunks: Chunks) -> bytes | None:
    """What follows the provider's last word. All was said: a connection that stays open or breaks spoils it no more."""
    try:
        async with asyncio.timeout(LINGER):
            return await anext(chunks, None)
    except (TimeoutError, LLMConnectionError):
        return None


async def _windowed(chunks: Chunks, window: float) -> AsyncGenerator[bytes]:
    """Joins what arrives within `window` seconds of a first chunk."""
    loop = asyncio.get_running_loop()
    ended = object()

    async def pull() -> object:
        return await anext(chunks, ended)

    waiting: asyncio.Task[object] | None = None
    try:
        while True:
            first = await (waiting or pull())
            waiting = None
            if first is ended:
                return
            group, until = [first], loop.time() + window
            while first is not ended:
                waiting = asyncio.ensure_future(pull())
                done, _ = await asyncio.wait({waiting}, timeout=until - loop.time())
                if not done:
                    break
                try:
                    first = waiting.result()
                except LLMError:
                    # What came before the failure is delivered before it is raised.
                    break
                waiting = None
                if first is not ended:
                    group.append(first)
            yield b"".join(group)  # type: ignore[arg-type]  # all but the mark of the end are bytes
            if first is ended:
                return
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})

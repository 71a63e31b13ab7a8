"""A call's way through the gateway: name to targets, spec to bytes, bytes to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline_server import reading, streaming
from trunkline_server.admission import Admission
from trunkline_server.answer import complete
from trunkline_server.call import Call, Cause
from trunkline_server.exchange import Prepared, exchange, prepare
from trunkline_server.providers.assembly import Assembly, StreamEvent
from trunkline_server.providers.provider import Provider
from trunkline_server.routing.attempts import T, Try, Work, attempts_at
from trunkline_server.routing.table import Candidate, Table

MAX_RAW_BYTES = 1024 * 1024

CompletionSpec = completion_pb2.CompletionSpec
CallOptions = completion_pb2.CallOptions
StreamOptions = completion_service_pb2.StreamOptions


@dataclass(slots=True)
class Engine:
    """Runs completions. Holds no state of a call; closed by whoever made it."""

    #: Replaced as a whole (`replace`): a call keeps the one that it began with.
    table: Table
    admission: Admission = field(default_factory=Admission)
    #: Tables that were replaced and have calls yet.
    _replaced: list[Table] = field(default_factory=list)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def providers(self) -> Mapping[str, Provider]:
        return self.table.providers

    def replace(self, table: Table) -> None:
        """Calls that come see the new table. A provider that only older ones have is closed when no call uses those."""
        old, self.table = self.table, table
        old.idle = self._sweep
        self._replaced.append(old)
        self._sweep()

    async def run(
        self,
        call: Call,
        name: str,
        options: CallOptions,
        labels: Mapping[str, str],
        work: Work[T],
        *,
        hedged: bool = False,
    ) -> T:
        """What one attempt at the model makes, or another one. Raises GatewayError."""
        with self.table as table:
            return await attempts_at(table, call, name, options, labels).run(work, hedged=hedged)

    async def complete(self, call: Call, spec: CompletionSpec, options: CallOptions) -> completion_pb2.Completion:
        """The whole answer. Raises GatewayError."""

        async def attempt(candidate: Candidate, cause: Cause) -> completion_pb2.Completion:
            ready = prepare(call, candidate, spec, options, stream=False)
            return await _whole(call, ready, cause, include_raw=options.include_raw)

        return await self.run(call, spec.model or spec.config, options, spec.labels, attempt, hedged=options.hedge)

    def stream(
        self, call: Call, spec: CompletionSpec, options: CallOptions, stream_options: StreamOptions
    ) -> AsyncGenerator[list[StreamEvent]]:
        """Batches of events that leave together, not numbered; the last one ends with `finished`. Raises GatewayError.

        The events before the provider's first are the caller's to make (`started`), so that a failure before then has
        sent nothing.
        """
        return streaming.events(call, lambda: self.table, spec, options, stream_options)

    async def aclose(self) -> None:
        for table in (self.table, *self._replaced):
            for provider in table.providers.values():
                await provider.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _sweep(self) -> None:
        """Closes providers that no call can reach any more."""
        busy = [table for table in self._replaced if table.calls]
        used = {id(provider) for table in (self.table, *busy) for provider in table.providers.values()}
        gone = {id(provider): provider for table in self._replaced for provider in table.providers.values()}
        self._replaced = busy
        for key, provider in gone.items():
            if key not in used:
                task = asyncio.ensure_future(provider.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


async def _whole(call: Call, ready: Prepared, cause: Cause, *, include_raw: bool) -> completion_pb2.Completion:
    """One attempt at a whole answer."""
    candidate = ready.candidate
    target = candidate.target
    assembly = Assembly(target.origin, target.model, reasoning_argument=ready.reasoning_argument, price=candidate.cost)
    async with Try(call, candidate, cause) as trying:
        attempt = trying.attempt
        try:
            reply = await exchange(call, attempt, candidate, ready.request)
            candidate.dialect.decode(reply.body, assembly)
            assembly.require_content()
            assembly.require_order()
        finally:
            reading.tell(attempt, assembly)
            call.spend()
            call.first_token_at = assembly.first_token_at
    answer = assembly.completion()
    complete(call, answer, ready, attempt)
    if include_raw:
        answer.raw.content_type = reply.headers.get("content-type", "")
        answer.raw.body = reply.body[:MAX_RAW_BYTES]
        answer.raw.truncated = len(reply.body) > MAX_RAW_BYTES
    return answer

"""A call's way through the gateway: name to targets, spec to bytes, bytes to answer."""

from __future__ import annotations

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
from trunkline_server.routing.attempts import Attempts, Try
from trunkline_server.routing.table import Candidate, Route, Table

MAX_RAW_BYTES = 1024 * 1024

CompletionSpec = completion_pb2.CompletionSpec
CallOptions = completion_pb2.CallOptions
StreamOptions = completion_service_pb2.StreamOptions


@dataclass(slots=True)
class Engine:
    """Runs completions. Holds no state of a call; closed by whoever made it."""

    #: Replaced as a whole: a call keeps the one that it began with.
    table: Table
    admission: Admission = field(default_factory=Admission)

    @property
    def providers(self) -> Mapping[str, Provider]:
        return self.table.providers

    def attempts(
        self, call: Call, name: str, options: CallOptions, labels: Mapping[str, str], *, streamed: bool = False
    ) -> Attempts:
        """The attempts of a call for a model. Raises ModelNotFound and InvalidRequest."""
        route = self.table.resolve(name, options.credential)
        return Attempts(call, route, streamed=streamed, label=_label(route, labels))

    async def complete(self, call: Call, spec: CompletionSpec, options: CallOptions) -> completion_pb2.Completion:
        """The whole answer. Raises GatewayError."""

        async def attempt(candidate: Candidate, cause: Cause) -> completion_pb2.Completion:
            ready = prepare(call, candidate, spec, options, stream=False)
            return await _whole(call, ready, cause, include_raw=options.include_raw)

        return await self.attempts(call, spec.model, options, spec.labels).run(attempt, hedged=options.hedge)

    def stream(
        self, call: Call, spec: CompletionSpec, options: CallOptions, stream_options: StreamOptions
    ) -> AsyncGenerator[list[StreamEvent]]:
        """Batches of events that leave together, not numbered; the last one ends with `finished`. Raises GatewayError.

        The events before the provider's first are the caller's to make (`started`), so that a failure before then has
        sent nothing.
        """
        return streaming.events(call, self.attempts, spec, options, stream_options)

    async def aclose(self) -> None:
        for provider in self.providers.values():
            await provider.aclose()


def _label(route: Route, labels: Mapping[str, str]) -> str | None:
    """The call's value of the label that the route is sticky by."""
    return labels.get(route.sticky_label) if route.sticky_label else None


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

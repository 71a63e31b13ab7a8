"""A call's way through the gateway: name to targets, spec to bytes, bytes to answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline_server import reading
from trunkline_server.admission import Admission
from trunkline_server.call import Attempt, Call, Cause
from trunkline_server.exchange import Prepared, exchange, prepare
from trunkline_server.providers.assembly import Assembly, StreamEvent, timestamp
from trunkline_server.providers.provider import Provider
from trunkline_server.reading import Reading
from trunkline_server.routing.attempts import Attempts, Try, Work
from trunkline_server.routing.durations import seconds_of
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

        return await self.attempts(call, spec.model, options, spec.labels).run(attempt)

    async def stream(
        self, call: Call, spec: CompletionSpec, options: CallOptions, stream_options: StreamOptions
    ) -> AsyncGenerator[list[StreamEvent]]:
        """Batches of events that leave together, not numbered; the last one ends with `finished`. Raises GatewayError.

        The events before the provider's first are the caller's to make (`started`), so that a failure before then has
        sent nothing.
        """
        attempts = self.attempts(call, spec.model, options, spec.labels, streamed=True)
        answer = await attempts.run(_beginning(call, spec, options, stream_options))
        include_completion = stream_options.include_completion
        # A stream lasts. What it holds of the request, it holds as long: a prompt can have megabytes.
        del attempts, spec, options, stream_options
        async with aclosing(answer):
            events, answer.first = answer.first, []
            yield events
            async for events in answer.rest:
                yield events
        yield [_finished(call, answer, include_completion)]

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
    _complete(call, answer, ready, attempt)
    if include_raw:
        answer.raw.content_type = reply.headers.get("content-type", "")
        answer.raw.body = reply.body[:MAX_RAW_BYTES]
        answer.raw.truncated = len(reply.body) > MAX_RAW_BYTES
    return answer


def _beginning(call: Call, spec: CompletionSpec, options: CallOptions, stream_options: StreamOptions) -> Work[Reading]:
    """One attempt at a stream, up to its first part."""

    async def attempt(candidate: Candidate, cause: Cause) -> Reading:
        ready = prepare(call, candidate, spec, options, stream=True)
        assembly = Assembly(
            candidate.target.origin,
            candidate.target.model,
            emits=True,
            keep=stream_options.include_completion,
            reasoning_argument=ready.reasoning_argument,
            include_raw=options.include_raw,
            price=candidate.cost,
        )
        return await reading.begin(call, ready, cause, assembly, window=seconds_of(stream_options.coalesce_window))

    return attempt


def _complete(call: Call, answer: completion_pb2.Completion, ready: Prepared, attempt: Attempt) -> None:
    """Adds what the gateway knows to what the provider said."""
    answer.id = call.id
    answer.create_time.CopyFrom(timestamp(call.create_time))
    answer.provider = ready.candidate.provider.name
    answer.provider_request_id = attempt.request_id
    answer.attempts = len(call.attempts)
    answer.timing.CopyFrom(timing(call))
    answer.warnings.extend(ready.notes.warnings())
    answer.rate_limits.extend(attempt.rate_limits)


def _finished(call: Call, answer: Reading, include_completion: bool) -> StreamEvent:
    """The last event."""
    assembly, attempt = answer.assembly, answer.attempt
    event = StreamEvent()
    finished = event.finished
    usage = assembly.spent()
    if usage is not None:
        finished.usage.CopyFrom(usage)
    finished.timing.CopyFrom(timing(call))
    finished.warnings.extend(answer.ready.notes.warnings())
    finished.attempts = len(call.attempts)
    finished.provider_request_id = attempt.request_id
    finished.service_tier = assembly.service_tier
    finished.system_fingerprint = assembly.system_fingerprint
    finished.rate_limits.extend(attempt.rate_limits)
    if include_completion:
        completion = assembly.completion()
        _complete(call, completion, answer.ready, attempt)
        completion.timing.CopyFrom(finished.timing)
        finished.completion.CopyFrom(completion)
    return event


def timing(call: Call) -> completion_pb2.Timing:
    now = time.monotonic()
    made = completion_pb2.Timing()
    _set(made.total, now - call.received)
    if call.first_event_at is not None:
        _set(made.time_to_first_event, call.first_event_at - call.received)
    if call.method.startswith("Stream") and call.first_token_at is not None:
        _set(made.time_to_first_token, call.first_token_at - call.received)
    if call.queued:
        _set(made.queued, call.queued)
    return made


def _set(duration: Duration, seconds: float) -> None:
    nanos = max(0, int(seconds * 1e9))
    duration.seconds, duration.nanos = divmod(nanos, 1_000_000_000)

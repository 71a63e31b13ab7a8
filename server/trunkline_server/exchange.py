"""One request to a provider and its answer, with what the record of the call keeps of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from trunkline.v1 import completion_pb2
from trunkline_server.call import Attempt, Call
from trunkline_server.errors import LLMInvalidResponseError, LLMTimeoutError, UnsupportedParameter
from trunkline_server.providers.base import Notes, UpstreamRequest
from trunkline_server.providers.headers import rate_limits, request_id
from trunkline_server.providers.prepare import prepared
from trunkline_server.providers.provider import Headers, Reply, StreamReply, Upstream
from trunkline_server.routing.table import Candidate

CompletionSpec = completion_pb2.CompletionSpec
CallOptions = completion_pb2.CallOptions


@dataclass(slots=True)
class Prepared:
    """A spec that is ready to go out."""

    candidate: Candidate
    request: UpstreamRequest
    notes: Notes
    reasoning_argument: str

    def sent(self) -> None:
        """Lets the request go, which holds the whole prompt."""
        self.request = _SENT


_SENT = UpstreamRequest("", b"")


def prepare(call: Call, candidate: Candidate, spec: CompletionSpec, options: CallOptions, *, stream: bool) -> Prepared:
    """Encodes. Raises UnsupportedParameter and InvalidRequest."""
    target = candidate.target
    call.provider, call.model = target.provider, target.model
    spec = prepared(spec, candidate.defaults)
    notes = Notes()
    request = candidate.dialect.encode(spec, target, notes, stream=stream)
    refuse_unsupported(notes, options)
    return Prepared(candidate, request, notes, spec.reasoning_argument.name)


def refuse_unsupported(notes: Notes, options: CallOptions) -> None:
    """Raises UnsupportedParameter unless the caller asked for warnings."""
    if notes.unsupported and options.on_unsupported != completion_pb2.ON_UNSUPPORTED_WARN:
        raise UnsupportedParameter(
            "the model cannot honour: "
            + ", ".join(path for _, path, _ in notes.unsupported)
            + " (leave it out, or set options.on_unsupported to WARN)",
            violations=notes.violations(),
        )


async def exchange(call: Call, attempt: Attempt, candidate: Candidate, request: UpstreamRequest) -> Reply:
    """The whole answer. Raises LLMError, also for an answer that is no success."""
    upstream, limit = candidate.upstream, candidate.limits.total_unary
    headers = _sends(call, attempt, upstream, request)
    remaining = call.remaining()
    # The call's own deadline has a timer already.
    timer = asyncio.timeout(limit if remaining is None or limit < remaining else None)
    try:
        with call.waiting:
            async with timer:
                reply = await upstream.send(request, headers)
    except TimeoutError:
        if not timer.expired():
            raise
        raise LLMTimeoutError(f"the provider has not finished its answer within {limit:g} s") from None
    _answered(call, attempt, reply)
    attempt.response.add(reply.body)
    if not 200 <= reply.status < 300:
        raise candidate.dialect.classify(reply.status, reply.headers, reply.body)
    return reply


@asynccontextmanager
async def streamed(
    call: Call, attempt: Attempt, candidate: Candidate, request: UpstreamRequest
) -> AsyncIterator[StreamReply]:
    """An answer that is still arriving; its reader adds what it reads to `attempt.response`. Raises as `exchange`."""
    upstream = candidate.upstream
    opening = upstream.stream(request, _sends(call, attempt, upstream, request))
    # A stream lasts. Its request holds the whole prompt and is not held as long.
    del request
    async with AsyncExitStack() as stack:
        with call.waiting:
            reply = await stack.enter_async_context(opening)
        _answered(call, attempt, reply)
        if not 200 <= reply.status < 300:
            with call.waiting:
                body = await reply.read()
            attempt.response.add(body)
            raise candidate.dialect.classify(reply.status, reply.headers, body)
        if attempt.content_type.startswith("text/html"):
            # A page of something that stands before the provider; to read it as a stream would find it empty, or cut.
            with call.waiting:
                body = await reply.read()
            attempt.response.add(body)
            raise LLMInvalidResponseError("the provider sent a web page for an answer", body=body)
        yield reply


def _sends(call: Call, attempt: Attempt, upstream: Upstream, request: UpstreamRequest) -> Headers:
    """Keeps what is sent. Returns the headers that the call adds."""
    if upstream.address:
        attempt.endpoint = upstream.address + request.path.partition("?")[0]
    attempt.request.add(request.body)
    if not upstream.propagates:
        return call.forward
    own = call.trace_headers(attempt)
    names = [name for name, _ in own]
    return [*(header for header in call.forward if header[0] not in names), *own]


def _answered(call: Call, attempt: Attempt, reply: Reply | StreamReply) -> None:
    call.answered(attempt, reply.status, request_id(reply.headers))
    attempt.content_type = reply.headers.get("content-type", "")
    attempt.rate_limits = rate_limits(reply.headers)

"""One request to a provider and its answer, with what the record of the call keeps of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from trunkline_server.call import Attempt, Call
from trunkline_server.providers.base import Dialect, UpstreamRequest
from trunkline_server.providers.headers import rate_limits, request_id
from trunkline_server.providers.provider import Headers, Reply, StreamReply, Upstream


async def exchange(
    call: Call, attempt: Attempt, upstream: Upstream, dialect: Dialect, request: UpstreamRequest
) -> Reply:
    """The whole answer. Raises LLMError, also for an answer that is no success."""
    headers = _sends(call, attempt, upstream, request)
    with call.waiting:
        reply = await upstream.send(request, headers)
    _answered(call, attempt, reply)
    attempt.response.add(reply.body)
    if not 200 <= reply.status < 300:
        raise dialect.classify(reply.status, reply.headers, reply.body)
    return reply


@asynccontextmanager
async def streamed(
    call: Call, attempt: Attempt, upstream: Upstream, dialect: Dialect, request: UpstreamRequest
) -> AsyncIterator[StreamReply]:
    """An answer that is still arriving; its reader adds what it reads to `attempt.response`. Raises as `exchange`."""
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
            raise dialect.classify(reply.status, reply.headers, body)
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

"""One request to a provider and its answer, with what the record of the call keeps of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trunkline_server.call import Attempt, Call
from trunkline_server.providers.base import Dialect, UpstreamRequest
from trunkline_server.providers.headers import rate_limits, request_id
from trunkline_server.providers.provider import Reply, StreamReply, Upstream


async def exchange(
    call: Call, attempt: Attempt, upstream: Upstream, dialect: Dialect, request: UpstreamRequest
) -> Reply:
    """The whole answer. Raises LLMError, also for an answer that is no success."""
    _sends(attempt, upstream, request)
    reply = await upstream.send(request, call.forward)
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
    _sends(attempt, upstream, request)
    opening = upstream.stream(request, call.forward)
    # A stream lasts. Its request holds the whole prompt and is not held as long.
    del request
    async with opening as reply:
        _answered(call, attempt, reply)
        if not 200 <= reply.status < 300:
            body = await reply.read()
            attempt.response.add(body)
            raise dialect.classify(reply.status, reply.headers, body)
        yield reply


def _sends(attempt: Attempt, upstream: Upstream, request: UpstreamRequest) -> None:
    if upstream.address:
        attempt.endpoint = upstream.address + request.path.partition("?")[0]
    attempt.request.add(request.body)


def _answered(call: Call, attempt: Attempt, reply: Reply | StreamReply) -> None:
    call.answered(attempt, reply.status, request_id(reply.headers))
    attempt.content_type = reply.headers.get("content-type", "")
    attempt.rate_limits = rate_limits(reply.headers)

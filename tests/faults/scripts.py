"""What a provider does to a request, for the rows of the table."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence

from tests.upstream import DONE, Exchange, Script, chat, chat_events, piece, says, sse, usage_event

WORDS = ("Hello", " there", ".")
#: As `says()` answers by itself.
WHOLE = "".join(WORDS)

answers = says(*WORDS)


def status(code: int, error: object = None, **headers: str) -> Script:
    """An error with a body of OpenAI's shape."""
    body = {"error": error or {"message": f"the provider says {code}", "type": "server_error", "code": None}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.answer(body, status=code, headers=named)


def limited(**headers: str) -> Script:
    error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
    return status(429, error, **headers)


context_length = status(
    400,
    {
        "message": "This model's maximum context length is 8192 tokens, and your messages resulted in 9000.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    },
)
content_filter = status(
    400,
    {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
    },
)
no_prefill = status(
    400,
    {
        "message": "This model does not support assistant message prefill; end with a user message.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": None,
    },
)


async def refuses_html(exchange: Exchange) -> None:
    """A page of a proxy in front of the provider."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
    await exchange.answer(page, status=502, headers={"content-type": "text/html"})


async def html_in_a_success(exchange: Exchange) -> None:
    await exchange.answer(b"<html><body>Log in to go on</body></html>", headers={"content-type": "text/html"})


async def error_in_a_success(exchange: Exchange) -> None:
    """200, and an error for an answer: as an object, or as the first event."""
    error = {"error": {"message": "Something went wrong inside", "type": "server_error", "code": 500}}
    if exchange.json.get("stream"):
        await exchange.head()
        await exchange.chunk(sse(error))
        await exchange.end()
    else:
        await exchange.answer(error)


async def error_midway(exchange: Exchange) -> None:
    """An error event after some words."""
    await exchange.head()
    await exchange.chunk(b"".join(chat_events(*WORDS)[:3]))
    await exchange.chunk(sse({"error": {"message": "The server had an error", "type": "server_error", "code": 500}}))
    await exchange.end()


async def resets(exchange: Exchange) -> None:
    """Takes the request and breaks the connection before it says anything."""
    exchange.reset()


async def silent(exchange: Exchange) -> None:
    await exchange.silence()


async def silent_after_head(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.silence()


def slow(seconds: float) -> Script:
    """Answers after a while."""

    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await answers(exchange)

    return script


async def cuts_midway(exchange: Exchange) -> None:
    """The connection breaks in the middle of a sentence; of a whole answer, in the middle of its bytes."""
    if exchange.json.get("stream"):
        await exchange.head()
        await exchange.chunk(b"".join(chat_events(*WORDS)[:3]))
    else:
        await exchange.write(b'HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id":')
    exchange.cut()


async def stalls_midway(exchange: Exchange) -> None:
    """Some words, and then nothing more."""
    if exchange.json.get("stream"):
        await exchange.head()
        await exchange.chunk(b"".join(chat_events(*WORDS)[:3]))
    else:
        await exchange.write(b'HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id":')
    await exchange.silence()


async def talks_on(exchange: Exchange) -> None:
    """A word every 10 ms, for as long as anybody listens."""
    await exchange.head()
    while True:
        await exchange.chunk(piece("word "))
        await asyncio.sleep(0.01)


async def breaks_json(exchange: Exchange) -> None:
    """A piece that is no JSON, after some words."""
    if exchange.json.get("stream"):
        await exchange.head()
        await exchange.chunk(b"".join(chat_events(*WORDS)[:3]))
        await exchange.chunk(b'data: {"id": "chatcmpl-1", "choices": [{"index": 0, "del\n\n')
        await exchange.end()
    else:
        await exchange.answer(b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mess')


async def leaves_out_the_end_marker(exchange: Exchange) -> None:
    """All is said, but for the [DONE] that some providers never send."""
    await exchange.head()
    for event in chat_events(*WORDS):
        if event != DONE:
            await exchange.chunk(event)
    await exchange.end()


async def ends_without_a_reason(exchange: Exchange) -> None:
    """The stream ends in order in the middle of a sentence: no finish reason, no usage, no [DONE]."""
    await exchange.head()
    await exchange.chunk(b"".join(chat_events(*WORDS)[:3]))
    await exchange.end()


def pours(pieces: int, size: int) -> Script:
    """Answers faster than anybody reads."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        word = piece("x" * size)
        for _ in range(pieces):
            await exchange.chunk(word)
        for event in (piece(finish="stop"), usage_event(), DONE):
            await exchange.chunk(event)
        await exchange.end()

    return script


def in_turn(scripts: Sequence[Script]) -> Iterator[Script]:
    """One for each request; the last for all that follow."""
    return itertools.chain(scripts[:-1], itertools.repeat(scripts[-1]))


def big_answer(size: int) -> Script:
    return lambda exchange: exchange.answer(chat("x" * size))

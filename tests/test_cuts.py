"""No silent end: whatever breaks on the provider's side, what looks complete is complete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from tests.gateway import Failed, Reader, create, failing, gateway, script, stream, until
from tests.upstream import (
    DONE,
    USAGE,
    Exchange,
    Script,
    Upstream,
    chat,
    chat_events,
    piece,
    says,
    sse,
    upstream,
    usage_event,
)

from trunkline.v1 import completion_service_pb2 as pb

OPENING = [piece("", role="assistant"), piece("Hello"), piece(" there")]


def after(events: Sequence[bytes], ending: str) -> Script:
    """Streams events and then ends in one of the ways in which connections end."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for event in events:
            await exchange.chunk(event)
        match ending:
            case "cut":
                exchange.cut()
            case "reset":
                exchange.reset()
            case "half a chunk":
                await exchange.write(b"40\r\ndata: {")
                exchange.cut()
            case "not a chunk":
                await exchange.write(b"this is no chunk\r\n")
                await exchange.silence()
            case "not a chunk, later":
                # The gateway has read all before, and waits.
                await asyncio.sleep(0.1)
                await exchange.write(b"this is no chunk\r\n")
                await exchange.silence()
            case "end":
                await exchange.end()

    return script


async def broken(answer: Script, **asked: Any) -> tuple[Reader, Failed]:
    """What a caller sees of a stream that must not go well."""
    async with upstream(answer) as up, gateway(up) as gw:
        reader = await gw.stream(stream(**asked)).rest()
        [line] = gw.calls()
    assert reader.failed is not None
    assert line["code"] == reader.failed.code.name
    assert line["reason"] == reader.failed.reason
    assert line.get("events", 0) == len(reader.events)
    return reader, reader.failed


@pytest.mark.parametrize("ending", ["cut", "reset", "half a chunk", "not a chunk", "not a chunk, later", "end"])
async def test_a_stream_that_breaks_keeps_what_was_delivered_and_is_never_ok(ending: str) -> None:
    reader, failed = await broken(after(OPENING, ending))

    if ending.startswith("not a chunk"):
        assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "LLM_INVALID_RESPONSE")
    else:
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
        assert failed.pushback == (-1 if reader.events else None)
    if ending != "reset":  # a reset may overtake what was sent before it
        assert reader.text == "Hello there"
        assert reader.completion.choices[0].message.parts[0].text.text == "Hello there"
    assert failed.detail.last_sequence_number == len(reader.events)
    assert failed.detail.attempts[0].reason == failed.reason
    assert failed.detail.upstream_status == 200


@pytest.mark.parametrize("ending", ["cut", "reset", "half a chunk"])
async def test_a_stream_that_breaks_before_its_first_word_may_be_tried_again(ending: str) -> None:
    _, failed = await broken(after([], ending))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert failed.pushback is None
    assert failed.detail.retryable


async def test_what_was_spent_before_a_break_is_told() -> None:
    events = [*OPENING, usage_event({"prompt_tokens": 70, "completion_tokens": 2, "total_tokens": 72})]
    reader, failed = await broken(after(events, "cut"))

    assert reader.text == "Hello there"
    assert (failed.detail.usage.input_tokens, failed.detail.usage.output_tokens) == (70, 2)


async def test_an_answer_whose_choices_all_ended_is_whole_without_a_mark() -> None:
    """[DONE] is optional: several providers never send it."""
    events = [*OPENING, piece(finish="stop"), usage_event()]
    async with upstream(after(events, "end")) as up, gateway(up) as gw:
        reader = await gw.stream(stream()).rest()

    assert reader.failed is None
    assert reader.completion.usage.output_tokens == USAGE["completion_tokens"]


async def test_one_choice_of_two_without_its_end_is_no_answer() -> None:
    def both(delta: dict[str, object], finish: str | None = None) -> bytes:
        return sse({"id": "c", "model": "m", "choices": [{"index": 1, "delta": delta, "finish_reason": finish}]})

    events = [*OPENING, both({"content": "other"}), piece(finish="stop")]
    _, failed = await broken(after(events, "end"))

    assert failed.reason == "LLM_CONNECTION"


@pytest.mark.parametrize(
    ("event", "reasons"),
    [
        (sse(b"{not json"), {"LLM_INVALID_RESPONSE"}),
        (sse(b"<html>oops</html>"), {"LLM_INVALID_RESPONSE"}),
        (sse([1, 2, 3]), {"LLM_INVALID_RESPONSE"}),
        (sse({"choices": "none"}), {"LLM_INVALID_RESPONSE"}),
        (sse({"error": {"message": "Engine failed", "type": "server_error"}}), {"LLM_SERVER_ERROR"}),
        (sse({"message": "busy", "type": "overloaded_error"}, "error"), {"LLM_OVERLOADED"}),
        (sse({"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}), {"LLM_RATE_LIMITED"}),
        (sse({"error": {"message": "no", "code": "content_filter"}}), {"LLM_CONTENT_FILTERED"}),
        (b"\xff\xfe\x00 binary\n\n", {"LLM_INVALID_RESPONSE", "LLM_CONNECTION"}),
    ],
)
async def test_an_error_in_the_stream_is_a_status_after_what_was_delivered(event: bytes, reasons: set[str]) -> None:
    reader, failed = await broken(after([*OPENING, event, piece("never seen")], "end"))

    assert failed.reason in reasons
    assert reader.text.startswith("Hello there")
    assert failed.detail.last_sequence_number == len(reader.events) > 0


@pytest.mark.parametrize("events", [[DONE], [], [b": a comment\n\n"]], ids=["done", "nothing", "comment"])
async def test_a_stream_with_nothing_in_it_is_no_answer(events: list[bytes]) -> None:
    _, failed = await broken(after(events, "end"))

    assert failed.reason in {"LLM_EMPTY_RESPONSE", "LLM_CONNECTION"}
    assert failed.detail.retryable


# -- unary ------------------------------------------------------------------------------------------------------------


def raw(data: bytes, *, reset: bool = False) -> Script:
    """Exactly these bytes, and the end."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(data)
        if reset:
            exchange.reset()
        else:
            exchange.cut()

    return script


_BODY = json.dumps(chat()).encode()
_HEAD = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n"
_HALF = _BODY[: len(_BODY) // 2]


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"", "UNAVAILABLE", "LLM_CONNECTION"),
        (b"HTTP/1.1 200", "UNAVAILABLE", "LLM_CONNECTION"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", None, None),
        (_HEAD + b"content-length: %d\r\n\r\n" % len(_BODY) + _HALF, "UNAVAILABLE", "LLM_CONNECTION"),
        (_HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(_BODY) + _HALF, "UNAVAILABLE", "LLM_CONNECTION"),
        (_HEAD + b"content-length: %d\r\n\r\n" % len(_HALF) + _HALF, "INTERNAL", "LLM_INVALID_RESPONSE"),
        (_HEAD + b"content-length: 0\r\n\r\n", "INTERNAL", None),
        (_HEAD + b"content-length: 4\r\n\r\nnull", "INTERNAL", "LLM_INVALID_RESPONSE"),
        (_HEAD + b"content-length: 19\r\n\r\n<html>hello</html>\n", "INTERNAL", "LLM_INVALID_RESPONSE"),
        (_HEAD + b"content-length: 14\r\n\r\n{\"choices\":[]}", "INTERNAL", "LLM_EMPTY_RESPONSE"),
        (b"HTTP/1.1 302 X\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n", "INTERNAL", "LLM_UNKNOWN"),
    ],
    ids=[
        "nothing", "half a status line", "another protocol", "cut body", "cut chunk", "half a JSON text",
        "empty body", "null", "a page", "no choices", "a redirect",
    ],
)  # fmt: skip
async def test_a_whole_answer_that_is_none_is_an_error(data: bytes, code: str | None, reason: str | None) -> None:
    async with upstream(raw(data)) as up, gateway(up) as gw:
        failed = await failing(gw.completions.CreateCompletion(create()))

    assert failed.reason.startswith("LLM_")
    assert failed.code.name == code or code is None
    assert failed.reason == reason or reason is None
    assert "Traceback" not in failed.message
    assert "aiohttp" not in failed.message


async def test_a_refused_connection_names_the_address_and_nothing_else() -> None:
    async with upstream(says()) as up:
        address = up.url.removeprefix("http://")
    gone = Upstream(says())
    gone.url = f"http://{address}"
    async with gateway(gone) as gw:
        failed = await failing(gw.completions.CreateCompletion(create()))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert failed.message == f"cannot connect to {address}: connection refused"
    assert not failed.detail.HasField("upstream_status")


async def test_a_connection_that_the_provider_closed_meanwhile_costs_no_call() -> None:
    async def once(exchange: Exchange) -> None:
        await exchange.answer(chat())
        exchange.cut()

    async with upstream(once) as up, gateway(up) as gw:
        for _ in range(20):
            await gw.complete(create())
            await until(lambda: not up.open)

    assert up.connections == 20


async def test_the_fake_provider_breaks_off_as_its_script_says() -> None:
    async with gateway() as gw:
        request = stream("fake/script", provider_options_json=script(text="one two three", cut_after=2))
        reader = await gw.stream(request).rest()

    assert reader.failed is not None
    assert reader.failed.reason == "LLM_CONNECTION"
    assert reader.text == "one"


async def test_a_break_while_words_are_gathered_loses_none() -> None:
    options = pb.StreamOptions()
    options.coalesce_window.nanos = 400_000_000
    reader, failed = await broken(after(OPENING, "cut"), stream_options=options)

    assert reader.text == "Hello there"
    assert failed.reason == "LLM_CONNECTION"


async def test_a_whole_stream_is_whole() -> None:
    async with upstream(after(chat_events("a", "b"), "end")) as up, gateway(up) as gw:
        reader = await gw.stream(stream()).rest()

    assert reader.failed is None
    assert reader.kinds[-1] == "finished"

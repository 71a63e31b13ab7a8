"""Each call leaves one trace, on every path, and it says what happened: through a real server, read by its service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import Gateway, create, failing, script, spec, stream, until
from tests.traces.recorded import found, recorded
from tests.upstream import chat, chat_events, piece, says, silent_midway, upstream

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1alpha import trace_pb2

FULL = completion_pb2.CAPTURE_FULL


async def test_a_completion_leaves_all_that_is_known_of_it(tmp_path: Path):
    async with upstream(says("Hello there.")) as up, recorded(tmp_path, up) as server:
        asked = create("up/up-1", "Say hello.", labels={"team": "search"}, request_id="order-7")
        answer = await server.complete(asked)
        [trace] = await found(server, 1)
        [sent] = up.exchanges
    assert trace.name == f"traces/{answer.id}"
    assert (trace.state, trace.method) == (trace_pb2.TRACE_STATE_FINISHED, "CreateCompletion")
    assert (trace.caller, trace.request_id, dict(trace.labels)) == ("anonymous", "order-7", {"team": "search"})
    assert (trace.provider, trace.model, trace.asked_model) == ("up", "up-1", "up/up-1")
    assert trace.completion_spec == asked.spec
    assert trace.completion == answer
    assert abs(trace.start_time.ToMicroseconds() - answer.create_time.ToMicroseconds()) <= 1
    assert (trace.status.code, trace.status.reason, trace.status.message) == (0, "", "")
    assert trace.HasField("status")
    assert not trace.status.HasField("detail")
    assert trace.usage == answer.usage
    assert trace.timing.total.ToMicroseconds() >= trace.timing.time_to_first_event.ToMicroseconds() > 0
    assert not trace.timing.HasField("time_to_first_token")
    assert (trace.streamed, trace.cancelled, trace.truncated, trace.events) == (False, False, False, 0)
    assert (trace.capture, trace.request_bytes) == (FULL, asked.ByteSize())
    assert trace.response_bytes == pb.CreateCompletionResponse(completion=answer).ByteSize()
    [attempt] = trace.attempts
    assert (attempt.number, attempt.cause) == (1, trace_pb2.ATTEMPT_CAUSE_FIRST)
    assert (attempt.provider, attempt.model, attempt.upstream_status) == ("up", "up-1", 200)
    assert attempt.endpoint == f"{up.url}/v1/chat/completions"
    assert attempt.request.body == sent.body
    assert attempt.response.content_type == "application/json"
    assert json.loads(attempt.response.body) == chat("Hello there.")
    assert attempt.usage == answer.usage
    assert trace.timing.total.ToMicroseconds() >= attempt.duration.ToMicroseconds() > 0
    assert attempt.start_time.ToMicroseconds() >= trace.start_time.ToMicroseconds()


async def test_a_stream_leaves_what_its_caller_was_given(tmp_path: Path):
    async with upstream(says("Hello", " there", ".")) as up, recorded(tmp_path, up) as server:
        reader = await server.stream(stream("up/up-1", "Say hello.")).rest()
        [trace] = await found(server, 1)
    assert trace.completion == reader.completion
    assert (trace.streamed, trace.events) == (True, len(reader.events))
    assert trace.response_bytes == sum(event.ByteSize() for event in reader.events)
    assert trace.timing.time_to_first_token.ToMicroseconds() > 0
    assert trace.attempts[0].response.body == b"".join(chat_events("Hello", " there", "."))
    assert trace.attempts[0].response.content_type == "text/event-stream"


async def test_embeddings_and_counts_leave_what_they_came_to(tmp_path: Path):
    async with recorded(tmp_path) as server:
        asked = embedding_service_pb2.CreateEmbeddingsRequest(request_id="batch-1")
        asked.spec.model = "fake/vectors"
        asked.spec.labels["team"] = "search"
        asked.spec.inputs.add(text="one text")
        vectors = await server.embeddings.CreateEmbeddings(asked)
        count = await server.completions.CountTokens(pb.CountTokensRequest(spec=spec("fake/echo", "How many?")))
        embedded, counted = await found(server, 2)
    assert embedded.method == "CreateEmbeddings"
    assert (embedded.embedding_spec, embedded.embeddings) == (asked.spec, vectors)
    assert (embedded.usage, dict(embedded.labels), embedded.request_id) == (
        vectors.usage,
        {"team": "search"},
        "batch-1",
    )
    assert (counted.method, counted.counted_tokens) == ("CountTokens", count.input_tokens)
    assert counted.asked_model == "fake/echo"


# -- every way that a call can end ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way for a call to end, and what its record says then."""

    run: Callable[[Gateway], Awaitable[Any]]
    code: grpc.StatusCode
    reason: str
    attempts: int = 1
    #: Text that the caller was given, if any, or its beginning.
    said: str | None = None
    estimated: bool = False
    asked: bool = True


#: Nobody hears the end of it.
SLOW = "one" + " more" * 100

KEY = "a-key-of-the-tests-only"
MINE = [("authorization", f"Bearer {KEY}")]


async def _left(gw: Gateway, until_event: str, **how: Any) -> None:
    reader = gw.stream(stream("fake/script", provider_options_json=script(**how)), metadata=MINE)
    if until_event:
        await reader.until(until_event)
    else:
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 1)
        await asyncio.sleep(0.05)  # the provider has the request, which nothing tells
    reader.call.cancel()


async def _left_unary(gw: Gateway) -> None:
    call = gw.completions.CreateCompletion(
        create("fake/script", provider_options_json=script(text="never", delay=30)), metadata=MINE
    )
    await until(lambda: gw.metric("trunkline_calls_in_flight") == 1)
    await asyncio.sleep(0.05)
    call.cancel()


async def _cancelled(gw: Gateway) -> None:
    reader = gw.stream(stream("fake/script", provider_options_json=script(text=SLOW, word_delay=0.5)), metadata=MINE)
    await reader.until("part_delta")
    await gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=reader.id), metadata=MINE)
    await reader.rest()


def _fails(request: Any, **how: Any) -> Callable[[Gateway], Awaitable[Any]]:
    async def run(gw: Gateway) -> None:
        await failing(gw.complete(request, **{"metadata": MINE, **how}))

    return run


def _streams(request: Any, **how: Any) -> Callable[[Gateway], Awaitable[Any]]:
    async def run(gw: Gateway) -> None:
        reader = await gw.stream(request, **{"metadata": MINE, **how}).rest()
        assert reader.failed is not None or reader.kinds[-1] == "finished"

    return run


def _scripted(**how: Any) -> dict[str, Any]:
    return {"model": "fake/script", "provider_options_json": script(**how)}


async def _ok(gw: Gateway) -> None:
    await gw.complete(create("fake/echo"), metadata=MINE)


async def _no_bytes(gw: Gateway) -> None:
    await failing(gw.bytes("/trunkline.v1.CompletionService/CreateCompletion")(b"\xff\xff\xff", metadata=MINE))


def _said(trace: trace_pb2.Trace) -> str:
    return "".join(part.text.text for choice in trace.completion.choices for part in choice.message.parts)


Code = grpc.StatusCode
OK, DENIED = Code.OK, Code.UNAUTHENTICATED
PATHS: dict[str, Way] = {
    "ok": Way(_ok, OK, "", said="You said: Hi"),
    "ok, streamed": Way(_streams(stream("fake/echo")), OK, "", said="You said: Hi"),
    "no key": Way(_fails(create("fake/echo"), metadata=()), DENIED, "CALLER_UNAUTHENTICATED", 0, asked=False),
    "no request": Way(_no_bytes, Code.INVALID_ARGUMENT, "INVALID_REQUEST", 0, asked=False),
    "invalid": Way(_fails(create("fake/echo", params={"n": -1})), Code.INVALID_ARGUMENT, "INVALID_REQUEST", 0),
    "no such model": Way(_fails(create("nobody/x")), Code.NOT_FOUND, "MODEL_NOT_FOUND", 0),
    "refused by the provider": Way(
        _fails(create(**_scripted(status=429))), Code.RESOURCE_EXHAUSTED, "LLM_RATE_LIMITED"
    ),
    "refused by the provider, streamed": Way(
        _streams(stream(**_scripted(status=503))), Code.UNAVAILABLE, "LLM_OVERLOADED"
    ),
    "cut before a word": Way(
        _streams(stream(**_scripted(text="one two", cut_after=0))), Code.UNAVAILABLE, "LLM_CONNECTION", estimated=True
    ),
    "cut in the middle": Way(
        _streams(stream(**_scripted(text="one two three", cut_after=3))),
        Code.UNAVAILABLE,
        "LLM_CONNECTION",
        said="one two",
        estimated=True,
    ),
    "left before the first word": Way(
        lambda gw: _left(gw, "", text="never", delay=30), Code.CANCELLED, "CANCELLED", estimated=True
    ),
    "left after the first word": Way(
        lambda gw: _left(gw, "part_delta", text=SLOW, word_delay=0.5),
        Code.CANCELLED,
        "CANCELLED",
        said="one",
        estimated=True,
    ),
    "left, unary": Way(_left_unary, Code.CANCELLED, "CANCELLED", estimated=True),
    "cancelled by CancelCompletion": Way(_cancelled, Code.CANCELLED, "CANCELLED", said="one", estimated=True),
    "deadline": Way(
        _fails(create(**_scripted(delay=30)), timeout=0.3), Code.DEADLINE_EXCEEDED, "GATEWAY_TIMEOUT", estimated=True
    ),
    "deadline in the middle": Way(
        _streams(stream(**_scripted(text=SLOW, word_delay=0.5)), timeout=2),
        Code.DEADLINE_EXCEEDED,
        "GATEWAY_TIMEOUT",
        said="one",
        estimated=True,
    ),
}


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("KEY_OF_TESTS", KEY)
    return {"callers": [{"name": "tests", "api_key_env": "KEY_OF_TESTS", "operator": True}]}


async def test_every_path_leaves_one_trace_that_says_how_the_call_ended(tmp_path: Path, caller: dict[str, Any]):
    async with recorded(tmp_path, **caller) as server:
        for way in PATHS.values():
            await way.run(server)
            await server.idle()
        traces = await found(server, len(PATHS), metadata=MINE)
    for (name, way), trace in zip(PATHS.items(), traces, strict=True):
        told = {
            "state": trace.state,
            "code": trace.status.code,
            "reason": trace.status.reason,
            "attempts": len(trace.attempts),
            "cancelled": trace.cancelled,
            "asked": trace.HasField("completion_spec"),
            "caller": trace.caller,
            "said": _said(trace)[: len(way.said or "")] if trace.HasField("completion") else None,
            "estimated": trace.usage.source == completion_pb2.USAGE_SOURCE_ESTIMATED,
        }
        assert told == {
            "state": trace_pb2.TRACE_STATE_FINISHED,
            "code": way.code.value[0],
            "reason": way.reason,
            "attempts": way.attempts,
            "cancelled": way.code is Code.CANCELLED,
            "asked": way.asked,
            "caller": "" if way.code is DENIED else "tests",
            "said": way.said,
            "estimated": way.estimated,
        }, name
        assert trace.HasField("timing"), name
        assert bool(trace.status.message) == (way.code not in (OK, Code.CANCELLED) or "Cancel" in name), name
        if way.attempts and way.code not in (OK, Code.CANCELLED, Code.DEADLINE_EXCEEDED):
            assert trace.attempts[-1].reason == way.reason, name


async def test_what_an_estimate_counts_is_what_was_said(tmp_path: Path):
    async with recorded(tmp_path) as server:
        await _left(server, "part_delta", text="four word", word_delay=0.5)
        [trace] = await found(server, 1)
    usage = trace.usage
    assert usage.source == completion_pb2.USAGE_SOURCE_ESTIMATED
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (1, 1, 2)  # "Hi", "four"
    assert trace.attempts[0].usage == usage
    assert not usage.HasField("cost_nano_usd")  # nobody sells it


async def test_a_partial_count_of_the_providers_stays_one(tmp_path: Path):
    async def begins(exchange: Any) -> None:
        await exchange.head()
        usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
        await exchange.chunk(
            piece("", role="assistant")
            + piece("one").replace(b'"choices"', b'"usage": %s, "choices"' % json.dumps(usage).encode())
        )
        await exchange.silence()

    async with upstream(begins) as up, recorded(tmp_path, up) as server:
        reader = server.stream(stream())
        await reader.until("part_delta")
        reader.call.cancel()
        [trace] = await found(server, 1)
    assert (trace.usage.source, trace.usage.input_tokens) == (completion_pb2.USAGE_SOURCE_PARTIAL, 7)


async def test_a_drain_leaves_traces_of_the_calls_that_it_ends_and_refuses(tmp_path: Path):
    async with upstream(silent_midway) as up:
        async with recorded(tmp_path, up) as server:
            reader = server.stream(stream())
            await reader.until("part_delta")
            server.stop.set()
            await reader.rest()
            assert reader.failed is not None
        async with recorded(tmp_path) as again:
            [trace] = await found(again, 1)
    assert (trace.status.reason, trace.status.code) == ("SHUTTING_DOWN", reader.failed.code.value[0])
    assert trace.completion == reader.completion
    assert not trace.cancelled


async def test_a_bug_leaves_a_trace_and_no_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with recorded(tmp_path, bugs=True) as server:

        async def broken(*_: object) -> None:
            raise RuntimeError("the story of a bug")

        monkeypatch.setattr(server.app.engine.providers["fake"].upstreams[""], "send", broken, raising=False)
        failed = await failing(server.complete(create("fake/echo")))
        [trace] = await found(server, 1)
    assert (trace.status.code, trace.status.reason) == (Code.INTERNAL.value[0], "INTERNAL")
    assert trace.status.message == failed.message
    assert b"the story of a bug" not in trace.SerializeToString()
    assert trace.completion_spec.model == "fake/echo"


async def test_the_ids_of_the_callers_trace_are_kept(tmp_path: Path):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with recorded(tmp_path) as server:
        await server.complete(create("fake/echo"), metadata=[("traceparent", parent)])
        [trace] = await found(server, 1)
    assert trace.otel_trace_id == "0af7651916cd43dd8448eb211c80319c"

"""What a call must survive, and what must not reach anybody through it."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import grpc
import pytest
from tests.gateway import create, failing, gateway, script, settings, spec, stream, until
from tests.upstream import Exchange, chat_events, says, silent, sse, upstream

from trunkline.v1 import completion_pb2, model_service_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server import app as composition


class Pipe(io.StringIO):
    """Standard error that may be closed at its other end."""

    closed_there = False

    def write(self, text: str) -> int:
        if self.closed_there:
            raise BrokenPipeError(32, "a path of the server's")
        return super().write(text)


async def test_a_log_that_cannot_be_written_fails_no_call() -> None:
    pipe, stop = Pipe(), asyncio.Event()
    with redirect_stderr(pipe):
        app = composition.build(settings(), os.environ)
    address = f"127.0.0.1:{app.listen()}"
    running = asyncio.create_task(app.run(stop))
    await until(lambda: "serving" in pipe.getvalue())
    pipe.closed_there = True
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = CompletionServiceStub(channel)
        answer = await stub.CreateCompletion(create("fake/echo"))
        failed = await failing(stub.CreateCompletion(create("nobody/knows")))
    stop.set()
    await running

    assert answer.completion.choices[0].message.parts[0].text.text == "You said: Hi"
    assert failed.reason == "MODEL_NOT_FOUND"


ANTHROPIC = [
    sse({"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 1}}}),
    sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
    sse({"type": "content_block_stop", "index": 0}),
    sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
    sse({"type": "message_stop"}),
]
ITEM = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
RESPONSES = [
    sse({"type": "response.created", "response": {"id": "resp_1", "model": "m", "status": "in_progress"}}),
    sse({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": [ITEM]}}),
]
OLLAMA = [
    b'{"model": "m", "message": {"role": "assistant", "content": "Hello"}, "done": false}\n',
    b'{"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"}\n',
]
COHERE = [
    sse({"type": "message-start", "id": "c_1", "delta": {"message": {"role": "assistant"}}}),
    sse({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    sse({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}}),
    sse({"type": "content-end", "index": 0}),
    sse({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 1}}}}),
]
LAST_WORDS = {
    "cohere": COHERE,
    "vllm": chat_events("Hello"),
    "anthropic": ANTHROPIC,
    "openai-responses": RESPONSES,
    "ollama-native": OLLAMA,
}


@pytest.mark.parametrize("kind", LAST_WORDS)
async def test_a_connection_that_breaks_after_the_last_word_spoils_nothing(kind: str) -> None:
    await whole(kind, lambda exchange: exchange.cut())


@pytest.mark.parametrize("kind", LAST_WORDS)
async def test_a_connection_that_stays_open_after_the_last_word_holds_nothing_up(kind: str) -> None:
    await whole(kind, lambda exchange: None)


async def whole(kind: str, then: Callable[[Exchange], None]) -> None:
    """A stream is whole, whatever becomes of its connection after the last word."""

    async def said(exchange: Exchange) -> None:
        await exchange.head()
        for event in LAST_WORDS[kind]:
            await exchange.chunk(event)
        then(exchange)
        await exchange.silence()

    async with upstream(said) as up, gateway(up, {"kind": kind}) as gw, asyncio.timeout(10):
        reader = await gw.stream(stream()).rest()

    assert (reader.failed, reader.kinds[-1], reader.text) == (None, "finished", "Hello")


async def test_the_time_limits_of_a_provider_bound_a_call_without_a_deadline() -> None:
    async with upstream(silent) as up, gateway(up, {"timeouts": {"total_unary": 0.2}}) as gw:
        failed = await failing(gw.completions.CreateCompletion(create()))

    assert (failed.reason, failed.message) == (
        "LLM_TIMEOUT",
        "the provider has not finished its answer within 0.2 s",
    )


async def test_the_name_of_a_model_has_a_bound() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        failed = await failing(gw.completions.CreateCompletion(create("up/" + "x" * 1022)))
        longest = await gw.complete(create("up/" + "x" * 1021))

    assert (failed.reason, list(failed.fields)) == ("INVALID_REQUEST", ["spec.model"])
    assert longest.choices
    assert len(up.exchanges) == 1


async def test_a_request_id_on_the_list_travels_on_and_is_logged_cut() -> None:
    async with upstream(says()) as up, gateway(up, forward_metadata=["x-request-id"]) as gw:
        await gw.complete(create(), metadata=(("x-request-id", "r" * 500),))
        await gw.idle()

    assert up.exchanges[0].headers["x-request-id"] == "r" * 500
    assert [line["request_id"] for line in gw.calls()] == ["r" * 128]


# -- models -----------------------------------------------------------------------------------------------------------


async def test_a_model_that_only_an_alias_names_is_got_as_it_is_listed() -> None:
    async with (
        upstream(lambda exchange: exchange.answer({"data": [{"id": "up-1"}]})) as up,
        gateway(up, models={"new": "up/up-9"}) as gw,
    ):
        page = await gw.models.ListModels(model_service_pb2.ListModelsRequest(provider="up"))
        got = await gw.models.GetModel(model_service_pb2.GetModelRequest(name="new"))

    assert [model.name for model in page.models] == ["up/up-1", "up/up-9"]
    assert got.model == page.models[1]


async def test_models_of_an_unknown_provider_are_no_empty_list() -> None:
    async with gateway() as gw:
        failed = await failing(gw.models.ListModels(model_service_pb2.ListModelsRequest(provider="fakes")))

    assert (failed.code, list(failed.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["provider"])
    assert "fake" in failed.fields["provider"]


async def test_an_unknown_credential_is_refused_where_tokens_are_only_estimated_too() -> None:
    options = completion_pb2.CallOptions(credential="nobody's")
    async with gateway() as gw:
        request = pb.CountTokensRequest(spec=spec("fake/echo"), options=options)
        failed = await failing(gw.completions.CountTokens(request))

    assert list(failed.fields) == ["options.credential"]


# -- the fake provider -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake",
    [
        {"delay": "long"},
        {"text": 5},
        {"status": "bad"},
        {"status": 99},
        {"headers": 5},
        {"tool_calls": [1]},
        {"usage": 5},
        {"cut_after": "never"},
        {"error": "no object"},
    ],
    ids=str,
)
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_a_script_with_a_mistake_is_a_bad_request(mistake: dict[str, Any], streamed: bool) -> None:
    options = script(**mistake)
    async with gateway() as gw:
        if streamed:
            failed = (await gw.stream(stream("fake/script", provider_options_json=options)).rest()).failed
        else:
            failed = await failing(
                gw.completions.CreateCompletion(create("fake/script", provider_options_json=options))
            )

    assert failed is not None
    assert failed.reason == "LLM_BAD_REQUEST"
    assert next(iter(mistake)) in failed.message

"""Providers of the Responses API through the public door: two turns, an error in a stream, counted tokens."""

from __future__ import annotations

import json
from typing import Any

import grpc
from tests.gateway import create, gateway, spec, stream
from tests.providers.openai_responses import Payload, fixture, streamed
from tests.upstream import Exchange, Script, sse, upstream

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1 import completion_service_pb2 as pb

RESPONSE: Payload = json.loads(fixture("thoughts_and_tools"))
COUNTED = {"object": "response.input_tokens", "input_tokens": 11}


def answers(response: Payload = RESPONSE) -> Script:
    """Answers with the response: streamed where it was asked so."""

    async def script(exchange: Exchange) -> None:
        if exchange.path.endswith("/input_tokens"):
            await exchange.answer(COUNTED)
        elif exchange.json.get("stream"):
            await exchange.events([sse(payload, payload["type"]) for payload in streamed(response)])
        else:
            await exchange.answer(response)

    return script


def again(answer: completion_pb2.Completion, model: str = "up/gpt-5.4") -> pb.CreateCompletionRequest:
    """The next turn: what was said, results of the calls, and another question."""
    said = answer.choices[0].message
    request = create(model, "Hi", store=False)
    request.spec.messages.append(said)
    results = request.spec.messages.add(role=message_pb2.ROLE_TOOL)
    for part in said.parts:
        if part.HasField("tool_call"):
            results.parts.add().tool_result.tool_call_id = part.tool_call.id
    request.spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "Go on."
    return request


def without_status(items: list[Payload]) -> list[Payload]:
    return [{name: value for name, value in item.items() if name != "status"} for item in items]


async def test_an_answer_whole_or_streamed_goes_back_as_the_provider_made_it() -> None:
    async with upstream(answers()) as up, gateway(up, {"kind": "openai-responses"}) as gw:
        whole = await gw.complete(create("up/gpt-5.4", store=False))
        reader = await gw.stream(stream("up/gpt-5.4", store=False)).rest()
        await gw.complete(again(whole))
        await gw.complete(again(reader.completion))

        asked: list[Any] = [(await up.next()).json for _ in range(4)]

    assert list(whole.choices[0].message.parts) == list(reader.completion.choices[0].message.parts)
    assert [body["store"] for body in asked] == [False] * 4
    assert all(body["include"] == ["reasoning.encrypted_content"] for body in asked)
    assert [body.get("stream") for body in asked] == [None, True, None, None]
    for body in asked[2:]:
        sent = without_status(body["input"][1:6])
        for item in sent:
            for piece in item["content"] if item["type"] == "message" else ():
                piece["logprobs"] = []
        assert sent == without_status(RESPONSE["output"])
        assert [item["type"] for item in body["input"][6:9]] == [
            "function_call_output",
            "function_call_output",
            "custom_tool_call_output",
        ]


async def test_an_error_in_a_stream_says_what_it_is_and_when_to_come_back() -> None:
    events = fixture("failed").split(b"\n\n")

    async def script(exchange: Exchange) -> None:
        await exchange.events([event + b"\n\n" for event in events if event.strip()])

    async with upstream(script) as up, gateway(up, {"kind": "openai-responses"}) as gw:
        reader = await gw.stream(stream("up/gpt-5.4")).rest()

    assert reader.failed is not None
    assert reader.text == "Let me see"
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LLM_RATE_LIMITED")
    assert reader.failed.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 1.5


async def test_tokens_are_counted_by_those_who_can_and_estimated_for_the_others() -> None:
    request = pb.CountTokensRequest(spec=spec("up/gpt-5.4", "How many tokens are these?"))

    async with upstream(answers()) as up, gateway(up, {"kind": "openai-responses"}) as gw:
        counted = await gw.completions.CountTokens(request)
    async with upstream(answers()) as up, gateway(up, {"kind": "xai-responses"}) as gw:
        estimated = await gw.completions.CountTokens(request)
        assert up.exchanges == []

    assert (counted.input_tokens, counted.source) == (11, completion_pb2.USAGE_SOURCE_REPORTED)
    assert estimated.source == completion_pb2.USAGE_SOURCE_ESTIMATED


async def test_a_provider_that_always_streams_gives_whole_answers_too() -> None:
    async with upstream(answers()) as up, gateway(up, {"kind": "chatgpt"}) as gw:
        answer = await gw.complete(create("up/gpt-5.4"))
        body = (await up.next()).json

    assert (body["stream"], body["store"], body["instructions"]) == (True, False, "")
    assert [part.tool_call.name for part in answer.choices[0].message.parts if part.HasField("tool_call")] == [
        "weather",
        "time",
        "query",
    ]


async def test_models_of_one_provider_are_spoken_to_in_two_dialects() -> None:
    async with upstream(answers()) as up, gateway(up, {"kind": "openai"}) as gw:
        answer = await gw.complete(create("up/o3-pro"))
        exchange = await up.next()

    assert exchange.path == "/v1/responses"
    assert answer.provider_response_id == "resp_fixture_2"
    assert {part.origin_provider for part in answer.choices[0].message.parts} == {"openai"}

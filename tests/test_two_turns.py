"""What came out of one call goes into the next as the provider made it, through the running server.

For every provider with signatures, ciphertexts, thoughts or ids of its own: its answer, whole and streamed, is the next
turn's history, and what is then sent for it is what the provider had said.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import create, gateway, stream
from tests.providers import anthropic_wire, bedrock_wire, gemini_wire, openai_responses
from tests.upstream import Exchange, sse, upstream

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline_server.providers import KINDS

Json = dict[str, Any]
FIXTURES = Path(__file__).parent / "providers" / "fixtures"


def fixture(name: str) -> Json:
    value: Json = json.loads((FIXTURES / name).read_bytes())
    return value


# -- streams of an answer ---------------------------------------------------------------------------------------------


def anthropic_stream(answer: Json) -> bytes:
    return anthropic_wire.streamed(answer, random.Random(1))


def invoked_stream(answer: Json) -> bytes:
    events = anthropic_wire.events_of(anthropic_stream(answer))
    return b"".join(bedrock_wire.chunk(json.loads(event.data)) for event in events)


def responses_stream(answer: Json) -> bytes:
    return b"".join(sse(payload, payload["type"]) for payload in openai_responses.streamed(answer))


def gemini_stream(answer: Json) -> bytes:
    return gemini_wire.streamed(answer, random.Random(1))


def chat_stream(answer: Json) -> bytes:
    """Each member of the message in a chunk of its own, its calls one by one and in pieces."""
    choice = answer["choices"][0]
    deltas: list[Json] = [{"role": "assistant"}]
    for name, value in choice["message"].items():
        if name == "tool_calls":
            for index, call in enumerate(value):
                text = call["function"]["arguments"]
                begun = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": text[:2]}}
                rest = {"index": index, "function": {"arguments": text[2:]}}
                deltas += [{"tool_calls": [begun]}, {"tool_calls": [rest]}]
        elif isinstance(value, list):
            deltas += [{name: [piece]} for piece in value]
        elif name != "role":
            deltas.append({name: value})
    chunks = [{**answer, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({**answer, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    return b"".join(map(sse, chunks)) + b"data: [DONE]\n\n"


def cohere_stream(answer: Json) -> bytes:
    message = answer["message"]
    events: list[Json] = [{"type": "message-start", "id": answer["id"], "delta": {"message": {"role": "assistant"}}}]
    for index, block in enumerate(message.get("content", ())):
        kind = block["type"]
        start = {"message": {"content": {"type": kind, kind: ""}}}
        delta = {"message": {"content": {kind: block[kind]}}}
        events += [
            {"type": "content-start", "index": index, "delta": start},
            {"type": "content-delta", "index": index, "delta": delta},
            {"type": "content-end", "index": index},
        ]
    for index, call in enumerate(message["tool_calls"]):
        begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        pieces = {"function": {"arguments": call["function"]["arguments"]}}
        events += [
            {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": begun}}},
            {"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": pieces}}},
            {"type": "tool-call-end", "index": index},
        ]
    events.append({"type": "message-end", "delta": {"finish_reason": answer["finish_reason"], "usage": {}}})
    return b"".join(sse(event, event["type"]) for event in events)


def ollama_stream(answer: Json) -> bytes:
    message = answer["message"]
    said = [{**answer, "done": False, "message": {"role": "assistant", "content": "", name: value}}
            for name, value in message.items() if name != "role"]  # fmt: skip
    lines = [*said, {**answer, "message": {"role": "assistant", "content": ""}}]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


# -- the cases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A provider's answer, and where it stands in the next request."""

    kind: str
    model: str
    answer: Json
    streamed: Callable[[Json], bytes]
    #: What of a request is the turn before the last.
    turn: Callable[[Json], Any]
    #: What it must be.
    wanted: Any
    content_type: str = "text/event-stream"


CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1,  "a":2.50}'}},
    {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


def chat(kind: str, model: str = "some-model", back: Json | None = None, **message: Any) -> Case:
    """An answer of Chat Completions; `back` is what is different about it in the next request."""
    said = {"role": "assistant", "content": "Both.", **message, "tool_calls": message.get("tool_calls", CALLS)}
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls"}
    answer = {"id": "c1", "object": "chat.completion", "model": model, "choices": [choice]}
    wanted = {name: value for name, value in {**said, **(back or {})}.items() if value is not None}
    return Case(kind, model, answer, chat_stream, lambda body: body["messages"][1], wanted)


def responses(kind: str, model: str) -> Case:
    answer = fixture("openai_responses/thoughts_and_tools.json")
    # A status is the answer's own, and is not taken back; pieces of text always name their logprobs.
    wanted = [{name: value for name, value in item.items() if name != "status"} for item in answer["output"]]

    def turn(body: Json) -> Any:
        items = [{name: value for name, value in item.items() if name != "status"} for item in body["input"][1:6]]
        for item in items:
            for piece in item["content"] if item["type"] == "message" else ():
                piece["logprobs"] = []
        return items

    return Case(kind, model, answer, responses_stream, turn, wanted)


def claude(kind: str, model: str, streamed: Callable[[Json], bytes] = anthropic_stream, **more: Any) -> Case:
    answer = fixture("anthropic_messages/thinking_and_tools.json")
    # Who calls directly is nobody in particular.
    wanted = [{name: value for name, value in block.items() if name != "caller"} for block in answer["content"]]
    return Case(kind, model, answer, streamed, lambda body: body["messages"][1]["content"], wanted, **more)


def google(kind: str) -> Case:
    answer = fixture("gemini/tools.json")
    parts = [dict(part) for part in answer["candidates"][0]["content"]["parts"]]
    for part in parts:
        if "functionCall" in part:
            part["functionCall"] = {"args": {}, **part["functionCall"]}
    return Case(kind, "gemini-3-flash", answer, gemini_stream, lambda body: body["contents"][1]["parts"], parts)


FRAMES = "application/vnd.amazon.eventstream"
CONVERSE = fixture("bedrock_converse/tools.json")
#: The usual type of a call goes without saying.
CONVERSED = [
    {"toolUse": {**block["toolUse"], "type": None}} if "toolUse" in block else block
    for block in CONVERSE["output"]["message"]["content"]
]
COHERE: Json = {
    "id": "c1",
    "finish_reason": "TOOL_CALL",
    "message": {"role": "assistant", "content": [{"type": "thinking", "thinking": "Two calls."}], "tool_calls": CALLS},
    "usage": {},
}
OLLAMA: Json = {
    "model": "qwen3", "done": True, "done_reason": "stop",
    "message": {
        "role": "assistant", "content": "Both.", "thinking": "Two calls.",
        "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"a": 1}}},
                       {"id": "call_2", "function": {"name": "g", "arguments": {}}}],
    },
}  # fmt: skip
SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
ROUTED = [
    {"type": "reasoning.text", "text": "Two calls.", "signature": "c2ln", "format": "anthropic-claude-v1"},
    {"type": "reasoning.encrypted", "data": "c2VhbGVk", "id": "rs_1", "format": "anthropic-claude-v1"},
]

CASES = [
    claude("anthropic", "claude-sonnet-4-5"),
    claude("vertex", "claude-sonnet-4-5"),
    claude("bedrock-invoke", "anthropic.claude-sonnet-4-5-20250929-v1:0", invoked_stream, content_type=FRAMES),
    Case(
        "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", CONVERSE, bedrock_wire.streamed,
        lambda body: body["messages"][1]["content"], CONVERSED, FRAMES,
    ),
    google("gemini"),
    google("vertex"),
    responses("openai-responses", "gpt-5.4"),
    responses("azure-responses", "gpt-5.4"),
    responses("xai-responses", "grok-4"),
    responses("openrouter-responses", "openai/gpt-5.4"),
    chat("openai", "gpt-5.2"),
    chat("azure", "gpt-5.2"),
    chat("openrouter", reasoning_details=ROUTED),
    chat("minimax", "MiniMax-M2", reasoning_details=[
        {"type": "reasoning.text", "id": "reasoning-text-1", "format": "MiniMax-response-v1", "text": "Two calls."},
    ]),
    chat("gemini-openai", "gemini-3-flash", tool_calls=[{**CALLS[0], **SIGNED}, CALLS[1]]),
    chat("deepseek", "deepseek-reasoner", reasoning_content="Two calls."),
    chat("moonshot", "kimi-k2-thinking", reasoning_content="Two calls."),
    chat("zai", "glm-4.6", reasoning_content="Two calls."),
    chat("groq", "openai/gpt-oss-120b", reasoning="Two calls."),
    chat(
        "mistral", "magistral-medium-latest",
        content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Two calls."}]},
                 {"type": "text", "text": "Both."}],
    ),
    Case("cohere", "command-a-reasoning-08-2025", COHERE, cohere_stream, lambda body: body["messages"][1],
         COHERE["message"]),
    Case("ollama-native", "qwen3", OLLAMA, ollama_stream, lambda body: body["messages"][1], OLLAMA["message"],
         "application/x-ndjson"),
]  # fmt: skip


def again(model: str, answer: completion_pb2.Completion) -> pb.CreateCompletionRequest:
    """The next turn: what was said, a result for each call, and another question."""
    said = answer.choices[0].message
    request = create(model, "Hi")
    request.spec.messages.append(said)
    results = request.spec.messages.add(role=message_pb2.ROLE_TOOL)
    for part in said.parts:
        if part.HasField("tool_call"):
            result = results.parts.add().tool_result
            result.tool_call_id, result.name = part.tool_call.id, part.tool_call.name
            result.parts.add().text.text = "1"
    request.spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "Go on."
    return request


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.model}")
async def test_an_answer_goes_back_as_its_provider_made_it(case: Case) -> None:
    asked: list[Json] = []

    async def script(exchange: Exchange) -> None:
        asked.append(exchange.json)
        if len(asked) == 2:
            await exchange.head(headers={"content-type": case.content_type})
            await exchange.chunk(case.streamed(case.answer))
            await exchange.end()
        else:
            await exchange.answer(case.answer)

    settings = {"region": "eu-central-1"} if case.kind.startswith("bedrock") else {}
    model = f"up/{case.model}"
    async with upstream(script) as up, gateway(up, {"kind": case.kind, "settings": settings}) as gw:
        whole = await gw.complete(create(model))
        reader = await gw.stream(stream(model)).rest()
        for answer in (whole, reader.completion):
            next_answer = await gw.complete(again(model, answer))
            assert [warning.field for warning in next_answer.warnings] == []

    assert len(asked) == 4
    assert _said(case.turn(asked[2])) == _said(case.wanted)
    assert _said(case.turn(asked[3])) == _said(case.wanted)


def _said(turn: Any) -> str:
    """Members in any order: arguments that are objects come as text in a stream."""
    return json.dumps(_without_none(turn), sort_keys=True, ensure_ascii=False, indent=1)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def test_every_dialect_has_a_case() -> None:
    shown = {KINDS[case.kind].tongue_of(case.model).dialect for case in CASES}
    spoken = {row.dialect for row in KINDS.values()} | {t.dialect for row in KINDS.values() for t in row.tongues}

    # Nova and the compatible models behind InvokeModel make no signatures; their wires are Converse's and OpenAI's.
    assert spoken - shown == {"bedrock_invoke_nova", "bedrock_invoke_chat"}

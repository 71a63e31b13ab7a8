"""Chat Completions from our fixtures: answers and streams as the dialect reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trunkline.v1 import completion_pb2
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event
from trunkline_server.providers.dialects.openai_chat import OpenAIChat
from trunkline_server.providers.framing import FRAMINGS

FIXTURES = Path(__file__).parent / "fixtures" / "openai_chat"
WHOLE = ("text", "tools", "choices", "cited", "details", "thinking")
STREAMS = ("stream", "routed", "searched", "filtered")
DIALECT = OpenAIChat()

STOP = completion_pb2.FINISH_REASON_STOP
TOOL_CALLS = completion_pb2.FINISH_REASON_TOOL_CALLS


def fixture(name: str) -> bytes:
    return next(FIXTURES.glob(f"{name}.*")).read_bytes()


def answer_of(body: object) -> completion_pb2.Completion:
    assembly = Assembly("openai", "asked-for")
    DIALECT.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), assembly)
    return assembly.completion()


def said(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> completion_pb2.Completion:
    """The answer for one message."""
    return answer_of({"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more})


def events_of(stream: bytes, chunk: int = 1 << 20) -> list[Event]:
    framer = FRAMINGS[DIALECT.framing]()
    events = [event for at in range(0, len(stream), chunk) for event in framer.feed(stream[at : at + chunk])]
    return [*events, *framer.end()]


def decoded(events: list[Event], *, emits: bool = False) -> Assembly:
    assembly = Assembly("openai", "asked-for", emits=emits)
    decoder = DIALECT.decoder(assembly)
    for event in events:
        decoder.event(event)
    decoder.end()
    return assembly


def streamed(*deltas: dict[str, Any], finish: str | None = "stop", done: bool = True) -> completion_pb2.Completion:
    """The answer for a stream of deltas of one choice."""
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    lines = [json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"] * done
    return decoded([Event(b"", line) for line in lines]).completion()


def kinds(answer: completion_pb2.Completion) -> list[str | None]:
    return [part.WhichOneof("kind") for part in answer.choices[0].message.parts]


def piece(index: int | None = None, call_id: str = "", name: str = "", arguments: str = "") -> dict[str, Any]:
    """A delta with a piece of a tool call; what is empty is left out."""
    call: dict[str, Any] = {"function": {"arguments": arguments} | ({"name": name} if name else {})}
    return {"tool_calls": [call | ({} if index is None else {"index": index}) | ({"id": call_id} if call_id else {})]}


def calls_of(answer: completion_pb2.Completion) -> list[tuple[str, str, str]]:
    parts = answer.choices[0].message.parts
    return [
        (part.tool_call.id, part.tool_call.name, part.tool_call.arguments_json)
        for part in parts
        if part.HasField("tool_call")
    ]

"""Responses from our fixtures: whole answers, the streams that would have brought them, and what becomes of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.v1 import completion_pb2
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event
from trunkline_server.providers.dialects.openai_responses import OpenAIResponses
from trunkline_server.providers.framing import FRAMINGS

FIXTURES = Path(__file__).parent / "fixtures" / "openai_responses"
WHOLE = ("text", "thoughts_and_tools", "provider_tools", "open_thoughts", "incomplete")
DIALECT = OpenAIResponses()
ORIGIN = "openai-responses"

Payload = dict[str, Any]


def fixture(name: str) -> bytes:
    return next(FIXTURES.glob(f"{name}.*")).read_bytes()


def answer_of(body: object) -> completion_pb2.Completion:
    assembly = Assembly(ORIGIN, "asked-for")
    DIALECT.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), assembly)
    return assembly.completion()


def output(*items: Payload, **more: Any) -> Payload:
    """A whole response with these items."""
    return {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": list(items), **more}


def message(*content: Payload, **more: Any) -> Payload:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": list(content),
    } | more


def texts(*said: str) -> list[Payload]:
    return [{"type": "output_text", "text": text, "annotations": []} for text in said]


def events_of(stream: bytes, chunk: int = 1 << 20) -> list[Event]:
    framer = FRAMINGS[DIALECT.framing]()
    events = [event for at in range(0, len(stream), chunk) for event in framer.feed(stream[at : at + chunk])]
    return [*events, *framer.end()]


def framed(payloads: list[Payload]) -> list[Event]:
    return [Event(str(payload.get("type", "")).encode(), json.dumps(payload).encode()) for payload in payloads]


def decoded(events: list[Event], *, emits: bool = False) -> Assembly:
    assembly = Assembly(ORIGIN, "asked-for", emits=emits)
    decoder = DIALECT.decoder(assembly)
    for event in events:
        decoder.event(event)
    decoder.end()
    return assembly


def cut(text: str) -> list[str]:
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def streamed(response: Payload) -> list[Payload]:
    """The events that would have brought a whole response."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    payloads: list[Payload] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(response["output"]):
        empty: Payload = {"content": [], "summary": [], "arguments": "", "input": ""}
        added = {**item, "status": "in_progress", **{name: empty[name] for name in empty if name in item}}
        payloads.append({"type": "response.output_item.added", "output_index": index, "item": added})
        at = {"output_index": index, "item_id": item["id"]}
        payloads += [{**at, **payload} for payload in _PIECES.get(item["type"], _nothing)(item)]
        payloads.append({"type": "response.output_item.done", "output_index": index, "item": item})
    payloads.append({"type": f"response.{response['status']}", "response": response})
    return [{**payload, "sequence_number": number} for number, payload in enumerate(payloads)]


def _nothing(item: Payload) -> list[Payload]:
    return []


def _content(item: Payload) -> list[Payload]:
    made: list[Payload] = []
    for index, content in enumerate(item["content"]):
        at = {"content_index": index}
        kind = content["type"]
        member = "refusal" if kind == "refusal" else "text"
        begun = {**content, **({member: ""} if member in content else {})}
        made.append({**at, "type": "response.content_part.added", "part": {**begun, "annotations": [], "logprobs": []}})
        if member in content:
            logprobs = content.get("logprobs") or []
            for number, text in enumerate(cut(content[member])):
                delta = {**at, "type": f"response.{kind}.delta", "delta": text}
                # All that there are travel with the first piece.
                made.append({**delta, "logprobs": logprobs if number == 0 else []})
            for number, annotation in enumerate(content.get("annotations", [])):
                about = {"annotation_index": number, "annotation": annotation}
                made.append({**at, "type": "response.output_text.annotation.added", **about})
            made.append({**at, "type": f"response.{kind}.done", member: content[member]})
        made.append({**at, "type": "response.content_part.done", "part": content})
    return made


def _thoughts(item: Payload) -> list[Payload]:
    made: list[Payload] = []
    for index, summary in enumerate(item["summary"]):
        at = {"summary_index": index}
        made.append({**at, "type": "response.reasoning_summary_part.added", "part": {**summary, "text": ""}})
        delta = {**at, "type": "response.reasoning_summary_text.delta"}
        made.extend({**delta, "delta": text} for text in cut(summary["text"]))
        made.append({**at, "type": "response.reasoning_summary_text.done", "text": summary["text"]})
        made.append({**at, "type": "response.reasoning_summary_part.done", "part": summary})
    return made + (_content(item) if item.get("content") else [])


def _arguments(member: str, event: str) -> Callable[[Payload], list[Payload]]:
    def pieces(item: Payload) -> list[Payload]:
        deltas = [{"type": f"{event}.delta", "delta": text} for text in cut(item[member])]
        return [*deltas, {"type": f"{event}.done", member: item[member]}]

    return pieces


_PIECES: dict[str, Callable[[Payload], list[Payload]]] = {
    "message": _content,
    "reasoning": _thoughts,
    "function_call": _arguments("arguments", "response.function_call_arguments"),
    "custom_tool_call": _arguments("input", "response.custom_tool_call_input"),
}


def plain(completion: completion_pb2.Completion) -> completion_pb2.Completion:
    """The answer without how its JSON was spaced."""
    copy = completion_pb2.Completion()
    copy.CopyFrom(completion)
    copy.usage.raw_json = ""
    for part in copy.choices[0].message.parts:
        if part.HasField("opaque"):
            part.opaque.json = json.dumps(json.loads(part.opaque.json))
        for citation in part.text.citations if part.HasField("text") else ():
            citation.raw_json = json.dumps(json.loads(citation.raw_json))
    return copy


def kinds(answer: completion_pb2.Completion) -> list[str | None]:
    return [part.WhichOneof("kind") for part in answer.choices[0].message.parts]


def said(answer: completion_pb2.Completion) -> str:
    return "".join(part.text.text for part in answer.choices[0].message.parts if part.HasField("text"))

"""Answers of Anthropic as bytes and events, and what becomes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from trunkline.v1 import completion_pb2
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.dialects.anthropic_messages import AnthropicMessages
from trunkline_server.providers.framing import FRAMINGS

FIXTURES = Path(__file__).parent / "fixtures" / "anthropic_messages"
WHOLE = ("text", "thinking_and_tools", "provider_tools", "citations")
DIALECT = AnthropicMessages()


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def answer_of(message: object) -> completion_pb2.Completion:
    assembly = Assembly("anthropic", "asked-for")
    DIALECT.decode(message if isinstance(message, bytes) else json.dumps(message).encode(), assembly)
    return assembly.completion()


def events_of(stream: bytes) -> list[Event]:
    framer = FRAMINGS[DIALECT.framing]()
    return [*framer.feed(stream), *framer.end()]


def decoded(events: list[Event], *, emits: bool = False) -> Assembly:
    assembly = Assembly("anthropic", "asked-for", emits=emits)
    decoder = DIALECT.decoder(assembly)
    for event in events:
        decoder.event(event)
    decoder.end()
    return assembly


def sse(*payloads: object) -> bytes:
    return b"".join(
        f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n".encode()  # type: ignore[index]
        for payload in payloads
    )


def streamed(message: dict[str, Any], pieces: random.Random) -> bytes:
    """The stream that the provider would have sent for a whole message, its texts cut anywhere."""

    def cut(text: str) -> list[str]:
        return [text[at : at + 3] for at in range(0, len(text), 3)] if pieces.random() < 0.5 else [text]

    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**message["usage"], "output_tokens": 1}
    payloads: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        deltas: list[dict[str, Any]] = []
        begun = dict(block)
        if block["type"] == "text":
            begun["text"] = ""
            deltas = [{"type": "text_delta", "text": text} for text in cut(block["text"])]
            if "citations" in block:
                begun["citations"] = []
                deltas += [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
        elif block["type"] == "thinking":
            begun |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": text} for text in cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif "input" in block:
            begun["input"] = {}
            text = json.dumps(block["input"]) if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *cut(text)]]
        payloads.append({"type": "content_block_start", "index": index, "content_block": begun})
        payloads += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        payloads.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    payloads += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    return sse(*payloads)


_VALUES = [b"null", b'"\\ud83d"', b"[]", b"{}", b"-1", b"1e999", b"4294967296", b'{"a":[1]}', b"[[[[", b"\xff", b"true"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One byte or one value is another."""
    at = data.find(b":", chance.randrange(len(data)))
    if at < 0 or chance.random() < 0.3:
        place = chance.randrange(len(data))
        return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    end = min((place for place in (data.find(b",", at), data.find(b"}", at)) if place > 0), default=at)
    return data[: at + 1] + chance.choice(_VALUES) + data[end:]


def disturbed(events: list[Event], chance: random.Random) -> list[Event]:
    """Events lost, doubled, changed or out of order."""
    events = list(events)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(events))
        match chance.randrange(4):
            case 0 if len(events) > 1:
                del events[at]
            case 1:
                events.insert(at, events[at])
            case 2:
                events[at] = Event(chance.choice([b"", BARE, events[at].name]), mutated(events[at].data, chance))
            case _:
                chance.shuffle(events)
    return events

"""Bedrock's streams as bytes: frames of AWS's event streams, made as its specification says."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

from tests.providers.wires import Wire

WIRE = Wire("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
WHOLE = ("text.json", "tools.json", "cited.json")


def framed(headers: dict[str, str], payload: bytes) -> bytes:
    """See https://smithy.io/2.0/aws/amazon-eventstream.html"""
    encoded = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event(name: str, payload: object) -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return framed({":event-type": name, ":content-type": "application/json", ":message-type": "event"}, data)


def exception(kind: str, payload: object) -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return framed({":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}, data)


def chunk(payload: object) -> bytes:
    """A frame of InvokeModelWithResponseStream."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(payload).encode()).decode(), "p": "abc"})


def told(answer: dict[str, Any], size: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """The events that the provider would have sent for a whole answer, its texts cut into pieces of `size`."""

    def cut(text: str) -> list[str]:
        return [text[at : at + size] for at in range(0, len(text), size)]

    made: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(answer["output"]["message"]["content"]):
        name, value = next(iter(block.items()))
        begun: dict[str, Any] | None = None
        deltas: list[dict[str, Any]] = []
        match name:
            case "text":
                deltas = [{"text": text} for text in cut(value)]
            case "reasoningContent" if "redactedContent" in value:
                deltas = [{name: value}]
            case "reasoningContent":
                thought = value["reasoningText"]
                deltas = [{name: {"text": text}} for text in cut(thought["text"])]
                deltas.append({name: {"signature": thought["signature"]}})
            case "citationsContent":
                deltas = [{"citation": citation} for citation in value["citations"]]
                deltas += [{"text": text} for said in value.get("content", ()) for text in cut(said["text"])]
            case "toolUse":
                begun = {key: inner for key, inner in value.items() if key != "input"}
                deltas = [{name: {"input": text}} for text in cut(json.dumps(value["input"]))]
            case "toolResult":
                begun = {key: inner for key, inner in value.items() if key != "content"}
                deltas = [{name: [said]} for said in value["content"]]
            case "image":
                begun = {"format": value["format"]}
                deltas = [{name: {"source": value["source"]}}]
            case _:
                begun = value
        place = {"contentBlockIndex": index, "p": "abcdef"}
        if begun is not None:
            made.append(("contentBlockStart", {**place, "start": {name: begun}}))
        made += [("contentBlockDelta", {**place, "delta": delta}) for delta in deltas]
        made.append(("contentBlockStop", place))
    made.append(("messageStop", {"stopReason": answer["stopReason"]}))
    metadata: dict[str, Any] = {name: answer[name] for name in ("usage", "metrics", "serviceTier") if name in answer}
    return [*made, ("metadata", metadata)]


def streamed(answer: dict[str, Any], size: int = 3) -> bytes:
    return b"".join(event(name, payload) for name, payload in told(answer, size))

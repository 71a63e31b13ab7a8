"""Answers of Gemini as bytes and events, and what becomes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from trunkline.v1 import completion_pb2
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event, Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.gemini import Gemini, capabilities
from trunkline_server.providers.framing import FRAMINGS

FIXTURES = Path(__file__).parent / "fixtures" / "gemini"
WHOLE = ("text", "tools", "code", "grounded", "image")
DIALECT = Gemini()
USER = 'messages { role: ROLE_USER parts { text { text: "hello" } } }'


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def answer_of(answer: object) -> completion_pb2.Completion:
    assembly = Assembly("gemini", "asked-for")
    DIALECT.decode(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), assembly)
    return assembly.completion()


def events_of(stream: bytes) -> list[Event]:
    framer = FRAMINGS[DIALECT.framing]()
    return [*framer.feed(stream), *framer.end()]


def decoded(events: list[Event], *, emits: bool = False) -> Assembly:
    assembly = Assembly("gemini", "asked-for", emits=emits)
    decoder = DIALECT.decoder(assembly)
    for event in events:
        decoder.event(event)
    decoder.end()
    return assembly


def sse(*chunks: object) -> bytes:
    return b"".join(f"data: {json.dumps(chunk)}\r\n\r\n".encode() for chunk in chunks)


def chunk(*parts: object, finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [{**candidate, **more}]}


def streamed(answer: dict[str, Any], chance: random.Random) -> bytes:
    """The stream that the provider would have sent for a whole answer, its texts cut anywhere."""
    candidate = answer["candidates"][0]
    about = {name: value for name, value in answer.items() if name != "candidates"}
    chunks: list[dict[str, Any]] = []
    for part in candidate["content"]["parts"]:
        text = part.get("text", "")
        pieces = [part]
        if len(text) > 3 and "functionCall" not in part and chance.random() < 0.8:
            at = chance.randrange(1, len(text))
            pieces = [{**part, "text": text[:at]}, {**part, "text": text[at:]}]
            pieces[0].pop("thoughtSignature", None)
        chunks += [{"candidates": [{"content": {"parts": [piece]}, "index": 0}], **about} for piece in pieces]
    rest = {name: value for name, value in candidate.items() if name != "content"}
    return sse(*chunks, {"candidates": [{"content": {"parts": [{"text": ""}]}, **rest}], **about})


def spec_of(text: str) -> completion_pb2.CompletionSpec:
    """A spec in protobuf's text format, without its model."""
    return text_format.Parse(text, completion_pb2.CompletionSpec())


def target_of(model: str) -> Target:
    return Target(provider="gemini-eu", origin="gemini", model=model, capabilities=capabilities(model))


def encoded(text: str, model: str = "gemini-2.5-flash", *, stream: bool = False) -> tuple[UpstreamRequest, Notes]:
    spec = spec_of(text)
    before = spec.SerializeToString(deterministic=True)
    notes = Notes()
    made = DIALECT.encode(spec, target_of(model), notes, stream=stream)
    assert spec.SerializeToString(deterministic=True) == before, "nothing of the caller's may change"
    return made, notes


def body_of(text: str, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    """The body of a request that says all that the spec says."""
    made, notes = encoded(text, model)
    assert notes.unsupported == []
    body: dict[str, Any] = json.loads(made.body)
    return body


def paths(notes: Notes) -> list[str]:
    return [f"{reason.removeprefix('PARAMETER_').lower()} {path}" for reason, path, _ in notes.unsupported]

"""One provider's wire: its answers as bytes and events, what becomes of them, and what it is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from trunkline.collect import Collector
from trunkline.v1 import completion_pb2, completion_service_pb2, embedding_service_pb2, message_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers import DIALECTS, KINDS
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Dialect, Event, Notes, Target, UpstreamRequest
from trunkline_server.providers.framing import FRAMINGS


@dataclass(frozen=True, slots=True)
class Wire:
    """A kind of provider, and the model that it is asked for if nothing else is said."""

    kind: str
    model: str

    @property
    def dialect(self) -> Any:
        return DIALECTS[KINDS[self.kind].dialect]()

    def fixture(self, name: str) -> bytes:
        return (Path(__file__).parent / "fixtures" / KINDS[self.kind].dialect / name).read_bytes()

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer_of(self, answer: object) -> completion_pb2.Completion:
        assembly = Assembly(self.kind, "asked-for")
        self.dialect.decode(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), assembly)
        return assembly.completion()

    def events_of(self, stream: bytes, chunk: int = 1 << 20) -> list[Event]:
        framer = FRAMINGS[self.dialect.framing]()
        pieces = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
        return [*(event for piece in pieces for event in framer.feed(piece)), *framer.end()]

    def decoded(self, events: list[Event], *, emits: bool = False) -> Assembly:
        assembly = Assembly(self.kind, "asked-for", emits=emits)
        decoder = self.dialect.decoder(assembly)
        for event in events:
            decoder.event(event)
        decoder.end()
        return assembly

    def said(self, *lines: dict[str, Any]) -> completion_pb2.Completion:
        """The answer for a stream of these events."""
        return self.decoded([Event(b"", json.dumps(line).encode()) for line in lines]).completion()

    def collected(self, events: list[Event]) -> completion_pb2.Completion:
        """The answer as a client collects it from the stream, every rule of streams checked on the way."""
        collector = Collector()
        assembly = Assembly(self.kind, "asked-for", emits=True)
        decoder = self.dialect.decoder(assembly)
        made = [_event("started"), _event("attempt_started")]
        for event in events:
            decoder.event(event)
            made.extend(assembly.events())
        decoder.end()
        for number, each in enumerate([*made, *assembly.events(), _event("finished")], 1):
            each.sequence_number = number
            collector.add(each)
        return collector.end()

    # -- requests -----------------------------------------------------------------------------------------------------

    def target(self, model: str = "") -> Target:
        name = model or self.model
        return Target(f"{self.kind}-eu", self.kind, name, KINDS[self.kind].capabilities_of(name))

    def encoded(
        self, spec: completion_pb2.CompletionSpec | str, model: str = "", *, stream: bool = False
    ) -> tuple[UpstreamRequest, Notes]:
        """`spec` may be in protobuf's text format."""
        asked = text_format.Parse(spec, completion_pb2.CompletionSpec()) if isinstance(spec, str) else spec
        before = asked.SerializeToString(deterministic=True)
        notes = Notes()
        made = self.dialect.encode(asked, self.target(model), notes, stream=stream)
        assert asked.SerializeToString(deterministic=True) == before, "nothing of the caller's may change"
        return made, notes

    def body_of(self, spec: completion_pb2.CompletionSpec | str, model: str = "") -> dict[str, Any]:
        """The body of a request that says all that the spec says, and says it as the spec does."""
        made, notes = self.encoded(spec, model)
        assert (notes.unsupported, notes.foreign) == ([], [])
        body: dict[str, Any] = json.loads(made.body)
        return body

    def noted(self, spec: completion_pb2.CompletionSpec | str, model: str = "") -> tuple[dict[str, Any], list[str]]:
        """The body, and what is said of what it does not say."""
        made, notes = self.encoded(spec, model)
        return json.loads(made.body), paths(notes)

    def vectors_body(self, spec: str, model: str = "") -> tuple[str, dict[str, Any], list[str]]:
        """Path, body and notes of a request for embeddings."""
        asked = text_format.Parse(spec, embedding_service_pb2.EmbeddingSpec())
        notes = Notes()
        made = self.dialect.encode_embeddings(asked, asked.inputs, self.target(model), notes)
        return made.path, json.loads(made.body), paths(notes)


def paths(notes: Notes) -> list[str]:
    """What was noted: "dropped PATH", "altered PATH" (a reason to refuse), "remark PATH", "foreign PATH" (none)."""
    words = {"PARAMETER_ALTERED": "remark", "FOREIGN_DATA_DROPPED": "foreign"}
    return [
        *(f"{reason.removeprefix('PARAMETER_').lower()} {path}" for reason, path, _ in notes.unsupported),
        *(f"{words[reason]} {path}" for reason, path, _ in notes.foreign),
    ]


def parts_of(answer: completion_pb2.Completion) -> list[message_pb2.ContentPart]:
    return list(answer.choices[0].message.parts)


def kinds(answer: completion_pb2.Completion) -> list[str | None]:
    return [part.WhichOneof("kind") for part in parts_of(answer)]


def calls_of(answer: completion_pb2.Completion) -> list[tuple[str, str, str]]:
    calls = [part.tool_call for part in parts_of(answer) if part.HasField("tool_call")]
    return [(call.id, call.name, call.arguments_json) for call in calls]


def _event(name: str) -> completion_service_pb2.StreamCompletionResponse:
    made = completion_service_pb2.StreamCompletionResponse()
    getattr(made, name).SetInParent()
    return made


def plain(completion: completion_pb2.Completion) -> completion_pb2.Completion:
    """The answer without how its JSON was spaced."""
    copy = completion_pb2.Completion()
    copy.CopyFrom(completion)
    copy.usage.raw_json = ""
    for part in copy.choices[0].message.parts:
        if part.HasField("tool_call"):
            part.tool_call.arguments_json = json.dumps(json.loads(part.tool_call.arguments_json), sort_keys=True)
        if part.HasField("opaque"):
            part.opaque.json = json.dumps(json.loads(part.opaque.json), sort_keys=True)
        if part.HasField("signature") and part.signature.startswith("{"):
            part.signature = json.dumps(json.loads(part.signature))
        for citation in part.text.citations if part.HasField("text") else ():
            citation.raw_json = json.dumps(json.loads(citation.raw_json), sort_keys=True)
    return copy


def in_pieces(data: bytes, sizes: list[int]) -> list[Event]:
    """The events of a stream of server-sent events that arrives in pieces of these sizes."""
    framer = FRAMINGS["sse"]()
    events: list[Event] = []
    at = 0
    for size in sizes:
        events += framer.feed(data[at : at + size])
        at += size
    return [*events, *framer.feed(data[at:]), *framer.end()]


def is_answer_or_error(dialect: Dialect, body: bytes, events: list[Event] | None) -> None:
    """Holds that what arrives, a body or events, is an answer that is complete, or an error of the provider's."""
    assembly = Assembly("any", "asked-for", emits=True)
    try:
        if events is None:
            dialect.decode(body, assembly)
        else:
            decoder = dialect.decoder(assembly)
            for event in events:
                decoder.event(event)
            decoder.end()
    except LLMError:
        pass
    else:
        assert assembly.finished
    assembly.events()
    assembly.completion().SerializeToString()

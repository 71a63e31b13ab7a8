"""InvokeModel of AWS Bedrock: a model's own wire inside of AWS's.

The inner dialect writes and reads the model's body and events; here they are put into AWS's paths and frames, and taken
out of them. See https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw, Struct

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import EXCEPTION, Decoder, Dialect, Event, Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.bedrock_converse import Bedrock, counted_path, model_path
from trunkline_server.providers.dialects.bedrock_converse.errors import error_in_answer
from trunkline_server.providers.jsontext import Reader, dumps, loads, merged
from trunkline_server.providers.media import bytes_of


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a model's body differs from the one that its dialect writes."""

    #: Members that stand first.
    first: Mapping[str, Any] = field(default_factory=dict)
    #: Members that the path tells.
    without: frozenset[str] = frozenset({"model", "stream"})
    #: A header that lists words, and the member that holds them here.
    header: str = ""
    member: str = ""
    #: The member with the service tier, which is a header here.
    tier: str = "service_tier"
    #: A member whose own members are the body's here.
    spread: str = ""


class _Chunk(Struct):
    bytes: str | None = None


_TIER = "x-amzn-bedrock-service-tier"

_raw_members = Reader(dict[str, Raw])
_chunk = Reader(_Chunk)


class InvokeModel(Bedrock):
    """A dialect inside of InvokeModel's. Models are listed and embed as Converse's do."""

    def __init__(self, name: str, inner: Dialect, envelope: Envelope) -> None:
        self.name = name
        self._inner = inner
        self._envelope = envelope

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        members = self._members(self._inner.encode(spec, target, notes, stream=stream))
        tier = loads(bytes(members.pop(self._envelope.tier, b"null")))
        headers = ((_TIER, tier),) if isinstance(tier, str) else ()
        path = model_path(target.model, "invoke-with-response-stream" if stream else "invoke")
        return UpstreamRequest(path, dumps(members), headers)

    def decode(self, body: bytes, assembly: Assembly) -> None:
        self._inner.decode(body, assembly)

    def decoder(self, assembly: Assembly) -> Decoder:
        return _Unwrapping(self._inner.decoder(assembly))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return self._inner.classify(status, headers, body)

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        members = self._members(self._inner.encode(spec, target, notes, stream=False))
        members.pop(self._envelope.tier, None)
        # msgspec writes bytes as base64.
        asked = {"input": {"invokeModel": {"body": dumps(members)}}}
        return UpstreamRequest(counted_path(target.model), dumps(asked))

    def _members(self, request: UpstreamRequest) -> dict[str, Any]:
        """The members of the body as InvokeModel wants it."""
        envelope = self._envelope
        written = _raw_members.read(request.body)
        members: dict[str, Any] = dict(envelope.first)
        words = dict(request.headers).get(envelope.header, "").split(",")
        if words != [""]:
            # The caller's own options may have named some here.
            given = loads(bytes(written.pop(envelope.member, b"[]")))
            members[envelope.member] = list(dict.fromkeys([*(given if isinstance(given, list) else ()), *words]))
        members.update((name, value) for name, value in written.items() if name not in envelope.without)
        spread = members.pop(envelope.spread, None)
        return members if spread is None else merged(members, loads(bytes(spread)))


class _Unwrapping:
    """Takes a model's own events out of AWS's."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner

    def event(self, event: Event) -> None:
        if event.name.startswith(EXCEPTION):
            raise error_in_answer(event.data, event.name[len(EXCEPTION) :].decode("utf-8", "replace"))
        if event.name == b"chunk":
            data = bytes_of(_chunk.read(event.data).bytes)
            if data:
                self._inner.event(Event(b"", data))

    def end(self) -> None:
        self._inner.end()

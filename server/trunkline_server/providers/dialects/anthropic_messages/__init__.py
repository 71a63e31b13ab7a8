"""Anthropic Messages: the wire of api.anthropic.com, and of the clouds and servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Decoder, ListedModel, Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.anthropic_messages import errors, request, response, vertex
from trunkline_server.providers.dialects.anthropic_messages.stream import StreamDecoder

__all__ = ["AnthropicMessages", "VertexAnthropic"]


class _Messages:
    """What they answer, wherever they run. See `providers.base.Dialect`."""

    framing = "sse"

    def decode(self, body: bytes, assembly: Assembly) -> None:
        response.decode(body, assembly)

    def decoder(self, assembly: Assembly) -> Decoder:
        return StreamDecoder(assembly)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return errors.classify(status, headers, body)

    def decode_count(self, body: bytes) -> int:
        return response.decode_count(body)


class AnthropicMessages(_Messages):
    """The dialect. Also counts tokens and lists models."""

    name = "anthropic_messages"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return request.encode(spec, target, notes, stream=stream)

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        return request.encode_count(spec, target, notes)

    def models_request(self) -> UpstreamRequest:
        return request.models_request()

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return response.decode_models(body)


class VertexAnthropic(_Messages):
    """The same at Vertex AI, where the address names the model. Also counts tokens."""

    name = "vertex_anthropic"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return vertex.encode(spec, target, notes, stream=stream)

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        return vertex.encode_count(spec, target, notes)

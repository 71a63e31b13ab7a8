"""Converse and ConverseStream: one wire of AWS Bedrock for the models of all makers."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Decoder, ListedModel, Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.bedrock_converse import errors, request, response
from trunkline_server.providers.dialects.bedrock_converse.models import capabilities
from trunkline_server.providers.dialects.bedrock_converse.request import model_path
from trunkline_server.providers.dialects.bedrock_converse.stream import StreamDecoder

__all__ = ["BedrockConverse", "capabilities", "model_path"]


class BedrockConverse:
    """The dialect. Also counts tokens and lists models."""

    name = "bedrock_converse"
    framing = "eventstream"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return request.encode(spec, target, notes, stream=stream)

    def decode(self, body: bytes, assembly: Assembly) -> None:
        response.decode(body, assembly)

    def decoder(self, assembly: Assembly) -> Decoder:
        return StreamDecoder(assembly)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return errors.classify(status, headers, body)

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        return request.encode_count(spec, target, notes)

    def decode_count(self, body: bytes) -> int:
        return response.decode_count(body)

    def models_request(self) -> UpstreamRequest:
        return request.MODELS

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return response.decode_models(body)

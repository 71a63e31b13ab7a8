"""Converse and ConverseStream: one wire of AWS Bedrock for the models of all makers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Decoder, ListedModel, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.bedrock_converse import embeddings, errors, request, response
from trunkline_server.providers.dialects.bedrock_converse.models import capabilities
from trunkline_server.providers.dialects.bedrock_converse.request import counted_path, model_path
from trunkline_server.providers.dialects.bedrock_converse.stream import StreamDecoder

__all__ = ["BedrockConverse", "capabilities", "counted_path", "model_path"]


class BedrockConverse:
    """The dialect. Also counts tokens, lists models, and embeds with the models that do."""

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

    def next_models_request(self, asked: UpstreamRequest, body: bytes) -> UpstreamRequest | None:
        return request.next_models(asked, body)

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return response.decode_models(body)

    def encode_embeddings(
        self,
        spec: embedding_service_pb2.EmbeddingSpec,
        inputs: Sequence[embedding_service_pb2.EmbeddingInput],
        target: Target,
        notes: Notes,
    ) -> UpstreamRequest:
        return embeddings.encode_embeddings(spec, inputs, target, notes)

    def decode_embeddings(self, body: bytes) -> Vectors:
        return embeddings.decode_embeddings(body)

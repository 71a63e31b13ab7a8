"""Cohere's own API: chat and embeddings of its second version, models of its first.

See https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/embed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers import classify, listing
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import ListedModel, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.cohere_chat import embeddings, request
from trunkline_server.providers.dialects.cohere_chat.stream import EventDecoder, read_whole


class CohereChat:
    """See `providers.base.Dialect`."""

    name = "cohere_chat"
    framing = "sse"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return request.encode(spec, target, notes, stream=stream)

    def decode(self, body: bytes, assembly: Assembly) -> None:
        read_whole(body, assembly)

    def decoder(self, assembly: Assembly) -> EventDecoder:
        return EventDecoder(assembly)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return classify.classify(status, headers, body, fields=request.FIELDS)

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

    def models_request(self) -> UpstreamRequest:
        return UpstreamRequest("/v1/models?page_size=1000", b"", method="GET")

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return listing.decode_models(body, "name")

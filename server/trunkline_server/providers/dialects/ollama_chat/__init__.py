"""Ollama's own API: chat, embeddings and models. See https://docs.ollama.com/api"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers import classify, listing
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event, ListedModel, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.ollama_chat import embeddings, request
from trunkline_server.providers.dialects.ollama_chat.response import LineDecoder
from trunkline_server.providers.framing import NdjsonFramer
from trunkline_server.providers.sse import is_complete


class OllamaChat:
    """See `providers.base.Dialect`."""

    name = "ollama_chat"
    framing = "ndjson"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return request.encode(spec, target, notes, stream=stream)

    def decode(self, body: bytes, assembly: Assembly) -> None:
        decoder = LineDecoder(assembly)
        first = body.lstrip().partition(b"\n")[0]
        # A server that always streams sends several lines; one that writes for people breaks the only one.
        streamed = len(first) < len(body.strip()) and is_complete(first)
        framer = NdjsonFramer()
        for event in (*framer.feed(body), *framer.end()) if streamed else (Event(b"", body),):
            decoder.event(event)
        decoder.end()

    def decoder(self, assembly: Assembly) -> LineDecoder:
        return LineDecoder(assembly)

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
        return UpstreamRequest("/api/tags", b"", method="GET")

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return listing.decode_models(body, "name")

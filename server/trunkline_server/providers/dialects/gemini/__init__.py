"""Gemini: generateContent and what belongs to it, as Google's own API and Vertex AI speak it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMEmptyResponseError, LLMError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import ListedModel, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.gemini import embeddings, errors, wire
from trunkline_server.providers.dialects.gemini.models import capabilities
from trunkline_server.providers.dialects.gemini.request import body_of, resource
from trunkline_server.providers.dialects.gemini.response import Reading
from trunkline_server.providers.dialects.gemini.stream import ChunkDecoder
from trunkline_server.providers.jsontext import dumps, unreadable

__all__ = ["Gemini", "VertexGemini", "capabilities"]


class _GenerateContent:
    """What both have in common. See `providers.base.Dialect`."""

    name = ""
    framing = "sse"
    #: Files may have names.
    names_files = False

    def path(self, model: str) -> str:
        raise NotImplementedError

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        body = body_of(spec, target, notes, names_files=self.names_files)
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return UpstreamRequest(f"{self.path(target.model)}:{method}", dumps(body))

    def decode(self, body: bytes, assembly: Assembly) -> None:
        reading = Reading(assembly)
        # A server that always streams sends its chunks as an array.
        chunks = wire.ANSWERS.read(body) if body.lstrip()[:1] == b"[" else [wire.ANSWER.read(body)]
        for answer in chunks:
            reading.answer(answer, body, whole=len(chunks) == 1)
        reading.finish(whole=True)
        if not assembly.finished:
            if any(answer.candidates is not None or answer.prompt_feedback is not None for answer in chunks):
                raise LLMEmptyResponseError("the provider answered with no content and no finish reason", body=body)
            raise unreadable(body)

    def decoder(self, assembly: Assembly) -> ChunkDecoder:
        return ChunkDecoder(assembly)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return errors.classify(status, headers, body)

    def decode_count(self, body: bytes) -> int:
        return embeddings.decode_count(body)


class Gemini(_GenerateContent):
    """Google's own API. Also embeds, counts tokens and lists models."""

    name = "gemini"

    def path(self, model: str) -> str:
        return resource(model)

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        path = self.path(target.model)
        asked = {"model": path.removeprefix("/"), **body_of(spec, target, notes, names_files=self.names_files)}
        return UpstreamRequest(f"{path}:countTokens", dumps({"generateContentRequest": asked}))

    def encode_embeddings(
        self,
        spec: embedding_service_pb2.EmbeddingSpec,
        inputs: Sequence[embedding_service_pb2.EmbeddingInput],
        target: Target,
        notes: Notes,
    ) -> UpstreamRequest:
        return embeddings.encode_batch(spec, inputs, target, notes)

    def decode_embeddings(self, body: bytes) -> Vectors:
        return embeddings.decode_batch(body)

    def models_request(self) -> UpstreamRequest:
        return UpstreamRequest("/models?pageSize=1000", b"", method="GET")

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return embeddings.decode_models(body)


class VertexGemini(_GenerateContent):
    """Vertex AI. Also embeds and counts tokens; its list of models is not one of what can be called."""

    name = "vertex_gemini"
    names_files = True

    def path(self, model: str) -> str:
        """Under the project's location: a model of a publisher ("google" unless named), or an endpoint of one's own."""
        steps = model.strip("/").split("/")
        if len(steps) == 2 and steps[0] != "endpoints":
            return resource(f"publishers/{steps[0]}/models/{steps[1]}")
        return resource(model, "publishers/google/models")

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        body = body_of(spec, target, notes, names_files=self.names_files)
        counted = {name: value for name, value in body.items() if name in _COUNTED}
        return UpstreamRequest(f"{self.path(target.model)}:countTokens", dumps(counted))

    def encode_embeddings(
        self,
        spec: embedding_service_pb2.EmbeddingSpec,
        inputs: Sequence[embedding_service_pb2.EmbeddingInput],
        target: Target,
        notes: Notes,
    ) -> UpstreamRequest:
        return embeddings.encode_predict(spec, inputs, target, notes, self.path(target.model))

    def decode_embeddings(self, body: bytes) -> Vectors:
        return embeddings.decode_predict(body)


#: What Vertex's countTokens takes.
_COUNTED = frozenset({"contents", "generationConfig", "systemInstruction", "tools"})

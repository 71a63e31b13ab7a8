"""Embeddings as Ollama shapes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.v1 import embedding_service_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.classify import error_in_answer
from trunkline_server.providers.dialects.ollama_chat import wire
from trunkline_server.providers.dialects.ollama_chat.usage import usage_of
from trunkline_server.providers.jsontext import dumps, present, unreadable
from trunkline_server.providers.options import with_options

pb = embedding_service_pb2


def encode_embeddings(
    spec: pb.EmbeddingSpec, inputs: Sequence[pb.EmbeddingInput], target: Target, notes: Notes
) -> UpstreamRequest:
    """See `providers.base.EmbeddingDialect`."""
    texts = [each.text for each in inputs if each.WhichOneof("input") == "text"]
    if len(texts) < len(inputs):
        notes.dropped("inputs", f"{target.origin} embeds text only")
    body: dict[str, Any] = {"model": target.model, "input": texts}
    if spec.HasField("dimensions"):
        body["dimensions"] = spec.dimensions
    if spec.task:
        notes.dropped("task", f"{target.origin} is not told what vectors are for")
    if spec.end_user_id:
        notes.remark("end_user_id", f"{target.origin} takes no id of the end user")
    return UpstreamRequest("/api/embed", dumps(with_options(body, spec.provider_options_json, target)))


def decode_embeddings(body: bytes) -> Vectors:
    """See `providers.base.EmbeddingDialect`. Takes the one vector of the older endpoint too."""
    answer = wire.VECTORS.read(body)
    if present(answer.error):
        raise error_in_answer(body)
    vectors = [answer.embedding] if answer.embedding is not None else answer.embeddings
    if vectors is None:
        raise unreadable(body)
    return Vectors(vectors, answer.model or "", usage_of(answer.prompt_eval_count))

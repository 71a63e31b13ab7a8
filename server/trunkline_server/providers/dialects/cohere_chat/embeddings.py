"""Embeddings as Cohere shapes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.classify import error_in_answer
from trunkline_server.providers.dialects.cohere_chat import wire
from trunkline_server.providers.jsontext import dumps, present, unreadable
from trunkline_server.providers.media import address_of
from trunkline_server.providers.options import with_options
from trunkline_server.providers.usage import counted, usage_from
from trunkline_server.providers.vocabulary import COHERE_TASKS

pb = embedding_service_pb2


def encode_embeddings(
    spec: pb.EmbeddingSpec, inputs: Sequence[pb.EmbeddingInput], target: Target, notes: Notes
) -> UpstreamRequest:
    """See `providers.base.EmbeddingDialect`."""
    task = spec.task
    if task == pb.EMBEDDING_TASK_SIMILARITY:
        task = pb.EMBEDDING_TASK_CLUSTERING
        notes.altered("task", f"sent as 'clustering': {target.origin} has no task for comparing texts")
    word = COHERE_TASKS.get(task, "search_document")
    body: dict[str, Any] = {"model": target.model, "input_type": word, "embedding_types": ["float"]}
    body.update(_inputs(inputs, target, notes))
    if spec.HasField("dimensions"):
        body["output_dimension"] = spec.dimensions
    if spec.end_user_id:
        notes.remark("end_user_id", f"{target.origin} takes no id of the end user")
    return UpstreamRequest("/v2/embed", dumps(with_options(body, spec.provider_options_json, target)))


def _inputs(inputs: Sequence[pb.EmbeddingInput], target: Target, notes: Notes) -> dict[str, Any]:
    """Texts alone as texts, anything else as a list of contents."""
    if all(each.WhichOneof("input") == "text" for each in inputs):
        return {"texts": [each.text for each in inputs]}
    contents = [_content(each, f"inputs[{at}]", target, notes) for at, each in enumerate(inputs)]
    return {"inputs": [{"content": [content]} for content in contents if content is not None]}


def _content(each: pb.EmbeddingInput, path: str, target: Target, notes: Notes) -> dict[str, Any] | None:
    kind = each.WhichOneof("input")
    if kind == "text":
        return {"type": "text", "text": each.text}
    if kind != "media" or (each.media.mime_type and not each.media.mime_type.startswith("image/")):
        notes.dropped(path, f"{target.origin} embeds texts and pictures only")
        return None
    url = address_of(each.media)
    if url is None:
        notes.dropped(path, f"{target.origin} takes no handles of pictures; send the bytes")
        return None
    return {"type": "image_url", "image_url": {"url": url}}


def decode_embeddings(body: bytes) -> Vectors:
    """See `providers.base.EmbeddingDialect`."""
    answer = wire.VECTORS.read(body)
    if answer.message is not None and answer.embeddings is None:
        raise error_in_answer(body)
    vectors = answer.embeddings.get("float") if isinstance(answer.embeddings, dict) else answer.embeddings
    if not isinstance(vectors, list) or not all(isinstance(vector, list) for vector in vectors):
        raise unreadable(body)
    return Vectors(vectors, "", _usage(answer.meta))


def _usage(meta: wire.Meta | None) -> completion_pb2.Usage | None:
    if meta is None or not present(meta.billed_units):
        return None
    counts = wire.COUNTS.read(bytes(meta.billed_units))
    return usage_from(
        meta.billed_units,
        completion_pb2.USAGE_SOURCE_REPORTED,
        {
            "input_tokens": counted(counts.input_tokens),
            "output_tokens": None,
            "total_tokens": counted(counts.input_tokens),
            "input_image_tokens": counted(counts.image_tokens),
        },
    )

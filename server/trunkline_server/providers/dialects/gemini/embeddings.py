"""Embeddings and the smaller questions, as Google's own API and Vertex AI shape them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.providers.base import ListedModel, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.gemini.errors import error_in_answer
from trunkline_server.providers.dialects.gemini.request import resource, vertex_resource
from trunkline_server.providers.dialects.gemini.usage import usage_of
from trunkline_server.providers.jsontext import Reader, dumps, text_of, unreadable
from trunkline_server.providers.options import with_options
from trunkline_server.providers.usage import Count, added, counted, usage_from

_REPORTED = completion_pb2.USAGE_SOURCE_REPORTED
_TASKS = {
    embedding_service_pb2.EMBEDDING_TASK_QUERY: "RETRIEVAL_QUERY",
    embedding_service_pb2.EMBEDDING_TASK_DOCUMENT: "RETRIEVAL_DOCUMENT",
    embedding_service_pb2.EMBEDDING_TASK_SIMILARITY: "SEMANTIC_SIMILARITY",
    embedding_service_pb2.EMBEDDING_TASK_CLASSIFICATION: "CLASSIFICATION",
    embedding_service_pb2.EMBEDDING_TASK_CLUSTERING: "CLUSTERING",
}


class _Statistics(msgspec.Struct, gc=False):
    #: Vertex writes its numbers in floats.
    token_count: Count = None


class _Embedding(msgspec.Struct, gc=False):
    values: list[float] | None = None
    statistics: _Statistics | None = None


class _Embedded(msgspec.Struct, rename="camel", gc=False):
    """The answer to one content or to several."""

    embedding: _Embedding | None = None
    embeddings: list[_Embedding] | None = None
    usage_metadata: Raw = Raw(b"")
    error: Raw = Raw(b"")


class _Prediction(msgspec.Struct, gc=False):
    embeddings: _Embedding | None = None


class _Predicted(msgspec.Struct, gc=False):
    predictions: list[_Prediction] | None = None
    metadata: Raw = Raw(b"")
    error: Raw = Raw(b"")


class _Counted(msgspec.Struct, rename="camel", gc=False):
    total_tokens: int | None = None
    error: Raw = Raw(b"")


class _Model(msgspec.Struct, rename="camel", gc=False):
    name: str = ""
    display_name: str | None = None
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    thinking: Any = None
    supported_generation_methods: list[str] | None = None


class _Models(msgspec.Struct, gc=False):
    models: list[_Model] | None = None
    error: Raw = Raw(b"")


_embedded = Reader(_Embedded)
_predicted = Reader(_Predicted)
_counted = Reader(_Counted)
_models = Reader(_Models)


def encode_batch(
    spec: embedding_service_pb2.EmbeddingSpec,
    inputs: Sequence[embedding_service_pb2.EmbeddingInput],
    target: Target,
    notes: Notes,
) -> UpstreamRequest:
    """`batchEmbedContents`. See `providers.base.EmbeddingDialect`."""
    path = resource(target.model)
    common: dict[str, Any] = {"model": path.removeprefix("/")}
    if spec.task:
        common["taskType"] = _TASKS[spec.task]
    if spec.HasField("dimensions"):
        common["outputDimensionality"] = spec.dimensions
    _no_end_user(spec, notes)
    common = with_options(common, spec.provider_options_json, target)
    parts = [_part(each, target, notes) for each in inputs]
    requests = [{**common, "content": {"parts": [part]}} for part in parts if part is not None]
    return UpstreamRequest(f"{path}:batchEmbedContents", dumps({"requests": requests}))


def decode_batch(body: bytes) -> Vectors:
    """See `providers.base.EmbeddingDialect`."""
    answer = _embedded.read(body)
    if text_of(answer.error):
        raise error_in_answer(body)
    found = answer.embeddings if answer.embedding is None else [answer.embedding]
    if found is None:
        raise unreadable(body)
    usage = usage_of(answer.usage_metadata, _REPORTED)[0] if text_of(answer.usage_metadata) else None
    return Vectors([each.values or [] for each in found], "", usage)


def encode_predict(
    spec: embedding_service_pb2.EmbeddingSpec,
    inputs: Sequence[embedding_service_pb2.EmbeddingInput],
    target: Target,
    notes: Notes,
) -> UpstreamRequest:
    """Vertex's `predict`. See `providers.base.EmbeddingDialect`."""
    common: dict[str, Any] = {}
    if spec.task:
        common["task_type"] = _TASKS[spec.task]
    _no_end_user(spec, notes)
    parts = [_part(each, target, notes) for each in inputs]
    if any(part is not None and "text" not in part for part in parts):
        notes.dropped("inputs", f"{target.model} embeds text only here")
    body: dict[str, Any] = {
        "instances": [{**common, "content": part["text"]} for part in parts if part is not None and "text" in part]
    }
    if spec.HasField("dimensions"):
        body["parameters"] = {"outputDimensionality": spec.dimensions}
    path = f"{vertex_resource(target.model)}:predict"
    return UpstreamRequest(path, dumps(with_options(body, spec.provider_options_json, target)))


def decode_predict(body: bytes) -> Vectors:
    """See `providers.base.EmbeddingDialect`. Tokens are counted by input."""
    answer = _predicted.read(body)
    if text_of(answer.error):
        raise error_in_answer(body)
    if answer.predictions is None:
        return decode_batch(body)
    found = [each.embeddings or _Embedding() for each in answer.predictions]
    tokens = [counted(each.statistics.token_count) for each in found if each.statistics is not None]
    total: int | None = 0
    for count in tokens:
        total = added(total, count)
    usage = None
    if tokens and total is not None:
        usage = usage_from(
            answer.metadata, _REPORTED, {"input_tokens": total, "output_tokens": None, "total_tokens": total}
        )
    return Vectors([each.values or [] for each in found], "", usage)


def decode_count(body: bytes) -> int:
    """See `providers.base.CountingDialect`."""
    answer = _counted.read(body)
    if text_of(answer.error):
        raise error_in_answer(body)
    # A count of none is left out.
    tokens = answer.total_tokens if answer.total_tokens is not None else 0 if body.strip() == b"{}" else None
    if tokens is None or not 0 <= tokens < 2**31:
        raise unreadable(body)
    return tokens


def models_request() -> UpstreamRequest:
    """See `providers.base.ListingDialect`."""
    return UpstreamRequest("/models?pageSize=1000", b"", method="GET")


def decode_models(body: bytes) -> list[ListedModel]:
    """See `providers.base.ListingDialect`."""
    answer = _models.read(body)
    if text_of(answer.error):
        raise error_in_answer(body)
    if answer.models is None and body.strip() != b"{}":
        raise unreadable(body)
    return [
        ListedModel(
            id=model.name,
            name=model.name.removeprefix("models/"),
            display_name=model.display_name or "",
            context_window_tokens=counted(model.input_token_limit) or None,
            max_output_tokens=counted(model.output_token_limit) or None,
            outputs=frozenset({"EMBEDDING"} if _only_embeds(model) else ()),
            can=_abilities(model),
        )
        for model in answer.models or ()
        if model.name
    ]


def _only_embeds(model: _Model) -> bool:
    methods = model.supported_generation_methods or ()
    return any("embed" in method for method in methods) and "generateContent" not in methods


def _abilities(model: _Model) -> dict[str, bool]:
    told = (
        {}
        if model.supported_generation_methods is None
        else {"token_count": "countTokens" in model.supported_generation_methods}
    )
    return {**told, "reasoning": model.thinking} if isinstance(model.thinking, bool) else told


def _part(each: embedding_service_pb2.EmbeddingInput, target: Target, notes: Notes) -> dict[str, Any] | None:
    kind = each.WhichOneof("input")
    if kind == "text":
        return {"text": each.text}
    if kind == "media" and each.media.WhichOneof("source") == "data":
        return {"inlineData": {"mimeType": each.media.mime_type, "data": each.media.data}}
    if kind == "media":
        return {"fileData": {"mimeType": each.media.mime_type, "fileUri": each.media.uri or each.media.file_id}}
    notes.dropped("inputs", f"{target.origin} embeds text, pictures, sounds and films, and no token ids")
    return None


def _no_end_user(spec: embedding_service_pb2.EmbeddingSpec, notes: Notes) -> None:
    if spec.end_user_id:
        notes.dropped("end_user_id", "Gemini is not told who the end user is")

"""Embeddings: Bedrock has no wire of its own for them, so each maker's body goes through InvokeModel.

See https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html, the same of
model-parameters-embed.html, and https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw, Struct, field

from trunkline.v1 import completion_pb2
from trunkline.v1 import embedding_service_pb2 as pb
from trunkline_server.providers.base import Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.bedrock_converse.errors import error_in_answer
from trunkline_server.providers.dialects.bedrock_converse.request import model_path
from trunkline_server.providers.jsontext import Reader, dumps, loads, text_of, unreadable
from trunkline_server.providers.media import base64_of
from trunkline_server.providers.options import with_options
from trunkline_server.providers.usage import Count, counted, usage_from
from trunkline_server.providers.vocabulary import COHERE_TASKS

Body = dict[str, Any]
_Inputs = Sequence[pb.EmbeddingInput]

_NOVA_TASKS: Mapping[int, str] = {
    pb.EMBEDDING_TASK_UNSPECIFIED: "GENERIC_INDEX",
    pb.EMBEDDING_TASK_QUERY: "GENERIC_RETRIEVAL",
    pb.EMBEDDING_TASK_DOCUMENT: "GENERIC_INDEX",
    pb.EMBEDDING_TASK_CLASSIFICATION: "CLASSIFICATION",
    pb.EMBEDDING_TASK_CLUSTERING: "CLUSTERING",
}


class _Answer(Struct, rename="camel"):
    embedding: list[float] | None = None
    embeddings: Raw = Raw()
    input_text_token_count: Count = None


class _Nova(Struct):
    embedding: list[float]


class _Types(Struct):
    vectors: list[list[float]] = field(name="float")


_answer = Reader(_Answer)
_nova = Reader(list[_Nova])
_plain = Reader(list[list[float]])
_types = Reader(_Types)


def encode_embeddings(spec: pb.EmbeddingSpec, inputs: _Inputs, target: Target, notes: Notes) -> UpstreamRequest:
    """One batch: as many inputs as `Capabilities.embedding_batch` says."""
    write = next((write for pattern, write in _BODIES if pattern.search(target.model)), _titan)
    body = write(spec, inputs, target, notes)
    if spec.HasField("end_user_id"):
        notes.dropped("end_user_id", "Bedrock's embeddings know no users")
    return UpstreamRequest(
        model_path(target.model, "invoke"), dumps(with_options(body, spec.provider_options_json, target))
    )


def decode_embeddings(body: bytes) -> Vectors:
    """Raises LLMError."""
    answer = _answer.read(body)
    if answer.embedding is not None:
        return Vectors([answer.embedding], "", _usage(answer.input_text_token_count))
    text = text_of(answer.embeddings)
    if not text:
        value = loads(body)
        raise error_in_answer(body) if isinstance(value, dict) and "message" in value else unreadable(body)
    if text.startswith("{"):
        return Vectors(_types.read(text).vectors, "", None)
    if text[1:].lstrip().startswith("{"):
        return Vectors([made.embedding for made in _nova.read(text)], "", None)
    return Vectors(_plain.read(text), "", None)


def _usage(count: Count) -> completion_pb2.Usage | None:
    if count is None:
        return None
    told = Raw(dumps({"inputTextTokenCount": count}))
    counts = {"input_tokens": counted(count), "output_tokens": None, "total_tokens": counted(count)}
    return usage_from(told, completion_pb2.USAGE_SOURCE_REPORTED, counts)


# -- bodies -----------------------------------------------------------------------------------------------------------


def _titan(spec: pb.EmbeddingSpec, inputs: _Inputs, target: Target, notes: Notes) -> Body:
    body: Body = {}
    for index, given in enumerate(inputs):
        kind = given.WhichOneof("input")
        if kind == "text":
            body["inputText"] = given.text
        elif kind == "media" and "image" in target.model and given.media.data:
            body["inputImage"] = given.media.data
        else:
            _unread(kind, index, target, notes)
    if spec.HasField("dimensions"):
        if "embed-image" in target.model:
            body["embeddingConfig"] = {"outputEmbeddingLength": spec.dimensions}
        elif "embed-text-v1" in target.model or "embed-g1" in target.model:
            notes.dropped("dimensions", f"{target.model} makes vectors of one length")
        else:
            body["dimensions"] = spec.dimensions
    if spec.task:
        notes.dropped("task", f"{target.model} is not told what vectors are for")
    return body


def _cohere(spec: pb.EmbeddingSpec, inputs: _Inputs, target: Target, notes: Notes) -> Body:
    texts: list[str] = []
    images: list[str] = []
    for index, given in enumerate(inputs):
        kind = given.WhichOneof("input")
        if kind == "text":
            texts.append(given.text)
        elif kind == "media" and given.media.data:
            images.append(f"data:{given.media.mime_type};base64,{base64_of(given.media.data)}")
        else:
            _unread(kind, index, target, notes)
    task = _task(COHERE_TASKS, spec, target, notes)
    body: Body = {"images": images, "input_type": "image"} if images else {"texts": texts, "input_type": task}
    if images and texts:
        notes.dropped("inputs", f"{target.model} takes texts or pictures in one request, not both")
    if spec.HasField("dimensions"):
        if "embed-v4" in target.model:
            body["output_dimension"] = spec.dimensions
        else:
            notes.dropped("dimensions", f"{target.model} makes vectors of one length")
    return body


def _nova_body(spec: pb.EmbeddingSpec, inputs: _Inputs, target: Target, notes: Notes) -> Body:
    params: Body = {"embeddingPurpose": _task(_NOVA_TASKS, spec, target, notes)}
    if spec.HasField("dimensions"):
        params["embeddingDimension"] = spec.dimensions
    for index, given in enumerate(inputs):
        kind = given.WhichOneof("input")
        media = given.media.mime_type.partition("/")
        if kind == "text":
            params["text"] = {"value": given.text, "truncationMode": "NONE"}
        elif kind == "media" and media[0] in ("image", "audio", "video") and given.media.data:
            params[media[0]] = {"format": media[2], "source": {"bytes": given.media.data}}
        else:
            _unread(kind, index, target, notes)
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": params}


def _task(words: Mapping[int, str], spec: pb.EmbeddingSpec, target: Target, notes: Notes) -> str:
    word = words.get(spec.task)
    if word is None:
        notes.dropped("task", f"{target.model} has no such task")
    return word or words[pb.EMBEDDING_TASK_UNSPECIFIED]


def _unread(kind: str | None, index: int, target: Target, notes: Notes) -> None:
    notes.dropped(f"inputs[{index}]", f"{target.model} embeds no {kind or 'empty input'}")


_BODIES: tuple[tuple[re.Pattern[str], Callable[[pb.EmbeddingSpec, _Inputs, Target, Notes], Body]], ...] = (
    (re.compile(r"cohere\.embed"), _cohere),
    (re.compile(r"nova.*embed"), _nova_body),
)

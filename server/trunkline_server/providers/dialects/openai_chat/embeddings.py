"""Embeddings, as OpenAI shapes them."""

from __future__ import annotations

import array
import base64
import binascii
import sys
from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.base import Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.classify import error_in_answer
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.dialects.openai_chat.quirks import placed, quirks_of
from trunkline_server.providers.dialects.openai_chat.usage import usage_of
from trunkline_server.providers.jsontext import dumps, present, unreadable
from trunkline_server.providers.options import with_options

#: Models whose vectors are something else than float32 when they are base64, by the beginning of their name.
_FORMS = (("pplx-embed", "b"),)


def encode_embeddings(
    spec: embedding_service_pb2.EmbeddingSpec,
    inputs: Sequence[embedding_service_pb2.EmbeddingInput],
    target: Target,
    notes: Notes,
) -> UpstreamRequest:
    """See `providers.base.EmbeddingDialect`."""
    quirks = quirks_of(target.capabilities)
    body: dict[str, Any] = {"model": target.model, "input": _inputs(inputs, target, notes)}
    if quirks.base64_vectors:
        body["encoding_format"] = "base64"
    if spec.HasField("dimensions"):
        body[quirks.dimensions] = spec.dimensions
    if spec.task in quirks.input_types:
        body["input_type"] = quirks.input_types[spec.task]
    elif spec.task:
        what = "has no word for this task" if quirks.input_types else "is not told what vectors are for"
        notes.dropped("task", f"{target.origin} {what}")
    if spec.end_user_id and quirks.user:
        # Only chat knows the newer name.
        body["user" if quirks.user == "safety_identifier" else quirks.user] = spec.end_user_id
    path = placed(quirks.embeddings_path, target.model)
    return UpstreamRequest(path, dumps(with_options(body, spec.provider_options_json, target)))


def _inputs(
    inputs: Sequence[embedding_service_pb2.EmbeddingInput], target: Target, notes: Notes
) -> list[str] | list[list[int]]:
    texts = [each.text for each in inputs if each.WhichOneof("input") == "text"]
    tokens = [list(each.token_ids.ids) for each in inputs if each.WhichOneof("input") == "token_ids"]
    if len(texts) + len(tokens) < len(inputs):
        notes.dropped("inputs", f"{target.origin} embeds text and token ids only")
    if texts and tokens:
        notes.dropped("inputs", f"{target.origin} takes texts or token ids, not both in one call")
    return texts or tokens


def decode_embeddings(body: bytes) -> Vectors:
    """See `providers.base.EmbeddingDialect`."""
    answer = wire.VECTORS.read(body)
    if present(answer.error):
        raise error_in_answer(body)
    if answer.data is None:
        raise unreadable(body)
    form = next((form for model, form in _FORMS if (answer.model or "").startswith(model)), "f")
    ordered = sorted(enumerate(answer.data), key=lambda each: each[0] if each[1].index is None else each[1].index)
    vectors = [_numbers(vector.embedding, form) for _, vector in ordered]
    return Vectors(vectors, answer.model or "", _usage(answer.usage))


def _usage(raw: Raw) -> completion_pb2.Usage | None:
    """Voyage counts the total only; all of it went in, for nothing is generated."""
    usage = usage_of(raw, completion_pb2.USAGE_SOURCE_REPORTED) if present(raw) else None
    if usage is not None and usage.HasField("total_tokens") and not usage.HasField("input_tokens"):
        usage.input_tokens = usage.total_tokens
    return usage


def _numbers(vector: list[float] | str, form: str) -> list[float]:
    if not isinstance(vector, str):
        return vector
    try:
        numbers: Any = array.array(form, base64.b64decode(vector, validate=True))
    except (binascii.Error, ValueError):
        raise LLMInvalidResponseError("the provider sent a vector that is no base64 of its numbers") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    values: list[float] = numbers.tolist()
    return values

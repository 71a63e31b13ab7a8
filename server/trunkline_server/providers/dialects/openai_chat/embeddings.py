"""Embeddings, as OpenAI shapes them."""

from __future__ import annotations

import array
import base64
import binascii
import sys
from collections.abc import Sequence
from typing import Any

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.base import Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.classify import error_of
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.dialects.openai_chat.quirks import quirks_of
from trunkline_server.providers.dialects.openai_chat.usage import usage_of
from trunkline_server.providers.facts import facts_of
from trunkline_server.providers.jsontext import dumps, loads, unreadable
from trunkline_server.providers.options import with_options


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
        body["dimensions"] = spec.dimensions
    if spec.task:
        notes.dropped("task", f"{target.origin} is not told what vectors are for")
    if spec.end_user_id and quirks.user:
        # Only chat knows the newer name.
        body["user" if quirks.user == "safety_identifier" else quirks.user] = spec.end_user_id
    return UpstreamRequest("/embeddings", dumps(with_options(body, spec.provider_options_json, target)))


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
    if wire.present(answer.error):
        raise error_of(facts_of(loads(body)), status=200, body=body)
    if answer.data is None:
        raise unreadable(body)
    usage = None
    if wire.present(answer.usage):
        usage = usage_of(answer.usage, completion_pb2.USAGE_SOURCE_REPORTED)
    ordered = sorted(enumerate(answer.data), key=lambda each: each[0] if each[1].index is None else each[1].index)
    return Vectors([_numbers(vector.embedding) for _, vector in ordered], answer.model or "", usage)


def _numbers(vector: list[float] | str) -> list[float]:
    if not isinstance(vector, str):
        return vector
    try:
        numbers = array.array("f", base64.b64decode(vector, validate=True))
    except (binascii.Error, ValueError):
        raise LLMInvalidResponseError("the provider sent a vector that is no base64 of float32") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()

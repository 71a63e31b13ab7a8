"""Embeddings and lists of models in OpenAI's shape."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from trunkline.v1 import embedding_service_pb2 as pb
from trunkline.v1 import message_pb2
from trunkline_server.errors import LLMInvalidResponseError, LLMServerError
from trunkline_server.providers.base import EmbeddingDialect, ListedModel, ListingDialect, Notes, Target
from trunkline_server.providers.compatible import ROWS
from trunkline_server.providers.dialects.openai_chat import OpenAIChat

DIALECT = OpenAIChat()


def text(words: str) -> pb.EmbeddingInput:
    return pb.EmbeddingInput(text=words)


def tokens(*ids: int) -> pb.EmbeddingInput:
    return pb.EmbeddingInput(token_ids=pb.TokenIds(ids=ids))


def asked(*inputs: pb.EmbeddingInput, kind: str = "openai", **fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The body, and the fields that were noted."""
    notes = Notes()
    target = Target(kind, kind, "embed-3", ROWS[kind].capabilities_of("embed-3"))
    request = DIALECT.encode_embeddings(pb.EmbeddingSpec(**fields), inputs, target, notes)
    assert request.path == "/embeddings"
    return json.loads(request.body), [path for _, path, _ in notes.unsupported]


def vectors(*data: Any, **more: Any) -> bytes:
    return json.dumps({"object": "list", "data": data, **more}).encode()


def test_the_dialect_embeds_and_lists():
    assert isinstance(DIALECT, EmbeddingDialect)
    assert isinstance(DIALECT, ListingDialect)


def test_texts_and_tokens_are_sent_as_lists():
    assert asked(text("a"), text("b"), dimensions=256, end_user_id="u") == (
        {"model": "embed-3", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 256, "user": "u"},
        [],
    )
    assert asked(tokens(1, 2), tokens(3), kind="ollama")[0] == {"model": "embed-3", "input": [[1, 2], [3]]}


def test_what_cannot_be_embedded_is_named():
    picture = pb.EmbeddingInput(media=message_pb2.Media(uri="https://example.org/a.png"))

    assert asked(text("a"), picture)[1] == ["inputs"]
    assert asked(text("a"), tokens(1))[1] == ["inputs"]
    assert asked(text("a"), task=pb.EMBEDDING_TASK_QUERY)[1] == ["task"]


def test_provider_options_are_merged_last():
    options = {"openai": '{"encoding_format": null, "extra": 1}'}

    assert asked(text("a"), provider_options_json=options)[0] == {"model": "embed-3", "input": ["a"], "extra": 1}


def test_vectors_come_back_in_the_order_of_the_inputs():
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    body = vectors(
        {"index": 1, "embedding": [1, 2.5]},
        {"index": 0, "embedding": packed},
        model="embed-3",
        usage={"prompt_tokens": 4, "total_tokens": 4},
    )

    found = DIALECT.decode_embeddings(body)

    assert found.vectors == [[0.5, -2.0], [1.0, 2.5]]
    assert found.model == "embed-3"
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.HasField("output_tokens")) == (4, False)


def test_a_total_is_all_input_where_nothing_else_is_counted():
    body = vectors({"index": 0, "embedding": [1]}, model="voyage-3.5", usage={"total_tokens": 12})

    usage = DIALECT.decode_embeddings(body).usage

    assert usage is not None
    assert (usage.input_tokens, usage.total_tokens, usage.raw_json) == (12, 12, '{"total_tokens": 12}')


def test_bytes_of_a_model_that_makes_small_numbers_are_those():
    packed = base64.b64encode(struct.pack("4b", -10, -58, 0, 127)).decode()

    found = DIALECT.decode_embeddings(vectors({"index": 0, "embedding": packed}, model="pplx-embed-v1-0.6b"))

    assert found.vectors == [[-10, -58, 0, 127]]


def test_perplexity_embeds_elsewhere_and_is_not_asked_for_floats():
    notes = Notes()
    target = Target("pplx", "perplexity", "pplx-embed-v1-0.6b", ROWS["perplexity"].capabilities_of("pplx-embed-v1"))

    request = DIALECT.encode_embeddings(pb.EmbeddingSpec(), [text("a")], target, notes)

    assert (request.path, json.loads(request.body)) == (
        "/v1/embeddings",
        {"model": "pplx-embed-v1-0.6b", "input": ["a"]},
    )
    assert target.capabilities.embeddings


def test_vectors_without_numbers_keep_their_order():
    assert DIALECT.decode_embeddings(vectors({"embedding": [1]}, {"embedding": [2]})).vectors == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", vectors({"embedding": {}}), vectors({"embedding": "!"}), vectors({"embedding": "YQ=="})]
)
def test_vectors_that_cannot_be_read_are_an_error(body):
    with pytest.raises(LLMInvalidResponseError):
        DIALECT.decode_embeddings(body)


def test_an_error_instead_of_vectors_is_an_error():
    with pytest.raises(LLMServerError, match="boom"):
        DIALECT.decode_embeddings(b'{"error": {"message": "boom"}}')


def test_models_are_listed_with_what_is_told_of_them():
    assert DIALECT.models_request().path == "/models"
    body = {
        "data": [
            {"id": "a", "created": 1767225600, "owned_by": "x"},
            {"id": "b", "name": "B", "context_length": 8192, "top_provider": {"max_completion_tokens": 4096}},
            {"id": "c", "context_window": 131072, "max_completion_tokens": 32768, "created": None},
            {"no": "id"},
        ]
    }

    assert DIALECT.decode_models(json.dumps(body).encode()) == [
        ListedModel("a", created=1767225600.0),
        ListedModel("b", display_name="B", context_window_tokens=8192, max_output_tokens=4096),
        ListedModel("c", context_window_tokens=131072, max_output_tokens=32768),
    ]


def test_models_are_listed_without_an_envelope_too():
    assert DIALECT.decode_models(b'[{"id": "a"}]') == [ListedModel("a")]
    assert DIALECT.decode_models(b'{"id": "a", "object": "model"}') == [ListedModel("a")]


@pytest.mark.parametrize("body", [b"", b"3", b"{}", b'{"data": 3}'])
def test_a_list_that_cannot_be_read_is_an_error(body):
    with pytest.raises(LLMInvalidResponseError):
        DIALECT.decode_models(body)

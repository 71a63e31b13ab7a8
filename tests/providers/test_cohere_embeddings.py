"""Cohere's vectors and models."""

from __future__ import annotations

import json

import pytest
from tests.providers.wires import Wire

from trunkline_server.errors import LLMInvalidResponseError, LLMServerError
from trunkline_server.providers import KINDS
from trunkline_server.providers.base import EmbeddingDialect, ListedModel, ListingDialect

WIRE = Wire("cohere", "embed-v4.0")


def test_the_dialect_embeds_and_lists():
    assert isinstance(WIRE.dialect, EmbeddingDialect)
    assert isinstance(WIRE.dialect, ListingDialect)
    assert WIRE.target().capabilities.embedding_batch == 96


def test_vectors_are_floats_and_cost_what_is_billed():
    body = {
        "id": "e1",
        "embeddings": {"float": [[0.5, -2.0], [1, 2]]},
        "texts": ["a", "b"],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7, "image_tokens": 3}},
    }

    found = WIRE.dialect.decode_embeddings(json.dumps(body).encode())

    assert found.vectors == [[0.5, -2.0], [1, 2]]
    assert (found.usage.input_tokens, found.usage.total_tokens, found.usage.input_image_tokens) == (7, 7, 3)
    assert json.loads(found.usage.raw_json) == {"input_tokens": 7, "image_tokens": 3}


@pytest.mark.parametrize("meta", [None, {}, {"billed_units": None}, {"billed_units": {"search_units": 1}}])
def test_vectors_without_a_count_have_no_usage(meta):
    body = json.dumps({"embeddings": [[1.0]], "meta": meta}).encode()

    found = WIRE.dialect.decode_embeddings(body)
    assert (found.vectors, found.usage) == ([[1.0]], None)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"embeddings":{"int8":[[1]]}}', b'{"embeddings":{"float":[1]}}'])
def test_vectors_that_cannot_be_read_are_an_error(body):
    with pytest.raises(LLMInvalidResponseError):
        WIRE.dialect.decode_embeddings(body)


def test_an_error_instead_of_vectors_is_one():
    with pytest.raises(LLMServerError, match="boom"):
        WIRE.dialect.decode_embeddings(b'{"id": "e", "message": "boom"}')


def test_models_are_listed_by_name():
    assert WIRE.dialect.models_request().path == "/v1/models?page_size=1000"
    body = {"models": [{"name": "command-x", "endpoints": ["chat"], "context_length": 128000}, {"id": "no name"}]}

    assert WIRE.dialect.decode_models(json.dumps(body).encode()) == [
        ListedModel("command-x", context_window_tokens=128000)
    ]
    assert WIRE.dialect.decode_models(b'{"name": "command-x", "endpoints": []}') == [ListedModel("command-x")]


@pytest.mark.parametrize(
    ("model", "thinks", "sees", "chooses"),
    [
        ("command-a-reasoning-08-2025", True, False, True),
        ("command-a-plus-05-2026", True, True, True),
        ("command-a-vision-07-2025", False, True, True),
        ("command-a-03-2025", False, False, True),
        ("command-r7b-12-2024", False, False, True),
        ("command-r-plus-08-2024", False, False, False),
        ("command-z-of-the-future", True, True, True),
    ],
)
def test_models_are_told_apart_by_name(model, thinks, sees, chooses):
    can = KINDS["cohere"].capabilities_of(model)

    assert (can.reasoning, can.images, can.tool_choice) == (thinks, sees, chooses)
    assert ("reasoning" in (can.params or ())) == thinks

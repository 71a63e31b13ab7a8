"""What the data says of a model is what its encoder does: docs/providers.md and ListModels tell it to users."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from tools.docs_providers import Kind

from tools import docs_providers
from trunkline.v1.completion_pb2 import CompletionSpec
from trunkline.v1.generation_pb2 import GenerationParams
from trunkline_server.providers.base import CountingDialect, EmbeddingDialect

KINDS = list(docs_providers.kinds())
SCHEMA = '{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}'

#: Parameters that a model does not take, whatever its provider does, where it lacks this.
FLAGS = {"reasoning": "reasoning", "logprobs": "logprobs", "top_logprobs": "logprobs", "n": "choices"}


def _tool(spec: CompletionSpec) -> None:
    function = spec.tools.add().function
    function.name, function.parameters_json_schema = "f", SCHEMA


def _parallel(spec: CompletionSpec) -> None:
    _tool(spec)
    spec.params.parallel_tool_calls = True


def _forced(spec: CompletionSpec) -> None:
    _tool(spec)
    spec.tool_choice.tool_name = "f"


def _schema(spec: CompletionSpec) -> None:
    spec.response_format.json_schema.json_schema = SCHEMA


def _media(kind: str, mime_type: str) -> Callable[[CompletionSpec], None]:
    def ask(spec: CompletionSpec) -> None:
        media = getattr(spec.messages[0].parts.add(), kind)
        media.data, media.mime_type = b"x", mime_type

    return ask


def _logprobs(spec: CompletionSpec) -> None:
    spec.params.logprobs = True


def _choices(spec: CompletionSpec) -> None:
    spec.params.n = 2


#: How a request asks for what a flag of Capabilities stands for.
ASKED: Mapping[str, Callable[[CompletionSpec], None]] = {
    "tools": _tool,
    "parallel_tools": _parallel,
    "tool_choice": _forced,
    "json_schema": _schema,
    "images": _media("image", "image/png"),
    "documents": _media("document", "application/pdf"),
    "audio": _media("audio", "audio/wav"),
    "logprobs": _logprobs,
    "choices": _choices,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("flag", ASKED)
def test_a_flag_says_what_the_encoder_takes(kind: Kind, flag: str):
    spec = docs_providers.asked()
    ASKED[flag](spec)

    wrong = {
        model: claimed
        for model in kind.models
        if (claimed := getattr(kind.capabilities(model), flag)) != docs_providers.takes(kind, model, spec)
    }
    assert wrong == {}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_parameters_of_a_model_are_those_that_the_encoder_takes(kind: Kind):
    names = [field.name for field in GenerationParams.DESCRIPTOR.fields]
    asked = {name: docs_providers.with_param(name) for name in names if name != "parallel_tool_calls"}

    for model in kind.models:
        capabilities = kind.capabilities(model)
        taken = {name for name, spec in asked.items() if docs_providers.takes(kind, model, spec)}
        known = taken if capabilities.params is None else capabilities.params & asked.keys()
        assert taken <= known, model
        assert not [name for name in known - taken if getattr(capabilities, FLAGS.get(name, "streaming"))], model


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_provider_counts_and_embeds_only_where_its_dialect_can(kind: Kind):
    for model in kind.models:
        dialect, capabilities = kind.dialect(model), kind.capabilities(model)
        assert not capabilities.token_count or isinstance(dialect, CountingDialect)
        assert not capabilities.embeddings or isinstance(dialect, EmbeddingDialect)

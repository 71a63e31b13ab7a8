"""Nothing that a caller asks for is passed over: every dialect sends it or says that it does not."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tools.docs_providers import Kind

from tools import docs_providers
from trunkline.v1.completion_pb2 import CompletionSpec
from trunkline.v1.generation_pb2 import GenerationParams
from trunkline_server.providers.base import Notes, UpstreamRequest

KINDS = list(docs_providers.kinds())
PARAMS = [field.name for field in GenerationParams.DESCRIPTOR.fields]
FUNCTION = "tools { function { name: 'f' } }"
#: Fields that ask for something at their own, and how. The others belong to these, or are not a dialect's to see.
ASKED = {
    "response_format": "response_format { json_schema { name: 'n' json_schema: '{}' } }",
    "end_user_id": "end_user_id: 'u'",
    "max_tool_calls": f"max_tool_calls: 2 {FUNCTION}",
    "previous_response_id": "previous_response_id: 'r'",
    "store": "store: true",
    "audio_output": "audio_output { voice: 'v' format: 'pcm16' }",
    "tool_choice": f"tool_choice {{ tool_name: 'f' }} {FUNCTION}",
    "strict_tools": f"strict_tools: true {FUNCTION}",
}


def encoded(kind: Kind, spec: CompletionSpec) -> tuple[UpstreamRequest, Notes]:
    model, notes = kind.models[0], Notes()
    return kind.dialect(model).encode(spec, kind.target(model), notes, stream=False), notes


def is_sent_or_spoken_of(kind: Kind, spec: CompletionSpec, path: str) -> bool:
    """Is the request another one than that without the field, or does a note name it, or the tools that it is about?"""
    without = docs_providers.asked()
    without.tools.extend(spec.tools)
    request, notes = encoded(kind, spec)
    named = [each for _, each, _ in (*notes.unsupported, *notes.foreign) if each.startswith((path, "tools"))]
    return bool(named) or request != encoded(kind, without)[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_parameter_is_sent_or_spoken_of(kind: Kind):
    asked = {name: docs_providers.with_param(name) for name in PARAMS}

    assert [name for name in PARAMS if not is_sent_or_spoken_of(kind, asked[name], f"params.{name}")] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_field_is_sent_or_spoken_of(kind: Kind):
    asked = {name: text_format.Parse(text, docs_providers.asked()) for name, text in ASKED.items()}

    assert [name for name in ASKED if not is_sent_or_spoken_of(kind, asked[name], name)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_dialect_knows_every_field_of_the_contract(kind: Kind):
    """Each is set by itself, at what it is when it says nothing."""
    for field in CompletionSpec.DESCRIPTOR.fields:
        spec = docs_providers.asked()
        if field.message_type is not None and not field.is_repeated:
            getattr(spec, field.name).SetInParent()
        elif field.has_presence:
            setattr(spec, field.name, field.default_value)

        assert encoded(kind, spec)[0].body, field.name

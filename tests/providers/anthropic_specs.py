"""Specs for Anthropic's dialect, in protobuf's text format, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import text_format

from trunkline.v1 import completion_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.claude import capabilities
from trunkline_server.providers.dialects.anthropic_messages import AnthropicMessages

DIALECT = AnthropicMessages()
USER = 'messages { role: ROLE_USER parts { text { text: "hello" } } }'
TOOLS = """
tools { function { name: "f" description: "does f" parameters_json_schema: '{"type":"object"}' strict: true } }
tools { function { name: "g" } cache_control { ttl: CACHE_TTL_1H } }
tools { provider { type: "web_search_20250305" config_json: '{"max_uses":2}' } cache_control {} }
"""


def spec_of(text: str) -> completion_pb2.CompletionSpec:
    """A spec in protobuf's text format, without its model."""
    return text_format.Parse(text, completion_pb2.CompletionSpec())


def target_of(model: str) -> Target:
    return Target(provider="anthropic-eu", origin="anthropic", model=model, capabilities=capabilities(model))


def encoded(text: str, model: str = "claude-sonnet-4-5", *, stream: bool = False) -> tuple[UpstreamRequest, Notes]:
    spec = spec_of(text)
    before = spec.SerializeToString(deterministic=True)
    notes = Notes()
    made = DIALECT.encode(spec, target_of(model), notes, stream=stream)
    assert spec.SerializeToString(deterministic=True) == before, "nothing of the caller's may change"
    return made, notes


def body_of(text: str, model: str = "claude-sonnet-4-5") -> dict[str, Any]:
    """The body of a request that says all that the spec says."""
    made, notes = encoded(text, model)
    assert notes.unsupported == []
    body: dict[str, Any] = json.loads(made.body)
    return body


def paths(notes: Notes) -> list[str]:
    return [f"{reason.removeprefix('PARAMETER_').lower()} {path}" for reason, path, _ in notes.unsupported]

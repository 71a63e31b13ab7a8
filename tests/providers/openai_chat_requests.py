"""Specs in short, and what is asked of a provider for them."""

from __future__ import annotations

import json
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers import DIALECTS, KINDS
from trunkline_server.providers.base import Notes, Target

Part = message_pb2.ContentPart
Media = message_pb2.Media
SYSTEM, DEVELOPER = message_pb2.ROLE_SYSTEM, message_pb2.ROLE_DEVELOPER
USER, ASSISTANT, TOOL = message_pb2.ROLE_USER, message_pb2.ROLE_ASSISTANT, message_pb2.ROLE_TOOL

SCHEMA = '{"type":"object", "properties":{"b":{"type":"string"} , "a":{"type":"integer"}}, "required":["b"]}'


def text(words: str, **more: Any) -> Part:
    return Part(text=message_pb2.Text(text=words), **more)


def call(call_id: str = "c1", name: str = "f", arguments: str = '{"a": 1}', **more: Any) -> Part:
    return Part(tool_call=message_pb2.ToolCall(id=call_id, name=name, arguments_json=arguments), **more)


def result(*parts: Part, call_id: str = "c1", **more: Any) -> Part:
    return Part(tool_result=message_pb2.ToolResult(tool_call_id=call_id, parts=parts, **more))


def spec_of(*turns: tuple[Any, list[Part]], **fields: Any) -> completion_pb2.CompletionSpec:
    messages = [message_pb2.Message(role=role, parts=parts) for role, parts in turns]
    return completion_pb2.CompletionSpec(
        messages=messages or [message_pb2.Message(role=USER, parts=[text("hi")])], **fields
    )


def function(name: str = "f", schema: str = SCHEMA, **more: Any) -> completion_pb2.Tool:
    return completion_pb2.Tool(function=completion_pb2.FunctionTool(name=name, parameters_json_schema=schema, **more))


class Asked:
    """A request, and what was noted on the way."""

    def __init__(self, spec: completion_pb2.CompletionSpec, kind: str, model: str, *, stream: bool, name: str) -> None:
        before = spec.SerializeToString(deterministic=True)
        notes = Notes()
        row = KINDS[kind]
        target = Target(name or kind, kind, model, row.capabilities_of(model))
        dialect = DIALECTS[row.tongue_of(model).dialect]()
        request = dialect.encode(spec, target, notes, stream=stream)
        assert spec.SerializeToString(deterministic=True) == before
        self.path, self.raw = request.path, request.body.decode()
        self.body: dict[str, Any] = json.loads(request.body)
        self.unsupported = {path: reason for reason, path, _ in notes.unsupported}
        self.warned = {path: reason for reason, path, _ in notes.foreign}

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body["messages"]
        return found


def asked(
    spec: completion_pb2.CompletionSpec,
    kind: str = "openai",
    model: str = "gpt-4.1",
    *,
    stream: bool = False,
    name: str = "",
) -> Asked:
    return Asked(spec, kind, model, stream=stream, name=name)

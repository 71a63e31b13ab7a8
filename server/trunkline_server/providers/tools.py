"""Tools, their arguments and the shape of an answer, as several APIs write them."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.jsontext import embed, loads, try_loads
from trunkline_server.providers.schemas import arguments_with_reasoning, parameters_of


def function_of(function: completion_pb2.FunctionTool, spec: completion_pb2.CompletionSpec) -> dict[str, Any]:
    """A function's declaration, its schema byte for byte unless the spec asks for more."""
    made: dict[str, Any] = {"name": function.name}
    if function.description:
        made["description"] = function.description
    made["parameters"] = embed(parameters_of(function, spec))
    if spec.HasField("strict_tools") or function.HasField("strict"):
        made["strict"] = spec.strict_tools if spec.HasField("strict_tools") else function.strict
    return made


def provider_tool_of(tool: completion_pb2.ProviderTool) -> dict[str, Any]:
    """A tool that the provider runs."""
    config = loads(tool.config_json) if tool.config_json else {}
    return {"type": tool.type, **config}


def schema_of(asked: completion_pb2.JsonSchemaFormat) -> dict[str, Any]:
    """A schema for the answer, with its name."""
    made: dict[str, Any] = {"name": asked.name or "response"}
    if asked.description:
        made["description"] = asked.description
    made["schema"] = embed(asked.json_schema)
    if asked.HasField("strict"):
        made["strict"] = asked.strict
    return made


def parallel_of(spec: completion_pb2.CompletionSpec) -> bool | None:
    """May several tools be called at once? None: the spec does not say."""
    if spec.max_tool_calls == 1:
        return False
    return spec.params.parallel_tool_calls if spec.params.HasField("parallel_tool_calls") else None


def no_limit_of_calls(spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
    """Notes a limit of the calls in an answer, for a target that takes none."""
    if parallel_of(spec) is False:
        path = "max_tool_calls" if spec.max_tool_calls == 1 else "params.parallel_tool_calls"
        notes.dropped(path, f"{target.origin} cannot be told to call one tool at a time")
    elif spec.max_tool_calls > 1:
        notes.dropped("max_tool_calls", f"{target.origin} takes no number of calls")


def arguments_of(call: message_pb2.ToolCall, spec: completion_pb2.CompletionSpec) -> str:
    """The arguments of an earlier call as they go back: with the injected one, where the schemas have it."""
    arguments = call.arguments_json if call.arguments_json.strip() else "{}"
    if call.HasField("reasoning") and spec.HasField("reasoning_argument"):
        return arguments_with_reasoning(arguments, call.reasoning, spec.reasoning_argument)
    return arguments


def arguments_object(call: message_pb2.ToolCall, spec: completion_pb2.CompletionSpec, path: str, notes: Notes) -> Any:
    """The same for an API that takes arguments only as a JSON object: a text that is none is sent inside of one."""
    if isinstance(try_loads(call.arguments_json.strip() or "{}"), dict):
        return Raw(arguments_of(call, spec).encode())
    notes.altered(
        f"{path}.tool_call.arguments_json",
        "arguments go only as a JSON object; the text is sent as its member `malformed_arguments`",
    )
    return {"malformed_arguments": call.arguments_json}

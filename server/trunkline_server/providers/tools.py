"""Tools, their arguments and the shape of an answer, as several APIs write them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes
from trunkline_server.providers.drafts import Draft
from trunkline_server.providers.jsontext import embed, loads, try_loads
from trunkline_server.providers.schemas import arguments_with_reasoning, parameters_of
from trunkline_server.providers.vocabulary import TOOL_MODES

# -- declarations -----------------------------------------------------------------------------------------------------


def takes_tools(draft: Draft) -> bool:
    """Does the target take tools? If not, it is noted."""
    can = draft.target.capabilities.tools
    if not can:
        draft.dropped("tools", f"{draft.target.model!r} at {draft.target.origin} takes no tools")
    return can


def offered(
    spec: completion_pb2.CompletionSpec, only: Collection[str] | None
) -> Iterator[tuple[int, completion_pb2.Tool]]:
    """The tools by their index, without the functions that are not among `only`."""
    for index, tool in enumerate(spec.tools):
        if only is None or tool.WhichOneof("kind") != "function" or tool.function.name in only:
            yield index, tool


def allowed_by(choice: completion_pb2.ToolChoice) -> frozenset[str] | None:
    """The names of the tools that the model may call; None: of all."""
    return frozenset(choice.allowed.tool_names) if choice.WhichOneof("choice") == "allowed" else None


def described(function: completion_pb2.FunctionTool) -> dict[str, Any]:
    """The beginning of a function's declaration."""
    made: dict[str, Any] = {"name": function.name}
    if function.description:
        made["description"] = function.description
    return made


def is_strict(function: completion_pb2.FunctionTool, spec: completion_pb2.CompletionSpec) -> bool:
    """Is the model to be held to the function's schema?"""
    return spec.strict_tools if spec.HasField("strict_tools") else function.strict


def function_of(function: completion_pb2.FunctionTool, spec: completion_pb2.CompletionSpec) -> dict[str, Any]:
    """A function's declaration, its schema byte for byte unless the spec asks for more."""
    made = described(function)
    made["parameters"] = embed(parameters_of(function, spec))
    if spec.HasField("strict_tools") or function.HasField("strict"):
        made["strict"] = is_strict(function, spec)
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


def no_parallel(draft: Draft) -> None:
    """Notes that calls are to come one at a time, for a target that cannot be told so."""
    if parallel_of(draft.spec) is False:
        path = "max_tool_calls" if draft.spec.max_tool_calls == 1 else "params.parallel_tool_calls"
        draft.dropped(path, f"{draft.target.model} cannot be told to call one tool at a time")


def no_number(draft: Draft) -> None:
    """Notes a number of calls, for a target that takes none but one."""
    if draft.spec.max_tool_calls > 1:
        draft.dropped("max_tool_calls", f"{draft.target.origin} takes no number of calls")


# -- as OpenAI's APIs, and others after them, write them --------------------------------------------------------------


def write_tools(
    draft: Draft,
    tool: Callable[[completion_pb2.Tool], Any],
    named: Callable[[str], Any],
    allowed: Callable[[str, list[Any]], Any] | None,
) -> None:
    """Writes `tools`, `tool_choice` and `parallel_tool_calls`.

    `tool` makes a declaration; `named` is how a choice names a tool, and `allowed` how it allows some, with a word for
    what the model may do with them. Without the latter the other functions are left out.
    """
    if not takes_tools(draft):
        return
    spec = draft.spec
    choice = spec.tool_choice
    only = allowed_by(choice)
    draft.body["tools"] = [tool(each) for _, each in offered(spec, only if allowed is None else None)]
    mode = TOOL_MODES.get(choice.mode if only is None else choice.allowed.mode, "" if only is None else "auto")
    if choice.WhichOneof("choice") == "tool_name":
        choose(draft, named(choice.tool_name))
    elif only is not None and allowed is not None:
        choose(draft, allowed(mode, [named(name) for name in choice.allowed.tool_names]))
    elif mode:
        choose(draft, mode)
    parallel, params = parallel_of(spec), draft.target.capabilities.params
    if params is not None and "parallel_tool_calls" not in params:
        no_parallel(draft)
    elif parallel is not None:
        draft.body["parallel_tool_calls"] = parallel


def choose(draft: Draft, value: Any, none: str = "none") -> None:
    """Writes `tool_choice` for a target that can be told; for others, no tools are what `none` means."""
    if value == "auto" or draft.target.capabilities.tool_choice:
        draft.body["tool_choice"] = value
    elif value == none:
        del draft.body["tools"]
    else:
        draft.dropped("tool_choice", f"{draft.target.model!r} at {draft.target.origin} chooses by itself")


def format_of(draft: Draft, asked: completion_pb2.ResponseFormat) -> str:
    """The kind of format for the answer. A schema is any JSON object for a target that takes none."""
    kind = asked.WhichOneof("format") or ""
    if kind == "json_schema" and not draft.target.capabilities.json_schema:
        origin = draft.target.origin
        draft.notes.altered("response_format.json_schema", f"{origin} takes no schema: asked for any JSON object")
        return "json_object"
    return kind


# -- arguments --------------------------------------------------------------------------------------------------------


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

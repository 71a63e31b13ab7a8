"""Encodes a spec into the body of a chat request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.cohere_chat.messages import Messages
from trunkline_server.providers.jsontext import dumps, embed
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import stateless_text, taken
from trunkline_server.providers.tools import function_of, no_limit_of_calls, provider_tool_of

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

#: Parameters that are numbers, text or lists of text, with their names on the wire.
_PLAIN = {
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "logprobs": "logprobs",
}

#: Where the parameters that Cohere may blame come from in a spec.
FIELDS: Mapping[str, str] = {
    "messages": "messages",
    "documents": "messages",
    "model": "model",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "strict_tools": "strict_tools",
    "response_format": "response_format",
    "thinking": "params.reasoning",
    "stop_sequences": "params.stop_sequences",
    "texts": "inputs",
    "images": "inputs",
    "inputs": "inputs",
    "input_type": "task",
    "output_dimension": "dimensions",
    **{wire: f"params.{name}" for name, wire in _PLAIN.items()},
}

#: Tokens to think with for an effort. More than these is as much as the model likes, which is its default.
_BUDGETS: Mapping[int, int] = {
    generation_pb2.REASONING_EFFORT_MINIMAL: 512,
    generation_pb2.REASONING_EFFORT_LOW: 1024,
    generation_pb2.REASONING_EFFORT_MEDIUM: 8192,
}

#: AUTO is what happens without a word.
_TOOL_MODES: Mapping[int, str] = {
    completion_pb2.TOOL_CHOICE_MODE_NONE: "NONE",
    completion_pb2.TOOL_CHOICE_MODE_REQUIRED: "REQUIRED",
}


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """See `providers.base.Dialect.encode`."""
    messages = Messages(spec, target, notes)
    body: Body = {"model": target.model, "messages": messages.encode()}
    if messages.documents:
        body["documents"] = messages.documents
    if spec.tools:
        _tools(spec, target, notes, body)
    if spec.HasField("response_format"):
        _format(spec.response_format, target, notes, body)
    for name, value in taken(spec.params, target, notes, {}):
        if name in _PLAIN:
            body[_PLAIN[name]] = value
        else:
            _SPECIAL[name](value, target, notes, body)
    stateless_text(spec, target, notes)
    if stream:
        body["stream"] = True
    return UpstreamRequest("/v2/chat", dumps(with_options(body, spec.provider_options_json, target)))


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(spec: CompletionSpec, target: Target, notes: Notes, body: Body) -> None:
    if not target.capabilities.tools:
        notes.dropped("tools", f"{target.model!r} at {target.origin} takes no tools")
        return
    only, mode = _choice(spec.tool_choice)
    _declare(spec, only, target, notes, body)
    if mode and target.capabilities.tool_choice:
        body["tool_choice"] = mode
    elif mode == "NONE":
        # No tools are what it means.
        del body["tools"]
        body.pop("strict_tools", None)
    elif mode:
        notes.dropped("tool_choice", f"{target.model!r} at {target.origin} chooses by itself")
    no_limit_of_calls(spec, target, notes)


def _declare(spec: CompletionSpec, only: set[str] | None, target: Target, notes: Notes, body: Body) -> None:
    """The tools that are left, and whether the model is held to their schemas."""
    made: list[Body] = []
    strict: dict[str, bool] = {}
    for index, tool in enumerate(spec.tools):
        if tool.WhichOneof("kind") == "provider":
            made.append(provider_tool_of(tool.provider))
        elif only is None or tool.function.name in only:
            function = function_of(tool.function, spec)
            strict[f"tools[{index}].function.strict"] = bool(function.pop("strict", False))
            made.append({"type": "function", "function": function})
    body["tools"] = made
    if any(strict.values()):
        body["strict_tools"] = True
        for path, wanted in strict.items():
            if not wanted:
                notes.remark(path, f"{target.origin} holds the model to all schemas or to none")


def _choice(choice: completion_pb2.ToolChoice) -> tuple[set[str] | None, str]:
    """The names of the functions that are left (None: all), and the word for what the model may do with them."""
    chosen = choice.WhichOneof("choice")
    if chosen == "tool_name":
        return {choice.tool_name}, "REQUIRED"
    if chosen == "allowed":
        return set(choice.allowed.tool_names), _TOOL_MODES.get(choice.allowed.mode, "")
    return None, _TOOL_MODES.get(choice.mode, "")


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(asked: completion_pb2.ResponseFormat, target: Target, notes: Notes, body: Body) -> None:
    kind = asked.WhichOneof("format")
    if kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        body["response_format"] = {"type": "json_object", "json_schema": embed(asked.json_schema.json_schema)}
    elif kind == "grammar":
        notes.dropped("response_format.grammar", f"{target.origin} follows no grammars")


# -- parameters -------------------------------------------------------------------------------------------------------


def _stop(value: Any, target: Target, notes: Notes, body: Body) -> None:
    body["stop_sequences"] = list(value)


def _reasoning(value: generation_pb2.ReasoningConfig, target: Target, notes: Notes, body: Body) -> None:
    thinking: Body = {}
    if value.HasField("budget_tokens"):
        if value.effort:
            notes.dropped("params.reasoning.effort", f"{target.origin} takes budget_tokens or effort, not both")
        thinking = {"type": "enabled", "token_budget": value.budget_tokens} if value.budget_tokens else _OFF
    elif value.effort == generation_pb2.REASONING_EFFORT_NONE:
        thinking = _OFF
    elif value.effort:
        budget = _BUDGETS.get(value.effort)
        thinking = {"type": "enabled"} if budget is None else {"type": "enabled", "token_budget": budget}
    if thinking:
        body["thinking"] = thinking
    if value.HasField("include") and not value.include:
        notes.dropped("params.reasoning.include", f"{target.origin} cannot be told to keep its thoughts")


_OFF: Body = {"type": "disabled"}

_SPECIAL: Mapping[str, Callable[[Any, Target, Notes, Body], None]] = {
    "stop_sequences": _stop,
    "reasoning": _reasoning,
}

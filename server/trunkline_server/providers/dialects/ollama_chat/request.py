"""Encodes a spec into the body of a chat request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.ollama_chat.messages import Messages
from trunkline_server.providers.jsontext import dumps, embed
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import no_budget, stateless_text, taken
from trunkline_server.providers.tools import function_of, no_limit_of_calls, provider_tool_of
from trunkline_server.providers.vocabulary import EFFORTS

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

#: Key of `Capabilities.quirks` for the words that a model has for how much it thinks. The others only do or do not.
LEVELS = "think_levels"

#: Parameters that are members of `options`, with their names there.
_OPTIONS = {
    "max_output_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repeat_penalty",
    "seed": "seed",
}

#: Where the parameters that Ollama may blame come from in a spec.
FIELDS: Mapping[str, str] = {
    "messages": "messages",
    "model": "model",
    "tools": "tools",
    "format": "response_format",
    "think": "params.reasoning",
    "input": "inputs",
    "dimensions": "dimensions",
}


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """See `providers.base.Dialect.encode`."""
    # It streams unless it is told not to.
    body: Body = {"model": target.model, "messages": Messages(spec, target, notes).encode(), "stream": stream}
    if spec.tools:
        _tools(spec, target, notes, body)
    if spec.HasField("response_format"):
        _format(spec.response_format, target, notes, body)
    for name, value in taken(spec.params, target, notes, {}):
        if name in _OPTIONS:
            body.setdefault("options", {})[_OPTIONS[name]] = value
        else:
            _SPECIAL[name](value, target, notes, body)
    stateless_text(spec, target, notes)
    return UpstreamRequest("/api/chat", dumps(with_options(body, spec.provider_options_json, target)))


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(spec: CompletionSpec, target: Target, notes: Notes, body: Body) -> None:
    if not target.capabilities.tools:
        notes.dropped("tools", f"{target.model!r} at {target.origin} takes no tools")
        return
    chosen = spec.tool_choice.WhichOneof("choice")
    only = set(spec.tool_choice.allowed.tool_names) if chosen == "allowed" else None
    mode = spec.tool_choice.allowed.mode if chosen == "allowed" else spec.tool_choice.mode
    if chosen == "tool_name" or mode == completion_pb2.TOOL_CHOICE_MODE_REQUIRED:
        notes.dropped("tool_choice", f"{target.origin} leaves it to the model whether to call a tool")
    # No tools are what "none" means.
    if mode != completion_pb2.TOOL_CHOICE_MODE_NONE:
        body["tools"] = [
            _tool(tool, spec, f"tools[{index}]", target, notes)
            for index, tool in enumerate(spec.tools)
            if only is None or tool.WhichOneof("kind") != "function" or tool.function.name in only
        ]
    no_limit_of_calls(spec, target, notes)


def _tool(tool: completion_pb2.Tool, spec: CompletionSpec, path: str, target: Target, notes: Notes) -> Body:
    if tool.WhichOneof("kind") == "provider":
        return provider_tool_of(tool.provider)
    function = function_of(tool.function, spec)
    if function.pop("strict", False):
        asked = f"{path}.function.strict" if tool.function.strict else "strict_tools"
        notes.remark(asked, f"{target.origin} does not hold the model to schemas of tools")
    return {"type": "function", "function": function}


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(asked: completion_pb2.ResponseFormat, target: Target, notes: Notes, body: Body) -> None:
    kind = asked.WhichOneof("format")
    if kind == "json_object":
        body["format"] = "json"
    elif kind == "json_schema":
        body["format"] = embed(asked.json_schema.json_schema)
    elif kind == "grammar":
        notes.dropped("response_format.grammar", f"{target.origin} follows no grammars")


# -- parameters -------------------------------------------------------------------------------------------------------


def _stop(value: Any, target: Target, notes: Notes, body: Body) -> None:
    body.setdefault("options", {})["stop"] = list(value)


def _logprobs(value: bool, target: Target, notes: Notes, body: Body) -> None:
    if value:
        body["logprobs"] = True


def _top_logprobs(value: int, target: Target, notes: Notes, body: Body) -> None:
    body.update(logprobs=True, top_logprobs=value)


def _reasoning(value: generation_pb2.ReasoningConfig, target: Target, notes: Notes, body: Body) -> None:
    """`think`: whether, or a word for how much where the model has words. Asking for thoughts is asking to think."""
    no_budget(value, target, notes)
    word = EFFORTS.get(value.effort, "")
    levels: Any = target.capabilities.quirks.get(LEVELS, ())
    if word == "none":
        body["think"] = False
    elif word and levels:
        level = word if word in levels else levels[0] if word == "minimal" else levels[-1]
        if level != word:
            notes.altered("params.reasoning.effort", f"sent as {level!r}: {target.model!r} has no such effort")
        body["think"] = level
    elif word:
        notes.remark("params.reasoning.effort", f"{target.model!r} thinks or does not: there is no more and less")
        body["think"] = True
    elif value.include:
        body["think"] = True
    if value.HasField("include") and not value.include and word not in ("", "none"):
        notes.dropped("params.reasoning.include", f"{target.origin} cannot be told to keep its thoughts")
    elif value.HasField("include") and not value.include and not word:
        notes.remark("params.reasoning.include", f"{target.origin} returns what the model thinks, if it does")


_SPECIAL: Mapping[str, Callable[[Any, Target, Notes, Body], None]] = {
    "stop_sequences": _stop,
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
    "reasoning": _reasoning,
}

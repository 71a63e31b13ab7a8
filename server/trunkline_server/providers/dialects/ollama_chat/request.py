"""Encodes a spec into the body of a chat request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.ollama_chat.messages import Messages
from trunkline_server.providers.drafts import USUAL, Draft, Fields, fill
from trunkline_server.providers.jsontext import dumps, embed
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import no_budget, write
from trunkline_server.providers.tools import (
    allowed_by,
    function_of,
    no_number,
    no_parallel,
    offered,
    provider_tool_of,
    takes_tools,
)
from trunkline_server.providers.vocabulary import EFFORTS

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

#: Key of `Capabilities.quirks` for the words that a model has for how much it thinks. The others only do or do not.
LEVELS = "think_levels"
_NO_LEVELS: tuple[str, ...] = ()

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
    "stop_sequences": "stop",
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
    fill(Draft(spec, target, notes, body), _FIELDS)
    return UpstreamRequest("/api/chat", dumps(with_options(body, spec.provider_options_json, target)))


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: object) -> None:
    if not takes_tools(draft):
        return
    choice = draft.spec.tool_choice
    only = allowed_by(choice)
    mode = choice.mode if only is None else choice.allowed.mode
    if choice.HasField("tool_name") or mode == completion_pb2.TOOL_CHOICE_MODE_REQUIRED:
        draft.dropped("tool_choice", f"{draft.target.origin} leaves it to the model whether to call a tool")
    # No tools are what "none" means.
    if mode != completion_pb2.TOOL_CHOICE_MODE_NONE:
        draft.body["tools"] = [_tool(tool, f"tools[{index}]", draft) for index, tool in offered(draft.spec, only)]
    no_parallel(draft)
    no_number(draft)


def _tool(tool: completion_pb2.Tool, path: str, draft: Draft) -> Body:
    if tool.WhichOneof("kind") == "provider":
        return provider_tool_of(tool.provider)
    function = function_of(tool.function, draft.spec)
    if function.pop("strict", False):
        asked = f"{path}.function.strict" if tool.function.strict else "strict_tools"
        draft.notes.remark(asked, f"{draft.target.origin} does not hold the model to schemas of tools")
    return {"type": "function", "function": function}


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(draft: Draft, asked: completion_pb2.ResponseFormat) -> None:
    kind = asked.WhichOneof("format")
    if kind == "json_object":
        draft.body["format"] = "json"
    elif kind == "json_schema":
        draft.body["format"] = embed(asked.json_schema.json_schema)
    elif kind == "grammar":
        draft.dropped("response_format.grammar", f"{draft.target.origin} follows no grammars")


# -- parameters -------------------------------------------------------------------------------------------------------


def _params(draft: Draft, value: object) -> None:
    options: Body = {}
    write(draft, options, _OPTIONS, _SPECIAL)
    if options:
        draft.body["options"] = options


def _logprobs(draft: Draft, value: bool) -> None:
    if value:
        draft.body["logprobs"] = True


def _top_logprobs(draft: Draft, value: int) -> None:
    draft.body.update(logprobs=True, top_logprobs=value)


def _reasoning(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    """`think`: whether, or a word for how much where the model has words. Asking for thoughts is asking to think."""
    target, notes, body = draft.target, draft.notes, draft.body
    no_budget(value, target, notes)
    word = EFFORTS.get(value.effort, "")
    levels = target.capabilities.quirk(LEVELS, _NO_LEVELS)
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


_SPECIAL: Fields[Draft] = {"logprobs": _logprobs, "top_logprobs": _top_logprobs, "reasoning": _reasoning}
_FIELDS: Fields[Draft] = {**USUAL, "tools": _tools, "response_format": _format, "params": _params}

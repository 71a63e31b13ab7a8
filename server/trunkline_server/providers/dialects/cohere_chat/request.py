"""Encodes a spec into the body of a chat request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.cohere_chat.messages import Messages
from trunkline_server.providers.drafts import USUAL, Draft, Fields, fill
from trunkline_server.providers.jsontext import dumps, embed
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import shown_anyway, write
from trunkline_server.providers.tools import (
    allowed_by,
    choose,
    function_of,
    no_number,
    no_parallel,
    offered,
    provider_tool_of,
    takes_tools,
)

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

#: Parameters that are sent as they are, with their names on the wire.
_PLAIN = {
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop_sequences": "stop_sequences",
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
    fill(Draft(spec, target, notes, body), _FIELDS)
    if stream:
        body["stream"] = True
    return UpstreamRequest("/v2/chat", dumps(with_options(body, spec.provider_options_json, target)))


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: object) -> None:
    if not takes_tools(draft):
        return
    only, mode = _choice(draft.spec.tool_choice)
    _declare(draft, only)
    if mode:
        choose(draft, mode, none="NONE")
    if "tools" not in draft.body:
        draft.body.pop("strict_tools", None)
    no_parallel(draft)
    no_number(draft)


def _declare(draft: Draft, only: Collection[str] | None) -> None:
    """The tools that are left, and whether the model is held to their schemas."""
    made: list[Body] = []
    strict: dict[str, bool] = {}
    for index, tool in offered(draft.spec, only):
        if tool.WhichOneof("kind") == "provider":
            made.append(provider_tool_of(tool.provider))
        else:
            function = function_of(tool.function, draft.spec)
            strict[f"tools[{index}].function.strict"] = bool(function.pop("strict", False))
            made.append({"type": "function", "function": function})
    draft.body["tools"] = made
    if any(strict.values()):
        draft.body["strict_tools"] = True
        for path, wanted in strict.items():
            if not wanted:
                draft.notes.remark(path, f"{draft.target.origin} holds the model to all schemas or to none")


def _choice(choice: completion_pb2.ToolChoice) -> tuple[Collection[str] | None, str]:
    """The names of the functions that are left (None: all), and the word for what the model may do with them."""
    if choice.WhichOneof("choice") == "tool_name":
        return {choice.tool_name}, "REQUIRED"
    only = allowed_by(choice)
    return only, _TOOL_MODES.get(choice.mode if only is None else choice.allowed.mode, "")


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(draft: Draft, asked: completion_pb2.ResponseFormat) -> None:
    kind = asked.WhichOneof("format")
    if kind == "json_object":
        draft.body["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        draft.body["response_format"] = {"type": "json_object", "json_schema": embed(asked.json_schema.json_schema)}
    elif kind == "grammar":
        draft.dropped("response_format.grammar", f"{draft.target.origin} follows no grammars")


# -- parameters -------------------------------------------------------------------------------------------------------


def _params(draft: Draft, value: object) -> None:
    write(draft, draft.body, _PLAIN, {"reasoning": _reasoning})


def _reasoning(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    thinking: Body = {}
    if value.HasField("budget_tokens"):
        if value.effort:
            draft.dropped("params.reasoning.effort", f"{draft.target.origin} takes budget_tokens or effort, not both")
        thinking = {"type": "enabled", "token_budget": value.budget_tokens} if value.budget_tokens else _OFF
    elif value.effort == generation_pb2.REASONING_EFFORT_NONE:
        thinking = _OFF
    elif value.effort:
        budget = _BUDGETS.get(value.effort)
        thinking = {"type": "enabled"} if budget is None else {"type": "enabled", "token_budget": budget}
    if thinking:
        draft.body["thinking"] = thinking
    shown_anyway(value, True, draft.target, draft.notes)


_OFF: Body = {"type": "disabled"}

_FIELDS: Fields[Draft] = {**USUAL, "tools": _tools, "response_format": _format, "params": _params}

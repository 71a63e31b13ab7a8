"""Encodes a spec into the body of a response, or of a question how many tokens it would read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers import drafts
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.openai_responses.input import Conversation, custom_name_of
from trunkline_server.providers.dialects.openai_responses.quirks import Quirks, quirks_of
from trunkline_server.providers.jsontext import dumps, try_loads
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import effort_of, no_budget, shown_anyway, write
from trunkline_server.providers.tools import (
    format_of,
    function_of,
    no_number,
    provider_tool_of,
    schema_of,
    write_tools,
)
from trunkline_server.providers.vocabulary import VERBOSITIES

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

_SEALED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"

#: What counts when tokens are counted.
_COUNTED = frozenset(
    [
        "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning",
        "previous_response_id", "conversation", "truncation",
    ]
)  # fmt: skip


@dataclass(slots=True)
class Draft(drafts.Draft):
    quirks: Quirks


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """See `providers.base.Dialect.encode`."""
    body = _body(spec, target, notes)
    if stream or quirks_of(target.capabilities).streams_only:
        body["stream"] = True
    return UpstreamRequest("/responses", dumps(_completed(body, spec, target)))


def encode_count(spec: CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """See `providers.base.CountingDialect.encode_count`."""
    body = _completed(_body(spec, target, notes), spec, target)
    counted = {name: value for name, value in body.items() if name in _COUNTED}
    return UpstreamRequest("/responses/input_tokens", dumps(counted))


def _completed(body: Body, spec: CompletionSpec, target: Target) -> Body:
    """The body with the caller's own options. What they include is included besides what is needed anyway."""
    needed = body.get("include", [])
    body = with_options(body, spec.provider_options_json, target)
    include = body.get("include", [])
    if needed and isinstance(include, list):
        body["include"] = list(dict.fromkeys([*needed, *include]))
    return body


def _body(spec: CompletionSpec, target: Target, notes: Notes) -> Body:
    quirks = quirks_of(target.capabilities)
    conversation = Conversation(spec, target, quirks, notes)
    conversation.read()
    body: Body = {"model": target.model}
    if conversation.instructions is not None:
        body["instructions"] = conversation.instructions
    body["input"] = conversation.items
    if quirks.keeps == "never":
        body["store"] = False
    drafts.fill(Draft(spec, target, notes, body, quirks), _FIELDS)
    if _wants_seal(spec, target, quirks, conversation):
        body.setdefault("include", []).append(_SEALED)
    return body


def _wants_seal(spec: CompletionSpec, target: Target, quirks: Quirks, conversation: Conversation) -> bool:
    """Are thoughts needed sealed? They are where nothing is kept, and where the conversation has sealed ones before.

    Models that do not think refuse to be asked; a caller who sets how much to think knows that this one does.
    """
    if not quirks.sealed or not (target.capabilities.reasoning or spec.params.HasField("reasoning")):
        return False
    return conversation.sealed or quirks.keeps == "never" or (spec.HasField("store") and not spec.store)


def _user(draft: Draft, value: str) -> None:
    if not draft.quirks.user:
        drafts.no_user(draft, value)
    elif value:
        draft.body[draft.quirks.user] = value


def _store(draft: Draft, value: bool) -> None:
    if draft.quirks.keeps == "never":
        drafts.not_stored(draft, value)
    else:
        draft.body["store"] = value


def _goes_on(draft: Draft, value: str) -> None:
    if draft.quirks.keeps == "never":
        drafts.no_response(draft, value)
    else:
        draft.body["previous_response_id"] = value


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: object) -> None:
    spec = draft.spec
    allowed = _allowed if draft.quirks.allowed_tools else None
    write_tools(draft, lambda tool: _tool(tool, spec), lambda name: _named(name, spec), allowed)
    # The provider's own tools take a limit; of the caller's, one call at a time is all that can be asked.
    own = any(tool.WhichOneof("kind") == "provider" for tool in spec.tools)
    if not (own and draft.quirks.max_tool_calls):
        no_number(draft)
    elif spec.HasField("max_tool_calls") and "tools" in draft.body:
        draft.body["max_tool_calls"] = spec.max_tool_calls


def _tool(tool: completion_pb2.Tool, spec: CompletionSpec) -> Body:
    if tool.WhichOneof("kind") == "provider":
        return provider_tool_of(tool.provider)
    return {"type": "function", **function_of(tool.function, spec)}


def _allowed(mode: str, tools: list[Any]) -> Body:
    return {"type": "allowed_tools", "mode": mode, "tools": tools}


def _named(name: str, spec: CompletionSpec) -> Body:
    """How a tool is named in a choice: functions by their name, the provider's own tools by their type."""
    for tool in spec.tools:
        if tool.WhichOneof("kind") == "function":
            if tool.function.name == name:
                break
        elif custom_name_of(tool) == name:
            return {"type": "custom", "name": name}
        elif tool.provider.type == name:
            return {"type": name}
        elif tool.provider.type == "mcp" and _label(tool.provider) == name:
            return {"type": "mcp", "server_label": name}
    return {"type": "function", "name": name}


def _label(tool: completion_pb2.ProviderTool) -> str:
    config = try_loads(tool.config_json or "{}")
    label = config.get("server_label") if isinstance(config, dict) else None
    return label if isinstance(label, str) else ""


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(draft: Draft, asked: completion_pb2.ResponseFormat) -> None:
    kind = format_of(draft, asked)
    if kind == "json_object":
        draft.body["text"] = {"format": {"type": "json_object"}}
    elif kind == "json_schema":
        draft.body["text"] = {"format": {"type": "json_schema", **schema_of(asked.json_schema)}}
    elif kind == "grammar":
        name = asked.grammar.WhichOneof("grammar") or ""
        draft.dropped(
            f"response_format.grammar.{name}",
            f"{draft.target.origin} follows a grammar only in the input of a tool of type 'custom'",
        )


# -- parameters -------------------------------------------------------------------------------------------------------

#: Parameters that are sent as they are, with their names on the wire. Those that OpenAI lacks are known to some who
#: offer the same API.
_SAME_NAME = (
    "max_output_tokens temperature top_p service_tier top_k min_p frequency_penalty presence_penalty repetition_penalty"
    " seed"
)
_SAME_NAME = (
    "max_output_tokens temperature top_p service_tier top_k min_p frequency_penalty presence_penalty repetition_penalty"
    " seed"
)
_PLAIN = {**{name: name for name in _SAME_NAME.split()}, "stop_sequences": "stop"}


def _params(draft: Draft, value: object) -> None:
    write(draft, draft.body, _PLAIN, _SPECIAL, draft.quirks.fixed)


def _logprobs(draft: Draft, value: bool) -> None:
    if value:
        _include_logprobs(draft)


def _top_logprobs(draft: Draft, value: int) -> None:
    _include_logprobs(draft)
    draft.body["top_logprobs"] = value


def _include_logprobs(draft: Draft) -> None:
    include = draft.body.setdefault("include", [])
    if _LOGPROBS not in include:
        include.append(_LOGPROBS)


def _verbosity(draft: Draft, value: int) -> None:
    word = VERBOSITIES.get(value)
    if word:
        draft.body.setdefault("text", {})["verbosity"] = word


def _reasoning(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    reasoning: Body = {}
    effort = effort_of(value, draft.quirks.efforts, draft.target, draft.notes)
    if effort:
        reasoning["effort"] = effort
    if draft.quirks.budget and value.HasField("budget_tokens"):
        reasoning["max_tokens"] = value.budget_tokens
    else:
        no_budget(value, draft.target, draft.notes)
    if value.include and draft.quirks.summary:
        reasoning["summary"] = "auto"
    else:
        shown_anyway(value, draft.quirks.plain_thoughts, draft.target, draft.notes)
    if reasoning:
        draft.body["reasoning"] = reasoning


_SPECIAL: drafts.Fields[Draft] = {
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
    "verbosity": _verbosity,
    "reasoning": _reasoning,
}
_FIELDS: drafts.Fields[Draft] = {
    **drafts.USUAL,
    "tools": _tools,
    "response_format": _format,
    "params": _params,
    "end_user_id": _user,
    "store": _store,
    "previous_response_id": _goes_on,
}

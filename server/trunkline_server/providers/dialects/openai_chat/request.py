"""Encodes a spec into the body of a chat completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers import drafts
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.openai_chat.messages import Messages, cache_mark
from trunkline_server.providers.dialects.openai_chat.quirks import Quirks, placed, quirks_of
from trunkline_server.providers.jsontext import dumps
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

#: Parameters that are sent as they are, with their names on the wire.
_PLAIN = {
    "max_output_tokens": "max_tokens",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "n": "n",
    "service_tier": "service_tier",
}


@dataclass(slots=True)
class Draft(drafts.Draft):
    quirks: Quirks


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """See `providers.base.Dialect.encode`."""
    quirks = quirks_of(target.capabilities)
    body: Body = {"model": target.model, "messages": Messages(spec, target, quirks, notes).encode(), **quirks.constant}
    drafts.fill(Draft(spec, target, notes, body, quirks), _FIELDS)
    if stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    path = placed(quirks.chat_path, target.model)
    return UpstreamRequest(path, dumps(with_options(body, spec.provider_options_json, target)))


def _user(draft: Draft, value: str) -> None:
    if not draft.quirks.user:
        drafts.no_user(draft, value)
    elif value:
        draft.body[draft.quirks.user] = value


def _store(draft: Draft, value: bool) -> None:
    if draft.quirks.store:
        draft.body["store"] = value
    else:
        drafts.not_stored(draft, value)


def _goes_on(draft: Draft, value: str) -> None:
    draft.dropped("previous_response_id", "chat completions do not go on from a response; send all messages")


def _speech(draft: Draft, value: completion_pb2.AudioOutput) -> None:
    if draft.target.capabilities.audio and draft.quirks.speech:
        draft.body["modalities"] = ["text", "audio"]
        draft.body["audio"] = {"voice": value.voice, "format": value.format}
    else:
        drafts.silent(draft, value)


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: object) -> None:
    allowed = _allowed if draft.quirks.allowed_tools else None
    write_tools(draft, lambda tool: _tool(tool, draft), _named, allowed)
    no_number(draft)


def _tool(tool: completion_pb2.Tool, draft: Draft) -> Body:
    if tool.WhichOneof("kind") == "provider":
        made = provider_tool_of(tool.provider)
    else:
        made = {"type": "function", "function": function_of(tool.function, draft.spec)}
    if draft.quirks.cache_control and tool.HasField("cache_control"):
        made["cache_control"] = cache_mark(tool.cache_control)
    return made


def _named(name: str) -> Body:
    return {"type": "function", "function": {"name": name}}


def _allowed(mode: str, tools: list[Any]) -> Body:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(draft: Draft, asked: completion_pb2.ResponseFormat) -> None:
    kind = format_of(draft, asked)
    if kind == "json_object":
        draft.body["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        draft.body["response_format"] = {"type": "json_schema", "json_schema": schema_of(asked.json_schema)}
    elif kind == "grammar":
        _grammar(draft, asked.grammar)


def _grammar(draft: Draft, grammar: completion_pb2.GrammarFormat) -> None:
    kind = grammar.WhichOneof("grammar") or ""
    path = draft.quirks.grammars.get(kind)
    if path is None:
        draft.dropped(f"response_format.grammar.{kind}", f"{draft.target.origin} follows no such grammar")
        return
    at: MutableMapping[str, Any] = draft.body
    for name in path[:-1]:
        at = at.setdefault(name, {"type": "grammar"} if name == "response_format" else {})
    at[path[-1]] = getattr(grammar, kind)


# -- parameters -------------------------------------------------------------------------------------------------------


def _params(draft: Draft, value: object) -> None:
    quirks = draft.quirks
    plain = {**_PLAIN, "max_output_tokens": quirks.max_tokens, **quirks.renamed}
    write(draft, draft.body, plain, _SPECIAL, quirks.fixed)


def _bias(draft: Draft, value: Any) -> None:
    draft.body["logit_bias"] = {token: _whole(bias) for token, bias in value.items()}


def _logprobs(draft: Draft, value: bool) -> None:
    if draft.quirks.logprobs_count:
        if value and not draft.spec.params.HasField("top_logprobs"):
            draft.body["logprobs"] = 1
    elif value or not draft.spec.params.HasField("top_logprobs"):
        draft.body["logprobs"] = value


def _top_logprobs(draft: Draft, value: int) -> None:
    if draft.quirks.logprobs_count:
        draft.body["logprobs"] = max(value, 1)
    else:
        draft.body.update(logprobs=True, top_logprobs=value)


def _verbosity(draft: Draft, value: int) -> None:
    word = VERBOSITIES.get(value)
    if word:
        draft.body["verbosity"] = word


def _reasoning(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    effort = effort_of(value, draft.quirks.efforts, draft.target, draft.notes)
    _REASONING[draft.quirks.reasoning](draft, value, effort)


def _in_words(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    no_budget(value, draft.target, draft.notes)
    _include(draft, value)


def _include(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    quirks = draft.quirks
    if not quirks.include:
        shown_anyway(value, bool(quirks.reasoning_back) or quirks.reasoning != "effort", draft.target, draft.notes)
    elif value.HasField("include"):
        draft.body[quirks.include] = value.include


def _by_effort(draft: Draft, value: generation_pb2.ReasoningConfig, effort: str) -> None:
    _in_words(draft, value)
    if effort:
        draft.body["reasoning_effort"] = effort


def _by_template(draft: Draft, value: generation_pb2.ReasoningConfig, effort: str) -> None:
    _in_words(draft, value)
    if effort == "none":
        draft.body["chat_template_kwargs"] = {"enable_thinking": False}
    elif effort:
        draft.body["reasoning_effort"] = effort


def _by_default(draft: Draft, value: generation_pb2.ReasoningConfig, effort: str) -> None:
    _in_words(draft, value)
    if effort:
        draft.body["reasoning_effort"] = "none" if effort == "none" else "default"


def _by_switch(draft: Draft, value: generation_pb2.ReasoningConfig, effort: str) -> None:
    _in_words(draft, value)
    if effort == "none":
        draft.body["thinking"] = {"type": "disabled"}
    elif effort or value.include:
        # Who wants to see thoughts wants them thought.
        draft.body["thinking"] = {"type": "enabled"}
        if effort and draft.quirks.switch_effort:
            draft.body["reasoning_effort"] = effort


def _for_alibaba(draft: Draft, value: generation_pb2.ReasoningConfig, effort: str) -> None:
    _include(draft, value)
    if value.HasField("budget_tokens"):
        draft.body.update(enable_thinking=value.budget_tokens > 0, thinking_budget=value.budget_tokens)
    elif effort:
        draft.body["enable_thinking"] = effort != "none"


def _for_openrouter(draft: Draft, value: generation_pb2.ReasoningConfig, effort: str) -> None:
    reasoning: Body = {}
    if value.HasField("budget_tokens"):
        reasoning["max_tokens"] = value.budget_tokens
    elif effort:
        reasoning["effort"] = effort
    if value.HasField("include"):
        reasoning["exclude"] = not value.include
    if reasoning:
        draft.body["reasoning"] = reasoning


_SPECIAL: drafts.Fields[Draft] = {
    "logit_bias": _bias,
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
    "reasoning": _reasoning,
    "verbosity": _verbosity,
}
_REASONING: Mapping[str, Callable[[Draft, generation_pb2.ReasoningConfig, str], None]] = {
    "effort": _by_effort,
    "template": _by_template,
    "default": _by_default,
    "thinking": _by_switch,
    "alibaba": _for_alibaba,
    "openrouter": _for_openrouter,
}

_FIELDS: drafts.Fields[Draft] = {
    **drafts.USUAL,
    "tools": _tools,
    "response_format": _format,
    "params": _params,
    "end_user_id": _user,
    "store": _store,
    "previous_response_id": _goes_on,
    "audio_output": _speech,
}


def _whole(number: float) -> float | int:
    """OpenAI wants whole biases without a point."""
    return int(number) if number == int(number) else number

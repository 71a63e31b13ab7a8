"""Encodes a spec into the body of a chat completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.openai_chat.messages import Messages, cache_mark
from trunkline_server.providers.dialects.openai_chat.quirks import Quirks, placed, quirks_of
from trunkline_server.providers.jsontext import dumps
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import effort_of, no_budget, taken
from trunkline_server.providers.tools import function_of, parallel_of, provider_tool_of, schema_of
from trunkline_server.providers.vocabulary import TOOL_MODES, VERBOSITIES

CompletionSpec = completion_pb2.CompletionSpec
GenerationParams = generation_pb2.GenerationParams
Body = dict[str, Any]

#: Parameters that are numbers or text, with their names on the wire.
_PLAIN = {
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


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """See `providers.base.Dialect.encode`."""
    quirks = quirks_of(target.capabilities)
    body: Body = {"model": target.model, "messages": Messages(spec, target, quirks, notes).encode(), **quirks.constant}
    if spec.tools:
        _tools(spec, target, quirks, notes, body)
    if spec.HasField("response_format"):
        _format(spec.response_format, target, quirks, notes, body)
    if spec.HasField("params"):
        _Params(spec, target, quirks, notes, body).encode()
    _rest(spec, target, quirks, notes, body)
    if stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    path = placed(quirks.chat_path, target.model)
    return UpstreamRequest(path, dumps(with_options(body, spec.provider_options_json, target)))


def _rest(spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    """What is not about generation."""
    if spec.end_user_id and quirks.user:
        body[quirks.user] = spec.end_user_id
    if spec.HasField("store"):
        if quirks.store:
            body["store"] = spec.store
        elif spec.store:
            notes.dropped("store", f"{target.origin} keeps no responses")
    if spec.HasField("previous_response_id"):
        notes.dropped("previous_response_id", "chat completions do not go on from a response; send all messages")
    if spec.HasField("audio_output"):
        if target.capabilities.audio and quirks.speech:
            body["modalities"] = ["text", "audio"]
            body["audio"] = {"voice": spec.audio_output.voice, "format": spec.audio_output.format}
        else:
            notes.dropped("audio_output", f"{target.model!r} at {target.origin} makes no sound")


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    if not target.capabilities.tools:
        notes.dropped("tools", f"{target.model!r} at {target.origin} takes no tools")
        return
    chosen = spec.tool_choice.WhichOneof("choice")
    only = set(spec.tool_choice.allowed.tool_names) if chosen == "allowed" and not quirks.allowed_tools else None
    body["tools"] = [
        _tool(tool, spec, quirks)
        for tool in spec.tools
        if only is None or tool.WhichOneof("kind") != "function" or tool.function.name in only
    ]
    if chosen:
        _choice(spec.tool_choice, target, quirks, notes, body)
    parallel = parallel_of(spec)
    if parallel is None:
        return
    params = target.capabilities.params
    if params is None or "parallel_tool_calls" in params:
        body["parallel_tool_calls"] = parallel
    elif spec.params.HasField("parallel_tool_calls") and not parallel:
        notes.dropped("params.parallel_tool_calls", f"{target.origin} cannot be told to call one tool at a time")


def _tool(tool: completion_pb2.Tool, spec: CompletionSpec, quirks: Quirks) -> Body:
    if tool.WhichOneof("kind") == "provider":
        made = provider_tool_of(tool.provider)
    else:
        made = {"type": "function", "function": function_of(tool.function, spec)}
    if quirks.cache_control and tool.HasField("cache_control"):
        made["cache_control"] = cache_mark(tool.cache_control)
    return made


def _choice(choice: completion_pb2.ToolChoice, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    chosen = choice.WhichOneof("choice")
    mode = choice.allowed.mode if chosen == "allowed" else choice.mode
    word = TOOL_MODES.get(mode) or ("auto" if chosen == "allowed" else "")
    value: Any = word
    if chosen == "tool_name":
        value = _named(choice.tool_name)
    elif chosen == "allowed" and quirks.allowed_tools:
        tools = [_named(name) for name in choice.allowed.tool_names]
        value = {"type": "allowed_tools", "allowed_tools": {"mode": word, "tools": tools}}
    if not value:
        return
    if value != "auto" and not target.capabilities.tool_choice:
        if value == "none":
            # No tools are what it means.
            del body["tools"]
        else:
            notes.dropped("tool_choice", f"{target.model!r} at {target.origin} chooses by itself")
        return
    body["tool_choice"] = value


def _named(name: str) -> Body:
    return {"type": "function", "function": {"name": name}}


# -- the shape of the answer ------------------------------------------------------------------------------------------


def _format(asked: completion_pb2.ResponseFormat, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    kind = asked.WhichOneof("format")
    if kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        if not target.capabilities.json_schema:
            notes.altered("response_format.json_schema", f"{target.origin} takes no schema: asked for any JSON object")
            body["response_format"] = {"type": "json_object"}
            return
        body["response_format"] = {"type": "json_schema", "json_schema": schema_of(asked.json_schema)}
    elif kind == "grammar":
        _grammar(asked.grammar, target, quirks, notes, body)


def _grammar(grammar: completion_pb2.GrammarFormat, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    kind = grammar.WhichOneof("grammar") or ""
    path = quirks.grammars.get(kind)
    if path is None:
        notes.dropped(f"response_format.grammar.{kind}", f"{target.origin} follows no such grammar")
        return
    at: MutableMapping[str, Any] = body
    for name in path[:-1]:
        at = at.setdefault(name, {"type": "grammar"} if name == "response_format" else {})
    at[path[-1]] = getattr(grammar, kind)


# -- parameters -------------------------------------------------------------------------------------------------------


class _Params:
    """Encodes the generation parameters that are set."""

    def __init__(self, spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
        self._params = spec.params
        self._target = target
        self._quirks = quirks
        self._notes = notes
        self._body = body

    def encode(self) -> None:
        for name, value in taken(self._params, self._target, self._notes, self._quirks.fixed):
            wire = _PLAIN.get(name)
            if wire is not None:
                self._body[self._quirks.renamed.get(name, wire)] = value
            else:
                _SPECIAL[name](self, value)

    def _max_tokens(self, value: int) -> None:
        self._body[self._quirks.max_tokens] = value

    def _stop(self, value: Any) -> None:
        self._body["stop"] = list(value)

    def _bias(self, value: Any) -> None:
        self._body["logit_bias"] = {token: _whole(bias) for token, bias in value.items()}

    def _logprobs(self, value: bool) -> None:
        if self._quirks.logprobs_count:
            if value and not self._params.HasField("top_logprobs"):
                self._body["logprobs"] = 1
        elif value or not self._params.HasField("top_logprobs"):
            self._body["logprobs"] = value

    def _top_logprobs(self, value: int) -> None:
        if self._quirks.logprobs_count:
            self._body["logprobs"] = max(value, 1)
        else:
            self._body.update(logprobs=True, top_logprobs=value)

    def _verbosity(self, value: int) -> None:
        word = VERBOSITIES.get(value)
        if word:
            self._body["verbosity"] = word

    def _reasoning(self, value: generation_pb2.ReasoningConfig) -> None:
        _REASONING[self._quirks.reasoning](
            self, value, effort_of(value, self._quirks.efforts, self._target, self._notes)
        )

    def _no_budget(self, value: generation_pb2.ReasoningConfig) -> None:
        no_budget(value, self._target, self._notes)

    def _include(self, value: generation_pb2.ReasoningConfig) -> None:
        if not value.HasField("include"):
            return
        shown = bool(self._quirks.reasoning_back) or self._quirks.reasoning != "effort"
        if self._quirks.include:
            self._body[self._quirks.include] = value.include
        elif value.include != shown:
            what = "shows no thoughts" if value.include else "cannot be told to keep its thoughts"
            self._notes.dropped("params.reasoning.include", f"{self._target.origin} {what}")

    def _by_effort(self, value: generation_pb2.ReasoningConfig, effort: str) -> None:
        self._no_budget(value)
        self._include(value)
        if effort:
            self._body["reasoning_effort"] = effort

    def _by_template(self, value: generation_pb2.ReasoningConfig, effort: str) -> None:
        self._no_budget(value)
        self._include(value)
        if effort == "none":
            self._body["chat_template_kwargs"] = {"enable_thinking": False}
        elif effort:
            self._body["reasoning_effort"] = effort

    def _by_default(self, value: generation_pb2.ReasoningConfig, effort: str) -> None:
        self._no_budget(value)
        self._include(value)
        if effort:
            self._body["reasoning_effort"] = "none" if effort == "none" else "default"

    def _by_switch(self, value: generation_pb2.ReasoningConfig, effort: str) -> None:
        self._no_budget(value)
        self._include(value)
        if effort == "none":
            self._body["thinking"] = {"type": "disabled"}
        elif effort or value.include:
            # Who wants to see thoughts wants them thought.
            self._body["thinking"] = {"type": "enabled"}
            if effort and self._quirks.switch_effort:
                self._body["reasoning_effort"] = effort

    def _for_alibaba(self, value: generation_pb2.ReasoningConfig, effort: str) -> None:
        self._include(value)
        if value.HasField("budget_tokens"):
            self._body.update(enable_thinking=value.budget_tokens > 0, thinking_budget=value.budget_tokens)
        elif effort:
            self._body["enable_thinking"] = effort != "none"

    def _for_openrouter(self, value: generation_pb2.ReasoningConfig, effort: str) -> None:
        reasoning: Body = {}
        if value.HasField("budget_tokens"):
            reasoning["max_tokens"] = value.budget_tokens
        elif effort:
            reasoning["effort"] = effort
        if value.HasField("include"):
            reasoning["exclude"] = not value.include
        if reasoning:
            self._body["reasoning"] = reasoning


_SPECIAL: Mapping[str, Callable[[_Params, Any], None]] = {
    "max_output_tokens": _Params._max_tokens,
    "stop_sequences": _Params._stop,
    "logit_bias": _Params._bias,
    "logprobs": _Params._logprobs,
    "top_logprobs": _Params._top_logprobs,
    "reasoning": _Params._reasoning,
    "verbosity": _Params._verbosity,
}
_REASONING: Mapping[str, Callable[[_Params, generation_pb2.ReasoningConfig, str], None]] = {
    "effort": _Params._by_effort,
    "template": _Params._by_template,
    "default": _Params._by_default,
    "thinking": _Params._by_switch,
    "alibaba": _Params._for_alibaba,
    "openrouter": _Params._for_openrouter,
}


def _whole(number: float) -> float | int:
    """OpenAI wants whole biases without a point."""
    return int(number) if number == int(number) else number

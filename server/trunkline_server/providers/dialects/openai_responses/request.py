"""Encodes a spec into the body of a response, or of a question how many tokens it would read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.openai_responses.input import Conversation, custom_name_of
from trunkline_server.providers.dialects.openai_responses.quirks import Quirks, quirks_of
from trunkline_server.providers.jsontext import dumps, try_loads
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import effort_of, no_budget, taken
from trunkline_server.providers.tools import function_of, parallel_of, provider_tool_of, schema_of
from trunkline_server.providers.vocabulary import TOOL_MODES, VERBOSITIES

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
    if spec.tools:
        _tools(spec, target, quirks, notes, body)
    if spec.HasField("response_format"):
        _format(spec.response_format, target, notes, body)
    if spec.HasField("params"):
        _Params(spec, target, quirks, notes, body).encode()
    _rest(spec, target, quirks, notes, body)
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


def _rest(spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    """What is not about generation."""
    if spec.end_user_id and quirks.user:
        body[quirks.user] = spec.end_user_id
    if quirks.keeps == "never":
        body["store"] = False
        if spec.store:
            notes.dropped("store", f"{target.origin} keeps no responses")
    elif spec.HasField("store"):
        body["store"] = spec.store
    if spec.HasField("previous_response_id"):
        if quirks.keeps == "never":
            notes.dropped("previous_response_id", f"{target.origin} keeps no responses; send all messages")
        else:
            body["previous_response_id"] = spec.previous_response_id
    if spec.HasField("audio_output"):
        notes.dropped("audio_output", "responses are not spoken")


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    if not target.capabilities.tools:
        notes.dropped("tools", f"{target.model!r} at {target.origin} takes no tools")
        return
    chosen = spec.tool_choice.WhichOneof("choice")
    only = set(spec.tool_choice.allowed.tool_names) if chosen == "allowed" and not quirks.allowed_tools else None
    body["tools"] = [
        _tool(tool, spec)
        for tool in spec.tools
        if only is None or tool.WhichOneof("kind") != "function" or tool.function.name in only
    ]
    if chosen:
        _choice(spec, target, quirks, notes, body)
    parallel = parallel_of(spec)
    params = target.capabilities.params
    if parallel is not None:
        if params is None or "parallel_tool_calls" in params:
            body["parallel_tool_calls"] = parallel
        elif spec.params.HasField("parallel_tool_calls") and not parallel:
            notes.dropped("params.parallel_tool_calls", f"{target.origin} cannot be told to call one tool at a time")
    if spec.HasField("max_tool_calls"):
        _most_calls(spec, target, quirks, notes, body)


def _most_calls(spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    """The provider's own tools take a limit; of the caller's, one call at a time is all that can be asked."""
    own = any(tool.WhichOneof("kind") == "provider" for tool in spec.tools)
    if own and quirks.max_tool_calls:
        body["max_tool_calls"] = spec.max_tool_calls
    elif spec.max_tool_calls > 1:
        notes.dropped("max_tool_calls", f"{target.origin} limits calls of functions to one or not at all")


def _tool(tool: completion_pb2.Tool, spec: CompletionSpec) -> Body:
    if tool.WhichOneof("kind") == "provider":
        return provider_tool_of(tool.provider)
    return {"type": "function", **function_of(tool.function, spec)}


def _choice(spec: CompletionSpec, target: Target, quirks: Quirks, notes: Notes, body: Body) -> None:
    choice = spec.tool_choice
    chosen = choice.WhichOneof("choice")
    mode = choice.allowed.mode if chosen == "allowed" else choice.mode
    word = TOOL_MODES.get(mode) or ("auto" if chosen == "allowed" else "")
    value: Any = word
    if chosen == "tool_name":
        value = _named(choice.tool_name, spec)
    elif chosen == "allowed" and quirks.allowed_tools:
        tools = [_named(name, spec) for name in choice.allowed.tool_names]
        value = {"type": "allowed_tools", "mode": word, "tools": tools}
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


def _format(asked: completion_pb2.ResponseFormat, target: Target, notes: Notes, body: Body) -> None:
    kind = asked.WhichOneof("format")
    if kind == "json_object":
        body["text"] = {"format": {"type": "json_object"}}
    elif kind == "json_schema":
        if target.capabilities.json_schema:
            body["text"] = {"format": {"type": "json_schema", **schema_of(asked.json_schema)}}
        else:
            notes.altered("response_format.json_schema", f"{target.origin} takes no schema: asked for any JSON object")
            body["text"] = {"format": {"type": "json_object"}}
    elif kind == "grammar":
        name = asked.grammar.WhichOneof("grammar") or ""
        notes.dropped(
            f"response_format.grammar.{name}",
            f"{target.origin} follows a grammar only in the input of a tool of type 'custom'",
        )


# -- parameters -------------------------------------------------------------------------------------------------------

#: Parameters that are numbers or text. Those that OpenAI lacks are known to some who offer the same API.
_PLAIN = frozenset(
    [
        "max_output_tokens", "temperature", "top_p", "service_tier", "top_k", "min_p", "frequency_penalty",
        "presence_penalty", "repetition_penalty", "seed",
    ]
)  # fmt: skip


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
            if name in _PLAIN:
                self._body[name] = value
            elif name in _SPECIAL:
                _SPECIAL[name](self, value)
            else:
                self._notes.dropped(f"params.{name}", f"{self._target.origin} has no such parameter")

    def _stop(self, value: Any) -> None:
        self._body["stop"] = list(value)

    def _logprobs(self, value: bool) -> None:
        if value:
            self._include_logprobs()

    def _top_logprobs(self, value: int) -> None:
        self._include_logprobs()
        self._body["top_logprobs"] = value

    def _include_logprobs(self) -> None:
        include = self._body.setdefault("include", [])
        if _LOGPROBS not in include:
            include.append(_LOGPROBS)

    def _verbosity(self, value: int) -> None:
        word = VERBOSITIES.get(value)
        if word:
            self._body.setdefault("text", {})["verbosity"] = word

    def _reasoning(self, value: generation_pb2.ReasoningConfig) -> None:
        reasoning: Body = {}
        effort = effort_of(value, self._quirks.efforts, self._target, self._notes)
        if effort:
            reasoning["effort"] = effort
        if self._quirks.budget and value.HasField("budget_tokens"):
            reasoning["max_tokens"] = value.budget_tokens
        else:
            no_budget(value, self._target, self._notes)
        if value.HasField("include"):
            self._include(value.include, reasoning)
        if reasoning:
            self._body["reasoning"] = reasoning

    def _include(self, wanted: bool, reasoning: Body) -> None:
        shown = self._quirks.plain_thoughts
        if wanted and self._quirks.summary:
            reasoning["summary"] = "auto"
        elif wanted != shown:
            what = "shows no thoughts" if wanted else "cannot be told to keep its thoughts"
            self._notes.dropped("params.reasoning.include", f"{self._target.origin} {what}")


_SPECIAL: Mapping[str, Callable[[_Params, Any], None]] = {
    "stop_sequences": _Params._stop,
    "logprobs": _Params._logprobs,
    "top_logprobs": _Params._top_logprobs,
    "verbosity": _Params._verbosity,
    "reasoning": _Params._reasoning,
}

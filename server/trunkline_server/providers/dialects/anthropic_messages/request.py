"""Anthropic's requests. What they cannot say goes to the notes, with its path in CompletionSpec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers import drafts
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.claude import Model, model_of, sampling, think, usual_tool
from trunkline_server.providers.dialects.anthropic_messages.content import (
    Conversation,
    object_of,
    provider_tool,
    with_mark,
)
from trunkline_server.providers.jsontext import dumps, embed, merged
from trunkline_server.providers.parameters import taken
from trunkline_server.providers.schemas import parameters_of
from trunkline_server.providers.tools import allowed_by, described, is_strict, no_number, parallel_of, takes_tools

CompletionSpec = completion_pb2.CompletionSpec

VERSION = "2023-06-01"
#: `max_tokens` for a model of which no more is known: the provider wants one.
MAX_TOKENS = 4096

#: What count_tokens takes.
COUNTED = frozenset({
    "cache_control", "context_management", "mcp_servers", "messages", "model", "output_config", "speed", "system",
    "thinking", "tool_choice", "tools",
})  # fmt: skip

#: Members of a body, which come with the provider's own options, that need a beta header.
_OPTION_BETAS: Mapping[str, str] = {
    "context_management": "context-management-2025-06-27",
    "mcp_servers": "mcp-client-2025-04-04",
    "output_format": "structured-outputs-2025-11-13",
}

_MODES = {
    completion_pb2.TOOL_CHOICE_MODE_AUTO: "auto",
    completion_pb2.TOOL_CHOICE_MODE_NONE: "none",
    completion_pb2.TOOL_CHOICE_MODE_REQUIRED: "any",
}


@dataclass(slots=True)
class Draft(drafts.Draft):
    model: Model
    #: The parameters that the target takes.
    params: generation_pb2.GenerationParams = field(default_factory=generation_pb2.GenerationParams)
    betas: set[str] = field(default_factory=set)


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """Encodes a spec that passed validation."""
    draft = draft_of(spec, target, notes)
    if stream:
        draft.body["stream"] = True
    return _request("/messages", draft)


def encode_count(spec: CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """The same prompt, without what only its answer needs."""
    return _request("/messages/count_tokens", counted_of(spec, target, notes))


def counted_of(spec: CompletionSpec, target: Target, notes: Notes) -> Draft:
    """What the question for a prompt's tokens holds."""
    draft = draft_of(spec, target, notes)
    draft.body = {name: value for name, value in draft.body.items() if name in COUNTED}
    for tool in draft.body.get("tools", ()):
        if isinstance(tool, dict):
            # The endpoint refuses it; it changes no count.
            tool.pop("strict", None)
    return draft


def models_request() -> UpstreamRequest:
    return UpstreamRequest("/models?limit=1000", b"", (("anthropic-version", VERSION),), "GET")


def draft_of(spec: CompletionSpec, target: Target, notes: Notes) -> Draft:
    """The body of a request, whole but for what depends on where it goes."""
    model = model_of(target.capabilities.quirk("like", target.model))
    draft = Draft(spec, target, notes, {"model": target.model, "max_tokens": 0}, model)
    conversation = Conversation(spec, target, model, notes)
    conversation.read()
    if conversation.system:
        draft.body["system"] = conversation.system
    draft.body["messages"] = conversation.turns
    draft.betas |= conversation.betas
    drafts.fill(draft, _FIELDS)
    _max_tokens(draft)
    for name in dict.fromkeys((target.origin, target.provider)):
        if options := spec.provider_options_json.get(name):
            _merge(draft, object_of(options))
    return draft


def _merge(draft: Draft, options: dict[str, Any]) -> None:
    """Puts the caller's own options in. Betas are a header here; the official clients call them `betas`."""
    betas = options.pop("betas", None)
    draft.betas.update(str(beta) for beta in (betas if isinstance(betas, list) else ()))
    draft.betas.update(beta for name, beta in _OPTION_BETAS.items() if name in options)
    draft.body = merged(draft.body, options)


def _request(path: str, draft: Draft) -> UpstreamRequest:
    headers = [("anthropic-version", VERSION)]
    if draft.betas:
        headers.append(("anthropic-beta", ",".join(sorted(draft.betas))))
    return UpstreamRequest(path, dumps(draft.body), tuple(headers))


# -- the spec's fields ------------------------------------------------------------------------------------------------


#: Parameters that are sent as they are, and those that are looked at together.
_PLAIN = ("stop_sequences", "service_tier")
_PARAMS = frozenset({*_PLAIN, "max_output_tokens", "temperature", "top_p", "top_k", "reasoning"})


def _params(draft: Draft, value: generation_pb2.GenerationParams) -> None:
    asked = dict(taken(value, draft.target, draft.notes, _PARAMS))
    params = draft.params = generation_pb2.GenerationParams(**asked)
    draft.body.update((name, asked[name]) for name in _PLAIN if name in asked)
    think(draft.body, params, draft.model, draft.target, draft.notes)
    if "output_config" in draft.body and draft.model.effort_beta and "effort" in draft.body["output_config"]:
        draft.betas.add(draft.model.effort_beta)
    thinking = draft.body.get("thinking", {}).get("type", "")
    draft.body.update(sampling(params, thinking, draft.model, draft.target, draft.notes))


def _user(draft: Draft, value: str) -> None:
    draft.body["metadata"] = {"user_id": value}


def _format(draft: Draft, value: completion_pb2.ResponseFormat) -> None:
    kind = value.WhichOneof("format")
    if kind == "json_schema":
        if not draft.target.capabilities.json_schema:
            draft.dropped("response_format.json_schema", f"{draft.target.model} has no structured output")
            return
        if value.json_schema.description:
            draft.dropped("response_format.json_schema.description", "describe the schema inside the schema")
        config = draft.body.setdefault("output_config", {})
        config["format"] = {"type": "json_schema", "schema": embed(value.json_schema.json_schema)}
    elif kind not in (None, "text"):
        draft.dropped(f"response_format.{kind}", "Anthropic holds answers to a JSON schema only")


def _max_tokens(draft: Draft) -> None:
    """The provider wants a limit: the caller's, else the model's own, and always more than is left for thinking."""
    body, params = draft.body, draft.params
    if params.HasField("max_output_tokens"):
        body["max_tokens"] = params.max_output_tokens
        return
    most = draft.target.capabilities.max_output_tokens or draft.model.max_tokens or MAX_TOKENS
    body["max_tokens"] = max(most, body.get("thinking", {}).get("budget_tokens", 0) + MAX_TOKENS)


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: object) -> None:
    if not takes_tools(draft):
        return
    no_number(draft)
    allowed = allowed_by(draft.spec.tool_choice)
    tools = [
        _tool(draft, tool, f"tools[{index}]")
        for index, tool in enumerate(draft.spec.tools)
        if allowed is None or _name(tool) in allowed
    ]
    if tools:
        draft.body["tools"] = tools
        chosen = _tool_choice(draft)
        if chosen is not None:
            draft.body["tool_choice"] = chosen


def _name(tool: completion_pb2.Tool) -> str:
    if tool.WhichOneof("kind") == "function":
        return tool.function.name
    known, _ = usual_tool(tool.provider.type)
    return _given_name(tool.provider.config_json) or known or tool.provider.type


def _given_name(config: str) -> str:
    """The name that the configuration of a provider's tool gives it."""
    name = object_of(config).get("name") if config.strip() else None
    return name if isinstance(name, str) else ""


def _tool(draft: Draft, tool: completion_pb2.Tool, path: str) -> dict[str, Any] | Raw:
    made: dict[str, Any] | Raw
    if tool.WhichOneof("kind") == "provider":
        name, beta = usual_tool(tool.provider.type)
        if beta:
            draft.betas.add(beta)
        made = provider_tool(tool.provider, name)
    else:
        function = tool.function
        made = described(function)
        made["input_schema"] = embed(parameters_of(function, draft.spec, nullable=False))
        if is_strict(function, draft.spec):
            made["strict"] = True
    if tool.HasField("cache_control"):
        return with_mark(made, tool.cache_control, f"{path}.cache_control", draft.notes)
    return made


def _tool_choice(draft: Draft) -> dict[str, Any] | None:
    choice = draft.spec.tool_choice
    made: dict[str, Any] | None
    match choice.WhichOneof("choice"):
        case "tool_name":
            made = {"type": "tool", "name": choice.tool_name}
        case "allowed":
            made = {"type": _MODES.get(choice.allowed.mode, "auto")}
        case "mode" if choice.mode in _MODES:
            made = {"type": _MODES[choice.mode]}
        case _:
            made = None
    if made is not None and made["type"] in ("any", "tool") and not draft.model.forced_tools:
        draft.notes.altered("tool_choice", f"{draft.target.model} cannot be made to call a tool; it is free to")
        made = {"type": "auto"}
    if parallel_of(draft.spec) is False and (made is None or made["type"] != "none"):
        made = {**(made or {"type": "auto"}), "disable_parallel_tool_use": True}
    return made


_FIELDS: drafts.Fields[Draft] = {
    **drafts.USUAL,
    "tools": _tools,
    "response_format": _format,
    "params": _params,
    "end_user_id": _user,
}

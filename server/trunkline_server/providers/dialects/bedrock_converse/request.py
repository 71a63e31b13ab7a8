"""Converse's requests. What they cannot say goes to the notes, with its path in CompletionSpec.

See https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers import claude, drafts
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.bedrock_converse.content import Conversation
from trunkline_server.providers.dialects.bedrock_converse.models import Family, family_of
from trunkline_server.providers.jsontext import dumps, embed, loads, try_loads
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import effort_of, no_budget, taken
from trunkline_server.providers.schemas import NO_ARGUMENTS, parameters_of
from trunkline_server.providers.tools import (
    allowed_by,
    described,
    is_strict,
    no_number,
    no_parallel,
    parallel_of,
    takes_tools,
)

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

#: What CountTokens takes of a request.
_COUNTED = ("messages", "system", "toolConfig", "additionalModelRequestFields")

#: What stands before the id of a model in the id of an inference profile.
_ACROSS = re.compile(r"^(us|us-gov|eu|apac|jp|au|ca|global)\.(?=[a-z0-9]+\.)")

#: Efforts that others than Claude have not.
_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}


#: Asked of the control plane: the models, and then the inference profiles, by which the newer ones go.
_MODELS = UpstreamRequest("/foundation-models", b"", method="GET")
_PROFILES = UpstreamRequest("/inference-profiles?maxResults=1000", b"", method="GET")


@dataclass(slots=True)
class Draft(drafts.Draft):
    family: Family
    #: Set for Claude models.
    claude: claude.Model | None
    #: Does the conversation hold calls? Those are refused without a declaration of any tool.
    calls: bool
    #: `additionalModelRequestFields`: what only the model knows.
    more: Body = field(default_factory=dict)
    inference: Body = field(default_factory=dict)


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """Encodes a spec that passed validation."""
    path = model_path(target.model, "converse-stream" if stream else "converse")
    return UpstreamRequest(path, dumps(body_of(spec, target, notes)))


def encode_count(spec: CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """The same prompt, without what only its answer needs."""
    body = body_of(spec, target, notes)
    counted = {name: body[name] for name in _COUNTED if name in body}
    return UpstreamRequest(counted_path(target.model), dumps({"input": {"converse": counted}}))


def models() -> UpstreamRequest:
    return _MODELS


def next_models(request: UpstreamRequest, body: bytes) -> UpstreamRequest | None:
    """The profiles after the models, and page after page of them."""
    if request.path == _MODELS.path:
        return _PROFILES
    value = try_loads(body)
    token = value.get("nextToken") if isinstance(value, dict) else None
    if not isinstance(token, str) or not token:
        return None
    return dataclasses.replace(_PROFILES, path=f"{_PROFILES.path}&nextToken={quote(token, safe='')}")


def model_path(model: str, operation: str) -> str:
    """The path of an operation on a model, which may be named by an ARN."""
    return f"/model/{quote(model, safe='')}/{operation}"


def counted_path(model: str) -> str:
    """Tokens are counted by models, not by the inference profiles that span regions."""
    return model_path(_ACROSS.sub("", model), "count-tokens")


def body_of(spec: CompletionSpec, target: Target, notes: Notes) -> Body:
    """The body that all operations share."""
    family = family_of(target.model)
    conversation = Conversation(spec, target, notes)
    conversation.read()
    model = claude.model_of(target.model) if family.thinking == "claude" else None
    draft = Draft(spec, target, notes, {"messages": conversation.turns}, family, model, conversation.calls)
    if conversation.system:
        draft.body["system"] = conversation.system
    drafts.fill(draft, _FIELDS)
    if draft.calls and target.capabilities.tools and "toolConfig" not in draft.body:
        draft.body["toolConfig"] = {"tools": _called(spec)}
    if draft.inference:
        draft.body["inferenceConfig"] = draft.inference
    if draft.more:
        draft.body["additionalModelRequestFields"] = draft.more
    return with_options(draft.body, spec.provider_options_json, target)


# -- the spec's fields ------------------------------------------------------------------------------------------------


#: Parameters that go into `inferenceConfig`, and those that are looked at together.
_PLAIN = {"max_output_tokens": "maxTokens", "stop_sequences": "stopSequences"}
_PARAMS = frozenset({*_PLAIN, "temperature", "top_p", "top_k", "reasoning", "service_tier"})


def _params(draft: Draft, value: generation_pb2.GenerationParams) -> None:
    asked = dict(taken(value, draft.target, draft.notes, _PARAMS))
    params = generation_pb2.GenerationParams(**asked)
    _think(draft, params)
    sampling: Mapping[str, float]
    if draft.claude is not None:
        thinking = draft.more.get("thinking", {}).get("type", "")
        sampling = claude.sampling(params, thinking, draft.claude, draft.target, draft.notes)
    else:
        sampling = _sampling(draft, params)
    for name, number in sampling.items():
        if name == "top_k":
            _set(draft.more, draft.family.top_k, number)
        else:
            draft.inference[_SAMPLERS[name]] = number
    draft.inference.update((wire, asked[name]) for name, wire in _PLAIN.items() if name in asked)
    if "service_tier" in asked:
        draft.body["serviceTier"] = {"type": asked["service_tier"]}


_SAMPLERS = {"temperature": "temperature", "top_p": "topP"}


def _sampling(draft: Draft, params: generation_pb2.GenerationParams) -> dict[str, float]:
    """temperature, top_p and top_k for others than Claude."""
    asked = {name: getattr(params, name) for name in ("temperature", "top_p", "top_k") if params.HasField(name)}
    if asked.get("temperature", 0.0) > 1:
        draft.notes.altered("params.temperature", "Converse's temperatures end at 1")
        asked["temperature"] = 1.0
    if "top_k" in asked and not draft.family.top_k:
        draft.dropped("params.top_k", f"{draft.target.model} takes no top_k through Converse")
        del asked["top_k"]
    return asked


def _set(into: Body, path: tuple[str, ...], value: Any) -> None:
    """Sets a member inside of objects, which are made where they are missing."""
    for name in path[:-1]:
        into = into.setdefault(name, {})
    into[path[-1]] = value


def _think(draft: Draft, params: generation_pb2.GenerationParams) -> None:
    if not params.HasField("reasoning"):
        return
    asked = params.reasoning
    match draft.family.thinking:
        case "claude":
            assert draft.claude is not None  # noqa: S101  # it is Claude
            claude.think(draft.more, params, draft.claude, draft.target, draft.notes)
            beta = draft.claude.effort_beta
            if beta and "effort" in draft.more.get("output_config", {}):
                _beta(draft, beta)
        case "nova":
            no_budget(asked, draft.target, draft.notes)
            if asked.effort == generation_pb2.REASONING_EFFORT_NONE:
                draft.more["reasoningConfig"] = {"type": "disabled"}
            elif word := effort_of(asked, _EFFORTS, draft.target, draft.notes):
                draft.more["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": word}
        case "":
            _cannot_think(draft, asked)
        case member:
            no_budget(asked, draft.target, draft.notes)
            if asked.effort == generation_pb2.REASONING_EFFORT_NONE:
                if member == "reasoning_effort":
                    draft.dropped("params.reasoning.effort", f"{draft.target.model} always thinks")
            elif word := effort_of(asked, _EFFORTS, draft.target, draft.notes):
                draft.more[member] = word


def _cannot_think(draft: Draft, asked: generation_pb2.ReasoningConfig) -> None:
    """Only a wish to think, or of one that thinks not to, is a wish that cannot be granted."""
    always = draft.target.capabilities.reasoning
    told = f"{draft.target.model} {'thinks as it likes' if always else 'cannot be told to think'} through Converse"
    off = asked.effort == generation_pb2.REASONING_EFFORT_NONE
    if asked.effort and off == always:
        draft.dropped("params.reasoning.effort", told)
    if asked.HasField("budget_tokens") and (asked.budget_tokens > 0 or always):
        draft.dropped("params.reasoning.budget_tokens", told)


def _beta(draft: Draft, name: str) -> None:
    betas = draft.more.setdefault("anthropic_beta", [])
    if name not in betas:
        betas.append(name)


def _no_user(draft: Draft, value: str) -> None:
    draft.dropped("end_user_id", "Converse knows no users: set requestMetadata in provider_options_json")


def _format(draft: Draft, value: completion_pb2.ResponseFormat) -> None:
    kind = value.WhichOneof("format")
    if kind in (None, "text"):
        return
    if kind != "json_schema":
        draft.dropped(f"response_format.{kind}", "Converse holds answers to a JSON schema only")
        return
    if not draft.target.capabilities.json_schema:
        draft.dropped("response_format.json_schema", f"{draft.target.model} has no structured output")
        return
    asked = value.json_schema
    schema: Body = {"schema": asked.json_schema}
    if asked.name:
        schema["name"] = asked.name
    if asked.description:
        schema["description"] = asked.description
    draft.body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: object) -> None:
    if not takes_tools(draft):
        return
    no_number(draft)
    choice = draft.spec.tool_choice
    forbidden = choice.HasField("mode") and choice.mode == completion_pb2.TOOL_CHOICE_MODE_NONE
    if forbidden and not draft.calls:
        # No tools are what it means.
        return
    made = _declared(draft, allowed_by(choice))
    if not made:
        return
    draft.body["toolConfig"] = {"tools": made}
    if forbidden:
        draft.notes.altered("tool_choice", "Converse cannot forbid calls in a conversation that holds some")
        return
    _choose(draft, _choice(draft))


def _declared(draft: Draft, allowed: Collection[str] | None) -> list[Body]:
    made: list[Body] = []
    for index, tool in enumerate(draft.spec.tools):
        if tool.WhichOneof("kind") == "provider":
            if allowed is None or tool.provider.type in allowed:
                made.extend(_provider_tool(draft, tool.provider))
        elif allowed is None or tool.function.name in allowed:
            made.append({"toolSpec": _function(draft.spec, tool.function)})
        else:
            continue
        if tool.HasField("cache_control") and made:
            path = f"tools[{index}].cache_control"
            if draft.target.capabilities.prompt_cache:
                made.append({"cachePoint": claude.cache_mark("default", tool.cache_control, path, draft.notes)})
            else:
                draft.dropped(path, f"{draft.target.model} caches no prompts")
    return made


def _function(spec: CompletionSpec, function: completion_pb2.FunctionTool) -> Body:
    made = described(function)
    made["inputSchema"] = {"json": embed(parameters_of(function, spec, nullable=False))}
    if is_strict(function, spec):
        made["strict"] = True
    return made


def _provider_tool(draft: Draft, tool: completion_pb2.ProviderTool) -> list[Body]:
    """A tool of AWS's by its name. Anthropic's own are told to its models only."""
    config = loads(tool.config_json) if tool.config_json.strip() else {}
    if draft.claude is None or tool.type.startswith("nova_"):
        return [{"systemTool": {"name": tool.type, **config}}]
    name, beta = claude.usual_tool(tool.type)
    if beta:
        _beta(draft, beta)
    draft.more.setdefault("tools", []).append({"type": tool.type, **({"name": name} if name else {}), **config})
    return []


def _called(spec: CompletionSpec) -> list[Body]:
    """Declarations of what was called before."""
    names = dict.fromkeys(
        part.tool_call.name for message in spec.messages for part in message.parts if part.HasField("tool_call")
    )
    return [{"toolSpec": {"name": name, "inputSchema": {"json": embed(NO_ARGUMENTS)}}} for name in names or ("none",)]


def _choice(draft: Draft) -> Body | None:
    """`toolChoice`; None: the provider's default."""
    choice = draft.spec.tool_choice
    made: Body | None = None
    match choice.WhichOneof("choice"):
        case "tool_name":
            made = {"tool": {"name": choice.tool_name}}
        case "allowed":
            made = _MODES.get(choice.allowed.mode, {"auto": {}})
        case "mode":
            made = _MODES.get(choice.mode)
    if made is not None and "auto" not in made and not draft.target.capabilities.tool_choice:
        draft.notes.altered("tool_choice", f"{draft.target.model} cannot be made to call a tool; it is free to")
        return None
    return made


_MODES: Mapping[int, Body] = {
    completion_pb2.TOOL_CHOICE_MODE_AUTO: {"auto": {}},
    completion_pb2.TOOL_CHOICE_MODE_REQUIRED: {"any": {}},
}


def _choose(draft: Draft, made: Body | None) -> None:
    if parallel_of(draft.spec) is False:
        if draft.claude is not None:
            # Converse has no word for it; Anthropic's own stands in the place of `toolChoice`.
            kind, more = next(iter((made or {"auto": {}}).items()))
            draft.more["tool_choice"] = {"type": kind, **more, "disable_parallel_tool_use": True}
            return
        no_parallel(draft)
    if made is not None:
        draft.body["toolConfig"]["toolChoice"] = made


_FIELDS: drafts.Fields[Draft] = {
    **drafts.USUAL,
    "tools": _tools,
    "response_format": _format,
    "params": _params,
    "end_user_id": _no_user,
}

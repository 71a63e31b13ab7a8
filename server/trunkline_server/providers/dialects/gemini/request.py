"""Gemini's requests. What they cannot say goes to the notes, with its path in CompletionSpec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.gemini.content import Conversation
from trunkline_server.providers.dialects.gemini.models import Model, model_of
from trunkline_server.providers.dialects.gemini.thinking import thinking_config
from trunkline_server.providers.jsontext import dumps, embed
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import taken
from trunkline_server.providers.schemas import parameters_of

CompletionSpec = completion_pb2.CompletionSpec
Body = dict[str, Any]

#: Parameters that are sent as they are, with their names on the wire.
_PLAIN = {
    "max_output_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "seed": "seed",
    "n": "candidateCount",
}

_MODES = {
    completion_pb2.TOOL_CHOICE_MODE_AUTO: "AUTO",
    completion_pb2.TOOL_CHOICE_MODE_NONE: "NONE",
    completion_pb2.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}
#: The model may call tools or not, but if it does, then as their schemas say.
_VALIDATED = "VALIDATED"


@dataclass(slots=True)
class Draft:
    """A request while it is written."""

    spec: CompletionSpec
    target: Target
    model: Model
    notes: Notes
    body: Body
    #: `generationConfig`.
    config: Body

    def dropped(self, path: str, description: str) -> None:
        """The parameter is left out."""
        self.notes.dropped(path, description)


def encode(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """See `providers.base.Dialect.encode`."""
    return _asked(resource(target.model), body_of(spec, target, notes, names_files=False), stream=stream)


def encode_count(spec: CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """See `providers.base.CountingDialect.encode_count`."""
    path = resource(target.model)
    asked = {"model": path.removeprefix("/"), **body_of(spec, target, notes, names_files=False)}
    return UpstreamRequest(f"{path}:countTokens", dumps({"generateContentRequest": asked}))


def encode_vertex(spec: CompletionSpec, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
    """The same at Vertex AI, where files may have names."""
    return _asked(vertex_resource(target.model), body_of(spec, target, notes, names_files=True), stream=stream)


def encode_vertex_count(spec: CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
    """The same at Vertex AI, which takes less of a request."""
    body = body_of(spec, target, notes, names_files=True)
    counted = {name: value for name, value in body.items() if name in _COUNTED}
    return UpstreamRequest(f"{vertex_resource(target.model)}:countTokens", dumps(counted))


def _asked(path: str, body: Body, *, stream: bool) -> UpstreamRequest:
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return UpstreamRequest(f"{path}:{method}", dumps(body))


#: What Vertex's countTokens takes.
_COUNTED = frozenset({"contents", "generationConfig", "systemInstruction", "tools"})


def body_of(spec: CompletionSpec, target: Target, notes: Notes, *, names_files: bool) -> Body:
    """The body for a spec that passed validation. `names_files`: files may have names."""
    model = model_of(target.model)
    conversation = Conversation(spec, target, model, notes, names_files=names_files)
    conversation.read()
    draft = Draft(spec, target, model, notes, {"contents": conversation.contents}, {})
    if conversation.instructions:
        draft.body["systemInstruction"] = {"parts": conversation.instructions}
    for descriptor, value in spec.ListFields():
        _FIELDS[descriptor.name](draft, value)
    if draft.config:
        draft.body["generationConfig"] = draft.config
    return with_options(draft.body, spec.provider_options_json, target)


def resource(name: str, collection: str = "models") -> str:
    """The path of a model: under `collection`, unless its name says where it is ("tunedModels/abc")."""
    name = name.strip("/")
    steps = (name if "/" in name else f"{collection}/{name}").split("/")
    return "/" + "/".join("%2E" * len(step) if step in (".", "..") else quote(step, safe=_PLAINLY) for step in steps)


def vertex_resource(model: str) -> str:
    """Under the project's location: a model of a publisher ("google" unless named), or an endpoint of one's own."""
    steps = model.strip("/").split("/")
    if len(steps) == 2 and steps[0] != "endpoints":
        return resource(f"publishers/{steps[0]}/models/{steps[1]}")
    return resource(model, "publishers/google/models")


#: What a step of a path may hold beside letters and digits.
_PLAINLY = "-._~!$&'()*+,;=@"


# -- the spec's fields ------------------------------------------------------------------------------------------------


def _nothing(draft: Draft, value: object) -> None:
    """Done elsewhere."""


def _not_here(path: str, description: str) -> Callable[[Draft, Any], None]:
    return lambda draft, value: draft.dropped(path, description)


def _flag(path: str, description: str) -> Callable[[Draft, Any], None]:
    """A switch that only matters when it is on."""
    return lambda draft, value: draft.dropped(path, description) if value else None


def _params(draft: Draft, params: generation_pb2.GenerationParams) -> None:
    for name, value in taken(params, draft.target, draft.notes, {}):
        if name in _PLAIN:
            draft.config[_PLAIN[name]] = value
        else:
            _PARAMS[name](draft, value)
    if params.HasField("parallel_tool_calls") and not params.parallel_tool_calls and draft.spec.tools:
        draft.dropped("params.parallel_tool_calls", "Gemini cannot be told to call one tool at a time")


def _stop(draft: Draft, value: Any) -> None:
    draft.config["stopSequences"] = list(value)


def _logprobs(draft: Draft, value: bool) -> None:
    if value:
        draft.config["responseLogprobs"] = True


def _top_logprobs(draft: Draft, value: int) -> None:
    draft.config["responseLogprobs"] = True
    if value:
        draft.config["logprobs"] = value


def _reasoning(draft: Draft, value: generation_pb2.ReasoningConfig) -> None:
    config = thinking_config(value, draft.model, draft.target, draft.notes)
    if config:
        draft.config["thinkingConfig"] = config


def _service_tier(draft: Draft, value: str) -> None:
    draft.body["serviceTier"] = value


def _format(draft: Draft, value: completion_pb2.ResponseFormat) -> None:
    kind = value.WhichOneof("format")
    if kind == "text" or kind is None:
        return
    if kind == "grammar":
        draft.dropped("response_format.grammar", "Gemini holds answers to a JSON schema only")
        return
    if not draft.target.capabilities.json_schema:
        draft.dropped(f"response_format.{kind}", f"{draft.target.model} has no structured output")
        return
    draft.config["responseMimeType"] = "application/json"
    if kind == "json_schema":
        if value.json_schema.description:
            draft.dropped("response_format.json_schema.description", "describe the schema inside the schema")
        draft.config["responseJsonSchema"] = embed(value.json_schema.json_schema)


def _speech(draft: Draft, value: completion_pb2.AudioOutput) -> None:
    if value.format not in ("pcm", "pcm16"):
        draft.notes.altered("audio_output.format", "Gemini speaks in pcm16 only")
    draft.config["responseModalities"] = ["AUDIO"]
    draft.config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": value.voice}}}


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, value: Any) -> None:
    if not draft.target.capabilities.tools:
        draft.dropped("tools", f"{draft.target.model} calls no tools")
        return
    made: list[Body] = []
    for tool in value:
        if tool.WhichOneof("kind") == "provider":
            config = tool.provider.config_json
            made.append({tool.provider.type: embed(config) if config.strip() else {}})
            continue
        if not made or "functionDeclarations" not in made[-1]:
            made.append({"functionDeclarations": []})
        made[-1]["functionDeclarations"].append(_function(tool.function, draft.spec))
    draft.body["tools"] = made
    _tool_choice(draft)


def _function(function: completion_pb2.FunctionTool, spec: CompletionSpec) -> Body:
    made: Body = {"name": function.name}
    if function.description:
        made["description"] = function.description
    if function.parameters_json_schema or spec.HasField("reasoning_argument"):
        made["parametersJsonSchema"] = embed(parameters_of(function, spec, nullable=False))
    return made


def _tool_choice(draft: Draft) -> None:
    spec = draft.spec
    choice = spec.tool_choice
    functions = [tool.function for tool in spec.tools if tool.WhichOneof("kind") == "function"]
    strict = spec.strict_tools if spec.HasField("strict_tools") else any(function.strict for function in functions)
    names: list[str] = []
    match choice.WhichOneof("choice"):
        case "tool_name":
            mode, names = "ANY", [choice.tool_name]
        case "allowed":
            # Only this mode and ANY take names.
            mode, names = _MODES.get(choice.allowed.mode, ""), list(choice.allowed.tool_names)
            mode = mode if mode in ("ANY", "NONE") else _VALIDATED
        case "mode":
            mode = _MODES.get(choice.mode, "")
        case _:
            mode = ""
    if strict and functions and mode in ("", "AUTO"):
        mode = _VALIDATED
    if mode:
        calling: Body = {"mode": mode}
        if names:
            calling["allowedFunctionNames"] = names
        draft.body["toolConfig"] = {"functionCallingConfig": calling}


_PARAMS: Mapping[str, Callable[[Draft, Any], None]] = {
    "stop_sequences": _stop,
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
    "reasoning": _reasoning,
    "service_tier": _service_tier,
}

_FIELDS: Mapping[str, Callable[[Draft, Any], None]] = {
    "model": _nothing,
    "config": _nothing,
    "inline_config": _nothing,
    "messages": _nothing,
    "tools": _tools,
    "tool_choice": _nothing,
    "reasoning_argument": _nothing,
    "strict_tools": _nothing,
    "provider_options_json": _nothing,
    # The engine's: never sent, or done before any dialect sees the spec.
    "labels": _nothing,
    "extra_system_text": _nothing,
    "tool_result_max_chars": _nothing,
    "params": _params,
    "response_format": _format,
    "audio_output": _speech,
    "max_tool_calls": _not_here("max_tool_calls", "Gemini cannot be told how many tools to call"),
    "end_user_id": _not_here("end_user_id", "Gemini is not told who the end user is"),
    "previous_response_id": _not_here("previous_response_id", "Gemini keeps no responses: send the whole conversation"),
    "store": _flag("store", "Gemini keeps no responses"),
}

"""Gemini's requests. What they cannot say goes to the notes, with its path in CompletionSpec."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers import drafts
from trunkline_server.providers.base import Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.gemini.content import Conversation
from trunkline_server.providers.dialects.gemini.models import Model, model_of
from trunkline_server.providers.dialects.gemini.thinking import thinking_config
from trunkline_server.providers.jsontext import dumps, embed
from trunkline_server.providers.options import with_options
from trunkline_server.providers.parameters import write
from trunkline_server.providers.schemas import parameters_of
from trunkline_server.providers.tools import described, no_number, no_parallel, takes_tools

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
    "stop_sequences": "stopSequences",
}

_MODES = {
    completion_pb2.TOOL_CHOICE_MODE_AUTO: "AUTO",
    completion_pb2.TOOL_CHOICE_MODE_NONE: "NONE",
    completion_pb2.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}
#: The model may call tools or not, but if it does, then as their schemas say.
_VALIDATED = "VALIDATED"


@dataclass(slots=True)
class Draft(drafts.Draft):
    model: Model
    #: `generationConfig`.
    config: Body = field(default_factory=dict)


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
    draft = Draft(spec, target, notes, {"contents": conversation.contents}, model)
    if conversation.instructions:
        draft.body["systemInstruction"] = {"parts": conversation.instructions}
    drafts.fill(draft, _FIELDS)
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


def _params(draft: Draft, value: object) -> None:
    write(draft, draft.config, _PLAIN, _SPECIAL)


def _no_user(draft: Draft, value: str) -> None:
    draft.dropped("end_user_id", "Gemini is not told who the end user is")


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
    if not takes_tools(draft):
        return
    no_parallel(draft)
    no_number(draft)
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
    made = described(function)
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


_SPECIAL: drafts.Fields[Draft] = {
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
    "reasoning": _reasoning,
    "service_tier": _service_tier,
}
_FIELDS: drafts.Fields[Draft] = {
    **drafts.USUAL,
    "tools": _tools,
    "response_format": _format,
    "params": _params,
    "end_user_id": _no_user,
    "audio_output": _speech,
}

"""A recorded generateContent request, of Gemini's own API or of Vertex AI, as a CompletionSpec."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2

ContentPart = message_pb2.ContentPart

#: Members whose names are the caller's, or that are the caller's as a whole.
VERBATIM = frozenset({
    "args", "labels", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "responseSchema",
})  # fmt: skip

_PARAMS = {
    "maxOutputTokens": "max_output_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
    "seed": "seed",
    "candidateCount": "n",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
_WHOLE = frozenset({"max_output_tokens", "top_k", "seed", "n", "top_logprobs"})
_LEVELS = {
    name: getattr(generation_pb2, f"REASONING_EFFORT_{name.upper()}") for name in ("minimal", "low", "medium", "high")
}
_MODES = {
    "AUTO": completion_pb2.TOOL_CHOICE_MODE_AUTO,
    "ANY": completion_pb2.TOOL_CHOICE_MODE_REQUIRED,
    "NONE": completion_pb2.TOOL_CHOICE_MODE_NONE,
}
_RESOLUTIONS = {
    "MEDIA_RESOLUTION_LOW": message_pb2.MEDIA_DETAIL_LOW,
    "MEDIA_RESOLUTION_MEDIUM": message_pb2.MEDIA_DETAIL_MEDIUM,
    "MEDIA_RESOLUTION_HIGH": message_pb2.MEDIA_DETAIL_HIGH,
}
_MEDIA = {"image": "image", "audio": "audio", "video": "video"}
_LEFT_OUT = re.compile(r"<elided \d+ chars>")
_SNAKE = re.compile(r"_([a-z])")


def camel(value: Any, name: str = "") -> Any:
    """The body with the wire's own names: the provider takes them in either case."""
    if isinstance(value, list):
        return [camel(item, name) for item in value]
    if not isinstance(value, dict) or name in VERBATIM:
        return value
    renamed = {_SNAKE.sub(lambda match: match[1].upper(), key): inner for key, inner in value.items()}
    return {key: camel(inner, key) for key, inner in renamed.items()}


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    asked = camel(dict(request))
    asked = asked.get("generateContentRequest") or asked
    spec = completion_pb2.CompletionSpec()
    system = asked.get("systemInstruction")
    if system:
        parts = [_part(part) for part in parts_of(system)]
        if parts:
            spec.messages.add(role=message_pb2.ROLE_SYSTEM).parts.extend(parts)
    calls = _Calls()
    for content in asked["contents"]:
        _content(content, spec, calls)
    for tool in tools_of(asked):
        _tool(tool, spec)
    _tool_choice((asked.get("toolConfig") or {}).get("functionCallingConfig") or {}, spec)
    _config(asked.get("generationConfig") or {}, spec)
    if asked.get("serviceTier"):
        spec.params.service_tier = asked["serviceTier"]
    return spec


def bytes_of(text: str) -> bytes:
    """The bytes; of those that the recording leaves out, what it kept."""
    kept = _LEFT_OUT.sub("", text).replace("-", "+").replace("_", "/").rstrip("=")
    kept = kept[:-1] if len(kept) % 4 == 1 else kept
    return base64.b64decode(kept + "=" * (-len(kept) % 4))


def parts_of(content: Any) -> list[Any]:
    """Parts of a content, or of what is taken for one: a text, a part, a list of parts."""
    if isinstance(content, str):
        return [{"text": content}]
    if isinstance(content, list):
        return content
    parts = content.get("parts")
    return [content] if parts is None and content.get("text") else [parts] if isinstance(parts, dict) else parts or []


def tools_of(asked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tools by kind; one entry may hold several."""
    tools = asked.get("tools") or ()
    for entry in (tools,) if isinstance(tools, dict) else tools:
        for kind, value in entry.items():
            if kind == "functionDeclarations":
                yield from ((kind, declaration) for declaration in value or ())
            elif value is not None:
                yield kind, value


class _Calls:
    """Ids of calls: the provider's, or such as the gateway makes."""

    def __init__(self) -> None:
        self._count = 0
        #: Calls without an answer: name and id.
        self._waiting: list[tuple[str, str]] = []

    def made(self, name: str, given: str) -> str:
        self._count += 1
        call_id = given or f"call_{self._count:024x}"
        self._waiting.append((name, call_id))
        return call_id

    def answered(self, name: str, given: str) -> str:
        for waiting in self._waiting:
            if (waiting[1] == given) if given else (waiting[0] == name):
                self._waiting.remove(waiting)
                return waiting[1]
        return given or self.made(name, "")


def _content(content: Mapping[str, Any], spec: completion_pb2.CompletionSpec, calls: _Calls) -> None:
    """Answers of tools become a message of their own."""
    said = message_pb2.ROLE_ASSISTANT if content.get("role") == "model" else message_pb2.ROLE_USER
    message = None
    for wire in parts_of(content):
        part = _part(wire, calls)
        role = message_pb2.ROLE_TOOL if part.HasField("tool_result") else said
        if message is None or message.role != role:
            message = spec.messages.add(role=role)
        message.parts.append(part)


def _part(wire: Mapping[str, Any], calls: _Calls | None = None) -> ContentPart:
    part = ContentPart()
    if wire.get("thoughtSignature"):
        part.signature = wire["thoughtSignature"]
    kind = next((name for name in wire if name in _PARTS and wire[name] is not None), None)
    if kind is None and part.signature:
        wire, kind = {"text": "", **wire}, "text"
    if kind is None:
        raise ValueError(f"a part of {sorted(wire)}")
    if kind in ("functionCall", "functionResponse"):
        _PARTS[kind](part, wire, calls or _Calls())
    else:
        _PARTS[kind](part, wire, None)
    return part


def _text(part: ContentPart, wire: Mapping[str, Any], calls: _Calls | None) -> None:
    if wire.get("thought"):
        part.reasoning.text, part.reasoning.is_summary = wire["text"], True
    else:
        part.text.text = wire["text"]


def _media(part: ContentPart, wire: Mapping[str, Any], calls: _Calls | None) -> None:
    blob = wire.get("inlineData") or wire["fileData"]
    mime_type = blob.get("mimeType") or ""
    media = getattr(part, _MEDIA.get(mime_type.partition("/")[0], "document"))
    media.mime_type = mime_type
    if "fileUri" in blob:
        media.uri = blob["fileUri"]
    else:
        media.data = bytes_of(blob["data"])
    if blob.get("displayName"):
        media.filename = blob["displayName"]
    level = (wire.get("mediaResolution") or {}).get("level")
    if level:
        media.detail = _RESOLUTIONS[level]


def _call(part: ContentPart, wire: Mapping[str, Any], calls: Any) -> None:
    call = wire["functionCall"]
    part.tool_call.name = call["name"]
    part.tool_call.id = calls.made(call["name"], call.get("id") or "")
    part.tool_call.arguments_json = json.dumps(call.get("args") or {})


def _result(part: ContentPart, wire: Mapping[str, Any], calls: Any) -> None:
    answer = wire["functionResponse"]
    result = part.tool_result
    result.name = answer["name"]
    result.tool_call_id = calls.answered(answer["name"], answer.get("id") or "")
    response = answer.get("response")
    if isinstance(response, dict) and list(response) == ["output"] and isinstance(response["output"], str):
        result.parts.add().text.text = response["output"]
    elif isinstance(response, dict) and list(response) == ["error"] and isinstance(response["error"], str):
        result.parts.add().text.text, result.is_error = response["error"], True
    elif response:
        result.parts.add().text.text = json.dumps(response)
    result.parts.extend(_part(inner) for inner in answer.get("parts") or ())


def _opaque(part: ContentPart, wire: Mapping[str, Any], calls: _Calls | None) -> None:
    part.opaque.type = next(name for name in wire if name in _PARTS)
    part.opaque.json = json.dumps(wire)
    part.ClearField("signature")


_PARTS: dict[str, Callable[[ContentPart, Mapping[str, Any], Any], None]] = {
    "text": _text,
    "inlineData": _media,
    "fileData": _media,
    "functionCall": _call,
    "functionResponse": _result,
    "executableCode": _opaque,
    "codeExecutionResult": _opaque,
    "toolCall": _opaque,
    "toolResponse": _opaque,
}


def _tool(tool: tuple[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    kind, value = tool
    made = spec.tools.add()
    if kind != "functionDeclarations":
        made.provider.type = kind
        made.provider.config_json = json.dumps(value)
        return
    made.function.name = value["name"]
    made.function.description = value.get("description") or ""
    schema = value.get("parametersJsonSchema") or value.get("parameters")
    if schema:
        made.function.parameters_json_schema = json.dumps(schema)


def _tool_choice(calling: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    mode, names = str(calling.get("mode") or "").upper(), calling.get("allowedFunctionNames") or []
    if mode == "VALIDATED" and not names:
        for tool in spec.tools:
            if tool.HasField("function"):
                tool.function.strict = True
    elif mode == "ANY" and len(names) == 1:
        spec.tool_choice.tool_name = names[0]
    elif names:
        spec.tool_choice.allowed.tool_names.extend(names)
        spec.tool_choice.allowed.mode = _MODES.get(mode, completion_pb2.TOOL_CHOICE_MODE_AUTO)
    elif mode:
        spec.tool_choice.mode = _MODES[mode]


def _config(config: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    for name, field in _PARAMS.items():
        if config.get(name) is not None:
            # Some clients write whole numbers with a point.
            setattr(spec.params, field, int(config[name]) if field in _WHOLE else config[name])
    spec.params.stop_sequences.extend(config.get("stopSequences") or ())
    thinking = config.get("thinkingConfig") or {}
    if thinking.get("thinkingBudget") is not None and thinking["thinkingBudget"] >= 0:
        spec.params.reasoning.budget_tokens = thinking["thinkingBudget"]
    if thinking.get("thinkingLevel"):
        spec.params.reasoning.effort = _LEVELS[thinking["thinkingLevel"].lower()]
    if thinking.get("includeThoughts") is not None:
        spec.params.reasoning.include = thinking["includeThoughts"]
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    if schema:
        spec.response_format.json_schema.json_schema = json.dumps(schema)
    elif config.get("responseMimeType") == "application/json":
        spec.response_format.json_object.SetInParent()

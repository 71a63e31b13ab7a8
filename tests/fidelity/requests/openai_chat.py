"""A recorded Chat Completions request as a CompletionSpec."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2

ContentPart = message_pb2.ContentPart

_ROLES = {
    "system": message_pb2.ROLE_SYSTEM,
    "developer": message_pb2.ROLE_DEVELOPER,
    "user": message_pb2.ROLE_USER,
    "assistant": message_pb2.ROLE_ASSISTANT,
    "tool": message_pb2.ROLE_TOOL,
    "function": message_pb2.ROLE_TOOL,
}
EFFORTS = {
    name: getattr(generation_pb2, f"REASONING_EFFORT_{name.upper()}")
    for name in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
}
#: What thinking without a word for how much is.
_USUAL = "medium"
VERBOSITY = {name: getattr(generation_pb2, f"VERBOSITY_{name.upper()}") for name in ("low", "medium", "high")}
DETAIL = {name: getattr(message_pb2, f"MEDIA_DETAIL_{name.upper()}") for name in ("low", "high")}
MODES = {
    "auto": completion_pb2.TOOL_CHOICE_MODE_AUTO,
    "none": completion_pb2.TOOL_CHOICE_MODE_NONE,
    "required": completion_pb2.TOOL_CHOICE_MODE_REQUIRED,
    "any": completion_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
_TTLS = {"5m": message_pb2.CACHE_TTL_5M, "1h": message_pb2.CACHE_TTL_1H}
#: Body member to field of GenerationParams, and what its value must be.
_PARAMS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "max_tokens": ("max_output_tokens", int),
    "max_completion_tokens": ("max_output_tokens", int),
    "temperature": ("temperature", (int, float)),
    "top_p": ("top_p", (int, float)),
    "top_k": ("top_k", int),
    "min_p": ("min_p", (int, float)),
    "frequency_penalty": ("frequency_penalty", (int, float)),
    "presence_penalty": ("presence_penalty", (int, float)),
    "repetition_penalty": ("repetition_penalty", (int, float)),
    "seed": ("seed", int),
    "random_seed": ("seed", int),
    "logprobs": ("logprobs", bool),
    "top_logprobs": ("top_logprobs", int),
    "n": ("n", int),
    "service_tier": ("service_tier", str),
    "parallel_tool_calls": ("parallel_tool_calls", bool),
}


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    spec = completion_pb2.CompletionSpec()
    for message in request["messages"]:
        _message(message, spec.messages.add())
    for tool in request.get("tools") or ():
        read_tool(tool, spec.tools.add())
    for function in request.get("functions") or ():
        _function(function, spec.tools.add().function)
    _tool_choice(request.get("tool_choice") or request.get("function_call"), spec)
    _format(request.get("response_format"), spec)
    _params(request, spec.params)
    for name in ("user", "safety_identifier"):
        if isinstance(request.get(name), str) and request[name]:
            spec.end_user_id = request[name]
    if isinstance(request.get("grammar"), str):
        spec.response_format.grammar.ebnf = request["grammar"]
    if isinstance(request.get("store"), bool):
        spec.store = request["store"]
    audio = request.get("audio")
    if isinstance(audio, dict):
        spec.audio_output.voice, spec.audio_output.format = str(audio["voice"]), audio["format"]
    return spec


def _message(message: Mapping[str, Any], into: message_pb2.Message) -> None:
    into.role = _ROLES[message["role"]]
    if into.role == message_pb2.ROLE_TOOL:
        result = into.parts.add().tool_result
        result.tool_call_id = message.get("tool_call_id") or message.get("name") or ""
        result.name = message.get("name") or ""
        result.parts.extend(_contents(message.get("content")))
        return
    if message.get("name"):
        into.name = message["name"]
    if into.role == message_pb2.ROLE_ASSISTANT:
        _thoughts(message, into)
    into.parts.extend(_contents(message.get("content")))
    if message.get("refusal"):
        into.parts.add().refusal.text = message["refusal"]
    calls = message.get("tool_calls") or ()
    for call in calls:
        made = into.parts.add().tool_call
        made.id = call.get("id") or ""
        function = call.get("function") or call.get("custom") or {}
        made.name = function["name"]
        made.arguments_json = _text(function.get("arguments") or function.get("input") or "")
    function_call = message.get("function_call")
    if function_call:
        made = into.parts.add().tool_call
        made.id = made.name = function_call["name"]
        made.arguments_json = _text(function_call.get("arguments") or "")


def _thoughts(message: Mapping[str, Any], into: message_pb2.Message) -> None:
    """Thoughts that go back: OpenRouter's details say the same as its plain text, and more."""
    details = message.get("reasoning_details")
    for detail in details if isinstance(details, list) else ():
        part = into.parts.add()
        if detail["type"] == "reasoning.encrypted":
            part.reasoning.encrypted = json.dumps(detail)
            continue
        summary = detail["type"] == "reasoning.summary"
        part.reasoning.is_summary = summary
        part.reasoning.text = detail["summary" if summary else "text"] or ""
        if detail.get("signature"):
            part.signature = detail["signature"]
        if detail.get("id"):
            part.item_id = detail["id"]
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if not details and isinstance(reasoning, str) and reasoning:
        into.parts.add().reasoning.text = reasoning


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _contents(content: Any) -> list[ContentPart]:
    if content is None:
        return []
    if isinstance(content, str):
        return [ContentPart(text=message_pb2.Text(text=content))]
    return [read_part(item) for item in content]


def read_part(item: Mapping[str, Any] | str) -> ContentPart:
    part = ContentPart()
    if isinstance(item, str):
        part.text.text = item
        return part
    fill = _PARTS.get(item.get("type", ""))
    if fill is None:
        raise ValueError(f"no part of the contract for content of type {item.get('type')!r}")
    cache_mark(item, part)
    fill(item, part)
    return part


def _said(item: Mapping[str, Any], part: ContentPart) -> None:
    part.text.text = item["text"]


def _refused(item: Mapping[str, Any], part: ContentPart) -> None:
    part.refusal.text = item["refusal"]


def _thinking(item: Mapping[str, Any], part: ContentPart) -> None:
    thinking = item["thinking"]
    part.reasoning.text = "".join(t["text"] for t in thinking) if isinstance(thinking, list) else thinking


def _image(item: Mapping[str, Any], part: ContentPart) -> None:
    image = item["image_url"]
    image = {"url": image} if isinstance(image, str) else image
    media(image["url"], part.image, "image/png")
    part.image.detail = DETAIL.get(image.get("detail", ""), 0)


def _sound(item: Mapping[str, Any], part: ContentPart) -> None:
    """Base64 with its format, or, at Mistral, alone."""
    sound = item["input_audio"]
    told = {"data": sound, "format": "mpeg"} if isinstance(sound, str) else sound
    part.audio.data = base64.b64decode(told["data"])
    part.audio.mime_type = f"audio/{told['format']}"


def _film(item: Mapping[str, Any], part: ContentPart) -> None:
    media(item["video_url"]["url"], part.video, "video/mp4")


def _document(item: Mapping[str, Any], part: ContentPart) -> None:
    media(item["document_url"], part.document, "application/pdf")
    if item.get("document_name"):
        part.document.filename = item["document_name"]


def _perplexity_file(item: Mapping[str, Any], part: ContentPart) -> None:
    """An address, or base64 without more."""
    url = item["file_url"]["url"]
    if "://" in url:
        part.document.uri = url
    else:
        media(f"data:application/octet-stream;base64,{url}", part.document, "")
    if item.get("file_name"):
        part.document.filename = item["file_name"]


def _file(item: Mapping[str, Any], part: ContentPart) -> None:
    file = item.get("file", item)
    if file.get("file_id"):
        part.document.file_id = file["file_id"]
    else:
        media(file["file_data"], part.document, "application/pdf")
    if file.get("filename"):
        part.document.filename = file["filename"]


_PARTS: Mapping[str, Callable[[Mapping[str, Any], ContentPart], None]] = {
    "text": _said,
    "refusal": _refused,
    "thinking": _thinking,
    "image_url": _image,
    "input_audio": _sound,
    "video_url": _film,
    "document_url": _document,
    "file_url": _perplexity_file,
    "file": _file,
}


def cache_mark(item: Mapping[str, Any], into: ContentPart | completion_pb2.Tool) -> None:
    """The mark of Anthropic's that OpenRouter and some others take."""
    mark = item.get("cache_control")
    if isinstance(mark, dict):
        into.cache_control.ttl = _TTLS.get(mark.get("ttl", ""), message_pb2.CACHE_TTL_UNSPECIFIED)
        into.cache_control.SetInParent()


def media(url: str, into: message_pb2.Media, default: str) -> None:
    """A data: URL as bytes, any other address as it is."""
    head, comma, data = url.partition(",")
    if not (url.startswith("data:") and comma):
        into.uri = url
        return
    into.mime_type = head[5:].partition(";")[0] or default
    try:
        into.data = base64.b64decode(data, validate=False)
    except binascii.Error:
        into.data = data.encode()


def read_tool(tool: Mapping[str, Any], into: completion_pb2.Tool) -> None:
    cache_mark(tool, into)
    if tool.get("type", "function") == "function" and "function" in tool:
        _function(tool["function"], into.function)
        return
    into.provider.type = tool["type"]
    into.provider.config_json = json.dumps({name: value for name, value in tool.items() if name != "type"})


def _function(function: Mapping[str, Any], into: completion_pb2.FunctionTool) -> None:
    into.name = function["name"]
    into.description = function.get("description") or ""
    if function.get("parameters") is not None:
        into.parameters_json_schema = json.dumps(function["parameters"])
    if isinstance(function.get("strict"), bool):
        into.strict = function["strict"]


def _tool_choice(choice: Any, spec: completion_pb2.CompletionSpec) -> None:
    if isinstance(choice, str) and choice in MODES:
        spec.tool_choice.mode = MODES[choice]
    elif isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            allowed = choice["allowed_tools"]
            spec.tool_choice.allowed.tool_names.extend(t["function"]["name"] for t in allowed["tools"])
            spec.tool_choice.allowed.mode = MODES[allowed["mode"]]
        else:
            spec.tool_choice.tool_name = (choice.get("function") or choice)["name"]


def _format(asked: Any, spec: completion_pb2.CompletionSpec) -> None:
    if not isinstance(asked, dict):
        return
    into = spec.response_format
    if asked.get("type") == "json_object":
        into.json_object.SetInParent()
    elif asked.get("type") == "json_schema":
        schema = asked["json_schema"]
        into.json_schema.name = schema.get("name") or ""
        into.json_schema.description = schema.get("description") or ""
        into.json_schema.json_schema = json.dumps(schema.get("schema", {}))
        if isinstance(schema.get("strict"), bool):
            into.json_schema.strict = schema["strict"]
    else:
        into.text.SetInParent()


def _params(request: Mapping[str, Any], into: generation_pb2.GenerationParams) -> None:
    for name, (field, types) in _PARAMS.items():
        value = request.get(name)
        if value is not None and isinstance(value, types) and not (types is int and isinstance(value, bool)):
            setattr(into, field, value)
    stop = request.get("stop")
    into.stop_sequences.extend([stop] if isinstance(stop, str) else stop or ())
    for token, bias in (request.get("logit_bias") or {}).items():
        into.logit_bias[token] = bias
    _reasoning(request, into)
    if request.get("verbosity") in VERBOSITY:
        into.verbosity = VERBOSITY[request["verbosity"]]


def _reasoning(request: Mapping[str, Any], into: generation_pb2.GenerationParams) -> None:
    """How much to think, in the words of whichever provider was asked."""
    asked = request.get("reasoning")
    asked = asked if isinstance(asked, dict) else {}
    effort = request.get("reasoning_effort") or asked.get("effort")
    if effort in EFFORTS or effort == "default":
        into.reasoning.effort = EFFORTS[_USUAL if effort == "default" else effort]
    elif isinstance(asked.get("max_tokens"), int):
        into.reasoning.budget_tokens = asked["max_tokens"]
    elif asked.get("enabled") is True:
        into.reasoning.effort = EFFORTS[_USUAL]
    thinking = request.get("thinking")
    switch = thinking.get("type") if isinstance(thinking, dict) else None
    if switch == "disabled":
        into.reasoning.effort = EFFORTS["none"]
    elif switch == "enabled":
        into.reasoning.include = True
    shown = {"parsed": True, "hidden": False}.get(request.get("reasoning_format", ""), request.get("include_reasoning"))
    if "exclude" in asked:
        shown = not asked["exclude"]
    if isinstance(shown, bool):
        into.reasoning.include = shown

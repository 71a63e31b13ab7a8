"""A recorded Anthropic Messages request as a CompletionSpec."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2

ContentPart = message_pb2.ContentPart

_ROLES = {"user": message_pb2.ROLE_USER, "assistant": message_pb2.ROLE_ASSISTANT, "system": message_pb2.ROLE_SYSTEM}
_TTLS = {"5m": message_pb2.CACHE_TTL_5M, "1h": message_pb2.CACHE_TTL_1H}
_PARAMS = {
    "max_tokens": "max_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "service_tier": "service_tier",
}
_EFFORTS = {
    name: getattr(generation_pb2, f"REASONING_EFFORT_{name.upper()}")
    for name in ("low", "medium", "high", "xhigh", "max")
}
#: What the contract has words for in a tool of the caller's.
_FUNCTION = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_MODES = {
    "auto": completion_pb2.TOOL_CHOICE_MODE_AUTO,
    "any": completion_pb2.TOOL_CHOICE_MODE_REQUIRED,
    "none": completion_pb2.TOOL_CHOICE_MODE_NONE,
}


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    spec = completion_pb2.CompletionSpec()
    system = request.get("system")
    if system:
        message = spec.messages.add(role=message_pb2.ROLE_SYSTEM)
        message.parts.extend(_contents(system))
    names: dict[str, str] = {}
    for turn in request["messages"]:
        _turn(turn, spec, names)
    for tool in request.get("tools") or ():
        _tool(tool, spec.tools.add())
    _tool_choice(request.get("tool_choice"), spec)
    _params(request, spec)
    return spec


def _turn(turn: Mapping[str, Any], spec: completion_pb2.CompletionSpec, names: dict[str, str]) -> None:
    """A user turn with tool results becomes a tool message followed by what else the user said."""
    role = _ROLES[turn["role"]]
    parts = _contents(turn["content"])
    results = [part for part in parts if part.WhichOneof("kind") == "tool_result"]
    others = [part for part in parts if part.WhichOneof("kind") != "tool_result"]
    for part in parts:
        if part.WhichOneof("kind") == "tool_call":
            names[part.tool_call.id] = part.tool_call.name
    if results:
        for part in results:
            part.tool_result.name = names.get(part.tool_result.tool_call_id, "")
        spec.messages.add(role=message_pb2.ROLE_TOOL).parts.extend(results)
    if others or not results:
        spec.messages.add(role=role).parts.extend(others)


def _contents(content: Any) -> list[ContentPart]:
    if isinstance(content, str):
        return [ContentPart(text=message_pb2.Text(text=content))]
    return [_part(block) for block in content or ()]


def _part(block: Mapping[str, Any]) -> ContentPart:
    part = ContentPart()
    mark = block.get("cache_control")
    if isinstance(mark, dict):
        part.cache_control.ttl = _TTLS.get(mark.get("ttl", ""), message_pb2.CACHE_TTL_UNSPECIFIED)
        part.cache_control.SetInParent()
    fill = _BLOCKS.get(block["type"])
    if fill is None:
        part.opaque.type = block["type"]
        part.opaque.json = json.dumps(block)
    else:
        fill(block, part)
    return part


def _text(block: Mapping[str, Any], part: ContentPart) -> None:
    part.text.text = block["text"]
    for citation in block.get("citations") or ():
        part.text.citations.add(raw_json=json.dumps(citation), cited_text=citation.get("cited_text") or "")


def _thinking(block: Mapping[str, Any], part: ContentPart) -> None:
    part.reasoning.text = block["thinking"]
    if block.get("signature"):
        part.signature = block["signature"]


def _redacted(block: Mapping[str, Any], part: ContentPart) -> None:
    part.reasoning.redacted = True
    part.reasoning.encrypted = block["data"]


def _tool_use(block: Mapping[str, Any], part: ContentPart) -> None:
    part.tool_call.id, part.tool_call.name = block["id"], block["name"]
    part.tool_call.arguments_json = json.dumps(block.get("input") or {})


def _tool_result(block: Mapping[str, Any], part: ContentPart) -> None:
    part.tool_result.tool_call_id = block["tool_use_id"]
    part.tool_result.is_error = bool(block.get("is_error"))
    part.tool_result.parts.extend(_contents(block.get("content")))


def _image(block: Mapping[str, Any], part: ContentPart) -> None:
    _media(block["source"], part.image)


def _document(block: Mapping[str, Any], part: ContentPart) -> None:
    source = block["source"]
    if source["type"] == "text":
        part.document.data = source["data"].encode()
        part.document.mime_type = source.get("media_type") or "text/plain"
    elif source["type"] == "content":
        raise ValueError("no part of the contract for a document made of blocks")
    else:
        _media(source, part.document)
    if block.get("title"):
        part.document.filename = block["title"]


def _media(source: Mapping[str, Any], into: message_pb2.Media) -> None:
    if source["type"] == "base64":
        into.data = base64.b64decode(source["data"])
        into.mime_type = source["media_type"]
    elif source["type"] == "file":
        into.file_id = source["file_id"]
    else:
        into.uri = source["url"]


_BLOCKS = {
    "text": _text,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "image": _image,
    "document": _document,
}


def _tool(tool: Mapping[str, Any], into: completion_pb2.Tool) -> None:
    if isinstance(tool.get("cache_control"), dict):
        into.cache_control.ttl = _TTLS.get(tool["cache_control"].get("ttl", ""), message_pb2.CACHE_TTL_UNSPECIFIED)
        into.cache_control.SetInParent()
    if tool.get("type", "custom") != "custom" or not tool.keys() <= _FUNCTION or "input_schema" not in tool:
        # A tool of the provider, or one that says more than the contract has words for: verbatim.
        into.provider.type = tool.get("type", "custom")
        rest = {name: value for name, value in tool.items() if name not in ("type", "cache_control")}
        into.provider.config_json = json.dumps(rest)
        return
    into.function.name = tool["name"]
    into.function.description = tool.get("description") or ""
    into.function.parameters_json_schema = json.dumps(tool["input_schema"])
    if isinstance(tool.get("strict"), bool):
        into.function.strict = tool["strict"]


def _tool_choice(choice: Any, spec: completion_pb2.CompletionSpec) -> None:
    if not isinstance(choice, dict):
        return
    if choice["type"] == "tool":
        spec.tool_choice.tool_name = choice["name"]
    elif choice["type"] in _MODES:
        spec.tool_choice.mode = _MODES[choice["type"]]
    if choice.get("disable_parallel_tool_use"):
        spec.params.parallel_tool_calls = False


def _params(request: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    for name, field in _PARAMS.items():
        if request.get(name) is not None:
            setattr(spec.params, field, request[name])
    spec.params.stop_sequences.extend(request.get("stop_sequences") or ())
    thinking = request.get("thinking") or {}
    if thinking.get("type") == "enabled":
        spec.params.reasoning.budget_tokens = thinking["budget_tokens"]
    elif thinking.get("type") == "adaptive":
        # The provider's default, where output_config says nothing else.
        spec.params.reasoning.effort = _EFFORTS["high"]
    elif thinking.get("type") == "disabled":
        spec.params.reasoning.effort = generation_pb2.REASONING_EFFORT_NONE
    if thinking.get("display"):
        spec.params.reasoning.include = thinking["display"] != "omitted"
    config = request.get("output_config") or {}
    if config.get("effort") in _EFFORTS:
        spec.params.reasoning.effort = _EFFORTS[config["effort"]]
    asked = config.get("format") or request.get("output_format") or {}
    if asked.get("type") == "json_schema":
        spec.response_format.json_schema.json_schema = json.dumps(asked["schema"])
    user = (request.get("metadata") or {}).get("user_id")
    if isinstance(user, str) and user:
        spec.end_user_id = user

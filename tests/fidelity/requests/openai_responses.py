"""A recorded Responses request as a CompletionSpec."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fidelity.requests.openai_chat import DETAIL, EFFORTS, MODES, VERBOSITY, media

from trunkline.v1 import completion_pb2, message_pb2

ContentPart = message_pb2.ContentPart

_ROLES = {
    "system": message_pb2.ROLE_SYSTEM,
    "developer": message_pb2.ROLE_DEVELOPER,
    "user": message_pb2.ROLE_USER,
    "assistant": message_pb2.ROLE_ASSISTANT,
}
#: Body member to field of GenerationParams, and what its value must be.
_PARAMS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "max_output_tokens": ("max_output_tokens", int),
    "temperature": ("temperature", (int, float)),
    "top_p": ("top_p", (int, float)),
    "top_logprobs": ("top_logprobs", int),
    "service_tier": ("service_tier", str),
    "parallel_tool_calls": ("parallel_tool_calls", bool),
}
#: Members of a function that the contract has words for.
_FUNCTION = frozenset({"type", "name", "description", "parameters", "strict"})
#: Members of a call that are the provider's, to go back with it.
_MARKS = ("namespace", "caller")
#: Items that the model made although they are none of ours: they stand in its turn.
_OF_THE_MODEL = ("_call", "reasoning", "compaction", "program", "mcp_list_tools", "mcp_approval_request")


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    spec = completion_pb2.CompletionSpec()
    if request.get("instructions"):
        spec.messages.add(role=message_pb2.ROLE_SYSTEM).parts.add().text.text = request["instructions"]
    items = request.get("input") or []
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    for item in items:
        _ITEMS.get(_type_of(item), _opaque)(item, spec)
    for tool in request.get("tools") or ():
        _tool(tool, spec.tools.add())
    _tool_choice(request.get("tool_choice"), spec)
    _text(request.get("text"), spec)
    _params(request, spec)
    for name in ("user", "safety_identifier"):
        if isinstance(request.get(name), str) and request[name]:
            spec.end_user_id = request[name]
    if isinstance(request.get("store"), bool):
        spec.store = request["store"]
    if request.get("previous_response_id"):
        spec.previous_response_id = request["previous_response_id"]
    if isinstance(request.get("max_tool_calls"), int):
        spec.max_tool_calls = request["max_tool_calls"]
    return spec


def _type_of(item: Mapping[str, Any]) -> str:
    return item.get("type") or ("reasoning" if "summary" in item else "message")


# -- items ------------------------------------------------------------------------------------------------------------


def _message(item: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    said: Any = item.get("content")
    content = [said] if isinstance(said, str) else said
    if item["role"] == "assistant":
        parts = [_part(piece) for piece in content]
        for part in parts:
            if item.get("id"):
                part.item_id = item["id"]
        if item.get("phase"):
            parts[-1].signature = json.dumps({"phase": item["phase"]})
        spec.messages.add(role=message_pb2.ROLE_ASSISTANT).parts.extend(parts)
        return
    message = spec.messages.add(role=_ROLES[item["role"]])
    message.parts.extend(_part(piece) for piece in content)


def _turn(spec: completion_pb2.CompletionSpec, role: message_pb2.Role.ValueType) -> message_pb2.Message:
    """The turn that the next part belongs to: items of one turn follow each other."""
    if spec.messages and spec.messages[-1].role == role:
        return spec.messages[-1]
    return spec.messages.add(role=role)


def _part(piece: Mapping[str, Any] | str) -> ContentPart:
    part = ContentPart()
    if isinstance(piece, str):
        part.text.text = piece
        return part
    kind = piece["type"]
    if isinstance(piece.get("prompt_cache_breakpoint"), dict):
        part.cache_control.SetInParent()
    if kind in ("input_text", "output_text", "text"):
        part.text.text = piece["text"]
        for annotation in piece.get("annotations") or ():
            part.text.citations.add(raw_json=json.dumps(annotation))
    elif kind == "refusal":
        part.refusal.text = piece["refusal"]
    elif kind in _MEDIA:
        _MEDIA[kind](piece, part)
    else:
        raise ValueError(f"no part of the contract for content of type {kind!r}")
    return part


def _image(piece: Mapping[str, Any], part: ContentPart) -> None:
    part.image.detail = DETAIL.get(piece.get("detail") or "", 0)
    if piece.get("file_id"):
        part.image.file_id = piece["file_id"]
    else:
        media(piece["image_url"], part.image, "image/png")


def _audio(piece: Mapping[str, Any], part: ContentPart) -> None:
    sound = piece["input_audio"]
    part.audio.data = base64.b64decode(sound["data"])
    part.audio.mime_type = f"audio/{sound['format']}"


def _file(piece: Mapping[str, Any], part: ContentPart) -> None:
    if piece.get("file_id"):
        part.document.file_id = piece["file_id"]
    else:
        media(piece.get("file_data") or piece["file_url"], part.document, "application/pdf")
    if piece.get("filename"):
        part.document.filename = piece["filename"]


_MEDIA: Mapping[str, Callable[[Mapping[str, Any], ContentPart], None]] = {
    "input_image": _image,
    "input_audio": _audio,
    "input_file": _file,
}


def _reasoning(item: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    message = _turn(spec, message_pb2.ROLE_ASSISTANT)
    made = []
    for texts, is_summary in ((item.get("summary"), True), (item.get("content"), False)):
        for text in texts or ():
            part = message.parts.add()
            part.reasoning.text, part.reasoning.is_summary = text["text"], is_summary
            made.append(part)
    if not made:
        made.append(message.parts.add())
        made[0].reasoning.SetInParent()
    if item.get("encrypted_content"):
        made[-1].reasoning.encrypted = item["encrypted_content"]
    for part in made:
        if item.get("id"):
            part.item_id = item["id"]


def _call(item: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    part = _turn(spec, message_pb2.ROLE_ASSISTANT).parts.add()
    part.tool_call.id, part.tool_call.name = item["call_id"], item["name"]
    part.tool_call.arguments_json = item["input"] if "input" in item else item["arguments"]
    marks = {name: item[name] for name in _MARKS if item.get(name)}
    if item["type"] != "function_call":
        marks["type"] = item["type"]
    if marks:
        part.signature = json.dumps(marks)
    if item.get("id"):
        part.item_id = item["id"]


def _result(item: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    result = _turn(spec, message_pb2.ROLE_TOOL).parts.add().tool_result
    result.tool_call_id = item["call_id"]
    output = item["output"]
    if output:
        result.parts.extend(_part(piece) for piece in ([output] if isinstance(output, str) else output))


def _opaque(item: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    """An item that the contract does not model, in the turn of who made it."""
    kind = item["type"]
    of_the_model = kind.endswith(_OF_THE_MODEL) or (kind.endswith("_output") and item.get("id"))
    role = message_pb2.ROLE_ASSISTANT if of_the_model else _ROLES.get(item.get("role") or "user", message_pb2.ROLE_USER)
    part = _turn(spec, role).parts.add()
    part.opaque.type, part.opaque.json = kind, json.dumps(item)
    if item.get("id"):
        part.item_id = item["id"]


_ITEMS: Mapping[str, Callable[[Mapping[str, Any], completion_pb2.CompletionSpec], None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "custom_tool_call": _call,
    "function_call_output": _result,
    "custom_tool_call_output": _result,
}


# -- the rest ---------------------------------------------------------------------------------------------------------


def _tool(tool: Mapping[str, Any], into: completion_pb2.Tool) -> None:
    if tool["type"] != "function" or not _FUNCTION.issuperset(tool):
        # Members that the contract has no words for (defer_loading) make it the provider's.
        into.provider.type = tool["type"]
        into.provider.config_json = json.dumps({name: value for name, value in tool.items() if name != "type"})
        return
    into.function.name = tool["name"]
    into.function.description = tool.get("description") or ""
    if tool.get("parameters") is not None:
        into.function.parameters_json_schema = json.dumps(tool["parameters"])
    if isinstance(tool.get("strict"), bool):
        into.function.strict = tool["strict"]


def _tool_choice(choice: Any, spec: completion_pb2.CompletionSpec) -> None:
    if isinstance(choice, str):
        spec.tool_choice.mode = MODES[choice]
    elif isinstance(choice, dict):
        if choice["type"] == "allowed_tools":
            spec.tool_choice.allowed.tool_names.extend(_name_of(tool) for tool in choice["tools"])
            spec.tool_choice.allowed.mode = MODES[choice["mode"]]
        else:
            spec.tool_choice.tool_name = _name_of(choice)


def _name_of(tool: Mapping[str, Any]) -> str:
    return str(tool.get("name") or tool.get("server_label") or tool["type"])


def _text(asked: Any, spec: completion_pb2.CompletionSpec) -> None:
    if not isinstance(asked, dict):
        return
    if asked.get("verbosity") in VERBOSITY:
        spec.params.verbosity = VERBOSITY[asked["verbosity"]]
    format_ = asked.get("format") or {}
    into = spec.response_format
    if format_.get("type") == "json_object":
        into.json_object.SetInParent()
    elif format_.get("type") == "json_schema":
        into.json_schema.name = format_.get("name") or ""
        into.json_schema.description = format_.get("description") or ""
        into.json_schema.json_schema = json.dumps(format_.get("schema", {}))
        if isinstance(format_.get("strict"), bool):
            into.json_schema.strict = format_["strict"]


def _params(request: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    for name, (field, types) in _PARAMS.items():
        value = request.get(name)
        if value is not None and isinstance(value, types) and not (types is int and isinstance(value, bool)):
            setattr(spec.params, field, value)
    if "message.output_text.logprobs" in (request.get("include") or ()) and not request.get("top_logprobs"):
        spec.params.logprobs = True
    reasoning = request.get("reasoning")
    if isinstance(reasoning, dict):
        if reasoning.get("effort") in EFFORTS:
            spec.params.reasoning.effort = EFFORTS[reasoning["effort"]]
        if reasoning.get("summary"):
            spec.params.reasoning.include = True

"""A recorded Converse request, or one of Bedrock's that holds another wire's, as a CompletionSpec."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fidelity.requests import anthropic_messages, openai_chat

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline_server.providers.dialects.bedrock_converse.content import FORMATS

ContentPart = message_pb2.ContentPart

_ROLES = {"user": message_pb2.ROLE_USER, "assistant": message_pb2.ROLE_ASSISTANT, "system": message_pb2.ROLE_SYSTEM}
_TTLS = {"5m": message_pb2.CACHE_TTL_5M, "1h": message_pb2.CACHE_TTL_1H}
_EFFORTS = {
    name: getattr(generation_pb2, f"REASONING_EFFORT_{name.upper()}")
    for name in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
}
#: Media types by kind of part and `format`; of several the first is the usual one.
_MIME = {kind: {form: mime for mime, form in reversed(list(formats.items()))} for kind, formats in FORMATS.items()}
#: Members of a document that the contract has no word for.
_UNSAID = frozenset({"citations", "context"})


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    if "input" in request:
        return _counted(request["input"])
    spec = completion_pb2.CompletionSpec()
    if request.get("system"):
        spec.messages.add(role=message_pb2.ROLE_SYSTEM).parts.extend(_contents(request["system"]))
    names: dict[str, str] = {}
    for turn in request["messages"]:
        _turn(turn, spec, names)
    _tools(request.get("toolConfig") or {}, spec)
    _params(request, spec)
    return spec


def invoked(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """The same for InvokeModel, whose body is in the model's own wire."""
    if "anthropic_version" in request:
        return anthropic_messages.spec_from(request)
    content = request["messages"][0]["content"]
    if isinstance(content, list) and "type" not in content[0]:
        return spec_from(request)
    return openai_chat.spec_from(request)


def _counted(asked: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """The same for CountTokens, which holds a request of either."""
    if "converse" in asked:
        return spec_from(asked["converse"])
    return invoked(json.loads(base64.b64decode(asked["invokeModel"]["body"])))


def _turn(turn: Mapping[str, Any], spec: completion_pb2.CompletionSpec, names: dict[str, str]) -> None:
    """A user turn with tool results becomes a tool message followed by what else the user said."""
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
        spec.messages.add(role=_ROLES[turn["role"]]).parts.extend(others)


def _contents(blocks: Any) -> list[ContentPart]:
    """The parts; a mark of a cached prefix belongs to the one before it."""
    parts: list[ContentPart] = []
    for block in blocks:
        if "cachePoint" in block:
            if parts:
                _mark(block["cachePoint"], parts[-1].cache_control)
            continue
        parts.append(_part(block))
    return parts


def _mark(mark: Mapping[str, Any], into: message_pb2.CacheControl) -> None:
    into.ttl = _TTLS.get(mark.get("ttl", ""), message_pb2.CACHE_TTL_UNSPECIFIED)
    into.SetInParent()


def _part(block: Mapping[str, Any]) -> ContentPart:
    part = ContentPart()
    name = next((name for name in block if name in _BLOCKS), "")
    value = block.get(name)
    if name and not _is_unsaid(name, value):
        _BLOCKS[name](value, part)
        return part
    part.opaque.type = next(iter(block))
    part.opaque.json = json.dumps(block)
    return part


def _is_unsaid(name: str, value: Any) -> bool:
    """Is it what a tool of AWS's did, or a document that is to be cited?"""
    if not isinstance(value, dict):
        return False
    if name == "toolResult":
        return "type" in value
    return value.get("type") == "server_tool_use" or bool(value.keys() & _UNSAID)


def _text(text: Any, part: ContentPart) -> None:
    part.text.text = text


def _media(kind: str) -> Callable[[Any, ContentPart], None]:
    def fill(block: Any, part: ContentPart) -> None:
        media: message_pb2.Media = getattr(part, kind)
        media.mime_type = _MIME[kind][block["format"]]
        source = block["source"]
        if "bytes" in source:
            media.data = base64.b64decode(source["bytes"], validate=True)
        elif "text" in source:
            media.data = source["text"].encode()
        else:
            place = source["s3Location"]
            owner = place.get("bucketOwner")
            media.uri = place["uri"] + (f"?bucketOwner={owner}" if owner else "")
        if block.get("name"):
            media.filename = block["name"]

    return fill


def _tool_use(block: Any, part: ContentPart) -> None:
    part.tool_call.id, part.tool_call.name = block["toolUseId"], block["name"]
    part.tool_call.arguments_json = json.dumps(block.get("input") or {})


def _tool_result(block: Any, part: ContentPart) -> None:
    part.tool_result.tool_call_id = block["toolUseId"]
    part.tool_result.is_error = block.get("status") == "error"
    # JSON goes as text: results have no other part for it.
    said = [{"text": json.dumps(each["json"])} if "json" in each else each for each in block.get("content") or ()]
    part.tool_result.parts.extend(_contents(said))


def _reasoning(block: Any, part: ContentPart) -> None:
    if "redactedContent" in block:
        part.reasoning.redacted, part.reasoning.encrypted = True, block["redactedContent"]
        return
    part.reasoning.text = block["reasoningText"]["text"]
    if block["reasoningText"].get("signature"):
        part.signature = block["reasoningText"]["signature"]


def _cited(block: Any, part: ContentPart) -> None:
    part.text.text = "".join(said["text"] for said in block.get("content") or ())
    for citation in block.get("citations") or ():
        part.text.citations.add(raw_json=json.dumps(citation))


_BLOCKS: Mapping[str, Callable[[Any, ContentPart], None]] = {
    "text": _text,
    "image": _media("image"),
    "document": _media("document"),
    "video": _media("video"),
    "audio": _media("audio"),
    "toolUse": _tool_use,
    "toolResult": _tool_result,
    "reasoningContent": _reasoning,
    "citationsContent": _cited,
}


def _tools(config: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    for tool in config.get("tools") or ():
        if "cachePoint" in tool:
            _mark(tool["cachePoint"], spec.tools[-1].cache_control)
        elif "systemTool" in tool:
            spec.tools.add().provider.type = tool["systemTool"]["name"]
        else:
            made = spec.tools.add().function
            told = tool["toolSpec"]
            made.name, made.description = told["name"], told.get("description") or ""
            made.parameters_json_schema = json.dumps(told["inputSchema"]["json"])
            if isinstance(told.get("strict"), bool):
                made.strict = told["strict"]
    choice = config.get("toolChoice") or {}
    if "tool" in choice:
        spec.tool_choice.tool_name = choice["tool"]["name"]
    elif "any" in choice:
        spec.tool_choice.mode = completion_pb2.TOOL_CHOICE_MODE_REQUIRED
    elif "auto" in choice:
        spec.tool_choice.mode = completion_pb2.TOOL_CHOICE_MODE_AUTO


def _params(request: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    inference = request.get("inferenceConfig") or {}
    more = request.get("additionalModelRequestFields") or {}
    asked = {
        "max_output_tokens": inference.get("maxTokens", inference.get("max_new_tokens")),
        "temperature": inference.get("temperature"),
        "top_p": inference.get("topP"),
        "top_k": more.get("top_k", more.get("k", (more.get("inferenceConfig") or inference).get("topK"))),
        "service_tier": (request.get("serviceTier") or {}).get("type"),
    }
    for name, value in asked.items():
        if value is not None:
            setattr(spec.params, name, value)
    spec.params.stop_sequences.extend(inference.get("stopSequences") or ())
    _thinking(more, spec)
    asked_format = (request.get("outputConfig") or {}).get("textFormat") or {}
    if asked_format.get("type") == "json_schema":
        schema = asked_format["structure"]["jsonSchema"]
        made = spec.response_format.json_schema
        made.json_schema, made.name = schema["schema"], schema.get("name") or ""
        made.description = schema.get("description") or ""


def _thinking(more: Mapping[str, Any], spec: completion_pb2.CompletionSpec) -> None:
    reasoning = spec.params.reasoning
    thinking = more.get("thinking") or _object(more.get("reasoning_config"))
    nova = more.get("reasoningConfig") or {}
    word = (
        (more.get("output_config") or {}).get("effort")
        or nova.get("maxReasoningEffort")
        or next(
            (more[name] for name in ("reasoning_effort", "reasoning_config") if isinstance(more.get(name), str)), ""
        )
    )
    if thinking.get("type") == "adaptive":
        word = word or "high"
    if thinking.get("type") == "disabled" or nova.get("type") == "disabled":
        word = "none"
    if word in _EFFORTS:
        reasoning.effort = _EFFORTS[word]
    if thinking.get("type") == "enabled":
        reasoning.budget_tokens = thinking["budget_tokens"]
    if thinking.get("display") in ("summarized", "omitted"):
        reasoning.include = thinking["display"] == "summarized"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

"""What was said, in the shape that OpenTelemetry's conventions have for it. Only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server.telemetry import genai

#: Most characters of one attribute; what is longer is cut, which `trunkline.content.truncated` tells.
MOST_CHARACTERS = 256 * 1024

Part = dict[str, Any]

_ROLES = {
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_ASSISTANT: "assistant",
    message_pb2.ROLE_TOOL: "tool",
}


def content_of(trace: trace_pb2.Trace) -> genai.Attributes:
    """Attributes of the call's span; each is JSON text."""
    spec = trace.completion_spec
    system = [message for message in spec.messages if _ROLES.get(message.role) == "system"]
    instructions = [part for message in system for part in _parts(message.parts)]
    if spec.extra_system_text:
        instructions.append({"type": "text", "content": spec.extra_system_text})
    found: dict[str, Any] = {
        "gen_ai.system_instructions": instructions,
        "gen_ai.input.messages": [_message(message) for message in spec.messages if message not in system],
        "gen_ai.output.messages": [_choice(choice) for choice in trace.completion.choices],
        "gen_ai.tool.definitions": [_tool(tool) for tool in spec.tools],
    }
    if trace.HasField("embedding_spec"):
        found["gen_ai.input.messages"] = [
            {"role": "user", "parts": [{"type": "text", "content": one.text}]} for one in trace.embedding_spec.inputs
        ]
    texts = {name: msgspec.json.encode(value).decode() for name, value in found.items() if value}
    made: genai.Attributes = {name: text[:MOST_CHARACTERS] for name, text in texts.items()}
    if any(len(text) > MOST_CHARACTERS for text in texts.values()):
        made["trunkline.content.truncated"] = True
    return made


def _message(message: message_pb2.Message) -> Mapping[str, Any]:
    made = {"role": _ROLES.get(message.role, "user"), "parts": _parts(message.parts)}
    return {**made, "name": message.name} if message.HasField("name") else made


def _choice(choice: completion_pb2.Choice) -> Mapping[str, Any]:
    [reason] = genai.finish_reasons([choice.finish_reason])
    return {**_message(choice.message), "finish_reason": reason}


def _tool(tool: completion_pb2.Tool) -> Mapping[str, Any]:
    if tool.WhichOneof("kind") == "function":
        function = tool.function
        return {
            "type": "function",
            "name": function.name,
            "description": function.description,
            "parameters": _json(function.parameters_json_schema),
        }
    return {"type": tool.provider.type, "name": tool.provider.type}


def _parts(parts: Iterable[message_pb2.ContentPart]) -> list[Part]:
    return [_PARTS.get(part.WhichOneof("kind") or "", _unknown)(part) for part in parts]


def _media(modality: str, media: message_pb2.Media) -> Part:
    about = {"modality": modality, "mime_type": media.mime_type}
    match media.WhichOneof("source"):
        case "uri":
            return {"type": "uri", **about, "uri": media.uri}
        case "file_id":
            return {"type": "file", **about, "file_id": media.file_id}
    # The bytes would be most of a span; what they were stays in the record that other backends keep.
    return {"type": "media", **about, "bytes": len(media.data)}


def _tool_call(part: message_pb2.ContentPart) -> Part:
    call = part.tool_call
    kind = "server_tool_call" if call.provider_executed else "tool_call"
    arguments = _json(call.arguments_json)
    detail = {"server_tool_call": {"type": call.name, "arguments": arguments}}
    return {
        "type": kind, "id": call.id, "name": call.name,
        **(detail if call.provider_executed else {"arguments": arguments}),
    }  # fmt: skip


def _tool_result(part: message_pb2.ContentPart) -> Part:
    result = part.tool_result
    inner = _parts(result.parts)
    texts = [one["content"] for one in inner if one["type"] == "text"]
    return {
        "type": "tool_call_response",
        "id": result.tool_call_id,
        "response": "".join(texts) if len(texts) == len(inner) else inner,
    }


def _unknown(part: message_pb2.ContentPart) -> Part:
    return {"type": part.WhichOneof("kind") or "unknown"}


_PARTS: Mapping[str, Callable[[message_pb2.ContentPart], Part]] = {
    "text": lambda part: {"type": "text", "content": part.text.text},
    "image": lambda part: _media("image", part.image),
    "audio": lambda part: _media("audio", part.audio),
    "video": lambda part: _media("video", part.video),
    "document": lambda part: _media("document", part.document),
    "tool_call": _tool_call,
    "tool_result": _tool_result,
    "reasoning": lambda part: {"type": "reasoning", "content": part.reasoning.text},
    "refusal": lambda part: {"type": "refusal", "content": part.refusal.text},
    "opaque": lambda part: {"type": part.opaque.type or "opaque"},
}


def _json(text: str) -> Any:
    """The value, or the text where it is none."""
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return text

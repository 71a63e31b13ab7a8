"""A recorded request to Ollama's own chat as a CompletionSpec."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from tests.fidelity.requests import openai_chat

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline_server.providers.ids import made_call_id

_ROLES = {
    "system": message_pb2.ROLE_SYSTEM,
    "user": message_pb2.ROLE_USER,
    "assistant": message_pb2.ROLE_ASSISTANT,
    "tool": message_pb2.ROLE_TOOL,
}
#: Member of `options` to field of GenerationParams.
_OPTIONS = {
    "num_predict": "max_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repetition_penalty",
    "seed": "seed",
}
_LEVELS = {
    "low": generation_pb2.REASONING_EFFORT_LOW,
    "medium": generation_pb2.REASONING_EFFORT_MEDIUM,
    "high": generation_pb2.REASONING_EFFORT_HIGH,
    "max": generation_pb2.REASONING_EFFORT_MAX,
}


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    spec = completion_pb2.CompletionSpec()
    calls = _Calls()
    for message in request["messages"]:
        _message(message, spec.messages.add(), calls)
    for tool in request.get("tools") or ():
        openai_chat.read_tool(tool, spec.tools.add())
    _format(request.get("format"), spec)
    options = request.get("options") or {}
    for name, field in _OPTIONS.items():
        if options.get(name) is not None:
            setattr(spec.params, field, options[name])
    stop = options.get("stop") or ()
    spec.params.stop_sequences.extend([stop] if isinstance(stop, str) else stop)
    for name in ("logprobs", "top_logprobs"):
        if request.get(name) is not None:
            setattr(spec.params, name, request[name])
    _think(request.get("think"), spec.params)
    return spec


class _Calls:
    """Ids for calls that have none, as the gateway makes them; results answer the calls in their order."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[str] = []

    def called(self, call_id: str) -> str:
        self._made += 1
        self._open.append(call_id or made_call_id("recorded", 0, self._made))
        return self._open[-1]

    def answered(self, call_id: str) -> str:
        if call_id or not self._open:
            return call_id or made_call_id("unknown", 0, self._made)
        return self._open.pop(0)


def _message(message: Mapping[str, Any], into: message_pb2.Message, calls: _Calls) -> None:
    into.role = _ROLES[message["role"]]
    if into.role == message_pb2.ROLE_TOOL:
        result = into.parts.add().tool_result
        result.tool_call_id = calls.answered(message.get("tool_call_id") or "")
        result.name = message.get("tool_name") or ""
        _said(message, result)
        return
    if message.get("thinking"):
        into.parts.add().reasoning.text = message["thinking"]
    _said(message, into)
    for call in message.get("tool_calls") or ():
        made = into.parts.add().tool_call
        made.id, made.name = calls.called(call.get("id") or ""), call["function"]["name"]
        made.arguments_json = json.dumps(call["function"].get("arguments") or {})


def _said(message: Mapping[str, Any], into: message_pb2.Message | message_pb2.ToolResult) -> None:
    if message.get("content"):
        into.parts.add().text.text = message["content"]
    for image in message.get("images") or ():
        into.parts.add().image.CopyFrom(message_pb2.Media(data=base64.b64decode(image), mime_type="image/png"))


def _format(asked: Any, spec: completion_pb2.CompletionSpec) -> None:
    if isinstance(asked, dict):
        spec.response_format.json_schema.json_schema = json.dumps(asked)
    elif asked == "json":
        spec.response_format.json_object.SetInParent()


def _think(asked: Any, into: generation_pb2.GenerationParams) -> None:
    if asked is True:
        into.reasoning.include = True
    elif asked is False:
        into.reasoning.effort = generation_pb2.REASONING_EFFORT_NONE
    elif asked is not None:
        into.reasoning.effort = _LEVELS[asked]

"""A recorded request to Cohere's chat as a CompletionSpec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.fidelity.requests import openai_chat

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2

ContentPart = message_pb2.ContentPart

_ROLES = {
    "system": message_pb2.ROLE_SYSTEM,
    "user": message_pb2.ROLE_USER,
    "assistant": message_pb2.ROLE_ASSISTANT,
    "tool": message_pb2.ROLE_TOOL,
}
_MODES = {
    "NONE": completion_pb2.TOOL_CHOICE_MODE_NONE,
    "REQUIRED": completion_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
#: Body member to field of GenerationParams.
_PARAMS = {
    "max_tokens": "max_output_tokens",
    "temperature": "temperature",
    "p": "top_p",
    "k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "logprobs": "logprobs",
}


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    spec = completion_pb2.CompletionSpec()
    for message in request["messages"]:
        _message(message, spec.messages.add())
    documents = [_document(document) for document in request.get("documents") or ()]
    if documents:
        # They belong to the whole request: its last question is where a caller would have them.
        asking = [message for message in spec.messages if message.role == message_pb2.ROLE_USER]
        asking[-1].parts.extend(documents)
    strict = request.get("strict_tools")
    for tool in request.get("tools") or ():
        made = spec.tools.add()
        openai_chat.read_tool(tool, made)
        if strict is not None:
            made.function.strict = strict
    if request.get("tool_choice"):
        spec.tool_choice.mode = _MODES[request["tool_choice"]]
    _format(request.get("response_format"), spec)
    for name, field in _PARAMS.items():
        if request.get(name) is not None:
            setattr(spec.params, field, request[name])
    spec.params.stop_sequences.extend(request.get("stop_sequences") or ())
    _thinking(request.get("thinking"), spec.params)
    return spec


def _message(message: Mapping[str, Any], into: message_pb2.Message) -> None:
    into.role = _ROLES[message["role"]]
    if into.role == message_pb2.ROLE_TOOL:
        result = into.parts.add().tool_result
        result.tool_call_id = message["tool_call_id"]
        result.parts.extend(_contents(message.get("content")))
        return
    if message.get("tool_plan"):
        into.parts.add(item_id="tool_plan").reasoning.text = message["tool_plan"]
    into.parts.extend(_contents(message.get("content")))
    for call in message.get("tool_calls") or ():
        made = into.parts.add().tool_call
        made.id, made.name = call["id"], call["function"]["name"]
        made.arguments_json = call["function"].get("arguments") or ""
    citations = message.get("citations")
    if citations:
        text = next(part.text for part in reversed(into.parts) if part.HasField("text"))
        text.citations.extend(message_pb2.Citation(raw_json=json.dumps(citation)) for citation in citations)


def _contents(content: Any) -> list[ContentPart]:
    if isinstance(content, str):
        return [ContentPart(text=message_pb2.Text(text=content))]
    return [_part(item) for item in content or ()]


def _part(item: Mapping[str, Any]) -> ContentPart:
    kind = item["type"]
    if kind == "thinking":
        return ContentPart(reasoning=message_pb2.Reasoning(text=item["thinking"]))
    if kind == "document":
        return _document(item["document"])
    return openai_chat.read_part(item)


def _document(document: Any) -> ContentPart:
    """A document's members are a JSON object, whatever they are; its id is the gateway's to give."""
    if isinstance(document, str):
        return ContentPart(document=message_pb2.Media(data=document.encode(), mime_type="text/plain"))
    data = json.dumps(document["data"]).encode()
    return ContentPart(document=message_pb2.Media(data=data, mime_type="application/json"))


def _format(asked: Any, spec: completion_pb2.CompletionSpec) -> None:
    if not isinstance(asked, dict):
        return
    schema = asked.get("json_schema") or asked.get("schema")
    if asked["type"] == "text":
        spec.response_format.text.SetInParent()
    elif schema:
        spec.response_format.json_schema.json_schema = json.dumps(schema)
    else:
        spec.response_format.json_object.SetInParent()


def _thinking(asked: Any, into: generation_pb2.GenerationParams) -> None:
    if not isinstance(asked, dict):
        return
    if asked.get("token_budget") is not None:
        into.reasoning.budget_tokens = asked["token_budget"]
    elif asked["type"] == "disabled":
        into.reasoning.effort = generation_pb2.REASONING_EFFORT_NONE
    else:
        # As much as the model likes.
        into.reasoning.effort = generation_pb2.REASONING_EFFORT_HIGH

"""What the official clients take as a request: their own types, read strictly."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import botocore.session
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming as Anthropic
from botocore.validate import ParamValidator
from cohere.v2 import raw_client
from google.genai import types
from mistralai.client.models import ChatCompletionRequest as Mistral
from openai.types.chat.completion_create_params import CompletionCreateParams as Chat
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming as Responses
from pydantic import BaseModel, TypeAdapter

Body = dict[str, Any]


_CHAT: TypeAdapter[Any] = TypeAdapter(Chat)
_RESPONSES: TypeAdapter[Any] = TypeAdapter(Responses)
_COUNT: TypeAdapter[Any] = TypeAdapter(InputTokenCountParams)
_ANTHROPIC: TypeAdapter[Any] = TypeAdapter(Anthropic)
#: Google's client has types for the members only.
_GEMINI: Mapping[str, TypeAdapter[Any]] = {
    "contents": TypeAdapter(list[types.Content]),
    "generationConfig": TypeAdapter(types.GenerationConfig),
    "serviceTier": TypeAdapter(str),
    "systemInstruction": TypeAdapter(types.Content),
    "toolConfig": TypeAdapter(types.ToolConfig),
    "tools": TypeAdapter(list[types.Tool]),
}
_MISTRAL: TypeAdapter[Any] = TypeAdapter(Mistral)
_COHERE = typing.get_type_hints(raw_client.RawV2Client.chat)
_EMBED = typing.get_type_hints(raw_client.RawV2Client.embed)
_BEDROCK = botocore.session.Session().get_service_model("bedrock-runtime")


def openai_chat(body: Body) -> None:
    _CHAT.validate_json(json.dumps(body), strict=True, extra="forbid")


def openai_responses(body: Body) -> None:
    _responses(_RESPONSES, body)


def openai_count(body: Body) -> None:
    _responses(_COUNT, body)


def _responses(adapter: TypeAdapter[Any], body: Body) -> None:
    """With what the client's types ask for and the API does not: defaults, and ids of what has none."""
    value = json.loads(json.dumps(body))
    for tool in value.get("tools", ()):
        if tool["type"] == "function":
            tool.setdefault("strict", None)
    for item in value["input"]:
        if item.get("role") == "assistant" and not isinstance(item["content"], str):
            item.update({"type": "message", "id": "msg_0", "status": "completed", **item})
        pieces = [item.get("content"), item.get("output")]
        for piece in (piece for pieces_ in pieces if isinstance(pieces_, list) for piece in pieces_):
            if piece["type"] == "input_image":
                piece.setdefault("detail", "auto")
            if piece["type"] == "output_text":
                piece.setdefault("annotations", [])
    adapter.validate_json(json.dumps(value), strict=True, extra="forbid")


#: Older models take them still; the newest client names them no longer.
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})


def anthropic(body: Body) -> None:
    named = {name: value for name, value in body.items() if name not in _SAMPLING}
    _exhausted(_ANTHROPIC.validate_json(json.dumps(named), extra="forbid"))


def gemini(body: Body) -> None:
    for name, value in body.items():
        _GEMINI[name].validate_json(json.dumps(value), extra="forbid")


def mistral(body: Body) -> None:
    _MISTRAL.validate_json(json.dumps(body), extra="forbid")


def cohere(body: Body, parameters: Mapping[str, Any] = _COHERE) -> None:
    for name, value in body.items():
        if name != "stream":
            _nothing_unknown(TypeAdapter(parameters[name]).validate_python(value), value)


def cohere_embeddings(body: Body) -> None:
    cohere(body, _EMBED)


def converse(body: Body) -> None:
    shape = _BEDROCK.operation_model("Converse").input_shape
    # JSON has no bytes: botocore writes and reads them as base64.
    report: str = ParamValidator().validate({"modelId": "m", **body}, shape).generate_report()
    assert report == ""


def _exhausted(value: Any) -> None:
    """Walks a validated body to its ends: lists are validated as they are read."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, str | bytes | int | float | BaseModel | type(None)):
        for inner in value:
            _exhausted(inner)


def _nothing_unknown(read: Any, sent: Any) -> None:
    """Fails for what is sent and no type names: these clients' types keep it and say nothing."""
    unknown: list[str] = []
    _find_unknown(read, "", unknown)
    assert unknown == [], f"{unknown} in {json.dumps(sent)}"


def _find_unknown(value: Any, path: str, unknown: list[str]) -> None:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, BaseModel):
        unknown.extend(f"{path}.{name}" for name in value.model_extra or ())
        items = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, inner in items:
        _find_unknown(inner, f"{path}.{name}", unknown)


#: How a request in a dialect is read, by the kind of provider that takes it.
TYPES: Mapping[str, Callable[[Body], None]] = {
    "openai": openai_chat,
    "azure": openai_chat,
    "openai-responses": openai_responses,
    "azure-responses": openai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "vertex": gemini,
    "mistral": mistral,
    "cohere": cohere,
    "bedrock": converse,
}

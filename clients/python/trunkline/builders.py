"""Messages, parts and tools in one line each, and the way back: text, tool calls and arguments of an answer."""

from __future__ import annotations

import json
import mimetypes
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from trunkline import schema
from trunkline.v1.completion_pb2 import Choice, Completion, FunctionTool, Tool
from trunkline.v1.message_pb2 import (
    ROLE_ASSISTANT,
    ROLE_DEVELOPER,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    ContentPart,
    Media,
    MediaDetail,
    Message,
    Role,
    Text,
    ToolCall,
    ToolResult,
)

T = TypeVar("T")

# First bytes of the kinds of file that providers read.
_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"%PDF-", 0, "application/pdf"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mpeg"),
    (b"OggS", 0, "audio/ogg"),
    (b"fLaC", 0, "audio/flac"),
)


def user(*parts: str | ContentPart, name: str | None = None) -> Message:
    """What the person or program that asks says."""
    return _message(ROLE_USER, parts, name)


def system(*parts: str | ContentPart) -> Message:
    """Instructions."""
    return _message(ROLE_SYSTEM, parts)


def developer(*parts: str | ContentPart) -> Message:
    """Instructions of the application's developer."""
    return _message(ROLE_DEVELOPER, parts)


def assistant(*parts: str | ContentPart) -> Message:
    """What the model said. To go on after an answer, send back `completion.choices[0].message` itself."""
    return _message(ROLE_ASSISTANT, parts)


def tool_result(call: ToolCall | str, *parts: str | ContentPart, is_error: bool = False) -> Message:
    """What a tool answered to `call`, given as the call or as its id."""
    call_id, name = (call, "") if isinstance(call, str) else (call.id, call.name)
    result = ToolResult(tool_call_id=call_id, name=name, parts=[_part(part) for part in parts], is_error=is_error)
    return Message(role=ROLE_TOOL, parts=[ContentPart(tool_result=result)])


def text(words: str) -> ContentPart:
    """A part of text, where a plain string is not enough: to put a cache mark on it."""
    return ContentPart(text=Text(text=words))


def image(
    source: bytes | str | Path,
    *,
    mime_type: str = "",
    detail: MediaDetail.ValueType | str | None = None,
    filename: str | None = None,
) -> ContentPart:
    """A picture: its bytes, a path to them, or an address (https:, gs:, s3:, data:)."""
    return ContentPart(image=_media(source, mime_type, filename, detail))


def document(source: bytes | str | Path, *, mime_type: str = "", filename: str | None = None) -> ContentPart:
    """A PDF or another file: its bytes, a path to them, or an address."""
    return ContentPart(document=_media(source, mime_type, filename))


def audio(source: bytes | str | Path, *, mime_type: str = "", filename: str | None = None) -> ContentPart:
    """A sound: its bytes, a path to them, or an address."""
    return ContentPart(audio=_media(source, mime_type, filename))


def tool(
    source: str | type[Any] | Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | str | type[Any] | None = None,
    strict: bool | None = None,
) -> Tool:
    """A function that the model may call, from one of three sources.

    A name, with `parameters` as a JSON schema (an object or its text) or a pydantic model; a pydantic model, whose
    fields are the parameters; a function, whose signature gives them. The last two take name and description from the
    source and need the extra `pydantic`.
    """
    if isinstance(source, str):
        name, described = source, ""
    else:
        described, signature = schema.describe(source)
        parameters = signature if parameters is None else parameters
    if isinstance(parameters, type):
        parameters = schema.json_schema(parameters)
    body = parameters if isinstance(parameters, str) else json.dumps(parameters) if parameters is not None else ""
    function = FunctionTool(
        name=name or source.__name__,  # type: ignore[union-attr]  # a str has become `name`
        description=described if description is None else description,
        parameters_json_schema=body,
        strict=strict,
    )
    return Tool(function=function)


def text_of(answer: Completion | Choice | Message) -> str:
    """The text of an answer, without reasoning and refusals; of the first choice if there are several."""
    return "".join(part.text.text for part in _message_of(answer).parts if part.WhichOneof("kind") == "text")


def tool_calls_of(answer: Completion | Choice | Message) -> list[ToolCall]:
    """The tool calls that the caller must answer, in order; those that the provider ran itself are left out."""
    calls = (part.tool_call for part in _message_of(answer).parts if part.WhichOneof("kind") == "tool_call")
    return [call for call in calls if not call.provider_executed]


@overload
def arguments_of(call: ToolCall) -> dict[str, Any]: ...
@overload
def arguments_of(call: ToolCall, kind: type[T]) -> T: ...
def arguments_of(call: ToolCall, kind: type[T] | None = None) -> T | dict[str, Any]:
    """The arguments of a tool call as an object, or as a pydantic model. Raises ParseError if they are none."""
    if kind is None:
        return schema.parse_object(call.arguments_json, call.name)
    return schema.parse_arguments(call.arguments_json, call.name, kind)


def _message_of(answer: Completion | Choice | Message) -> Message:
    if isinstance(answer, Completion):
        return answer.choices[0].message if answer.choices else Message()
    return answer.message if isinstance(answer, Choice) else answer


def _message(role: Role.ValueType, parts: tuple[str | ContentPart, ...], name: str | None = None) -> Message:
    return Message(role=role, parts=[_part(part) for part in parts], name=name)


def _part(part: str | ContentPart) -> ContentPart:
    return text(part) if isinstance(part, str) else part


def _media(
    source: bytes | str | Path, mime_type: str, filename: str | None, detail: MediaDetail.ValueType | str | None = None
) -> Media:
    level: Any = f"MEDIA_DETAIL_{detail.upper()}" if isinstance(detail, str) else detail
    if isinstance(source, str) and not source.startswith("data:"):
        if "://" not in source:
            raise ValueError(f"{source!r} is not an address; for a file write pathlib.Path({source!r})")
        return Media(uri=source, mime_type=mime_type, filename=filename, detail=level)
    data, guess = _bytes(source)
    mime_type = mime_type or guess
    if not mime_type:
        raise ValueError("mime_type: cannot tell it from the bytes; name it, for example mime_type='image/png'")
    if isinstance(source, Path) and filename is None:
        filename = source.name
    return Media(data=data, mime_type=mime_type, filename=filename, detail=level)


def _bytes(source: bytes | str | Path) -> tuple[bytes, str]:
    """The bytes of a file, a data: address or of themselves, and what they seem to be."""
    if isinstance(source, str):
        with urllib.request.urlopen(source) as response:  # noqa: S310  # a data: address opens no connection
            return response.read(), response.headers.get_content_type()
    data = source.read_bytes() if isinstance(source, Path) else source
    named = mimetypes.guess_type(source.name)[0] if isinstance(source, Path) else None
    return data, named or next((kind for mark, at, kind in _SIGNATURES if data[at : at + len(mark)] == mark), "")

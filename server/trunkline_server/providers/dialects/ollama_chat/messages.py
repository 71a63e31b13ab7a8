"""Encodes the conversation: each message is one text, with pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.ids import is_made
from trunkline_server.providers.media import base64_of, text_of
from trunkline_server.providers.tools import arguments_object

ContentPart = message_pb2.ContentPart
Wire = dict[str, Any]

_ROLES: Mapping[int, str] = {
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_ASSISTANT: "assistant",
}


class Messages:
    """Encodes messages for one target; what it cannot take goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        self._spec = spec
        self._target = target
        self._notes = notes

    def encode(self) -> list[Wire]:
        encoded: list[Wire] = []
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            if message.role == message_pb2.ROLE_TOOL:
                for at, part in enumerate(message.parts):
                    encoded.append(self._result(part.tool_result, f"{path}.parts[{at}].tool_result"))
                continue
            if message.HasField("name") and message.name:
                self._notes.remark(f"{path}.name", f"{self._target.origin} takes no name of a participant")
            made: Wire = {"role": _ROLES.get(message.role, "user"), "content": ""}
            # What the model said in pieces is one text; what others say in several parts are paragraphs.
            between = "" if message.role == message_pb2.ROLE_ASSISTANT else "\n\n"
            encoded.append(self._filled(made, message.parts, path, between))
        return encoded

    def _filled(self, made: Wire, parts: Iterable[ContentPart], path: str, between: str) -> Wire:
        texts: list[str] = []
        for at, part in enumerate(parts):
            here = f"{path}.parts[{at}]"
            kind = part.WhichOneof("kind")
            if kind == "text":
                texts.append(part.text.text)
            elif kind == "refusal":
                texts.append(part.refusal.text)
            elif kind == "image":
                self._image(part.image, here, made)
            elif kind == "document":
                texts.extend(self._document(part.document, here))
            elif kind == "tool_call":
                self._called(part, here, made)
            elif kind == "reasoning":
                self._thought(part, here, made)
            elif kind == "opaque" and part_is_foreign(part, self._target):
                self._notes.foreign_data(here, part.origin_provider)
            else:
                self._dropped(here, f"no {kind} here")
        made["content"] = between.join(texts)
        return made

    def _image(self, media: message_pb2.Media, path: str, made: Wire) -> None:
        if not self._target.capabilities.images:
            self._dropped(path, "no pictures")
        elif media.WhichOneof("source") != "data":
            self._dropped(f"{path}.image", "pictures only as bytes")
        else:
            made.setdefault("images", []).append(base64_of(media.data))
            if media.detail:
                self._notes.remark(f"{path}.image.detail", f"{self._target.origin} looks at all pictures alike")

    def _document(self, media: message_pb2.Media, path: str) -> list[str]:
        if media.WhichOneof("source") == "data" and media.mime_type.startswith("text/"):
            self._notes.remark(f"{path}.document", "sent as text")
            return [text_of(media)]
        self._dropped(path, "no documents but text")
        return []

    def _called(self, part: ContentPart, path: str, made: Wire) -> None:
        call = part.tool_call
        if call.provider_executed:
            self._notes.foreign_data(path, part.origin_provider or self._target.origin)
            return
        if part.HasField("signature") and part_is_foreign(part, self._target):
            self._notes.foreign_data(f"{path}.signature", part.origin_provider)
        arguments = arguments_object(call, self._spec, path, self._notes)
        function = {"function": {"name": call.name, "arguments": arguments}}
        made.setdefault("tool_calls", []).append({**_given("id", call.id), **function})

    def _thought(self, part: ContentPart, path: str, made: Wire) -> None:
        reasoning = part.reasoning
        if part.HasField("signature") or reasoning.HasField("encrypted"):
            self._notes.foreign_data(path, part.origin_provider or self._target.origin)
        if reasoning.text:
            made["thinking"] = made.get("thinking", "") + reasoning.text

    def _result(self, result: message_pb2.ToolResult, path: str) -> Wire:
        if result.is_error:
            self._notes.remark(f"{path}.is_error", "the text alone tells the model that the tool failed")
        made: Wire = {"role": "tool", "content": "", **_given("tool_call_id", result.tool_call_id)}
        if result.name:
            made["tool_name"] = result.name
        return self._filled(made, result.parts, path, "\n\n")

    def _dropped(self, path: str, what: str) -> None:
        self._notes.dropped(path, f"{self._target.model!r} at {self._target.origin} takes {what}")


def _given(name: str, call_id: str) -> Wire:
    """The id of a call, if it is one that the server can know."""
    return {name: call_id} if call_id and not is_made(call_id) else {}

"""Encodes the conversation: each message is one text, with pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers import messages
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.ids import is_made
from trunkline_server.providers.media import base64_of, text_of
from trunkline_server.providers.messages import Wire
from trunkline_server.providers.parts import Part
from trunkline_server.providers.tools import arguments_object


class Messages(messages.Messages):
    """Encodes messages for one target; what it cannot take goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        super().__init__(spec, target, notes)
        #: Names of what was called, by the ids of the calls.
        self._names: dict[str, str] = {}

    def message(self, message: message_pb2.Message, path: str) -> Wire:
        made: Wire = {"role": self.roles.get(message.role, "user"), "content": ""}
        # What the model said in pieces is one text; what others say in several parts are paragraphs.
        between = "" if message.role == message_pb2.ROLE_ASSISTANT else "\n\n"
        return self._filled(made, message.parts, path, between)

    def _filled(self, made: Wire, parts: Iterable[Part], path: str, between: str) -> Wire:
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
            elif kind != "opaque" or not self.noted_foreign(part, here):
                self.untaken(here, f"no {kind} here")
        made["content"] = between.join(texts)
        return made

    def _image(self, media: message_pb2.Media, path: str, made: Wire) -> None:
        if not self._target.capabilities.images:
            self.untaken(path, "no pictures")
        elif media.WhichOneof("source") != "data":
            self.untaken(f"{path}.image", "pictures only as bytes")
        else:
            made.setdefault("images", []).append(base64_of(media.data))
            if media.detail:
                self._notes.remark(f"{path}.image.detail", f"{self._target.origin} looks at all pictures alike")

    def _document(self, media: message_pb2.Media, path: str) -> list[str]:
        if media.WhichOneof("source") == "data" and media.mime_type.startswith("text/"):
            self._notes.remark(f"{path}.document", "sent as text")
            return [text_of(media)]
        self.untaken(path, "no documents but text")
        return []

    def _called(self, part: Part, path: str, made: Wire) -> None:
        call = part.tool_call
        if self.noted_executed(part, path):
            return
        self._names[call.id] = call.name
        if part.HasField("signature"):
            self.noted_foreign(part, f"{path}.signature")
        arguments = arguments_object(call, self._spec, path, self._notes)
        function = {"function": {"name": call.name, "arguments": arguments}}
        made.setdefault("tool_calls", []).append({**_given("id", call.id), **function})

    def _thought(self, part: Part, path: str, made: Wire) -> None:
        reasoning = part.reasoning
        self.unsealed(part, path)
        if reasoning.text:
            made["thinking"] = made.get("thinking", "") + reasoning.text

    def result(self, result: message_pb2.ToolResult, path: str) -> Wire:
        self.failed_in_words(result, path)
        made: Wire = {"role": "tool", "content": "", **_given("tool_call_id", result.tool_call_id)}
        name = result.name or self._names.get(result.tool_call_id)
        if name:
            made["tool_name"] = name
        return self._filled(made, result.parts, path, "\n\n")


def _given(name: str, call_id: str) -> Wire:
    """The id of a call, if it is one that the server can know."""
    return {name: call_id} if call_id and not is_made(call_id) else {}

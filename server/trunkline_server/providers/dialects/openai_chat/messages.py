"""Encodes the conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.openai_chat.quirks import Quirks
from trunkline_server.providers.jsontext import embed, loads, try_loads
from trunkline_server.providers.media import address_of, base64_of, text_of
from trunkline_server.providers.messages import PartedMessages, Wire
from trunkline_server.providers.parts import Part
from trunkline_server.providers.tools import arguments_of

_TTLS = {message_pb2.CACHE_TTL_5M: "5m", message_pb2.CACHE_TTL_1H: "1h", message_pb2.CACHE_TTL_24H: "24h"}

#: OpenRouter's name of who made a reasoning detail, by the beginning of its model's name.
_FORMATS = (
    ("anthropic/", "anthropic-claude-v1"),
    ("openai/", "openai-responses-v1"),
    ("x-ai/", "xai-responses-v1"),
    ("google/", "google-gemini-v1"),
    ("minimax-", "MiniMax-response-v1"),
)


class Messages(PartedMessages):
    """Encodes messages for one target; what it cannot take goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, quirks: Quirks, notes: Notes) -> None:
        super().__init__(spec, target, notes)
        self._quirks = quirks
        self.roles = {
            **self.roles,
            message_pb2.ROLE_SYSTEM: quirks.system_role,
            message_pb2.ROLE_DEVELOPER: quirks.developer_role,
        }

    def named(self, message: message_pb2.Message, path: str, made: Wire) -> None:
        if not self._quirks.participants:
            super().named(message, path, made)
        elif message.name:
            made["name"] = message.name

    # -- content ------------------------------------------------------------------------------------------------------

    def part(self, part: Part, path: str) -> Wire | None:
        made: Wire | None = super().part(part, path)
        if made is not None and self._quirks.cache_control and part.HasField("cache_control"):
            made["cache_control"] = cache_mark(part.cache_control)
        return made

    def _video(self, part: Part, path: str) -> Wire | None:
        url = address_of(part.video)
        if not self._quirks.video or url is None:
            return self.untaken(path, "no films" if url else "no handles of films")
        return {"type": "video_url", "video_url": {"url": url}}

    def _document(self, part: Part, path: str) -> Wire | None:
        media = part.document
        source = media.WhichOneof("source")
        if source == "data" and media.mime_type.startswith("text/"):
            # Files are PDF here; a text is a text.
            self._notes.remark(f"{path}.document", "sent as text")
            return {"type": "text", "text": text_of(media)}
        if not self._target.capabilities.documents:
            return self.untaken(path, "no documents")
        if source == "uri" and not self._quirks.document_urls:
            return self.untaken(f"{path}.document.uri", "no addresses of documents; send the bytes")
        if self._quirks.document == "file_url":
            if source == "file_id":
                return self.untaken(f"{path}.document.file_id", "no handles of documents; send the bytes or an address")
            # Bytes go without the head of a data: address.
            sent: Wire = {"url": media.uri if source == "uri" else base64_of(media.data)}
            named = {"file_name": media.filename} if media.filename else {}
            return {"type": "file_url", "file_url": sent, **named}
        if self._quirks.document == "document_url":
            if source == "file_id":
                return {"type": "file", "file_id": media.file_id}
            return {"type": "document_url", "document_url": address_of(media)}
        if source == "file_id":
            return {"type": "file", "file": {"file_id": media.file_id}}
        name = media.filename or ("document.pdf" if source == "data" else "")
        file: Wire = {"filename": name} if name else {}
        return {"type": "file", "file": {**file, "file_data": address_of(media)}}

    encoders: ClassVar = {
        "text": PartedMessages.text,
        "image": PartedMessages.image_url,
        "audio": PartedMessages.input_audio,
        "video": _video,
        "document": _document,
        "refusal": PartedMessages.refusal,
        "opaque": PartedMessages.opaque,
    }

    # -- the assistant's turns ----------------------------------------------------------------------------------------

    def assistant(self, message: message_pb2.Message, path: str) -> Wire:
        turn = _Turn()
        for at, part in enumerate(message.parts):
            _ASSISTANT[part.WhichOneof("kind") or ""](self, part, f"{path}.parts[{at}]", turn)
        made: Wire = {"role": "assistant", "content": turn.content()}
        made.update(turn.members)
        if turn.calls:
            made["tool_calls"] = turn.calls
        return made

    def _said(self, part: Part, path: str, turn: _Turn) -> None:
        text: Wire = {"type": "text", "text": part.text.text}
        if self._quirks.cache_control and part.HasField("cache_control"):
            text["cache_control"] = cache_mark(part.cache_control)
            turn.plain = False
        turn.parts.append(text)

    def _refused(self, part: Part, path: str, turn: _Turn) -> None:
        if self._quirks.refusals:
            turn.members["refusal"] = turn.members.get("refusal", "") + part.refusal.text
        else:
            turn.parts.append({"type": "text", "text": part.refusal.text})

    def _called(self, part: Part, path: str, turn: _Turn) -> None:
        call = part.tool_call
        if self.noted_executed(part, path):
            return
        function = {"name": call.name, "arguments": arguments_of(call, self._spec)}
        made: Wire = {"id": call.id, "type": "function", "function": function}
        signed = part.HasField("signature") and not self.noted_foreign(part, f"{path}.signature")
        if signed and self._quirks.thought_signatures:
            made["extra_content"] = {"google": {"thought_signature": part.signature}}
        turn.calls.append(made)

    def _thought(self, part: Part, path: str, turn: _Turn) -> None:
        back = self._quirks.reasoning_back
        foreign = part_is_foreign(part, self._target)
        reasoning = part.reasoning
        sealed = part.HasField("signature") or reasoning.HasField("encrypted")
        if foreign and (sealed or back == "reasoning_details"):
            self._notes.foreign_data(path, part.origin_provider)
        elif not back:
            self._notes.remark(path, f"{self._target.origin} takes no thoughts back")
        if back == "reasoning_details":
            detail = self._detail(part, foreign)
            if detail is not None:
                turn.members.setdefault("reasoning_details", []).append(detail)
        elif back == "thinking":
            if reasoning.text:
                turn.parts.append({"type": "thinking", "thinking": [{"type": "text", "text": reasoning.text}]})
                turn.plain = False
        elif back and reasoning.text:
            turn.members[back] = turn.members.get(back, "") + reasoning.text

    def _detail(self, part: Part, foreign: bool) -> Any:
        """A reasoning detail of OpenRouter's: verbatim where it is sealed, made again where it is text."""
        reasoning = part.reasoning
        if foreign or not (reasoning.text or part.HasField("signature") or reasoning.HasField("encrypted")):
            return None
        model = self._target.model.lower()
        known = next((name for head, name in _FORMATS if model.startswith(head)), "unknown")
        if reasoning.HasField("encrypted"):
            if isinstance(try_loads(reasoning.encrypted), dict):
                return embed(reasoning.encrypted)
            sealed: Wire = {"type": "reasoning.encrypted", "data": reasoning.encrypted, "format": known}
            return {**sealed, "id": part.item_id} if part.item_id else sealed
        detail: Wire = {"type": "reasoning.summary" if reasoning.is_summary else "reasoning.text"}
        detail["summary" if reasoning.is_summary else "text"] = reasoning.text
        if part.HasField("signature"):
            detail["signature"] = part.signature
        if part.item_id:
            detail["id"] = part.item_id
        return {**detail, "format": "anthropic-claude-v1" if part.HasField("signature") else known}

    def _spoke(self, part: Part, path: str, turn: _Turn) -> None:
        """Sound of an earlier answer goes back by its id, else as what was said."""
        if part.item_id and not part_is_foreign(part, self._target) and self._target.capabilities.audio:
            turn.members["audio"] = {"id": part.item_id}
        elif part.audio.transcript:
            turn.parts.append({"type": "text", "text": part.audio.transcript})
        else:
            self.untaken(path, "no sound of another's in a turn of the assistant")

    def _kept(self, part: Part, path: str, turn: _Turn) -> None:
        """Blocks that the contract does not model: annotations go back, what a provider's own tools found does not."""
        if self.noted_foreign(part, path):
            return
        if part.opaque.type.startswith("annotation."):
            turn.members.setdefault("annotations", []).append(embed(part.opaque.json))
        elif part.opaque.type == "executed_tool":
            self._notes.remark(path, f"{self._target.origin} takes no results of its own tools back")
        else:
            turn.parts.append(loads(part.opaque.json))
            turn.plain = False

    def _showed(self, part: Part, path: str, turn: _Turn) -> None:
        self.untaken(path, "no media in a turn of the assistant")


class _Turn:
    """A turn of the assistant while it is encoded."""

    __slots__ = ("calls", "members", "parts", "plain")

    def __init__(self) -> None:
        self.parts: list[Wire] = []
        self.calls: list[Wire] = []
        self.members: Wire = {}
        #: Nothing but text: sent as one string, as it came.
        self.plain = True

    def content(self) -> str | list[Wire] | None:
        if not self.parts:
            # A turn needs one of content, calls and the like.
            return None if self.calls or self.members else ""
        return "".join(part["text"] for part in self.parts) if self.plain else self.parts


_ASSISTANT: Mapping[str, Callable[[Messages, Part, str, _Turn], None]] = {
    "text": Messages._said,
    "image": Messages._showed,
    "audio": Messages._spoke,
    "video": Messages._showed,
    "document": Messages._showed,
    "tool_call": Messages._called,
    "tool_result": Messages._showed,
    "reasoning": Messages._thought,
    "refusal": Messages._refused,
    "opaque": Messages._kept,
    "": Messages._showed,
}


def cache_mark(mark: message_pb2.CacheControl) -> Wire:
    """The mark of Anthropic's, which OpenRouter passes on."""
    ttl = _TTLS.get(mark.ttl)
    return {"type": "ephemeral", "ttl": ttl} if ttl else {"type": "ephemeral"}

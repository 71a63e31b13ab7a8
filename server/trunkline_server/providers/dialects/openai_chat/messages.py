"""Encodes the conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.openai_chat.quirks import Quirks
from trunkline_server.providers.jsontext import embed, loads, try_loads
from trunkline_server.providers.media import address_of, base64_of, text_of
from trunkline_server.providers.results import ELSEWHERE, Held
from trunkline_server.providers.tools import arguments_of
from trunkline_server.providers.vocabulary import DETAILS, sound_of

ContentPart = message_pb2.ContentPart
Wire = dict[str, Any]

_TTLS = {message_pb2.CACHE_TTL_5M: "5m", message_pb2.CACHE_TTL_1H: "1h", message_pb2.CACHE_TTL_24H: "24h"}

#: OpenRouter's name of who made a reasoning detail, by the beginning of its model's name.
_FORMATS = (
    ("anthropic/", "anthropic-claude-v1"),
    ("openai/", "openai-responses-v1"),
    ("x-ai/", "xai-responses-v1"),
    ("google/", "google-gemini-v1"),
)


class Messages:
    """Encodes messages for one target; what it cannot take goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, quirks: Quirks, notes: Notes) -> None:
        self._spec = spec
        self._target = target
        self._quirks = quirks
        self._notes = notes
        self._roles: Mapping[int, str] = {
            message_pb2.ROLE_SYSTEM: quirks.system_role,
            message_pb2.ROLE_DEVELOPER: quirks.developer_role,
            message_pb2.ROLE_USER: "user",
        }

    def encode(self) -> list[Wire]:
        encoded: list[Wire] = []
        held = Held(self._notes)
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            if message.role == message_pb2.ROLE_TOOL:
                for at, part in enumerate(message.parts):
                    encoded.append(self._result(part.tool_result, f"{path}.parts[{at}].tool_result", held))
                continue
            encoded.extend(held.message())
            if message.role == message_pb2.ROLE_ASSISTANT:
                made = self._assistant(message, path)
            else:
                made = {"role": self._roles.get(message.role, "user"), "content": self._content(message.parts, path)}
            if message.HasField("name") and message.name:
                if self._quirks.participants:
                    made["name"] = message.name
                else:
                    self._say(f"{path}.name", f"{self._target.origin} takes no name of a participant")
            encoded.append(made)
        return [*encoded, *held.message()]

    def _say(self, path: str, text: str) -> None:
        """Warns of what is no reason to refuse: nothing that was asked for is missing."""
        self._notes.remark(path, text)

    # -- content ------------------------------------------------------------------------------------------------------

    def _content(self, parts: Iterable[ContentPart], path: str) -> str | list[Wire]:
        """A string if there is but one text, else parts."""
        made = [
            encoded for at, part in enumerate(parts) if (encoded := self._part(part, f"{path}.parts[{at}]")) is not None
        ]
        if len(made) == 1 and made[0].keys() == {"type", "text"}:
            text: str = made[0]["text"]
            return text
        return made

    def _part(self, part: ContentPart, path: str) -> Wire | None:
        kind = part.WhichOneof("kind")
        encode = _PARTS.get(kind or "")
        if encode is None:
            self._notes.dropped(path, f"{self._target.origin} takes no {kind} here")
            return None
        made = encode(self, part, path)
        if made is not None and self._quirks.cache_control and part.HasField("cache_control"):
            made["cache_control"] = cache_mark(part.cache_control)
        return made

    def _text(self, part: ContentPart, path: str) -> Wire:
        return {"type": "text", "text": part.text.text}

    def _image(self, part: ContentPart, path: str) -> Wire | None:
        if not self._target.capabilities.images:
            return self._dropped(path, "no pictures")
        media = part.image
        url = address_of(media)
        if url is None:
            return self._dropped(f"{path}.image.file_id", "no handles of pictures; send the bytes or an address")
        image: Wire = {"url": url}
        detail = DETAILS.get(media.detail)
        if detail:
            image["detail"] = detail
        if media.detail == message_pb2.MEDIA_DETAIL_MEDIUM:
            self._say(f"{path}.image.detail", "sent as 'auto': there is nothing between low and high")
        return {"type": "image_url", "image_url": image}

    def _audio(self, part: ContentPart, path: str) -> Wire | None:
        if not self._target.capabilities.audio:
            return self._dropped(path, "no sound")
        media = part.audio
        if media.WhichOneof("source") != "data":
            return self._dropped(f"{path}.audio", "sound only as bytes")
        sound = {"data": base64_of(media.data), "format": sound_of(media.mime_type)}
        return {"type": "input_audio", "input_audio": sound}

    def _video(self, part: ContentPart, path: str) -> Wire | None:
        url = address_of(part.video)
        if not self._quirks.video or url is None:
            return self._dropped(path, "no films" if url else "no handles of films")
        return {"type": "video_url", "video_url": {"url": url}}

    def _document(self, part: ContentPart, path: str) -> Wire | None:
        media = part.document
        source = media.WhichOneof("source")
        if source == "data" and media.mime_type.startswith("text/"):
            # Files are PDF here; a text is a text.
            self._say(f"{path}.document", "sent as text")
            return {"type": "text", "text": text_of(media)}
        if not self._target.capabilities.documents:
            return self._dropped(path, "no documents")
        if source == "uri" and not self._quirks.document_urls:
            return self._dropped(f"{path}.document.uri", "no addresses of documents; send the bytes")
        if self._quirks.document == "file_url":
            if source == "file_id":
                return self._dropped(
                    f"{path}.document.file_id", "no handles of documents; send the bytes or an address"
                )
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

    def _refusal(self, part: ContentPart, path: str) -> Wire:
        return {"type": "text", "text": part.refusal.text}

    def _opaque(self, part: ContentPart, path: str) -> Wire | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        value = loads(part.opaque.json)
        return value if isinstance(value, dict) else None

    def _dropped(self, path: str, what: str) -> Wire | None:
        self._notes.dropped(path, f"{self._target.model!r} at {self._target.origin} takes {what}")
        return None

    # -- the assistant's turns ----------------------------------------------------------------------------------------

    def _assistant(self, message: message_pb2.Message, path: str) -> Wire:
        turn = _Turn()
        for at, part in enumerate(message.parts):
            _ASSISTANT[part.WhichOneof("kind") or ""](self, part, f"{path}.parts[{at}]", turn)
        made: Wire = {"role": "assistant", "content": turn.content()}
        made.update(turn.members)
        if turn.calls:
            made["tool_calls"] = turn.calls
        return made

    def _said(self, part: ContentPart, path: str, turn: _Turn) -> None:
        text: Wire = {"type": "text", "text": part.text.text}
        if self._quirks.cache_control and part.HasField("cache_control"):
            text["cache_control"] = cache_mark(part.cache_control)
            turn.plain = False
        turn.parts.append(text)

    def _refused(self, part: ContentPart, path: str, turn: _Turn) -> None:
        if self._quirks.refusals:
            turn.members["refusal"] = turn.members.get("refusal", "") + part.refusal.text
        else:
            turn.parts.append({"type": "text", "text": part.refusal.text})

    def _called(self, part: ContentPart, path: str, turn: _Turn) -> None:
        call = part.tool_call
        if call.provider_executed:
            self._notes.foreign_data(path, part.origin_provider or self._target.origin)
            return
        function = {"name": call.name, "arguments": arguments_of(call, self._spec)}
        made: Wire = {"id": call.id, "type": "function", "function": function}
        if part.HasField("signature"):
            if part_is_foreign(part, self._target):
                self._notes.foreign_data(f"{path}.signature", part.origin_provider)
            elif self._quirks.thought_signatures:
                made["extra_content"] = {"google": {"thought_signature": part.signature}}
        turn.calls.append(made)

    def _thought(self, part: ContentPart, path: str, turn: _Turn) -> None:
        back = self._quirks.reasoning_back
        foreign = part_is_foreign(part, self._target)
        reasoning = part.reasoning
        sealed = part.HasField("signature") or reasoning.HasField("encrypted")
        if foreign and (sealed or back == "reasoning_details"):
            self._notes.foreign_data(path, part.origin_provider)
        elif not back:
            self._say(path, f"{self._target.origin} takes no thoughts back")
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

    def _detail(self, part: ContentPart, foreign: bool) -> Any:
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

    def _spoke(self, part: ContentPart, path: str, turn: _Turn) -> None:
        """Sound of an earlier answer goes back by its id, else as what was said."""
        if part.item_id and not part_is_foreign(part, self._target) and self._target.capabilities.audio:
            turn.members["audio"] = {"id": part.item_id}
        elif part.audio.transcript:
            turn.parts.append({"type": "text", "text": part.audio.transcript})
        else:
            self._dropped(path, "no sound of another's in a turn of the assistant")

    def _kept(self, part: ContentPart, path: str, turn: _Turn) -> None:
        """Blocks that the contract does not model: annotations go back, what a provider's own tools found does not."""
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
        elif part.opaque.type.startswith("annotation."):
            turn.members.setdefault("annotations", []).append(embed(part.opaque.json))
        elif part.opaque.type == "executed_tool":
            self._say(path, f"{self._target.origin} takes no results of its own tools back")
        else:
            turn.parts.append(loads(part.opaque.json))
            turn.plain = False

    def _showed(self, part: ContentPart, path: str, turn: _Turn) -> None:
        self._dropped(path, "no media in a turn of the assistant")

    # -- tool results -------------------------------------------------------------------------------------------------

    def _result(self, result: message_pb2.ToolResult, path: str, held: Held) -> Wire:
        texts: list[Wire] = []
        media: list[Wire] = []
        for at, part in enumerate(result.parts):
            made = self._part(part, f"{path}.parts[{at}]")
            if made is not None:
                (texts if made.get("type") == "text" else media).append(made)
        held.keep(media, result.tool_call_id, path)
        if result.is_error:
            self._say(f"{path}.is_error", "the text alone tells the model that the tool failed")
        plain = all(text.keys() == {"type", "text"} for text in texts)
        content: str | list[Wire] = texts
        if plain and len(texts) <= 1:
            content = texts[0]["text"] if texts else "" if not media else ELSEWHERE
        return {"role": "tool", "tool_call_id": result.tool_call_id, "content": content}


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


_PARTS: Mapping[str, Callable[[Messages, ContentPart, str], Wire | None]] = {
    "text": Messages._text,
    "image": Messages._image,
    "audio": Messages._audio,
    "video": Messages._video,
    "document": Messages._document,
    "refusal": Messages._refusal,
    "opaque": Messages._opaque,
}
_ASSISTANT: Mapping[str, Callable[[Messages, ContentPart, str, _Turn], None]] = {
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

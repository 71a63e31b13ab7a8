"""Encodes the conversation: its messages, and the documents in it, which have a place of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.cohere_chat.citations import document_id
from trunkline_server.providers.dialects.cohere_chat.response import CITATION, PLAN
from trunkline_server.providers.jsontext import embed, loads, try_loads
from trunkline_server.providers.media import address_of
from trunkline_server.providers.results import ELSEWHERE, Held
from trunkline_server.providers.tools import arguments_of
from trunkline_server.providers.vocabulary import DETAILS

ContentPart = message_pb2.ContentPart
Wire = dict[str, Any]

_ROLES: Mapping[int, str] = {
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
    message_pb2.ROLE_USER: "user",
}
_JSON = "application/json"


class Messages:
    """Encodes messages for one target; what it cannot take goes to the notes.

    Documents are numbered over the whole request, and their ids say the number: so a citation names its document.
    """

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        self._spec = spec
        self._target = target
        self._notes = notes
        self._numbered = 0
        #: Documents outside of tool results.
        self.documents: list[Wire] = []

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
            if message.HasField("name") and message.name:
                self._notes.remark(f"{path}.name", f"{self._target.origin} takes no name of a participant")
            if message.role == message_pb2.ROLE_ASSISTANT:
                encoded.append(self._assistant(message, path))
            else:
                content = self._content(message.parts, path)
                encoded.append({"role": _ROLES.get(message.role, "user"), "content": content})
        return [*encoded, *held.message()]

    # -- content ------------------------------------------------------------------------------------------------------

    def _content(self, parts: Iterable[ContentPart], path: str) -> str | list[Wire]:
        made = [
            encoded for at, part in enumerate(parts) if (encoded := self._part(part, f"{path}.parts[{at}]")) is not None
        ]
        return _plain(made)

    def _part(self, part: ContentPart, path: str) -> Wire | None:
        kind = part.WhichOneof("kind") or ""
        encode = _PARTS.get(kind)
        if encode is None:
            self._notes.dropped(path, f"{self._target.origin} takes no {kind} here")
            return None
        return encode(self, part, path)

    def _text(self, part: ContentPart, path: str) -> Wire:
        return {"type": "text", "text": part.text.text}

    def _refusal(self, part: ContentPart, path: str) -> Wire:
        return {"type": "text", "text": part.refusal.text}

    def _image(self, part: ContentPart, path: str) -> Wire | None:
        media = part.image
        url = address_of(media)
        if not self._target.capabilities.images:
            return self._dropped(path, "no pictures")
        if url is None:
            return self._dropped(f"{path}.image.file_id", "no handles of pictures; send the bytes or an address")
        image: Wire = {"url": url}
        detail = DETAILS.get(media.detail)
        if detail:
            image["detail"] = detail
        if media.detail == message_pb2.MEDIA_DETAIL_MEDIUM:
            self._notes.remark(f"{path}.image.detail", "sent as 'auto': there is nothing between low and high")
        return {"type": "image_url", "image_url": image}

    def _document(self, part: ContentPart, path: str) -> Wire | None:
        document = self._described(part.document, path)
        if document is not None:
            self.documents.append(document)
        return None

    def _described(self, media: message_pb2.Media, path: str) -> Wire | None:
        """A document: the members of a JSON object, or a text with its name as title."""
        index = self._numbered
        self._numbered += 1
        if media.WhichOneof("source") != "data":
            return self._dropped(f"{path}.document", "documents only as bytes")
        plain = media.mime_type.partition(";")[0].strip().lower()
        value = try_loads(media.data) if plain == _JSON else None
        if isinstance(value, dict):
            return {"id": document_id(index), "data": value}
        if not plain.startswith("text/") and plain != _JSON:
            return self._dropped(f"{path}.document.mime_type", "documents only as text or as a JSON object")
        data = {"text": media.data.decode("utf-8", "replace")}
        return {"id": document_id(index), "data": {"title": media.filename, **data} if media.filename else data}

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
        made: Wire = {"role": "assistant"}
        content: list[Wire] = []
        calls_tools = any(part.HasField("tool_call") for part in message.parts)
        for at, part in enumerate(message.parts):
            here = f"{path}.parts[{at}]"
            kind = part.WhichOneof("kind")
            if kind == "tool_call":
                self._called(part, here, made)
            elif kind == "reasoning":
                self._thought(part, here, made, content, calls_tools)
            elif kind == "opaque" and part.opaque.type == CITATION and not part_is_foreign(part, self._target):
                made.setdefault("citations", []).append(embed(part.opaque.json))
            elif kind in _SAID:
                if kind == "text" and part.text.citations:
                    self._cited(part, here, made)
                block = self._part(part, here)
                if block is not None:
                    content.append(block)
            else:
                self._dropped(here, "no media in a turn of the assistant")
        if content or len(made) == 1:
            made["content"] = _plain(content)
        return made

    def _called(self, part: ContentPart, path: str, made: Wire) -> None:
        call = part.tool_call
        if call.provider_executed:
            self._notes.foreign_data(path, part.origin_provider or self._target.origin)
            return
        if part.HasField("signature") and part_is_foreign(part, self._target):
            self._notes.foreign_data(f"{path}.signature", part.origin_provider)
        function = {"name": call.name, "arguments": arguments_of(call, self._spec)}
        made.setdefault("tool_calls", []).append({"id": call.id, "type": "function", "function": function})

    def _thought(self, part: ContentPart, path: str, made: Wire, content: list[Wire], calls_tools: bool) -> None:
        """A plan goes back as a plan, and so does what was thought before calls to a model that only plans."""
        reasoning = part.reasoning
        if part.HasField("signature") or reasoning.HasField("encrypted"):
            self._notes.foreign_data(path, part.origin_provider or self._target.origin)
        if not reasoning.text:
            return
        own = not part_is_foreign(part, self._target)
        if (own and part.item_id == PLAN) or (calls_tools and not self._target.capabilities.reasoning):
            made["tool_plan"] = made.get("tool_plan", "") + reasoning.text
        elif own or self._target.capabilities.reasoning:
            content.append({"type": "thinking", "thinking": reasoning.text})
        else:
            self._notes.remark(path, f"{self._target.model!r} at {self._target.origin} takes no thoughts back")

    def _cited(self, part: ContentPart, path: str, made: Wire) -> None:
        """Citations go back as Cohere made them: once each, though each of its sources is a citation here."""
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(f"{path}.text.citations", part.origin_provider)
            return
        texts = list(dict.fromkeys(citation.raw_json for citation in part.text.citations if citation.raw_json))
        if texts:
            made.setdefault("citations", []).extend(embed(text) for text in texts)
        if not all(citation.raw_json for citation in part.text.citations):
            self._notes.remark(f"{path}.text.citations", "a citation goes back only as the provider made it (raw_json)")

    # -- tool results -------------------------------------------------------------------------------------------------

    def _result(self, result: message_pb2.ToolResult, path: str, held: Held) -> Wire:
        """Texts and documents; what else there is follows in a message of the user's."""
        content: list[Wire] = []
        media: list[Wire] = []
        for at, part in enumerate(result.parts):
            here = f"{path}.parts[{at}]"
            if part.WhichOneof("kind") == "document":
                document = self._described(part.document, here)
                if document is not None:
                    content.append({"type": "document", "document": document})
                continue
            made = self._part(part, here)
            if made is not None:
                (content if made.get("type") == "text" else media).append(made)
        held.keep(media, result.tool_call_id, path)
        if result.is_error:
            self._notes.remark(f"{path}.is_error", "the text alone tells the model that the tool failed")
        if not content and media:
            content = [{"type": "text", "text": ELSEWHERE}]
        return {"role": "tool", "tool_call_id": result.tool_call_id, "content": _plain(content)}


def _plain(content: list[Wire]) -> str | list[Wire]:
    """A string if there is but one text, else blocks."""
    if not content:
        return ""
    if len(content) == 1 and content[0].get("type") == "text" and content[0].keys() == {"type", "text"}:
        text: str = content[0]["text"]
        return text
    return content


_PARTS: Mapping[str, Callable[[Messages, ContentPart, str], Wire | None]] = {
    "text": Messages._text,
    "image": Messages._image,
    "document": Messages._document,
    "refusal": Messages._refusal,
    "opaque": Messages._opaque,
}
#: What a turn of the assistant's may say beside calls and thoughts.
_SAID = frozenset({"text", "refusal", "opaque"})

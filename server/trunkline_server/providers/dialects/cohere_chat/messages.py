"""Encodes the conversation: its messages, and the documents in it, which have a place of their own."""

from __future__ import annotations

from typing import ClassVar

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.cohere_chat.citations import document_id
from trunkline_server.providers.dialects.cohere_chat.response import CITATION, PLAN
from trunkline_server.providers.jsontext import embed, try_loads
from trunkline_server.providers.messages import PartedMessages, Wire
from trunkline_server.providers.parts import Part
from trunkline_server.providers.tools import arguments_of

_JSON = "application/json"


class Messages(PartedMessages):
    """Encodes messages for one target; what it cannot take goes to the notes.

    Documents are numbered over the whole request, and their ids say the number: so a citation names its document.
    """

    in_results = frozenset({"text", "document"})

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        super().__init__(spec, target, notes)
        self._numbered = 0
        #: Documents outside of tool results.
        self.documents: list[Wire] = []

    def answered(self, part: Part, path: str) -> Wire | None:
        if part.WhichOneof("kind") != "document":
            return super().answered(part, path)
        document = self._described(part.document, path)
        return None if document is None else {"type": "document", "document": document}

    def _document(self, part: Part, path: str) -> Wire | None:
        document = self._described(part.document, path)
        if document is not None:
            self.documents.append(document)
        return None

    def _described(self, media: message_pb2.Media, path: str) -> Wire | None:
        """A document: the members of a JSON object, or a text with its name as title."""
        index = self._numbered
        self._numbered += 1
        if media.WhichOneof("source") != "data":
            return self.untaken(f"{path}.document", "documents only as bytes")
        plain = media.mime_type.partition(";")[0].strip().lower()
        value = try_loads(media.data) if plain == _JSON else None
        if isinstance(value, dict):
            return {"id": document_id(index), "data": value}
        if not plain.startswith("text/") and plain != _JSON:
            return self.untaken(f"{path}.document.mime_type", "documents only as text or as a JSON object")
        data = {"text": media.data.decode("utf-8", "replace")}
        return {"id": document_id(index), "data": {"title": media.filename, **data} if media.filename else data}

    encoders: ClassVar = {
        "text": PartedMessages.text,
        "image": PartedMessages.image_url,
        "document": _document,
        "refusal": PartedMessages.refusal,
        "opaque": PartedMessages.opaque,
    }

    # -- the assistant's turns ----------------------------------------------------------------------------------------

    def assistant(self, message: message_pb2.Message, path: str) -> Wire:
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
                block = self.part(part, here)
                if block is not None:
                    content.append(block)
            else:
                self.untaken(here, "no media in a turn of the assistant")
        if content or len(made) == 1:
            made["content"] = self.content(content)
        return made

    def _called(self, part: Part, path: str, made: Wire) -> None:
        call = part.tool_call
        if self.noted_executed(part, path):
            return
        if part.HasField("signature"):
            self.noted_foreign(part, f"{path}.signature")
        function = {"name": call.name, "arguments": arguments_of(call, self._spec)}
        made.setdefault("tool_calls", []).append({"id": call.id, "type": "function", "function": function})

    def _thought(self, part: Part, path: str, made: Wire, content: list[Wire], calls_tools: bool) -> None:
        """A plan goes back as a plan, and so does what was thought before calls to a model that only plans."""
        reasoning = part.reasoning
        self.unsealed(part, path)
        if not reasoning.text:
            return
        own = not part_is_foreign(part, self._target)
        if (own and part.item_id == PLAN) or (calls_tools and not self._target.capabilities.reasoning):
            made["tool_plan"] = made.get("tool_plan", "") + reasoning.text
        elif own or self._target.capabilities.reasoning:
            content.append({"type": "thinking", "thinking": reasoning.text})
        else:
            self._notes.remark(path, f"{self._target.model!r} at {self._target.origin} takes no thoughts back")

    def _cited(self, part: Part, path: str, made: Wire) -> None:
        """Citations go back as Cohere made them: once each, though each of its sources is a citation here."""
        if self.noted_foreign(part, f"{path}.text.citations"):
            return
        texts = list(dict.fromkeys(citation.raw_json for citation in part.text.citations if citation.raw_json))
        if texts:
            made.setdefault("citations", []).extend(embed(text) for text in texts)
        if not all(citation.raw_json for citation in part.text.citations):
            self._notes.remark(f"{path}.text.citations", "a citation goes back only as the provider made it (raw_json)")


#: What a turn of the assistant's may say beside calls and thoughts.
_SAID = frozenset({"text", "refusal", "opaque"})

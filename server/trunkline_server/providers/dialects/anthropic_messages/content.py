"""The conversation as Anthropic wants it: instructions apart, tool results in user turns, one turn a role."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMBadRequestError, LLMInvalidResponseError
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.claude import Model, cache_mark
from trunkline_server.providers.ids import CallIds
from trunkline_server.providers.jsontext import Reader, dumps, try_loads
from trunkline_server.providers.parts import Block, Part
from trunkline_server.providers.tools import arguments_object
from trunkline_server.providers.turns import Turns

#: Features that need a beta header, by what a request holds.
FILES_BETA = "files-api-2025-04-14"
_OPAQUE_BETAS = {
    "compaction": "compact-2026-01-12",
    "container_upload": FILES_BETA,
    "mcp_tool_result": "mcp-client-2025-11-20",
    "mcp_tool_use": "mcp-client-2025-11-20",
}

#: Documents whose bytes are text. The provider knows one name for all of them.
_TEXT_DOCUMENTS = re.compile(r"text/.+|application/(json|xml|x-yaml|yaml|javascript|x-sh|.+\+(json|xml))")
_NOT_ID = re.compile(r"[^A-Za-z0-9_-]")

_object = Reader(dict[str, Raw])


class Conversation(Turns):
    """Turns messages into the provider's system blocks and turns. What cannot be said goes to the notes."""

    api = "Anthropic"

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, model: Model, notes: Notes) -> None:
        super().__init__(spec, target, notes, CallIds(_NOT_ID), system_turns=model.system_turns)
        #: Beta features that the content uses.
        self.betas: set[str] = set()

    @staticmethod
    def is_result(block: Block) -> bool:
        return not isinstance(block, Raw) and block["type"] == "tool_result"

    @staticmethod
    def is_blank(block: Block) -> bool:
        return not isinstance(block, Raw) and block["type"] == "text" and not block["text"].strip()

    def marked(self, part: Part, path: str) -> Iterator[Block]:
        block: Block | None = self.part(part, path)
        if block is None:
            return
        if not part.HasField("cache_control"):
            yield block
        elif part.HasField("reasoning"):
            self._notes.dropped(f"{path}.cache_control", "a cached prefix cannot end with reasoning")
            yield block
        else:
            yield with_mark(block, part.cache_control, f"{path}.cache_control", self._notes)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _text(self, part: Part, path: str) -> Block | None:
        block: dict[str, Any] = {"type": "text", "text": part.text.text}
        if sent := self.citations(part, path):
            block["citations"] = sent
        return block

    def _image(self, part: Part, path: str) -> Block | None:
        if not self._target.capabilities.images:
            self._notes.dropped(path, f"{self._target.model} reads no images")
            return None
        if part.image.detail:
            self._notes.dropped(f"{path}.image.detail", "Anthropic decides by itself how closely to look at an image")
        source = self._source(part.image, f"{path}.image")
        return None if source is None else {"type": "image", "source": source}

    def _document(self, part: Part, path: str) -> Block | None:
        if not self._target.capabilities.documents:
            self._notes.dropped(path, f"{self._target.model} reads no documents")
            return None
        media = part.document
        source: dict[str, Any] | None
        if media.WhichOneof("source") == "data" and media.mime_type != "application/pdf":
            source = self._text_document(media, path)
        else:
            source = self._source(media, f"{path}.document")
        if source is None:
            return None
        block: dict[str, Any] = {"type": "document", "source": source}
        if media.filename:
            block["title"] = media.filename
        return block

    def _text_document(self, media: message_pb2.Media, path: str) -> dict[str, Any] | None:
        try:
            if _TEXT_DOCUMENTS.fullmatch(media.mime_type):
                return {"type": "text", "media_type": "text/plain", "data": media.data.decode()}
        except UnicodeDecodeError:
            self._notes.dropped(path, f"the document is no UTF-8 text, though its type is {media.mime_type!r}")
            return None
        self._notes.dropped(path, f"Anthropic reads PDF and text documents, not {media.mime_type!r}")
        return None

    def _source(self, media: message_pb2.Media, path: str) -> dict[str, Any] | None:
        match media.WhichOneof("source"):
            case "data":
                # msgspec writes bytes as base64.
                return {"type": "base64", "media_type": media.mime_type, "data": media.data}
            case "file_id":
                self.betas.add(FILES_BETA)
                return {"type": "file", "file_id": media.file_id}
            case "uri" if media.uri.startswith(("https://", "http://")):
                return {"type": "url", "url": media.uri}
            case _:
                self._notes.dropped(path, "Anthropic fetches https addresses only; send the bytes instead")
                return None

    def _tool_call(self, part: Part, path: str) -> Block | None:
        call = part.tool_call
        if self.noted_executed(part, path):
            return None
        block: dict[str, Any] = {"type": "tool_use", "id": self.ids.of(call.id), "name": call.name}
        block["input"] = arguments_object(call, self._spec, path, self._notes)
        if part.signature and not self.noted_foreign(part, f"{path}.signature"):
            marks = try_loads(part.signature)
            block.update(marks if isinstance(marks, dict) else {})
        return block

    def _tool_result(self, part: Part, path: str) -> Block | None:
        result = part.tool_result
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self.ids.of(result.tool_call_id)}
        content = self.without_blanks(list(self.blocks(result.parts, f"{path}.tool_result.parts")))
        if content:
            block["content"] = content
        if result.is_error:
            block["is_error"] = True
        return block

    def _reasoning(self, part: Part, path: str) -> Block | None:
        if self.noted_foreign(part, path):
            return None
        if part.reasoning.HasField("encrypted"):
            return {"type": "redacted_thinking", "data": part.reasoning.encrypted}
        if part.signature:
            return {"type": "thinking", "thinking": part.reasoning.text, "signature": part.signature}
        # Servers that imitate the provider do not sign.
        self.left_out(path, "reasoning without a signature is not taken back by Anthropic")
        return None

    def _refusal(self, part: Part, path: str) -> Block | None:
        return {"type": "text", "text": part.refusal.text}

    def _opaque(self, part: Part, path: str) -> Block | None:
        if self.noted_foreign(part, path):
            return None
        if beta := _OPAQUE_BETAS.get(part.opaque.type):
            self.betas.add(beta)
        return with_members(part.opaque.json.encode(), {})

    encoders: ClassVar = {
        "text": _text,
        "image": _image,
        "document": _document,
        "tool_call": _tool_call,
        "tool_result": _tool_result,
        "reasoning": _reasoning,
        "refusal": _refusal,
        "opaque": _opaque,
    }


def object_of(text: str) -> dict[str, Any]:
    """A JSON object that a caller gave."""
    value = try_loads(text)
    if not isinstance(value, dict):
        raise _no_object()
    return value


def _no_object() -> LLMBadRequestError:
    return LLMBadRequestError("a JSON text of the request is no object")


def members_of(text: bytes) -> dict[str, Raw]:
    """The members of a JSON object that a caller gave."""
    try:
        return _object.read(text)
    except LLMInvalidResponseError:
        raise _no_object() from None


def with_members(text: bytes, members: Mapping[str, Any]) -> Raw:
    """A JSON object that a caller gave, byte for byte, with these members put in or replaced."""
    known = members_of(text)
    if not members:
        return Raw(text)
    if known.keys() & members.keys():
        return Raw(dumps({**known, **members}))
    start = text.index(b"{") + 1
    return Raw(text[:start] + dumps(members)[1:-1] + (b"," if known else b"") + text[start:])


def with_mark(block: Block, asked: message_pb2.CacheControl, path: str, notes: Notes) -> Block:
    """The block with the mark that ends a prefix to cache with it."""
    mark = {"cache_control": cache_mark("ephemeral", asked, path, notes)}
    return with_members(bytes(block), mark) if isinstance(block, Raw) else {**block, **mark}


def provider_tool(tool: completion_pb2.ProviderTool, name: str) -> Raw:
    """A tool that the provider runs: its configuration, with its type and, where it has none, its usual name."""
    config = tool.config_json.strip().encode() or b"{}"
    members: dict[str, Any] = {"type": tool.type}
    if name and "name" not in members_of(config):
        members["name"] = name
    return with_members(config, members)

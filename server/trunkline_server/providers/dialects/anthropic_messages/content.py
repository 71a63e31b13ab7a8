"""The conversation as Anthropic wants it: instructions apart, tool results in user turns, one turn a role."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMBadRequestError, LLMInvalidResponseError
from trunkline_server.providers.base import FOREIGN, Notes, Target, part_is_foreign
from trunkline_server.providers.claude import Model, cache_mark
from trunkline_server.providers.ids import CallIds
from trunkline_server.providers.jsontext import Reader, dumps, try_loads
from trunkline_server.providers.tools import arguments_object
from trunkline_server.providers.turns import Turns

Part = message_pb2.ContentPart
Block = dict[str, Any] | Raw

#: Features that need a beta header, by what a request holds.
FILES_BETA = "files-api-2025-04-14"
_OPAQUE_BETAS = {
    "compaction": "compact-2026-01-12",
    "container_upload": FILES_BETA,
    "mcp_tool_result": "mcp-client-2025-11-20",
    "mcp_tool_use": "mcp-client-2025-11-20",
}

_TURNS = {
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_TOOL: "user",
    message_pb2.ROLE_ASSISTANT: "assistant",
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
}
#: Documents whose bytes are text. The provider knows one name for all of them.
_TEXT_DOCUMENTS = re.compile(r"text/.+|application/(json|xml|x-yaml|yaml|javascript|x-sh|.+\+(json|xml))")
_NOT_ID = re.compile(r"[^A-Za-z0-9_-]")

_object = Reader(dict[str, Raw])


class Conversation:
    """Turns messages into the provider's system blocks and turns. What cannot be said goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, model: Model, notes: Notes) -> None:
        self._spec = spec
        self._target = target
        self._model = model
        self._notes = notes
        #: Beta features that the content uses.
        self.betas: set[str] = set()
        self.system: list[Block] = []
        self._turns = Turns(notes, is_result=_is_result, is_blank=_is_blank)
        self._ids = CallIds(_NOT_ID)
        #: Calls that were left out; their results are left out as well.
        self._gone: set[str] = set()

    @property
    def turns(self) -> list[dict[str, Any]]:
        return self._turns.whole()

    def read(self) -> None:
        """Reads the spec's messages."""
        leading = True
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            role = _TURNS.get(message.role, "user")
            if message.HasField("name"):
                self._notes.dropped(f"{path}.name", "Anthropic's messages have no names of participants")
            if role == "system":
                self._instructions(message, path, leading=leading)
                continue
            leading = False
            self._turns.add(role, list(self._blocks(message.parts, f"{path}.parts")), path)

    def _instructions(self, message: message_pb2.Message, path: str, *, leading: bool) -> None:
        blocks = []
        for block, part, at in self._blocks_with_parts(message.parts, f"{path}.parts"):
            if part.WhichOneof("kind") in ("text", "opaque"):
                blocks.append(block)
            else:
                self._notes.dropped(at, "instructions are text only")
        blocks = self._turns.without_blanks(blocks)
        if not blocks:
            return
        if leading:
            self.system.extend(blocks)
        elif self._model.system_turns:
            self._turns.add("system", blocks, path)
        else:
            self._notes.altered(
                path,
                f"{self._target.model} takes instructions only before the conversation; these are moved there",
            )
            self.system.extend(blocks)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _blocks(self, parts: Iterable[Part], path: str) -> Iterator[Block]:
        for block, _, _ in self._blocks_with_parts(parts, path):
            yield block

    def _blocks_with_parts(self, parts: Iterable[Part], path: str) -> Iterator[tuple[Block, Part, str]]:
        for index, part in enumerate(parts):
            at = f"{path}[{index}]"
            kind = part.WhichOneof("kind")
            block = _PARTS[kind](self, part, at) if kind else None
            if block is not None:
                yield (self._marked(block, part, at) if part.HasField("cache_control") else block), part, at

    def _marked(self, block: Block, part: Part, path: str) -> Block:
        """The block with its cache mark."""
        kind = part.WhichOneof("kind")
        if kind == "reasoning":
            self._notes.dropped(f"{path}.cache_control", "a cached prefix cannot end with reasoning")
            return block
        mark = cache_mark("ephemeral", part.cache_control, f"{path}.cache_control", self._notes)
        if isinstance(block, Raw):
            return with_members(bytes(block), {"cache_control": mark})
        block["cache_control"] = mark
        return block

    def _text(self, part: Part, path: str) -> Block | None:
        block: dict[str, Any] = {"type": "text", "text": part.text.text}
        if part.text.citations:
            if part_is_foreign(part, self._target):
                self._notes.foreign_data(f"{path}.text.citations", part.origin_provider)
                return block
            sent = [
                Raw(citation.raw_json.encode()) for citation in part.text.citations if _is_object(citation.raw_json)
            ]
            if len(sent) < len(part.text.citations):
                self._notes.dropped(
                    f"{path}.text.citations", "a citation goes back only as the provider made it (raw_json)"
                )
            if sent:
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

    def _unheard(self, part: Part, path: str) -> Block | None:
        self._notes.dropped(path, f"Anthropic takes no {part.WhichOneof('kind')}")
        return None

    def _tool_call(self, part: Part, path: str) -> Block | None:
        call = part.tool_call
        if call.provider_executed:
            self._gone.add(call.id)
            origin = part.origin_provider if part.HasField("origin_provider") else "another provider"
            self._notes.foreign_data(path, origin)
            return None
        block: dict[str, Any] = {"type": "tool_use", "id": self._ids.of(call.id), "name": call.name}
        block["input"] = arguments_object(call, self._spec, path, self._notes)
        if part.signature:
            if part_is_foreign(part, self._target):
                self._notes.foreign_data(f"{path}.signature", part.origin_provider)
            else:
                marks = try_loads(part.signature)
                block.update(marks if isinstance(marks, dict) else {})
        return block

    def _tool_result(self, part: Part, path: str) -> Block | None:
        result = part.tool_result
        if result.tool_call_id in self._gone:
            return None
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._ids.of(result.tool_call_id)}
        content = self._turns.without_blanks(list(self._blocks(result.parts, f"{path}.tool_result.parts")))
        if content:
            block["content"] = content
        if result.is_error:
            block["is_error"] = True
        return block

    def _reasoning(self, part: Part, path: str) -> Block | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        if part.reasoning.HasField("encrypted"):
            return {"type": "redacted_thinking", "data": part.reasoning.encrypted}
        if part.signature:
            return {"type": "thinking", "thinking": part.reasoning.text, "signature": part.signature}
        # Never a reason to refuse: answers of servers that do not sign must be able to go into the next request.
        self._notes.foreign.append((FOREIGN, path, "reasoning without a signature is not taken back by Anthropic"))
        return None

    def _refusal(self, part: Part, path: str) -> Block | None:
        return {"type": "text", "text": part.refusal.text}

    def _opaque(self, part: Part, path: str) -> Block | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        if beta := _OPAQUE_BETAS.get(part.opaque.type):
            self.betas.add(beta)
        return with_members(part.opaque.json.encode(), {})


_PARTS: Mapping[str, Callable[[Conversation, Part, str], Block | None]] = {
    "text": Conversation._text,
    "image": Conversation._image,
    "audio": Conversation._unheard,
    "video": Conversation._unheard,
    "document": Conversation._document,
    "tool_call": Conversation._tool_call,
    "tool_result": Conversation._tool_result,
    "reasoning": Conversation._reasoning,
    "refusal": Conversation._refusal,
    "opaque": Conversation._opaque,
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


def provider_tool(tool: completion_pb2.ProviderTool, name: str) -> Raw:
    """A tool that the provider runs: its configuration, with its type and, where it has none, its usual name."""
    config = tool.config_json.strip().encode() or b"{}"
    members: dict[str, Any] = {"type": tool.type}
    if name and "name" not in members_of(config):
        members["name"] = name
    return with_members(config, members)


def _is_object(text: str) -> bool:
    return isinstance(try_loads(text), dict)


def _is_result(block: Block) -> bool:
    return not isinstance(block, Raw) and block["type"] == "tool_result"


def _is_blank(block: Block) -> bool:
    return not isinstance(block, Raw) and block["type"] == "text" and not block["text"].strip()

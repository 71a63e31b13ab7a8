"""The conversation as Converse wants it: instructions apart, tool results in user turns, one turn a role."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers import claude
from trunkline_server.providers.base import FOREIGN, Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.bedrock_converse.models import family_of
from trunkline_server.providers.ids import CallIds
from trunkline_server.providers.jsontext import embed
from trunkline_server.providers.tools import arguments_object
from trunkline_server.providers.turns import Turns

Part = message_pb2.ContentPart
Block = dict[str, Any] | Raw

_TURNS = {
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_TOOL: "user",
    message_pb2.ROLE_ASSISTANT: "assistant",
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
}
_NOT_ID = re.compile(r"[^A-Za-z0-9_.:-]")
_ID_CHARS = 64

#: `format` by media type, by kind of part.
FORMATS: Mapping[str, Mapping[str, str]] = {
    "image": {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"},
    "document": {
        "application/pdf": "pdf",
        "text/csv": "csv",
        "application/msword": "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/vnd.ms-excel": "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "text/html": "html",
        "text/plain": "txt",
        "text/markdown": "md",
    },
    "video": {
        "video/x-matroska": "mkv",
        "video/quicktime": "mov",
        "video/mp4": "mp4",
        "video/webm": "webm",
        "video/x-flv": "flv",
        "video/mpeg": "mpeg",
        "video/x-ms-wmv": "wmv",
        "video/3gpp": "three_gp",
    },
    "audio": {
        "audio/mpeg": "mp3",
        "audio/mp3": "mp3",
        "audio/opus": "opus",
        "audio/wav": "wav",
        "audio/x-wav": "wav",
        "audio/aac": "aac",
        "audio/flac": "flac",
        "audio/mp4": "mp4",
        "audio/m4a": "m4a",
        "audio/x-m4a": "m4a",
        "audio/ogg": "ogg",
        "audio/pcm": "pcm",
        "audio/webm": "webm",
    },
}
#: Documents whose bytes are text of a kind without a format of its own.
_TEXT = re.compile(r"text/.+|application/(json|xml|x-yaml|yaml|javascript|x-sh|.+\+(json|xml))")

#: What a document's name may not hold, and a run of blanks.
_NOT_NAME = re.compile(r"[^\w\s()\[\]-]+", re.ASCII)
_BLANKS = re.compile(r"\s+")
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}$")


class Conversation:
    """Turns messages into system blocks and turns. What cannot be said goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        self._spec = spec
        self._target = target
        self._family = family_of(target.model)
        self._notes = notes
        self._claude = claude.model_of(target.model) if self._family.thinking == "claude" else None
        self._turns = Turns(notes, is_result=_is_result, is_blank=_is_blank)
        self._ids = CallIds(_NOT_ID, _ID_CHARS)
        self._names: set[str] = set()
        #: Calls that were left out; their results are left out as well.
        self._gone: set[str] = set()
        self.system: list[Block] = []
        #: Does it hold calls or results? Then the provider wants to see tools.
        self.calls = False

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
                self._notes.dropped(f"{path}.name", "Converse has no names of participants")
            if role == "system":
                self._instructions(message, path, leading=leading)
                continue
            leading = False
            self._turns.add(role, list(self._blocks(message.parts, f"{path}.parts")), path)

    def _instructions(self, message: message_pb2.Message, path: str, *, leading: bool) -> None:
        blocks: list[Block] = []
        for index, part in enumerate(message.parts):
            at = f"{path}.parts[{index}]"
            if part.WhichOneof("kind") in ("text", "opaque"):
                blocks.extend(self._marked(part, at))
            else:
                self._notes.dropped(at, "instructions are text only")
        blocks = self._turns.without_blanks(blocks)
        model = self._target.model
        if not blocks:
            return
        if not self._family.system:
            self._notes.altered(path, f"{model} takes no instructions; they are sent as what the user says")
            self._turns.add("user", blocks, path)
        elif leading:
            self.system.extend(blocks)
        elif self._claude is not None and self._claude.system_turns:
            self._turns.add("system", blocks, path)
        else:
            self._notes.altered(path, f"{model} takes instructions only before the conversation; these are moved there")
            self.system.extend(blocks)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _blocks(self, parts: Iterable[Part], path: str) -> Iterator[Block]:
        for index, part in enumerate(parts):
            yield from self._marked(part, f"{path}[{index}]")

    def _marked(self, part: Part, path: str) -> Iterator[Block]:
        """The part's block, and the mark that ends a prefix to cache with it."""
        kind = part.WhichOneof("kind")
        block = _PARTS[kind](self, part, path) if kind else None
        if block is None:
            return
        yield block
        if not part.HasField("cache_control"):
            return
        path = f"{path}.cache_control"
        if kind == "reasoning":
            self._notes.dropped(path, "a cached prefix cannot end with reasoning")
        elif not self._target.capabilities.prompt_cache:
            self._notes.dropped(path, f"{self._target.model} caches no prompts")
        else:
            yield {"cachePoint": claude.cache_mark("default", part.cache_control, path, self._notes)}

    def _text(self, part: Part, path: str) -> Block | None:
        text, citations = part.text.text, part.text.citations
        if not citations:
            return {"text": text}
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(f"{path}.text.citations", part.origin_provider)
            return {"text": text}
        sent = [embed(citation.raw_json) for citation in citations if citation.raw_json.strip().startswith("{")]
        if len(sent) < len(citations):
            self._notes.dropped(
                f"{path}.text.citations", "a citation goes back only as the provider made it (raw_json)"
            )
        if not sent:
            return {"text": text}
        said = {"content": [{"text": text}]} if text else {}
        return {"citationsContent": {**said, "citations": sent}}

    def _image(self, part: Part, path: str) -> Block | None:
        if part.image.detail:
            self._notes.dropped(f"{path}.image.detail", "the model decides by itself how closely to look at an image")
        return self._media("image", part, path, can=self._target.capabilities.images)

    def _audio(self, part: Part, path: str) -> Block | None:
        return self._media("audio", part, path, can=self._target.capabilities.audio)

    def _video(self, part: Part, path: str) -> Block | None:
        return self._media("video", part, path, can=self._family.video)

    def _document(self, part: Part, path: str) -> Block | None:
        block = self._media("document", part, path, can=self._target.capabilities.documents)
        if isinstance(block, dict):
            document = block["document"]
            block["document"] = {"format": document["format"], "name": self._name(part.document), **document}
        return block

    def _media(self, kind: str, part: Part, path: str, *, can: bool) -> Block | None:
        if not can:
            self._notes.dropped(path, f"{self._target.model} takes no {kind}")
            return None
        media: message_pb2.Media = getattr(part, kind)
        form = _format(kind, media)
        if form is None:
            known = ", ".join(sorted(set(FORMATS[kind].values())))
            self._notes.dropped(path, f"Converse takes no {kind} of type {media.mime_type!r}, but {known}")
            return None
        source: dict[str, Any]
        match media.WhichOneof("source"):
            case "data":
                # msgspec writes bytes as base64.
                source = {"bytes": media.data}
            case "uri" if media.uri.startswith("s3://"):
                uri, _, owner = media.uri.partition("?bucketOwner=")
                source = {"s3Location": {"uri": uri, **({"bucketOwner": owner} if owner else {})}}
            case _:
                self._notes.dropped(path, "Bedrock fetches s3:// addresses only; send the bytes instead")
                return None
        return {kind: {"format": form, "source": source}}

    def _name(self, media: message_pb2.Media) -> str:
        """A name that the provider accepts, and that no other document of the conversation has."""
        plain = _NOT_NAME.sub(" ", _ENDING.sub("", media.filename))
        stem = _BLANKS.sub(" ", plain).strip()[:190] or "Document 1"
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem.removesuffix(' 1')} {number}", number + 1
        self._names.add(name)
        return name

    def _tool_call(self, part: Part, path: str) -> Block | None:
        call = part.tool_call
        if call.provider_executed:
            self._gone.add(call.id)
            origin = part.origin_provider if part.HasField("origin_provider") else "another provider"
            self._notes.foreign_data(path, origin)
            return None
        self.calls = True
        given = arguments_object(call, self._spec, path, self._notes)
        return {"toolUse": {"toolUseId": self._ids.of(call.id), "name": call.name, "input": given}}

    def _tool_result(self, part: Part, path: str) -> Block | None:
        result = part.tool_result
        if result.tool_call_id in self._gone:
            return None
        self.calls = True
        content = self._turns.without_blanks(list(self._said(result.parts, f"{path}.tool_result.parts")))
        block: dict[str, Any] = {"toolUseId": self._ids.of(result.tool_call_id), "content": content}
        if result.is_error:
            block["status"] = "error"
        return {"toolResult": block}

    def _said(self, parts: Iterable[Part], path: str) -> Iterator[Block]:
        """The blocks of a result, in which no prefix can end."""
        for index, part in enumerate(parts):
            kind, at = part.WhichOneof("kind"), f"{path}[{index}]"
            if part.HasField("cache_control"):
                self._notes.dropped(f"{at}.cache_control", "a cached prefix can end after a result, not inside of it")
            block = _PARTS[kind](self, part, at) if kind else None
            if block is not None:
                yield block

    def _reasoning(self, part: Part, path: str) -> Block | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        if part.reasoning.HasField("encrypted"):
            return {"reasoningContent": {"redactedContent": part.reasoning.encrypted}}
        if part.signature:
            return {"reasoningContent": {"reasoningText": {"text": part.reasoning.text, "signature": part.signature}}}
        # Never a reason to refuse: answers of models that do not sign must be able to go into the next request.
        self._notes.foreign.append((FOREIGN, path, "reasoning without a signature is not taken back"))
        return None

    def _refusal(self, part: Part, path: str) -> Block | None:
        return {"text": part.refusal.text}

    def _opaque(self, part: Part, path: str) -> Block | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        return embed(part.opaque.json)


_PARTS: Mapping[str, Callable[[Conversation, Part, str], Block | None]] = {
    "text": Conversation._text,
    "image": Conversation._image,
    "audio": Conversation._audio,
    "video": Conversation._video,
    "document": Conversation._document,
    "tool_call": Conversation._tool_call,
    "tool_result": Conversation._tool_result,
    "reasoning": Conversation._reasoning,
    "refusal": Conversation._refusal,
    "opaque": Conversation._opaque,
}


def _format(kind: str, media: message_pb2.Media) -> str | None:
    """The word for the media type, by the address's ending where there is none."""
    mime = media.mime_type.partition(";")[0].strip().lower()
    known = FORMATS[kind]
    if mime in known:
        return known[mime]
    if kind == "document" and _TEXT.fullmatch(mime):
        return "txt"
    ending = _ENDING.search(media.uri or media.filename)
    word = ending.group()[1:].lower() if ending and not mime else ""
    word = {"jpg": "jpeg", "mpg": "mpeg", "3gp": "three_gp", "htm": "html"}.get(word, word)
    return word if word in known.values() else None


def _is_result(block: Block) -> bool:
    return isinstance(block, dict) and "toolResult" in block


def _is_blank(block: Block) -> bool:
    return isinstance(block, dict) and "text" in block and not block["text"].strip()

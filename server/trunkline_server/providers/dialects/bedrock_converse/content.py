"""The conversation as Converse wants it: instructions apart, tool results in user turns, one turn a role."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers import claude
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.dialects.bedrock_converse.models import family_of
from trunkline_server.providers.ids import CallIds
from trunkline_server.providers.jsontext import embed
from trunkline_server.providers.parts import Block, Part
from trunkline_server.providers.tools import arguments_object
from trunkline_server.providers.turns import Turns

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


class Conversation(Turns):
    """Turns messages into system blocks and turns. What cannot be said goes to the notes."""

    api = "Converse"

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        self._family = family_of(target.model)
        between = self._family.thinking == "claude" and claude.model_of(target.model).system_turns
        super().__init__(spec, target, notes, CallIds(_NOT_ID, _ID_CHARS), system_turns=between)
        self._names: set[str] = set()
        #: Does it hold calls or results? Then the provider wants to see tools.
        self.calls = False

    @staticmethod
    def is_result(block: Block) -> bool:
        return isinstance(block, dict) and "toolResult" in block

    @staticmethod
    def is_blank(block: Block) -> bool:
        return isinstance(block, dict) and "text" in block and not block["text"].strip()

    def instruct(self, blocks: list[Block], path: str, *, leading: bool) -> None:
        if self._family.system:
            super().instruct(blocks, path, leading=leading)
            return
        self._notes.altered(path, f"{self._target.model} takes no instructions; they are sent as what the user says")
        self.add("user", blocks, path)

    def marked(self, part: Part, path: str) -> Iterator[Block]:
        block: Block | None = self.part(part, path)
        if block is None:
            return
        yield block
        if not part.HasField("cache_control"):
            return
        path = f"{path}.cache_control"
        if part.HasField("reasoning"):
            self._notes.dropped(path, "a cached prefix cannot end with reasoning")
        elif not self._target.capabilities.prompt_cache:
            self._notes.dropped(path, f"{self._target.model} caches no prompts")
        else:
            yield {"cachePoint": claude.cache_mark("default", part.cache_control, path, self._notes)}

    # -- parts --------------------------------------------------------------------------------------------------------

    def _text(self, part: Part, path: str) -> Block | None:
        said: Block = {"text": part.text.text}
        sent = self.citations(part, path)
        if not sent:
            return said
        return {"citationsContent": {**({"content": [said]} if part.text.text else {}), "citations": sent}}

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
        if self.noted_executed(part, path):
            return None
        self.calls = True
        given = arguments_object(call, self._spec, path, self._notes)
        return {"toolUse": {"toolUseId": self.ids.of(call.id), "name": call.name, "input": given}}

    def _tool_result(self, part: Part, path: str) -> Block | None:
        result = part.tool_result
        self.calls = True
        content = self.without_blanks(list(self._said(result.parts, f"{path}.tool_result.parts")))
        block: dict[str, Any] = {"toolUseId": self.ids.of(result.tool_call_id), "content": content}
        if result.is_error:
            block["status"] = "error"
        return {"toolResult": block}

    def _said(self, parts: Iterable[Part], path: str) -> Iterator[Block]:
        """The blocks of a result, in which no prefix can end."""
        for index, part in enumerate(parts):
            at = f"{path}[{index}]"
            if part.HasField("cache_control"):
                self._notes.dropped(f"{at}.cache_control", "a cached prefix can end after a result, not inside of it")
            block = self.part(part, at)
            if block is not None:
                yield block

    def _reasoning(self, part: Part, path: str) -> Block | None:
        if self.noted_foreign(part, path):
            return None
        if part.reasoning.HasField("encrypted"):
            return {"reasoningContent": {"redactedContent": part.reasoning.encrypted}}
        if part.signature:
            return {"reasoningContent": {"reasoningText": {"text": part.reasoning.text, "signature": part.signature}}}
        # Not all models sign.
        self.left_out(path, "reasoning without a signature is not taken back")
        return None

    def _refusal(self, part: Part, path: str) -> Block | None:
        return {"text": part.refusal.text}

    def _opaque(self, part: Part, path: str) -> Block | None:
        if self.noted_foreign(part, path):
            return None
        return embed(part.opaque.json)

    encoders: ClassVar = {
        "text": _text,
        "image": _image,
        "audio": _audio,
        "video": _video,
        "document": _document,
        "tool_call": _tool_call,
        "tool_result": _tool_result,
        "reasoning": _reasoning,
        "refusal": _refusal,
        "opaque": _opaque,
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

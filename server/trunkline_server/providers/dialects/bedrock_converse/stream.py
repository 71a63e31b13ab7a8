"""Converse's streams: messageStart, blocks begun, filled and ended by index, messageStop, metadata.

See https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.assembly import Assembly, Part, clean
from trunkline_server.providers.base import BARE, EXCEPTION, Event
from trunkline_server.providers.dialects.bedrock_converse import response
from trunkline_server.providers.dialects.bedrock_converse.errors import error_in_answer, is_error
from trunkline_server.providers.jsontext import Reader, dumps, loads, text_of, try_loads, unreadable
from trunkline_server.providers.media import bytes_of


class _Input(Struct, gc=False, rename="camel"):
    input: str | None = None


class _Thought(Struct, gc=False, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Input | None = None
    reasoning_content: _Thought | None = None
    citation: Raw = Raw()
    image: response.Media | None = None


class _BlockDelta(Struct, gc=False, rename="camel"):
    content_block_index: int = 0
    delta: _Delta | None = None


class _Start(Struct, rename="camel"):
    tool_use: response.ToolUse | None = None
    image: response.Media | None = None


class _BlockStart(Struct, rename="camel"):
    content_block_index: int = 0
    start: Raw = Raw()


class _BlockStop(Struct, rename="camel"):
    content_block_index: int = 0


class _MessageStop(Struct, rename="camel"):
    stop_reason: str | None = None
    additional_model_response_fields: Raw = Raw()


class _Metadata(Struct, rename="camel"):
    usage: Raw = Raw()
    service_tier: response.Tier | None = None


_fast = msgspec.json.Decoder(_BlockDelta).decode
_delta = Reader(_BlockDelta)
_start = Reader(_Start)
_block_start = Reader(_BlockStart)
_block_stop = Reader(_BlockStop)
_message_stop = Reader(_MessageStop)
_metadata = Reader(_Metadata)


class _Opaque:
    """A block that the contract does not model, while it arrives. It becomes a part when it is whole."""

    __slots__ = ("_content", "_input", "_name", "_start")

    def __init__(self, name: str, start: dict[str, Any]) -> None:
        self._name = name
        self._start = start
        self._input: list[str] = []
        self._content: list[Any] = []

    def add(self, delta: Any) -> None:
        """Folds a delta in: texts are pieces of the input, lists pieces of the content, members are added."""
        piece = delta.get(self._name) if isinstance(delta, dict) else None
        if isinstance(piece, list):
            self._content.extend(piece)
        elif isinstance(piece, dict):
            for name, value in piece.items():
                if name == "input" and isinstance(value, str):
                    self._input.append(value)
                else:
                    self._start[name] = value

    def whole(self) -> bytes:
        made = dict(self._start)
        if self._name == "toolUse":
            said = clean("".join(self._input)) or "{}"
            made["input"] = Raw(said.encode()) if isinstance(try_loads(said), dict) else said
        if self._name == "toolResult":
            made["content"] = self._content
        elif self._content:
            made.setdefault("content", self._content)
        return dumps({self._name: made})


class StreamDecoder:
    """Decodes one stream into its assembly. Events whose type is not known are skipped."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        #: What each index is, until it ends.
        self._blocks: dict[int, Part | _Opaque] = {}

    def event(self, event: Event) -> None:
        """Raises LLMError: an exception inside the stream, or an event that cannot be read."""
        name = event.name
        if name == b"contentBlockDelta":
            self._delta(event.data)
            return
        if name.startswith(EXCEPTION):
            raise error_in_answer(event.data, name[len(EXCEPTION) :].decode("utf-8", "replace"))
        if name in (b"", BARE):
            self._unnamed(event.data)
            return
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, event.data)

    def end(self) -> None:
        """The stream ended. Raises LLMConnectionError unless it told why the answer did."""
        self._assembly.require_finished()

    # -- events -------------------------------------------------------------------------------------------------------

    def _unnamed(self, data: bytes) -> None:
        """An event whose name is its one member: so the models' own streams have it, inside of other frames."""
        members = loads(data)
        if not isinstance(members, dict):
            raise unreadable(data)
        for name, value in members.items():
            if name.endswith("Exception"):
                raise error_in_answer(dumps(value), name)
            if name == "contentBlockDelta" or name.encode("utf-8", "replace") in _HANDLERS:
                self.event(Event(name.encode(), dumps(value)))
                return
        if is_error(members):
            raise error_in_answer(data)

    def _message_start(self, data: bytes) -> None:
        self._assembly.touch(0)

    def _block_start(self, data: bytes) -> None:
        read = _block_start.read(data)
        index = read.content_block_index
        self._end_block(index)
        if not text_of(read.start):
            return
        start = loads(bytes(read.start))
        if not isinstance(start, dict) or not start:
            return
        known = _start.read(bytes(read.start))
        if known.tool_use is not None and not response.is_providers(known.tool_use):
            self._blocks[index] = response.open_call(known.tool_use, self._assembly, index)
        elif known.image is not None:
            self._blocks[index] = response.open_image(known.image.format, self._assembly, index)
        else:
            name, value = next(iter(start.items()))
            self._assembly.note_first_token()
            self._blocks[index] = _Opaque(name, value if isinstance(value, dict) else {})

    def _delta(self, data: bytes) -> None:
        try:
            read = _fast(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            read = _delta.read(data)
        index, delta = read.content_block_index, read.delta
        block = self._blocks.get(index)
        if delta is None:
            return
        text = delta.text
        if text is not None and isinstance(block, Part) and block.kind == "text":
            # Nearly all deltas are these.
            block.text(text)
        elif block.__class__ is _Opaque:
            block.add(loads(data)["delta"])
        elif text is not None:
            self._part(index, block, "text").text(text)
        elif delta.tool_use is not None:
            if not isinstance(block, Part) or block.kind != "tool_call":
                raise LLMInvalidResponseError("the provider sent arguments of a tool call that it had not begun")
            block.text(delta.tool_use.input or "")
        elif delta.reasoning_content is not None:
            self._thought(index, block, delta.reasoning_content)
        elif text_of(delta.citation):
            self._part(index, block, "text").citation(response.citation_of(bytes(delta.citation)))
        elif isinstance(block, Part) and block.kind == "image" and delta.image is not None:
            block.bytes(bytes_of(delta.image.source.bytes if delta.image.source is not None else None))

    def _thought(self, index: int, block: Part | _Opaque | None, thought: _Thought) -> None:
        if thought.redacted_content:
            part = block
            if not isinstance(part, Part) or part.kind != "reasoning":
                self._end_block(index)
                part = self._blocks[index] = response.open_reasoning(self._assembly, index, redacted=True)
            part.encrypted(thought.redacted_content)
            return
        part = self._part(index, block, "reasoning")
        part.text(thought.text or "")
        part.signature(thought.signature or "")

    def _part(self, index: int, block: Part | _Opaque | None, kind: str) -> Part:
        """The open part of this kind at this index; begun here, as texts and thoughts are not announced."""
        if isinstance(block, Part) and block.kind == kind:
            return block
        self._end_block(index)
        part = self._blocks[index] = response.open_part(kind, self._assembly, index)
        return part

    def _block_stop(self, data: bytes) -> None:
        self._end_block(_block_stop.read(data).content_block_index)

    def _message_stop(self, data: bytes) -> None:
        read = _message_stop.read(data)
        for index in list(self._blocks):
            self._end_block(index)
        response.finish(self._assembly, read.stop_reason, read.additional_model_response_fields)

    def _take_metadata(self, data: bytes) -> None:
        read = _metadata.read(data)
        response.take_usage(read.usage, read.service_tier, self._assembly)

    def _end_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if isinstance(block, _Opaque):
            response.pour_opaque(block.whole(), self._assembly, index)
        elif block is not None:
            block.close()


_HANDLERS: Mapping[bytes, Callable[[StreamDecoder, bytes], None]] = {
    b"messageStart": StreamDecoder._message_start,
    b"contentBlockStart": StreamDecoder._block_start,
    b"contentBlockStop": StreamDecoder._block_stop,
    b"messageStop": StreamDecoder._message_stop,
    b"metadata": StreamDecoder._take_metadata,
}

"""Anthropic's streams: message_start, blocks begun, filled and ended by index, message_delta, message_stop.

See https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.assembly import Assembly, Part, clean
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.dialects.anthropic_messages import response
from trunkline_server.providers.dialects.anthropic_messages.errors import error_in_answer
from trunkline_server.providers.jsontext import Reader, dumps, loads, text_of, try_loads


class _Delta(Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    citation: Raw = Raw()
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Event(Struct, gc=False):
    type: str | None = None
    index: int = 0
    delta: _Delta | None = None
    content_block: Raw = Raw()
    message: Raw = Raw()
    usage: Raw = Raw()
    error: Raw = Raw()


_reader = Reader(_Event)
_fast = msgspec.json.Decoder(_Event).decode
_message = Reader(response.Message)

#: Deltas of text: the kind of part that they belong to, and the member that holds them.
_TEXTS: Mapping[str | None, tuple[str, str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("reasoning", "thinking"),
    "input_json_delta": ("tool_call", "partial_json"),
}
_NOT_TEXT = ("", "")


class _Opaque:
    """A block that the contract does not model, while it arrives. It becomes a part when it is whole."""

    __slots__ = ("block", "folded", "input")

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.input: list[str] = []
        #: Pieces by member, for deltas whose type is not known.
        self.folded: dict[str, list[Any]] = {}

    def add(self, delta: dict[str, Any]) -> None:
        """Folds a delta in: `input_json_delta` is the block's input; other deltas append to members of their names."""
        piece = delta.pop("partial_json", None)
        if isinstance(piece, str):
            self.input.append(piece)
        citation = delta.pop("citation", None)
        if citation is not None:
            self.folded.setdefault("citations", []).append([citation])
        for name, value in delta.items():
            if name != "type" and value is not None:
                self.folded.setdefault(name, []).append(value)

    def whole(self) -> bytes:
        said = "".join(self.input)
        if not said and not self.folded:
            return self.block
        members = response.members(self.block)
        if said:
            members["input"] = _json_or_text(said)
        for name, pieces in self.folded.items():
            before = members.get(name)
            members[name] = _joined(None if before is None else loads(bytes(before)), pieces)
        return response.written(members)


class StreamDecoder:
    """Decodes one stream into its assembly.

    The finish reason comes before the end; it is held until `message_stop`, so that whatever comes between stays in
    order. Events whose type is not known are skipped, as the provider asks of its clients.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        #: What each index is, until it ends.
        self._blocks: dict[int, Part | _Opaque] = {}
        #: Arguments that came with the beginning of a call. They stand if no deltas follow.
        self._arguments: dict[int, str] = {}
        self._usage = b""
        self._reason: str | None = None
        self._stop_sequence: str | None = None
        self._stopped = False

    def event(self, event: Event) -> None:
        """Raises LLMError: an error inside the stream, or an event that cannot be read."""
        data = event.data
        try:
            read = _fast(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            found = self._forgiving(event)
            if found is None:
                return
            read = found
        if read.type is None:
            read.type = event.name.decode("utf-8", "replace") if event.name not in (b"", BARE) else None
        if read.type == "content_block_delta" and read.delta is not None and not self._stopped:
            # Nearly all events are this one.
            delta = read.delta
            kind, member = _TEXTS.get(delta.type, _NOT_TEXT)
            block = self._blocks.get(read.index)
            if isinstance(block, Part) and block.kind == kind:
                text = getattr(delta, member)
                if text:
                    if kind == "tool_call":
                        self._arguments.pop(read.index, None)
                    block.text(text)
                return
            self._other_delta(read.index, delta, block, data)
            return
        if read.type == "error" or event.name == b"error" or text_of(read.error):
            raise error_in_answer(data)
        if read.type is None and event.name == BARE:
            raise error_in_answer(data)
        handler = _HANDLERS.get(read.type)
        if handler is not None and not self._stopped:
            handler(self, read)

    def end(self) -> None:
        """The stream ended. Raises LLMConnectionError unless it told why the answer did."""
        if self._reason is not None:
            self._finish()
        self._assembly.require_finished()

    # -- events -------------------------------------------------------------------------------------------------------

    def _message_start(self, event: _Event) -> None:
        if not text_of(event.message):
            return
        message = _message.read(bytes(event.message))
        response.begin(message, self._assembly)
        response.pour_all(message.content or (), self._assembly)
        self._take_usage(bytes(message.usage))

    def _block_start(self, event: _Event) -> None:
        self._end_block(event.index)
        block = bytes(event.content_block)
        kind = response.type_of(block) if text_of(event.content_block) else ""
        if kind in response.MODELLED:
            part, arguments = response.pour(block, kind, self._assembly, event.index)
            self._blocks[event.index] = part
            if arguments:
                self._arguments[event.index] = arguments
        elif kind:
            self._assembly.note_first_token()
            self._blocks[event.index] = _Opaque(block)

    def _block_stop(self, event: _Event) -> None:
        self._end_block(event.index)

    def _message_delta(self, event: _Event) -> None:
        delta = event.delta
        if delta is not None and delta.stop_reason is not None:
            self._reason, self._stop_sequence = delta.stop_reason, delta.stop_sequence
        self._take_usage(bytes(event.usage))

    def _message_stop(self, event: _Event) -> None:
        self._finish()
        self._assembly.ended = True

    # -- parts --------------------------------------------------------------------------------------------------------

    def _other_delta(self, index: int, delta: _Delta, block: Part | _Opaque | None, data: bytes) -> None:
        if isinstance(block, _Opaque):
            value = try_loads(data)
            if isinstance(value, dict) and isinstance(value.get("delta"), dict):
                block.add(value["delta"])
            return
        if delta.type == "signature_delta" and block is not None:
            block.signature(delta.signature or "")
        elif delta.type == "citations_delta" and block is not None and block.kind == "text":
            if text_of(delta.citation):
                block.citation(response.citation_of(bytes(delta.citation)))
        elif delta.type in _TEXTS:
            self._unannounced(index, delta)

    def _unannounced(self, index: int, delta: _Delta) -> None:
        """A delta whose block was not begun, or begun as something else. Nothing that was said is lost."""
        kind, member = _TEXTS[delta.type]
        text = getattr(delta, member)
        if not text:
            return
        if kind == "tool_call":
            raise LLMInvalidResponseError("the provider sent arguments of a tool call that it had not begun")
        self._end_block(index)
        part = message_pb2.ContentPart()
        getattr(part, kind).SetInParent()
        opened = self._assembly.open(0, index, part)
        self._blocks[index] = opened
        opened.text(text)

    def _end_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if isinstance(block, _Opaque):
            block = response.pour_opaque(block.whole(), self._assembly, index)[0]
        arguments = self._arguments.pop(index, "")
        if arguments:
            block.text(arguments)
        block.close()

    def _finish(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        for index in list(self._blocks):
            self._end_block(index)
        response.finish(self._assembly, self._reason, self._stop_sequence)

    def _take_usage(self, usage: bytes) -> None:
        if not usage.startswith(b"{"):
            return
        self._usage = response.merged_usage(self._usage, usage)
        complete = self._reason is not None
        source = completion_pb2.USAGE_SOURCE_REPORTED if complete else completion_pb2.USAGE_SOURCE_PARTIAL
        read = response.usage_of(self._usage, source)
        if read is not None:
            self._assembly.set_usage(read[0])
            self._assembly.service_tier = read[1] or self._assembly.service_tier

    def _forgiving(self, event: Event) -> _Event | None:
        """Reads what the fast way cannot: half characters, events of a later version, the mark that others end with."""
        data = event.data
        if data == b"[DONE]":
            return None
        try:
            return _reader.read(data)
        except LLMInvalidResponseError:
            value = try_loads(data)
            if event.name == b"error" or (isinstance(value, dict) and "error" in value):
                raise error_in_answer(data) from None
            kind = value.get("type") if isinstance(value, dict) else None
            if not isinstance(kind, str) or kind in _HANDLERS:
                raise
            if kind == "content_block_delta":
                delta, index = value.get("delta"), value.get("index", 0)
                deltas = delta.get("type") if isinstance(delta, dict) else None
                if not isinstance(deltas, str) or not isinstance(index, int) or deltas in _KNOWN_DELTAS:
                    raise
                block = self._blocks.get(index)
                if isinstance(block, _Opaque):
                    block.add(delta)
            return None


_KNOWN_DELTAS = frozenset({*_TEXTS, "signature_delta", "citations_delta"})

_HANDLERS: Mapping[str | None, Callable[[StreamDecoder, _Event], None]] = {
    "message_start": StreamDecoder._message_start,
    "content_block_start": StreamDecoder._block_start,
    "content_block_stop": StreamDecoder._block_stop,
    "message_delta": StreamDecoder._message_delta,
    "message_stop": StreamDecoder._message_stop,
}


def _json_or_text(said: str) -> Raw:
    """An input as it was said; one that was cut off is kept as a text."""
    return Raw(clean(said).encode()) if isinstance(try_loads(said), dict) else _raw(clean(said))


def _joined(before: Any, pieces: list[Any]) -> Raw:
    """Texts and lists are joined; of all else the last one stands."""
    every = pieces if before is None else [before, *pieces]
    if all(isinstance(piece, str) for piece in every):
        return _raw(clean("".join(every)))
    if all(isinstance(piece, list) for piece in every):
        return _raw([item for piece in every for item in piece])
    return _raw(every[-1])


def _raw(value: Any) -> Raw:
    try:
        return Raw(dumps(value))
    except UnicodeEncodeError:
        return Raw(json.dumps(value).encode())
    except RecursionError:
        raise LLMInvalidResponseError("the provider nested a block deeper than any answer needs") from None

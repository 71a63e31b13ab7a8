"""Decodes an answer: whole, or a stream of typed events.

What an event adds is taken as it comes; an event that ends something repeats it whole, and of that only what is missing
is taken. So an answer is whole even where a server leaves out kinds of events, down to the last one alone, which holds
the whole answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw

from trunkline_server.errors import LLMError, LLMInvalidResponseError
from trunkline_server.providers.assembly import Assembly, clean
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.dialects.openai_responses import response, wire
from trunkline_server.providers.dialects.openai_responses.items import CHOICE, Items, Place
from trunkline_server.providers.framing import pour
from trunkline_server.providers.jsontext import loads, present, try_loads
from trunkline_server.providers.sse import is_stream

_DONE = b"[DONE]"

#: Events that bring text, and the kind of part that it is for.
_TEXTS: Mapping[str | None, str] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "summary",
}

#: Types of items that are known by an event about them.
_OWNERS: Mapping[str | None, str] = {
    "response.output_text.delta": "message",
    "response.refusal.delta": "message",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.custom_tool_call_input.delta": "custom_tool_call",
}


def decode(body: bytes, assembly: Assembly) -> None:
    """See `providers.base.Dialect.decode`. Takes a stream too."""
    if is_stream(body):
        pour("sse", body, StreamDecoder(assembly))
    else:
        response.pour(wire.ANSWER.read(body), body, assembly)


class StreamDecoder:
    """One stream. Events without a place in the answer belong to the item that they name, or to the last one."""

    __slots__ = ("_assembly", "_error", "_finished", "_items", "_last", "_places", "_seen")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._items = Items(assembly)
        #: Items by their place in the answer, or by their id where it is not given.
        self._places: dict[int | str, Place] = {}
        #: All items, in order.
        self._seen: list[Place] = []
        self._last: Place | None = None
        self._error: LLMError | None = None
        self._finished = False

    def event(self, event: Event) -> None:
        data = event.data
        if data == _DONE or self._finished:
            return
        try:
            read = wire.EVENT.read(data)
        except LLMInvalidResponseError:
            self._strange(event)
            return
        if self._error is not None and read.type != "response.failed":
            raise self._error
        kind = _TEXTS.get(read.type)
        if kind is not None:
            place = self._place(read)
            if not place.done:
                index = read.summary_index if kind == "summary" else read.content_index
                piece = self._items.piece(place, kind, index or 0)
                if read.delta.__class__ is str:
                    piece.add(read.delta)
                if read.logprobs:
                    self._items.score(piece, read.logprobs)
            return
        handler = _HANDLERS.get(read.type)
        if handler is not None:
            handler(self, read, data)
        elif read.type is None or event.name in (BARE, b"error"):
            self._unknown(read, event)

    def end(self) -> None:
        """The stream ended. Raises LLMConnectionError unless it told why the answer did."""
        if self._error is not None:
            raise self._error
        self._assembly.require_finished()

    # -- the answer as a whole ----------------------------------------------------------------------------------------

    def _created(self, event: wire.Event, data: bytes) -> None:
        self._assembly.touch(CHOICE)
        if present(event.response) and not self._assembly.response_id:
            response.head(wire.ANSWER.read(bytes(event.response)), self._assembly)

    def _ended(self, event: wire.Event, data: bytes) -> None:
        answer = wire.ANSWER.read(bytes(event.response)) if present(event.response) else wire.Answer()
        if answer.status is None or answer.status == "in_progress":
            answer.status = (event.type or "").rpartition(".")[2]
        response.head(answer, self._assembly)
        if present(answer.error) or answer.status == "failed":
            response.take_usage(answer.usage, self._assembly, complete=False)
            if self._error is not None and not present(answer.error):
                raise self._error
            raise response.failure(answer.error, data)
        self._rest(answer)
        response.finish(answer, self._assembly)
        self._finished = self._assembly.ended = True

    def _rest(self, answer: wire.Answer) -> None:
        """Takes the items that did not come before: those of no known id, and of no type that has one left over."""
        items = [(*response.head_of(bytes(raw)), bytes(raw)) for raw in answer.output or ()]
        ids = {item_id for _, item_id, _ in items if item_id}
        known = {place.id: place for place in self._seen if place.id}
        nameless = [place for place in self._seen if place.id not in ids]
        for kind, item_id, item in items:
            place = known.get(item_id) or next((place for place in nameless if place.type == kind), None)
            if place is None:
                place = self._new(kind, item_id)
            elif place in nameless:
                nameless.remove(place)
            self._items.finish(place, item)

    def _failed(self, event: wire.Event, data: bytes) -> None:
        error, known = response.failure_in(data)
        if known:
            raise error
        # What it means may be said by the "response.failed" that follows.
        self._error = error

    def _unknown(self, event: wire.Event, framed: Event) -> None:
        """An event of no type: an error, or a whole answer from a server that does not stream."""
        answer = wire.ANSWER.read(framed.data)
        if answer.output is not None:
            self._ended(wire.Event(type="response.completed", response=Raw(framed.data)), framed.data)
        elif framed.name == b"error" or response.is_error(loads(framed.data)):
            raise response.failure_in(framed.data)[0]

    def _strange(self, event: Event) -> None:
        """An event of another shape than any of ours. One whose type we do not know is none of our business."""
        value = try_loads(event.data)
        kind = value.get("type") if isinstance(value, dict) else None
        if event.name == b"error" or kind == "error":
            raise response.failure_in(event.data)[0]
        if not isinstance(kind, str) or kind in _TEXTS or kind in _HANDLERS:
            wire.EVENT.read(event.data)

    # -- items --------------------------------------------------------------------------------------------------------

    def _place(self, event: wire.Event) -> Place:
        """The item that an event is about. One that was not announced begins with it."""
        index: int | str | None = event.output_index
        if index is None:
            if event.item_id is None and self._last is not None:
                return self._last
            index = event.item_id or 0
        place = self._places.get(index)
        if place is None or (place.done and event.item_id and place.id and event.item_id != place.id):
            place = self._places[index] = self._new(_OWNERS.get(event.type), clean(event.item_id or ""))
        return place

    def _new(self, kind: str | None, item_id: str) -> Place:
        self._assembly.touch(CHOICE)
        place = self._items.place(kind, item_id)
        self._seen.append(place)
        self._last = place
        return place

    def _begun(self, event: wire.Event, data: bytes) -> None:
        item = bytes(event.item)
        if not item.startswith(b"{"):
            return
        kind, item_id = response.head_of(item)
        index: int | str = item_id if event.output_index is None else event.output_index
        place = self._places.get(index)
        # Some servers give all items the same place: another id is another item.
        if place is None or place.type not in (None, kind) or (place.id and place.id != item_id):
            place = self._places[index] = self._new(kind, item_id)
        self._introduce(place, kind, item_id, item)

    def _introduce(self, place: Place, kind: str | None, item_id: str, item: bytes) -> None:
        place.type, place.id = place.type or kind, place.id or item_id
        if not place.pieces:
            self._items.begin(place, item)

    def _ended_item(self, event: wire.Event, data: bytes) -> None:
        item = bytes(event.item)
        if not item.startswith(b"{"):
            return
        kind, item_id = response.head_of(item)
        index: int | str = item_id if event.output_index is None else event.output_index
        place = self._places.get(index)
        if place is None or place.id != item_id:
            place = next((seen for seen in reversed(self._seen) if item_id and seen.id == item_id), place)
        # Some servers give an item another id at its end.
        if place is None or place.type not in (None, kind) or (place.done and place.id != item_id):
            place = self._places[index] = self._new(kind, item_id)
        self._introduce(place, kind, item_id, item)
        self._items.finish(place, item)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _part_begun(self, event: wire.Event, data: bytes) -> None:
        place = self._place(event)
        if present(event.part) and not place.done:
            self._items.announced(place, _index(event), bytes(event.part))

    def _part_ended(self, event: wire.Event, data: bytes) -> None:
        place = self._place(event)
        if present(event.part) and not place.done:
            self._items.completed(place, _index(event), bytes(event.part))

    def _text_ended(self, event: wire.Event, data: bytes) -> None:
        place = self._place(event)
        if place.done:
            return
        kind = _TEXTS[(event.type or "").removesuffix("done") + "delta"]
        index = event.summary_index if kind == "summary" else event.content_index
        piece = self._items.piece(place, kind, index or 0)
        piece.fill(event.refusal if kind == "refusal" else event.text)
        if event.logprobs and not piece.scored:
            self._items.score(piece, event.logprobs)

    def _annotated(self, event: wire.Event, data: bytes) -> None:
        place = self._place(event)
        if present(event.annotation) and not place.done:
            self._items.cite(
                self._items.piece(place, "text", event.content_index or 0), event.annotation, event.annotation_index
            )

    def _argued(self, event: wire.Event, data: bytes) -> None:
        place = self._place(event)
        if isinstance(event.delta, str) and not place.done:
            self._items.argue(place, event.delta)

    def _arguments_ended(self, event: wire.Event, data: bytes) -> None:
        place = self._place(event)
        piece = place.pieces.get(("tool_call", 0))
        if piece is not None and not place.done:
            piece.fill(event.arguments if event.input is None else event.input)


def _index(event: wire.Event) -> int:
    """The place of a piece of content in its item."""
    return (event.content_index if event.summary_index is None else event.summary_index) or 0


_HANDLERS: Mapping[str | None, Callable[[StreamDecoder, wire.Event, bytes], None]] = {
    "response.created": StreamDecoder._created,
    "response.queued": StreamDecoder._created,
    "response.in_progress": StreamDecoder._created,
    "response.completed": StreamDecoder._ended,
    "response.done": StreamDecoder._ended,
    "response.incomplete": StreamDecoder._ended,
    "response.cancelled": StreamDecoder._ended,
    "response.failed": StreamDecoder._ended,
    "error": StreamDecoder._failed,
    "response.error": StreamDecoder._failed,
    "response.output_item.added": StreamDecoder._begun,
    "response.output_item.done": StreamDecoder._ended_item,
    "response.content_part.added": StreamDecoder._part_begun,
    "response.content_part.done": StreamDecoder._part_ended,
    "response.reasoning_summary_part.added": StreamDecoder._part_begun,
    "response.reasoning_summary_part.done": StreamDecoder._part_ended,
    "response.output_text.done": StreamDecoder._text_ended,
    "response.refusal.done": StreamDecoder._text_ended,
    "response.reasoning_text.done": StreamDecoder._text_ended,
    "response.reasoning_summary_text.done": StreamDecoder._text_ended,
    "response.output_text.annotation.added": StreamDecoder._annotated,
    "response.function_call_arguments.delta": StreamDecoder._argued,
    "response.custom_tool_call_input.delta": StreamDecoder._argued,
    "response.function_call_arguments.done": StreamDecoder._arguments_ended,
    "response.custom_tool_call_input.done": StreamDecoder._arguments_ended,
}

"""Decodes a stream of chat events."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.classify import error_in_answer
from trunkline_server.providers.dialects.cohere_chat import wire
from trunkline_server.providers.dialects.cohere_chat.response import MODELLED, Reading, contents_of
from trunkline_server.providers.jsontext import loads, present, unreadable

_NO_MESSAGE = wire.Message()


class EventDecoder:
    """One stream. `message-end` ends it; of what follows only errors count. Events of unknown types are skipped."""

    __slots__ = ("_assembly", "_reading")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._reading = Reading(assembly)

    def event(self, event: Event) -> None:
        data = event.data
        if data == b"[DONE]":
            return
        if event.name == BARE:
            # A whole answer instead of events, or an error.
            read_whole(data, self._assembly)
            return
        read = wire.EVENT.read(data)
        kind = read.type or event.name.decode("utf-8", "replace")
        take = _TAKE.get(kind)
        if take is not None:
            if self._assembly.finish_of(0) is None:
                take(self, read, data)
        elif kind == "error" or (read.delta is None and isinstance(read.message, str)):
            raise error_in_answer(data)

    def end(self) -> None:
        self._assembly.require_finished()

    def _begin(self, event: wire.Event, data: bytes) -> None:
        self._reading.begin(event.id)
        self._assembly.touch(0)

    def _content_starts(self, event: wire.Event, data: bytes) -> None:
        self._content(event, data, begins=True)

    def _content_goes_on(self, event: wire.Event, data: bytes) -> None:
        self._content(event, data, begins=False)

    def _content(self, event: wire.Event, data: bytes, *, begins: bool) -> None:
        for content in contents_of(_message(event)):
            if content.type in MODELLED:
                self._reading.content(event.index, content, begins=begins)
            elif begins:
                self._reading.block(event.index, loads(data)["delta"]["message"]["content"])
        if event.logprobs is not None:
            self._reading.logprobs(event.logprobs)

    def _content_ends(self, event: wire.Event, data: bytes) -> None:
        self._reading.end_content(event.index)

    def _plan(self, event: wire.Event, data: bytes) -> None:
        self._reading.plan(_message(event).tool_plan or "")

    def _call_starts(self, event: wire.Event, data: bytes) -> None:
        self._call(event, begins=True)

    def _call_goes_on(self, event: wire.Event, data: bytes) -> None:
        self._call(event, begins=False)

    def _call(self, event: wire.Event, *, begins: bool) -> None:
        calls = _message(event).tool_calls
        for call in calls if isinstance(calls, list) else () if calls is None else (calls,):
            self._reading.call(event.index, call, begins=begins)

    def _call_ends(self, event: wire.Event, data: bytes) -> None:
        self._reading.end_call(event.index)

    def _citation(self, event: wire.Event, data: bytes) -> None:
        raw = _message(event).citations
        if present(raw):
            self._reading.citations(raw)

    def _end(self, event: wire.Event, data: bytes) -> None:
        delta = event.delta or wire.Delta()
        self._reading.end(delta.finish_reason, delta.usage, delta.error, data)
        self._assembly.ended = True


_TAKE: Mapping[str, Callable[[EventDecoder, wire.Event, bytes], None]] = {
    "message-start": EventDecoder._begin,
    "content-start": EventDecoder._content_starts,
    "content-delta": EventDecoder._content_goes_on,
    "content-end": EventDecoder._content_ends,
    "tool-plan-delta": EventDecoder._plan,
    "tool-call-start": EventDecoder._call_starts,
    "tool-call-delta": EventDecoder._call_goes_on,
    "tool-call-end": EventDecoder._call_ends,
    "citation-start": EventDecoder._citation,
    "message-end": EventDecoder._end,
}


def _message(event: wire.Event) -> wire.Message:
    return event.delta.message or _NO_MESSAGE if event.delta is not None else _NO_MESSAGE


def read_whole(body: bytes, assembly: Assembly) -> None:
    """Decodes a whole answer. Raises LLMError: an error in a 200, or an answer that cannot be read."""
    answer = wire.ANSWER.read(body)
    if answer.error or isinstance(answer.message, str):
        raise error_in_answer(body)
    if answer.message is None and answer.finish_reason is None:
        raise unreadable(body)
    Reading(assembly).whole(answer, body)

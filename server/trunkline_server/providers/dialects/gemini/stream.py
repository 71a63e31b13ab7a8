"""Decodes an answer or a stream of them: server-sent events, or a JSON array from servers not asked for events."""

from __future__ import annotations

from trunkline_server.errors import LLMEmptyResponseError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event
from trunkline_server.providers.dialects.gemini import wire
from trunkline_server.providers.dialects.gemini.response import Reading
from trunkline_server.providers.jsontext import unreadable

_DONE = b"[DONE]"


def decode(body: bytes, assembly: Assembly) -> None:
    """See `providers.base.Dialect.decode`. A server that always streams sends its chunks as an array."""
    reading = Reading(assembly)
    chunks = wire.ANSWERS.read(body) if body.lstrip()[:1] == b"[" else [wire.ANSWER.read(body)]
    for answer in chunks:
        reading.answer(answer, body, whole=len(chunks) == 1)
    reading.finish(whole=True)
    if not assembly.finished:
        if any(answer.candidates is not None or answer.prompt_feedback is not None for answer in chunks):
            raise LLMEmptyResponseError("the provider answered with no content and no finish reason", body=body)
        raise unreadable(body)


class ChunkDecoder:
    """One stream. The finish reason stands in several chunks or the last one; the end of the stream makes it count."""

    __slots__ = ("_assembly", "_reading")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._reading = Reading(assembly)

    def event(self, event: Event) -> None:
        data = event.data
        if data.startswith(b"["):
            if data != _DONE:
                for answer in wire.ANSWERS.read(data):
                    self._reading.answer(answer, data, whole=False)
            return
        self._reading.answer(wire.ANSWER.read(data), data, whole=False)

    def end(self) -> None:
        self._reading.finish(whole=False)
        self._assembly.require_finished()

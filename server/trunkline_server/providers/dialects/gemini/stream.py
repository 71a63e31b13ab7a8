"""Decodes a stream of answers: server-sent events, or a JSON array from servers that were not asked for events."""

from __future__ import annotations

from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event
from trunkline_server.providers.dialects.gemini import wire
from trunkline_server.providers.dialects.gemini.response import Reading

_DONE = b"[DONE]"


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

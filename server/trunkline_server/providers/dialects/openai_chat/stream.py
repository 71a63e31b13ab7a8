"""Decodes a chat completion: whole, or a stream of chunks."""

from __future__ import annotations

from trunkline_server.errors import LLMEmptyResponseError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.dialects.openai_chat.response import Reading
from trunkline_server.providers.framing import pour
from trunkline_server.providers.jsontext import present, unreadable
from trunkline_server.providers.sse import is_stream

_DONE = b"[DONE]"


def decode(body: bytes, assembly: Assembly) -> None:
    """See `providers.base.Dialect.decode`. Takes a stream too."""
    if is_stream(body):
        pour("sse", body, ChunkDecoder(assembly))
        return
    answer = wire.ANSWER.read(body)
    reading = Reading(assembly)
    if is_error(answer):
        reading.raise_error(answer, body)
    if answer.choices is None:
        raise unreadable(body)
    reading.answer(answer, whole=True)
    # An answer with neither content nor a reason to end is one only if its tokens were counted.
    reading.close(said_done=assembly.usage is not None or assembly.has_parts)
    if not assembly.finished:
        raise LLMEmptyResponseError("the provider answered with no content and no finish reason", body=body)


class ChunkDecoder:
    """One stream. `[DONE]` is optional; what ends a choice is its finish reason."""

    __slots__ = ("_assembly", "_done", "_reading")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._reading = Reading(assembly)
        self._done = False

    def event(self, event: Event) -> None:
        data = event.data
        if data == _DONE:
            self._done = self._assembly.ended = True
            return
        answer = wire.ANSWER.read(data)
        if event.name == b"error" or ((answer.choices is None or len(answer.error)) and is_error(answer)):
            self._reading.raise_error(answer, data)
        # A whole answer instead of chunks: the server does not stream.
        whole = event.name == BARE and bool(answer.choices)
        self._reading.answer(answer, whole=whole)
        if whole:
            self._done = True

    def end(self) -> None:
        # "[DONE]" alone proves little; with usage it says that all was sent.
        self._reading.close(said_done=self._done and self._assembly.usage is not None)
        if self._done:
            self._assembly.require_content()
        self._assembly.require_finished()


def is_error(answer: wire.Answer) -> bool:
    """Is this an error, although the HTTP status said otherwise?"""
    if present(answer.error):
        return True
    if answer.choices is not None:
        return False
    told = answer.base_resp
    failed = isinstance(told, dict) and bool(told.get("status_code"))
    return answer.object == "error" or bool(answer.message) or bool(answer.detail) or failed

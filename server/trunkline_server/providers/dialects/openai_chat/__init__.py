"""OpenAI's Chat Completions, as OpenAI and all who are compatible with it speak it."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline_server.errors import LLMEmptyResponseError, LLMError
from trunkline_server.providers import classify
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.dialects.openai_chat.response import Reading
from trunkline_server.providers.dialects.openai_chat.stream import ChunkDecoder, is_error
from trunkline_server.providers.jsontext import unreadable
from trunkline_server.providers.sse import SseFramer

#: How a body begins that is a stream, sent by servers that always stream.
_STREAMED = (b"data:", b"event:", b":")


class OpenAIChat:
    """See `providers.base.Dialect`. What a provider does differently is in `quirks.Quirks`."""

    name = "openai_chat"
    framing = "sse"

    def decode(self, body: bytes, assembly: Assembly) -> None:
        if body[:256].lstrip().startswith(_STREAMED):
            self._decode_streamed(body, assembly)
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

    def decoder(self, assembly: Assembly) -> ChunkDecoder:
        return ChunkDecoder(assembly)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return classify.classify(status, headers, body)

    def _decode_streamed(self, body: bytes, assembly: Assembly) -> None:
        framer, decoder = SseFramer(), ChunkDecoder(assembly)
        for event in (*framer.feed(body), *framer.end()):
            decoder.event(event)
        decoder.end()

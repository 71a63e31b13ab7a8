"""OpenAI's Responses, as OpenAI and all who offer the same API speak it."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers import classify, listing
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import ListedModel, Notes, Target, UpstreamRequest
from trunkline_server.providers.dialects.openai_responses import request, response, wire
from trunkline_server.providers.dialects.openai_responses.stream import StreamDecoder
from trunkline_server.providers.jsontext import unreadable
from trunkline_server.providers.sse import SseFramer

#: How a body begins that is a stream, sent by servers that always stream.
_STREAMED = (b"data:", b"event:", b":")


class OpenAIResponses:
    """See `providers.base.Dialect`. What a provider does differently is in `quirks.Quirks`."""

    name = "openai_responses"
    framing = "sse"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return request.encode(spec, target, notes, stream=stream)

    def decode(self, body: bytes, assembly: Assembly) -> None:
        if body[:256].lstrip().startswith(_STREAMED):
            self._decode_streamed(body, assembly)
        else:
            response.pour(wire.ANSWER.read(body), body, assembly)

    def decoder(self, assembly: Assembly) -> StreamDecoder:
        return StreamDecoder(assembly)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
        return classify.classify(status, headers, body, fields=response.FIELDS)

    def encode_count(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> UpstreamRequest:
        return request.encode_count(spec, target, notes)

    def decode_count(self, body: bytes) -> int:
        counted = wire.INPUT_TOKENS.read(body)
        if wire.present(counted.error):
            raise response.failure(counted.error, body)
        if counted.input_tokens is None or not 0 <= counted.input_tokens < 2**31:
            raise unreadable(body)
        return counted.input_tokens

    def models_request(self) -> UpstreamRequest:
        return listing.REQUEST

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return listing.decode_models(body)

    def _decode_streamed(self, body: bytes, assembly: Assembly) -> None:
        framer, decoder = SseFramer(), StreamDecoder(assembly)
        for event in (*framer.feed(body), *framer.end()):
            decoder.event(event)
        decoder.end()

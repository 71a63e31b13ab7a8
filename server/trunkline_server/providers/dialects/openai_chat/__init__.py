"""OpenAI's Chat Completions, as OpenAI and all who are compatible with it speak it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server.errors import LLMEmptyResponseError, LLMError
from trunkline_server.providers import classify, listing
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import ListedModel, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.dialects.openai_chat import embeddings, request, wire
from trunkline_server.providers.dialects.openai_chat.response import Reading
from trunkline_server.providers.dialects.openai_chat.stream import ChunkDecoder, is_error
from trunkline_server.providers.jsontext import unreadable
from trunkline_server.providers.sse import SseFramer

#: How a body begins that is a stream, sent by servers that always stream.
_STREAMED = (b"data:", b"event:", b":")

#: Parameters with one name here and there.
_SAME_NAME = (
    "temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty seed logit_bias logprobs"
    " top_logprobs n verbosity service_tier"
)

#: Where the parameters that a provider may blame come from in a spec.
_FIELDS = {
    "messages": "messages",
    "model": "model",
    "tools": "tools",
    "functions": "tools",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "params.parallel_tool_calls",
    "response_format": "response_format",
    "max_tokens": "params.max_output_tokens",
    "max_completion_tokens": "params.max_output_tokens",
    "max_output_tokens": "params.max_output_tokens",
    "stop": "params.stop_sequences",
    "reasoning_effort": "params.reasoning.effort",
    "reasoning": "params.reasoning",
    "thinking": "params.reasoning",
    "user": "end_user_id",
    "safety_identifier": "end_user_id",
    "store": "store",
    "audio": "audio_output",
    "modalities": "audio_output",
    "prompt": "messages",
    "random_seed": "params.seed",
    **{name: f"params.{name}" for name in _SAME_NAME.split()},
}


class OpenAIChat:
    """See `providers.base.Dialect`. What a provider does differently is in `quirks.Quirks`."""

    name = "openai_chat"
    framing = "sse"

    def encode(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, *, stream: bool
    ) -> UpstreamRequest:
        return request.encode(spec, target, notes, stream=stream)

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
        return classify.classify(status, headers, body, fields=_FIELDS)

    def encode_embeddings(
        self,
        spec: embedding_service_pb2.EmbeddingSpec,
        inputs: Sequence[embedding_service_pb2.EmbeddingInput],
        target: Target,
        notes: Notes,
    ) -> UpstreamRequest:
        return embeddings.encode_embeddings(spec, inputs, target, notes)

    def decode_embeddings(self, body: bytes) -> Vectors:
        return embeddings.decode_embeddings(body)

    def models_request(self) -> UpstreamRequest:
        return listing.REQUEST

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return listing.decode_models(body)

    def _decode_streamed(self, body: bytes, assembly: Assembly) -> None:
        framer, decoder = SseFramer(), ChunkDecoder(assembly)
        for event in (*framer.feed(body), *framer.end()):
            decoder.event(event)
        decoder.end()

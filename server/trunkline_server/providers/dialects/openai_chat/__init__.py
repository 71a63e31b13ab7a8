"""OpenAI's Chat Completions, as OpenAI and all who are compatible with it speak it."""

from __future__ import annotations

from functools import partial

from trunkline_server.providers import classify
from trunkline_server.providers.dialects.openai_chat import embeddings, request
from trunkline_server.providers.dialects.openai_chat.stream import ChunkDecoder, decode
from trunkline_server.providers.listing import Listing

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


class OpenAIChat(Listing):
    """See `providers.base.Dialect`. What a provider does differently is in `quirks.Quirks`."""

    name = "openai_chat"
    framing = "sse"
    encode = staticmethod(request.encode)
    decode = staticmethod(decode)
    decoder = ChunkDecoder
    classify = staticmethod(partial(classify.classify, fields=_FIELDS))
    encode_embeddings = staticmethod(embeddings.encode_embeddings)
    decode_embeddings = staticmethod(embeddings.decode_embeddings)

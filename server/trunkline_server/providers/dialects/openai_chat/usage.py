"""Usage as OpenAI-shaped providers report it, made inclusive."""

from __future__ import annotations

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.usage import added, counted, first, usage_from

_NONE = wire.Details()


def usage_of(raw: Raw, source: completion_pb2.UsageSource.ValueType) -> completion_pb2.Usage | None:
    """The usage, or None if the object counts nothing."""
    counts = wire.USAGE.read(bytes(raw))
    prompt, answer = counts.prompt_tokens_details or _NONE, counts.completion_tokens_details or _NONE
    given, made, total = counted(counts.prompt_tokens), counted(counts.completion_tokens), counted(counts.total_tokens)
    cached = first(
        prompt.cached_tokens,
        counts.cached_tokens,
        counts.prompt_cache_hit_tokens,
        counts.cache_read_input_tokens,
        counts.num_cached_tokens,
    )
    reasoning = first(answer.reasoning_tokens, counts.reasoning_tokens)
    if reasoning and given is not None and made is not None and total == given + made + reasoning:
        # xAI counts reasoning beside the answer, all others inside it; the total tells.
        made = total - given
    if given is not None and cached is not None and cached > given:
        # Grok on Azure: the prompt without what came from the cache.
        given = added(given, cached)
    return usage_from(
        raw,
        source,
        {
            "input_tokens": given,
            "output_tokens": made,
            "total_tokens": total,
            "cache_read_input_tokens": cached,
            "cache_write_input_tokens": first(prompt.cache_write_tokens, counts.cache_creation_input_tokens),
            "reasoning_tokens": reasoning,
            "input_audio_tokens": counted(prompt.audio_tokens),
            "output_audio_tokens": counted(answer.audio_tokens),
            "input_image_tokens": counted(prompt.image_tokens),
        },
    )

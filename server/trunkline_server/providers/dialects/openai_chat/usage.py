"""Usage as OpenAI-shaped providers report it, made inclusive."""

from __future__ import annotations

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.jsontext import text_of

_NONE = wire.Details()
_MAX = 2**31 - 1


def usage_of(raw: Raw, source: completion_pb2.UsageSource.ValueType) -> completion_pb2.Usage | None:
    """The usage, or None if the object counts nothing."""
    counts = wire.USAGE.read(bytes(raw))
    prompt, answer = counts.prompt_tokens_details or _NONE, counts.completion_tokens_details or _NONE
    given, made, total = _count(counts.prompt_tokens), _count(counts.completion_tokens), _count(counts.total_tokens)
    if given is None and made is None and total is None:
        return None
    cached = _first(
        prompt.cached_tokens,
        counts.cached_tokens,
        counts.prompt_cache_hit_tokens,
        counts.cache_read_input_tokens,
        counts.num_cached_tokens,
    )
    reasoning = _first(answer.reasoning_tokens, counts.reasoning_tokens)
    if reasoning and given is not None and made is not None and total == given + made + reasoning:
        # xAI counts reasoning beside the answer, all others inside it; the total tells.
        made = total - given
    if given is not None and cached is not None and cached > given:
        # Grok on Azure: the prompt without what came from the cache.
        given = _sum(given, cached)
    found = {
        "input_tokens": given,
        "output_tokens": made,
        "total_tokens": _sum(given, made) if total is None else total,
        "cache_read_input_tokens": cached,
        "cache_write_input_tokens": _first(prompt.cache_write_tokens, counts.cache_creation_input_tokens),
        "reasoning_tokens": reasoning,
        "input_audio_tokens": _count(prompt.audio_tokens),
        "output_audio_tokens": _count(answer.audio_tokens),
        "input_image_tokens": _count(prompt.image_tokens),
    }
    reported = {name: count for name, count in found.items() if count is not None}
    return completion_pb2.Usage(source=source, raw_json=text_of(raw), **reported)


def _count(value: wire.Count) -> int | None:
    """A count that fits the contract's field; None for what is no count."""
    if value is None or not 0 <= value < 1e15:
        return None
    return int(value) if value < _MAX else _MAX


def _first(*values: wire.Count) -> int | None:
    for value in values:
        if value is not None:
            return _count(value)
    return None


def _sum(left: int | None, right: int | None) -> int | None:
    return min(left + right, _MAX) if left is not None and right is not None else None

"""Usage as Gemini reports it, made inclusive."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.providers.dialects.gemini import wire
from trunkline_server.providers.usage import added, counted, usage_from

#: Names of modalities, and their numbers where enums are not written as words.
_IMAGE: frozenset[str | int] = frozenset({"IMAGE", 2})
_AUDIO: frozenset[str | int] = frozenset({"AUDIO", 4})


def usage_of(raw: Raw, source: completion_pb2.UsageSource.ValueType) -> tuple[completion_pb2.Usage | None, str]:
    """The usage, None if the object counts nothing, and the service tier.

    What was thought is counted beside the answer, and what tools of the provider read beside the prompt.
    """
    counts = wire.USAGE.read(bytes(raw))
    prompt, read = counted(counts.prompt_token_count), counted(counts.tool_use_prompt_token_count)
    answer, thought = counted(counts.candidates_token_count), counted(counts.thoughts_token_count)
    usage = usage_from(
        raw,
        source,
        {
            "input_tokens": prompt if read is None else added(prompt, read),
            "output_tokens": answer if thought is None else added(answer or 0, thought),
            "total_tokens": counted(counts.total_token_count),
            "cache_read_input_tokens": counted(counts.cached_content_token_count),
            "reasoning_tokens": thought,
            "input_image_tokens": _of(counts.prompt_tokens_details, _IMAGE),
            "input_audio_tokens": _of(counts.prompt_tokens_details, _AUDIO),
            "output_audio_tokens": _of(counts.candidates_tokens_details, _AUDIO),
        },
    )
    return usage, counts.service_tier or ""


def _of(counts: Iterable[wire.ModalityCount] | None, modality: frozenset[str | int]) -> int | None:
    """The tokens of a modality; None if there are none of it."""
    found = None
    for each in counts or ():
        if isinstance(each.modality, str | int) and each.modality in modality:
            found = added(found or 0, counted(each.token_count))
    return found

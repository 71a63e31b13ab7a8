"""OpenTelemetry's names for what a model is asked and answers, without OpenTelemetry itself.

The conventions of https://github.com/open-telemetry/semantic-conventions-genai, as of November 2026; what they have no
name for is `trunkline.…`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit

from trunkline.v1 import completion_pb2
from trunkline_server.call import Cause

#: What an attribute of a span may be here.
Value: TypeAlias = str | bool | int | float | list[str]
Attributes: TypeAlias = dict[str, Value]

#: Well-known names of providers by our kinds; others are called as we call them.
_PROVIDERS: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}

_OPERATIONS: Mapping[str, str] = {
    "CreateCompletion": "chat",
    "StreamCompletion": "chat",
    "CreateEmbeddings": "embeddings",
    "CountTokens": "count_tokens",
}

_FINISH_REASONS: Mapping[int, str] = {
    **{n: name.removeprefix("FINISH_REASON_").lower() for name, n in completion_pb2.FinishReason.items()},
    completion_pb2.FINISH_REASON_TOOL_CALLS: "tool_call",
}

_CAUSES: Mapping[int, str] = {cause: cause.name.lower() for cause in Cause}

#: Attribute by field of Usage.
_COUNTS: Mapping[str, str] = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_input_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "input_audio_tokens": "gen_ai.usage.audio.input_tokens",
    "output_audio_tokens": "gen_ai.usage.audio.output_tokens",
    "input_image_tokens": "gen_ai.usage.image.input_tokens",
}

#: What is estimated must never be summed up as if a provider had told it.
_SOURCES: Mapping[int, str] = {
    n: name.removeprefix("USAGE_SOURCE_").lower() for name, n in completion_pb2.UsageSource.items() if n
}


def provider_name(kind: str) -> str:
    """The well-known name where there is one."""
    kind = kind.removesuffix("-responses").removesuffix("-native")
    return _PROVIDERS.get(kind, kind)


def operation(method: str) -> str:
    """`gen_ai.operation.name` of a method."""
    return _OPERATIONS.get(method, method)


def finish_reasons(reasons: Iterable[int]) -> list[str]:
    return [_FINISH_REASONS.get(reason, "other") for reason in reasons]


def cause(number: int) -> str:
    """Why an attempt was made."""
    return _CAUSES.get(number, "")


def usage(used: completion_pb2.Usage) -> Attributes:
    """Counts that are known, who counted, and the cost."""
    found: Attributes = {
        name: getattr(used, field.name) for field, _ in used.ListFields() if (name := _COUNTS.get(field.name))
    }
    if used.source in _SOURCES:
        found["trunkline.usage.source"] = _SOURCES[used.source]
    if used.HasField("cost_nano_usd"):
        found["trunkline.usage.cost_usd"] = used.cost_nano_usd / 1e9
    return found


@lru_cache(maxsize=1024)
def server(endpoint: str) -> Mapping[str, Value]:
    """Where a request went; empty where there is no address."""
    if not endpoint:
        return {}
    parts = urlsplit(endpoint)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }

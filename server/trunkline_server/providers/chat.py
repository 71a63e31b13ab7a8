"""Capabilities of rows that speak Chat Completions, in a few words."""

from __future__ import annotations

from typing import Any

from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.dialects.openai_chat.quirks import KEY, Quirks

_CORE = "max_output_tokens temperature top_p stop_sequences"

PENALTIES = "frequency_penalty presence_penalty"
SAMPLERS = "top_k min_p repetition_penalty seed logit_bias"
LOGPROBS = "logprobs top_logprobs"
TOOLS = "parallel_tool_calls"
THINK = "reasoning"


def can(params: str, quirks: Quirks | None = None, **others: Any) -> Capabilities:
    """Capabilities of a row: its parameters beyond those that all take, its quirks, and what differs else."""
    known = frozenset((_CORE + " " + params).split())
    told = {
        "documents": False,
        "choices": "n" in known,
        "logprobs": "logprobs" in known,
        "reasoning": "reasoning" in known,
        **others,
    }
    return Capabilities(params=known, quirks={KEY: quirks or Quirks()}, **told)

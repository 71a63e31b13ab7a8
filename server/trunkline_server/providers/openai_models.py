"""Which of OpenAI's models reason, and what those refuse: the same wherever and however they are spoken to.

See https://platform.openai.com/docs/guides/reasoning and /guides/latest-model.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trunkline_server.providers.row import ModelRule

#: Sampling that reasoning models refuse, unless it is what they do anyway.
NO_SAMPLING = frozenset(
    ["frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "temperature", "top_p"]
)
AT_ONE = {"temperature": 1.0, "top_p": 1.0}

#: Chat models reason, if at all, by themselves.
CHATTING = ModelRule(r"gpt-[5-9][\w.-]*-chat", {"reasoning": False})
#: From 5.1 on sampling is free without effort.
FREE = ModelRule(r"gpt-(5\.\d|[6-9])", {"reasoning": True})
REASONING = ModelRule(
    r"(ft:)?(o\d|gpt-5|codex-|computer-use)",
    {"reasoning": True, "logprobs": False},
    without=NO_SAMPLING,
    quirks={"fixed": AT_ONE},
)
PLAIN = ModelRule(r"(ft:)?(gpt-4|gpt-3|gpt-audio|chatgpt)", without=frozenset(["reasoning", "verbosity"]))

#: Models that only Responses offers, by the beginning of their name.
ONLY_RESPONSES = r"(o\d|gpt-[5-9][\w.]*)-pro\b|gpt-[5-9][\w.]*-codex|codex-|computer-use|o\d[\w-]*-deep-research"


def with_quirks(rule: ModelRule, **quirks: Any) -> ModelRule:
    """The rule, with what a dialect has to know besides."""
    return dataclasses.replace(rule, quirks={**rule.quirks, **quirks})

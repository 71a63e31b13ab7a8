"""Providers of OpenAI's Responses API: a row of data each, beside the one for Chat Completions that has the same key.

A kind whose name ends in "-responses" is the same provider spoken to in this dialect. It is configured by name, as in
`providers: {openai-responses: {}}`: of two kinds with one key, only the first is there without a configuration.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.compatible import ROWS
from trunkline_server.providers.dialects.openai_responses.quirks import KEY, Quirks
from trunkline_server.providers.openai_models import CHATTING, FREE, PLAIN, REASONING
from trunkline_server.providers.row import ModelRule, Row

_CORE = "max_output_tokens temperature top_p reasoning parallel_tool_calls"
_LOGPROBS = "logprobs top_logprobs"

_MODELS = (
    CHATTING,
    # The newest cache what they are told to.
    ModelRule(r"gpt-(5\.[6-9]|[6-9])", {**FREE.capabilities, "prompt_cache": True}, quirks={"cache_marks": True}),
    FREE,
    REASONING,
    PLAIN,
)


def _can(params: str = "", quirks: Quirks | None = None, **others: Any) -> Capabilities:
    """Capabilities of a row: its parameters beyond those that all take, its quirks, and what differs else."""
    known = frozenset((_CORE + " " + params).split())
    told = {"choices": False, "logprobs": "logprobs" in known, "documents": False, "reasoning": True, **others}
    return Capabilities(params=known, quirks={KEY: quirks or Quirks()}, **told)


def _beside(kind: str, capabilities: Capabilities, **others: Any) -> Row:
    """The row of a provider that is spoken to in Chat Completions too."""
    row = dataclasses.replace(ROWS[kind], capabilities=capabilities, dialect=KEY, models=(), tongues=())
    return dataclasses.replace(row, beside=kind, **others)


_OPENAI = _can(
    f"{_LOGPROBS} verbosity service_tier",
    documents=True,
    # Which of its models reason is told below.
    reasoning=False,
    token_count=True,
)
#: Those that run models with open weights show what they think, and take it back as it was.
_OPEN = Quirks(sealed=False, plain_thoughts=True, summary=False, allowed_tools=False, max_tool_calls=False, user="")

RESPONSES_ROWS: dict[str, Row] = {
    "openai-responses": _beside("openai", _OPENAI, models=_MODELS),
    "azure-responses": _beside("azure", dataclasses.replace(_OPENAI, token_count=False), models=_MODELS),
    # Plans of ChatGPT: no key but a token, and nothing is kept.
    "chatgpt": Row(
        "https://chatgpt.com/backend-api/codex",
        "",
        Capabilities(
            params=frozenset(["reasoning", "verbosity", "service_tier", "parallel_tool_calls"]),
            choices=False,
            logprobs=False,
            reasoning=True,
            quirks={KEY: Quirks(instructions="all", keeps="never", streams_only=True, max_tool_calls=False, user="")},
        ),
        dialect=KEY,
    ),
    "github-responses": _beside("github", _can("verbosity", Quirks(max_tool_calls=False, user="")), models=_MODELS),
    "xai-responses": _beside(
        "xai",
        _can(_LOGPROBS, Quirks(allowed_tools=False, max_tool_calls=False, user="user"), documents=True),
        models=(ModelRule(r"grok-(2|3(?!-mini))|grok-[\w.-]*-non-reasoning", {"reasoning": False}),),
    ),
    "openrouter-responses": _beside(
        "openrouter",
        _can(
            f"top_k frequency_penalty presence_penalty {_LOGPROBS} verbosity service_tier",
            Quirks(plain_thoughts=True, budget=True, efforts={"max": "xhigh"}, user="user"),
            documents=True,
            audio=True,
        ),
    ),
    "deepseek-responses": _beside("deepseek", _can(quirks=_OPEN, images=False)),
    "groq-responses": _beside("groq", _can("service_tier", dataclasses.replace(_OPEN, user="user"))),
    "huggingface-responses": _beside("huggingface", _can(quirks=_OPEN)),
    # Servers that one runs oneself: the address is in the configuration.
    "vllm-responses": _beside("vllm", _can(f"top_k {_LOGPROBS}", _OPEN)),
    "llamacpp-responses": _beside("llamacpp", _can("top_k min_p seed", _OPEN)),
    "lmstudio-responses": _beside("lmstudio", _can(quirks=_OPEN)),
    "ollama-responses": _beside("ollama", _can(quirks=_OPEN)),
    "mistralrs-responses": _beside("mistralrs", _can("top_k", _OPEN)),
}

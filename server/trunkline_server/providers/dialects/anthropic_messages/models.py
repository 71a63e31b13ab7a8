"""What each model of Anthropic takes: data.

See https://platform.claude.com/docs/en/about-claude/models/overview and GET /v1/models, which tells most of it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from trunkline_server.providers.base import Capabilities

#: Levels of `output_config.effort`, least first.
_LEVELS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes."""

    #: Most tokens that it generates; None: not known.
    max_tokens: int | None
    #: Types of `thinking` that it accepts; empty: it does not think.
    thinking: frozenset[str] = frozenset()
    #: Levels of effort that it accepts.
    effort: tuple[str, ...] = ()
    #: It thinks unless told otherwise.
    thinks_by_default: bool = False
    #: It returns thinking without its text unless told otherwise.
    omits_thinking: bool = False
    #: temperature, top_p and top_k may be set.
    sampling: bool = True
    #: temperature and top_p may be set together.
    both_samplers: bool = False
    #: `output_config.format`.
    json_schema: bool = True
    #: The model may be made to call a tool.
    forced_tools: bool = True
    #: Instructions may stand between the turns of a conversation.
    system_turns: bool = False
    #: Beta that `output_config.effort` needs.
    effort_beta: str = ""


def _types(*names: str) -> frozenset[str]:
    return frozenset(names)


_BUDGET = _types("enabled", "disabled")
_EITHER = _types("enabled", "adaptive", "disabled")
_ADAPTIVE = _types("adaptive", "disabled")
_ALWAYS = _types("adaptive")
_BETWEEN = _types("adaptive", "between_tools")
_NO_XHIGH = ("low", "medium", "high", "max")

#: First match wins. Names come with dates, regions and vendors: "us.anthropic.claude-sonnet-4-5-20250929-v1:0".
_MODELS: tuple[tuple[re.Pattern[str], Model], ...] = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (r"claude-3-(opus|sonnet|haiku)", Model(4096, both_samplers=True, json_schema=False)),
        (r"claude-3-5-(sonnet|haiku)", Model(8192, both_samplers=True, json_schema=False)),
        (r"claude-3-7-sonnet", Model(64_000, _BUDGET, both_samplers=True, json_schema=False)),
        (r"claude-(opus-4-1|4-1-opus)", Model(32_000, _BUDGET)),
        (
            r"claude-(opus-4-5|4-5-opus)",
            Model(64_000, _BUDGET, effort=("low", "medium", "high"), effort_beta="effort-2025-11-24"),
        ),
        (r"claude-((sonnet|haiku)-4-5|4-5-(sonnet|haiku))", Model(64_000, _BUDGET)),
        (r"claude-((opus|sonnet)-4-6|4-6-(opus|sonnet))", Model(128_000, _EITHER, effort=_NO_XHIGH)),
        (r"claude-(opus-4-7|4-7-opus)", Model(128_000, _ADAPTIVE, _LEVELS, omits_thinking=True, sampling=False)),
        (
            r"claude-(opus-4-8|4-8-opus)",
            Model(128_000, _ADAPTIVE, _LEVELS, omits_thinking=True, sampling=False, system_turns=True),
        ),
        (r"claude-mythos-preview", Model(128_000, _ALWAYS, _NO_XHIGH, thinks_by_default=True, omits_thinking=True)),
        (r"claude-(opus-4|4-opus)", Model(32_000, _BUDGET, both_samplers=True, json_schema=False)),
        (r"claude-(sonnet-4|4-sonnet)", Model(64_000, _BUDGET, both_samplers=True, json_schema=False)),
        (
            r"claude-sonnet-5-5",
            Model(
                128_000, _BETWEEN, _LEVELS, thinks_by_default=True, omits_thinking=True, sampling=False,
                forced_tools=False, system_turns=True,
            ),
        ),
        (
            r"claude-(opus-5-5|(fable|mythos)-5-\d)",
            Model(
                128_000, _ALWAYS, _LEVELS, thinks_by_default=True, omits_thinking=True, sampling=False,
                forced_tools=False, system_turns=True,
            ),
        ),
        (
            r"claude-(fable|mythos)-5",
            Model(
                128_000, _ALWAYS, _LEVELS, thinks_by_default=True, omits_thinking=True, sampling=False,
                system_turns=True,
            ),
        ),
        (
            r"claude-(opus|sonnet|haiku)-\d",
            Model(
                128_000, _ADAPTIVE, _LEVELS, thinks_by_default=True, omits_thinking=True, sampling=False,
                system_turns=True,
            ),
        ),
    )
)  # fmt: skip

#: A model of another maker behind the same wire: what is asked is sent, its server knows best.
OTHER = Model(None, _BUDGET, both_samplers=True)


@functools.lru_cache(maxsize=4096)
def model_of(name: str) -> Model:
    """What the model takes, by its name at the provider."""
    name = name.lower().replace(".", "-")
    return next((model for pattern, model in _MODELS if pattern.search(name)), OTHER)


@functools.lru_cache(maxsize=4096)
def capabilities(name: str) -> Capabilities:
    """What a model can be asked for through this gateway."""
    model = model_of(name)
    return Capabilities(
        tool_choice=model.forced_tools,
        json_schema=model.json_schema,
        reasoning=bool(model.thinking),
        logprobs=False,
        choices=False,
        prompt_cache=True,
        token_count=True,
        max_output_tokens=model.max_tokens,
    )

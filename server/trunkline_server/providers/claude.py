"""Models of Anthropic, wherever they run: what each takes, how it is told to think, and the tools made for it.

See https://platform.claude.com/docs/en/about-claude/models/overview and GET /v1/models, which tells most of it;
.../build-with-claude/thinking and .../effort.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.v1 import generation_pb2 as pb
from trunkline.v1 import message_pb2
from trunkline_server.providers.base import Capabilities, Notes, Prefill, Target
from trunkline_server.providers.parameters import is_off, no_thoughts

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
    #: It goes on from the beginning of an answer; all newer models refuse a conversation that ends with their own turn.
    prefill: bool = False
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
        (r"claude-3-(opus|sonnet|haiku)", Model(4096, prefill=True, both_samplers=True, json_schema=False)),
        (r"claude-3-5-(sonnet|haiku)", Model(8192, prefill=True, both_samplers=True, json_schema=False)),
        (r"claude-3-7-sonnet", Model(64_000, _BUDGET, prefill=True, both_samplers=True, json_schema=False)),
        (r"claude-(opus-4-1|4-1-opus)", Model(32_000, _BUDGET, prefill=True)),
        (
            r"claude-(opus-4-5|4-5-opus)",
            Model(64_000, _BUDGET, prefill=True, effort=("low", "medium", "high"), effort_beta="effort-2025-11-24"),
        ),
        (r"claude-((sonnet|haiku)-4-5|4-5-(sonnet|haiku))", Model(64_000, _BUDGET, prefill=True)),
        (r"claude-((opus|sonnet)-4-6|4-6-(opus|sonnet))", Model(128_000, _EITHER, effort=_NO_XHIGH)),
        (r"claude-(opus-4-7|4-7-opus)", Model(128_000, _ADAPTIVE, _LEVELS, omits_thinking=True, sampling=False)),
        (
            r"claude-(opus-4-8|4-8-opus)",
            Model(128_000, _ADAPTIVE, _LEVELS, omits_thinking=True, sampling=False, system_turns=True),
        ),
        (r"claude-mythos-preview", Model(128_000, _ALWAYS, _NO_XHIGH, thinks_by_default=True, omits_thinking=True)),
        (r"claude-(opus-4|4-opus)", Model(32_000, _BUDGET, prefill=True, both_samplers=True, json_schema=False)),
        (r"claude-(sonnet-4|4-sonnet)", Model(64_000, _BUDGET, prefill=True, both_samplers=True, json_schema=False)),
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
        prefill=Prefill() if model.prefill else None,
    )


# -- thinking ---------------------------------------------------------------------------------------------------------

#: Least budget that the provider takes.
LEAST = 1024

#: Effort in words: the level's name, and the share of all tokens to think with where there are only budgets.
_EFFORTS: Mapping[int, tuple[str, float]] = {
    pb.REASONING_EFFORT_MINIMAL: ("low", 0.1),
    pb.REASONING_EFFORT_LOW: ("low", 0.2),
    pb.REASONING_EFFORT_MEDIUM: ("medium", 0.5),
    pb.REASONING_EFFORT_HIGH: ("high", 0.8),
    pb.REASONING_EFFORT_XHIGH: ("xhigh", 0.9),
    pb.REASONING_EFFORT_MAX: ("max", 0.95),
}
_EFFORT_FIELD = "params.reasoning.effort"
_BUDGET_FIELD = "params.reasoning.budget_tokens"


def think(body: dict[str, Any], params: pb.GenerationParams, model: Model, target: Target, notes: Notes) -> None:
    """Writes `thinking` and `output_config.effort`: how much to think, in words or tokens, as the model takes it."""
    if not params.HasField("reasoning"):
        return
    asked = params.reasoning
    if not model.thinking:
        no_thoughts(asked, target, notes)
        return
    if is_off(asked):
        _turn_off(body, asked, model, target, notes)
        return
    most = params.max_output_tokens if params.HasField("max_output_tokens") else None
    thinking = _thinking(asked, most, model, target, notes)
    if asked.effort and model.effort:
        body.setdefault("output_config", {})["effort"] = _level(asked.effort, model, target, notes)
    if thinking is None and asked.HasField("include") and model.thinks_by_default:
        thinking = {"type": "adaptive"}
    if thinking is not None:
        if asked.HasField("include") and (model.omits_thinking or not asked.include):
            thinking["display"] = "summarized" if asked.include else "omitted"
        body["thinking"] = thinking


def _turn_off(body: dict[str, Any], asked: pb.ReasoningConfig, model: Model, target: Target, notes: Notes) -> None:
    # The second type is what a model without the first has in its place.
    kind = next((kind for kind in ("disabled", "between_tools") if kind in model.thinking), None)
    if kind is not None:
        body["thinking"] = {"type": kind}
        return
    path = _EFFORT_FIELD if asked.effort == pb.REASONING_EFFORT_NONE else _BUDGET_FIELD
    notes.dropped(path, f"{target.model} always thinks; ask for low effort instead")


def _thinking(
    asked: pb.ReasoningConfig, most: int | None, model: Model, target: Target, notes: Notes
) -> dict[str, Any] | None:
    if asked.HasField("budget_tokens"):
        if "enabled" not in model.thinking:
            notes.altered(_BUDGET_FIELD, f"{target.model} decides by itself how long to think; set effort instead")
            return {"type": "adaptive"}
        if asked.effort and not model.effort:
            notes.dropped(_EFFORT_FIELD, f"{target.model} takes budget_tokens or effort, not both")
        return _budget(asked.budget_tokens, most, _BUDGET_FIELD, notes)
    if not asked.effort:
        return None
    if "adaptive" in model.thinking:
        return {"type": "adaptive"}
    room = most or target.capabilities.max_output_tokens or model.max_tokens or 16_384
    return _budget(max(LEAST, int(room * _EFFORTS[asked.effort][1])), most, _EFFORT_FIELD, notes, exact=False)


def _budget(tokens: int, most: int | None, path: str, notes: Notes, *, exact: bool = True) -> dict[str, Any] | None:
    """A budget within what the provider takes: from 1,024 to less than max_tokens."""
    if most is not None and most <= LEAST:
        notes.dropped(path, f"thinking takes {LEAST} tokens at least: set max_output_tokens above that")
        return None
    fitting = max(LEAST, tokens if most is None else min(tokens, most - 1))
    if exact and fitting != tokens:
        notes.altered(path, f"a budget is from {LEAST} to less than max_output_tokens: {fitting} is sent")
    return {"type": "enabled", "budget_tokens": fitting}


def _level(effort: int, model: Model, target: Target, notes: Notes) -> str:
    level = _EFFORTS[effort][0]
    if level in model.effort:
        return level
    best = model.effort[-1]
    if level == "max":
        # As much as the model can.
        return best
    nearest = "high" if "high" in model.effort else best
    notes.altered(_EFFORT_FIELD, f"{target.model} has no effort {level!r}; {nearest!r} is sent")
    return nearest


# -- sampling ---------------------------------------------------------------------------------------------------------


def sampling(
    params: pb.GenerationParams, thinking: str, model: Model, target: Target, notes: Notes
) -> dict[str, float]:
    """temperature, top_p and top_k, as far as the model and its type of `thinking` ("" for none) allow."""
    asked = {name: getattr(params, name) for name in ("temperature", "top_p", "top_k") if params.HasField(name)}
    if not model.sampling:
        for name, value in asked.items():
            if (name, value) not in (("temperature", 1.0), ("top_p", 1.0)):
                notes.dropped(f"params.{name}", f"{target.model} takes no sampling parameters")
        return {}
    if thinking in ("enabled", "adaptive"):
        for name in [name for name, value in asked.items() if not _fits_thinking(name, value)]:
            notes.dropped(
                f"params.{name}", "while it thinks, Anthropic takes only temperature 1, top_p from 0.95, no top_k"
            )
            del asked[name]
    if asked.get("temperature", 0.0) > 1:
        notes.altered("params.temperature", "Anthropic's temperatures end at 1")
        asked["temperature"] = 1.0
    if not model.both_samplers and "temperature" in asked and "top_p" in asked:
        notes.dropped("params.top_p", f"{target.model} takes temperature or top_p, not both")
        del asked["top_p"]
    return asked


def _fits_thinking(name: str, value: float) -> bool:
    return (name == "temperature" and value == 1) or (name == "top_p" and value >= 0.95)


# -- caching ----------------------------------------------------------------------------------------------------------

_TTLS = {message_pb2.CACHE_TTL_5M: "5m", message_pb2.CACHE_TTL_1H: "1h", message_pb2.CACHE_TTL_24H: "1h"}


def cache_mark(kind: str, cache: message_pb2.CacheControl, path: str, notes: Notes) -> dict[str, str]:
    """A mark of this type for the end of a prefix to cache, with the time that it is kept."""
    mark = {"type": kind}
    if cache.ttl in _TTLS:
        mark["ttl"] = _TTLS[cache.ttl]
    if cache.ttl == message_pb2.CACHE_TTL_24H:
        notes.altered(f"{path}.ttl", "a prefix is kept for an hour at most")
    return mark


# -- tools ------------------------------------------------------------------------------------------------------------

#: Tools of the provider by the beginning of their type: the name they go by, and the beta header that they need.
_PROVIDER_TOOLS: tuple[tuple[str, str, str], ...] = (
    ("advisor_20260301", "advisor", "advisor-tool-2026-03-01"),
    ("bash_", "bash", ""),
    ("code_execution_20250522", "code_execution", "code-execution-2025-05-22"),
    ("code_execution_", "code_execution", ""),
    ("computer_20241022", "computer", "computer-use-2024-10-22"),
    ("computer_20250124", "computer", "computer-use-2025-01-24"),
    ("computer_20251124", "computer", "computer-use-2025-11-24"),
    ("mcp_toolset", "", "mcp-client-2025-11-20"),
    ("memory_", "memory", "context-management-2025-06-27"),
    ("text_editor_20241022", "str_replace_editor", "computer-use-2024-10-22"),
    ("text_editor_20250124", "str_replace_editor", ""),
    ("text_editor_", "str_replace_based_edit_tool", ""),
    ("tool_search_tool_bm25", "tool_search_tool_bm25", ""),
    ("tool_search_tool_regex", "tool_search_tool_regex", ""),
    ("web_fetch_20250910", "web_fetch", "web-fetch-2025-09-10"),
    ("web_fetch_", "web_fetch", ""),
    ("web_search_", "web_search", ""),
)


def usual_tool(kind: str) -> tuple[str, str]:
    """Usual name and beta of a tool that Anthropic made; "" for what is not known or not needed."""
    return next(((name, beta) for start, name, beta in _PROVIDER_TOOLS if kind.startswith(start)), ("", ""))

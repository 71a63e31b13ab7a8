"""How much the model thinks: a level in words or a budget in tokens, as the model takes it.

See https://ai.google.dev/gemini-api/docs/thinking
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.v1 import generation_pb2 as pb
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.dialects.gemini.models import Model
from trunkline_server.providers.parameters import is_off, no_thoughts

_EFFORT = "params.reasoning.effort"
_BUDGET = "params.reasoning.budget_tokens"

#: Effort in words: the level, and the tokens where there are only budgets (None: the most). Google's own table, for
#: callers of its OpenAI endpoint.
_EFFORTS: Mapping[int, tuple[str, int | None]] = {
    pb.REASONING_EFFORT_MINIMAL: ("minimal", 1024),
    pb.REASONING_EFFORT_LOW: ("low", 1024),
    pb.REASONING_EFFORT_MEDIUM: ("medium", 8192),
    pb.REASONING_EFFORT_HIGH: ("high", 24_576),
    pb.REASONING_EFFORT_XHIGH: ("high", None),
    pb.REASONING_EFFORT_MAX: ("high", None),
}


def thinking_config(asked: pb.ReasoningConfig, model: Model, target: Target, notes: Notes) -> dict[str, Any]:
    """`thinkingConfig`; empty if there is nothing to say."""
    if not model.thinks:
        no_thoughts(asked, target, notes)
        return {}
    config = _off(asked, model, target, notes) if is_off(asked) else _on(asked, model, target, notes)
    if asked.HasField("include"):
        config["includeThoughts"] = asked.include
    return config


def _off(asked: pb.ReasoningConfig, model: Model, target: Target, notes: Notes) -> dict[str, Any]:
    if model.can_stop_thinking:
        return {"thinkingBudget": 0}
    path = _EFFORT if asked.effort == pb.REASONING_EFFORT_NONE else _BUDGET
    if model.levels:
        notes.altered(path, f"{target.model} always thinks; {model.levels[0]!r} is the least that it does")
        return {"thinkingLevel": model.levels[0]}
    least = model.budget[0] if model.budget else 0
    notes.altered(path, f"{target.model} always thinks; {least} tokens are the least that it does")
    return {"thinkingBudget": least}


def _on(asked: pb.ReasoningConfig, model: Model, target: Target, notes: Notes) -> dict[str, Any]:
    if asked.HasField("budget_tokens") and model.budget:
        if asked.effort:
            notes.dropped(_EFFORT, f"{target.model} takes budget_tokens or effort, not both")
        least, most = model.budget
        fitting = min(max(asked.budget_tokens, least), most)
        if fitting != asked.budget_tokens:
            notes.altered(_BUDGET, f"{target.model} thinks with {least} to {most} tokens: {fitting} is sent")
        return {"thinkingBudget": fitting}
    if asked.HasField("budget_tokens"):
        notes.dropped(_BUDGET, f"{target.model} decides by itself how long to think")
    if not asked.effort:
        return {}
    level, tokens = _EFFORTS[asked.effort]
    if model.levels:
        return {"thinkingLevel": _level(asked.effort, level, model, target, notes)}
    most = model.budget[1] if model.budget else 0
    return {"thinkingBudget": most if tokens is None else min(tokens, most)}


def _level(effort: int, level: str, model: Model, target: Target, notes: Notes) -> str:
    if effort == pb.REASONING_EFFORT_XHIGH:
        notes.altered(_EFFORT, f"{target.model} has no effort above {model.levels[-1]!r}")
    if level in model.levels:
        return level
    # As little as the model can, as much as it can, or more than was asked rather than less.
    nearest = model.levels[0] if level == "minimal" else model.levels[-1]
    if level not in ("minimal", nearest):
        notes.altered(_EFFORT, f"{target.model} has no effort {level!r}; {nearest!r} is sent")
    return nearest

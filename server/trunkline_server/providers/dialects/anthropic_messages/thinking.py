"""How much the model thinks: effort in words or tokens, as the model takes it.

See https://platform.claude.com/docs/en/build-with-claude/thinking and .../effort
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.v1 import generation_pb2 as pb
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.dialects.anthropic_messages.models import Model

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
_EFFORT = "params.reasoning.effort"
_BUDGET = "params.reasoning.budget_tokens"


def think(body: dict[str, Any], params: pb.GenerationParams, model: Model, target: Target, notes: Notes) -> None:
    """Writes `thinking` and `output_config.effort` into the body."""
    if not params.HasField("reasoning"):
        return
    asked = params.reasoning
    off = asked.effort == pb.REASONING_EFFORT_NONE or (asked.HasField("budget_tokens") and asked.budget_tokens == 0)
    if not model.thinking:
        _cannot(asked, off, target, notes)
        return
    if off:
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


def _cannot(asked: pb.ReasoningConfig, off: bool, target: Target, notes: Notes) -> None:
    """The model does not think: only a wish to think is one that cannot be granted."""
    if off:
        return
    if asked.effort:
        notes.dropped(_EFFORT, f"{target.model} does not think")
    if asked.HasField("budget_tokens"):
        notes.dropped(_BUDGET, f"{target.model} does not think")


def _turn_off(body: dict[str, Any], asked: pb.ReasoningConfig, model: Model, target: Target, notes: Notes) -> None:
    # The second type is what a model without the first has in its place.
    kind = next((kind for kind in ("disabled", "between_tools") if kind in model.thinking), None)
    if kind is not None:
        body["thinking"] = {"type": kind}
        return
    path = _EFFORT if asked.effort == pb.REASONING_EFFORT_NONE else _BUDGET
    notes.dropped(path, f"{target.model} always thinks; ask for low effort instead")


def _thinking(
    asked: pb.ReasoningConfig, most: int | None, model: Model, target: Target, notes: Notes
) -> dict[str, Any] | None:
    if asked.HasField("budget_tokens"):
        if "enabled" not in model.thinking:
            notes.altered(_BUDGET, f"{target.model} decides by itself how long to think; set effort instead")
            return {"type": "adaptive"}
        if asked.effort and not model.effort:
            notes.dropped(_EFFORT, f"{target.model} takes budget_tokens or effort, not both")
        return _budget(asked.budget_tokens, most, _BUDGET, notes)
    if not asked.effort:
        return None
    if "adaptive" in model.thinking:
        return {"type": "adaptive"}
    room = most or target.capabilities.max_output_tokens or model.max_tokens or 16_384
    return _budget(max(LEAST, int(room * _EFFORTS[asked.effort][1])), most, _EFFORT, notes, exact=False)


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
    notes.altered(_EFFORT, f"{target.model} has no effort {level!r}; {nearest!r} is sent")
    return nearest

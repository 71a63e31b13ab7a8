"""Generation parameters: which of them a target takes, and how they are written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from trunkline.v1 import generation_pb2
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.drafts import D, Fields
from trunkline_server.providers.vocabulary import EFFORTS

_NONE: Mapping[str, float] = {}


def write(
    draft: D, into: dict[str, Any], plain: Mapping[str, str], special: Fields[D], fixed: Mapping[str, float] = _NONE
) -> None:
    """Writes the parameters that are taken: as they are under the name that `plain` has, or as `special` does it."""
    for name, value in taken(draft.spec.params, draft.target, draft.notes, {*plain, *special}, fixed):
        if name in plain:
            into[plain[name]] = value
        else:
            special[name](draft, value)


def taken(
    params: generation_pb2.GenerationParams,
    target: Target,
    notes: Notes,
    known: Collection[str],
    fixed: Mapping[str, float] = _NONE,
) -> Iterator[tuple[str, Any]]:
    """The parameters that are set, `known` to the dialect and taken by the target. The others are noted, but for those
    that ask for what happens anyway: `fixed` has those that the model takes at one value only, which is its default.

    Parallel calls are left out: they belong to tools.
    """
    can = target.capabilities.params
    for field, value in params.ListFields():
        name = field.name
        if name == "parallel_tool_calls":
            continue
        if name in known and (can is None or name in can):
            yield name, list(value) if name == "stop_sequences" else value
        elif not _is_default(name, value, fixed):
            notes.dropped(f"params.{name}", f"{target.model!r} at {target.origin} has no such parameter")


def _is_default(name: str, value: Any, fixed: Mapping[str, float]) -> bool:
    """Does the value ask for what happens anyway?"""
    if name in fixed and value == fixed[name]:
        return True
    return bool((name == "n" and value == 1) or (name == "logprobs" and not value))


def effort_of(asked: generation_pb2.ReasoningConfig, renamed: Mapping[str, str], target: Target, notes: Notes) -> str:
    """The word for the effort, "" if none is asked for. `renamed` has words for efforts that the target has not."""
    word = EFFORTS.get(asked.effort, "")
    known = renamed.get(word, word)
    if known != word:
        notes.altered("params.reasoning.effort", f"sent as {known!r}: {target.origin} has no more")
    return known


def no_budget(asked: generation_pb2.ReasoningConfig, target: Target, notes: Notes) -> None:
    """Notes a budget, for a target that takes effort in words only."""
    if asked.HasField("budget_tokens"):
        notes.dropped("params.reasoning.budget_tokens", f"{target.origin} takes effort in words, not in tokens")


def shown_anyway(asked: generation_pb2.ReasoningConfig, shown: bool, target: Target, notes: Notes) -> None:
    """Notes whether to return thoughts, unless it is what happens anyway, for a target that cannot be told."""
    if asked.HasField("include") and asked.include != shown:
        what = "shows no thoughts" if asked.include else "cannot be told to keep its thoughts"
        notes.dropped("params.reasoning.include", f"{target.origin} {what}")


def is_off(asked: generation_pb2.ReasoningConfig) -> bool:
    """Is the model asked not to think?"""
    none = asked.effort == generation_pb2.REASONING_EFFORT_NONE
    return none or (asked.HasField("budget_tokens") and asked.budget_tokens == 0)


def no_thoughts(asked: generation_pb2.ReasoningConfig, target: Target, notes: Notes) -> None:
    """Notes a wish to think, for a model that does not: only that is one which cannot be granted."""
    if is_off(asked):
        return
    if asked.effort:
        notes.dropped("params.reasoning.effort", f"{target.model} does not think")
    if asked.HasField("budget_tokens"):
        notes.dropped("params.reasoning.budget_tokens", f"{target.model} does not think")

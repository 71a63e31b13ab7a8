"""Which generation parameters a target takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.vocabulary import EFFORTS


def taken(
    params: generation_pb2.GenerationParams, target: Target, notes: Notes, fixed: Mapping[str, float]
) -> Iterator[tuple[str, Any]]:
    """The parameters that are set and that the target takes. A value that it does not take is noted unless it is what
    happens anyway: `fixed` has those that the model takes at one value only, which is its default.

    Parallel calls are left out: they belong to tools.
    """
    known = target.capabilities.params
    for field, value in params.ListFields():
        name = field.name
        if name == "parallel_tool_calls":
            continue
        if known is None or name in known:
            yield name, value
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


def stateless_text(spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
    """Notes what has no place at a target that knows no end users, keeps no responses and makes no sound."""
    if spec.end_user_id:
        notes.remark("end_user_id", f"{target.origin} takes no id of the end user")
    if spec.store:
        notes.dropped("store", f"{target.origin} keeps no responses")
    if spec.HasField("previous_response_id"):
        notes.dropped("previous_response_id", f"{target.origin} keeps no responses; send all messages")
    if spec.HasField("audio_output"):
        notes.dropped("audio_output", f"{target.origin} makes no sound")

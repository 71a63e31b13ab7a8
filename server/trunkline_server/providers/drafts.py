"""A request while it is written, field by field of its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from trunkline.v1 import completion_pb2
from trunkline_server.providers.base import Notes, Target


@dataclass(slots=True)
class Draft:
    """What is written, and for whom. Dialects add what else they look at while they write."""

    spec: completion_pb2.CompletionSpec
    target: Target
    notes: Notes
    body: dict[str, Any]

    def dropped(self, path: str, description: str) -> None:
        """The parameter is left out."""
        self.notes.dropped(path, description)


D = TypeVar("D", bound=Draft)
Fields = Mapping[str, Callable[[D, Any], None]]


def fill(draft: D, fields: Fields[D]) -> None:
    """Does with each field that is set what the table says."""
    for descriptor, value in draft.spec.ListFields():
        fields[descriptor.name](draft, value)


# -- what is done with fields that an API has nothing of its own for --------------------------------------------------


def _nothing(draft: Draft, value: object) -> None:
    """Done elsewhere."""


def no_user(draft: Draft, value: str) -> None:
    """Says that the provider is not told who the end user is."""
    if value:
        draft.notes.remark("end_user_id", f"{draft.target.origin} takes no id of the end user")


def no_response(draft: Draft, value: str) -> None:
    """Notes that the conversation cannot go on from a response."""
    draft.dropped("previous_response_id", f"{draft.target.origin} keeps no responses; send all messages")


def not_stored(draft: Draft, value: bool) -> None:
    """Not to store is what happens anyway."""
    if value:
        draft.dropped("store", f"{draft.target.origin} keeps no responses")


def silent(draft: Draft, value: object) -> None:
    """Notes that the answer is not spoken."""
    draft.dropped("audio_output", f"{draft.target.model!r} at {draft.target.origin} makes no sound")


USUAL: Fields[Draft] = {
    "model": _nothing,
    "config": _nothing,
    "inline_config": _nothing,
    "messages": _nothing,
    # Written with the tools.
    "tool_choice": _nothing,
    "max_tool_calls": _nothing,
    "reasoning_argument": _nothing,
    "strict_tools": _nothing,
    "provider_options_json": _nothing,
    # The engine's: never sent, or done before any dialect sees the spec.
    "labels": _nothing,
    "extra_system_text": _nothing,
    "tool_result_max_chars": _nothing,
    "end_user_id": no_user,
    "previous_response_id": no_response,
    "store": not_stored,
    "audio_output": silent,
}

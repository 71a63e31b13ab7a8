"""Results of tools, for APIs whose tool messages hold text only."""

from __future__ import annotations

from typing import Any

from trunkline_server.providers.base import Notes

#: Text of a result that has none, because all of it is held.
ELSEWHERE = "See the next message."


class Held:
    """What is no text in the results of tools, until a message of the user's can follow them with it."""

    __slots__ = ("_notes", "_parts", "_text")

    def __init__(self, notes: Notes, *, text: str = "text") -> None:
        self._notes = notes
        #: The API's type of a part that is text.
        self._text = text
        self._parts: list[Any] = []

    def keep(self, media: list[Any], call_id: str, path: str) -> None:
        """Holds the parts of one result; `path` is the result's."""
        if not media:
            return
        self._notes.remark(path, "what is no text was sent in a message of the user's after the results")
        self._parts.append({"type": self._text, "text": f"Returned by the tool call {call_id}:"})
        self._parts.extend(media)

    def message(self) -> list[dict[str, Any]]:
        """The message that follows the results; none if nothing is held. Then nothing is held any more."""
        parts, self._parts = self._parts, []
        return [{"role": "user", "content": parts}] if parts else []

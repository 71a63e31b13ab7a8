"""Conversations in which two take turns, and all that one says in a row is one turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline_server.providers.base import Notes


class Turns:
    """Turns as `{"role": .., "content": [..]}`. Results of calls come first in the turn that answers the calls."""

    def __init__(self, notes: Notes, *, is_result: Callable[[Any], bool], is_blank: Callable[[Any], bool]) -> None:
        self._notes = notes
        self._is_result = is_result
        self._is_blank = is_blank
        self.turns: list[dict[str, Any]] = []

    def add(self, role: str, blocks: list[Any], path: str) -> None:
        """What is said next; `path` is the message's. Nothing said is no turn."""
        if not blocks:
            return
        if not self.turns or self.turns[-1]["role"] != role:
            self.turns.append({"role": role, "content": blocks})
            return
        content, is_result = self.turns[-1]["content"], self._is_result
        if role == "user" and is_result(blocks[0]) and not is_result(content[-1]):
            # Results that come after something else in a turn are refused.
            self._notes.altered(path, "the results of one turn's calls are moved before what was said after them")
            place = next(at for at, block in enumerate(content) if not is_result(block))
            content[place:place] = [block for block in blocks if is_result(block)]
            blocks = [block for block in blocks if not is_result(block)]
        content.extend(blocks)

    def whole(self) -> list[dict[str, Any]]:
        """The turns without blank texts, which are refused, wherever a turn says something else too."""
        for turn in self.turns:
            turn["content"] = self.without_blanks(turn["content"]) or turn["content"]
        return [turn for turn in self.turns if turn["role"] != "assistant" or self.without_blanks(turn["content"])]

    def without_blanks(self, blocks: list[Any]) -> list[Any]:
        return [block for block in blocks if not self._is_blank(block)]

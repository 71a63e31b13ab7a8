"""Conversations in which two take turns, and all that one says in a row is one turn; instructions stand apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.ids import CallIds
from trunkline_server.providers.parts import Block, Part, Parts

_ROLES: Mapping[int, str] = {
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_TOOL: "user",
    message_pb2.ROLE_ASSISTANT: "assistant",
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "system",
}


class Turns(Parts, ABC):
    """Turns as `{"role": .., "content": [..]}`. Results of calls come first in the turn that answers the calls."""

    #: What the API is called.
    api = ""

    def __init__(
        self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes, ids: CallIds, *, system_turns: bool
    ) -> None:
        super().__init__(spec, target, notes)
        #: Ids of calls as the API takes them.
        self.ids = ids
        #: May instructions stand between the turns?
        self._system_turns = system_turns
        self.system: list[Block] = []
        self._turns: list[dict[str, Any]] = []

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The turns without blank texts, which are refused, wherever a turn says something else too."""
        for turn in self._turns:
            turn["content"] = self.without_blanks(turn["content"]) or turn["content"]
        return [turn for turn in self._turns if turn["role"] != "assistant" or self.without_blanks(turn["content"])]

    def read(self) -> None:
        """Reads the spec's messages."""
        leading = True
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            role = _ROLES.get(message.role, "user")
            if message.HasField("name"):
                self._notes.dropped(f"{path}.name", f"{self.api} has no names of participants")
            if role == "system":
                blocks = self.without_blanks(list(self._instructions(message.parts, f"{path}.parts")))
                if blocks:
                    self.instruct(blocks, path, leading=leading)
            else:
                leading = False
                self.add(role, list(self.blocks(message.parts, f"{path}.parts")), path)

    def _instructions(self, parts: Iterable[Part], path: str) -> Iterator[Block]:
        for index, part in enumerate(parts):
            at = f"{path}[{index}]"
            if part.WhichOneof("kind") in ("text", "opaque"):
                yield from self.marked(part, at)
            else:
                self._notes.dropped(at, "instructions are text only")

    def instruct(self, blocks: list[Block], path: str, *, leading: bool) -> None:
        """Takes instructions; `leading` are those before the conversation."""
        if leading:
            self.system.extend(blocks)
        elif self._system_turns:
            self.add("system", blocks, path)
        else:
            where = "takes instructions only before the conversation; these are moved there"
            self._notes.altered(path, f"{self._target.model} {where}")
            self.system.extend(blocks)

    def add(self, role: str, blocks: list[Block], path: str) -> None:
        """What is said next; `path` is the message's. Nothing said is no turn."""
        if not blocks:
            return
        if not self._turns or self._turns[-1]["role"] != role:
            self._turns.append({"role": role, "content": blocks})
            return
        content, is_result = self._turns[-1]["content"], self.is_result
        if role == "user" and is_result(blocks[0]) and not is_result(content[-1]):
            # Results that come after something else in a turn are refused.
            self._notes.altered(path, "the results of one turn's calls are moved before what was said after them")
            place = next(at for at, block in enumerate(content) if not is_result(block))
            content[place:place] = [block for block in blocks if is_result(block)]
            blocks = [block for block in blocks if not is_result(block)]
        content.extend(blocks)

    def blocks(self, parts: Iterable[Part], path: str) -> Iterator[Block]:
        """What parts say, with the marks of what to cache."""
        for index, part in enumerate(parts):
            yield from self.marked(part, f"{path}[{index}]")

    def without_blanks(self, blocks: list[Block]) -> list[Block]:
        return [block for block in blocks if not self.is_blank(block)]

    @abstractmethod
    def marked(self, part: Part, path: str) -> Iterator[Block]:
        """What a part says, with its mark if it ends a prefix to cache."""

    @staticmethod
    @abstractmethod
    def is_result(block: Block) -> bool:
        """Is it the result of a call?"""

    @staticmethod
    @abstractmethod
    def is_blank(block: Block) -> bool:
        """Is it a text that says nothing?"""

"""A conversation as a list of messages, each with its role, as OpenAI's chat and others after it have it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.jsontext import loads
from trunkline_server.providers.parts import Part, Parts
from trunkline_server.providers.results import ELSEWHERE, Held

Wire = dict[str, Any]


class Messages(Parts, ABC):
    """Encodes the messages. The result of each tool is one by itself."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        super().__init__(spec, target, notes)
        self._held = Held(notes)
        self.roles: Mapping[int, str] = {
            message_pb2.ROLE_SYSTEM: "system",
            message_pb2.ROLE_DEVELOPER: "system",
            message_pb2.ROLE_USER: "user",
            message_pb2.ROLE_ASSISTANT: "assistant",
        }

    def encode(self) -> list[Wire]:
        encoded: list[Wire] = []
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            if message.role == message_pb2.ROLE_TOOL:
                for at, part in enumerate(message.parts):
                    encoded.append(self.result(part.tool_result, f"{path}.parts[{at}].tool_result"))
                continue
            encoded.extend(self._held.message())
            made = self.message(message, path)
            self.named(message, path, made)
            encoded.append(made)
        return [*encoded, *self._held.message()]

    @abstractmethod
    def message(self, message: message_pb2.Message, path: str) -> Wire:
        """What somebody says."""

    @abstractmethod
    def result(self, result: message_pb2.ToolResult, path: str) -> Wire:
        """What a tool answers."""

    def named(self, message: message_pb2.Message, path: str, made: Wire) -> None:
        """Puts the participant's name into a message."""
        self.nameless(message, path)


class PartedMessages(Messages):
    """Messages whose content is parts, or one text."""

    #: Types of parts that may stand in the result of a tool. What else there is follows in a message of the user's.
    in_results = frozenset({"text"})

    def message(self, message: message_pb2.Message, path: str) -> Wire:
        if message.role == message_pb2.ROLE_ASSISTANT:
            return self.assistant(message, path)
        content = self.content(list(self.parts(message.parts, f"{path}.parts")))
        return {"role": self.roles.get(message.role, "user"), "content": content}

    @abstractmethod
    def assistant(self, message: message_pb2.Message, path: str) -> Wire:
        """What the model said."""

    def result(self, result: message_pb2.ToolResult, path: str) -> Wire:
        content: list[Wire] = []
        media: list[Wire] = []
        for at, part in enumerate(result.parts):
            made = self.answered(part, f"{path}.parts[{at}]")
            if made is not None:
                (content if made.get("type") in self.in_results else media).append(made)
        self._held.keep(media, result.tool_call_id, path)
        self.failed_in_words(result, path)
        if media and not content:
            content = [{"type": "text", "text": ELSEWHERE}]
        return {"role": "tool", "tool_call_id": result.tool_call_id, "content": self.content(content)}

    def answered(self, part: Part, path: str) -> Wire | None:
        """A part of a tool's answer."""
        made: Wire | None = self.part(part, path)
        return made

    @staticmethod
    def content(parts: list[Wire]) -> str | list[Wire]:
        """A string if there is but one text, else parts."""
        if not parts:
            return ""
        if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
            text: str = parts[0]["text"]
            return text
        return parts

    # -- parts --------------------------------------------------------------------------------------------------------

    def text(self, part: Part, path: str) -> Wire:
        return {"type": "text", "text": part.text.text}

    def refusal(self, part: Part, path: str) -> Wire:
        return {"type": "text", "text": part.refusal.text}

    def opaque(self, part: Part, path: str) -> Wire | None:
        if self.noted_foreign(part, path):
            return None
        value = loads(part.opaque.json)
        return value if isinstance(value, dict) else None

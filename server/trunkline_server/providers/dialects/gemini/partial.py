"""Arguments of a call that arrive as values by path: written on as the JSON text that they are pieces of.

See https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc
"""

from __future__ import annotations

import re

from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.dialects.gemini.wire import PartialArg
from trunkline_server.providers.jsontext import dumps, present, text_of

#: Deepest nesting of arguments.
MAX_DEPTH = 200

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
_ESCAPED = re.compile(r"\\(.)")

Step = str | int


class _Container:
    """An object or array that is being written."""

    __slots__ = ("count", "names", "step")

    def __init__(self, step: Step, *, is_array: bool) -> None:
        #: Where it stands in what holds it.
        self.step = step
        self.count = 0
        self.names: set[str] | None = None if is_array else set()

    @property
    def end(self) -> str:
        return "]" if self.names is None else "}"


class ArgumentsWriter:
    """Writes one object. Values come in the order of the text, each path once; a string may come in pieces."""

    def __init__(self) -> None:
        self._open: list[_Container] = []
        #: Path of the string that goes on.
        self._string: list[Step] | None = None
        self._begun = False

    def add(self, piece: PartialArg) -> str:
        """The text that the piece adds. Raises LLMInvalidResponseError for one that fits nowhere."""
        steps = _steps(piece.json_path)
        written: list[str] = []
        if self._string is not None:
            if steps == self._string:
                written.append(_inside(piece.string_value or ""))
                if not piece.will_continue:
                    self._string = None
                    written.append('"')
                return "".join(written)
            self._string = None
            written.append('"')
        if not self._begun:
            self._begun = True
            self._open.append(_Container("", is_array=False))
            written.append("{")
        self._enter(steps, written)
        self._member(steps[-1], written)
        if piece.string_value is not None:
            written.append('"' + _inside(piece.string_value))
            if piece.will_continue:
                self._string = steps
            else:
                written.append('"')
        else:
            written.append(_value(piece))
        return "".join(written)

    def end(self) -> str:
        """The text that ends the object."""
        if not self._begun:
            return "{}"
        written = ['"'] if self._string is not None else []
        self._string = None
        while self._open:
            written.append(self._open.pop().end)
        return "".join(written)

    def _enter(self, steps: list[Step], written: list[str]) -> None:
        """Ends the containers that the path has left and begins those that it goes into."""
        parents = steps[:-1]
        shared = 0
        for container, step in zip(self._open[1:], parents, strict=False):
            if container.step != step:
                break
            shared += 1
        while len(self._open) > shared + 1:
            written.append(self._open.pop().end)
        for place in range(shared, len(parents)):
            self._member(parents[place], written)
            container = _Container(parents[place], is_array=isinstance(steps[place + 1], int))
            self._open.append(container)
            written.append("[" if container.names is None else "{")

    def _member(self, step: Step, written: list[str]) -> None:
        container = self._open[-1]
        if container.names is None:
            if step != container.count:
                raise _out_of_order()
        elif isinstance(step, int) or step in container.names:
            raise _out_of_order()
        if container.count:
            written.append(",")
        container.count += 1
        if container.names is not None and isinstance(step, str):
            container.names.add(step)
            written.append(f'"{_inside(step)}":')


def _steps(path: str) -> list[Step]:
    steps: list[Step] = []
    place = 1 if path.startswith("$") else 0
    while place < len(path):
        match = _STEP.match(path, place)
        if match is None or len(steps) >= MAX_DEPTH:
            raise LLMInvalidResponseError("the provider sent a piece of arguments with a path that cannot be read")
        name, index, single, double = match.groups()
        quoted = single if single is not None else double
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(name if quoted is None else _ESCAPED.sub(r"\1", quoted))
        place = match.end()
    if not steps:
        raise LLMInvalidResponseError("the provider sent a piece of arguments without a path")
    return steps


def _inside(text: str) -> str:
    """The text as it stands between the quotation marks of a JSON string."""
    return dumps(text).decode()[1:-1]


def _value(piece: PartialArg) -> str:
    if present(piece.number_value):
        return text_of(piece.number_value)
    if piece.bool_value is not None:
        return "true" if piece.bool_value else "false"
    return "null"


def _out_of_order() -> LLMInvalidResponseError:
    return LLMInvalidResponseError("the provider sent pieces of arguments in an order that makes no JSON")

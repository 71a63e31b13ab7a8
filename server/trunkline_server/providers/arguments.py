"""Arguments of tool calls: what can be read of a text that was cut off, and the argument that the gateway injected."""

from __future__ import annotations

import json
import re

import pydantic_core

#: A number that the text ends in may go on: 12 may be the beginning of 1234.
_NUMBER_AT_END = re.compile(r"(?:-?\d[\d.eE+-]*|-)$")


def parsed(text: str) -> dict[str, object] | None:
    """The object, or None if the text is not a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def completed(text: str) -> str | None:
    """A copy of a cut-off JSON object that parses: its complete members, closed. None if nothing is cut off.

    A value that may have been cut (a number or word at the very end) is left out; a string at the end is left out too,
    as half a value is no value. None as well for a text that is no beginning of an object.
    """
    stripped = text.strip()
    if not stripped.startswith("{"):
        return None
    try:
        json.loads(stripped)
    except RecursionError:
        return None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
    else:
        return None
    try:
        value = pydantic_core.from_json(_NUMBER_AT_END.sub("", stripped), allow_partial=True, allow_inf_nan=False)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return None


def without_argument(text: str, name: str) -> tuple[str, str | None]:
    """Takes one member out of the arguments. Returns the rest and what the member said, None if it is not there."""
    value = parsed(text)
    if value is None or name not in value:
        return text, None
    said = value.pop(name)
    rest = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return rest, said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)

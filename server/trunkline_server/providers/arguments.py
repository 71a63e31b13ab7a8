"""Arguments of tool calls: what can be read of a text that was cut off, and the argument that the gateway injected."""

from __future__ import annotations

import json
import re

import pydantic_core

#: What numbers are made of, and how one begins.
_NUMERALS, _NUMBER = "0123456789.eE+-", re.compile(r"-?\d|-$")


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
    except ValueError as error:
        # Python reads no number of more than some thousand digits, and says so with another error.
        if not isinstance(error, json.JSONDecodeError) or error.msg == "Extra data":
            return None
    else:
        return None
    try:
        value = pydantic_core.from_json(_without_number(stripped), allow_partial=True, allow_inf_nan=False)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return None


def _without_number(text: str) -> str:
    """Without the number that it ends in, which may go on: 12 may be the beginning of 1234."""
    begins = len(text.rstrip(_NUMERALS))
    number = _NUMBER.search(text, begins)
    return text if number is None else text[: number.start()]


def without_argument(text: str, name: str) -> tuple[str, str | None]:
    """Takes one member out of the arguments. Returns the rest and what the member said, None if it is not there."""
    value = parsed(text)
    if value is None or name not in value:
        return text, None
    said = value.pop(name)
    rest = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return rest, said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)

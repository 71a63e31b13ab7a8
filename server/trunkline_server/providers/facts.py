"""What an error body says, whatever its shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trunkline_server.providers.headers import seconds_of
from trunkline_server.providers.jsontext import try_loads


@dataclass(slots=True)
class Facts:
    """What an error body says, whatever its shape."""

    #: The provider's code, e.g. "context_length_exceeded". Numbers as text.
    code: str = ""
    #: Its type or status, e.g. "invalid_request_error", "RESOURCE_EXHAUSTED".
    type: str = ""
    message: str = ""
    #: The parameter that it blames.
    param: str = ""
    #: An HTTP status that the body names; all there is in a stream that began well.
    status: int | None = None
    #: Seconds, where the body says.
    retry_after: float | None = None
    request_id: str = ""
    help_link: str = ""
    #: Codes, types and texts of errors inside the error: of a router's own upstream, of an inner error.
    inner: list[str] = field(default_factory=list)
    #: Filter categories that matched.
    categories: list[str] = field(default_factory=list)


#: Names under which a body holds its error, in order of precedence.
_CONTAINERS = ("error", "errors", "detail", "Error", "base_resp")
_MESSAGES = ("message", "msg", "detail", "error_description", "title", "Message", "errorMessage", "status_msg", "error")
_TYPES = ("type", "status", "__type", "error_type", "name")
_CODES = ("code", "error_code", "Code", "status_code")
_STATUSES = ("status", "status_code", "statusCode", "raw_status_code", "code", "http_code")
_WAITS = ("retry_after", "retry_after_seconds", "resets_in_seconds")
_INNER = ("innererror", "inner_error", "metadata", "details", "cause")
_FILTERS = ("content_filter_result", "content_filter_results")


def facts_of(body: Any) -> Facts:
    """Reads the shapes in use: {error: {..}}, {error: ".."}, {detail: ..}, {code, message}, lists, JSON inside JSON."""
    facts = Facts()
    _read(body, facts, 0)
    return facts


def _read(value: Any, facts: Facts, depth: int) -> None:
    if isinstance(value, list):
        value = _first(value)
    if isinstance(value, str):
        _say(value, facts, depth)
        return
    if not isinstance(value, dict) or depth > 4:
        return
    facts.request_id = facts.request_id or _text(value.get("request_id"))
    for name in _CONTAINERS:
        inside = value.get(name)
        if isinstance(inside, dict) or (isinstance(inside, list) and any(isinstance(item, dict) for item in inside)):
            _own(value, facts, around=True)
            _read(inside, facts, depth + 1)
            if not facts.message:
                facts.message = _word(value.get("message"))
            return
    _own(value, facts)
    for name in _MESSAGES:
        said = value.get(name)
        if said:
            _say(said, facts, depth)
            break
    for name in _INNER:
        _read_inner(value.get(name), facts, depth)


def _own(value: dict[str, Any], facts: Facts, *, around: bool = False) -> None:
    """Code, type, parameter and status of one object; of the object around the error only what is no mere envelope."""
    if not around or value.get("type") != "error":
        facts.type = facts.type or next((text for name in _TYPES if (text := _word(value.get(name)))), "")
    facts.code = facts.code or next((text for name in _CODES if (text := _text(value.get(name)))), "")
    facts.param = facts.param or _text(value.get("param")) or _path(value.get("loc"))
    if facts.status is None:
        facts.status = next((number for name in _STATUSES if (number := _status(value.get(name)))), None)
    if facts.retry_after is None:
        facts.retry_after = next((wait for name in _WAITS if (wait := seconds_of(value.get(name))) is not None), None)


def _say(said: Any, facts: Facts, depth: int) -> None:
    """Takes a message, which may itself be JSON, an object or a list of objects."""
    if isinstance(said, str):
        stripped = said.strip()
        nested = try_loads(stripped) if stripped[:1] in ("{", "[") and depth < 3 else None
        if isinstance(nested, dict | list) and nested:
            _read(nested, facts, depth + 1)
        if not facts.message:
            facts.message = stripped
    elif isinstance(said, list) and said and all(isinstance(item, str) for item in said):
        facts.message = facts.message or "; ".join(said)
    else:
        _read(said, facts, depth + 1)


def _read_inner(inner: Any, facts: Facts, depth: int) -> None:
    for item in inner if isinstance(inner, list) else (inner,):
        if isinstance(item, str) and item:
            facts.inner.append(item)
        if not isinstance(item, dict):
            continue
        kind = _text(item.get("@type"))
        if kind.endswith("RetryInfo"):
            facts.retry_after = seconds_of(item.get("retryDelay"))
        elif kind.endswith("Help"):
            link = _first(item.get("links"))
            facts.help_link = _text(link.get("url")) if isinstance(link, dict) else ""
        elif kind.endswith("BadRequest"):
            violation = _first(item.get("fieldViolations"))
            facts.param = facts.param or (_text(violation.get("field")) if isinstance(violation, dict) else "")
        facts.inner.extend(text for name in ("reason", "code", "error_type") if (text := _text(item.get(name))))
        for name in _FILTERS:
            facts.categories.extend(_matched(item.get(name)))
        raw = item.get("raw")
        if raw and depth < 3:
            deeper = facts_of(try_loads(raw) if isinstance(raw, str) and raw.lstrip()[:1] in ("{", "[") else raw)
            facts.inner.extend(text for text in (deeper.code, deeper.type, deeper.message, *deeper.inner) if text)
            facts.param = facts.param or deeper.param
            facts.message = f"{facts.message}: {deeper.message}" if deeper.message else facts.message


def _matched(filters: Any) -> Iterable[str]:
    if isinstance(filters, dict):
        for name, result in filters.items():
            if isinstance(result, dict) and result.get("filtered"):
                yield str(name)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _text(value: Any) -> str:
    """A string, or a whole number as one."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _word(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _path(value: Any) -> str:
    return ".".join(str(step) for step in value if step != "body") if isinstance(value, list) else ""


def _status(value: Any) -> int | None:
    text = _text(value)
    return int(text) if len(text) == 3 and text.isdecimal() and 400 <= int(text) <= 599 else None

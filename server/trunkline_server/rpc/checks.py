"""Checks that requests are made of: each looks at one value and reports what is wrong with it, by its path.

A table from field names to checks describes a message; `check_fields` runs it over the fields that are set. A
description names the value, cut and without secrets, and says what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, NoReturn

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from trunkline_server.redact import redact
from trunkline_server.rpc.findings import Findings

Check = Callable[[Any, str, Findings], None]
Table = Mapping[str, Check]

INT32_MAX = 2**31 - 1
SECOND = 1_000_000_000

_SHOWN = 60


def check_fields(message: Message, table: Table, path: str, findings: Findings) -> None:
    """Runs the table's checks over the fields that are set."""
    for field, value in message.ListFields():
        check = table.get(field.name)
        if check is not None:
            check(value, f"{path}{field.name}", findings)


def message_of(table: Table) -> Check:
    """The value is a message whose fields the table checks."""

    def check(value: Any, path: str, findings: Findings) -> None:
        check_fields(value, table, f"{path}.", findings)

    return check


def all_of(*checks: Check) -> Check:
    def check(value: Any, path: str, findings: Findings) -> None:
        for each in checks:
            each(value, path, findings)

    return check


def shown(value: object) -> str:
    """The value as a description names it."""
    if isinstance(value, str):
        text = redact.head(value, _SHOWN)
        return f"{text!r}..." if len(value) > _SHOWN else repr(text)
    return repr(value)


def entry(path: str, key: str) -> str:
    """Path of an entry of a map."""
    return f"{path}[{json.dumps(redact.head(key, _SHOWN), ensure_ascii=False)}]"


# -- numbers and words ------------------------------------------------------------------------------------------------


def within(least: float, most: float, fix: str = "") -> Check:
    """From `least` to `most`, both allowed; never NaN. The ends of int32 and infinity are no limits to speak of."""
    allowed = f"at least {least:g}" if most in (INT32_MAX, float("inf")) else f"from {least:g} to {most:,g}"

    def check(value: float, path: str, findings: Findings) -> None:
        if not least <= value <= most:
            findings.add(path, f"{value!r} is out of range: give {allowed}{fix}, or leave it out")

    return check


def above_zero(value: float, path: str, findings: Findings) -> None:
    if not 0 < value < float("inf"):
        findings.add(path, f"{value!r} is out of range: give a number above 0, or leave it out")


def known(enum: Any) -> Check:
    """A value of the enum that these stubs know."""
    values = frozenset(enum.values())
    name, names = enum.DESCRIPTOR.name, ", ".join(enum.keys()[1:])

    def check(value: int, path: str, findings: Findings) -> None:
        if value not in values:
            findings.add(path, f"{value} is no {name} that this server knows: use one of {names}, or leave it out")

    return check


def matching(pattern: str, rule: str) -> Check:
    """Text that the pattern matches as a whole."""
    compiled = re.compile(pattern)

    def check(value: str, path: str, findings: Findings) -> None:
        if compiled.fullmatch(value) is None:
            findings.add(path, f"{shown(value)} is not allowed: {rule}")

    return check


def filled(fix: str) -> Check:
    """Text that is not empty."""

    def check(value: str, path: str, findings: Findings) -> None:
        if not value:
            findings.add(path, f"empty: {fix}")

    return check


def counted(most: int, what: str) -> Check:
    """At most `most` elements."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if len(value) > most:
            findings.add(path, f"{len(value):,} {what} are too many: send at most {most:,}")

    return check


def request_id(value: str, path: str, findings: Findings) -> None:
    if len(value) > 128 or not (value.isascii() and value.isprintable()):
        findings.add(path, f"{shown(value)} is not allowed: use at most 128 printable ASCII characters")


def labels(value: Mapping[str, str], path: str, findings: Findings) -> None:
    counted(64, "labels")(value, path, findings)
    for key, text in islice(value.items(), 64):
        if not 1 <= len(key) <= 64:
            findings.add(entry(path, key), f"a key of {len(key)} characters is not allowed: use 1 to 64")
        if len(text) > 256:
            findings.add(entry(path, key), f"a value of {len(text)} characters is too long: use at most 256")


# -- durations --------------------------------------------------------------------------------------------------------


def nanoseconds(value: Duration) -> int | None:
    """None if the message is no valid Duration: out of range, or its two parts differ in sign."""
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) > 315_576_000_000 or abs(nanos) >= SECOND or seconds * nanos < 0:
        return None
    return int(seconds * SECOND + nanos)


def duration(allowed: Callable[[int], bool], rule: str) -> Check:
    """A valid Duration whose nanoseconds are allowed."""

    def check(value: Duration, path: str, findings: Findings) -> None:
        total = nanoseconds(value)
        if total is None:
            parts = f"{value.seconds} s and {value.nanos} ns"
            findings.add(
                path, f"{parts} are no Duration: nanos go from -999,999,999 to 999,999,999, signed as seconds are"
            )
        elif not allowed(total):
            findings.add(path, f"{total / SECOND:g} s is out of range: give {rule}, or leave it out")

    return check


# -- JSON -------------------------------------------------------------------------------------------------------------

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder(msgspec.Raw)


def members(text: str) -> tuple[Mapping[str, Any] | None, str]:
    """The top-level members of a JSON object, values undecoded; or None, and why."""
    try:
        return _members.decode(text), ""
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        pass
    # Slower, and more exact: knows lone surrogates in escapes, and says where the text is wrong.
    value, fault = loads(text)
    if fault:
        return None, fault
    if not isinstance(value, dict):
        return None, f"{shown(text)} is JSON but no object: send {{...}}"
    return value, ""


def json_fault(text: str) -> str:
    """Why the text is no JSON; empty if it is."""
    try:
        _value.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return loads(text)[1]
    return ""


def loads(text: str) -> tuple[Any, str]:
    """The value, and why there is none."""
    try:
        return json.loads(text, parse_constant=_no_constant), ""
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        near = f", at {shown(text[error.pos : error.pos + 20])}" if error.pos < len(text) else ", where the text ends"
        return None, f"no valid JSON: {error.msg} at {at}{near}"
    except RecursionError:
        return None, "no JSON that can be read: it is nested too deeply"
    except ValueError as error:
        return None, f"no valid JSON: {error}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def json_object(value: str, path: str, findings: Findings) -> None:
    """Text of a JSON object."""
    found, fault = members(value)
    if found is None:
        findings.add(path, fault)


def json_value(value: str, path: str, findings: Findings) -> None:
    """Text of any JSON value."""
    fault = json_fault(value)
    if fault:
        findings.add(path, fault)


#: What provider_options_json may not set: it is decided elsewhere in the request.
FORBIDDEN_OPTIONS = ("model", "messages", "input", "contents", "stream")


def provider_options(value: Mapping[str, str], path: str, findings: Findings) -> None:
    counted(64, "providers")(value, path, findings)
    for provider, text in islice(value.items(), 64):
        where = entry(path, provider)
        if not provider:
            findings.add(where, 'no provider: the key is a provider\'s name, e.g. "openai"')
        found, fault = members(text)
        if found is None:
            findings.add(where, fault)
            continue
        for key in FORBIDDEN_OPTIONS:
            if key in found:
                findings.add(where, f"{key!r} is refused here: the gateway sets it from the request itself")

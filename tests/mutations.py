"""Changes to bytes, JSON texts and protobuf messages, drawn from a seeded source so that a failure comes again."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (0, 1, -1, 2, 7, 127, 128, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.1, 1e-300, 1e300, math.inf, -math.inf, math.nan)
TEXTS = (
    "", " ", "a", "\x00", "\n", "\x7f", "\u00e9", "\U0001f600", "\u202e", "\ufeff", "\ufffe", "null", "true",
    "{}", "[]",
    '{"a":1}', '{"a":', "1e999", "NaN", "../../etc/passwd", "%00", "${jndi:x}", "x" * 300, "\u0000" * 40,
    "data:image/png;base64,AAAA", "http://127.0.0.1:1/x", "up/x", "fake/echo", "configs/x", '"',
)  # fmt: skip


def text(source: random.Random) -> str:
    chosen = source.choice(TEXTS)
    return chosen * source.choice((1, 1, 1, 2, 50)) if len(chosen) < 40 else chosen


# -- bytes ------------------------------------------------------------------------------------------------------------


def _flip(data: bytearray, source: random.Random) -> None:
    for _ in range(source.choice((1, 1, 2, 8))):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _truncate(data: bytearray, source: random.Random) -> None:
    del data[source.randrange(len(data)) :]


def _remove(data: bytearray, source: random.Random) -> None:
    start = source.randrange(len(data))
    del data[start : start + source.choice((1, 2, 4, 16, 200))]


def _repeat(data: bytearray, source: random.Random) -> None:
    start = source.randrange(len(data))
    piece = data[start : start + source.choice((1, 4, 32, 200))]
    data[start:start] = piece * source.choice((1, 2, 20))


def _insert(data: bytearray, source: random.Random) -> None:
    start = source.randrange(len(data) + 1)
    data[start:start] = source.choice(
        (source.randbytes(4), b"\xff", b"\x00" * 8, b"\xed\xa0\x80", b"\\ud800", b"[" * 500)
    )


def _swap(data: bytearray, source: random.Random) -> None:
    one, other = sorted(source.sample(range(len(data) + 1), 2))
    data[:] = data[one:other] + data[:one] + data[other:]


_BYTES = (_flip, _flip, _truncate, _remove, _repeat, _insert, _swap)


def changed_bytes(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3))):
        if len(changed) > 1:
            source.choice(_BYTES)(changed, source)
    return bytes(changed)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _strange(source: random.Random) -> Any:
    """A value that nobody expects there."""
    kind = source.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return source.choice((True, False))
    if kind == 2:
        return source.choice(INTEGERS)
    if kind == 3:
        return source.choice(FLOATS)
    if kind == 4:
        return [_strange(source) for _ in range(source.randrange(3))]
    if kind == 5:
        return {text(source): _strange(source) for _ in range(source.randrange(3))}
    if kind == 6:
        nested: Any = 1
        for _ in range(source.choice((5, 90, 200))):
            nested = [nested]
        return nested
    return text(source)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)
    return found


def changed_json(value: Any, source: random.Random) -> bytes:
    """The value as a text, with some of its members replaced, removed, renamed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(source.choice((1, 1, 2, 4))):
        places = _places(value, [])
        if not places:
            return json.dumps(_strange(source)).encode()
        holder, key = source.choice(places)
        match source.randrange(4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(holder[key])
            case 1:
                holder[text(source)] = holder[key]
            case _:
                holder[key] = _strange(source)
    return json.dumps(value, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")


# -- messages ---------------------------------------------------------------------------------------------------------

_SCALARS: dict[int, Callable[[random.Random], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: lambda s: s.choice([n for n in INTEGERS if -(2**31) <= n < 2**31]),
    FieldDescriptor.CPPTYPE_INT64: lambda s: s.choice([n for n in INTEGERS if -(2**63) <= n < 2**63]),
    FieldDescriptor.CPPTYPE_UINT32: lambda s: s.choice([n for n in INTEGERS if 0 <= n < 2**32]),
    FieldDescriptor.CPPTYPE_UINT64: lambda s: s.choice([n for n in INTEGERS if 0 <= n < 2**64]),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda s: s.choice(FLOATS),
    FieldDescriptor.CPPTYPE_FLOAT: lambda s: s.choice([n for n in FLOATS if not 1e38 < abs(n) < math.inf]),
    FieldDescriptor.CPPTYPE_BOOL: lambda s: s.random() < 0.5,
    FieldDescriptor.CPPTYPE_ENUM: lambda s: s.choice((0, 1, 2, 3, 4, 5, 99, -1, 2**31 - 1)),
}


def _scalar(field: FieldDescriptor, source: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return text(source)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return source.randbytes(source.choice((0, 1, 100)))
    return _SCALARS[field.cpp_type](source)


def change_message(message: Any, source: random.Random, depth: int = 0) -> None:
    """Sets, clears or doubles a field somewhere in the message."""
    if not message.DESCRIPTOR.fields:
        return
    field = source.choice(message.DESCRIPTOR.fields)
    if source.random() < 0.15:
        message.ClearField(field.name)
        return
    entries = field.message_type is not None and field.message_type.GetOptions().map_entry
    value = getattr(message, field.name)
    if entries:
        inner = field.message_type.fields_by_name["value"]
        if inner.message_type is None:
            value[text(source)] = _scalar(inner, source)
        return
    if field.is_repeated:
        if field.message_type is None:
            value.extend(_scalar(field, source) for _ in range(source.choice((1, 2, 40))))
            return
        chosen = source.choice(list(value)) if len(value) and source.random() < 0.7 else value.add()
        _deeper(chosen, source, depth)
    elif field.message_type is None:
        setattr(message, field.name, _scalar(field, source))
    else:
        value.SetInParent()
        _deeper(value, source, depth)


def _deeper(message: Message, source: random.Random, depth: int) -> None:
    if depth < 12 and source.random() < 0.9:
        for _ in range(source.choice((1, 1, 2))):
            change_message(message, source, depth + 1)

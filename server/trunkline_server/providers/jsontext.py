"""JSON as providers send and get it: fast, forgiving where they are sloppy, verbatim where we only carry it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, inspect

from trunkline_server.errors import LLMBadRequestError, LLMInvalidResponseError

T = TypeVar("T")

_UNREADABLE = "the provider sent something that is not the JSON it promised"

_NULL = Raw(b"null")

_anything = msgspec.json.Decoder()
_verbatim = msgspec.json.Decoder(Raw)


class Reader(Generic[T]):
    """Decodes JSON into a msgspec type. Fields that the type does not have are skipped.

    msgspec is strict where providers are not: half a character (an emoji cut between two deltas leaves a lone
    surrogate), bytes that are no UTF-8, NaN. Such a text is read again by the standard library, which is slower.
    """

    __slots__ = ("_decoder", "_type")

    def __init__(self, type_: type[T]) -> None:
        self._type = type_
        self._decoder = msgspec.json.Decoder(type_)

    def read(self, data: bytes | str) -> T:
        """Raises LLMInvalidResponseError for what is not JSON, and for JSON of another shape."""
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise unreadable(data) from error
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = _forgiving(data)
        try:
            return msgspec.convert(_wrapped(value, inspect.type_info(self._type)), self._type)
        except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
            raise unreadable(data) from error


def loads(data: bytes | str) -> Any:
    """Any JSON. Raises LLMInvalidResponseError for what is not."""
    try:
        return _anything.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _forgiving(data)


def dumps(value: Any) -> bytes:
    """Compact JSON."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half a character, as `loads` lets it through: it stays an escape.
        return json.dumps(value, separators=(",", ":"), default=lambda raw: json.loads(bytes(raw))).encode()


def try_loads(data: bytes | str) -> Any:
    """Any JSON; None for what is not."""
    try:
        return loads(data)
    except LLMInvalidResponseError:
        return None


def embed(text: str) -> Raw:
    """JSON that a caller gave as text, to be sent byte for byte. Raises LLMBadRequestError if it does not parse."""
    try:
        _verbatim.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise LLMBadRequestError("a JSON text of the request does not parse") from None
    return Raw(text.encode())


def present(raw: Raw) -> bool:
    """Is the verbatim member there, and not null?"""
    return len(raw) > 0 and raw != _NULL


def text_of(raw: Raw) -> str:
    """The text of a verbatim member; "" if it is absent or null."""
    data = bytes(raw)
    return "" if data in (b"", b"null") else data.decode("utf-8", "replace")


def merged(target: Any, patch: Any) -> Any:
    """Merges a patch as RFC 7396 says: null removes, objects merge, all else replaces. Changes neither argument."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            before = result.get(key)
            result[key] = merged(loads(bytes(before)) if isinstance(before, Raw) else before, value)
    return result


def unreadable(data: bytes | str) -> LLMInvalidResponseError:
    """The error for an answer that cannot be read, with the answer as its body."""
    return LLMInvalidResponseError(_UNREADABLE, body=data.encode("utf-8", "replace") if isinstance(data, str) else data)


def _forgiving(data: bytes | str) -> Any:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes | bytearray | memoryview) else data
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise unreadable(data) from None


def _wrapped(value: Any, info: inspect.Type) -> Any:
    """Puts back into JSON text what the type wants verbatim: `msgspec.convert` cannot."""
    if isinstance(info, inspect.RawType):
        return Raw(json.dumps(value).encode())
    if isinstance(info, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in info.fields}
        return {name: _wrapped(item, fields[name]) if name in fields else item for name, item in value.items()}
    if isinstance(info, inspect.ListType) and isinstance(value, list):
        return [_wrapped(item, info.item_type) for item in value]
    if isinstance(info, inspect.DictType) and isinstance(value, dict):
        return {name: _wrapped(item, info.value_type) for name, item in value.items()}
    if isinstance(info, inspect.UnionType) and value is not None:
        return _wrapped(value, _member(info, value))
    return value


def _member(info: inspect.UnionType, value: Any) -> inspect.Type:
    """The member of a union that the value is meant for."""
    structs = [kind for kind in info.types if isinstance(kind, inspect.StructType)]
    if isinstance(value, dict):
        for kind in structs:
            if kind.tag_field is None or value.get(kind.tag_field) == kind.tag:
                return kind
    wanted: type = inspect.ListType if isinstance(value, list) else inspect.DictType
    return next((kind for kind in info.types if isinstance(kind, wanted)), inspect.AnyType())

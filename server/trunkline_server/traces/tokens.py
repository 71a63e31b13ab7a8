"""Page tokens: where a page ended, and in which list. Opaque to callers, the same from every replica."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from trunkline.v1alpha import trace_service_pb2
from trunkline_server.traces.base import Position

_CHECK = 9
_LONGEST = 512


class WrongToken(ValueError):
    """The token does not belong to this list, or was changed."""


def encode(position: Position, which: trace_service_pb2.TraceFilter, only: str | None, *, oldest_first: bool) -> str:
    """The token of the page after a position."""
    told = f"{position.start_us}/{position.id}".encode()
    return _text(_check(told, which, only, oldest_first) + told)


def decode(
    token: str, which: trace_service_pb2.TraceFilter, only: str | None, *, oldest_first: bool
) -> Position | None:
    """None for an empty token: the first page. Raises WrongToken."""
    if not token:
        return None
    try:
        if len(token) > _LONGEST:
            raise WrongToken
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if _text(packed) != token:  # bits that the last character does not need
            raise WrongToken
        check, told = packed[:_CHECK], packed[_CHECK:]
        if not hmac.compare_digest(check, _check(told, which, only, oldest_first)):
            raise WrongToken
        start, _, trace_id = told.decode().partition("/")
        return Position(int(start), trace_id)
    except (binascii.Error, ValueError):
        raise WrongToken from None


def _text(packed: bytes) -> str:
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _check(told: bytes, which: trace_service_pb2.TraceFilter, only: str | None, oldest_first: bool) -> bytes:
    """Tells lists apart, and finds what was mistyped. No secret: what a caller may see does not rest on it."""
    list_of = which.SerializeToString(deterministic=True)
    asked = f"{len(told)} {len(list_of)} {oldest_first} {only!r} ".encode()
    return hashlib.blake2b(asked + told + list_of, digest_size=_CHECK, person=b"trunkline traces").digest()

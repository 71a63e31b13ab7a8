"""Ids of tool calls that the provider gave none."""

from __future__ import annotations

import hashlib
import re
import secrets

_MADE = re.compile(r"call_[0-9a-f]{24}")


def made_call_id(response_id: str, choice: int, number: int) -> str:
    """An id for a call that came without one; the same for the same answer, and another in any other."""
    if not response_id:
        return f"call_{secrets.token_hex(12)}"
    digest = hashlib.blake2b(f"{response_id}/{choice}/{number}".encode("utf-8", "replace"), digest_size=12)
    return f"call_{digest.hexdigest()}"


def is_made(call_id: str) -> bool:
    """Does the id look as if the gateway made it? The provider never heard of such an id."""
    return _MADE.fullmatch(call_id) is not None

"""Ids of tool calls: made for calls that came without one, and made fit for providers that are particular."""

from __future__ import annotations

import hashlib
import re

_MADE = re.compile(r"call_[0-9a-f]{24}")


def made_call_id(seed: str, choice: int, number: int) -> str:
    """An id for a call that came without one, the same whenever the same answer is read.

    `seed` tells answers apart: the answer's id, or where it has none, something that it says.
    """
    digest = hashlib.blake2b(f"{seed}/{choice}/{number}".encode("utf-8", "replace"), digest_size=12)
    return f"call_{digest.hexdigest()}"


def is_made(call_id: str) -> bool:
    """Does the id look as if the gateway made it? The provider never heard of such an id."""
    return _MADE.fullmatch(call_id) is not None


class CallIds:
    """Ids as a provider accepts them: the same for a call and its result, and never that of another call.

    `forbidden` matches a character that an id must not have; `most` is its greatest length.
    """

    def __init__(self, forbidden: re.Pattern[str], most: int = 1000) -> None:
        self._forbidden = forbidden
        self._most = most
        self._known: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, given: str) -> str:
        known = self._known.get(given)
        if known is None:
            stem = self._forbidden.sub("_", given)[: self._most] or "call"
            known, number = stem, 2
            while known in self._taken:
                tail = f"_{number}"
                known, number = stem[: self._most - len(tail)] + tail, number + 1
            self._taken.add(known)
            self._known[given] = known
        return known

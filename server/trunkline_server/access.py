"""Who calls, by a static API key or the name in a client certificate, and who of them sees everybody's records."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from trunkline_server.errors import CallerUnauthenticated

#: The name of callers where no keys are configured.
ANONYMOUS = "anonymous"


class Callers:
    """Knows callers by their key. Holds digests only.

    Without keys everybody is let in, as the name in the client certificate or as `anonymous`: the server then listens
    on loopback only, or wants client certificates.
    """

    def __init__(self, keys: Mapping[str, str], *, operators: Iterable[str] = (), certificates: bool = False) -> None:
        """`keys`: caller name to key. `certificates`: clients are known by certificates where there are no keys."""
        self._digests = [(name, hashlib.sha256(key.encode()).digest()) for name, key in keys.items()]
        self._operators = frozenset(operators)
        #: Callers have keys.
        self.keyed = bool(keys)
        self._known = self.keyed or certificates

    def become(self, other: Callers) -> bool:
        """Knows from now on whom `other` knows. False if those are the same, with the same keys."""
        before = (self._digests, self._operators, self._known)
        self._digests, self._operators = other._digests, other._operators
        self.keyed, self._known = other.keyed, other._known
        return before != (self._digests, self._operators, self._known)

    def is_operator(self, name: str) -> bool:
        """May see and delete everybody's records: the operators, and everybody while nobody is known by name."""
        return not self._known or name in self._operators

    def standing(self, name: str) -> tuple[bytes, bool]:
        """What a call in the caller's name rests on: another one, and what was allowed no longer is."""
        return dict(self._digests).get(name, b""), self.is_operator(name)

    def identify(self, presented: str | bytes, context: Any) -> str:
        """The caller's name. Raises CallerUnauthenticated, which never says how close a key came."""
        if not self.keyed:
            return _certificate_name(context) or ANONYMOUS
        return self.by_key(presented)

    def by_key(self, presented: str | bytes) -> str:
        """The name of the caller with this key, also written as "Bearer KEY". Raises as `identify`."""
        key = presented.decode("latin-1") if isinstance(presented, bytes) else presented
        if key[:7].lower() == "bearer ":
            key = key[7:]
        key = key.strip()
        if not key:
            raise CallerUnauthenticated(
                "no API key: send metadata `authorization: Bearer KEY` with the key of one of the configured callers"
            )
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = ""
        # All are compared, so that the time tells nothing of which one matched.
        for name, known in self._digests:
            if hmac.compare_digest(known, digest):
                found = name
        if not found:
            raise CallerUnauthenticated("the API key is not one of the server's configured callers' keys")
        return found


def _certificate_name(context: Any) -> str:
    names = context.auth_context().get("x509_common_name") if context.peer_identities() else None
    return names[0].decode("utf-8", "replace") if names else ""

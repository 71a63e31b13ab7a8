"""What the page's process is told by the server that starts it."""

from __future__ import annotations

import msgspec


class Plan(msgspec.Struct):
    """Goes through a pipe, never through arguments or the environment: it holds secrets."""

    #: Number of the socket that it inherits, which listens already.
    handle: int
    #: Where the delivery process feeds those who follow.
    tail: str
    state_dir: str
    #: URLs, with their passwords.
    backends: list[str]
    #: Caller to key.
    keys: dict[str, str]
    operators: list[str]
    #: Clients are known by certificates.
    certificates: bool
    #: What must not be in any log.
    secrets: list[str]
    #: Host names by which the page is reached.
    names: list[str]
    #: Files of certificate, key and client authority. None: plaintext.
    tls: tuple[str, str, str | None] | None
    log_format: str = "json"
    log_level: str = "info"

    def __repr__(self) -> str:
        return f"Plan(handle={self.handle})"


def encode(plan: Plan) -> bytes:
    """One line."""
    return msgspec.json.encode(plan) + b"\n"


def decode(line: bytes) -> Plan:
    return msgspec.json.decode(line, type=Plan)

"""What the delivery process is told by the server that starts it."""

from __future__ import annotations

import msgspec


class Plan(msgspec.Struct):
    """Goes through a pipe, never through arguments or the environment: it holds secrets."""

    #: The slot's folder.
    slot: str
    state_dir: str
    #: URLs, with their passwords.
    backends: list[str]
    #: Seconds that backends keep traces, and bytes. None: no bound.
    keep: float | None
    keep_bytes: int | None
    spool_bytes: int
    body_bytes: int
    #: Regular expressions of the operator's.
    redact: list[str]
    #: What must not be in any trace.
    secrets: list[str]
    #: Provider by name to its kind, for prices.
    kinds: dict[str, str]
    #: Seconds for what waits when the server goes down.
    flush: float
    log_format: str = "json"
    log_level: str = "info"

    def __repr__(self) -> str:
        return f"Plan(slot={self.slot!r})"


def encode(plan: Plan) -> bytes:
    """One line."""
    return msgspec.json.encode(plan) + b"\n"


def decode(line: bytes) -> Plan:
    return msgspec.json.decode(line, type=Plan)

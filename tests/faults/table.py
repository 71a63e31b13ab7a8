"""A row of the table: what the providers do, what the caller does, and what must be so at both ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.faults.seen import Provided, Seen, Statement
from tests.upstream import Script

if TYPE_CHECKING:
    from tests.faults.world import World

UNARY, STREAM = "unary", "stream"
BOTH = (UNARY, STREAM)

#: Calls and tells what the caller saw.
Drive: TypeAlias = "Callable[[World, Row, str], Awaitable[Seen]]"


@dataclass(frozen=True)
class Row:
    """One scenario about one call. `kinds`: each is run by itself, against providers of its own."""

    name: str
    #: For each target by name, what it does to its first request, its second …; the last for all that follow. A target
    #: without a script is at an address of its own, see `addresses`.
    targets: Mapping[str, Sequence[Script]]
    #: What must be so, at the caller's end and at the providers'.
    holds: Sequence[Statement]
    kinds: Sequence[str] = BOTH
    #: The caller's deadline, in seconds.
    deadline: float = 10.0
    #: Of CallOptions.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Of StreamOptions.
    stream_options: Mapping[str, Any] = field(default_factory=dict)
    #: Of the providers, in the configuration.
    provider: Mapping[str, Any] = field(default_factory=dict)
    #: Of the route, in the configuration.
    route: Mapping[str, Any] = field(default_factory=dict)
    #: Base URLs of targets that are not the fault upstream.
    addresses: Mapping[str, str] = field(default_factory=dict)
    #: Text of the prompt.
    prompt: str = "Hi"
    #: It is about moments, which a busy machine moves: if it does not hold at once, nine of ten tries must.
    timed: bool = False
    #: What the caller does; absent: it reads to the end.
    drive: Drive | None = None
    #: Can be said of a gateway that speaks OpenAI's HTTP.
    peers: bool = True

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())


@dataclass(frozen=True)
class Story:
    """A scenario that needs a server, or more than a call, of its own. Returns what does not hold."""

    name: str
    run: Callable[[World], Awaitable[Sequence[str]]]

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())


__all__ = ["BOTH", "STREAM", "UNARY", "Drive", "Provided", "Row", "Seen", "Story"]

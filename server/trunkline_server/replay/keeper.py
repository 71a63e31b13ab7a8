"""The tapes of this process: found by completion or by request id, bounded together."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from trunkline_server.errors import RequestIdReused, ResourceNotFound, ResumeExpired
from trunkline_server.replay.tape import Ending, Source, Tape

#: Completions that are remembered to have been resumable once.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long and how much is kept."""

    #: Seconds after its end for which a completion is kept.
    window: float = 600.0
    #: Bytes of one completion: the newest of a stream that is resumable; nothing of a larger answer otherwise.
    most_of_one: int = 8 * 1024 * 1024
    #: Bytes of all together; the oldest that has ended goes first.
    most: int = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request id and what was asked under it."""

    id: str
    #: Digest of what was asked.
    digest: bytes


@dataclass(slots=True)
class Opened:
    """Where a call finds its completion."""

    source: Source
    #: The same, if the call is to write it; None if it joins what another call began.
    tape: Tape | None


@dataclass(slots=True)
class _Entry:
    tape: Tape
    resumable: bool
    request: Request | None
    #: When it goes; 0 while it runs.
    expires: float = 0.0


class Keeper:
    """Keeps tapes. Used by one event loop."""

    #: What is kept here can be read at other workers, too.
    shared = False

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._entries: dict[str, _Entry] = {}
        self._requests: dict[tuple[str, str], str] = {}
        #: Those that have ended, the next to go first.
        self._ended: OrderedDict[str, _Entry] = OrderedDict()
        self._gone: OrderedDict[str, str] = OrderedDict()
        #: Bytes kept.
        self.size = 0
        self._full_at: float = self._bounds.most

    def __len__(self) -> int:
        return len(self._entries)

    async def open(
        self, completion_id: str, caller: str, *, request: Request | None = None, resumable: bool = False
    ) -> Opened:
        """A new tape; or that of the call which had the same request id, if what was asked is the same.

        Raises RequestIdReused if something else was asked.
        """
        self._purge()
        if request is not None:
            held = self._entries.get(self._requests.get((caller, request.id), ""))
            if held is not None and held.request is not None:
                check(held.request, request)
                return Opened(held.tape, None)
            self._requests[caller, request.id] = completion_id
        tape = self._add(completion_id, caller, request, resumable)
        return Opened(tape, tape)

    async def find(self, completion_id: str, caller: str) -> Source:
        """The tape of a stream that asked to be resumable. Raises ResourceNotFound and ResumeExpired."""
        self._purge()
        entry = self._entries.get(completion_id)
        if entry is not None and entry.resumable and entry.tape.caller == caller:
            return entry.tape
        if self._gone.get(completion_id) == caller:
            raise expired(completion_id)
        raise unknown(completion_id)

    async def end(self, tape: Tape, ending: Ending) -> None:
        """The completion has ended. A request id keeps only what went well: after a failure it may be used again."""
        tape.end(ending)
        entry = self._entries.get(tape.id)
        if entry is None:
            return
        if ending.status:
            self._release(entry)
        whole = tape.first == 1 and tape.size <= self._bounds.most_of_one
        if not entry.resumable and (ending.status or not whole):
            self._drop(entry)
            return
        entry.expires = time.monotonic() + self._bounds.window
        self._ended[tape.id] = entry
        if self.size > self._bounds.most:
            self._fit()

    def discard(self, tape: Tape) -> None:
        """Forgets a completion that still runs; who comes for a resumable one is told that it is gone."""
        entry = self._entries.get(tape.id)
        if entry is not None:
            self._drop(entry)

    def _add(self, completion_id: str, caller: str, request: Request | None, resumable: bool) -> Tape:
        tape = Tape(completion_id, caller, self._bounds.most_of_one, self._account)
        self._entries[completion_id] = _Entry(tape, resumable, request)
        return tape

    def _account(self, change: int) -> None:
        self.size += change
        if self.size > self._full_at:
            self._fit()

    def _purge(self) -> None:
        now = time.monotonic()
        while self._ended and (entry := next(iter(self._ended.values()))).expires <= now:
            self._drop(entry)

    def _fit(self) -> None:
        """Makes room: what has ended goes first, the oldest before the others; then all that runs keeps less."""
        most = self._bounds.most
        # Making room changes the size, too.
        self._full_at = math.inf
        while self.size > most and self._ended:
            self._drop(next(iter(self._ended.values())))
        if self.size > most:
            for entry in self._entries.values():
                entry.tape.keep(entry.tape.size // 2)
        # What is left may be what readers have not taken yet. To look again at every message would help nobody.
        self._full_at = max(most, self.size + most // 16)

    def _release(self, entry: _Entry) -> None:
        key = (entry.tape.caller, entry.request.id) if entry.request is not None else None
        if key is not None and self._requests.get(key) == entry.tape.id:
            del self._requests[key]

    def _drop(self, entry: _Entry) -> None:
        tape = entry.tape
        self._ended.pop(tape.id, None)
        if self._entries.pop(tape.id, None) is None:
            return
        self._release(entry)
        self.size -= tape.size
        tape.disown()
        if entry.resumable:
            self._gone[tape.id] = tape.caller
            while len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)


def check(held: Request, asked: Request) -> None:
    """Raises RequestIdReused."""
    if held.digest != asked.digest:
        raise RequestIdReused(
            f"request_id {asked.id!r} was used for another request: give each request an id of its own, and repeat a "
            "request as it was"
        )


def expired(completion_id: str) -> ResumeExpired:
    return ResumeExpired(f"the events of completion {completion_id!r} are no longer kept: start again")


def unknown(completion_id: str) -> ResourceNotFound:
    return ResourceNotFound(
        f"no completion {completion_id!r} of yours that asked to be resumable", resource=("completion", completion_id)
    )

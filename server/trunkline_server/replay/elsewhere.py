"""A completion that another worker runs, read by asking that worker, and by looking at what it has left in Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from trunkline_server.errors import CompletionLost, StoreUnavailable
from trunkline_server.fleet import Away, Fleet, Gone
from trunkline_server.replay.tape import Ahead, Ending, Expired, Tape

#: Seconds within which the worker must answer: longer than it waits for more.
_ANSWER = 1.5
#: A reader makes itself heard so often.
_STAYS = 1.5


class Kept(msgspec.Struct, array_like=True):
    """A completion that has ended, in Redis."""

    caller: str
    resumable: bool
    first: int
    messages: list[bytes]
    status: bytes
    pushback: int | None


class RunningAt(msgspec.Struct, array_like=True):
    """Where a resumable stream runs; "": it has ended."""

    caller: str
    worker: str


class Ask(msgspec.Struct, array_like=True):
    """More of a completion is asked for."""

    completion: str
    caller: str
    #: Whoever joins by a request id may read what is not resumable.
    joins: bool
    after: int
    #: Who reads, while it does.
    reader: str
    what: str


class Told(msgspec.Struct, array_like=True):
    """What comes of it."""

    messages: list[bytes] = []
    ended: bool = False
    status: bytes = b""
    pushback: int | None = None
    #: Name of an exception; empty: none.
    refusal: str = ""
    #: Number of the newest message, for `ahead`.
    last: int = 0


#: What a reader wants: more; to be counted as one who reads; to go.
MORE, STAY, LEAVE = "more", "stay", "leave"
#: What it may be told instead.
EXPIRED, AHEAD, UNKNOWN = "expired", "ahead", "unknown"
_NOT_HERE = Told(refusal=UNKNOWN)
encode = msgspec.msgpack.Encoder().encode
read_kept = msgspec.msgpack.Decoder(Kept).decode
read_running = msgspec.msgpack.Decoder(RunningAt).decode
read_ask = msgspec.msgpack.Decoder(Ask).decode
read_told = msgspec.msgpack.Decoder(Told).decode


def tape_of(completion_id: str, kept: Kept) -> Tape:
    return Tape.of(completion_id, kept.caller, kept.first, kept.messages, Ending(kept.status, kept.pushback))


class Elsewhere:
    """A completion that another worker runs."""

    def __init__(
        self, fleet: Fleet, kept: Callable[[str], str], name: str, worker: str, caller: str, joins: bool
    ) -> None:
        """`kept`: the key of what has ended."""
        self.id = name
        self._fleet = fleet
        self._kept = kept
        self._worker = worker
        self._caller = caller
        self._joins = joins
        self._reader = os.urandom(8).hex()
        self._ending: Ending | None = None
        #: Once it has ended and its worker has it no more.
        self._tape: Tape | None = None
        self._staying: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> Ending | None:
        return self._ending

    def arrive(self) -> None:
        self._staying = asyncio.get_running_loop().call_later(_STAYS, self._stay)

    def leave(self) -> None:
        if self._staying is not None:
            self._staying.cancel()
        if self._ending is None:
            self._fleet.spawn(self._mention(LEAVE))

    async def is_there(self) -> bool:
        """Does the worker have it? Raises Gone and Away."""
        told = await self._ask(STAY, 0)
        return told.refusal != UNKNOWN

    async def read(self, after: int) -> Sequence[bytes]:
        while True:
            if self._tape is not None:
                return await self._tape.read(after)
            if self._ending is not None:
                return ()
            try:
                told = await self._ask(MORE, after)
            except Gone:
                told = _NOT_HERE
            except Away:
                raise self._unreachable() from None
            if told.refusal == UNKNOWN:
                self._tape = await self._left_behind()
                self._ending = self._tape.ending
                continue
            if told.refusal == AHEAD:
                raise Ahead(told.last)
            if told.refusal:
                raise Expired
            if told.ended:
                self._ending = Ending(told.status, told.pushback)
            if told.messages:
                return told.messages

    async def _ask(self, what: str, after: int) -> Told:
        ask = Ask(self.id, self._caller, self._joins, after, self._reader, what)
        answer = await self._fleet.ask(self._worker, "read", encode(ask), within=_ANSWER)
        return read_told(answer) if answer else _NOT_HERE

    async def _mention(self, what: str) -> None:
        with suppress(Gone, Away):
            await self._ask(what, 0)

    def _stay(self) -> None:
        """Whoever writes what has come to its caller asks for no more, and is still there."""
        self._fleet.spawn(self._mention(STAY))
        self._staying = asyncio.get_running_loop().call_later(_STAYS, self._stay)

    async def _left_behind(self) -> Tape:
        """What the worker has left in Redis. Raises GatewayError if there is nothing."""
        try:
            [data] = await self._fleet.run(("GET", self._kept(self.id)))
        except Away:
            raise self._unreachable() from None
        if data is not None:
            return tape_of(self.id, read_kept(data))
        if self._joins:
            raise StoreUnavailable("the process that ran the call with this request_id is gone: call again")
        raise lost(self.id)

    def _unreachable(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"completion {self.id!r} runs in another worker, which is asked over Redis and does not answer: resume it "
            "after the last event that was seen"
        )


def lost(completion_id: str) -> CompletionLost:
    return CompletionLost(
        f"the process that ran completion {completion_id!r} is gone, and with it what was not delivered: start again"
    )

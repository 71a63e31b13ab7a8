"""The messages of one completion, numbered from 1, while it runs and for a while after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

#: Bytes that a completion may be ahead of the reader who is furthest; then it waits, and with it the provider.
AHEAD = 64 * 1024
#: Bytes that keeping a message, and a completion, costs beside its own.
OVERHEAD, OVERHEAD_OF_ALL = 48, 800
#: What no longer fits goes in pieces of this share of what may be kept.
_PIECE = 1 / 16


class Expired(Exception):  # an answer, not a mistake
    """The messages asked for are no longer kept."""


class Ahead(Exception):  # as Expired
    """There is no message yet of the number after which more is asked for."""

    def __init__(self, last: int) -> None:
        super().__init__(last)
        self.last = last


@dataclass(frozen=True, slots=True)
class Ending:
    """How a completion ended."""

    #: A serialized google.rpc.Status; empty: OK.
    status: bytes = b""
    #: Milliseconds for grpc-retry-pushback-ms, where it is sent.
    pushback: int | None = None


class Source(Protocol):
    """Where the messages of a completion are read, wherever it runs."""

    @property
    def id(self) -> str:
        """Of the completion."""

    @property
    def ending(self) -> Ending | None:
        """None while it runs."""

    async def read(self, after: int) -> Sequence[bytes]:
        """The messages after a number, at least one; waits for it. Empty once it has ended and there is none.

        Raises Expired if those that come next are no longer kept, and Ahead.
        """

    def arrive(self) -> None:
        """One more reader: while there are any, the completion goes only as fast as the fastest reads."""

    def leave(self) -> None:
        """One reader less. What nobody reads waits for nobody."""


def _nobody(_: object) -> None: ...


class Tape:
    """A completion of this process. Written by one task, read by any number."""

    __slots__ = (
        "_account", "_ending", "_messages", "_most", "_news", "_readers", "_room", "_taken", "_untaken", "attended",
        "caller", "id", "last", "size",
    )  # fmt: skip

    def __init__(self, name: str, caller: str, most: int, account: Callable[[int], None] = _nobody) -> None:
        """`most`: bytes that are kept, the newest; `account` is told of every change of what is kept."""
        self.id = name
        self.caller = caller
        #: Told when the first reader comes and when the last one leaves.
        self.attended: Callable[[bool], None] = _nobody
        #: Number of the newest message.
        self.last = 0
        #: Bytes kept.
        self.size = OVERHEAD_OF_ALL
        self._most = most
        self._account = account
        self._messages: list[bytes] = []
        self._ending: Ending | None = None
        self._readers = 0
        #: Number of the newest message that any reader has taken, and the bytes of those after it.
        self._taken = 0
        self._untaken = 0
        self._news: list[asyncio.Future[None]] | None = None
        self._room: asyncio.Future[None] | None = None
        account(self.size)

    @property
    def ending(self) -> Ending | None:
        return self._ending

    @property
    def first(self) -> int:
        """Number of the oldest message that is kept."""
        return self.last - len(self._messages) + 1

    @property
    def readers(self) -> int:
        return self._readers

    def arrive(self) -> None:
        self._readers += 1
        if self._readers == 1:
            self.attended(True)

    def leave(self) -> None:
        self._readers -= 1
        if not self._readers:
            self._trim()
            self._make_room()
            self.attended(False)

    async def put(self, message: bytes) -> None:
        """The next message. Waits while it is too far ahead of its readers."""
        self.last += 1
        self._messages.append(message)
        self._untaken += len(message)
        self.size += len(message) + OVERHEAD
        self._account(len(message) + OVERHEAD)
        if self.size > self._most:
            self._trim()
        if self._news is not None:
            self._tell()
        while self._untaken > AHEAD and self._readers:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def end(self, ending: Ending) -> None:
        """No message follows."""
        if self._ending is None:
            self._ending = ending
            self._tell()

    @classmethod
    def of(cls, name: str, caller: str, first: int, messages: list[bytes], ending: Ending) -> Tape:
        """One that was kept elsewhere and has ended."""
        made = cls(name, caller, 0)
        made._messages = messages
        made.last = made._taken = first + len(messages) - 1
        made._ending = ending
        # Not counted here, and so not trimmed either.
        made._most = sum(map(len, messages)) + OVERHEAD_OF_ALL
        return made

    async def news(self, after: int) -> None:
        """Returns when there is a message after a number, or when the completion has ended."""
        while self.last == after and self._ending is None:
            news = asyncio.get_running_loop().create_future()
            if self._news is None:
                self._news = [news]
            else:
                self._news.append(news)
            await news

    async def read(self, after: int, most: int | None = None) -> Sequence[bytes]:
        """As Source says; at most so many bytes, but one message."""
        if after > self.last:
            raise Ahead(self.last)
        if self.last == after:
            await self.news(after)
        found = self.kept(after)
        if most is not None:
            found = _beginning(found, most)
        taken = after + len(found)
        if taken > self._taken:
            self._untaken = 0 if taken == self.last else sum(map(len, self.kept(taken)))
            self._taken = taken
            if self.size > self._most:
                self._trim()
            if self._room is not None:
                self._make_room()
        return found

    def kept(self, after: int) -> Sequence[bytes]:
        """What is kept after a number, without waiting. Raises Expired."""
        at = after + 1 - self.first
        if at < 0:
            raise Expired
        return self._messages[at:]

    def keep(self, most: int) -> None:
        """Keeps at most so many bytes from now on."""
        self._most = most
        self._trim()

    def disown(self) -> None:
        """Nobody counts it any more: it goes with the last of its readers."""
        self._account = _nobody

    def _trim(self) -> None:
        """Lets the oldest go, but nothing that those who are here have not taken yet."""
        if self.size <= self._most:
            return
        fitting = self._most * (1 - _PIECE)
        may_go = len(self._messages) - (self.last - self._taken if self._readers else 0)
        count = freed = 0
        while count < may_go and self.size - freed > fitting:
            freed += len(self._messages[count]) + OVERHEAD
            count += 1
        del self._messages[:count]
        self.size -= freed
        self._account(-freed)

    def _tell(self) -> None:
        news, self._news = self._news, None
        for one in news or ():
            if not one.done():
                one.set_result(None)

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)


def _beginning(messages: Sequence[bytes], most: int) -> Sequence[bytes]:
    size = 0
    for count, message in enumerate(messages):
        size += len(message)
        if size > most and count:
            return messages[:count]
    return messages

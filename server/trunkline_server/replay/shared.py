"""A keeper whose completions are found by all workers and replicas that share a Redis.

While a completion runs, its tape is where it runs, and others read it by asking that worker; when it has ended, it lies
in Redis. So a stream that nobody resumes elsewhere costs two commands, whatever its length. While Redis is away, this
worker knows of its own completions alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trunkline_server.errors import StoreUnavailable
from trunkline_server.fleet import Away, Fleet, Gone
from trunkline_server.replay.elsewhere import (
    AHEAD,
    EXPIRED,
    LEAVE,
    STAY,
    UNKNOWN,
    Elsewhere,
    Kept,
    RunningAt,
    Told,
    encode,
    lost,
    read_ask,
    read_kept,
    read_running,
    tape_of,
)
from trunkline_server.replay.keeper import Bounds, Keeper, Opened, Request, check, expired
from trunkline_server.replay.tape import Ahead, Ending, Expired, Source, Tape

#: Seconds for which a worker that is asked for more waits until there is more.
_WAIT = 1.0
#: Seconds of waiting for more to come, so that many small messages go together.
_GATHER = 0.010
#: Most bytes of one answer.
_PIECE = 128 * 1024
#: A reader elsewhere that has not been heard of for so many seconds has left.
_READER_GONE = 5.0
#: Seconds for which a completion that runs is known.
_RUNNING = 24 * 3600

#: KEYS: the request id. ARGV: digest, completion, worker, seconds, completion to take it over from ("": none). Nothing
#: if it is ours now, else who has it.
_CLAIM = """
local held = redis.call('HMGET', KEYS[1], 'digest', 'completion', 'worker')
if held[1] and held[2] ~= ARGV[5] then return held end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'completion', ARGV[2], 'worker', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {}
"""
#: KEYS: the request id. ARGV: completion that has it, seconds to keep it (0: it is free again).
_SETTLE = """
if redis.call('HGET', KEYS[1], 'completion') ~= ARGV[1] then return end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[2]) end
"""


@dataclass(slots=True)
class _Visit:
    """A reader of another worker's, counted as one who is here until it has not asked for a while."""

    tape: Tape
    timer: asyncio.TimerHandle


class SharedKeeper(Keeper):
    """Keeps tapes here while they are written, and in Redis when they have ended."""

    shared = True

    def __init__(self, bounds: Bounds, fleet: Fleet) -> None:
        super().__init__(bounds)
        self._fleet = fleet
        self._visits: dict[str, _Visit] = {}
        fleet.answers("read", self._read)

    async def open(
        self, completion_id: str, caller: str, *, request: Request | None = None, resumable: bool = False
    ) -> Opened:
        try:
            return await self._open(completion_id, caller, request, resumable)
        except Away:
            # What was claimed in Redis before it went is settled there when the completion ends, or taken over.
            return await super().open(completion_id, caller, request=request, resumable=resumable)

    async def _open(self, completion_id: str, caller: str, request: Request | None, resumable: bool) -> Opened:
        # Here before it is claimed: who is told that this worker has it finds it.
        tape = self._add(completion_id, caller, request, resumable)
        try:
            joined = None if request is None else await self._claim(completion_id, caller, request)
            if joined is None and resumable:
                running = encode(RunningAt(caller, self._fleet.worker))
                await self._fleet.run(("SET", self._running_key(completion_id), running, "EX", _RUNNING))
        except BaseException:
            self._forget(completion_id)
            raise
        if joined is not None:
            self._forget(completion_id)
            return Opened(joined, None)
        if request is not None:
            # For repetitions that come here while Redis is away.
            self._requests[caller, request.id] = completion_id
        return Opened(tape, tape)

    async def _claim(self, completion_id: str, caller: str, request: Request) -> Source | None:
        """The completion that another call began under this request id; None: the id is this call's now."""
        old = ""
        while True:
            [held] = await self._fleet.run(
                (
                    "EVAL", _CLAIM, 1, self._request_key(caller, request.id), request.digest, completion_id,
                    self._fleet.worker, _RUNNING, old,
                )
            )  # fmt: skip
            if not held:
                return None
            digest, old, worker = held[0], held[1].decode(), held[2].decode()
            check(Request(request.id, digest), request)
            # Nobody may have it any more: then it is taken over, unless somebody else does so first.
            with suppress(Gone, Expired):
                return await self._source(old, worker, caller, joins=True)

    async def find(self, completion_id: str, caller: str) -> Source:
        if completion_id in self._entries:
            return await super().find(completion_id, caller)
        try:
            [known, data] = await self._fleet.run(
                ("GET", self._running_key(completion_id)), ("GET", self._kept_key(completion_id))
            )
            if data is not None:
                kept = read_kept(data)
                if kept.resumable and kept.caller == caller:
                    return tape_of(completion_id, kept)
            running = None if known is None else read_running(known)
            if running is None or running.caller != caller:
                return await super().find(completion_id, caller)
            if not running.worker:
                raise expired(completion_id)
            return await self._source(completion_id, running.worker, caller, joins=False)
        except Away:
            raise StoreUnavailable(
                f"completion {completion_id!r} may be another worker's, and Redis, over which it is asked, does not "
                "answer: call again"
            ) from None
        except Gone:
            raise lost(completion_id) from None
        except Expired:
            raise expired(completion_id) from None

    async def _source(self, completion_id: str, worker: str, caller: str, *, joins: bool) -> Source:
        """Where a completion that a worker has is read. Raises Gone, Away, and Expired if it has it no more."""
        entry = self._entries.get(completion_id)
        if entry is not None:
            return entry.tape
        for _ in range(2):
            [data] = await self._fleet.run(("GET", self._kept_key(completion_id)))
            if data is not None:
                return tape_of(completion_id, read_kept(data))
            if worker == self._fleet.worker:
                break
            source = Elsewhere(self._fleet, self._kept_key, completion_id, worker, caller, joins)
            # It may end between the two looks.
            if await source.is_there():
                return source
        raise Expired

    async def end(self, tape: Tape, ending: Ending) -> None:
        entry = self._entries.get(tape.id)
        await super().end(tape, ending)
        if entry is None:
            return
        commands: list[tuple[Any, ...]] = []
        window = self._window
        kept = tape.id in self._entries
        if kept:
            messages = list(tape.kept(tape.first - 1))
            data = encode(Kept(tape.caller, entry.resumable, tape.first, messages, ending.status, ending.pushback))
            commands.append(("SET", self._kept_key(tape.id), data, "EX", window))
        if entry.resumable:
            # Known for longer than it is kept, so that who comes too late is told so.
            commands.append(("SET", self._running_key(tape.id), encode(RunningAt(tape.caller, "")), "EX", 6 * window))
        if entry.request is not None:
            seconds = window if kept and not ending.status else 0
            commands.append(self._settled(tape, entry.request, seconds))
        try:
            await self._fleet.run(*commands)
        except Away:
            return

    def discard(self, tape: Tape) -> None:
        entry = self._entries.get(tape.id)
        super().discard(tape)
        if entry is not None and entry.request is not None:
            self._later(self._settled(tape, entry.request, 0))

    async def _read(self, body: bytes) -> bytes:
        """Answers another worker that reads here."""
        ask = read_ask(body)
        entry = self._entries.get(ask.completion)
        if ask.what == LEAVE:
            self._leaves(ask.reader)
            return b""
        if entry is None or entry.tape.caller != ask.caller or not (ask.joins or entry.resumable):
            return encode(Told(refusal=UNKNOWN))
        tape = entry.tape
        self._visited(ask.reader, tape)
        if ask.what == STAY:
            return encode(Told())
        try:
            messages = await _more(tape, ask.after)
        except Expired:
            return encode(Told(refusal=EXPIRED))
        except Ahead as ahead:
            return encode(Told(refusal=AHEAD, last=ahead.last))
        finally:
            if ask.reader in self._visits:
                self._visited(ask.reader, tape)
        ending = tape.ending
        if ending is None or (messages and ask.after + len(messages) < tape.last):
            return encode(Told(list(messages)))
        return encode(Told(list(messages), True, ending.status, ending.pushback))

    def _visited(self, reader: str, tape: Tape) -> None:
        """A reader elsewhere is counted as one who is here."""
        visit = self._visits.get(reader)
        timer = asyncio.get_running_loop().call_later(_READER_GONE, self._leaves, reader)
        if visit is None:
            self._visits[reader] = _Visit(tape, timer)
            tape.arrive()
        else:
            visit.timer.cancel()
            visit.timer = timer

    def _leaves(self, reader: str) -> None:
        visit = self._visits.pop(reader, None)
        if visit is not None:
            visit.timer.cancel()
            visit.tape.leave()

    def _forget(self, completion_id: str) -> None:
        """A tape that nobody has written or read."""
        entry = self._entries.get(completion_id)
        if entry is not None:
            self._drop(entry)
            self._gone.pop(completion_id, None)

    def _settled(self, tape: Tape, request: Request, seconds: int) -> tuple[Any, ...]:
        return ("EVAL", _SETTLE, 1, self._request_key(tape.caller, request.id), tape.id, str(seconds))

    def _later(self, command: tuple[Any, ...]) -> None:
        async def run() -> None:
            try:
                await self._fleet.run(command)
            except Away:
                return

        self._fleet.spawn(run())

    @property
    def _window(self) -> int:
        """Whole seconds."""
        return max(1, math.ceil(self._bounds.window))

    def _request_key(self, caller: str, request_id: str) -> str:
        name = hashlib.blake2b(f"{caller}\0{request_id}".encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return self._fleet.key("request", name)

    def _kept_key(self, completion_id: str) -> str:
        return self._fleet.key("completion", completion_id)

    def _running_key(self, completion_id: str) -> str:
        return self._fleet.key("running", completion_id)


async def _more(tape: Tape, after: int) -> Sequence[bytes]:
    """What comes next, after a wait if need be; nothing if none came for a while, or if it has ended."""
    try:
        async with asyncio.timeout(_WAIT):
            if tape.last == after and tape.ending is None:
                await tape.news(after)
                await asyncio.sleep(_GATHER)
            return await tape.read(after, _PIECE)
    except TimeoutError:
        return ()

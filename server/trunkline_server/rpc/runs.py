"""Completions in tasks of their own, so that several calls can wait for one, and one can outlast its call.

A completion that was begun under a request id is shared by all calls with this id, and ends when the last of them has
left. One that is resumable goes on for a while without any. All others run in the task of their call and know nothing
of this.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import msgspec
from google.protobuf.message import Message

from trunkline_server.call import Call
from trunkline_server.errors import (
    CallCancelled,
    GatewayError,
    GatewayOverloaded,
    InvalidRequest,
    StoreUnavailable,
    UnsupportedParameter,
    Violation,
)
from trunkline_server.fleet import Away, Fleet
from trunkline_server.replay import Ahead, Ending, Expired, Keeper, Request, Source, Tape, expired
from trunkline_server.rpc.boundary import Running
from trunkline_server.rpc.events import Line, Sink
from trunkline_server.rpc.status import Failure, Relayed

T = TypeVar("T")

#: Longest wait for a completion that was cancelled to be over.
_UNWINDING = 1.0
#: Seconds in which all workers answer whether they run a completion, and the answers.
_CANCELLING = 1.0
_YES, _NO = b"yes", b"no"
#: From so many bytes on, a digest is made in another thread.
_LARGE = 1024 * 1024

#: Makes the messages of a completion.
Work: TypeAlias = Callable[[Tape], Awaitable[None]]
#: An exception that ends a call, the call, what bounded it and the events that it was sent, to a status.
Tell: TypeAlias = Callable[[Exception, Call, asyncio.Timeout | None, int], Failure]


class Runs:
    """Begins completions, lets calls join them and find them again."""

    def __init__(
        self, keeper: Keeper | None, running: Running, tell: Tell, grace: float, fleet: Fleet | None = None
    ) -> None:
        """`keeper`: None keeps nothing, so that each call runs by itself; `tell`: `Boundary.failure`; `grace`: seconds
        that a resumable stream goes on without a reader; `fleet`: where other workers are reached.
        """
        self._keeper = keeper
        self._running = running
        self._grace = grace
        self._tell = tell
        self._runs: set[_Run] = set()
        self._fleet = fleet
        running.on_drain.append(self._let_go)
        if fleet is not None:
            fleet.answers("cancel", self._cancel_here)

    def shares(self, request_id: str) -> bool:
        """Is a call with this request id shared with its repetitions?"""
        return bool(request_id) and self._keeper is not None

    async def answer(self, call: Call, request: Message, make: Callable[[], Awaitable[Message]]) -> bytes:
        """The answer of a unary call, which `make` makes unless another call with its request id does.

        Raises RequestIdReused if that call asked for something else, and what ends the completion.
        """

        async def work(tape: Tape) -> None:
            answer = (await make()).SerializeToString()
            call.answer.add(answer)
            await tape.put(answer)

        source, run = await self._open(call, work, request, resumable=False)
        return await _while_reading(source, call, run, _answer(source))

    async def stream(
        self,
        call: Call,
        request: Message | None,
        events: Callable[[Sink], Awaitable[None]],
        line: Line,
        resumable: bool,
    ) -> None:
        """Sends the events of a stream, which `events` writes unless the request id of `request` was used before.
        Raises as `answer`.
        """

        async def work(tape: Tape) -> None:
            async def keep(data: bytes, number: int) -> None:
                if call.answer.wants:
                    call.answer.add(data)
                await tape.put(data)

            await events(keep)

        opening = self._open(call, work, request, resumable=resumable)
        # A stream lasts. Its request holds the whole prompt and is not held as long.
        del request
        source, run = await opening
        await _while_reading(source, call, run, _follow(source, line, 0, _no_longer_whole))

    async def resume(self, call: Call, completion_id: str, after: int, line: Line) -> None:
        """Sends what comes after an event of a stream that another call began. Raises ResourceNotFound, ResumeExpired
        and what ends the completion.
        """
        if self._keeper is None:
            raise _keeps_nothing("resume", "start again with spec")
        call.follows = completion_id
        source = await self._keeper.find(completion_id, call.caller)
        await _while_reading(source, call, None, _follow(source, line, after, lambda source: expired(source.id)))

    async def _open(
        self, call: Call, work: Work, request: Message | None, *, resumable: bool
    ) -> tuple[Source, _Run | None]:
        """The completion of this call, and its run if this call has begun it."""
        if self._keeper is None:
            raise _keeps_nothing("stream_options.resumable", "leave it out")
        asked = None if request is None else await _asked(call.method, request)
        del request
        opened = await self._keeper.open(call.id, call.caller, request=asked, resumable=resumable)
        if opened.tape is None:
            call.follows = opened.source.id
            return opened.source, None
        run = _Run(call, opened.tape, self._keeper, self._tell, self._grace if resumable else 0.0)
        run.start(work, self._running, self._runs)
        return opened.source, run

    @property
    def reach(self) -> str:
        """Where `cancel` looks."""
        return "here" if self._fleet is not None else "in this server process"

    async def cancel(self, completion_id: str, caller: str) -> bool:
        """Ends a completion of this caller, wherever it runs. False if there is none. Raises StoreUnavailable if others
        cannot be asked.
        """
        if self._running.cancel(completion_id, caller):
            return True
        if self._fleet is None:
            return False
        body = msgspec.msgpack.encode((completion_id, caller))
        try:
            return _YES in await self._fleet.ask_all("cancel", body, within=_CANCELLING, enough=lambda a: a == _YES)
        except Away:
            raise StoreUnavailable(
                f"completion {completion_id!r} does not run in this server process, and not all others have answered, "
                "which are asked over Redis: call again"
            ) from None

    async def _cancel_here(self, body: bytes) -> bytes:
        completion_id, caller = msgspec.msgpack.decode(body, type=tuple[str, str])
        return _YES if self._running.cancel(completion_id, caller) else _NO

    def _let_go(self) -> None:
        """Ends what nobody reads when the server goes down: nobody will come for it here."""
        if self._keeper is not None and self._keeper.shared:
            return
        for run in list(self._runs):
            if not run.tape.readers:
                run.stop()


class _Run:
    """One completion in a task of its own."""

    def __init__(self, call: Call, tape: Tape, keeper: Keeper, tell: Tell, grace: float) -> None:
        self.call = call
        self.tape = tape
        self._keeper = keeper
        self._tell = tell
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._alone: asyncio.TimerHandle | None = None
        #: How it ended, for the record of the call that began it.
        self._ended: asyncio.Future[Failure | None] = self._loop.create_future()
        self.stopped = False
        self.task: asyncio.Task[None]

    def start(self, work: Work, running: Running, runs: set[_Run]) -> None:
        def over(task: asyncio.Task[None]) -> None:
            # What is kept of the completion keeps nothing of its call.
            self.tape.attended = _nothing
            running.runs.pop(self.call.id, None)
            runs.discard(self)
            if task.cancelled() and not self._ended.done():
                # Before its first step, so that none of its code has run.
                self._never_begun()

        self.call.run = self._ended
        self.tape.attended = self._attended
        self.task = self._loop.create_task(self._run(work))
        running.runs[self.call.id] = self.task
        runs.add(self)
        self.task.add_done_callback(over)

    async def unwound(self) -> None:
        """Waits for a completion that was cancelled to be over: then all is known of its attempts."""
        await asyncio.wait({self.task}, timeout=_UNWINDING)

    def stop(self) -> None:
        """Nobody waits for it any more. Who comes now begins anew."""
        if not self._ended.done() and not self.stopped:
            self.stopped = True
            self._keeper.discard(self.tape)
            self.task.cancel()

    def _attended(self, somebody: bool) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        if somebody or self._ended.done():
            return
        if self._grace:
            self._alone = self._loop.call_later(self._grace, self.stop)
        else:
            self.stop()

    async def _run(self, work: Work) -> None:
        call = self.call
        failed: Failure | None = None
        timer = asyncio.timeout(call.remaining())
        try:
            async with timer:
                call.timer = timer
                await work(self.tape)
        except asyncio.CancelledError:
            failed = self._tell(self._why(), call, timer, self.tape.last)
        except Exception as error:  # noqa: BLE001  # it becomes a status, as at the boundary
            failed = self._tell(error, call, timer, self.tape.last)
        await self._end(failed)

    async def _end(self, failed: Failure | None) -> None:
        if self._alone is not None:
            self._alone.cancel()
        if not self._ended.done():
            self._ended.set_result(failed)
        await self._keeper.end(self.tape, Ending() if failed is None else Ending(failed.status, failed.pushback))

    def _never_begun(self) -> None:
        failed = self._tell(self._why(), self.call, None, 0)
        self._ended.set_result(failed)
        self.tape.end(Ending(failed.status, failed.pushback))
        self._keeper.discard(self.tape)

    def _why(self) -> GatewayError:
        return self.call.ending or CallCancelled("all who waited for the completion have left")


def _nothing(_: bool) -> None: ...


async def _while_reading(source: Source, call: Call, run: _Run | None, reading: Awaitable[T]) -> T:
    """Reads as one of those who are there."""
    source.arrive()
    try:
        if run is not None:
            return await reading
        # All that a call does which began nothing is to wait.
        with call.waiting:
            return await reading
    finally:
        source.leave()
        if run is not None and run.stopped:
            await run.unwound()


async def _answer(source: Source) -> bytes:
    """The one message of a unary completion. Raises Relayed."""
    try:
        messages = await source.read(0)
    except Expired:
        raise _no_longer_whole(source) from None
    if not messages:
        raise _relayed(source)
    return messages[0]


async def _follow(source: Source, line: Line, after: int, lost: Callable[[Source], GatewayError]) -> None:
    """Passes on what comes after a number, to the end. Raises Relayed if the completion failed, and what `lost` says if
    the next messages are no longer kept.
    """
    # What is said is in the record of the call that began the completion, which also says whether it may be.
    line.recorded = False
    async with line:
        try:
            while messages := await source.read(after):
                for message in messages:
                    after += 1
                    await line.send(message, after)
        except Expired:
            raise lost(source) from None
        except Ahead as ahead:
            text = f"{after} is after the last event, {ahead.last}: give the last sequence_number that was seen"
            field = "resume.after_sequence_number"
            raise InvalidRequest(f"{field}: {text}", violations=[Violation(field, text)]) from None
    if source.ending is not None and source.ending.status:
        raise _relayed(source)


def _relayed(source: Source) -> Relayed:
    ending = source.ending or Ending()
    return Relayed.of(ending.status, ending.pushback)


def _keeps_nothing(field: str, fix: str) -> UnsupportedParameter:
    text = f"this server keeps no events (replay.window is 0): {fix}"
    return UnsupportedParameter(f"{field}: {text}", violations=[Violation(field, text)])


def _no_longer_whole(source: Source) -> GatewayOverloaded:
    return GatewayOverloaded(
        f"completion {source.id!r} of the same request_id still runs and is too long to be kept whole "
        "(replay.max_completion_bytes): call again when it has ended, or with another request_id"
    )


async def _asked(method: str, request: Any) -> Request:
    """The request id, and a digest of all else but the time that the call may take."""
    options = request.options
    if options.HasField("timeout"):
        options = type(options)()
        options.CopyFrom(request.options)
        options.ClearField("timeout")
    pieces = [request.spec.SerializeToString(deterministic=True), options.SerializeToString(deterministic=True)]
    if method.startswith("Stream"):
        pieces.append(request.stream_options.SerializeToString(deterministic=True))
    size = sum(map(len, pieces))
    digest = _digest(method, pieces) if size < _LARGE else await asyncio.to_thread(_digest, method, pieces)
    return Request(request.request_id, digest)


def _digest(method: str, pieces: list[bytes]) -> bytes:
    digest = hashlib.blake2b(method.encode(), digest_size=16)
    for piece in pieces:
        digest.update(b"%d:" % len(piece))
        digest.update(piece)
    return digest.digest()

"""A completion as it is made."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Protocol, Self

import grpc

from trunkline import errors
from trunkline.collect import Collector
from trunkline.retry import Budget, Resumes
from trunkline.tasks import is_task_cancelled  # async only
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import ResumePoint, StreamCompletionResponse

# What ends a call, while the completion that it reads may go on.
_OF_THE_CALL = frozenset({"", "GATEWAY_TIMEOUT", "READER_STALLED"})


class _Call(Protocol):
    """What is needed of gRPC's call."""

    def __aiter__(self) -> AsyncIterator[StreamCompletionResponse]: ...

    def cancel(self) -> object: ...


class _Cancel(Protocol):
    """Ends a completion by its id."""

    async def __call__(self, completion_id: str, /) -> None: ...


class AsyncCompletionStream:
    """The events of one completion, checked against the rules of the contract; read it once.

    Iterate it for the events, iterate `text()` for the text alone, or `collect()` the whole Completion. Leaving a loop
    early, by `break`, an exception or a cancelled task, cancels the RPC and stops the provider; so does leaving the
    stream's own `with` block. What the server or the connection does wrong is raised as a TrunklineError, whose
    `completion` holds what had arrived.

    A stream that is resumable (`StreamOptions.resumable`) goes on over another connection where one breaks: its reader
    sees no more of it than a pause. Leaving it stops the provider as well.
    """

    def __init__(
        self,
        call: Callable[[float | None, ResumePoint | None], _Call],
        budget: Budget,
        cancel: _Cancel,
    ) -> None:
        """`call` begins the stream, or goes on from a point of it; `cancel` ends a completion by its id."""
        self._start = call
        self._budget = budget
        self._cancel = cancel
        self._resumes = Resumes(budget)
        # Of a completion that outlasts its calls.
        self._id = ""
        self._call: _Call | None = None
        self._collector = Collector()
        self._read = False
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stops the completion if it still runs. May be called from anywhere, also while another task reads."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        await self._leave()

    def __aiter__(self) -> AsyncGenerator[StreamCompletionResponse]:
        return self._events()

    async def text(self, choice: int = 0) -> AsyncGenerator[str]:
        """The text of one choice, piece by piece; no reasoning, no refusals, no arguments of tools.

        Raises RuntimeError if the answer begins again after text was given out (AFTER_FIRST_TOKEN_RESTART).
        """
        given = False
        async with aclosing(self._events()) as events:
            async for event in events:
                if given and event.HasField("restarted"):
                    raise RuntimeError(
                        "the answer began again after text was given out; read the events to follow that"
                    )
                piece = self._collector.text(event, choice)
                if piece:
                    given = True
                    yield piece

    async def collect(self) -> Completion:
        """Reads what is left of the stream and returns the Completion that a unary call would have returned."""
        if not self._read:
            async with aclosing(self._events()) as events:
                async for _ in events:
                    pass
        return self._collector.end()

    @property
    def completion(self) -> Completion:
        """What has arrived so far. The whole answer only after the stream was read to its end."""
        return self._collector.completion()

    async def _events(self) -> AsyncGenerator[StreamCompletionResponse]:
        if self._read:
            raise RuntimeError("a stream can be read once; call stream() again")
        self._read = True
        point: ResumePoint | None = None
        while True:
            self._call = call = self._open(point)
            delay = None
            try:
                async for event in call:
                    self._collector.add(event)
                    if event.started.resumable:
                        self._id = event.started.completion_id
                    yield event
                self._id = ""
                self._collector.end()
                return
            except grpc.RpcError as error:
                failure = errors.from_rpc_error(error, self._collector.completion())
                delay = self._again(failure)
                if delay is None:
                    raise failure from error
            except asyncio.CancelledError:  # async only
                if is_task_cancelled():  # async only
                    raise  # async only
                raise errors.closed(self._collector.completion()) from None  # async only
            finally:
                call.cancel()
                if delay is None:
                    await self._leave()
            await asyncio.sleep(delay)
            point = self._point()

    def _open(self, point: ResumePoint | None) -> _Call:
        if self._closed:
            raise errors.closed(self._collector.completion())
        return self._start(self._budget.left(), point)

    def _again(self, failure: errors.TrunklineError) -> float | None:
        """Seconds to wait before the stream is begun again, or gone on with; None if it is over."""
        number = self._collector.rules.last_number
        if self._id and not self._closed:
            delay = self._resumes.wait(failure, number)
            if delay is None and (isinstance(failure, errors.Unavailable) or failure.reason not in _OF_THE_CALL):
                # The completion has ended, or nobody is there to be told that its reader leaves.
                self._id = ""
            return delay
        return None if number else self._budget.wait(failure)

    def _point(self) -> ResumePoint | None:
        """Where to go on; None: at the start, with a new completion."""
        number = self._collector.rules.last_number
        return ResumePoint(completion_id=self._id, after_sequence_number=number) if self._id else None

    async def _leave(self) -> None:
        """Ends a completion that would go on without its reader. If that cannot be said, it ends after a while."""
        name, self._id = self._id, ""
        if name:
            with suppress(errors.TrunklineError, RuntimeError):
                await self._cancel(name)

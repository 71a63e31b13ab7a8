"""A completion as it is made."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Protocol, Self

import grpc

from trunkline import errors
from trunkline.collect import Collector
from trunkline.retry import Budget
from trunkline.tasks import is_task_cancelled  # async only
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import StreamCompletionResponse


class _Call(Protocol):
    """What is needed of gRPC's call."""

    def __aiter__(self) -> AsyncIterator[StreamCompletionResponse]: ...

    def cancel(self) -> object: ...


class AsyncCompletionStream:
    """The events of one completion, checked against the rules of the contract; read it once.

    Iterate it for the events, iterate `text()` for the text alone, or `collect()` the whole Completion. Leaving a loop
    early, by `break`, an exception or a cancelled task, cancels the RPC and stops the provider; so does leaving the
    stream's own `with` block. What the server or the connection does wrong is raised as a TrunklineError, whose
    `completion` holds what had arrived.
    """

    def __init__(self, call: Callable[[float | None], _Call], budget: Budget) -> None:
        self._start = call
        self._budget = budget
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
        while True:
            self._call = call = self._open()
            try:
                async for event in call:
                    self._collector.add(event)
                    yield event
                self._collector.end()
                return
            except grpc.RpcError as error:
                failure = errors.from_rpc_error(error, self._collector.completion())
                delay = None if self._collector.rules.last_number else self._budget.wait(failure)
                if delay is None:
                    raise failure from error
            except asyncio.CancelledError:  # async only
                if is_task_cancelled():  # async only
                    raise  # async only
                raise errors.closed(self._collector.completion()) from None  # async only
            finally:
                call.cancel()
            await asyncio.sleep(delay)

    def _open(self) -> _Call:
        if self._closed:
            raise errors.closed(self._collector.completion())
        return self._start(self._budget.left())

# Written by tools/unasync.py from trunkline/_async/stream.py: change that file, then `make generate`.
"""A completion as it is made."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Protocol, Self

import grpc

from trunkline import errors
from trunkline.collect import Collector
from trunkline.retry import Budget
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import StreamCompletionResponse


class _Call(Protocol):
    """What is needed of gRPC's call."""

    def __iter__(self) -> Iterator[StreamCompletionResponse]: ...

    def cancel(self) -> object: ...


class CompletionStream:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the completion if it still runs. May be called from anywhere, also while another task reads."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Generator[StreamCompletionResponse]:
        return self._events()

    def text(self, choice: int = 0) -> Generator[str]:
        """The text of one choice, piece by piece; no reasoning, no refusals, no arguments of tools.

        Raises RuntimeError if the answer begins again after text was given out (AFTER_FIRST_TOKEN_RESTART).
        """
        given = False
        with closing(self._events()) as events:
            for event in events:
                if given and event.HasField("restarted"):
                    raise RuntimeError(
                        "the answer began again after text was given out; read the events to follow that"
                    )
                piece = self._collector.text(event, choice)
                if piece:
                    given = True
                    yield piece

    def collect(self) -> Completion:
        """Reads what is left of the stream and returns the Completion that a unary call would have returned."""
        if not self._read:
            with closing(self._events()) as events:
                for _ in events:
                    pass
        return self._collector.end()

    @property
    def completion(self) -> Completion:
        """What has arrived so far. The whole answer only after the stream was read to its end."""
        return self._collector.completion()

    def _events(self) -> Generator[StreamCompletionResponse]:
        if self._read:
            raise RuntimeError("a stream can be read once; call stream() again")
        self._read = True
        while True:
            self._call = call = self._open()
            try:
                for event in call:
                    self._collector.add(event)
                    yield event
                self._collector.end()
                return
            except grpc.RpcError as error:
                failure = errors.from_rpc_error(error, self._collector.completion())
                delay = None if self._collector.rules.last_number else self._budget.wait(failure)
                if delay is None:
                    raise failure from error
            finally:
                call.cancel()
            time.sleep(delay)

    def _open(self) -> _Call:
        if self._closed:
            raise errors.closed(self._collector.completion())
        return self._start(self._budget.left())

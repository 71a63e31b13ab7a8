# Written by tools/unasync.py from trunkline/_async/client.py: change that file, then `make generate`.
"""The client: one method a call."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from trunkline import channel, errors, health, schema
from trunkline._sync.stream import CompletionStream
from trunkline._sync.traces import Traces
from trunkline.channel import Target, Tls
from trunkline.retry import Budget
from trunkline.spec import Prompt, SpecOptions, build_spec
from trunkline.v1.completion_pb2 import CallOptions, Completion
from trunkline.v1.completion_service_pb2 import (
    CancelCompletionRequest,
    CountTokensRequest,
    CountTokensResponse,
    CreateCompletionRequest,
    ResumePoint,
    StreamCompletionRequest,
    StreamOptions,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.model_service_pb2 import GetModelRequest, ListModelsRequest, ListModelsResponse, Model
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceStub

# Seconds to say that a resumable stream was left.
_LEAVING = 5.0

T = TypeVar("T")
Q = TypeVar("Q")
R = TypeVar("R")


class _Stubs:
    """One connection and what can be called over it."""

    def __init__(self, target: Target) -> None:
        if target.credentials is None:
            self.channel = grpc.insecure_channel(target.address, target.options)
        else:
            self.channel = grpc.secure_channel(target.address, target.credentials, target.options)
        self.completions = CompletionServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        self.traces = TraceServiceStub(self.channel)
        self.health = self.channel.unary_unary(
            health.CHECK, request_serializer=health.encode, response_deserializer=health.decode
        )


class Client:
    """A client of one gateway. Close it with `aclose()` or use it as a context manager.

    `address` is host:port (default: TRUNKLINE_ADDRESS, else 127.0.0.1:50051); `api_key` your key (default:
    TRUNKLINE_API_KEY). `tls` is True, False or a Tls with files; by default off on this machine's loopback and on
    elsewhere. `connections` are used in turn, so that one client reaches several of the workers that share a port.

    Every call has a deadline in seconds, retries included: `timeout` for calls that return at once, `stream_timeout`
    for streams, `float("inf")` for none; a `timeout` given to a call stands over both. What the gateway calls
    UNAVAILABLE is tried three times in all, as it says; `rate_limit_retries` adds tries after a rate limit that says
    when to come back, if the deadline allows.

    Every method raises TrunklineError.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        tls: bool | Tls | None = None,
        connections: int = 2,
        timeout: float = channel.UNARY_TIMEOUT,
        stream_timeout: float = channel.STREAM_TIMEOUT,
        rate_limit_retries: int = 0,
        metadata: Mapping[str, str] | None = None,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if connections < 1:
            raise ValueError(f"connections: must be at least 1, is {connections}")
        self._target = Target.of(address, api_key, tls, metadata, channel_options)
        self._connections = connections
        self._timeout = timeout
        self._stream_timeout = stream_timeout
        self._rate_limit_retries = rate_limit_retries
        self._stubs: list[_Stubs] = []
        self._turns: Iterator[_Stubs] = itertools.cycle(())
        self._closed = False

    @property
    def address(self) -> str:
        """Where the gateway is."""
        return self._target.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls still running end with Cancelled."""
        self._closed = True
        for stubs in self._stubs:
            stubs.channel.close()

    def complete(
        self,
        prompt: Prompt,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        options: CallOptions | None = None,
        rate_limit_retries: int | None = None,
        **spec: Unpack[SpecOptions],
    ) -> Completion:
        """The whole answer to a text, a message, a conversation or a CompletionSpec."""
        request = CreateCompletionRequest(
            spec=build_spec(prompt, spec), request_id=request_id or uuid.uuid4().hex, options=options
        )
        budget = self._budget(timeout, self._timeout, rate_limit_retries)
        response = self._call(lambda stubs: stubs.completions.CreateCompletion, request, budget, metadata)
        return response.completion

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        options: CallOptions | None = None,
        stream_options: StreamOptions | None = None,
        rate_limit_retries: int | None = None,
        **spec: Unpack[SpecOptions],
    ) -> CompletionStream:
        """The answer as it is made. The call begins when the stream is first read.

        With `stream_options=StreamOptions(resumable=True)` it survives connections that break.
        """
        request = StreamCompletionRequest(
            spec=build_spec(prompt, spec),
            request_id=request_id or uuid.uuid4().hex,
            options=options,
            stream_options=stream_options,
        )
        return self._stream(request, self._budget(timeout, self._stream_timeout, rate_limit_retries), metadata)

    def resume(
        self, completion_id: str, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> CompletionStream:
        """A resumable stream of yours, from its first event on, as another program or process began it."""
        request = StreamCompletionRequest(resume=ResumePoint(completion_id=completion_id))
        return self._stream(request, self._budget(timeout, self._stream_timeout), metadata)

    def _stream(
        self, request: StreamCompletionRequest, budget: Budget, metadata: Mapping[str, str] | None
    ) -> CompletionStream:
        headers = (*self._target.metadata, *channel.pairs(metadata))

        def start(left: float | None, point: ResumePoint | None) -> Any:
            asked = request if point is None else StreamCompletionRequest(resume=point, request_id=request.request_id)
            return self._next().completions.StreamCompletion(asked, timeout=left, metadata=headers)

        return CompletionStream(start, budget, lambda name: self.cancel(name, timeout=_LEAVING))

    def parse(
        self,
        prompt: Prompt,
        kind: type[T],
        *,
        strict: bool | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        options: CallOptions | None = None,
        rate_limit_retries: int | None = None,
        **spec: Unpack[SpecOptions],
    ) -> schema.Parsed[T]:
        """The answer as `kind`, a pydantic model or another type that pydantic knows; needs the extra `pydantic`.

        Raises ParseError, which keeps the completion, if the answer does not fit.
        """
        spec["response_format"] = schema.response_format(kind, strict)
        completion = self.complete(
            prompt,
            timeout=timeout,
            metadata=metadata,
            request_id=request_id,
            options=options,
            rate_limit_retries=rate_limit_retries,
            **spec,
        )
        return schema.parse_answer(completion, kind)

    def count_tokens(
        self,
        prompt: Prompt,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        options: CallOptions | None = None,
        **spec: Unpack[SpecOptions],
    ) -> CountTokensResponse:
        """What the prompt would cost, without running it."""
        request = CountTokensRequest(spec=build_spec(prompt, spec), options=options)
        budget = self._budget(timeout, self._timeout)
        return self._call(lambda stubs: stubs.completions.CountTokens, request, budget, metadata)

    def cancel(self, completion_id: str, *, timeout: float | None = None) -> None:
        """Stops a running completion of yours by its id; NotFound if none runs where the gateway can look."""
        request = CancelCompletionRequest(completion_id=completion_id)
        budget = self._budget(timeout, channel.LOOKUP_TIMEOUT)
        self._call(lambda stubs: stubs.completions.CancelCompletion, request, budget)

    def list_models(self, provider: str = "", *, timeout: float | None = None) -> ListModelsResponse:
        """All models that can be called, or those of one provider, and the providers that could not list theirs."""
        budget = self._budget(timeout, channel.LOOKUP_TIMEOUT)
        listed = ListModelsResponse()
        token = ""
        while True:
            request = ListModelsRequest(provider=provider, page_size=1000, page_token=token)
            page = self._call(lambda stubs: stubs.models.ListModels, request, budget)
            token = page.next_page_token
            listed.models.extend(page.models)
            known = {unlisted.provider for unlisted in listed.unlisted_providers}
            listed.unlisted_providers.extend(u for u in page.unlisted_providers if u.provider not in known)
            if not token:
                return listed

    def get_model(self, name: str, *, timeout: float | None = None) -> Model:
        """One model, by name or alias."""
        budget = self._budget(timeout, channel.LOOKUP_TIMEOUT)
        return (self._call(lambda stubs: stubs.models.GetModel, GetModelRequest(name=name), budget)).model

    @property
    def traces(self) -> Traces:
        """The records of calls."""
        return Traces(self._read_traces, self._follow_traces)

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """SERVING, NOT_SERVING or UNKNOWN, of the server or of one service; NotFound for a service it does not have."""
        budget = self._budget(timeout, channel.LOOKUP_TIMEOUT)
        return self._call(lambda stubs: stubs.health, service, budget)

    def _read_traces(self, method: str, request: Any, timeout: float | None) -> Any:
        budget = self._budget(timeout, channel.LOOKUP_TIMEOUT)
        return self._call(lambda stubs: getattr(stubs.traces, method), request, budget)

    def _follow_traces(self, method: str, request: Any, timeout: float | None) -> Any:
        left = self._budget(timeout, self._stream_timeout).left()
        return getattr(self._next().traces, method)(request, timeout=left, metadata=self._target.metadata)

    def _call(
        self,
        method: Callable[[_Stubs], grpc.UnaryUnaryMultiCallable[Q, R]],
        request: Q,
        budget: Budget,
        metadata: Mapping[str, str] | None = None,
    ) -> R:
        headers = (*self._target.metadata, *channel.pairs(metadata))
        while True:
            try:
                return method(self._next())(request, timeout=budget.left(), metadata=headers)
            except grpc.RpcError as error:
                failure = errors.from_rpc_error(error)
                delay = budget.wait(failure)
                if delay is None:
                    raise failure from error
            time.sleep(delay)

    def _budget(self, timeout: float | None, default: float, rate_limit_retries: int | None = None) -> Budget:
        retries = self._rate_limit_retries if rate_limit_retries is None else rate_limit_retries
        return Budget(default if timeout is None else timeout, retries)

    def _next(self) -> _Stubs:
        """The connection whose turn it is. All open at the first call, in the event loop that they then belong to."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if not self._stubs:
            self._stubs = [_Stubs(self._target) for _ in range(self._connections)]
            self._turns = itertools.cycle(self._stubs)
        return next(self._turns)

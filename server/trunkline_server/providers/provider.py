"""A provider: a dialect, an upstream to carry its bytes, and data about its models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from trunkline.v1 import completion_pb2
from trunkline_server import prices
from trunkline_server.providers.base import Capabilities, Dialect, Target, UpstreamRequest

Headers = Sequence[tuple[str, str]]


class Reply(Protocol):
    """A whole answer."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Chunks(Protocol):
    """Bytes as they arrive."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None: ...


class StreamReply(Protocol):
    """An answer that is still arriving."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def chunks(self) -> Chunks: ...
    async def read(self) -> bytes: ...


class Upstream(Protocol):
    """Carries requests to one endpoint with one credential. Raises LLMConnectionError and LLMTimeoutError."""

    @property
    def address(self) -> str:
        """What a request's path is appended to; "" where there is no address."""

    @property
    def propagates(self) -> bool:
        """Requests carry the W3C headers of the call's trace."""

    async def send(self, request: UpstreamRequest, extra_headers: Headers = ()) -> Reply: ...
    def stream(
        self, request: UpstreamRequest, extra_headers: Headers = ()
    ) -> AbstractAsyncContextManager[StreamReply]: ...
    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Provider:
    """A configured provider."""

    #: Its name in the configuration, the part of a model name before the first slash.
    name: str
    #: What it is, e.g. "openai": a key of `providers.KINDS`. Origin of its signatures.
    kind: str
    dialect: Dialect
    #: Upstream for each credential by name; "" is the provider's own.
    upstreams: dict[str, Upstream]
    capabilities: Callable[[str], Capabilities]
    #: The dialect of a model and the origin of its signatures, where not all have the same.
    choose: Callable[[str], tuple[Dialect, str]] | None = None
    #: Time limits of an attempt, in seconds.
    total_unary: float = 900.0
    total_stream: float = 1800.0
    first_token: float | None = None
    #: Where it lists its models, if that is elsewhere.
    lister: Upstream | None = None
    #: Models that it has when it lists none by itself.
    models: tuple[str, ...] = ()
    #: Most inputs of one embedding request.
    embedding_batch: int = 2048

    def dialect_for(self, model: str) -> Dialect:
        """The wire format that a model is spoken to in. `dialect` lists the models."""
        return self.dialect if self.choose is None else self.choose(model)[0]

    def target(self, model: str) -> Target:
        origin = self.kind if self.choose is None else self.choose(model)[1]
        return Target(provider=self.name, origin=origin, model=model, capabilities=self.capabilities(model))

    def price(self, model: str) -> Callable[[completion_pb2.Usage, str, str], None]:
        """Sets the cost of a usage of a model, told what the provider called the model and the service tier."""
        return partial(prices.add_cost, self.kind, model)

    async def aclose(self) -> None:
        for upstream in (*self.upstreams.values(), *((self.lister,) if self.lister is not None else ())):
            await upstream.aclose()

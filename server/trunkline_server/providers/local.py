"""The embedded model as a provider: the OpenAI dialect over a Unix socket, waiting until the model has loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from trunkline_server.embedded import Endpoint
from trunkline_server.errors import LLMConnectionError
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts
from trunkline_server.providers.http import Upstream as HttpUpstream
from trunkline_server.providers.provider import Reply, StreamReply

#: Seconds that a call waits for the model to load.
PATIENCE = 60.0
_POLL = 0.05


class LocalUpstream:
    """Carries requests to the embedded model."""

    address = ""
    propagates = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._http = HttpUpstream(
            "http://embedded/v1",
            headers={"authorization": f"Bearer {endpoint.api_key}"},
            timeouts=HttpTimeouts(connect=10.0, idle=300.0),
            uds=endpoint.uds,
        )
        self._ready = False

    async def send(self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]] = ()) -> Reply:
        await self._loaded()
        return await self._http.send(request, extra_headers)

    @asynccontextmanager
    async def stream(
        self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[StreamReply]:
        await self._loaded()
        async with self._http.stream(request, extra_headers) as reply:
            yield reply

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _loaded(self) -> None:
        """Waits for the model. Raises LLMConnectionError with the reason if it will not come."""
        if self._ready:
            return
        until = time.monotonic() + PATIENCE
        health = UpstreamRequest("/health", b"", method="GET")
        while True:
            failure = self._endpoint.failure
            if failure:
                raise LLMConnectionError(f"the embedded model is not there: {failure}")
            try:
                if (await self._http.send(health)).status == 200:
                    self._ready = True
                    return
            except LLMConnectionError:
                pass
            if time.monotonic() > until:
                raise LLMConnectionError(f"the embedded model has not loaded within {PATIENCE:g} s")
            await asyncio.sleep(_POLL)

"""The contract of backends, over all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.traces.contract import Contract, Kept, opened
from tests.traces.stores import Store, parameters


@pytest.fixture(params=parameters())
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    store: Store = request.param
    async with store(tmp_path, request) as backend:
        made = await opened(backend)
        try:
            yield made
        finally:
            await made.reader.aclose()
            await made.sink.aclose()


class TestContract(Contract):
    """Each of its tests, once for each backend."""

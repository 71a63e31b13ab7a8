"""The backends that the contract is run over: add one to STORES."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Backend

#: Gives an empty backend. A server that it needs is a fixture, which skips where there is none.
Store: TypeAlias = Callable[[Path, pytest.FixtureRequest], AbstractAsyncContextManager[Backend]]


@asynccontextmanager
async def _sqlite(folder: Path, request: pytest.FixtureRequest):
    yield open_backend("sqlite:", folder)


@asynccontextmanager
async def _postgresql(folder: Path, request: pytest.FixtureRequest):
    yield open_backend(request.getfixturevalue("postgresql").database(), folder)


@asynccontextmanager
async def _clickhouse(folder: Path, request: pytest.FixtureRequest):
    yield open_backend(request.getfixturevalue("clickhouse").database(), folder)


@asynccontextmanager
async def _chdb(folder: Path, request: pytest.FixtureRequest):
    yield open_backend("clickhouse+chdb:", folder)


#: Backends that can be read and that store a record once, however often it is written.
STORES: Mapping[str, Store] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "clickhouse": _clickhouse,
    "chdb": _chdb,
}


def parameters() -> list[object]:
    return [pytest.param(store, id=name) for name, store in STORES.items()]

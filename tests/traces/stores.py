"""The backends that the contract is run over: add one to STORES."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Backend

#: Gives an empty backend; a `pytest.skip` in it says what is missing here.
Store: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Backend]]


@asynccontextmanager
async def _sqlite(folder: Path):
    yield open_backend("sqlite:", folder)


#: Backends that can be read and that store a record once, however often it is written.
STORES: Mapping[str, Store] = {
    "sqlite": _sqlite,
}


def parameters() -> list[object]:
    return [pytest.param(store, id=name) for name, store in STORES.items()]

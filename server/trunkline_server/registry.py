"""Configs and routes that operators keep, laid over those of the configuration file.

Whoever changes the store counts the change. Every process looks at the count now and then, and makes a new table of
routes when it has moved; calls in flight keep the table that they began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError, Message

from trunkline.v1 import config_pb2
from trunkline.v1alpha import route_pb2
from trunkline_server.engine import Engine
from trunkline_server.errors import GatewayError
from trunkline_server.routing.check import mistakes, mistakes_in_config
from trunkline_server.routing.table import CONFIGS, ROUTES, Table
from trunkline_server.store.address import Address, StoreError

if TYPE_CHECKING:
    from trunkline_server.store.store import Store

M = TypeVar("M", bound=Message)

#: Seconds between two looks at the count.
LOOKS = 1.0


class Registry:
    """The names that one process knows, of the file and of the store."""

    def __init__(self, engine: Engine, address: Address, told: Callable[..., None], *, looks: float = LOOKS) -> None:
        """`told(event, **facts)` hears of what is left out and of a store that does not answer."""
        self._engine = engine
        self._address = address
        self._told = told
        self._looks = looks
        self._file = engine.table
        self._store: Store | None = None
        self._number = -1
        self._answers = True
        self.routes: dict[str, route_pb2.Route] = {}
        self.configs: dict[str, config_pb2.LlmConfig] = {}
        self._following: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        return self._engine.table

    def in_file(self, name: str) -> route_pb2.Route | None:
        """A route of the configuration file, which wins over a stored one."""
        return self._file.routes.get(name.removeprefix(ROUTES)) if name.startswith(ROUTES) else None

    def rebase(self, table: Table) -> None:
        """Takes what a configuration file says now."""
        self._file = table
        self._apply()

    async def start(self) -> None:
        """Knows what is stored, if the store answers, and follows it from then on."""
        await self._look()
        self._following = asyncio.create_task(self._follow())

    async def refresh(self) -> None:
        """Knows what is stored now. Raises StoreUnavailable."""
        store = self._there()
        if store is None:
            return
        if self._number >= 0 and await store.number() == self._number:
            return
        number, kept = await store.all()
        routes, configs = {}, {}
        for stored in kept.values():
            if stored.name.startswith(ROUTES):
                route = self._read(route_pb2.Route(), stored.name, stored.payload, stored.etag)
                if route is not None:
                    route.source = route_pb2.CONFIG_SOURCE_STORE
                    routes[stored.name] = route
            elif stored.name.startswith(CONFIGS):
                config = self._read(config_pb2.LlmConfig(), stored.name, stored.payload, stored.etag)
                if config is not None:
                    configs[stored.name] = config
        self._number, self.routes, self.configs = number, routes, configs
        self._apply()

    # -- what changes -------------------------------------------------------------------------------------------------

    async def put(self, message: Any, *, expected: str | None) -> None:
        """Stores a config or route over the one with the etag `expected`; None: a new one. Sets its etag.

        Raises ConfigConflict and StoreUnavailable.
        """
        message.ClearField("etag")
        stored = await self._opened().put(message.name, message.SerializeToString(), expected=expected)
        message.etag = stored.etag
        await self.refresh()

    async def delete(self, name: str, *, expected: str) -> None:
        """Raises ConfigConflict, ResourceNotFound and StoreUnavailable."""
        await self._opened().delete(name, expected=expected)
        await self.refresh()

    async def aclose(self) -> None:
        self._closing.set()
        if self._following is not None:
            # Not cancelled: a connection that is in use would be left open.
            await self._following
        if self._store is not None:
            await self._store.aclose()

    # -- steps --------------------------------------------------------------------------------------------------------

    def _there(self) -> Store | None:
        """The store; None while it is a file that nothing was ever written to."""
        file = self._address.file
        return None if self._store is None and file is not None and not file.exists() else self._opened()

    def _opened(self) -> Store:
        if self._store is None:
            from trunkline_server.store.store import Store  # a fifth of a second that most servers never need

            self._store = Store(self._address)
        return self._store

    def _read(self, made: M, name: str, payload: bytes, etag: str) -> M | None:
        try:
            made.MergeFromString(payload)
        except DecodeError:
            self._told("stored resource left out", name=name, why="its bytes do not parse")
            return None
        made.name, made.etag = name, etag  # type: ignore[attr-defined]  # both kinds have them
        return made

    def _apply(self) -> None:
        """Makes the table. What leads to something that is no longer configured is left out, and said."""
        file = self._file
        configs = [
            config
            for config in self.configs.values()
            if self._usable(config.name, mistakes_in_config(config, file.providers, file.credentials))
        ]
        known = {config.name for config in configs}
        routes = [
            route
            for route in self.routes.values()
            if self._usable(route.name, mistakes(route, file.providers, file.credentials, known))
        ]
        table = file.over(routes, configs) if routes or configs else file
        if table is not self.table:
            self._engine.replace(table)

    def _usable(self, name: str, found: Any) -> bool:
        why = [f"{'.'.join(path)}: {text}" for path, text in found]
        if why:
            self._told("stored resource left out", name=name, why="; ".join(why))
        return not why

    async def _follow(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._looks)
                return
            await self._look()

    async def _look(self) -> None:
        try:
            await self.refresh()
        except (GatewayError, StoreError) as error:
            if self._answers:
                self._told("store does not answer; what it held last stays", why=str(error))
            self._answers = False
        else:
            self._answers = True


def sources(table: Table) -> Mapping[str, route_pb2.Route]:
    """All routes by resource name."""
    return {ROUTES + name: route for name, route in table.routes.items()}

"""A ClickHouse server over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from trunkline_server.traces.clickhouse.address import Address
from trunkline_server.traces.clickhouse.engine import refused

if TYPE_CHECKING:
    from clickhouse_connect.driver.asyncclient import AsyncClient

#: Many small batches of several servers become one part of the table; the answer comes when it is written.
_GATHER = {"async_insert": 1, "wait_for_async_insert": 1, "max_partitions_per_insert_block": 0}

# The driver logs each failure with its whole story, which would go to standard error, between our lines: whoever asked
# is told of the failure, too.
logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())


class HttpEngine:
    """Connects at the first statement. Used by many tasks side by side."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def open(self) -> None: ...

    async def query(
        self, statement: str, parameters: Mapping[str, Any], *, seconds: float, raw: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        async with self._within(seconds) as client:
            found = await client.query(
                statement,
                parameters=dict(parameters),
                column_formats=dict.fromkeys(raw, "bytes"),
                settings={"max_execution_time": seconds},
            )
            return found.result_rows

    async def command(self, statement: str, parameters: Mapping[str, Any], *, seconds: float) -> None:
        async with self._within(seconds) as client:
            await client.command(statement, parameters=dict(parameters), settings={"max_execution_time": seconds})

    async def insert(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]], *, seconds: float
    ) -> None:
        async with self._within(seconds) as client:
            await client.insert(
                table,
                rows,
                column_names=list(columns),
                column_type_names=list(columns.values()),
                database=self._address.options.database,
                settings=_GATHER,
            )

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[AsyncClient]:
        from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

        try:
            async with asyncio.timeout(seconds):
                yield await self._connected()
        except DataError:
            # Of the driver: what it was given is no value of the column's type.
            raise ValueError("clickhouse: does not take a record") from None
        except ClickHouseError as error:
            raise refused(getattr(error, "code", None), str(error)) from None
        except TimeoutError:
            raise refused(None, "no answer in time") from None
        except OSError as error:
            raise refused(None, str(error)) from None

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                import clickhouse_connect

                address = self._address
                self._client = await clickhouse_connect.get_async_client(
                    host=address.host,
                    port=address.port,
                    username=address.user,
                    password=address.password,
                    secure=address.secure,
                    verify=address.verify,
                    ca_cert=address.ca_cert or None,
                    client_name="trunkline",
                    connect_timeout=address.options.timeout,
                    send_receive_timeout=address.options.timeout * 6,
                    query_retries=0,
                    autogenerate_session_id=False,
                    show_clickhouse_errors="scrub",
                )
            return self._client

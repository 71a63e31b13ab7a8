# Written by tools/unasync.py from trunkline/_async/traces.py: change that file, then `make generate`.
"""Records of calls: what TraceService reads, one method an RPC."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Unpack

import grpc

from trunkline import errors
from trunkline.filters import FilterOptions, build_filter
from trunkline.v1alpha.trace_pb2 import Trace
from trunkline.v1alpha.trace_service_pb2 import (
    TRACE_ORDER_NEWEST_FIRST,
    TRACE_ORDER_OLDEST_FIRST,
    TRACE_VIEW_BASIC,
    TRACE_VIEW_FULL,
    DeleteTraceRequest,
    ExportTracesRequest,
    GetTraceRequest,
    ListTracesRequest,
    TailTracesRequest,
    TailTracesResponse,
    TraceView,
)


class Traces:
    """Reads the records of calls that you may see: your own, as an operator everybody's.

    Which records is told by keywords, the fields of TraceFilter: `provider="openai"`, `failed=True`,
    `start_time=datetime(…)`, `labels={"team": "blue"}`, `min_cost=0.01` (dollars), `min_duration=2.5` (seconds).
    `full` asks for what was said as well. Every method raises TrunklineError.
    """

    def __init__(self, call: Callable[..., Any], stream: Callable[..., Any]) -> None:
        """Both take the name of a method, its request and a timeout; `stream` returns gRPC's call."""
        self._call = call
        self._stream = stream

    def get(self, name: str, *, full: bool = True, timeout: float | None = None) -> Trace:
        """One record by the id of its call, or by "traces/" and that; NotFound if there is none."""
        request = GetTraceRequest(name=_named(name), view=_view(full))
        found: Trace = (self._call("GetTrace", request, timeout)).trace
        return found

    def list(
        self,
        *,
        oldest_first: bool = False,
        full: bool = False,
        page_size: int = 100,
        timeout: float | None = None,
        **which: Unpack[FilterOptions],
    ) -> Generator[Trace]:
        """Records, newest first, page by page as they are read; `timeout` is for each page."""
        order = TRACE_ORDER_OLDEST_FIRST if oldest_first else TRACE_ORDER_NEWEST_FIRST
        request = ListTracesRequest(filter=build_filter(which), page_size=page_size, order=order, view=_view(full))
        while True:
            page = self._call("ListTraces", request, timeout)
            for trace in page.traces:
                yield trace
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def tail(
        self, *, full: bool = False, timeout: float | None = None, **which: Unpack[FilterOptions]
    ) -> Generator[TailTracesResponse]:
        """Records as calls end, until you leave the loop. A message without a record, the first one and one after each
        15 s of silence, says that the stream is alive; `dropped` counts what was lost by reading too slowly.
        """
        request = TailTracesRequest(filter=build_filter(which), view=_view(full))
        return self._read("TailTraces", request, float("inf") if timeout is None else timeout, lambda told: told)

    def export(
        self, *, full: bool = True, timeout: float | None = None, **which: Unpack[FilterOptions]
    ) -> Generator[bytes]:
        """Records, oldest first, as pieces of lines of JSON, ready to be written to a file one after the other."""
        request = ExportTracesRequest(filter=build_filter(which), view=_view(full))
        return self._read("ExportTraces", request, timeout, lambda piece: piece.ndjson)

    def delete(self, name: str, *, timeout: float | None = None) -> Sequence[str]:
        """Deletes one record. Returns the names of the backends that held it. For operators."""
        request = DeleteTraceRequest(name=_named(name))
        deleted: Sequence[str] = (self._call("DeleteTrace", request, timeout)).backends
        return deleted

    def _read(self, method: str, request: Any, timeout: float | None, take: Callable[[Any], Any]) -> Generator[Any]:
        call = self._stream(method, request, timeout)
        try:
            for message in call:
                yield take(message)
        except grpc.RpcError as error:
            raise errors.from_rpc_error(error) from error
        finally:
            call.cancel()


def _named(name: str) -> str:
    return name if name.startswith("traces/") else f"traces/{name}"


def _view(full: bool) -> TraceView.ValueType:
    return TRACE_VIEW_FULL if full else TRACE_VIEW_BASIC

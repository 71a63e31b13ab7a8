"""Sends records to a receiver of OTLP over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from trunkline_server.traces.base import BackendUnavailable, Record
from trunkline_server.traces.otlp.spans import resource_spans

#: Seconds that the receiver has for one request.
PATIENCE = 20.0
#: Most bytes of one request: receivers take 4 MiB unless they are told otherwise.
MOST_BYTES = 2 * 1024 * 1024

#: What the receiver will not take another time either.
_REFUSALS = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.DATA_LOSS})


class Refused(Exception):  # as a driver's own
    """The receiver refuses what it was sent, and would again."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the receiver is."""

    address: str
    secure: bool = False
    #: PEM; None: the system's authorities.
    authority: bytes | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class OtlpSink:
    """One channel. A batch that failed halfway is sent again as a whole, with the same ids."""

    def __init__(self, target: Target, *, content: bool, service: str) -> None:
        self._target = target
        self._content = content
        self._service = service
        self._channel: grpc.aio.Channel | None = None
        self._export: Any = None

    async def open(self) -> None:
        # Made anew after each failure: gRPC's own back-off would hold up the next try for up to two minutes.
        await self.aclose()
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        if self._target.secure:
            credentials = grpc.ssl_channel_credentials(self._target.authority)
            self._channel = grpc.aio.secure_channel(self._target.address, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(self._target.address, options)
        self._export = TraceServiceStub(self._channel).Export  # type: ignore[no-untyped-call]  # generated

    async def write(self, records: Sequence[Record]) -> None:
        if self._channel is None:
            await self.open()
        request, size = pb.ExportTraceServiceRequest(), 0
        for record in records:
            spans = resource_spans(record, content=self._content, service=self._service)
            more = spans.ByteSize()
            if size and size + more > MOST_BYTES:
                await self._send(request)
                request, size = pb.ExportTraceServiceRequest(), 0
            request.resource_spans.append(spans)
            size += more
        await self._send(request)

    async def prune(self, before: float, most_bytes: int | None) -> int:
        return 0

    async def aclose(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def _send(self, request: pb.ExportTraceServiceRequest) -> None:
        try:
            answer = await self._export(request, timeout=PATIENCE, metadata=self._target.headers)
        except grpc.aio.AioRpcError as error:
            told = f"otlp: {self._target.address} answers {error.code().name}: {error.details()}"
            if error.code() in _REFUSALS:
                raise Refused(told) from None
            raise BackendUnavailable(told) from None
        rejected = answer.partial_success.rejected_spans
        if rejected:
            raise Refused(
                f"otlp: {self._target.address} rejects {rejected} spans: {answer.partial_success.error_message[:500]}"
            )

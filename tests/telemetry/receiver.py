"""An OTLP receiver in this process: the collector's protocol, served by the stubs that OpenTelemetry publishes."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from tests.gateway import until

Status = trace_pb2.Status


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    span: trace_pb2.Span
    resource: Mapping[str, Any]
    scope: str

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return {pair.key: value_of(pair.value) for pair in self.span.attributes}

    @property
    def status(self) -> str:
        return {0: "UNSET", 1: "OK", 2: "ERROR"}[self.span.status.code]

    @property
    def seconds(self) -> float:
        return (self.span.end_time_unix_nano - self.span.start_time_unix_nano) / 1e9


def value_of(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


@dataclass
class Receiver(pb_grpc.TraceServiceServicer):
    """Takes spans; refuses them while `refusing` is a code."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    metadata: list[Mapping[str, Any]] = field(default_factory=list)
    refusing: grpc.StatusCode | None = None
    refused: int = 0
    #: Spans that it says not to have taken.
    rejects: int = 0

    def Export(  # noqa: N802  # as the service has it
        self, request: pb.ExportTraceServiceRequest, context: Any
    ) -> pb.ExportTraceServiceResponse:
        if self.refusing is not None:
            self.refused += 1
            context.abort(self.refusing, "not now")
        self.metadata.append(dict(context.invocation_metadata()))
        for resource in request.resource_spans:
            about = {pair.key: value_of(pair.value) for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [Seen(span, about, scope.scope.name) for span in scope.spans]
        answer = pb.ExportTraceServiceResponse()
        if self.rejects:
            answer.partial_success.rejected_spans, answer.partial_success.error_message = self.rejects, "too odd"
        return answer

    @property
    def text(self) -> str:
        """All that arrived, to be searched."""
        return "\n".join(f"{seen.span} {seen.resource}" for seen in self.spans)

    @property
    def servers(self) -> list[Seen]:
        """Spans of RPCs."""
        return [seen for seen in self.spans if seen.span.kind == trace_pb2.Span.SPAN_KIND_SERVER]

    def below(self, parent: Seen) -> list[Seen]:
        """The children of a span, as they began."""
        found = [seen for seen in self.spans if (seen.trace, seen.parent) == (parent.trace, parent.id)]
        return sorted(found, key=lambda seen: seen.span.start_time_unix_nano)


@contextmanager
def receiver(credentials: grpc.ServerCredentials | None = None, port: int = 0) -> Iterator[Receiver]:
    """Listens while the block runs."""
    made = Receiver()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    pb_grpc.add_TraceServiceServicer_to_server(made, server)
    if credentials is None:
        made.url = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    else:
        made.url = f"https://localhost:{server.add_secure_port(f'127.0.0.1:{port}', credentials)}"
    server.start()
    try:
        yield made
    finally:
        server.stop(None).wait()


class Collector:
    """A receiver that can go and come back on its port."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self.to = self._running.enter_context(receiver())
        self.port = int(self.to.url.rpartition(":")[2])
        self._before: list[Seen] = []

    @property
    def all(self) -> list[Seen]:
        """What came, also before it went away."""
        return self._before + self.to.spans

    async def ids(self, count: int) -> list[str]:
        await until(lambda: len(calls(self.to)) >= count)
        return [seen.attributes["trunkline.call.id"] for seen in calls(self.to)]

    async def stop(self) -> None:
        await asyncio.to_thread(self._running.close)
        self._before += self.to.spans
        self.to = Receiver()

    async def start(self) -> None:
        self.to = self._running.enter_context(receiver(port=self.port))


def calls(to: Receiver) -> list[Seen]:
    """The spans that records of calls became."""
    return [seen for seen in to.spans if "trunkline.call.id" in seen.attributes]

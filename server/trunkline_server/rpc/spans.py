"""OpenTelemetry's server interceptor with the status of every way to end. Imported only where spans are exported.

The one it builds on (opentelemetry-instrumentation-grpc 0.66b2) calls every call OK that did not end with `abort`: one
whose caller left, whose deadline came, or whose handler failed; it names spans with a slash before them, puts the text
of errors into spans, and cannot wrap handlers that write by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from opentelemetry.instrumentation.grpc._aio_server import (
    OpenTelemetryAioServerInterceptor,
    _OpenTelemetryAioServicerContext,
)
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from trunkline_server.rpc.boundary import left
from trunkline_server.telemetry.spans import SERVER_ERRORS

Behavior = Callable[[Any, Any], Awaitable[Any]]


class ServerSpans(OpenTelemetryAioServerInterceptor):  # type: ignore[misc]  # it has no types
    """A span for each RPC of our services, which continues the caller's trace."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__(tracer, filter_=lambda details: details.method.startswith("/trunkline."))

    def _intercept_aio_server_unary(self, behavior: Behavior, handler_call_details: Any) -> Behavior:
        async def run(request: Any, context: Any) -> Any:
            failed: BaseException | None = None
            answer = None
            with (
                self._set_remote_context(context),
                self._start_span(handler_call_details, context, set_status_on_exception=False) as span,
            ):
                span.update_name(handler_call_details.method.lstrip("/"))
                span.set_attribute("rpc.system.name", "grpc")
                told = _Context(context, span)
                try:
                    answer = await behavior(request, told)
                except BaseException as error:  # noqa: BLE001  # raised again, outside of the span
                    # Inside of it, the span would record the exception with its text.
                    failed = error
                told.end(failed)
            if failed is not None:
                raise failed
            return answer

        return run

    #: Handlers of streams write by themselves here, and return when they are done.
    _intercept_aio_server_stream = _intercept_aio_server_unary


class _Context(_OpenTelemetryAioServicerContext):  # type: ignore[misc]  # as above
    """Notes how the RPC ends."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Any:
        self._self_code = code
        return await self.__wrapped__.abort(code, details, trailing_metadata)

    def end(self, failed: BaseException | None) -> None:
        """Sets the status of the span, once."""
        code = self._self_code
        if failed is not None and code is grpc.StatusCode.OK:
            # Nobody told a code: gRPC cancelled the call, or it tells the caller UNKNOWN.
            cancelled = isinstance(failed, asyncio.CancelledError)
            code = left(self.__wrapped__)[0] if cancelled else grpc.StatusCode.UNKNOWN
        span: Span = self._self_active_span
        span.set_attributes({"rpc.grpc.status_code": code.value[0], "rpc.response.status_code": code.name})
        if code.name in SERVER_ERRORS:
            span.set_status(Status(StatusCode.ERROR, code.name))

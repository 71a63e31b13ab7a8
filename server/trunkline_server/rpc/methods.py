"""What the services share: admitting a validated request, sending on a stream, handing methods to gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import Message

from trunkline_server.call import Call
from trunkline_server.errors import InvalidRequest, UnsupportedParameter
from trunkline_server.rpc.validation import Findings

if TYPE_CHECKING:
    from trunkline_server.rpc.boundary import Boundary

Methods: TypeAlias = "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"


class Service(Protocol):
    """One gRPC service."""

    @property
    def NAME(self) -> str:  # noqa: N802  # a constant of the class
        """Its full name."""

    def methods(self, boundary: Boundary) -> Methods:
        """Its methods by name, behind the boundary."""


def accept(call: Call, findings: Findings, request: Any) -> None:
    """Admits the call. Raises InvalidRequest or UnsupportedParameter with all that is wrong."""
    if findings.invalid:
        first = findings.invalid[0]
        more = f" (and {len(findings.invalid) - 1} more)" if len(findings.invalid) > 1 else ""
        raise InvalidRequest(f"{first.field}: {first.description}{more}", violations=findings.invalid)
    if findings.unsupported:
        first = findings.unsupported[0]
        raise UnsupportedParameter(f"{first.field}: {first.description}", violations=findings.unsupported)
    call.admitted = True
    request_id = getattr(request, "request_id", "")
    if request_id:
        call.request_id = request_id
    options = getattr(request, "options", None)
    if options is not None and options.HasField("timeout"):
        call.limit(options.timeout.seconds + options.timeout.nanos / 1e9)


async def send(message: Message, call: Call, context: Any) -> None:
    """Writes one message of a stream; waits until the transport takes it."""
    data = message.SerializeToString()
    call.sequence += 1
    call.sent_bytes += len(data)
    writing = asyncio.ensure_future(context.write(data))
    try:
        # With the first message go the headers, and gRPC cannot end a call whose headers are halfway out.
        await (asyncio.shield(writing) if call.sequence == 1 else writing)
    except asyncio.CancelledError:
        if not writing.cancelled():
            await asyncio.wait({writing})
        raise
    except Exception as error:
        # Bytes can always be written, except to a caller who has left.
        raise asyncio.CancelledError from error

"""What the services share: admitting a validated request, and handing methods to gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc

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

"""Holds the details of a status to what gRPC delivers, by shedding what tells least."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status

from trunkline.v1.error_pb2 import LlmErrorDetail
from trunkline_server.rpc.details import Case, cut

#: Most bytes of grpc-status-details-bin. gRPC replaces a status whose metadata passes 8 KiB by one of its own.
MAX_DETAILS_BYTES = 6 * 1024


def serialized(case: Case, status: Status, details: Sequence[Message]) -> bytes:
    """The status with its details, shed until they fit."""
    for shed in (*_SHED, None):
        del status.details[:]
        for detail in details:
            status.details.add().Pack(detail)
        excess = status.ByteSize() - MAX_DETAILS_BYTES
        if excess <= 0 or shed is None:
            break
        for detail in details:
            shed(case, detail, excess)
    data: bytes = status.SerializeToString()
    return data


_Shed = Callable[[Case, Message, int], None]


def _shed_raw_usage(_: Case, detail: Message, __: int) -> None:
    if isinstance(detail, LlmErrorDetail) and detail.HasField("usage"):
        detail.usage.ClearField("raw_json")


def _shed_raw_error(most: int) -> _Shed:
    def shed(_: Case, detail: Message, __: int) -> None:
        if isinstance(detail, LlmErrorDetail):
            detail.raw_error_json = cut(detail.raw_error_json, most, mark="")

    return shed


def _shed_violations(least: int) -> _Shed:
    def shed(case: Case, detail: Message, excess: int) -> None:
        if not isinstance(detail, rpc.BadRequest):
            return
        # Room for the entry that counts the others, and for longer lengths in front of all of it.
        room = detail.ByteSize() - excess - 64
        if case.more:
            detail.field_violations.pop()
        while len(detail.field_violations) > least and detail.ByteSize() > room:
            detail.field_violations.pop()
            case.more += 1
        case.count_others(detail)

    return shed


def _shed_attempts(_: Case, detail: Message, __: int) -> None:
    if isinstance(detail, LlmErrorDetail):
        del detail.attempts[:-1]


def _shed_metadata(_: Case, detail: Message, __: int) -> None:
    if isinstance(detail, rpc.ErrorInfo):
        kept = {key: cut(value, 64) for key, value in list(detail.metadata.items())[:4]}
        detail.metadata.clear()
        detail.metadata.update(kept)


#: What goes first when the details are too large, in order. After the last, what is left always fits.
_SHED: tuple[_Shed, ...] = (
    _shed_raw_usage,
    _shed_raw_error(256),
    _shed_violations(10),
    _shed_attempts,
    _shed_metadata,
    _shed_raw_error(0),
    _shed_violations(1),
)

"""Which traces a filter asks for, in the types that databases have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trunkline.v1alpha import trace_service_pb2
from trunkline_server.traces.columns import micros, words


@dataclass(frozen=True, slots=True)
class Conditions:
    """A TraceFilter. None and empty do not restrict."""

    #: Unix time in microseconds: at `since_us` or later, before `until_us`.
    since_us: int | None = None
    until_us: int | None = None
    method: str = ""
    provider: str = ""
    #: Of the last attempt, or as it was asked for.
    model: str = ""
    caller: str = ""
    code: int | None = None
    reason: str | None = None
    failed: bool | None = None
    #: All of them.
    labels: Mapping[str, str] = field(default_factory=dict)
    min_cost_nano_usd: int | None = None
    min_duration_us: int | None = None
    #: Words of the error's message as `columns.words` gives them, all of them.
    words: tuple[str, ...] = ()


def conditions(which: trace_service_pb2.TraceFilter) -> Conditions:
    """What a filter asks for."""
    status = which.WhichOneof("status")
    return Conditions(
        since_us=_up(which, "start_time"),
        until_us=_up(which, "end_time"),
        method=which.method,
        provider=which.provider,
        model=which.model,
        caller=which.caller,
        code=which.code if status == "code" else None,
        reason=which.reason if status == "reason" else None,
        failed=which.failed if status == "failed" else None,
        labels=dict(which.labels),
        min_cost_nano_usd=which.min_cost_nano_usd if which.HasField("min_cost_nano_usd") else None,
        min_duration_us=micros(which.min_duration) if which.HasField("min_duration") else None,
        words=tuple(words(which.error_text)),
    )


def _up(which: trace_service_pb2.TraceFilter, name: str) -> int | None:
    """Microseconds, rounded up: traces begin at whole ones."""
    if not which.HasField(name):  # type: ignore[arg-type]  # one of the two times
        return None
    time = getattr(which, name)
    return int(time.seconds * 1_000_000 - -time.nanos // 1000)

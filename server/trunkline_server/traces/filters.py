"""Which traces a filter asks for: its conditions in the types that databases have, and a test of one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trunkline.v1alpha import trace_service_pb2
from trunkline_server.traces.columns import Row, micros, words


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
    labels: Mapping[str, str] | None = None
    min_cost_nano_usd: int | None = None
    min_duration_us: int | None = None
    #: Words of the error's message, all of them, in lower case. Empty: none can be found, None: does not restrict.
    words: tuple[str, ...] | None = None

    def match(self, row: Row) -> bool:
        """Does the trace with these facts fulfil all?"""
        labels = self.labels or {}
        return (
            (self.since_us is None or row.start_us >= self.since_us)
            and (self.until_us is None or row.start_us < self.until_us)
            and self.method in ("", row.method)
            and self.provider in ("", row.provider)
            and self.model in ("", row.model, row.asked_model)
            and self.caller in ("", row.caller)
            and self.code in (None, row.code)
            and self.reason in (None, row.reason)
            and self.failed in (None, row.failed)
            and labels.items() <= row.labels.items()
            and _at_least(row.cost_nano_usd, self.min_cost_nano_usd)
            and _at_least(row.duration_us, self.min_duration_us)
            and (self.words is None or (bool(self.words) and set(self.words) <= set(words(row.error))))
        )


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
        labels=dict(which.labels) or None,
        min_cost_nano_usd=which.min_cost_nano_usd if which.HasField("min_cost_nano_usd") else None,
        min_duration_us=micros(which.min_duration) if which.HasField("min_duration") else None,
        words=tuple(words(which.error_text)) if which.error_text else None,
    )


def _up(which: trace_service_pb2.TraceFilter, name: str) -> int | None:
    """Microseconds, rounded up: traces begin at whole ones."""
    if not which.HasField(name):  # type: ignore[arg-type]  # one of the two times
        return None
    time = getattr(which, name)
    return int(time.seconds * 1_000_000 - -time.nanos // 1000)


def _at_least(value: int | None, least: int | None) -> bool:
    return least is None or (value is not None and value >= least)

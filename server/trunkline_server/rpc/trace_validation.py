"""What is wrong with a request for records of calls, all at once, by the path of each field. Pure, as `validation`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.rpc.checks import (
    SECOND,
    Check,
    Table,
    check_fields,
    counted,
    duration,
    entry,
    known,
    matching,
    message_of,
    shown,
    within,
)
from trunkline_server.rpc.findings import Findings
from trunkline_server.traces.columns import words

MAX_PAGE = 1000
MAX_LABELS = 8

_INT64_MAX = 2**63 - 1
#: 9999-12-31T23:59:59Z, and the first second of the year 1.
_LAST, _FIRST = 253_402_300_799, -62_135_596_800


def _time(value: Timestamp, path: str, findings: Findings) -> None:
    if not (_FIRST <= value.seconds <= _LAST and 0 <= value.nanos < SECOND):
        parts = f"{value.seconds} s and {value.nanos} ns"
        findings.add(path, f"{parts} are no Timestamp: give a time of the years 1 to 9999, with nanos below 1e9")


def _at_most(most: int, what: str) -> Check:
    def check(value: str, path: str, findings: Findings) -> None:
        if len(value) > most:
            findings.add(path, f"{shown(value)} has {len(value):,} characters: {what} has at most {most:,}")

    return check


def _labels(value: Mapping[str, str], path: str, findings: Findings) -> None:
    counted(MAX_LABELS, "labels")(value, path, findings)
    for key, text in islice(value.items(), MAX_LABELS):
        if not 1 <= len(key) <= 64:
            findings.add(entry(path, key), f"a key of {len(key)} characters is no label's: use 1 to 64")
        if len(text) > 256:
            findings.add(entry(path, key), f"a value of {len(text)} characters is no label's: use at most 256")


def _error_text(value: str, path: str, findings: Findings) -> None:
    _at_most(256, "a search")(value, path, findings)
    if len(value) <= 256 and not words(value):
        findings.add(path, f"{shown(value)} holds no word to look for: give letters or digits, or leave it out")


_FILTER: Table = {
    "start_time": _time,
    "end_time": _time,
    "provider": _at_most(64, "a provider's name"),
    "model": _at_most(1024, "a model's name"),
    "caller": _at_most(64, "a caller's name"),
    "code": within(0, 16),
    "reason": matching(r"[A-Z][A-Z0-9_]{0,63}", 'give an ErrorReason without its prefix, e.g. "LLM_RATE_LIMITED"'),
    "labels": _labels,
    "min_cost_nano_usd": within(0, _INT64_MAX),
    "min_duration": duration(lambda ns: ns >= 0, "0 or more"),
    "error_text": _error_text,
    "method": matching(r"[A-Za-z]{1,64}", 'give the name of an RPC, e.g. "CreateCompletion"'),
}


def _filter(value: pb.TraceFilter, path: str, findings: Findings) -> None:
    message_of(_FILTER)(value, path, findings)
    begin, end = value.start_time, value.end_time
    both = value.HasField("start_time") and value.HasField("end_time")
    if both and (begin.seconds, begin.nanos) >= (end.seconds, end.nanos):
        findings.add(f"{path}.end_time", "is not after start_time: no call can match; swap them, or leave one out")


_COMMON: Table = {
    "filter": _filter,
    "view": known(pb.TraceView),
    "order": known(pb.TraceOrder),
    "page_size": within(0, MAX_PAGE, fix="; 0 gives 50"),
}
_NAME = matching(r"traces/[A-Za-z0-9_-]{1,128}", 'give the name of a record, "traces/" and the id of its call')


def of(request: Any) -> Findings:
    """Of a request of ListTraces, TailTraces or ExportTraces."""
    findings = Findings()
    check_fields(request, _COMMON, "", findings)
    return findings.closed()


def of_named(request: Any) -> Findings:
    """Of a request of GetTrace or DeleteTrace."""
    findings = Findings()
    if request.name:
        _NAME(request.name, "name", findings)
    else:
        findings.add("name", 'missing: give the name of a record, "traces/" and the id of its call')
    if isinstance(request, pb.GetTraceRequest):
        check_fields(request, _COMMON, "", findings)
    return findings.closed()


__all__ = ["of", "of_named"]

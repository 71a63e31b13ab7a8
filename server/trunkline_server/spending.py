"""What several attempts spent together."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.v1 import completion_pb2


def total(usages: Iterable[completion_pb2.Usage | None], *, whole: bool = True) -> completion_pb2.Usage | None:
    """Counts summed over attempts. None if no attempt reported any. Not `whole`: something is missing from the sum."""
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    made = completion_pb2.Usage()
    made.CopyFrom(known[-1])
    for usage in known[:-1]:
        for told, count in usage.ListFields():
            if told.name in _COUNTS:
                setattr(made, told.name, getattr(made, told.name) + count)
        if usage.source == completion_pb2.USAGE_SOURCE_PARTIAL:
            whole = False
    if not whole:
        made.source = completion_pb2.USAGE_SOURCE_PARTIAL
    return made


_COUNTS = frozenset(
    field.name for field in completion_pb2.Usage.DESCRIPTOR.fields if field.name not in ("source", "raw_json")
)

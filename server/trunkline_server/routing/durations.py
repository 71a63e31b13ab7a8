"""Durations of the contract as seconds."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration


def seconds_of(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9

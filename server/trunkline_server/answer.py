"""What the gateway adds to what the provider said: id, times, warnings, rate limits."""

from __future__ import annotations

import time

from google.protobuf.duration_pb2 import Duration

from trunkline.v1 import completion_pb2
from trunkline_server.call import Attempt, Call
from trunkline_server.exchange import Prepared
from trunkline_server.providers.assembly import StreamEvent, timestamp
from trunkline_server.reading import Reading


def complete(call: Call, answer: completion_pb2.Completion, ready: Prepared, attempt: Attempt) -> None:
    """Adds what the gateway knows to what the provider said."""
    answer.id = call.id
    answer.create_time.CopyFrom(timestamp(call.create_time))
    answer.provider = ready.candidate.provider.name
    answer.provider_request_id = attempt.request_id
    answer.attempts = len(call.attempts)
    answer.timing.CopyFrom(timing(call))
    if warnings := ready.notes.warnings():
        answer.warnings.extend(warnings)
    if attempt.rate_limits:
        answer.rate_limits.extend(attempt.rate_limits)


def finished(call: Call, answer: Reading, include_completion: bool) -> StreamEvent:
    """The last event."""
    assembly, attempt = answer.assembly, answer.attempt
    event = StreamEvent()
    made = event.finished
    usage = assembly.summed()
    if usage is not None:
        made.usage.CopyFrom(usage)
    made.timing.CopyFrom(timing(call))
    made.warnings.extend(answer.ready.notes.warnings())
    made.attempts = len(call.attempts)
    made.provider_request_id = attempt.request_id
    made.service_tier = assembly.service_tier
    made.system_fingerprint = assembly.system_fingerprint
    made.rate_limits.extend(attempt.rate_limits)
    if include_completion:
        completion = assembly.completion()
        complete(call, completion, answer.ready, attempt)
        completion.timing.CopyFrom(made.timing)
        made.completion.CopyFrom(completion)
    return event


def timing(call: Call) -> completion_pb2.Timing:
    now = time.monotonic()
    made = completion_pb2.Timing()
    _set(made.total, now - call.received)
    if call.first_event_at is not None:
        _set(made.time_to_first_event, call.first_event_at - call.received)
    if call.method.startswith("Stream") and call.first_token_at is not None:
        _set(made.time_to_first_token, call.first_token_at - call.received)
    if call.queued:
        _set(made.queued, call.queued)
    return made


def _set(duration: Duration, seconds: float) -> None:
    nanos = max(0, int(seconds * 1e9))
    duration.seconds, duration.nanos = divmod(nanos, 1_000_000_000)

"""Rows in which a provider fails: it throttles, breaks, lies or falls silent."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.scripts import (
    WHOLE,
    answers,
    breaks_json,
    content_filter,
    context_length,
    cuts_midway,
    ends_without_a_reason,
    error_in_a_success,
    error_midway,
    html_in_a_success,
    leaves_out_the_end_marker,
    limited,
    no_prefill,
    refuses_html,
    resets,
    silent,
    silent_after_head,
    slow,
    stalls_midway,
    status,
)
from tests.faults.seen import (
    apart,
    asked,
    asked_at_most,
    attempts,
    closed,
    delivered,
    failed,
    heartbeats,
    not_before,
    ok,
    prefilled,
    pushback,
    restarted,
    retry_after,
    within,
)
from tests.faults.table import BOTH, STREAM, UNARY, Row
from tests.upstream import says

#: Nobody listens there.
REFUSED = "http://127.0.0.1:9/v1"
#: A name that no DNS knows, by RFC 6761.
NOWHERE = "http://provider.invalid/v1"

#: Attempts in all that a route makes at one target, at most.
TRIES = 3
ROUTE = {"retry": {"max_attempts": TRIES, "initial_backoff": "50ms", "max_backoff": "500ms"}}

THROTTLED: Sequence[Row] = (
    Row(
        "429 with Retry-After",
        {"a": (limited(retry_after="1"), answers)},
        (ok(), attempts(2), asked(a=2), apart(1.0)),
        route=ROUTE,
    ),
    Row(
        "429 with Retry-After beyond the deadline",
        {"a": (limited(retry_after="60"),)},
        (failed("RESOURCE_EXHAUSTED", "LLM_RATE_LIMITED"), retry_after(60), pushback(-1), within(2), asked(a=1)),
        deadline=5,
        route=ROUTE,
    ),
    Row(
        "429 with Retry-After and another target",
        {"a": (limited(retry_after="60"),), "b": (answers,)},
        (ok(), attempts(2), within(2), asked(a=1, b=1)),
        route=ROUTE,
    ),
    Row(
        "429 without Retry-After",
        {"a": (limited(),)},
        (failed("RESOURCE_EXHAUSTED", "LLM_RATE_LIMITED"), within(5), asked_at_most(a=TRIES)),
        route=ROUTE,
    ),
    Row("500 once", {"a": (status(500), answers)}, (ok(), attempts(2), asked(a=2)), route=ROUTE),
    Row(
        "500 always",
        {"a": (status(500),)},
        (failed("UNAVAILABLE", "LLM_SERVER_ERROR"), attempts(TRIES), pushback(-1), asked(a=TRIES)),
        route=ROUTE,
    ),
    Row(
        "500 always and another target",
        {"a": (status(500),), "b": (answers,)},
        (ok(), asked_at_most(a=TRIES - 1, b=1)),
        route=ROUTE,
    ),
    Row("503 once", {"a": (status(503), answers)}, (ok(), attempts(2), asked(a=2)), route=ROUTE),
    Row(
        "503 always",
        {"a": (status(503),)},
        (failed("UNAVAILABLE", "LLM_OVERLOADED"), pushback(-1), asked_at_most(a=TRIES)),
        route=ROUTE,
    ),
    Row("529 once", {"a": (status(529), answers)}, (ok(), attempts(2), asked(a=2)), route=ROUTE),
    Row(
        "401 of the operator's key",
        {"a": (status(401, {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": None}),)},
        (failed("FAILED_PRECONDITION", "LLM_AUTHENTICATION"), asked(a=1)),
        route=ROUTE,
    ),
    Row(
        "context length",
        {"a": (context_length,), "b": (answers,)},
        (failed("INVALID_ARGUMENT", "LLM_CONTEXT_WINDOW_EXCEEDED"), asked(a=1, b=0)),
        route=ROUTE,
    ),
    Row(
        "content filter",
        {"a": (content_filter,), "b": (answers,)},
        (failed("INVALID_ARGUMENT", "LLM_CONTENT_FILTERED"), asked(a=1, b=0)),
        route=ROUTE,
    ),
)

UNREACHABLE: Sequence[Row] = (
    Row(
        "connection refused",
        {"a": ()},
        (failed("UNAVAILABLE", "LLM_CONNECTION"), within(5)),
        addresses={"a": REFUSED},
        route=ROUTE,
    ),
    Row(
        "connection refused and another target",
        {"a": (), "b": (answers,)},
        (ok(), within(5), asked(b=1)),
        addresses={"a": REFUSED},
        route=ROUTE,
    ),
    Row(
        "DNS failure",
        {"a": ()},
        (failed("UNAVAILABLE", "LLM_CONNECTION"), within(8)),
        addresses={"a": NOWHERE},
        route=ROUTE,
    ),
    Row("reset before headers", {"a": (resets, answers)}, (ok(), attempts(2), asked(a=2)), route=ROUTE),
    Row(
        "reset before headers always",
        {"a": (resets,)},
        (failed("UNAVAILABLE", "LLM_CONNECTION"), asked_at_most(a=TRIES)),
        route=ROUTE,
    ),
    Row(
        "silence",
        {"a": (silent,)},
        (failed("DEADLINE_EXCEEDED", "LLM_TIMEOUT"), within(4), asked(a=1), closed("a", 1.5)),
        route=ROUTE,
    ),
    Row(
        "silence and another target",
        {"a": (silent,), "b": (answers,)},
        (ok(), within(4), asked(a=1, b=1)),
        route=ROUTE,
    ),
    Row(
        "silence after the headers",
        {"a": (silent_after_head,)},
        (failed("DEADLINE_EXCEEDED", "LLM_TIMEOUT"), within(4)),
        kinds=(STREAM,),
        route=ROUTE,
    ),
    Row(
        "slow first token",
        {"a": (slow(2.5),)},
        (ok(), not_before(2.5), asked(a=1), heartbeats(1)),
        kinds=(STREAM,),
        stream_options={"heartbeat_interval": {"seconds": 1}},
        provider={"timeouts": {"first_token": 8, "idle": 8}},
        route=ROUTE,
        peers=False,
    ),
    Row(
        "slow answer",
        {"a": (slow(2.5),)},
        (ok(), not_before(2.5), asked(a=1)),
        kinds=(UNARY,),
        provider={"timeouts": {"idle": 8}},
        route=ROUTE,
    ),
)

MIDWAY: Sequence[Row] = (
    Row(
        "cut mid-stream",
        {"a": (cuts_midway,), "b": (answers,)},
        (failed("UNAVAILABLE", "LLM_CONNECTION"), delivered("Hello there"), asked(a=1, b=0)),
        kinds=(STREAM,),
        route=ROUTE,
    ),
    Row(
        "cut in a whole answer",
        {"a": (cuts_midway, answers)},
        (ok(), asked(a=2)),
        kinds=(UNARY,),
        route=ROUTE,
    ),
    Row(
        "cut mid-stream, begun again elsewhere",
        {"a": (cuts_midway,), "b": (answers,)},
        (ok(), restarted(1), attempts(2), asked(a=1, b=1)),
        kinds=(STREAM,),
        options={"after_first_token": "AFTER_FIRST_TOKEN_RESTART"},
        route=ROUTE,
        peers=False,
    ),
    Row(
        "stall mid-stream",
        {"a": (stalls_midway,)},
        (failed("DEADLINE_EXCEEDED", "LLM_TIMEOUT"), within(5), closed("a")),
        route=ROUTE,
    ),
    Row(
        "stall mid-stream, begun again elsewhere",
        {"a": (stalls_midway,), "b": (answers,)},
        (ok(), restarted(1), asked(a=1, b=1)),
        kinds=(STREAM,),
        options={"after_first_token": "AFTER_FIRST_TOKEN_RESTART"},
        route=ROUTE,
        peers=False,
    ),
    Row(
        "broken JSON chunk",
        {"a": (breaks_json,)},
        (failed("INTERNAL", "LLM_INVALID_RESPONSE"),),
        route=ROUTE,
    ),
    Row(
        "missing end marker",
        {"a": (leaves_out_the_end_marker,)},
        (ok(), asked(a=1)),
        kinds=(STREAM,),
        route=ROUTE,
    ),
    Row(
        "end without a finish reason",
        {"a": (ends_without_a_reason,)},
        (failed("UNAVAILABLE", "LLM_CONNECTION"), delivered("Hello there")),
        kinds=(STREAM,),
        route=ROUTE,
    ),
    Row(
        "200 with an error object",
        {"a": (error_in_a_success,)},
        (failed("UNAVAILABLE", "LLM_SERVER_ERROR"),),
        route=ROUTE,
    ),
    Row(
        "200 with an error object once",
        {"a": (error_in_a_success, answers)},
        (ok(), asked(a=2)),
        route=ROUTE,
    ),
    Row(
        "error event mid-stream",
        {"a": (error_midway,)},
        (failed("UNAVAILABLE", "LLM_SERVER_ERROR"), delivered("Hello there")),
        kinds=(STREAM,),
        route=ROUTE,
    ),
    Row(
        "HTML in a success",
        {"a": (html_in_a_success,)},
        (failed("INTERNAL", "LLM_INVALID_RESPONSE"),),
        route=ROUTE,
    ),
    Row(
        "HTML of a proxy in front",
        {"a": (refuses_html,)},
        (failed("UNAVAILABLE", "LLM_SERVER_ERROR"), asked_at_most(a=TRIES)),
        route=ROUTE,
    ),
)

#: What was delivered is the beginning; such a provider answers with what is missing of it.
CONTINUED: Sequence[Row] = (
    Row(
        "prefill refused",
        {"a": (cuts_midway, no_prefill), "b": (no_prefill,)},
        (failed("UNAVAILABLE", "LLM_CONNECTION"), delivered("Hello there"), asked(a=2, b=1), prefilled("Hello there")),
        kinds=(STREAM,),
        options={"after_first_token": "AFTER_FIRST_TOKEN_CONTINUE"},
        route=ROUTE,
        peers=False,
    ),
    Row(
        "cut mid-stream, continued elsewhere",
        {"a": (cuts_midway,), "b": (says(", and", " so on."),)},
        (ok("Hello there, and so on."), restarted(0), attempts(2), asked(a=1, b=1), prefilled("Hello there")),
        kinds=(STREAM,),
        options={"after_first_token": "AFTER_FIRST_TOKEN_CONTINUE"},
        route=ROUTE,
        peers=False,
    ),
    Row(
        "stall mid-stream, continued elsewhere",
        {"a": (stalls_midway,), "b": (says(", and", " so on."),)},
        (ok("Hello there, and so on."), restarted(0), attempts(2), asked(a=1, b=1), prefilled("Hello there")),
        kinds=(STREAM,),
        options={"after_first_token": "AFTER_FIRST_TOKEN_CONTINUE"},
        route=ROUTE,
        peers=False,
    ),
)

#: Both are asked; the one that answers first is used, and the other one let go.
HEDGED: Sequence[Row] = (
    Row(
        "hedge of a slow target",
        {"a": (silent,), "b": (answers,)},
        (ok(), within(2), attempts(2), asked(a=1, b=1), closed("a")),
        options={"hedge": True},
        timed=True,
        provider={"timeouts": {"first_token": 30, "idle": 30}},
        route={"hedge": {"after": "100ms"}},
        peers=False,
    ),
    Row(
        "hedge that the first target wins",
        {"a": (slow(0.5),), "b": (silent,)},
        (ok(), within(3), attempts(2), asked(a=1, b=1), closed("b")),
        options={"hedge": True},
        timed=True,
        provider={"timeouts": {"first_token": 30, "idle": 30}},
        route={"hedge": {"after": "100ms"}},
        peers=False,
    ),
    Row(
        "hedge that is not needed",
        {"a": (answers,), "b": (answers,)},
        (ok(), attempts(1), asked(a=1, b=0)),
        options={"hedge": True},
        timed=True,
        route={"hedge": {"after": "5s"}},
        peers=False,
    ),
)

ROWS = (*THROTTLED, *UNREACHABLE, *MIDWAY, *CONTINUED, *HEDGED)

__all__ = ["BOTH", "ROWS", "WHOLE"]

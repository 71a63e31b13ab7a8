"""Records of calls that look like a day of a shop's: for pictures of the page. The same for the same seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from google.protobuf import json_format

from trunkline.v1alpha import trace_pb2

#: Provider, model, name asked for, weight, seconds of an answer, nano-dollars for a token in and out.
_MODELS = (
    ("openai", "gpt-5-mini", "fast", 10, 1.4, 250, 2_000),
    ("anthropic", "claude-opus-4-5", "careful", 4, 4.2, 5_000, 25_000),
    ("openai", "gpt-5.2", "openai/gpt-5.2", 4, 3.1, 1_750, 14_000),
    ("gemini", "gemini-2.5-flash", "gemini/gemini-2.5-flash", 5, 1.1, 300, 2_500),
    ("gpu", "llama-3.3-70b", "gpu/llama-3.3-70b", 3, 2.2, 0, 0),
)
_CALLERS = ("checkout", "search", "support", "support", "catalog")
#: Code of gRPC, the provider's HTTP status, reason, message.
_FAILURES = (
    (8, 429, "LLM_RATE_LIMITED", "Rate limit reached for gpt-5.2: 30,000 tokens per minute. Try again in 1.2 s."),
    (14, 529, "LLM_OVERLOADED", "Overloaded"),
    (3, 400, "LLM_CONTEXT_WINDOW_EXCEEDED", "The prompt has 214,312 tokens; the model takes 200,000."),
    (4, 200, "GATEWAY_TIMEOUT", "the time of the call ran out at the gateway"),
    (1, 200, "CANCELLED", ""),
)
_ASKED = (
    ("Which of these shoes are waterproof?", "Two of them: the Trail Mid and the Harbour. The Court is not."),
    ("Write a title for this product.", "Harbour: a light rain boot for every day"),
    ("My parcel has not come. What now?", "I am sorry. It left Rotterdam yesterday and should reach you tomorrow."),
)


def records(count: int, now: datetime, *, seed: int = 7) -> Iterator[trace_pb2.Trace]:
    """Calls of the day before `now`, more of them by day than by night, and the one that is shown in full last."""
    chance = random.Random(seed)  # noqa: S311  # pictures, not secrets
    begun = sorted(_moments(chance, count), reverse=True)
    for number, ago in enumerate(begun, 1):
        yield _call(chance, number, now - timedelta(seconds=ago))
    yield weather(count + 1, now - timedelta(seconds=41))


def _moments(chance: random.Random, count: int) -> Iterator[float]:
    made = 0
    while made < count:
        ago = chance.uniform(45, 86_400)
        if chance.random() < 0.55 + 0.45 * math.cos(2 * math.pi * (ago / 86_400 - 0.1)):
            made += 1
            yield ago


def _call(chance: random.Random, number: int, began: datetime) -> trace_pb2.Trace:
    provider, model, asked_as, _, usual, price_in, price_out = chance.choices(_MODELS, [m[3] for m in _MODELS])[0]
    failure = chance.choice(_FAILURES) if chance.random() < 0.07 else None
    streamed = chance.random() < 0.7
    took = max(0.2, chance.lognormvariate(math.log(usual), 0.45))
    first = took * chance.uniform(0.15, 0.4)
    tokens_in, tokens_out = int(chance.lognormvariate(6.6, 0.8)), int(chance.lognormvariate(5.2, 0.6))
    asked, answered = chance.choice(_ASKED)
    trace = _base(number, began, provider, model, asked_as, chance.choice(_CALLERS), took, streamed=streamed)
    trace["completion_spec"] = {"model": asked_as, "messages": [_message("ROLE_USER", asked)]}
    attempt = _attempt(1, provider, model, began, took, first)
    trace["attempts"] = [attempt]
    if failure is None:
        trace["completion"] = {
            "choices": [
                {"message": _message("ROLE_ASSISTANT", answered), "finish_reason": "FINISH_REASON_STOP"},
            ]
        }
        trace["usage"] = _usage(tokens_in, tokens_out, tokens_in * price_in + tokens_out * price_out)
        if streamed:
            trace["timing"]["time_to_first_token"] = _seconds(first)
    else:
        code, upstream, reason, message = failure
        trace["status"] = {"code": code, "reason": reason, "message": message}
        trace["cancelled"] = reason == "CANCELLED"
        if upstream == 200:
            trace["usage"] = _usage(tokens_in, tokens_out, tokens_in * price_in + tokens_out * price_out)
            trace["usage"]["source"] = "USAGE_SOURCE_ESTIMATED"
        if reason.startswith("LLM_"):
            attempt.update(reason=reason, message=message, upstream_status=upstream)
    return _made(trace)


def weather(number: int, began: datetime) -> trace_pb2.Trace:
    """A call with all that there is to see: a fallback, tools, reasoning, bodies."""
    trace = _base(number, began, "anthropic", "claude-opus-4-5", "careful", "support", 5.34, streamed=True)
    sent = {
        "model": "claude-opus-4-5",
        "max_tokens": 800,
        "stream": True,
        "system": "You help customers of a shop for walkers.",
        "messages": [{"role": "user", "content": "I walk in Bergen on Saturday. Do I need the waterproof jacket?"}],
    }
    limited = {"error": {"type": "rate_limit_exceeded", "message": "Rate limit reached. Try again in 1.2 s."}}
    trace["labels"] = {"team": "support", "env": "production", "ticket": "48213"}
    trace["request_id"] = "ticket-48213-3"
    trace["otel_trace_id"], trace["otel_span_id"] = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    trace["events"], trace["request_bytes"], trace["response_bytes"] = 58, 2312, 9120
    trace["timing"].update(time_to_first_token=_seconds(2.31))
    trace["completion_spec"] = {
        "model": "careful",
        "messages": [
            _message("ROLE_SYSTEM", "You help customers of a shop for walkers. Be brief."),
            _message("ROLE_USER", "I walk in Bergen on Saturday. Do I need the waterproof jacket?"),
            {
                "role": "ROLE_ASSISTANT",
                "parts": [
                    {"reasoning": {"text": "I should look up the weather before I advise."}},
                    {
                        "tool_call": {
                            "id": "toolu_01",
                            "name": "get_forecast",
                            "arguments_json": '{"place": "Bergen", "day": "Saturday"}',
                        }
                    },
                ],
            },
            {
                "role": "ROLE_TOOL",
                "parts": [
                    {
                        "tool_result": {
                            "tool_call_id": "toolu_01",
                            "name": "get_forecast",
                            "parts": [{"text": {"text": '{"rain_mm": 11.5, "wind": "fresh", "high": 9}'}}],
                        }
                    }
                ],
            },
        ],
        "tools": [
            {
                "function": {
                    "name": "get_forecast",
                    "description": "The forecast of a place for a day.",
                    "parameters_json_schema": '{"type": "object", "properties": {"place": {"type": "string"}}}',
                }
            }
        ],
        "params": {"temperature": 0.2, "max_output_tokens": 800},
    }
    trace["completion"] = {
        "choices": [
            {
                "message": _message(
                    "ROLE_ASSISTANT",
                    "Yes. Saturday brings 11.5 mm of rain, a fresh wind and at most 9 °C to Bergen.\n\n"
                    "Take the waterproof jacket, and a fleece under it.",
                ),
                "finish_reason": "FINISH_REASON_STOP",
                "raw_finish_reason": "end_turn",
            }
        ]
    }
    trace["usage"] = {
        **_usage(1_874, 143, 12_945_000), "cache_read_input_tokens": 1_536, "reasoning_tokens": 61,
        "raw_json": '{"input_tokens": 338, "cache_read_input_tokens": 1536, "output_tokens": 143}',
    }  # fmt: skip
    first = _attempt(1, "openai", "gpt-5.2", began, 1.26, 1.19)
    first.update(reason="LLM_RATE_LIMITED", message="Rate limit reached. Try again in 1.2 s.", upstream_status=429)
    first["rate_limits"] = [{"metric": "tokens", "limit": 30_000, "remaining": 0}]
    second = _attempt(2, "anthropic", "claude-opus-4-5", began + timedelta(seconds=1.27), 4.06, 0.93)
    second["cause"] = "ATTEMPT_CAUSE_FALLBACK"
    trace["attempts"] = [first, second]
    made = _made(trace)
    for attempt, body in zip(made.attempts, (limited, None), strict=True):
        attempt.request.content_type = attempt.response.content_type = "application/json"
        attempt.request.body = json.dumps(sent).encode()
        if body:
            attempt.response.body = json.dumps(body).encode()
    made.attempts[1].response.content_type = "text/event-stream"
    made.attempts[1].response.body = b'event: message_start\ndata: {"type": "message_start"}\n\n'
    return made


def _base(
    number: int, began: datetime, provider: str, model: str, asked_as: str, caller: str, took: float, *, streamed: bool
) -> dict[str, Any]:
    return {
        "name": f"traces/cmpl_{number:032x}",
        "state": "TRACE_STATE_FINISHED",
        "method": "StreamCompletion" if streamed else "CreateCompletion",
        "start_time": began.isoformat(),
        "caller": caller,
        "provider": provider,
        "model": model,
        "asked_model": asked_as,
        "streamed": streamed,
        "status": {"code": 0},
        "timing": {"total": _seconds(took)},
    }


def _attempt(number: int, provider: str, model: str, began: datetime, took: float, first: float) -> dict[str, Any]:
    return {
        "number": number,
        "cause": "ATTEMPT_CAUSE_FIRST",
        "provider": provider,
        "model": model,
        "endpoint": f"https://{provider}.example/v1/messages",
        "start_time": began.isoformat(),
        "duration": _seconds(took),
        "time_to_first_event": _seconds(first),
        "upstream_status": 200,
        "provider_request_id": f"req_{number:04}",
    }


def _usage(tokens_in: int, tokens_out: int, cost: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "source": "USAGE_SOURCE_REPORTED",
        "cost_nano_usd": cost,
    }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": {"text": text}}]}


def _seconds(value: float) -> str:
    return f"{value:.6f}s"


def _made(trace: dict[str, Any]) -> trace_pb2.Trace:
    made = trace_pb2.Trace()
    json_format.ParseDict(trace, made)
    return made

"""Made-up records of calls for `bench.traces`: as uneven as a busy gateway's, and the same in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.base import Record

#: 2026-11-01, in microseconds.
BEGIN = 1_793_491_200_000_000
DAY = 86_400_000_000

#: Share of the calls, name, its models.
PROVIDERS = (
    (0.45, "openai", ("gpt-5.2", "gpt-5-mini", "gpt-5-nano")),
    (0.30, "anthropic", ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")),
    (0.15, "gemini", ("gemini-3-pro", "gemini-3-flash")),
    (0.10, "gpu", ("llama-4-scout",)),
)

#: Share of the calls, method.
METHODS = ((0.60, "StreamCompletion"), (0.32, "CreateCompletion"), (0.08, "CreateEmbeddings"))

#: Share of the calls, code, reason, what the message says. All others end with OK.
ENDS = (
    (0.030, 1, "CANCELLED", ""),
    (0.025, 8, "LLM_RATE_LIMITED", "Rate limit reached for {model} in organization org-{word}: try again in {n} s"),
    (0.015, 14, "LLM_OVERLOADED", "The provider is overloaded, request req_{n}{word} was not served"),
    (0.010, 4, "GATEWAY_TIMEOUT", "no answer within {n} s"),
    (0.010, 3, "LLM_CONTEXT_LENGTH", "This model's maximum context length is {n} tokens, {word} asked for more"),
)
#: Ends only calls to this provider, so that others never have it.
ONLY_AT, ONLY_END = "gemini", (0.02, 3, "LLM_CONTENT_FILTERED", "The answer was stopped by the filter {word}")
#: Ends calls of the first day and of no other.
FIRST_DAY_END = (0.05, 13, "INTERNAL", "internal error: the migration of {word} was not finished")

CALLERS = [f"service-{number}" for number in range(60)]
TEAMS = [f"team-{number}" for number in range(12)]

_WORDS = ["blue", "river", "table", "seven", "silent", "paper", "engine", "north", "winter", "copper"]


def records(count: int, *, days: int, body_bytes: int = 1_200, seed: int = 1) -> Iterator[Record]:
    """In the order of time, spread evenly over days from BEGIN on."""
    random_ = random.Random(seed)
    bodies = _bodies(body_bytes)
    step = days * DAY // count
    for number in range(count):
        start = BEGIN + number * step + random_.randrange(step)
        trace = _trace(random_, start, bodies, first_day=start < BEGIN + DAY)
        yield Record(trace.completion.id or trace.name.removeprefix("traces/"), trace.SerializeToString())


def _trace(random_: random.Random, start: int, bodies: Sequence[str], *, first_day: bool) -> trace_pb2.Trace:
    chance = random_.random
    _, provider, models = random_.choices(PROVIDERS, [share for share, *_ in PROVIDERS])[0]
    model = random_.choice(models)
    code, reason, message = _end(random_, provider, first_day=first_day)
    method = random_.choices(METHODS, [share for share, _ in METHODS])[0][1]
    # Few callers make most calls.
    caller = CALLERS[min(int(random_.paretovariate(0.9)) - 1, len(CALLERS) - 1)]
    trace = trace_pb2.Trace(
        name=f"traces/cmpl_{random_.getrandbits(128):032x}",
        state=trace_pb2.TRACE_STATE_FINISHED,
        method=method,
        caller=caller,
        request_id=f"req-{random_.getrandbits(48):x}",
        provider=provider,
        model=model,
        asked_model="fast" if chance() < 0.2 else f"{provider}/{model}",
        streamed=method == "StreamCompletion",
        cancelled=code == 1,
        capture=completion_pb2.CAPTURE_FULL,
        request_bytes=1_400,
        response_bytes=900,
    )
    trace.start_time.FromMicroseconds(start)
    trace.labels["team"] = random_.choice(TEAMS)
    # A release is a time: only the newest is in newest calls.
    trace.labels["release"] = f"r{(start - BEGIN) // (3 * DAY)}"
    if chance() < 0.3:
        trace.labels["session"] = f"{random_.getrandbits(40):x}"
    text = random_.choice(bodies)
    trace.completion_spec.model = trace.asked_model
    trace.completion_spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = text
    trace.status.code, trace.status.reason, trace.status.message = code, reason, message.replace("{model}", model)
    took = int(random_.lognormvariate(0.5, 1.0) * 1_000_000)
    trace.timing.total.FromMicroseconds(took)
    trace.timing.time_to_first_token.FromMicroseconds(took // 4)
    attempt = trace.attempts.add(number=1, provider=provider, model=model, upstream_status=200 if code == 0 else 500)
    attempt.start_time.FromMicroseconds(start)
    attempt.request.body = f'{{"messages": [{{"role": "user", "content": "{text}"}}]}}'.encode()
    if code == 0:
        answer = random_.choice(bodies)
        trace.completion.id = trace.name.removeprefix("traces/")
        trace.completion.choices.add().message.parts.add().text.text = answer
        attempt.response.body = f'{{"choices": [{{"message": {{"content": "{answer}"}}}}]}}'.encode()
        trace.usage.input_tokens, trace.usage.output_tokens = 300, random_.randrange(20, 600)
        trace.usage.source = completion_pb2.USAGE_SOURCE_REPORTED
        trace.usage.cost_nano_usd = int(random_.lognormvariate(13, 1.2))
    return trace


def _end(random_: random.Random, provider: str, *, first_day: bool) -> tuple[int, str, str]:
    ends = [*ENDS, *([ONLY_END] if provider == ONLY_AT else []), *([FIRST_DAY_END] if first_day else [])]
    point = random_.random()
    for share, code, reason, message in ends:
        if point < share:
            return (
                code,
                reason,
                message.replace("{n}", str(random_.randrange(900))).replace("{word}", random_.choice(_WORDS)),
            )
        point -= share
    return 0, "", ""


@lru_cache
def _bodies(size: int) -> Sequence[str]:
    random_ = random.Random(1)
    return [_text(random_, size) for _ in range(2_000)]


def _text(random_: random.Random, size: int) -> str:
    words = [random_.choice(_WORDS) + str(random_.randrange(100)) for _ in range(size // 6)]
    return " ".join(words)[:size]

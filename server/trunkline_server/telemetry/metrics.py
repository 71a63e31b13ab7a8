"""What Prometheus is told. Names that callers choose are labels only as far as a bound allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trunkline.v1 import completion_pb2
from trunkline_server.call import Call, Cause

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)
_OVERHEAD_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

#: Label of what is beyond the bound.
OTHER = "other"
#: Most values of a label that callers choose.
MOST_VALUES = 100
#: Most combinations of method, provider, model and caller; beyond them model and caller are OTHER.
MOST_COMBINATIONS = 1000

_SOURCES = {
    completion_pb2.USAGE_SOURCE_PARTIAL: "partial",
    completion_pb2.USAGE_SOURCE_ESTIMATED: "estimated",
}
_CAUSES = {cause: cause.name.lower() for cause in Cause}

#: Method, provider, model, caller.
Key: TypeAlias = tuple[str, str, str, str]


class Metrics:
    """The server's metrics, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None, *, most_values: int = MOST_VALUES) -> None:
        """`most_values`: distinct models, and distinct callers, that get a label of their own."""
        to = self.registry = registry if registry is not None else CollectorRegistry()
        whose = ("provider", "model", "caller")

        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"trunkline_{name}", told, labels, registry=to)

        def histogram(name: str, told: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"trunkline_{name}", told, labels, buckets=buckets, registry=to)

        self.calls = counter("calls", "Calls that ended", "method", "code", "reason", *whose)
        self.in_flight = Gauge(
            "trunkline_calls_in_flight", "Calls now", ("method",), registry=to, multiprocess_mode="livesum"
        )
        self.cancelled = counter(
            "calls_cancelled",
            "Calls whose caller left or called CancelCompletion; `token`: before or after the first token",
            "method",
            "token",
            *whose,
        )
        self.seconds = histogram("call_seconds", "Arrival to end", _SECONDS, "method", *whose)
        self.first_token = histogram(
            "time_to_first_token_seconds", "Arrival to first content of a stream", _SECONDS, *whose
        )
        self.output_token = histogram(
            "time_per_output_token_seconds",
            "First content of a stream to its end, by output token after the first",
            _TOKEN_SECONDS,
            *whose,
        )
        self.overhead = histogram(
            "overhead_seconds",
            "What the gateway itself added: arrival to end, less the time that the call waited for admission, for "
            "providers, for a next attempt, and for its caller to take an event",
            _OVERHEAD_SECONDS,
            "method",
            *whose,
        )
        self.queued = histogram("queued_seconds", "Waiting for admission, of calls that had to", _SECONDS, *whose)
        self.tokens = counter(
            "tokens",
            "Tokens, input or output; `source`: reported by the provider, partial, or estimated",
            "direction",
            "source",
            *whose,
        )
        self.cached_tokens = counter(
            "cached_tokens", "Input tokens that were read from the provider's cache, or written to it", "access", *whose
        )
        self.reasoning_tokens = counter("reasoning_tokens", "Output tokens that were reasoning", *whose)
        self.cost = counter(
            "cost_usd", "Cost in US dollars, of what has a known price; `source` as of tokens", "source", *whose
        )
        self.bytes = counter(
            "bytes", "Bytes of requests (in) and of messages sent to callers (out)", "direction", "method", *whose
        )
        self.attempts = counter(
            "attempts", "Attempts at providers; `reason` is empty for those that went well", "cause", "reason",
            "provider", "model",
        )  # fmt: skip
        self.attempt_seconds = histogram("attempt_seconds", "Begin to end of an attempt", _SECONDS, "provider", "model")
        self.fallbacks = counter(
            "fallbacks", "Attempts at a next target; `from_provider` is that of the attempt before",
            "from_provider", "from_model", "provider", "model",
        )  # fmt: skip
        self.dropped_lines = counter("log_lines_dropped", "Log lines that nobody read in time")
        self.spans = counter(
            "spans",
            "Spans that ended, that were exported, and whose export failed; the rest waits, or was dropped",
            "outcome",
        )
        self._models = Bounded(most_values)
        self._callers = Bounded(most_values)
        self._series: dict[Key, Series] = {}
        self._children: dict[tuple[object, ...], Any] = {}
        self._adders: dict[tuple[object, ...], Callable[[float], None]] = {}

    def know(self, *, models: Iterable[str] = (), callers: Iterable[str] = ()) -> None:
        """Names of the configuration: they are labels from the beginning."""
        for model in models:
            self._models.admit(model)
        for caller in callers:
            self._callers.admit(caller)

    def child(self, metric: Any, *labels: str) -> Any:
        """`metric.labels(...)`, remembered: looking it up by value costs more than counting."""
        key = (metric, *labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found

    def adder(self, metric: Any, *labels: str) -> Callable[[float], None]:
        """Adds to a counter or a gauge, remembered as `child` is. It is the value's own: prometheus-client's `inc` asks
        three times whether the metric has labels before it adds.
        """
        key = (metric, *labels)
        found: Callable[[float], None] | None = self._adders.get(key)
        if found is None:
            found = self._adders[key] = metric.labels(*labels)._value.inc
        return found

    def began(self, method: str) -> None:
        self.adder(self.in_flight, method)(1)

    def ended(self, call: Call, code: str, reason: str, request_bytes: int, seconds: float) -> None:
        """`seconds`: arrival to end."""
        self.adder(self.in_flight, call.method)(-1)
        series = self._series_of(call, code)
        series.outcome(code, reason)(1)
        series.seconds.observe(seconds)
        series.overhead.observe(max(0.0, seconds - call.waiting.seconds))
        series.add_bytes_in(request_bytes)
        if call.sent_bytes:
            series.add_bytes_out(call.sent_bytes)
        if code == "CANCELLED":
            token = "before" if call.first_token_at is None else "after"
            self.child(self.cancelled, call.method, token, *series.whose).inc()
        if call.queued:
            self.child(self.queued, *series.whose).observe(call.queued)
        if call.attempts:
            self._attempts(call, series)
        usage = call.usage
        if usage is not None:
            self._usage(usage, series)
        if call.streamed and call.first_token_at is not None:
            self.child(self.first_token, *series.whose).observe(call.first_token_at - call.received)
            after = (usage.output_tokens if usage is not None else 0) - 1
            if after > 0:
                self.child(self.output_token, *series.whose).observe(
                    (seconds - (call.first_token_at - call.received)) / after
                )

    def _attempts(self, call: Call, series: Series) -> None:
        last = len(call.attempts) - 1
        for at, attempt in enumerate(call.attempts):
            model = series.whose[1] if at == last else self._models.label(attempt.model)
            self.adder(self.attempts, _CAUSES[attempt.cause], attempt.reason, attempt.provider, model)(1)
            self.child(self.attempt_seconds, attempt.provider, model).observe(attempt.seconds)
            if attempt.cause == Cause.FALLBACK and at:
                before = call.attempts[at - 1]
                self.child(
                    self.fallbacks, before.provider, self._models.label(before.model), attempt.provider, model
                ).inc()

    def _usage(self, usage: completion_pb2.Usage, series: Series) -> None:
        source = _SOURCES.get(usage.source, "reported")
        adder, whose = self.adder, series.whose
        adder(self.tokens, "input", source, *whose)(usage.input_tokens)
        adder(self.tokens, "output", source, *whose)(usage.output_tokens)
        if usage.cost_nano_usd:
            adder(self.cost, source, *whose)(usage.cost_nano_usd / 1e9)
        if usage.cache_read_input_tokens:
            adder(self.cached_tokens, "read", *whose)(usage.cache_read_input_tokens)
        if usage.cache_write_input_tokens:
            adder(self.cached_tokens, "write", *whose)(usage.cache_write_input_tokens)
        if usage.reasoning_tokens:
            adder(self.reasoning_tokens, *whose)(usage.reasoning_tokens)

    def _series_of(self, call: Call, code: str) -> Series:
        key = (call.method, call.provider, call.model, call.caller)
        found = self._series.get(key)
        if found is not None:
            return found
        # A model that a provider has answered for exists; what only a caller says does not take a place.
        model = self._models.admit(call.model) if code == "OK" else self._models.label(call.model)
        bounded = (call.method, call.provider, model, self._callers.admit(call.caller))
        found = self._series.get(bounded)
        if found is None and len(self._series) >= MOST_COMBINATIONS:
            bounded = (call.method, call.provider, OTHER, OTHER)
            found = self._series.get(bounded)
        if found is None:
            found = self._series[bounded] = Series(self, bounded)
        return found


class Bounded:
    """Values of a label, the first `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = {""}

    def admit(self, value: str) -> str:
        """The value, which takes a place if there is one; else OTHER."""
        if value not in self._known and len(self._known) <= self._most:
            self._known.add(value)
        return self.label(value)

    def label(self, value: str) -> str:
        """The value if it has a place, else OTHER."""
        return value if value in self._known else OTHER


class Series:
    """What every call of one method, provider, model and caller counts in."""

    __slots__ = ("_method", "_metrics", "_outcomes", "add_bytes_in", "add_bytes_out", "overhead", "seconds", "whose")

    def __init__(self, metrics: Metrics, key: Key) -> None:
        method, *whose = key
        self._metrics = metrics
        self._method = method
        self._outcomes: dict[tuple[str, str], Callable[[float], None]] = {}
        #: Labels: provider, model, caller.
        self.whose = tuple(whose)
        self.seconds = metrics.seconds.labels(*key)
        self.overhead = metrics.overhead.labels(*key)
        self.add_bytes_in = metrics.adder(metrics.bytes, "in", *key)
        self.add_bytes_out = metrics.adder(metrics.bytes, "out", *key)

    def outcome(self, code: str, reason: str) -> Callable[[float], None]:
        """Counts calls that ended so."""
        found = self._outcomes.get((code, reason))
        if found is None:
            labels = (self._method, code, reason, *self.whose)
            found = self._outcomes[code, reason] = self._metrics.adder(self._metrics.calls, *labels)
        return found

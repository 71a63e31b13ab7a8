"""A call's way through the gateway: name to target, spec to bytes, bytes to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from trunkline.v1 import completion_pb2, completion_service_pb2, generation_pb2
from trunkline_server.admission import Admission
from trunkline_server.call import Attempt, Call
from trunkline_server.errors import (
    InvalidRequest,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ModelNotFound,
    UnsupportedParameter,
    Violation,
)
from trunkline_server.exchange import exchange, streamed
from trunkline_server.providers.assembly import Assembly, StreamEvent, timestamp
from trunkline_server.providers.base import Decoder, Dialect, Notes, Target, UpstreamRequest
from trunkline_server.providers.framing import FRAMINGS, Framer
from trunkline_server.providers.prepare import prepared
from trunkline_server.providers.provider import Provider, Upstream

MAX_RAW_BYTES = 1024 * 1024
#: Seconds that a provider has to end a stream in which it has said all.
LINGER = 1.0

CompletionSpec = completion_pb2.CompletionSpec
CallOptions = completion_pb2.CallOptions


@dataclass(frozen=True, slots=True)
class Route:
    """Where a model name leads."""

    provider: str
    model: str
    defaults: generation_pb2.GenerationParams | None = None


@dataclass(slots=True)
class Prepared:
    """A spec that is ready to go out."""

    provider: Provider
    dialect: Dialect
    upstream: Upstream
    target: Target
    request: UpstreamRequest
    notes: Notes
    reasoning_argument: str

    def sent(self) -> None:
        """Lets the request go, which holds the whole prompt."""
        self.request = _SENT


_SENT = UpstreamRequest("", b"")


@dataclass(slots=True)
class Engine:
    """Runs completions. Holds no state of a call; closed by whoever made it."""

    providers: Mapping[str, Provider]
    #: Names of the configuration that lead to a target.
    aliases: Mapping[str, Route] = field(default_factory=dict)
    #: Credential name to the provider that it belongs to.
    credentials: Mapping[str, str] = field(default_factory=dict)
    admission: Admission = field(default_factory=Admission)

    def resolve(self, name: str) -> tuple[Provider, Route]:
        """Raises ModelNotFound."""
        route = self.aliases.get(name)
        if route is None:
            prefix, slash, model = name.partition("/")
            if slash and model and prefix in self.providers:
                route = Route(prefix, model)
            else:
                raise ModelNotFound(self._unknown(name), resource=("model", name))
        provider = self.providers.get(route.provider)
        if provider is None:
            # Only the embedded model may be named and not be there.
            text = f"{name!r} leads to {route.provider!r}, which this server does not run"
            raise ModelNotFound(text, resource=("model", name))
        return provider, route

    async def complete(self, call: Call, spec: CompletionSpec, options: CallOptions) -> completion_pb2.Completion:
        """The whole answer. Raises GatewayError."""
        ready = self.prepare(call, spec, options, stream=False)
        call.limit(ready.provider.total_unary)
        assembly = Assembly(
            ready.target.origin,
            ready.target.model,
            reasoning_argument=ready.reasoning_argument,
            price=ready.provider.price(ready.target.model),
        )
        async with self._attempt(call, ready, assembly) as attempt:
            reply = await exchange(call, attempt, ready.upstream, ready.dialect, ready.request)
            ready.dialect.decode(reply.body, assembly)
            assembly.require_content()
            assembly.require_order()
        answer = assembly.completion()
        self._complete(call, answer, ready, attempt)
        if options.include_raw:
            answer.raw.content_type = reply.headers.get("content-type", "")
            answer.raw.body = reply.body[:MAX_RAW_BYTES]
            answer.raw.truncated = len(reply.body) > MAX_RAW_BYTES
        return answer

    async def stream(
        self,
        call: Call,
        spec: CompletionSpec,
        options: CallOptions,
        stream_options: completion_service_pb2.StreamOptions,
    ) -> AsyncGenerator[list[StreamEvent]]:
        """Batches of events that leave together, not numbered; the last one ends with `finished`. Raises GatewayError.

        The events before the provider's first are the caller's to make (`started`), so that a failure before then has
        sent nothing.
        """
        ready = self.prepare(call, spec, options, stream=True)
        call.limit(ready.provider.total_stream)
        include_completion = stream_options.include_completion
        assembly = Assembly(
            ready.target.origin,
            ready.target.model,
            emits=True,
            keep=include_completion,
            reasoning_argument=ready.reasoning_argument,
            include_raw=options.include_raw,
            price=ready.provider.price(ready.target.model),
        )
        window = _seconds(stream_options.coalesce_window)
        # A stream lasts. What it holds of the request, it holds as long: a prompt can have megabytes.
        del spec, options, stream_options
        dialect = ready.dialect
        async with (
            self._attempt(call, ready, assembly) as attempt,
            _first_bytes_within(ready.provider.first_token) as patience,
            streamed(call, attempt, ready.upstream, dialect, ready.request) as reply,
        ):
            ready.sent()
            kept = attempt.response
            chunks = reply.chunks()
            if window:
                chunks = _windowed(chunks, window)
            stream = _Decoding(FRAMINGS[dialect.framing](), dialect.decoder(assembly), assembly)
            introduced = begun = ended = False
            async with aclosing(chunks):
                while not ended:
                    with call.waiting:
                        chunk = await (_lingering(chunks) if assembly.ended else anext(chunks, None))
                    ended = chunk is None
                    if chunk is not None and kept.wants:
                        kept.add(chunk)
                    if not begun:
                        begun = True
                        patience.reschedule(None)
                    failure = stream.take(chunk)
                    if assembly.has_events:
                        events = assembly.events()
                        if not introduced:
                            introduced = True
                            events.insert(0, self._attempt_started(ready, attempt, assembly))
                        yield events
                    if failure is not None:
                        raise failure
        yield [self._finished(call, ready, assembly, attempt, include_completion)]

    def prepare(self, call: Call, spec: CompletionSpec, options: CallOptions, *, stream: bool) -> Prepared:
        """Resolves and encodes. Raises ModelNotFound, UnsupportedParameter and InvalidRequest."""
        provider, route = self.resolve(spec.model)
        target = provider.target(route.model)
        upstream = self.upstream(provider, options.credential)
        spec = prepared(spec, route.defaults)
        notes = Notes()
        dialect = provider.dialect_for(route.model)
        request = dialect.encode(spec, target, notes, stream=stream)
        refuse_unsupported(notes, options)
        call.provider, call.model = provider.name, route.model
        return Prepared(provider, dialect, upstream, target, request, notes, spec.reasoning_argument.name)

    def upstream(self, provider: Provider, credential: str) -> Upstream:
        """Raises InvalidRequest for a credential that is unknown, or another provider's."""
        if credential and self.credentials.get(credential) != provider.name:
            raise InvalidRequest(
                f"no credential {credential!r} for provider {provider.name!r}",
                violations=[
                    Violation(
                        "options.credential",
                        f"{credential!r} is not a credential of provider {provider.name!r}; leave it out to use the "
                        "provider's own",
                    )
                ],
            )
        return provider.upstreams[credential]

    async def aclose(self) -> None:
        for provider in self.providers.values():
            await provider.aclose()

    # -- steps --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _attempt(self, call: Call, ready: Prepared, assembly: Assembly) -> AsyncIterator[Attempt]:
        """One attempt, after which the call knows what was spent. Waits until the provider may have one more."""
        async with self.admission.provider(ready.provider.name).place(call):
            attempt = call.begin_attempt(ready.provider.name, ready.target.model)
            try:
                with call.attempting(attempt):
                    yield attempt
            finally:
                call.usage = attempt.usage = assembly.spent()
                call.first_token_at = assembly.first_token_at
                attempt.response_model, attempt.response_id = assembly.model, assembly.response_id
                attempt.finish_reasons = assembly.finish_reasons

    def _attempt_started(self, ready: Prepared, attempt: Attempt, assembly: Assembly) -> StreamEvent:
        event = StreamEvent()
        started = event.attempt_started
        started.attempt = attempt.number
        started.provider = ready.provider.name
        started.model = assembly.model
        started.provider_response_id = assembly.response_id
        return event

    def _complete(self, call: Call, answer: completion_pb2.Completion, ready: Prepared, attempt: Attempt) -> None:
        """Adds what the gateway knows to what the provider said."""
        answer.id = call.id
        answer.create_time.CopyFrom(timestamp(call.create_time))
        answer.provider = ready.provider.name
        answer.provider_request_id = call.provider_request_id
        answer.attempts = len(call.attempts)
        answer.timing.CopyFrom(timing(call))
        answer.warnings.extend(ready.notes.warnings())
        answer.rate_limits.extend(attempt.rate_limits)

    def _finished(
        self,
        call: Call,
        ready: Prepared,
        assembly: Assembly,
        attempt: Attempt,
        include_completion: bool,
    ) -> StreamEvent:
        event = StreamEvent()
        finished = event.finished
        usage = assembly.spent()
        if usage is not None:
            finished.usage.CopyFrom(usage)
        finished.timing.CopyFrom(timing(call))
        finished.warnings.extend(ready.notes.warnings())
        finished.attempts = len(call.attempts)
        finished.provider_request_id = call.provider_request_id
        finished.service_tier = assembly.service_tier
        finished.system_fingerprint = assembly.system_fingerprint
        finished.rate_limits.extend(attempt.rate_limits)
        if include_completion:
            answer = assembly.completion()
            self._complete(call, answer, ready, attempt)
            answer.timing.CopyFrom(finished.timing)
            finished.completion.CopyFrom(answer)
        return event

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self.providers)) or "none"
        if "/" not in name:
            return (
                f"no model {name!r}: write it as PROVIDER/MODEL with one of the configured providers ({known}), or add "
                "it to `models` in the configuration"
            )
        return f"no provider {name.partition('/')[0]!r} for model {name!r}: the configured providers are {known}"


def refuse_unsupported(notes: Notes, options: CallOptions) -> None:
    """Raises UnsupportedParameter unless the caller asked for warnings."""
    if notes.unsupported and options.on_unsupported != completion_pb2.ON_UNSUPPORTED_WARN:
        raise UnsupportedParameter(
            "the model cannot honour: "
            + ", ".join(path for _, path, _ in notes.unsupported)
            + " (leave it out, or set options.on_unsupported to WARN)",
            violations=notes.violations(),
        )


@dataclass(slots=True)
class _Decoding:
    """Bytes to events of one stream."""

    framer: Framer
    decoder: Decoder
    assembly: Assembly

    def take(self, chunk: bytes | None) -> LLMError | None:
        """Decodes what a chunk completes; None: the stream has ended.

        An error is returned, so that what came before it is delivered first.
        """
        assembly, decoder = self.assembly, self.decoder
        try:
            for event in self.framer.end() if chunk is None else self.framer.feed(chunk):
                if assembly.include_raw:
                    assembly.raw_event(event.name, event.data)
                decoder.event(event)
            if chunk is None:
                decoder.end()
                assembly.require_order()
        except LLMError as error:
            return error
        return None


@asynccontextmanager
async def _first_bytes_within(limit: float | None) -> AsyncIterator[asyncio.Timeout]:
    """Bounds the wait for the first bytes of an answer, headers and connection included, until it is rescheduled."""
    timer = asyncio.timeout(limit)
    try:
        async with timer:
            yield timer
    except TimeoutError:
        if not timer.expired():
            raise
        raise LLMTimeoutError(f"the provider sent nothing for {limit:g} s") from None


async def _lingering(chunks: AsyncGenerator[bytes]) -> bytes | None:
    """What follows the provider's last word. All was said: a connection that stays open or breaks spoils it no more."""
    try:
        async with asyncio.timeout(LINGER):
            return await anext(chunks, None)
    except (TimeoutError, LLMConnectionError):
        return None


async def _windowed(chunks: AsyncGenerator[bytes], window: float) -> AsyncGenerator[bytes]:
    """Joins what arrives within `window` seconds of a first chunk."""
    loop = asyncio.get_running_loop()
    ended = object()

    async def pull() -> object:
        return await anext(chunks, ended)

    waiting: asyncio.Task[object] | None = None
    try:
        while True:
            first = await (waiting or pull())
            waiting = None
            if first is ended:
                return
            group, until = [first], loop.time() + window
            while first is not ended:
                waiting = asyncio.ensure_future(pull())
                done, _ = await asyncio.wait({waiting}, timeout=until - loop.time())
                if not done:
                    break
                try:
                    first = waiting.result()
                except LLMError:
                    # What came before the failure is delivered before it is raised.
                    break
                waiting = None
                if first is not ended:
                    group.append(first)
            yield b"".join(group)  # type: ignore[arg-type]  # all but the mark of the end are bytes
            if first is ended:
                return
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})


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


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9

"""One streamed call: attempts up to the first part of the answer, and what becomes of an answer that breaks off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline_server import continuing, reading
from trunkline_server.answer import finished
from trunkline_server.call import Call, Cause
from trunkline_server.errors import GatewayError, LLMError
from trunkline_server.exchange import CallOptions, CompletionSpec, Prepared, prepare
from trunkline_server.providers.assembly import Assembly, StreamEvent
from trunkline_server.reading import Reading
from trunkline_server.routing.attempts import NOBODY_ASKED, Attempts, attempts_at
from trunkline_server.routing.durations import seconds_of
from trunkline_server.routing.table import Candidate, Table

StreamOptions = completion_service_pb2.StreamOptions

_RESTART = completion_pb2.AFTER_FIRST_TOKEN_RESTART
_CONTINUE = completion_pb2.AFTER_FIRST_TOKEN_CONTINUE


@dataclass(slots=True)
class Beginning:
    """Begins the answer at a target, again where it broke off."""

    call: Call
    spec: CompletionSpec
    options: CallOptions
    stream_options: StreamOptions

    async def begin(self, candidate: Candidate, cause: Cause, restarted: str = "") -> Reading:
        """`restarted`: why what was sent before is to be forgotten."""
        ready = prepare(self.call, candidate, self.spec, self.options, stream=True)
        options = self.options
        assembly = Assembly(
            candidate.target.origin,
            candidate.target.model,
            emits=True,
            # The text is needed to go on with it.
            keep=self.stream_options.include_completion or options.after_first_token == _CONTINUE,
            reasoning_argument=ready.reasoning_argument,
            include_raw=options.include_raw,
            price=candidate.cost,
        )
        return await self._read(ready, cause, assembly, restarted)

    async def go_on(self, candidate: Candidate, assembly: Assembly) -> Reading:
        """Goes on with a text that broke off, at a target that can."""
        prefill, said = candidate.target.capabilities.prefill, assembly.said()
        assert prefill is not None  # noqa: S101  # no other target is chosen
        assert said is not None  # noqa: S101  # there is no obstacle
        words = said.rstrip()
        spec = continuing.continued(self.spec, words) if words else self.spec
        ready = prepare(self.call, candidate, spec, self.options, stream=True)
        if words:
            ready.request = continuing.marked(ready.request, prefill)
        target, echo = candidate.target, words if prefill.echoes else ""
        assembly.go_on(target.origin, target.model, candidate.cost, echo=echo, space=said[len(words) :])
        return await self._read(ready, Cause.CONTINUE, assembly)

    async def _read(self, ready: Prepared, cause: Cause, assembly: Assembly, restarted: str = "") -> Reading:
        window = seconds_of(self.stream_options.coalesce_window)
        return await reading.begin(self.call, ready, cause, assembly, window=window, restarted=restarted)


async def events(
    call: Call,
    current: Callable[[], Table],
    spec: CompletionSpec,
    options: CallOptions,
    stream_options: StreamOptions,
) -> AsyncGenerator[list[StreamEvent]]:
    """Batches of events that leave together; the last one ends with `finished`. Raises GatewayError.

    `current`: the table of the moment when the call begins.
    """
    late, include_completion = options.after_first_token, stream_options.include_completion
    with current() as table:
        attempts = attempts_at(table, call, spec.model or spec.config, options, spec.labels, streamed=True)
        beginning = Beginning(call, spec, options, stream_options)
        answer = await attempts.run(beginning.begin, hedged=options.hedge, discard=Reading.aclose)
        # A stream lasts. What it holds of the request, it holds as long: a prompt can have megabytes.
        again = partial(_again, attempts, beginning, late) if late in (_RESTART, _CONTINUE) else None
        del attempts, beginning, spec, options, stream_options
        while True:
            try:
                async with aclosing(answer.rest):
                    batch, answer.first = answer.first, []
                    yield batch
                    async for batch in answer.rest:
                        yield batch
                break
            except LLMError as error:
                if again is None:
                    raise
                answer = await again(answer, error)
        yield [finished(call, answer, include_completion)]


async def _again(attempts: Attempts, beginning: Beginning, late: int, broken: Reading, error: LLMError) -> Reading:
    """Another attempt at an answer that broke off. Raises what it broke off with, and says why nobody took over."""
    candidate, assembly = broken.ready.candidate, broken.assembly

    async def restart(candidate: Candidate, cause: Cause) -> Reading:
        return await beginning.begin(candidate, cause, error.reason)

    async def go_on(candidate: Candidate, cause: Cause) -> Reading:
        return await beginning.go_on(candidate, assembly)

    try:
        if late == _RESTART:
            return await attempts.take_over(restart, candidate, error, Cause.RESTART)
        why = continuing.obstacle(beginning.spec, assembly)
        if not why:
            attempts.fits = _goes_on
            return await attempts.take_over(go_on, candidate, error, Cause.CONTINUE, anywhere=True)
    except (LLMError, *NOBODY_ASKED) as last:
        why = "no other attempt was possible" if last is error else f"another attempt ended with {last.reason}"
        if late == _CONTINUE and last is error:
            why = "no target that is left can go on with a text"
    raise _told(error, "begun again" if late == _RESTART else "gone on with", why)


def _goes_on(candidate: Candidate) -> bool:
    return candidate.target.capabilities.prefill is not None


def _told(error: LLMError, what: str, why: str) -> GatewayError:
    error.message = f"{error.message} (it was not {what}: {why})"
    error.metadata["afterFirstToken"] = why
    return error

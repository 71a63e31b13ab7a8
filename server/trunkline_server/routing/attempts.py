"""The one owner of retries: which target a call tries, when it tries another, and when it gives up.

Nothing below it repeats anything, and a client is told not to (`Call.spent`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from types import TracebackType
from typing import Generic, Self, TypeVar

from trunkline.v1 import completion_pb2
from trunkline_server.call import Attempt, Call, Cause
from trunkline_server.errors import GatewayError, GatewayOverloaded, LLMError, NextTarget, UnsupportedParameter
from trunkline_server.routing.durations import seconds_of
from trunkline_server.routing.strategy import Choice, Moment, sticky
from trunkline_server.routing.table import Candidate, Route, Table

T = TypeVar("T")

#: Shortest wait, by a target's own times, before a second one is tried beside it.
LEAST_PATIENCE = 0.05
#: Shortest time for which a target is left alone whose rate limit is used up.
LEAST_USED_UP = 1.0
#: Longest wait for a provider's Retry-After where no deadline bounds it, in seconds.
PATIENCE = 60.0

#: Ways to fail before the target was asked: it cannot do it, or as much as may be is running there.
NOBODY_ASKED = (UnsupportedParameter, GatewayOverloaded)

#: Makes one attempt at a target. Raises LLMError, and those of `NOBODY_ASKED`.
Work = Callable[[Candidate, Cause], Awaitable[T]]

_random = Random()  # noqa: S311  # spreads load, guards nothing


def _any(_: Candidate) -> bool:
    return True


class Attempts:
    """The attempts of one call."""

    __slots__ = (
        "_at",
        "_back",
        "_choose",
        "_error",
        "_failed",
        "_left",
        "call",
        "fits",
        "made",
        "random",
        "route",
        "streamed",
    )

    def __init__(
        self, call: Call, route: Route, *, streamed: bool, label: str | None = None, random: Random = _random
    ) -> None:
        """`label`: the call's value of the route's sticky label, if it has one."""
        self.call = call
        self.route = route
        self.streamed = streamed
        self.random = random
        #: Attempts that failed.
        self.made = 0
        self._choose: Choice = route.choose if label is None else sticky(label)
        #: Targets that were not tried yet; None: there is only one.
        self._left: list[Candidate] | None = None
        #: Those to be left alone that are tried all the same, because too many are.
        self._back: Sequence[Candidate] = ()
        #: When each target that may be tried again may be.
        self._failed: dict[Candidate, float] = {}
        #: What the caller is told if nothing helps.
        self._error: GatewayError | None = None
        #: The target that is tried, or that failed.
        self._at: Candidate
        #: May a target be tried at all?
        self.fits: Callable[[Candidate], bool] = _any

    async def run(
        self, work: Work[T], *, hedged: bool = False, discard: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """What `work` returns for the first target that it succeeds with. Raises the last target's error.

        `hedged`: a second target is tried beside a slow first one. `discard`: closes what comes too late.
        """
        candidate, cause = self.first(), Cause.FIRST
        while True:
            self._at = candidate
            try:
                if hedged and self._left is not None and cause is Cause.FIRST:
                    return await self._hedged(work, candidate, discard)
                return await work(candidate, cause)
            except (LLMError, *NOBODY_ASKED) as error:
                candidate, cause = await self.after(self._at, error)

    async def take_over(
        self, work: Work[T], failed: Candidate, error: GatewayError, cause: Cause, *, anywhere: bool = False
    ) -> T:
        """As `run`, after a target failed whose answer had begun. `anywhere`: what a target says of its attempt to go
        on keeps no other from trying.
        """
        candidate, _ = await self.after(failed, error)
        while True:
            try:
                return await work(candidate, cause)
            except (LLMError, *NOBODY_ASKED) as again:
                candidate, _ = await self.after(candidate, again, anywhere=anywhere)

    def first(self) -> Candidate:
        """The target to begin with. A route's last target is tried however it fares."""
        candidates = self.route.candidates
        if len(candidates) == 1:
            return candidates[0]
        self._left = list(candidates)
        now = time.monotonic()
        if self.route.max_ejected < 1:
            self._back = _readmitted(self.route, now)
        return self._chosen(self._left, now) or min(candidates, key=lambda one: one.health.breaker.until)

    async def after(
        self, candidate: Candidate, error: GatewayError, *, anywhere: bool = False
    ) -> tuple[Candidate, Cause]:
        """The target to try after this one failed so, once it is time. Raises the error if there is none.

        `anywhere`: whatever the error is, another target may do better.
        """
        now = time.monotonic()
        told = self._note(candidate, error, now)
        if self.made >= self.route.retry.max_attempts:
            raise self._spent(told)
        other = self._other(candidate, told, now, anywhere=anywhere)
        if other is not None:
            if self.made:
                # There is another target, which is well: it is tried whether or not the budget has anything left.
                candidate.health.budget.take(now)
            return other, Cause.FALLBACK if self.made else Cause.FIRST
        again = self._again(now)
        if again is None:
            raise self._spent(told)
        target, wait = again
        if not target.health.budget.take(now):
            raise self._spent(told)
        with self.call.waiting:
            await asyncio.sleep(wait)
        return target, Cause.RETRY

    # -- steps --------------------------------------------------------------------------------------------------------

    def _note(self, candidate: Candidate, error: GatewayError, now: float) -> GatewayError:
        """A target failed. Returns what the caller is told if nothing helps."""
        if self._left is not None and candidate in self._left:
            self._left.remove(candidate)
        if isinstance(error, LLMError):
            self.made += 1
            self._error = error
            self._failed.pop(candidate, None)
            if error.same_target:
                self._failed[candidate] = now + (error.retry_after or 0.0)
        elif self._error is None:
            self._error = error
        return self._error

    def _spent(self, error: GatewayError) -> GatewayError:
        """The error to end with: where the gateway tries again, nobody else is to."""
        self.call.spent = self.route.retry.max_attempts > 1
        return error

    def _other(
        self, candidate: Candidate, error: GatewayError, now: float, *, anywhere: bool = False
    ) -> Candidate | None:
        """Another target that was not tried yet, is well, and may fare better with such an error."""
        left = [one for one in self._left or () if self.fits(one)]
        if isinstance(error, LLMError) and not anywhere:
            if error.next_target is NextTarget.NO:
                return None
            if error.next_target is NextTarget.LARGER:
                least = candidate.context_window or math.inf
                left = [one for one in left if (one.context_window or 0) > least]
        return self._chosen(left, now) if left else None

    def _chosen(self, among: Sequence[Candidate], now: float) -> Candidate | None:
        """One that may be tried, of the first priority that has any; None: all are to be left alone."""
        well = [one for one in among if one.health.breaker.permits(now) or one in self._back]
        if not well:
            return None
        priority = well[0].priority
        if well[-1].priority != priority:
            well = [candidate for candidate in well if candidate.priority == priority]
        if len(well) == 1:
            return well[0]
        return self._choose(well, Moment(now, self.random, streamed=self.streamed))

    async def _hedged(self, work: Work[T], first: Candidate, discard: Callable[[T], Awaitable[None]] | None) -> T:
        """The first of two targets to succeed; the other one is let go."""
        racing = [_Racer(first, asyncio.ensure_future(work(first, Cause.FIRST)))]
        winner: _Racer[T] | None = None
        try:
            after = self._patience(first)
            if after is not None:
                done, _ = await asyncio.wait([racing[0].task], timeout=after)
                second = None if done else self._second(first)
                if second is not None:
                    racing.append(_Racer(second, asyncio.ensure_future(work(second, Cause.HEDGE))))
            winner = await self._first_of(racing)
            return winner.task.result()
        finally:
            await self._let_go([racer for racer in racing if racer is not winner], discard)
            if winner is not None:
                # Nobody comes back to the one that was slower.
                self._left = [one for one in self._left or () if one not in [racer.candidate for racer in racing]]
                self._follow(winner.candidate)

    async def _first_of(self, racing: Sequence[_Racer[T]]) -> _Racer[T]:
        """The first one to succeed. Raises the error of the last one to fail."""
        left = list(racing)
        while True:
            await asyncio.wait([racer.task for racer in left], return_when=asyncio.FIRST_COMPLETED)
            ended = [racer for racer in left if racer.task.done()]
            for racer in ended:
                if racer.task.exception() is None:
                    return racer
            for racer in ended:
                left.remove(racer)
                error = racer.task.exception()
                if not left or not isinstance(error, (LLMError, *NOBODY_ASKED)):
                    self._at = racer.candidate
                    # Raises it.
                    racer.task.result()
                else:
                    self._note(racer.candidate, error, time.monotonic())

    async def _let_go(self, racing: Sequence[_Racer[T]], discard: Callable[[T], Awaitable[None]] | None) -> None:
        """Ends attempts, at once, and closes what they have made already."""
        late = [racer for racer in racing if not racer.task.done()]
        now = time.monotonic()
        for racer in late:
            racer.task.cancel()
            # It took at least so long: without that, slow answers would never be heard of.
            racer.candidate.health.latency(self.streamed).observe(now - racer.began, now)
        if late:
            await asyncio.wait([racer.task for racer in late])
        for racer in racing:
            task = racer.task
            if discard is not None and not task.cancelled() and task.exception() is None:
                await discard(task.result())

    def _follow(self, candidate: Candidate) -> None:
        """The call is told by the target's attempt."""
        where = (candidate.provider.name, candidate.model, candidate.credential)
        for attempt in reversed(self.call.attempts):
            if (attempt.provider, attempt.model, attempt.credential) == where:
                self.call.follow(attempt)
                return

    def _patience(self, candidate: Candidate) -> float | None:
        """How long a slow target is waited for before a second one is tried; None: nobody knows."""
        if self.route.hedge_after is not None:
            return self.route.hedge_after
        p95 = candidate.health.latency(self.streamed).p95()
        return None if p95 is None else max(p95, LEAST_PATIENCE)

    def _second(self, first: Candidate) -> Candidate | None:
        """A target to try beside the first, within the budget of the first."""
        now = time.monotonic()
        among = [candidate for candidate in self._left or () if candidate is not first]
        second = self._chosen(among, now) if among else None
        return second if second is not None and first.health.budget.take(now) else None

    def _again(self, now: float) -> tuple[Candidate, float] | None:
        """The target that may be tried again first, and the wait until then; None: not within the deadline."""
        failed = [candidate for candidate in self._failed if self.fits(candidate)]
        if not failed:
            return None
        target = min(failed, key=self._failed.__getitem__)
        policy = self.route.retry
        # Full jitter: those who failed together do not come back together.
        most = min(policy.max_backoff, policy.initial_backoff * 2 ** (self.made - 1))
        wait = max(self._failed[target] - now, self.random.uniform(0, most))
        remaining = self.call.remaining()
        return (target, wait) if wait < (PATIENCE if remaining is None else remaining) else None


def _readmitted(route: Route, now: float) -> Sequence[Candidate]:
    """Of more targets than may be left alone, those whose time ends first."""
    ill = [candidate for candidate in route.candidates if not candidate.health.breaker.permits(now)]
    ill.sort(key=lambda candidate: candidate.health.breaker.until)
    return ill[: len(ill) - int(route.max_ejected * len(route.candidates))]


def attempts_at(
    table: Table,
    call: Call,
    name: str,
    options: completion_pb2.CallOptions,
    labels: Mapping[str, str],
    *,
    streamed: bool = False,
) -> Attempts:
    """The attempts of a call for a model. Raises ModelNotFound and InvalidRequest."""
    route = table.resolve(name, options.credential)
    label = labels.get(route.sticky_label) if route.sticky_label else None
    return Attempts(call, route, streamed=streamed, label=label)


class _Racer(Generic[T]):
    """One of two attempts side by side."""

    __slots__ = ("began", "candidate", "task")

    def __init__(self, candidate: Candidate, task: asyncio.Future[T]) -> None:
        self.candidate = candidate
        self.task = task
        self.began = time.monotonic()


class Try:
    """One attempt while it lasts: it has a place at its provider, tells of the target, and is told how it ends.

    Entering it raises GatewayOverloaded if the provider has no place for it.
    """

    __slots__ = ("_answered", "_cause", "_place", "_probe", "attempt", "call", "candidate", "streamed")

    def __init__(self, call: Call, candidate: Candidate, cause: Cause, *, streamed: bool = False) -> None:
        self.call = call
        self.candidate = candidate
        self.streamed = streamed
        self._cause = cause
        self._answered = False
        self._probe = False
        self._place: AbstractAsyncContextManager[None]
        self.attempt: Attempt

    async def __aenter__(self) -> Self:
        candidate, health = self.candidate, self.candidate.health
        self._place = candidate.gate.place(self.call)
        await self._place.__aenter__()
        self.attempt = attempt = self.call.begin_attempt(candidate.provider.name, candidate.model, self._cause)
        attempt.credential = candidate.credential
        if attempt.cause is Cause.FIRST:
            health.budget.deposit()
        health.in_flight += 1
        self._probe = health.breaker.began(attempt.began)
        return self

    def answered(self) -> None:
        """The target gave what was waited for: the first part of a stream, or a whole answer."""
        attempt, health, now = self.attempt, self.candidate.health, time.monotonic()
        self._answered = True
        health.latency(self.streamed).observe(now - attempt.began, now)
        health.breaker.succeeded(now, attempt.began, self._probe)
        self._probe = False
        for limit in attempt.rate_limits:
            if limit.HasField("remaining") and limit.remaining <= 0 and limit.HasField("reset_after"):
                # Until all of it is there again. Most fill up steadily: after a part of that time there is some.
                share = seconds_of(limit.reset_after) / max(1, limit.limit)
                health.breaker.cool(now, max(share, LEAST_USED_UP))
        if attempt.cause is not Cause.BATCH:
            self.call.follow(attempt)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._place.__aexit__(kind, error, trace)
        attempt, health = self.attempt, self.candidate.health
        attempt.ended = now = time.monotonic()
        health.in_flight -= 1
        if error is None:
            if not self._answered:
                self.answered()
            return
        if isinstance(error, GatewayError):
            attempt.reason, attempt.message = error.reason, str(error)
        if isinstance(error, LLMError):
            health.failed(error, now, attempt.began, self._probe, answered=self._answered)
            self.call.follow(attempt)
            error.provider, error.model = attempt.provider, attempt.model
            if error.http_status is None:
                error.http_status = attempt.http_status
            if not error.request_id:
                error.request_id = attempt.request_id
        else:
            health.breaker.left(self._probe)

"""One call from arrival to end: what the engine learns of it and the boundary reports."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from trunkline.v1 import completion_pb2
from trunkline_server.errors import GatewayError, LLMError


@dataclass(slots=True)
class Attempt:
    """One try at one target."""

    number: int
    provider: str
    model: str
    began: float
    ended: float | None = None
    reason: str = ""
    http_status: int | None = None
    #: The provider's id of the HTTP request.
    request_id: str = ""

    @property
    def seconds(self) -> float:
        return (self.ended if self.ended is not None else time.monotonic()) - self.began


@dataclass(slots=True)
class Call:
    """Times are monotonic seconds, except `create_time` (Unix)."""

    method: str
    caller: str = ""
    #: The caller's own id of the call, for logs and errors.
    request_id: str = ""
    #: When the time of the call runs out; None: never.
    deadline: float | None = None
    #: What ends the call at its deadline.
    timer: asyncio.Timeout | None = None
    #: Headers of the caller that are passed on to the provider.
    forward: tuple[tuple[str, str], ...] = ()
    id: str = field(default_factory=lambda: "cmpl_" + os.urandom(16).hex())
    create_time: float = field(default_factory=time.time)
    received: float = field(default_factory=time.monotonic)
    #: Passed authentication, validation and admission.
    admitted: bool = False
    provider: str = ""
    model: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    max_attempts: int = 1
    usage: completion_pb2.Usage | None = None
    provider_request_id: str = ""
    first_event_at: float | None = None
    first_token_at: float | None = None
    #: Events sent to the caller.
    sequence: int = 0
    #: Why the gateway itself ends the call; set before its task is cancelled.
    ending: GatewayError | None = None

    def begin_attempt(self, provider: str, model: str) -> Attempt:
        self.provider, self.model = provider, model
        attempt = Attempt(len(self.attempts) + 1, provider, model, time.monotonic())
        self.attempts.append(attempt)
        return attempt

    @contextmanager
    def attempt(self, provider: str, model: str) -> Iterator[Attempt]:
        """One attempt: an error of the provider's leaves with its name and what is known of the answer."""
        attempt = self.begin_attempt(provider, model)
        try:
            yield attempt
        except GatewayError as error:
            attempt.reason = error.reason
            if isinstance(error, LLMError):
                error.provider, error.model = provider, model
                if error.http_status is None:
                    error.http_status = attempt.http_status
                if not error.request_id:
                    error.request_id = attempt.request_id
            raise
        finally:
            attempt.ended = time.monotonic()

    def answered(self, attempt: Attempt, status: int, request_id: str) -> None:
        """The provider has begun to answer the attempt."""
        if self.first_event_at is None:
            self.first_event_at = time.monotonic()
        attempt.http_status, attempt.request_id = status, request_id
        self.provider_request_id = self.provider_request_id or request_id

    def remaining(self) -> float | None:
        """Seconds until the time of the call runs out; None: it does not."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def limit(self, seconds: float) -> None:
        """Brings the deadline forward to at most `seconds` from arrival."""
        wanted = self.received + seconds
        if self.deadline is None or wanted < self.deadline:
            self.deadline = wanted
            if self.timer is not None:
                self.timer.reschedule(asyncio.get_running_loop().time() + wanted - time.monotonic())

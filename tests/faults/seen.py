"""What a call looked like from both ends, and the statements that a scenario makes about it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.upstream import Exchange

from trunkline.collect import Collector

#: The provider's socket is closed this soon after its caller left, in seconds.
CLOSED_WITHIN = 0.1


@dataclass
class Seen:
    """One call from its caller's end. Times are monotonic seconds."""

    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    #: The caller was told that the answer is complete.
    complete: bool = False
    #: Code of gRPC by name; "OK", and "CANCELLED" where the caller left.
    code: str = ""
    #: Of ErrorInfo; "" without one.
    reason: str = ""
    message: str = ""
    #: Text as it was delivered, without what a restart took back.
    text: str = ""
    attempts: int = 0
    #: Seconds of RetryInfo; None: not told.
    retry_after: float | None = None
    #: Milliseconds of grpc-retry-pushback-ms; None: not told.
    pushback: int | None = None
    restarts: int = 0
    heartbeats: int = 0
    #: Events received, and the last one that the error says was sent.
    events: int = 0
    last_sequence: int | None = None
    output_tokens: int | None = None
    completion_id: str = ""
    #: Holds a stream to the contract's rules.
    collector: Collector = field(default_factory=Collector)

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Provided:
    """The same call from the providers' end: every request, by target, in order."""

    requests: Mapping[str, Sequence[Exchange]]

    def of(self, target: str) -> Sequence[Exchange]:
        return self.requests.get(target, ())


@dataclass(frozen=True)
class Statement:
    """Something that must be so."""

    text: str
    #: "" if it is so, else what was instead.
    judge: Callable[[Seen, Provided], str]
    #: The same for a gateway that speaks OpenAI's HTTP; None where that cannot say it.
    peers: Callable[[Seen, Provided], str] | None = None


Judge = Callable[[Seen, Provided], tuple[bool, object]]


def _statement(text: str, judge: Judge, *, peers: Judge | None = None) -> Statement:
    def told(by: Judge) -> Callable[[Seen, Provided], str]:
        def say(seen: Seen, provided: Provided) -> str:
            holds, found = by(seen, provided)
            return "" if holds else f"{text}; found {found!r}"

        return say

    return Statement(text, told(judge), told(peers) if peers else None)


def _everywhere(text: str, judge: Judge) -> Statement:
    """Can be said of every gateway."""
    return _statement(text, judge, peers=judge)


# -- what the caller must see -----------------------------------------------------------------------------------------


def ok(text: str | None = "Hello there.") -> Statement:
    """The whole answer, told to be complete."""
    return _everywhere(
        f"OK with {text!r}" if text is not None else "OK",
        lambda seen, _: (
            seen.complete and seen.code == "OK" and text in {None, seen.text},
            (seen.code, seen.reason, seen.message, seen.text[:200]),
        ),
    )


def failed(code: str, reason: str) -> Statement:
    """One clear error, never OK."""
    return _statement(
        f"{code} {reason}",
        lambda seen, _: (
            (seen.code, seen.reason, seen.complete) == (code, reason, False),
            (seen.code, seen.reason, seen.message, seen.text[:200]),
        ),
        peers=lambda seen, _: (not seen.complete, (seen.code, seen.text[:200])),
    )


def delivered(text: str) -> Statement:
    """What came before the error stands, and the error says how far it went."""
    return _statement(
        f"delivered {text!r} before it",
        lambda seen, _: (
            seen.text == text and seen.last_sequence in {None, seen.events},
            (seen.text, seen.events, seen.last_sequence),
        ),
        peers=lambda seen, _: (seen.text == text, seen.text),
    )


def within(seconds: float) -> Statement:
    return _everywhere(f"within {seconds:g} s", lambda seen, _: (seen.seconds <= seconds, round(seen.seconds, 3)))


def not_before(seconds: float) -> Statement:
    return _everywhere(f"not before {seconds:g} s", lambda seen, _: (seen.seconds >= seconds, round(seen.seconds, 3)))


def attempts(number: int) -> Statement:
    return _statement(f"told of {number} attempts", lambda seen, _: (seen.attempts == number, seen.attempts))


def retry_after(seconds: float) -> Statement:
    return _statement(f"RetryInfo {seconds:g} s", lambda seen, _: (seen.retry_after == seconds, seen.retry_after))


def pushback(milliseconds: int | None) -> Statement:
    return _statement(f"pushback {milliseconds}", lambda seen, _: (seen.pushback == milliseconds, seen.pushback))


def restarted(times: int) -> Statement:
    return _statement(
        f"told {times} times to forget what came before", lambda seen, _: (seen.restarts == times, seen.restarts)
    )


def heartbeats(least: int) -> Statement:
    return _statement(f"at least {least} heartbeats", lambda seen, _: (seen.heartbeats >= least, seen.heartbeats))


# -- what the provider must have seen ---------------------------------------------------------------------------------


def asked(**times: int) -> Statement:
    """So many requests at each target."""

    def judge(_: Seen, provided: Provided) -> tuple[bool, object]:
        found = {target: len(provided.of(target)) for target in times}
        return found == times, found

    return _everywhere("requests " + " ".join(f"{target}: {n}" for target, n in times.items()), judge)


def asked_at_most(**times: int) -> Statement:
    def judge(_: Seen, provided: Provided) -> tuple[bool, object]:
        found = {target: len(provided.of(target)) for target in times}
        return all(found[target] <= most for target, most in times.items()), found

    return _everywhere("requests at most " + " ".join(f"{target}: {n}" for target, n in times.items()), judge)


def apart(seconds: float, target: str = "a") -> Statement:
    """The second request came so long after the first."""

    def judge(_: Seen, provided: Provided) -> tuple[bool, object]:
        times = [exchange.arrived for exchange in provided.of(target)]
        gap = times[1] - times[0] if len(times) > 1 else None
        return gap is not None and gap >= seconds, gap

    return _everywhere(f"{seconds:g} s between two requests", judge)


def closed(target: str = "a", within: float = CLOSED_WITHIN) -> Statement:
    """The connection of the last request ended soon after the call did."""

    def judge(seen: Seen, provided: Provided) -> tuple[bool, object]:
        requests = provided.of(target)
        at = requests[-1].closed_at if requests else None
        return at is not None and at - seen.ended <= within, None if at is None else round(at - seen.ended, 3)

    return _everywhere(f"socket of {target} closed within {within * 1000:g} ms", judge)


def prefilled(text: str, target: str = "b") -> Statement:
    """The request goes on from the text that was delivered."""

    def judge(_: Seen, provided: Provided) -> tuple[bool, object]:
        requests = provided.of(target)
        last: Any = json.loads(requests[-1].body)["messages"][-1] if requests else {}
        return last.get("role") == "assistant" and text in json.dumps(last.get("content")), last

    return _everywhere(f"{target} was given {text!r} to go on from", judge)

"""What a caller is told of an error: google.rpc details, every text in them short, printable and free of secrets."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

from trunkline.v1 import completion_pb2
from trunkline.v1.error_pb2 import AttemptSummary, LlmErrorDetail
from trunkline_server import errors
from trunkline_server.errors import GatewayError, LLMError, Violation
from trunkline_server.redact import Redactor
from trunkline_server.rpc.findings import listed, unlisted

DOMAIN = "trunkline"
#: All that a caller is told of a bug.
INTERNAL_TEXT = "internal error"
#: Most bytes of the grpc-message as it is encoded for the wire.
MAX_MESSAGE_BYTES = 1024
MAX_RAW_ERROR_BYTES = 1024
MAX_ATTEMPTS = 8

# Most bytes of single texts, so that what is left after shedding always fits.
_NAME_BYTES = 128
_FIELD_BYTES = 256
_DESCRIPTION_BYTES = 384
_LINK_BYTES = 384
_METADATA_ENTRIES = 16

#: Most bytes of violations that are worth making: more than fit.
_VIOLATIONS_BYTES = 6 * 1024
_MAX_MS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """One attempt at a provider."""

    attempt: int
    provider: str
    model: str
    #: Why it failed; empty if it did not.
    reason: str
    http_status: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of the call that failed."""

    completion_id: str
    #: The caller's own id of the call.
    request_id: str = ""
    provider: str = ""
    model: str = ""
    attempts: Sequence[AttemptFacts] = ()
    usage: completion_pb2.Usage | None = None
    last_sequence_number: int = 0
    admitted: bool = True
    #: Seconds to the deadline; None if there is none.
    remaining: float | None = None
    #: The gateway's own attempts are spent.
    spent: bool = False


# -- texts ------------------------------------------------------------------------------------------------------------

# Control characters, line separators, and marks that turn the direction of what follows.
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_ENCODED = re.compile(rb"[^\x20-\x24\x26-\x7e]")


def cut(text: str, most: int, mark: str = "...") -> str:
    """At most `most` bytes of UTF-8."""
    if len(text) * 4 <= most:
        return text
    data = text.encode()
    if len(data) <= most:
        return text
    return data[: most - len(mark)].decode(errors="ignore") + mark


def _cut_encoded(text: str, most: int) -> str:
    """At most `most` bytes once gRPC has percent-encoded it."""

    def size(data: bytes) -> int:
        return len(data) + 2 * len(_ENCODED.findall(data))

    data = text.encode()
    if size(data) <= most:
        return text
    while (over := size(data) + 3 - most) > 0:
        data = data[: -max(1, over // 3)]
    return data.decode(errors="ignore") + "..."


class Case:
    """One error on its way to the wire."""

    __slots__ = ("error", "facts", "made_up", "message", "more", "redactor", "wait")

    def __init__(
        self, error: GatewayError, facts: CallFacts, redactor: Redactor, unsaid: tuple[float, float] | None
    ) -> None:
        """`unsaid`: least and most seconds to wait where nobody said how long."""
        self.error = error
        self.facts = facts
        self.redactor = redactor
        #: Violations that the details do not list.
        self.more = 0
        #: Milliseconds until another try may work; None if nobody knows.
        self.wait = _milliseconds(error.retry_after)
        #: Is the wait the gateway's own, because the provider told none?
        self.made_up = self.wait is None and unsaid is not None and isinstance(error, LLMError)
        if self.wait is None and unsaid is not None:
            self.wait = _milliseconds(random.uniform(*unsaid))  # noqa: S311  # spreads callers, guards nothing
        #: Of the status.
        self.message = self._message(error)

    def _message(self, error: GatewayError) -> str:
        # A class that is no leaf of the tree is a bug as well.
        ours = type(error) is not GatewayError and not isinstance(error, errors.InternalError)
        text = self.say(error.message, MAX_MESSAGE_BYTES) if ours else INTERNAL_TEXT
        return _cut_encoded(text, MAX_MESSAGE_BYTES) or error.reason.lower()

    def say(self, text: str, most: int) -> str:
        """One printable line of at most `most` bytes, with no secret in it."""
        shown = self.redactor.head(text, 2 * most)
        if len(text) > 2 * most:
            shown += "..."
        return cut(_SURROGATES.sub("\ufffd", _UNPRINTABLE.sub(" ", shown)).strip(), most)

    @property
    def last(self) -> AttemptFacts | None:
        return self.facts.attempts[-1] if self.facts.attempts else None

    @property
    def provider(self) -> str:
        named = self.error.provider if isinstance(self.error, LLMError) else ""
        return self.say(named or self.facts.provider or (self.last.provider if self.last else ""), _NAME_BYTES)

    @property
    def model(self) -> str:
        named = self.error.model if isinstance(self.error, LLMError) else ""
        return self.say(named or self.facts.model or (self.last.model if self.last else ""), _FIELD_BYTES)

    def error_info(self) -> rpc.ErrorInfo:
        metadata = dict(self.error.metadata)
        if isinstance(self.error, errors.LLMAuthenticationError):
            metadata.setdefault("credentialOwner", "gateway")
        if self.made_up:
            metadata["retryDelaySource"] = "gateway"
        entries = list(metadata.items())[:_METADATA_ENTRIES]
        return rpc.ErrorInfo(
            reason=self.error.reason,
            domain=DOMAIN,
            metadata={self.say(key, 64): self.say(value, _FIELD_BYTES) for key, value in entries},
        )

    def request_info(self) -> rpc.RequestInfo:
        # The caller's own id goes back to nobody but the caller: it is not redacted.
        theirs = cut(_SURROGATES.sub("\ufffd", _UNPRINTABLE.sub(" ", self.facts.request_id[:512])), _NAME_BYTES)
        return rpc.RequestInfo(request_id=cut(self.facts.completion_id, _NAME_BYTES), serving_data=theirs)

    def llm_error_detail(self) -> LlmErrorDetail:
        error, facts = self.error, self.facts
        detail = LlmErrorDetail(
            completion_id=cut(facts.completion_id, _NAME_BYTES),
            provider=self.provider,
            model=self.model,
            attempts=[self.attempt(attempt) for attempt in facts.attempts[-MAX_ATTEMPTS:]],
            retryable=error.retryable,
            last_sequence_number=max(0, min(facts.last_sequence_number, 2**32 - 1)),
        )
        status = self.last.http_status if self.last else None
        if facts.usage is not None:
            detail.usage.CopyFrom(facts.usage)
        if isinstance(error, LLMError):
            status = error.http_status if error.http_status is not None else status
            detail.provider_request_id = self.say(error.request_id, _NAME_BYTES)
            detail.provider_code = self.say(error.provider_code, _NAME_BYTES)
            detail.raw_error_json = self.preview(error.body)
        if status is not None:
            detail.upstream_status = _int32(status)
        return detail

    def attempt(self, facts: AttemptFacts) -> AttemptSummary:
        summary = AttemptSummary(
            attempt=_int32(facts.attempt),
            provider=self.say(facts.provider, _NAME_BYTES),
            model=self.say(facts.model, _FIELD_BYTES),
            reason=self.say(facts.reason, 64),
            duration=_duration(_milliseconds(facts.seconds) or 0),
        )
        if facts.http_status is not None:
            summary.upstream_status = _int32(facts.http_status)
        return summary

    def preview(self, body: bytes) -> str:
        """The beginning of a provider's body, as it is but for secrets."""
        text = body[: 8 * MAX_RAW_ERROR_BYTES].decode(errors="replace")
        return cut(self.redactor.head(text, 2 * MAX_RAW_ERROR_BYTES), MAX_RAW_ERROR_BYTES, mark="")

    def bad_request(self, violations: Sequence[Violation]) -> rpc.BadRequest:
        """As many as can fit at all; the last entry counts the others."""
        shown, self.more = listed(violations)
        made, size = rpc.BadRequest(), 0
        for at, violation in enumerate(shown):
            if size > _VIOLATIONS_BYTES:
                self.more += len(shown) - at
                break
            entry = made.field_violations.add(
                field=self.say(violation.field, _FIELD_BYTES),
                description=self.say(violation.description, _DESCRIPTION_BYTES),
            )
            size += entry.ByteSize()
        self.count_others(made)
        return made

    def count_others(self, bad_request: rpc.BadRequest) -> None:
        if self.more:
            last = unlisted(self.more)
            bad_request.field_violations.add(field=last.field, description=last.description)


def _milliseconds(seconds: float | None) -> int | None:
    if seconds is None or not abs(seconds) >= 0:
        return None  # not known, or NaN
    return math.ceil(max(0, min(seconds * 1000, _MAX_MS)))


def _duration(milliseconds: int) -> Duration:
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def _int32(number: int) -> int:
    return max(-(2**31), min(number, 2**31 - 1))


#: Makes one detail; None: the error has nothing to say there.
Detail = Callable[[Case], Any]

# -- details ----------------------------------------------------------------------------------------------------------


def retry_info(case: Case) -> rpc.RetryInfo | None:
    return None if case.wait is None else rpc.RetryInfo(retry_delay=_duration(case.wait))


def all_violations(case: Case) -> rpc.BadRequest:
    """Every violation; where the error lists none, its message for the whole request."""
    return case.bad_request(case.error.violations or [Violation("", case.error.message)])


def blamed(field: str) -> Detail:
    """What the provider blames, as a path in the request; `field` if it blames nothing. Without either: nothing."""

    def make(case: Case) -> rpc.BadRequest | None:
        if case.error.violations:
            return case.bad_request(case.error.violations)
        named = case.error.field if isinstance(case.error, LLMError) else ""
        if named and not named.startswith(("spec.", "options.")):
            named = f"spec.{named}"
        named = named or field
        return case.bad_request([Violation(named, case.error.message)]) if named else None

    return make


def resource(kind: str) -> Detail:
    def make(case: Case) -> rpc.ResourceInfo:
        resource_type, name = case.error.resource or (kind, case.model if kind == "model" else "")
        return rpc.ResourceInfo(
            resource_type=case.say(resource_type, _NAME_BYTES),
            resource_name=case.say(name, _FIELD_BYTES),
            description=cut(case.message, _DESCRIPTION_BYTES),
        )

    return make


def quota(case: Case) -> rpc.QuotaFailure:
    violation = rpc.QuotaFailure.Violation(
        subject=case.say(case.error.subject, _NAME_BYTES), description=cut(case.message, _DESCRIPTION_BYTES)
    )
    if isinstance(case.error, LLMError):
        violation.api_service = case.provider
        violation.quota_metric = case.say(case.error.quota_metric, _NAME_BYTES) or "requests"
    return rpc.QuotaFailure(violations=[violation])


def precondition(kind: str, subject: str) -> Detail:
    def make(case: Case) -> rpc.PreconditionFailure:
        violation = rpc.PreconditionFailure.Violation(
            type=kind,
            subject=case.say(case.error.subject, _NAME_BYTES) or subject + case.provider,
            description=cut(case.message, _DESCRIPTION_BYTES),
        )
        return rpc.PreconditionFailure(violations=[violation])

    return make


def help_link(case: Case) -> rpc.Help | None:
    link = case.error.help_link if isinstance(case.error, LLMError) else ""
    if not link.startswith(("https://", "http://")) or len(link) > _LINK_BYTES:
        return None
    return rpc.Help(links=[rpc.Help.Link(description="what to do about it", url=case.say(link, _LINK_BYTES))])

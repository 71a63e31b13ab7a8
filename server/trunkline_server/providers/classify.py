"""One classifier for the errors of all providers: structured fields first, the message's text last.

A dialect finds `Facts` in its body (`facts_of` knows the shapes that are about) and asks `classify` or `error_of` for
the exception. Messages are what the provider wrote; secrets in them are masked at the boundary, where all texts pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline_server import errors
from trunkline_server.errors import LLMError
from trunkline_server.providers.facts import Facts, facts_of
from trunkline_server.providers.headers import request_id, retry_after
from trunkline_server.providers.jsontext import try_loads

#: Most characters of a provider's message that are passed on.
MESSAGE_CHARS = 500
#: Most bytes of an error body that are looked at and kept.
BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Rule:
    """Matches if the status is among `statuses`, a code among `codes`, or `text` is found under one of `within`."""

    error: type[LLMError]
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    text: re.Pattern[str] | None = None
    #: Statuses under which the text counts. Empty: all.
    within: frozenset[int] = frozenset()
    #: Codes with which the text does not count.
    unless: frozenset[str] = frozenset()


def _rule(
    error: type[LLMError],
    *statuses: int,
    codes: str = "",
    text: str = "",
    within: Sequence[int] = (),
    unless: str = "",
) -> _Rule:
    pattern = re.compile(text, re.IGNORECASE) if text else None
    return _Rule(
        error, frozenset(statuses), frozenset(codes.split()), pattern, frozenset(within), frozenset(unless.split())
    )


_CREDITS = (
    r"credit balance|available credits|insufficient (balance|credits?|funds|quota)|out of credits|requires more credits"
    r"|monthly included credits|spending limit|payment required|specified api usage limits|exceeded your budget"
)
#: Google says so of every rate limit.
_QUOTA = r"exceeded your current quota|check your plan and billing"
_CONTEXT = (
    r"prompt is too long|context[ _]?(length|window|size|limit)|maximum context|input tokens? (count\b|exceed)"
    r"|number of input tokens exceeds|too many (input )?tokens|exceeds? the maximum (number of )?(input )?tokens"
    r"|input is too long|max(imum)? (allowed )?(input|prompt|model) length|range of input length|model token limit"
    r"|prompt (length|contains \d+).*(exceeds?|maximum)|prompt exceeds max|tokens.{0,20}max_new_tokens.{0,20}must be"
    r"|exceed_context_size|reduce the length of the (messages|input|prompt)|total text bytes"
)
_FILTER = (
    r"content (management )?policy|content filter|violates? (our |the )?usage (guidelines|polic)|safety_check_type"
    r"|blocked by (the |our )?(content|safety|guardrail)|flagged by (our |the )?(moderation|safety)|safety system"
    r"|(input|prompt|request) was flagged|unsafe or sensitive content|inappropriate content|content exists risk"
)
_KEY = (
    r"(incorrect|invalid|missing|expired|unknown) (x-)?api[ -]?(key|token)|\blogin fail"
    r"|api[ -]?key (is )?(not valid|invalid|expired|missing)"
    r"|(security token|signature).*(expired|invalid)|invalid (bearer|access|authentication) token|unreadable token"
)
_MODEL = (
    r"model\b.{0,200}?\b(does not exist|doesn['’]t exist|not found|was removed|decommissioned|is deprecated)"
    r"|(invalid|unknown|no such) model\b|not a valid model|supported (api )?model names are|model identifier is invalid"
    r"|model \S+ is not supported\.? supported models"
)
_TOO_LARGE = (
    r"request (is )?too large|maximum request size|tokens per submitted batch"
    r"|(image|file|document|payload|body)\b.{0,80}\b(too large|exceeds?\b.{0,40}\b(size|[mk]i?b\b))"
)
_CAPACITY = (
    r"capacity (temporarily )?exceeded|capacity_exhausted|no capacity|shared capacity"
    r"|(is|currently) (over(loaded|capacity)|at capacity)"
)
_THROTTLE = r"rate[ -]?limit|too many requests|throttl"

#: First match wins. Codes are compared in lower case with "_" for "-" and " ".
_RULES: tuple[_Rule, ...] = (
    _rule(
        errors.ContextWindowExceededError,
        codes="context_length_exceeded context_window_exceeded exceed_context_size_error model_context_window_exceeded"
        " context_limit_exceeded",
    ),
    _rule(
        errors.LLMInsufficientCreditsError,
        402,
        codes="insufficient_quota insufficient_credits insufficient_balance billing_error billing_not_active"
        " billing_hard_limit_reached payment_required quota_exhausted exceeded_current_quota_error arrearage",
        text=_CREDITS,
        within=(400, 403, 429),
    ),
    _rule(errors.LLMInsufficientCreditsError, text=_QUOTA, within=(400, 403, 429), unless="resource_exhausted"),
    _rule(
        errors.LLMContentFilterError,
        codes="content_filter content_filtered content_policy_violation responsibleaipolicyviolation moderation_blocked"
        " guardrail_intervened safety_check_failed data_inspection_failed datainspectionfailed",
        text=_FILTER,
        within=(400, 403),
    ),
    _rule(
        errors.LLMAuthenticationError,
        401,
        codes="invalid_api_key authentication_error invalid_authentication api_key_invalid api_key_expired"
        " unauthenticated unauthorized unrecognizedclientexception expiredtokenexception invalidsignatureexception"
        " incompletesignatureexception missingauthenticationtokenexception missingauthenticationtoken"
        " invalidclienttokenid signaturedoesnotmatch token_expired invalid_token credentials_missing",
        text=_KEY,
        within=(400, 403),
    ),
    _rule(errors.LLMRequestTooLargeError, text=r"request too large.*\brequested\b", within=(413, 429, 0)),
    _rule(
        errors.LLMProviderOverloaded,
        codes="overloaded_error overloaded engine_overloaded engine_overloaded_error server_overloaded"
        " model_capacity_exhausted model_overloaded",
        text=_CAPACITY,
        within=(429, 500, 503),
    ),
    _rule(
        errors.LLMRateLimitError,
        429,
        codes="rate_limit_exceeded rate_limit_error rate_limited ratelimitreached rate_limit throttlingexception"
        " throttled too_many_requests toomanyrequestsexception resource_exhausted requests_per_minute_exceeded"
        " servicequotaexceededexception slow_down tokens_exceeded",
    ),
    _rule(
        errors.LLMTimeoutError,
        408,
        504,
        524,
        codes="timeout timeout_error request_timeout deadline_exceeded modeltimeoutexception gateway_timeout",
    ),
    _rule(
        errors.LLMNotFoundError,
        404,
        codes="model_not_found not_found not_found_error deploymentnotfound model_decommissioned invalid_model"
        " resourcenotfoundexception previous_response_not_found model_not_available unknown_model model_not_supported",
    ),
    _rule(errors.LLMConflictError, 409, codes="conflict conflictexception aborted already_exists conflict_error"),
    _rule(
        errors.LLMPermissionDeniedError,
        403,
        codes="permission_denied permission_error forbidden accessdeniedexception access_denied"
        " unsupported_country_region_territory",
    ),
    _rule(
        errors.LLMRequestTooLargeError,
        413,
        codes="request_too_large payload_too_large content_too_large max_tokens_per_request",
    ),
    _rule(errors.LLMUnprocessableEntityError, 422, codes="unprocessable_entity unprocessable_entity_error"),
    _rule(
        errors.LLMProviderOverloaded,
        503,
        529,
        530,
        codes="service_unavailable serviceunavailableexception unavailable modelnotreadyexception server_busy"
        " service_unavailable_error",
    ),
    _rule(errors.LLMServerError, *range(500, 600)),
    _rule(errors.ContextWindowExceededError, text=_CONTEXT),
    _rule(errors.LLMRequestTooLargeError, text=_TOO_LARGE),
    _rule(errors.LLMNotFoundError, text=_MODEL),
    _rule(errors.LLMContentFilterError, text=_FILTER),
    _rule(errors.LLMInsufficientCreditsError, text=_CREDITS),
    _rule(errors.LLMInsufficientCreditsError, text=_QUOTA, unless="resource_exhausted"),
    _rule(errors.LLMAuthenticationError, text=_KEY),
    _rule(errors.LLMRateLimitError, text=_THROTTLE, within=(400, 0)),
    _rule(errors.LLMProviderOverloaded, text=r"overloaded|" + _CAPACITY, within=(0,)),
    _rule(
        errors.LLMServerError,
        codes="server_error api_error internal_error internal internal_server_error internalserverexception unknown"
        " internalserviceerror modelerrorexception modelstreamerrorexception upstream_error provider_error",
    ),
    _rule(
        errors.LLMBadRequestError,
        *range(400, 500),
        codes="invalid_request_error invalid_argument bad_request badrequest badrequesterror validation_error"
        " validationexception failed_precondition invalid_request invalid_prompt",
    ),
)


def class_of(facts: Facts, status: int) -> type[LLMError]:
    """The class for an error with these facts. `status` is 0 inside a stream that began well."""
    codes = {_normal(word) for word in (facts.code, facts.type, *facts.inner) if len(word) < 64}
    text = " ".join((facts.code, facts.type, facts.message, *facts.inner))[:8000]
    for rule in _RULES:
        if status in rule.statuses or not codes.isdisjoint(rule.codes):
            return rule.error
        if rule.text is None or (rule.within and status not in rule.within) or not codes.isdisjoint(rule.unless):
            continue
        if rule.text.search(text):
            return rule.error
    # An error in a stream without any code of ours is a failure of the provider's.
    return errors.LLMServerError if status == 0 else LLMError


def _normal(word: str) -> str:
    # AWS writes "ThrottlingException:http://internal..." and "com.amazon#ThrottlingException".
    return word.partition(":")[0].rpartition("#")[2].lower().replace("-", "_").replace(" ", "_")


_TRY_AGAIN = re.compile(
    r"(?:try again|retry|wait)\b[^.\d]{0,24}(?=\d)"
    r"(?:(\d+)\s*h(?:ours?)?(?![a-z])\s*)?(?:(\d+)\s*m(?:in(?:ute)?s?)?(?![a-z])\s*)?"
    r"(?:(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|sec(?:ond)?s?)(?![a-z]))?",
    re.IGNORECASE,
)
_REQUESTED = re.compile(
    r"(?:requested|resulted in|request \(|is too long: |passed|you requested|count is|\()\s*(?:about )?(\d{3,9})\b",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:maximum context length is|context length is(?: only)?|context size \(|> |limit of|maximum (?:of|allowed is))"
    r"\s*(\d{3,9})",
    re.IGNORECASE,
)
_METRICS = (
    ("input tokens", "input_tokens"),
    ("output tokens", "output_tokens"),
    ("token", "tokens"),
    ("request", "requests"),
)


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    facts: Callable[[Any], Facts] = facts_of,
    fields: Mapping[str, str] | None = None,
    now: float | None = None,
) -> LLMError:
    """The error for an answer that is not a success. Never raises. `headers` has lower-case names.

    `fields` maps the provider's parameter names to paths in CompletionSpec.
    """
    body = body[:BODY_BYTES]
    value = try_loads(body)
    found = facts(value) if isinstance(value, dict | list) else Facts()
    aws = headers.get("x-amzn-errortype", "")
    if aws:
        found.type = found.type or _normal_case(aws)
    if not found.message and not isinstance(value, dict | list):
        # A page or plain words: good for the class, not for a caller's eyes.
        found.inner.append(_beginning(body))
    if 300 <= status < 400:
        return LLMError(
            f"the provider answered with a redirect (HTTP {status}); correct its base URL",
            http_status=status, request_id=request_id(headers), body=body,
        )  # fmt: skip
    return error_of(found, status=status, headers=headers, body=body, fields=fields, now=now)


def error_in_answer(
    body: bytes,
    kind: str = "",
    *,
    facts: Callable[[Any], Facts] = facts_of,
    fields: Mapping[str, str] | None = None,
) -> LLMError:
    """The error that an answer which began well turned out to hold; `kind` is its type, where its frame names one."""
    value = try_loads(body)
    found = facts(value) if isinstance(value, dict | list) else Facts(inner=[_beginning(body)])
    found.type = kind or found.type
    return error_of(found, status=200, body=body, fields=fields)


def error_of(
    facts: Facts,
    *,
    status: int,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    fields: Mapping[str, str] | None = None,
    now: float | None = None,
) -> LLMError:
    """The error for these facts. `status` is that of the HTTP answer: 200 for an error in one that began well."""
    effective = status if status >= 400 else facts.status or 0
    kind = class_of(facts, effective)
    delay = retry_after(headers or {}, status, now=now)
    if delay is None:
        delay = facts.retry_after
    if delay is None and effective in (0, 429, 503, 529):
        delay = _said_delay(facts.message)
    return kind(
        (facts.message or _WITHOUT_MESSAGE.format(status))[:MESSAGE_CHARS],
        http_status=status,
        provider_code=(facts.code or facts.type)[:128],
        request_id=request_id(headers or {}) or facts.request_id,
        body=body[:BODY_BYTES],
        field=_field(facts.param, fields or {}, kind),
        quota_metric=_metric(facts) if kind is errors.LLMRateLimitError else "",
        retry_after=delay,
        metadata=_metadata(facts, kind),
        help_link=facts.help_link,
    )


_WITHOUT_MESSAGE = "the provider answered HTTP {} with no error message that can be read"


def _beginning(body: bytes) -> str:
    return body[:2000].decode("utf-8", "replace")


def _normal_case(aws: str) -> str:
    return aws.partition(":")[0].rpartition("#")[2]


def _field(param: str, fields: Mapping[str, str], kind: type[LLMError]) -> str:
    if kind in (errors.ContextWindowExceededError, errors.LLMContentFilterError):
        return "messages"
    name = re.split(r"[.\[]", param, maxsplit=1)[0]
    return fields.get(param) or fields.get(name, "")


def _metric(facts: Facts) -> str:
    text = f"{facts.type} {facts.message}".lower()
    return next((metric for word, metric in _METRICS if word in text), "requests")


def _metadata(facts: Facts, kind: type[LLMError]) -> dict[str, str]:
    if kind is errors.LLMContentFilterError and facts.categories:
        return {"categories": ",".join(facts.categories)[:200]}
    if kind is errors.ContextWindowExceededError:
        found = {"requestedTokens": _REQUESTED.search(facts.message), "maxInputTokens": _LIMIT.search(facts.message)}
        return {name: match.group(1) for name, match in found.items() if match}
    return {}


def _said_delay(message: str) -> float | None:
    """Seconds that a text names: "Please try again in 1m2.5s", "retry after 60 seconds"."""
    for match in _TRY_AGAIN.finditer(message[:2000]):
        hours, minutes, seconds, unit = match.groups()
        if hours or minutes or seconds:
            value = float(seconds or 0) / (1000 if unit and unit.lower().startswith("m") else 1)
            return float(hours or 0) * 3600 + float(minutes or 0) * 60 + value
    return None

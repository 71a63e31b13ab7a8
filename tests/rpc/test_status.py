"""From an error to what a caller sees: every class, every row, and the limits of what gRPC delivers."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rpc.error_rows import ADMITTED, DETAIL_TYPES, ERROR_ROWS, ErrorRow

from trunkline.v1 import completion_pb2, error_pb2
from trunkline_server import errors
from trunkline_server.errors import GatewayError, InternalError, LLMError, Violation
from trunkline_server.redact import Redactor
from trunkline_server.rpc.status import TABLE, AttemptFacts, CallFacts, Failure, failure, to_gateway_error

TYPES = {**DETAIL_TYPES, "LlmErrorDetail": error_pb2.LlmErrorDetail}
LEAVES = sorted(errors.classes(), key=lambda kind: kind.__name__)
ID = "cmpl_0123456789abcdef0123456789abcdef"


def attempts(count: int) -> list[AttemptFacts]:
    return [AttemptFacts(at, "acme", "acme-1", "LLM_SERVER_ERROR", 500, 0.25) for at in range(1, count + 1)]


def facts(attempt_count: int = 1, **changes: Any) -> CallFacts:
    given_facts: dict[str, Any] = {"request_id": "mine-1", "provider": "acme", "model": "acme-1"}
    return CallFacts(ID, **{**given_facts, "attempts": attempts(attempt_count), **changes})


def wire_of(ended: Failure) -> bytes:
    data = dict(ended.trailers)["grpc-status-details-bin"]
    assert isinstance(data, bytes)
    return data


def status_of(ended: Failure) -> status_pb2.Status:
    return status_pb2.Status.FromString(wire_of(ended))


def details_of(ended: Failure) -> dict[str, Any]:
    """By type name. Every detail is known, and comes once."""
    found: dict[str, Any] = {}
    for packed in status_of(ended).details:
        name = packed.type_url.rpartition(".")[2]
        assert name not in found
        found[name] = TYPES[name]()
        assert packed.Unpack(found[name])
    return found


def pushback_of(ended: Failure) -> int | None:
    value = dict(ended.trailers).get("grpc-retry-pushback-ms")
    return None if value is None else int(value)


def at(message: Any, path: str) -> Any:
    for step in path.split("."):
        message = message[int(step)] if step.isdigit() else getattr(message, step)
    return message


def one_of(kind: type[GatewayError], message: str = "no such luck", **more: Any) -> GatewayError:
    return kind(message, **more)


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ERROR_ROWS, ids=lambda row: row.id)
def test_a_row_of_the_error_table_is_what_a_caller_sees(row: ErrorRow) -> None:
    ended = failure(row.error(), facts(**row.facts))
    found = details_of(ended)

    admitted = row.facts.get("admitted", True)
    assert ended.code is row.code
    assert ended.reason == row.reason
    assert set(found) == {*(ADMITTED if admitted else ADMITTED[:1]), *row.details}
    assert found["ErrorInfo"].reason == row.reason
    assert found["ErrorInfo"].domain == "trunkline"
    assert dict(found["ErrorInfo"].metadata) == row.metadata
    pushback = pushback_of(ended)
    assert pushback in row.pushback if isinstance(row.pushback, range) else pushback == row.pushback
    if "RetryInfo" in found:
        delay = found["RetryInfo"].retry_delay
        seconds = delay.seconds + delay.nanos / 1e9
        wanted = row.retry_delay
        assert wanted.start <= seconds <= wanted.stop if isinstance(wanted, range) else seconds == wanted
    if admitted:
        assert found["LlmErrorDetail"].retryable is row.retryable
    for name, path, value in row.holds:
        assert at(found[name], path) == value


def test_every_class_has_a_row_in_both_tables() -> None:
    assert set(TABLE) == set(errors.classes())
    assert {type(row.error()) for row in ERROR_ROWS} == set(errors.classes())


def test_every_reason_of_the_contract_is_the_reason_of_one_class() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()[1:]}

    assert sorted(kind.reason for kind in errors.classes()) == sorted(reasons)


def test_codes_are_those_that_the_comments_of_the_contract_name() -> None:
    """Each reason's comment ends with its code."""
    lines = (Path(__file__).parents[2] / "proto/trunkline/v1/error.proto").read_text().splitlines()
    comment, codes = "", {}
    for line in map(str.strip, lines):
        if line.startswith("//"):
            comment += f" {line[2:].strip()}"
            continue
        if line.startswith("ERROR_REASON_"):
            codes[line.split()[0].removeprefix("ERROR_REASON_")] = comment.split()[-1].rstrip(".")
        comment = ""

    assert {kind.reason: row.code.name for kind, row in TABLE.items()} == {
        reason: code for reason, code in codes.items() if reason != "UNSPECIFIED"
    }


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize("admitted", [True, False])
def test_every_class_says_what_when_and_whose(kind: type[GatewayError], admitted: bool) -> None:
    ended = failure(one_of(kind), facts(admitted=admitted))
    status, found = status_of(ended), details_of(ended)

    assert ended.reason == kind.reason == found["ErrorInfo"].reason
    assert status.code == code_pb2.Code.Value(ended.code.name)
    assert status.message == ended.message
    assert ended.message == ("internal error" if kind is InternalError else "no such luck")
    assert ("LlmErrorDetail" in found) is admitted
    assert ("RequestInfo" in found) is (admitted or kind is InternalError)
    if admitted:
        detail = found["LlmErrorDetail"]
        assert (detail.completion_id, detail.provider, detail.model) == (ID, "acme", "acme-1")
        assert (found["RequestInfo"].request_id, found["RequestInfo"].serving_data) == (ID, "mine-1")


def test_only_the_caller_s_own_credential_is_unauthenticated() -> None:
    unauthenticated = [kind for kind, row in TABLE.items() if row.code is grpc.StatusCode.UNAUTHENTICATED]

    assert unauthenticated == [errors.CallerUnauthenticated]


# -- mapping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LEAVES)
def test_mapping_an_error_of_ours_changes_nothing(kind: type[GatewayError]) -> None:
    error = one_of(kind)

    assert to_gateway_error(error) is error


@pytest.mark.parametrize(
    "unforeseen",
    [
        ValueError("secret sk-123 in message"),
        KeyError("x"),
        TimeoutError("x"),
        asyncio.CancelledError("x"),
        RecursionError("x"),
        MemoryError(),
        ExceptionGroup("x", [ValueError("y")]),
        KeyboardInterrupt(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_nobody_foresaw_becomes_internal_and_says_nothing(unforeseen: BaseException) -> None:
    error = to_gateway_error(unforeseen)
    ended = failure(error, facts())

    assert type(error) is InternalError
    assert to_gateway_error(error) is error
    assert error.__cause__ is unforeseen
    assert ended.code is grpc.StatusCode.INTERNAL
    assert ended.message == "internal error"
    assert set(details_of(ended)) == set(ADMITTED)


def test_the_text_of_a_bug_is_fixed_even_if_somebody_wrote_one() -> None:
    for error in (InternalError("KeyError: 'secret'"), GatewayError("KeyError: 'secret'")):
        ended = failure(error, facts(admitted=False))

        assert (ended.code, ended.message) == (grpc.StatusCode.INTERNAL, "internal error")
        assert b"secret" not in wire_of(ended)
        assert "RequestInfo" in details_of(ended)


# -- details ----------------------------------------------------------------------------------------------------------


def test_the_last_eight_attempts_are_told_in_order() -> None:
    tried = [
        AttemptFacts(n, "acme", f"m{n}", "LLM_OVERLOADED" * (n < 12), 529 if n % 2 else None, n / 8)
        for n in range(1, 13)
    ]

    told = details_of(failure(errors.LLMServerError("x"), facts(attempts=tried)))["LlmErrorDetail"].attempts

    assert [attempt.attempt for attempt in told] == list(range(5, 13))
    assert [attempt.HasField("upstream_status") for attempt in told] == [True, False] * 4
    assert told[0].upstream_status == 529
    assert [attempt.reason for attempt in told] == ["LLM_OVERLOADED"] * 7 + [""]
    assert told[0].duration.ToMilliseconds() == 625


def test_the_detail_holds_what_the_provider_said() -> None:
    error = errors.LLMServerError("x", http_status=500, request_id="req_1", provider_code="boom", body=b'{"error":"x"}')
    error.provider, error.model = "other", "other-1"

    detail = details_of(failure(error, facts()))["LlmErrorDetail"]

    assert detail.provider_request_id == "req_1"
    assert detail.provider_code == "boom"
    assert detail.raw_error_json == '{"error":"x"}'
    assert (detail.provider, detail.model) == ("other", "other-1")


def test_the_status_of_the_last_attempt_stands_in_for_one_that_the_error_lacks() -> None:
    assert details_of(failure(errors.GatewayTimeout("x"), facts()))["LlmErrorDetail"].upstream_status == 500
    assert not details_of(failure(errors.GatewayTimeout("x"), facts(0)))["LlmErrorDetail"].HasField("upstream_status")


def test_the_usage_of_the_call_is_copied_not_taken() -> None:
    usage = completion_pb2.Usage(input_tokens=1, raw_json="x" * 9000)

    told = details_of(failure(errors.LLMServerError("x"), facts(usage=usage)))["LlmErrorDetail"].usage

    assert told.input_tokens == 1
    assert len(usage.raw_json) == 9000


def test_a_blamed_field_is_a_path_in_the_request() -> None:
    def blamed(**more: Any) -> list[str]:
        found = details_of(failure(errors.LLMBadRequestError("x", **more), facts())).get("BadRequest")
        return [violation.field for violation in found.field_violations] if found else []

    assert blamed(field="tools") == ["spec.tools"]
    assert blamed(field="spec.tools") == ["spec.tools"]
    assert blamed(field="options.credential") == ["options.credential"]
    assert blamed(violations=[Violation("spec.a", "b"), Violation("spec.c", "d")]) == ["spec.a", "spec.c"]
    assert blamed() == []


@pytest.mark.parametrize("link", ["javascript:alert(1)", "ftp://x", "", "https://acme.example/" + "x" * 4000])
def test_help_is_only_a_web_page_that_fits(link: str) -> None:
    ended = failure(errors.LLMInsufficientCreditsError("pay", help_link=link), facts())

    assert "Help" not in details_of(ended)


# -- pushback ---------------------------------------------------------------------------------------------------------

WITH_PUSHBACK = [
    errors.LLMConnectionError,
    errors.LLMProviderOverloaded,
    errors.LLMServerError,
    errors.LLMRateLimitError,
]


@pytest.mark.parametrize("kind", [*WITH_PUSHBACK, errors.GatewayRateLimited, errors.GatewayOverloaded])
@pytest.mark.parametrize(
    ("delay", "remaining", "expected"),
    [(2.0, None, 2000), (2.0, 2.0, 2000), (2.0, 1.999, -1), (2.0, -1.0, -1), (0.0, 0.0, 1), (0.0001, None, 1)],
)
def test_a_wait_that_ends_after_the_deadline_forbids_the_retry(
    kind: type[GatewayError], delay: float, remaining: float | None, expected: int
) -> None:
    assert pushback_of(failure(one_of(kind, retry_after=delay), facts(remaining=remaining))) == expected


@pytest.mark.parametrize("kind", WITH_PUSHBACK)
def test_nobody_retries_by_himself_once_events_were_sent(kind: type[GatewayError]) -> None:
    assert pushback_of(failure(one_of(kind, retry_after=1.0), facts(last_sequence_number=1))) == -1


@pytest.mark.parametrize(
    "delay", [math.nan, math.inf, -math.inf, -5.0, 1e300, 10**400], ids=["nan", "inf", "-inf", "-5", "1e300", "10**400"]
)
@pytest.mark.parametrize("kind", [errors.LLMRateLimitError, errors.LLMProviderOverloaded, errors.BudgetExhausted])
def test_an_impossible_delay_is_no_reason_to_fail(kind: type[GatewayError], delay: float) -> None:
    ended = failure(one_of(kind, retry_after=delay), facts())
    pushback = pushback_of(ended)

    assert pushback is None or -1 <= pushback < 2**31
    assert details_of(ended)["ErrorInfo"].reason == kind.reason


def test_callers_that_were_shed_come_back_at_different_times() -> None:
    waits = {pushback_of(failure(errors.GatewayOverloaded("full"), facts())) for _ in range(50)}

    assert len(waits) > 10


# -- texts ------------------------------------------------------------------------------------------------------------


def test_no_secret_leaves_in_any_part_of_an_error() -> None:
    key, ours = "sk-proj-abcdefghijklmnopqrstuvwxyz", "configured-elsewhere"
    text = f"bad {key} and {ours}"
    ours_only: dict[str, Any] = {
        "metadata": {"k": text},
        "subject": text,
        "violations": [Violation(text, text)],
        "resource": (text, text),
    }
    theirs: dict[str, Any] = {
        "provider_code": text,
        "request_id": text,
        "body": text.encode(),
        "quota_metric": text,
        "help_link": f"https://x.example/?key={key}",
    }
    for kind in LEAVES:
        error = kind(text, **ours_only, **(theirs if issubclass(kind, LLMError) else {}))
        ended = failure(error, facts(provider=text, model=text), Redactor([ours]))
        wire = wire_of(ended)

        assert key not in ended.message
        assert ours not in ended.message
        assert key.encode() not in wire
        assert ours.encode() not in wire


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\n\tc", "a b c"),
        ("\x00a\x7f\x9bb\u2028c\u202ed", "a b c d"),
        ("half \ud83d", "half \ufffd"),
        ("grüße 世界 🎉", "grüße 世界 🎉"),
        ("", "llm_server_error"),
        ("\n", "llm_server_error"),
    ],
)
def test_a_message_is_one_printable_line(text: str, expected: str) -> None:
    assert failure(errors.LLMServerError(text), facts()).message == expected


def wire_bytes(message: str) -> int:
    """What gRPC's percent-encoding makes of it."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in message.encode())


@pytest.mark.parametrize("unit", ["x", "é", "世", "🎉", "%", "x y ", "a\n"])
def test_a_long_message_is_cut_to_what_fits_a_header(unit: str) -> None:
    message = failure(errors.LLMServerError(unit * 1_000_000), facts()).message

    assert message.startswith(unit.strip().split()[0])
    assert message.endswith("...")
    assert 900 < wire_bytes(message) <= 1024


def test_the_provider_s_body_is_cut_to_a_valid_kibibyte() -> None:
    def raw(body: bytes) -> str:
        return str(details_of(failure(errors.LLMServerError("x", body=body), facts()))["LlmErrorDetail"].raw_error_json)

    assert raw("é".encode() * 100_000) == "é" * 512
    assert raw(b"x" + "é".encode() * 100_000) == "x" + "é" * 511
    assert raw(b"\xff\xfe{}") == "\ufffd\ufffd{}"
    assert raw(b'{\n  "a": 1\n}') == '{\n  "a": 1\n}'


# -- size -------------------------------------------------------------------------------------------------------------


def test_violations_that_do_not_fit_are_counted_by_the_last_one() -> None:
    violations = [Violation(f"spec.messages[{n}].parts[0]", f"fault number {n}: " + "x" * 40) for n in range(5000)]

    ended = failure(errors.InvalidRequest("many", violations=violations), facts(admitted=False))
    told = list(details_of(ended)["BadRequest"].field_violations)

    assert 40 < len(told) <= 101
    assert [violation.field for violation in told[:-1]] == [v.field for v in violations[: len(told) - 1]]
    assert told[-1].description == f"and {5000 - len(told) + 1:,} more that are not listed"
    assert 5000 < len(wire_of(ended)) <= 6144


def test_a_hundred_short_violations_are_all_listed() -> None:
    violations = [Violation(f"f{n}", "bad") for n in range(100)]

    told = details_of(failure(errors.InvalidRequest("x", violations=violations), facts()))[
        "BadRequest"
    ].field_violations

    assert [violation.field for violation in told] == [violation.field for violation in violations]


def test_what_tells_least_is_shed_first() -> None:
    """The raw usage goes before most of the provider's body, and both before violations and attempts."""

    def told(violations: int) -> tuple[Any, Any]:
        error = errors.LLMBadRequestError(
            "x", body=b"b" * 5000, violations=[Violation(f"spec.f{n}", "x" * 300) for n in range(violations)]
        )
        usage = completion_pb2.Usage(input_tokens=3, raw_json="u" * 500)
        found = details_of(failure(error, facts(8, usage=usage)))
        return found["LlmErrorDetail"], found["BadRequest"].field_violations

    def kept(violations: int) -> tuple[int, int, int, int]:
        detail, listed = told(violations)
        assert detail.usage.input_tokens == 3
        return len(detail.usage.raw_json), len(detail.raw_error_json), len(listed), len(detail.attempts)

    assert kept(9) == (500, 1024, 9, 8)
    assert kept(13) == (0, 1024, 13, 8)
    assert kept(15) == (0, 256, 15, 8)
    assert kept(60)[:2] == (0, 256)
    assert kept(60)[2] < 18
    assert kept(60)[3] == 8


texts = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=5).map(lambda text: text * 4000),  # surrogates included
    st.just("x" * 1_000_000),
    st.just("世" * 300_000),
    st.just("\n\x00%" * 3000),
)
numbers = st.one_of(st.none(), st.integers(-(2**70), 2**70))
seconds = st.one_of(st.none(), st.floats())


@st.composite
def any_error(draw: st.DrawFn) -> GatewayError:
    kind = draw(st.sampled_from(LEAVES))
    one = Violation(draw(texts), draw(texts))
    more: dict[str, Any] = {
        "violations": [one] * draw(st.sampled_from([0, 1, 3, 30, 101, 5000])),
        "retry_after": draw(seconds),
        "metadata": {f"{draw(texts)}{n}": draw(texts) for n in range(draw(st.sampled_from([0, 1, 20])))},
        "resource": draw(st.one_of(st.none(), st.tuples(texts, texts))),
        "subject": draw(texts),
    }
    if issubclass(kind, LLMError):
        more |= {
            "http_status": draw(numbers),
            "body": draw(st.one_of(st.binary(max_size=50), st.just(b"\xff" * 2_000_000), texts.map(lambda t: t.encode(
                "utf-8", "surrogatepass")))),
            **{name: draw(texts) for name in ("provider_code", "request_id", "field", "quota_metric", "help_link")},
        }  # fmt: skip
    return kind(draw(texts), **more)


@st.composite
def any_facts(draw: st.DrawFn) -> CallFacts:
    attempt = AttemptFacts(
        draw(st.integers(-(2**40), 2**40)), draw(texts), draw(texts), draw(texts), draw(numbers), draw(st.floats())
    )
    return CallFacts(
        completion_id=ID,
        request_id=draw(texts),
        provider=draw(texts),
        model=draw(texts),
        attempts=[attempt] * draw(st.sampled_from([0, 1, 8, 100])),
        usage=draw(st.sampled_from([None, completion_pb2.Usage(input_tokens=1, raw_json="{" * 100_000)])),
        last_sequence_number=draw(st.integers(0, 2**40)),
        admitted=draw(st.booleans()),
        remaining=draw(seconds),
        spent=draw(st.booleans()),
    )


@settings(max_examples=400, deadline=None)
@given(any_error(), any_facts())
def test_whatever_happens_the_status_arrives(error: GatewayError, call: CallFacts) -> None:
    ended = failure(error, call)
    status = status_of(ended)

    assert len(wire_of(ended)) <= 6144
    assert wire_bytes(ended.message) <= 1024
    assert ended.message
    assert ended.message.isprintable() or any(ord(character) > 0x7F for character in ended.message)
    assert (status.code, status.message) == (ended.code.value[0], ended.message)
    assert details_of(ended)["ErrorInfo"].reason == type(error).reason
    assert call.admitted is ("LlmErrorDetail" in details_of(ended))
    pushback = pushback_of(ended)
    assert pushback is None or -1 <= pushback < 2**31


@pytest.mark.parametrize("unit", ["x", "世", "%"])
async def test_the_largest_status_arrives_at_a_client_whole(unit: str) -> None:
    violations = [Violation(f"spec.messages[{n}]", unit * 100) for n in range(1000)]
    sent = failure(errors.InvalidRequest(unit * 10_000, violations=violations), facts(8))

    async def fail(_: bytes, context: Any) -> bytes:
        await context.abort(sent.code, sent.message, sent.trailers)
        return b""

    server = grpc.aio.server()
    methods: dict[str, Any] = {"Fail": grpc.unary_unary_rpc_method_handler(fail)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Failing", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary("/test.Failing/Fail")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=10)
    finally:
        await server.stop(None)

    assert caught.value.code() is sent.code
    assert caught.value.details() == sent.message
    assert dict(caught.value.trailing_metadata())["grpc-status-details-bin"] == wire_of(sent)
    assert len(wire_of(sent)) > 5500

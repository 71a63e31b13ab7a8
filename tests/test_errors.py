"""Every row of the error table, as a caller sees it on the other side of a socket."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tests.gateway import Failed, Gateway, Stub, create, failing, gateway, script, stream
from tests.rpc.error_rows import ADMITTED, ERROR_ROWS, ErrorRow
from tests.upstream import Exchange, Script, chat, chat_events, piece, silent_midway, upstream

import trunkline
from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.access import Callers
from trunkline_server.call import Call
from trunkline_server.rpc.boundary import Boundary, Limits, Running
from trunkline_server.rpc.methods import Methods
from trunkline_server.rpc.server import Server
from trunkline_server.telemetry import Metrics, Telemetry
from trunkline_server.telemetry.logs import make_log

ROWS = {row.id: row for row in ERROR_ROWS}

# -- each row, raised behind the boundary -----------------------------------------------------------------------------


class Failing:
    """Serves CompletionService: each call ends as the row says that its request_id names."""

    NAME = "trunkline.v1.CompletionService"

    def methods(self, boundary: Boundary) -> Methods:
        return {
            "CreateCompletion": boundary.unary("CreateCompletion", pb.CreateCompletionRequest, self.create),
            "StreamCompletion": boundary.stream("StreamCompletion", pb.StreamCompletionRequest, self.stream),
        }

    async def create(self, request: pb.CreateCompletionRequest, call: Call) -> pb.CreateCompletionResponse:
        self._fail(ROWS[request.request_id], call)
        raise AssertionError

    async def stream(self, request: pb.StreamCompletionRequest, call: Call, context: Any) -> None:
        self._fail(ROWS[request.request_id], call)

    def _fail(self, row: ErrorRow, call: Call) -> None:
        facts = row.facts
        call.admitted = facts.get("admitted", True)
        call.request_id = "mine-1"
        for _ in range(facts.get("attempt_count", 1)):
            call.begin_attempt("acme", "acme-1").reason = "LLM_SERVER_ERROR"
        call.spent = facts.get("spent", False)
        call.usage = facts.get("usage")
        call.sequence = facts.get("last_sequence_number", 0)
        raise row.error()


@asynccontextmanager
async def failing_server() -> AsyncIterator[Stub]:
    telemetry = Telemetry(Metrics(), make_log(stream=io.StringIO()))
    boundary = Boundary(Callers({}), Limits(), telemetry, Running())
    server = Server([Failing()], boundary, max_request_bytes=1 << 20, max_connection_age=300)
    port = server.listen("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield CompletionServiceStub(channel)
    finally:
        await server.stop()


def at(message: Any, path: str) -> Any:
    for step in path.split("."):
        message = message[int(step)] if step.isdigit() else getattr(message, step)
    return message


def held(row: ErrorRow, failed: Failed) -> None:
    """Everything that the row says."""
    admitted = row.facts.get("admitted", True)
    assert (failed.code, failed.reason) == (row.code, row.reason)
    assert set(failed.details) >= {*(ADMITTED if admitted else ADMITTED[:1]), *row.details}
    assert ("LlmErrorDetail" in failed.details) is admitted
    assert failed.pushback in row.pushback if isinstance(row.pushback, range) else failed.pushback == row.pushback
    assert dict(failed.details["ErrorInfo"].metadata) == row.metadata
    for name, path, value in row.holds:
        assert at(failed.details[name], path) == value
    if admitted:
        assert failed.detail.retryable is row.retryable
        assert failed.details["RequestInfo"].serving_data == "mine-1"


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_every_row_of_the_error_table_arrives(streamed: bool) -> None:
    async with failing_server() as stub:
        for row in ERROR_ROWS:
            # The margin of a deadline of ten seconds is 250 ms, which no row is close to.
            timeout = row.facts.get("remaining", None)
            if streamed:
                call = stub.StreamCompletion(pb.StreamCompletionRequest(request_id=row.id), timeout=timeout)
                held(row, await failing(call.read()))
            else:
                held(row, await failing(stub.CreateCompletion(create(request_id=row.id), timeout=timeout)))


# -- what providers say, to what callers see --------------------------------------------------------------------------


def said(message: str = "no luck", **error: Any) -> dict[str, Any]:
    return {"error": {"message": message, **error}}


#: A row, and an answer of a provider's that leads to it: status, headers, body.
ANSWERS: tuple[tuple[str, int, Mapping[str, str], Any], ...] = (
    ("rate limit", 429, {"retry-after-ms": "2500"}, said(code="rate_limit_exceeded", type="input tokens")),
    ("rate limit", 429, {"retry-after": "2.5"}, said("Slow down on input tokens")),
    ("rate limit, delay unknown", 429, {}, said(type="requests")),
    ("overloaded", 529, {"retry-after": "4"}, said(type="overloaded_error")),
    ("overloaded", 503, {"retry-after": "4"}, b"<html>busy</html>"),
    ("overloaded, delay unknown", 503, {}, said()),
    ("server error", 500, {}, said(type="server_error")),
    ("server error", 502, {}, b"<html>bad gateway</html>"),
    ("server error", 599, {}, b""),
    ("server error, delay known", 502, {"retry-after": "1"}, said()),
    ("timeout", 504, {}, b"upstream timed out"),
    ("bad request", 400, {}, said(code="invalid_value", type="invalid_request_error")),
    ("bad request", 418, {}, said(code="invalid_value")),
    ("bad request, parameter named", 400, {}, said(param="temperature", type="invalid_request_error")),
    ("unprocessable", 422, {}, said("will not")),
    (
        "context window",
        400,
        {},
        said(
            "This model's maximum context length is 8192 tokens, however you requested 9000 tokens",
            code="context_length_exceeded",
        ),
    ),
    ("request too large upstream", 413, {}, said()),
    ("authentication upstream", 401, {}, said("Incorrect API key provided", code="invalid_api_key")),
    ("permission denied upstream", 403, {}, said(code="model_not_enabled")),
    ("not found upstream", 404, {}, said("The model `acme-1` does not exist", code="model_not_found")),
    ("insufficient credits", 402, {}, said("pay")),
    ("insufficient credits", 429, {}, said("You exceeded your current quota", code="insufficient_quota")),
    ("content filter", 400, {}, said(code="content_filter", innererror={"content_filter_result": {}})),
    ("conflict upstream", 409, {}, said()),
    ("anything else upstream", 302, {"location": "http://127.0.0.1:9/"}, b""),
)


async def refused(answer: Script, streamed: bool) -> Failed:
    """The status of a call that this provider answers; its events are held to their rules."""
    async with upstream(answer) as up, gateway(up) as gw:
        if streamed:
            reader = await gw.stream(stream("up/acme-1", request_id="mine-1")).rest()
            assert reader.events == []
            assert reader.failed is not None
            return reader.failed
        return await failing(gw.completions.CreateCompletion(create("up/acme-1", request_id="mine-1")))


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(("row", "status", "headers", "body"), ANSWERS, ids=[f"{a[0]}-{a[1]}" for a in ANSWERS])
async def test_what_a_provider_answers_is_the_row_of_its_error(
    row: str, status: int, headers: Mapping[str, str], body: Any, streamed: bool
) -> None:
    failed = await refused(lambda exchange: exchange.answer(body, status, headers), streamed)
    wanted = ROWS[row]

    assert (failed.code, failed.reason) == (wanted.code, wanted.reason)
    assert set(failed.details) >= {*ADMITTED, *wanted.details} - {"BadRequest"}
    assert (
        failed.pushback in wanted.pushback if isinstance(wanted.pushback, range) else failed.pushback == wanted.pushback
    )
    detail = failed.detail
    assert (detail.provider, detail.model, detail.upstream_status) == ("up", "acme-1", status)
    assert detail.retryable is wanted.retryable
    assert [(a.reason, a.upstream_status) for a in detail.attempts] == [(wanted.reason, status)]
    assert failed.details["RequestInfo"].serving_data == "mine-1"
    assert failed.details["RequestInfo"].request_id == detail.completion_id
    for name, path, value in wanted.holds:
        if path not in {"violations.0.api_service", "violations.0.subject", "upstream_status"}:
            assert at(failed.details[name], path) == value


async def answered(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Failed:
    return await refused(lambda exchange: exchange.answer(body, status, headers), False)


async def test_the_provider_s_own_words_arrive() -> None:
    body = said("Your prompt has a hat on", code="hat", type="invalid_request_error")
    failed = await answered(body, 400, {"x-request-id": "req-77"})

    assert failed.message == "Your prompt has a hat on"
    assert failed.detail.provider_code == "hat"
    assert failed.detail.provider_request_id == "req-77"
    assert json.loads(failed.detail.raw_error_json) == body


async def test_a_parameter_that_the_provider_blames_is_named_as_the_caller_knows_it() -> None:
    failed = await answered(said("too hot", param="temperature"), 400)

    assert failed.fields == {"spec.params.temperature": "too hot"}


async def test_an_error_of_any_size_fits() -> None:
    """GRPC replaces a status whose metadata is too large by one of its own."""
    for size in (1_000, 10_000, 200_000):
        text = "\u00e9\U0001f600\x00\n" * (size // 8)
        failed = await answered(
            said(text, code="c" * size, type=text, param="temperature"), 400, {"x-request-id": "r" * 4000}
        )
        assert failed.reason == "LLM_BAD_REQUEST"
        assert len(failed.message) < 2000


async def test_a_thousand_violations_fit_and_are_counted() -> None:
    request = create("fake/echo", *["text"] * 1500)
    for message in request.spec.messages:
        message.role = 77  # type: ignore[assignment]  # no such role
        message.parts[0].text.text = ""
    async with gateway() as gw:
        failed = await failing(gw.completions.CreateCompletion(request))

    assert failed.reason == "INVALID_REQUEST"
    assert len(failed.fields) >= 10


async def test_all_that_is_wrong_is_told_at_once() -> None:
    params = {"temperature": float("nan"), "n": 0, "top_p": 7.0}
    request = pb.CreateCompletionRequest(
        spec=completion_pb2.CompletionSpec(messages=[message_pb2.Message()], params=params),  # type: ignore[arg-type]
        request_id="\x07",
    )
    async with gateway() as gw:
        failed = await failing(gw.completions.CreateCompletion(request))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert {
        "spec.model", "spec.messages[0].role", "spec.params.temperature", "spec.params.n", "spec.params.top_p",
        "request_id",
    } <= {field.replace("target", "model") for field in failed.fields}  # fmt: skip
    assert "RequestInfo" not in failed.details


async def test_no_model_of_that_name() -> None:
    async with gateway() as gw:
        for name in ("nobody/x", "gpt", "/", "fake/"):
            failed = await failing(gw.completions.CreateCompletion(create(name)))
            assert failed.code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
            assert "fake" in failed.message or failed.reason == "INVALID_REQUEST"
            assert "LlmErrorDetail" not in failed.details or failed.detail.provider == ""


async def test_more_calls_than_the_limit_are_refused_with_a_delay() -> None:
    async with upstream(silent_midway) as up, gateway(up, limits={"max_calls": 2}) as gw:
        readers = [gw.stream(stream()) for _ in range(2)]
        for reader in readers:
            await reader.until("part_delta")
        failed = await failing(gw.completions.CreateCompletion(create("fake/echo")))
        for reader in readers:
            reader.call.cancel()
        await gw.idle()
        await gw.complete(create("fake/echo"))

    held(ROWS["gateway overloaded"], failed)


async def test_a_parameter_that_the_model_cannot_honour() -> None:
    request = create("up/up-1")
    request.spec.params.verbosity = generation_pb2.VERBOSITY_LOW
    async with upstream(silent_midway) as up, gateway(up) as gw:
        failed = await failing(gw.completions.CreateCompletion(request))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_PARAMETER")
    assert list(failed.fields) == ["spec.params.verbosity"]
    assert up.exchanges == []


async def test_bytes_that_do_not_parse_are_an_invalid_request() -> None:
    async with gateway() as gw:
        for method in ("CreateCompletion", "CountTokens", "StreamCompletion"):
            for data in (b"\xff\xff\xff\xff", b"\x0a\xff", b"\x0a\x05ab", b"\x0b" * 200):
                call = gw.bytes(f"/trunkline.v1.CompletionService/{method}")(data)
                failed = await failing(call.read() if method == "StreamCompletion" else call)
                assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert len(gw.calls()) == 12


async def test_an_unknown_method_is_unimplemented() -> None:
    async with gateway() as gw:
        for path in ("/trunkline.v1.CompletionService/Nothing", "/trunkline.v1.TraceService/ListTraces"):
            failed = await failing(gw.bytes(path)(b""))
            assert failed.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_over_the_limit_is_told_its_size_and_the_setting(streamed: bool) -> None:
    async with gateway(limits={"max_request_bytes": 4096}) as gw:
        if streamed:
            reader = await gw.stream(stream("fake/echo", "x" * 5000)).rest()
            assert reader.failed is not None
            failed = reader.failed
        else:
            failed = await failing(gw.completions.CreateCompletion(create("fake/echo", "x" * 5000)))
        await gw.complete(create("fake/echo", "x" * 3000))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    sizes = failed.details["ErrorInfo"].metadata
    assert (int(sizes["bytes"]) > 5000, sizes["maxBytes"]) == (True, "4096")
    assert "limits.max_request_bytes" in failed.message
    assert gw.calls()[0]["reason"] == "REQUEST_TOO_LARGE"


async def test_a_message_of_twice_the_limit_never_reaches_a_handler() -> None:
    async with gateway(limits={"max_request_bytes": 4096}) as gw:
        failed = await failing(gw.completions.CreateCompletion(create("fake/echo", "x" * 9000)))

    # Made by gRPC, before there is a call of ours.
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failed.reason == ""


async def test_an_answer_may_be_larger_than_a_request() -> None:
    text = "word " * 2_000_000
    async with upstream(lambda exchange: exchange.answer(chat(text))) as up, gateway(up) as gw:
        answer = await gw.complete(create())

    assert answer.choices[0].message.parts[0].text.text == text


async def test_a_bug_tells_its_story_to_the_log_only() -> None:
    class Broken:
        address = ""
        propagates = False

        async def send(self, *_: object) -> None:
            raise ZeroDivisionError("the story of sk-0123456789abcdef0123456789")

        async def aclose(self) -> None:
            pass

    async with gateway(bugs=True) as gw:
        gw.app.engine.providers["fake"].upstreams[""] = Broken()  # type: ignore[assignment]
        failed = await failing(gw.completions.CreateCompletion(create("fake/echo")))

    held(ROWS["bug"], Failed(failed.code, failed.message, {**failed.details, "RequestInfo": _mine(failed)}, None))
    assert failed.message == "internal error"
    [bug] = [line for line in gw.lines if line["event"] == "bug"]
    assert "ZeroDivisionError" in bug["traceback"]
    assert "sk-0123456789abcdef0123456789" not in gw.log
    assert failed.details["RequestInfo"].request_id == bug["id"]


def _mine(failed: Failed) -> Any:
    info = type(failed.details["RequestInfo"])()
    info.CopyFrom(failed.details["RequestInfo"])
    info.serving_data = "mine-1"
    return info


# -- who tries again --------------------------------------------------------------------------------------------------


class Recovers:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.left = failures
        self._status = status
        self._headers = headers

    async def __call__(self, exchange: Exchange) -> None:
        if self.left:
            self.left -= 1
            await exchange.answer(said(), self._status, self._headers)
        elif exchange.json.get("stream"):
            await exchange.events(chat_events())
        else:
            await exchange.answer(chat())


@asynccontextmanager
async def client(gw: Gateway) -> AsyncIterator[trunkline.AsyncClient]:
    async with trunkline.AsyncClient(gw.address, connections=1) as made:
        yield made


@pytest.mark.parametrize("status", [500, 503])
async def test_a_client_with_the_service_config_tries_again_what_may_work(status: int) -> None:
    async with upstream(Recovers(2, status, {"retry-after-ms": "20"})) as up, gateway(up) as gw, client(gw) as caller:
        answer = await caller.complete("Hi", model="up/up-1")
        text = [piece async for piece in caller.stream("Hi", model="up/up-1").text()]

    assert trunkline.text_of(answer) == "".join(text) == "Hello there."
    assert len(up.exchanges) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429])
async def test_a_client_with_the_service_config_lets_be_what_will_not_work(status: int) -> None:
    async with upstream(Recovers(1, status)) as up, gateway(up) as gw, client(gw) as caller:
        with pytest.raises(trunkline.TrunklineError):
            await caller.complete("Hi", model="up/up-1")

    assert len(up.exchanges) == 1


async def test_a_wait_beyond_the_deadline_is_not_waited_for() -> None:
    async with upstream(Recovers(1, 503, {"retry-after": "60"})) as up, gateway(up) as gw, client(gw) as caller:
        with pytest.raises(trunkline.Overloaded) as caught:
            await caller.complete("Hi", model="up/up-1", timeout=5)

    assert caught.value.retry_after == 60
    assert len(up.exchanges) == 1


async def test_a_stream_that_broke_in_the_middle_is_not_begun_again_by_a_library() -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant") + piece("Hello"))
        exchange.cut()

    async with upstream(breaks) as up, gateway(up) as gw, client(gw) as caller:
        with pytest.raises(trunkline.Unavailable) as caught:
            await caller.stream("Hi", model="up/up-1").collect()

    assert len(up.exchanges) == 1
    assert caught.value.completion is not None
    assert trunkline.text_of(caught.value.completion) == "Hello"


async def test_a_rate_limit_is_waited_for_by_those_who_ask_for_it() -> None:
    async with upstream(Recovers(1, 429, {"retry-after-ms": "30"})) as up, gateway(up) as gw, client(gw) as caller:
        answer = await caller.complete("Hi", model="up/up-1", rate_limit_retries=1)

    assert trunkline.text_of(answer) == "Hello there."
    assert len(up.exchanges) == 2


# -- secrets ----------------------------------------------------------------------------------------------------------


async def test_a_key_that_a_provider_repeats_reaches_neither_caller_nor_log(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "very-own-key-of-the-house-0123456789"
    monkeypatch.setenv("UP_KEY", key)

    async def repeats(exchange: Exchange) -> None:
        given = exchange.headers["authorization"]
        await exchange.answer(said(f"Incorrect API key provided: {given}", code=given), 401)

    async with upstream(repeats) as up, gateway(up, {"api_key_env": "UP_KEY"}) as gw:
        failed = await failing(gw.completions.CreateCompletion(create()))

    assert up.exchanges[0].headers["authorization"] == f"Bearer {key}"
    assert failed.reason == "LLM_AUTHENTICATION"
    assert key not in failed.message
    assert key not in "".join(str(detail) for detail in failed.details.values())
    assert key not in gw.log


async def test_the_content_of_a_call_is_not_in_the_log() -> None:
    secret = "a very private sentence"
    async with upstream(lambda exchange: exchange.answer(chat(secret))) as up, gateway(up) as gw:
        await gw.complete(create("up/up-1", secret, labels={"k": secret}, end_user_id="somebody"))
        await failing(gw.completions.CreateCompletion(create("up/up-1", secret, provider_options_json={"up": secret})))
        await failing(gw.completions.CreateCompletion(create(secret)))

    assert secret not in gw.log
    assert "somebody" not in gw.log
    assert len(gw.calls()) == 3


async def test_errors_side_by_side_do_not_mix() -> None:
    async def by_model(exchange: Exchange) -> None:
        await exchange.answer(said(exchange.json["model"]), 400)

    async with upstream(by_model) as up, gateway(up) as gw:
        failures = await asyncio.gather(
            *(failing(gw.completions.CreateCompletion(create(f"up/m{n}", request_id=f"r{n}"))) for n in range(100))
        )

    assert [failed.message for failed in failures] == [f"m{n}" for n in range(100)]
    assert [failed.details["RequestInfo"].serving_data for failed in failures] == [f"r{n}" for n in range(100)]
    assert len({failed.detail.completion_id for failed in failures}) == 100


async def test_a_scripted_failure_is_a_provider_s() -> None:
    options = script(status=429, error=said("wait")["error"], headers={"retry-after-ms": "2500"})
    async with gateway() as gw:
        failed = await failing(gw.completions.CreateCompletion(create("fake/script", provider_options_json=options)))

    assert failed.reason == "LLM_RATE_LIMITED"
    assert failed.pushback == 2500

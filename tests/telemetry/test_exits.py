"""Every way in which a call can end, and what the span, the metrics and the log line say of it.

A real server, a scripted provider, and a real OTLP receiver: what is compared is what an operator would see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from tests.gateway import Gateway, Reader, create, failing, gateway, stream, until
from tests.telemetry.receiver import Receiver, Seen, receiver
from tests.upstream import Exchange, Upstream, chat, chat_events, piece, upstream

from trunkline.v1 import completion_service_pb2 as pb

#: What the caller sends with every call: the span of the gateway belongs to this trace.
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
KEY = ("x-api-key", "a-key-of-the-caller-0000")


@dataclass(frozen=True)
class Exit:
    """One way to end, and what is told of it."""

    name: str
    #: Ends a call this way; `streamed` or not.
    run: Callable[[Scene], Awaitable[None]]
    #: Name of the gRPC status.
    code: str
    reason: str = ""
    #: Status of the server's span.
    span: str = "UNSET"
    #: `error.type` of each attempt's span; "" for one that went well.
    attempts: tuple[str, ...] = ("",)
    #: `reason` of each attempt in the metrics, if it is not the same.
    counted: tuple[str, ...] | None = None
    #: Has the first token come?
    spoke: bool = False
    #: Only unary, or only streams.
    only: bool | None = None
    setup: Mapping[str, Any] = field(default_factory=dict)
    bugs: bool = False


@dataclass
class Scene:
    """A server with all around it."""

    gw: Gateway
    up: Upstream
    streamed: bool

    def call(self, model: str = "up/good", **how: Any) -> Any:
        """Begins a call."""
        how = {"metadata": (TRACEPARENT, KEY), **how}
        if self.streamed:
            return Reader(self.gw.completions.StreamCompletion(stream(model), **how))
        return self.gw.completions.CreateCompletion(create(model), **how)

    async def finish(self, call: Any) -> None:
        """Waits for the end, whatever it is."""
        if self.streamed:
            await call.rest()
            return
        try:
            await call
        except Exception:  # noqa: BLE001  # compared by what is told of it
            return

    async def leave(self, call: Any) -> None:
        (call.call if self.streamed else call).cancel()
        await self.gw.idle()


async def script(exchange: Exchange) -> None:
    """Answers by the name of the model."""
    asked = exchange.json
    match asked["model"]:
        case "bad":
            await exchange.answer({"error": {"message": "no such parameter"}}, 400)
        case "limited":
            await exchange.answer({"error": {"message": "slow down"}}, 429)
        case "failing":
            await exchange.answer({"error": {"message": "oops"}}, 500)
        case "silent":
            await exchange.silence()
        case "talking":
            await exchange.head()
            await exchange.chunk(b"".join(chat_events("Hello")[:2]))
            await exchange.silence()
        case "cut" if asked.get("stream"):
            await exchange.head()
            await exchange.chunk(piece("", role="assistant") + piece("one"))
            exchange.cut()
        case "cut":
            await exchange.head(200, {"content-type": "application/json"})
            await exchange.chunk(b'{"id": ')
            exchange.cut()
        case "blocking":
            # The event loop stands still until the caller's own deadline has passed.
            time.sleep(0.9)  # noqa: ASYNC251  # that is the point
            await exchange.silence()
        case _ if asked.get("stream"):
            await exchange.events(chat_events("Hello", " there."))
        case _:
            await exchange.answer(chat())


async def ok(scene: Scene) -> None:
    await scene.finish(scene.call())


def asks(model: str) -> Callable[[Scene], Awaitable[None]]:
    async def run(scene: Scene) -> None:
        await scene.finish(scene.call(model))

    return run


async def invalid(scene: Scene) -> None:
    if scene.streamed:
        await scene.finish(Reader(scene.gw.completions.StreamCompletion(pb.StreamCompletionRequest(), metadata=META)))
    else:
        await failing(scene.gw.completions.CreateCompletion(pb.CreateCompletionRequest(), metadata=META))


META = (TRACEPARENT, KEY)


async def unparsable(scene: Scene) -> None:
    method = "StreamCompletion" if scene.streamed else "CreateCompletion"
    call = scene.gw.bytes(f"/trunkline.v1.CompletionService/{method}")(b"\xff", metadata=META)
    await scene.finish(Reader(call) if scene.streamed else call)


async def unauthenticated(scene: Scene) -> None:
    await scene.finish(scene.call(metadata=(TRACEPARENT, ("x-api-key", "not-a-key-of-anybody"))))


async def left_before_the_first_token(scene: Scene) -> None:
    call = scene.call("up/silent")
    waiting = asyncio.ensure_future(call.next() if scene.streamed else call)
    await scene.up.next()
    await scene.leave(call)
    await asyncio.wait({waiting})


async def left_after_the_first_token(scene: Scene) -> None:
    call = scene.call("up/talking")
    await call.until("part_delta")
    await scene.leave(call)


async def gateway_deadline(scene: Scene) -> None:
    await scene.finish(scene.call("up/silent", timeout=1.0))


async def callers_deadline(scene: Scene) -> None:
    # A first call, so that the connection is there.
    await scene.gw.health.Check(health_pb2.HealthCheckRequest())
    await scene.finish(scene.call("up/blocking", timeout=0.6))
    await scene.gw.idle()


async def drained(scene: Scene) -> None:
    call = asyncio.ensure_future(scene.finish(scene.call("up/silent")))
    await scene.up.next()
    scene.gw.stop.set()
    await call


async def refused_by_a_drain(scene: Scene) -> None:
    # A first call, so that the connection is there.
    await scene.gw.complete(create("fake/echo"), metadata=(KEY,))
    scene.gw.stop.set()
    await until(lambda: scene.gw.app.server._boundary.running.draining)
    await scene.finish(scene.call())


async def cancelled_by_rpc(scene: Scene) -> None:
    call = scene.call("up/talking")
    await call.until("part_delta")
    await scene.gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=call.id), metadata=(KEY,))
    await scene.finish(call)


async def bug(scene: Scene) -> None:
    class Broken:
        address = ""
        propagates = False

        async def send(self, *_: object) -> None:
            raise ZeroDivisionError("the story of sk-0123456789abcdef0123456789")

        def stream(self, *_: object) -> None:
            raise ZeroDivisionError("the story of sk-0123456789abcdef0123456789")

        async def aclose(self) -> None: ...

    scene.gw.app.engine.providers["up"].upstreams[""] = Broken()  # type: ignore[assignment]  # it breaks
    await scene.finish(scene.call())


EXITS = (
    Exit("ok", ok, "OK", spoke=True),
    Exit("the provider's error", asks("up/bad"), "INVALID_ARGUMENT", "LLM_BAD_REQUEST", attempts=("LLM_BAD_REQUEST",)),
    Exit(
        "the provider's limit",
        asks("up/limited"),
        "RESOURCE_EXHAUSTED",
        "LLM_RATE_LIMITED",
        attempts=("LLM_RATE_LIMITED",),
    ),
    Exit(
        "the provider's failure",
        asks("up/failing"),
        "UNAVAILABLE",
        "LLM_SERVER_ERROR",
        "ERROR",
        attempts=("LLM_SERVER_ERROR",),
    ),
    Exit("refused: no such model", asks("nobody/x"), "NOT_FOUND", "MODEL_NOT_FOUND", attempts=()),
    Exit("invalid", invalid, "INVALID_ARGUMENT", "INVALID_REQUEST", attempts=()),
    Exit("not parsed", unparsable, "INVALID_ARGUMENT", "INVALID_REQUEST", attempts=()),
    Exit("unauthenticated", unauthenticated, "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED", attempts=()),
    Exit(
        "left before the first token",
        left_before_the_first_token,
        "CANCELLED",
        "CANCELLED",
        attempts=("CANCELLED",),
        counted=("",),
    ),
    Exit(
        "left after the first token",
        left_after_the_first_token,
        "CANCELLED",
        "CANCELLED",
        attempts=("CANCELLED",),
        counted=("",),
        spoke=True,
        only=True,
    ),
    Exit(
        "the gateway's deadline",
        gateway_deadline,
        "DEADLINE_EXCEEDED",
        "GATEWAY_TIMEOUT",
        "ERROR",
        attempts=("GATEWAY_TIMEOUT",),
        counted=("",),
    ),
    Exit(
        "the caller's deadline",
        callers_deadline,
        "DEADLINE_EXCEEDED",
        "GATEWAY_TIMEOUT",
        "ERROR",
        attempts=("GATEWAY_TIMEOUT",),
        counted=("",),
    ),
    Exit("cut", asks("up/cut"), "UNAVAILABLE", "LLM_CONNECTION", "ERROR", attempts=("LLM_CONNECTION",), spoke=True),
    Exit(
        "ended by a drain",
        drained,
        "UNAVAILABLE",
        "SHUTTING_DOWN",
        "ERROR",
        attempts=("SHUTTING_DOWN",),
        counted=("",),
    ),
    Exit("refused by a drain", refused_by_a_drain, "UNAVAILABLE", "SHUTTING_DOWN", "ERROR", attempts=()),
    Exit(
        "CancelCompletion",
        cancelled_by_rpc,
        "CANCELLED",
        "CANCELLED",
        attempts=("CANCELLED",),
        counted=("",),
        spoke=True,
        only=True,
    ),
    Exit("a bug", bug, "INTERNAL", "INTERNAL", "ERROR", attempts=("INTERNAL",), counted=("",), bugs=True),
)

CASES = [
    pytest.param(row, streamed, id=f"{row.name}-{'stream' if streamed else 'unary'}")
    for row in EXITS
    for streamed in (False, True)
    if row.only in (None, streamed)
]


@asynccontextmanager
async def scene(row: Exit, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Scene, Receiver]]:
    monkeypatch.setenv("CALLERS_KEY", KEY[1])
    with receiver() as to:
        async with (
            upstream(script) as up,
            gateway(
                up,
                callers=[{"name": "checkout", "api_key_env": "CALLERS_KEY"}],
                models={"known": "up/good"},
                otel={"endpoint": to.url},
                bugs=row.bugs,
            ) as gw,
        ):
            yield Scene(gw, up, streamed), to


@pytest.mark.parametrize(("row", "streamed"), CASES)
async def test_every_end_is_told_alike_by_span_metrics_and_log(
    row: Exit, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "StreamCompletion" if streamed else "CreateCompletion"
    async with scene(row, streamed, monkeypatch) as (made, to):
        await row.run(made)
        gw = made.gw
        if not gw.stop.is_set():
            await gw.idle()
    # The server has ended, and with it the export.

    [line] = [one for one in gw.calls(method) if one.get("trace_id") == TRACE]
    [span] = [one for one in to.servers if one.trace == TRACE and one.name.endswith(f"/{method}")]
    the_log_line(row, line, span)
    the_server_span(row, span)
    the_attempts(row, to.below(span), streamed)
    the_metrics(row, gw, method, line)
    assert "sk-0123456789abcdef" not in to.text + gw.log
    assert KEY[1] not in to.text + gw.log


def the_log_line(row: Exit, line: Mapping[str, Any], span: Seen) -> None:
    assert (line["code"], line.get("reason", "")) == (row.code, row.reason)
    assert line["span_id"] == span.id
    assert line["caller"] == ("" if row.name in ("unauthenticated", "refused by a drain") else "checkout")
    assert line.get("attempts", 0) == len(row.attempts)
    assert 0 <= line["overhead_ms"] <= line["ms"]
    assert ("first_token_ms" in line) == (row.spoke and "events" in line)


def the_server_span(row: Exit, span: Seen) -> None:
    said = span.attributes
    assert span.parent == PARENT
    assert span.status == row.span
    assert said["rpc.response.status_code"] == row.code
    assert said["rpc.grpc.status_code"] == CODES[row.code]
    assert said.get("trunkline.reason", "") == row.reason
    assert said.get("error.type", "") == (row.reason if row.span == "ERROR" else "")
    assert not span.span.events  # no exception with its text


def the_attempts(row: Exit, attempts: list[Seen], streamed: bool) -> None:
    assert [one.attributes.get("error.type", "") for one in attempts] == list(row.attempts)
    for one, why in zip(attempts, row.attempts, strict=True):
        said = one.attributes
        assert one.status == ("UNSET" if why in ("", "CANCELLED") else "ERROR")
        assert one.name == f"chat {said['gen_ai.request.model']}"
        assert (said["gen_ai.operation.name"], said["gen_ai.provider.name"]) == ("chat", "vllm")
        assert said.get("gen_ai.request.stream", False) is streamed
        assert one.seconds >= 0


def the_metrics(row: Exit, gw: Gateway, method: str, line: Mapping[str, Any]) -> None:
    caller, provider = line["caller"], line.get("provider", "")
    assert (
        gw.metric(
            "trunkline_calls_total", method=method, code=row.code, reason=row.reason, caller=caller, provider=provider
        )
        == 1
    )
    assert gw.metric("trunkline_call_seconds_count", method=method, caller=caller) == 1
    assert gw.metric("trunkline_overhead_seconds_count", method=method, caller=caller) == 1
    assert gw.metric("trunkline_calls_cancelled_total", method=method, caller=caller) == (row.code == "CANCELLED")
    if row.code == "CANCELLED":
        assert gw.metric("trunkline_calls_cancelled_total", token="after" if row.spoke else "before") == 1
    for why in row.counted or row.attempts:
        assert gw.metric("trunkline_attempts_total", reason=why, cause="first", provider="up") >= 1
    assert gw.metric("trunkline_calls_in_flight") == 0


#: Numbers of gRPC's codes.
CODES = {
    "OK": 0, "CANCELLED": 1, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "RESOURCE_EXHAUSTED": 8,
    "INTERNAL": 13, "UNAVAILABLE": 14, "UNAUTHENTICATED": 16,
}  # fmt: skip


def test_the_table_has_every_end_that_a_caller_can_see() -> None:
    assert {row.code for row in EXITS} == set(CODES)


async def test_a_whole_answer_says_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(EXITS[0], True, monkeypatch) as (made, to):
        await ok(made)

    [attempt] = [one for one in to.spans if one.name == "chat good"]
    said = attempt.attributes
    assert said["gen_ai.response.model"] == "up-1"
    assert said["gen_ai.response.id"] == "chatcmpl-1"
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (7, 3)
    assert said["server.address"] == "127.0.0.1"
    assert said["http.response.status_code"] == 200
    assert 0 < said["gen_ai.response.time_to_first_chunk"] <= attempt.seconds
    assert attempt.resource["service.name"] == "trunkline"
    assert "Hello" not in to.text

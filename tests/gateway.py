"""A gateway on a free port in this process, and a client that holds every stream to its rules."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stderr
from dataclasses import dataclass
from typing import IO, Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2_grpc
from tests.upstream import PATIENCE, Upstream

from trunkline.collect import Collector
from trunkline.v1 import completion_pb2, error_pb2, message_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceStub
from trunkline_server import app as composition
from trunkline_server import config
from trunkline_server.app import App
from trunkline_server.recording import Spool

Event = pb.StreamCompletionResponse

#: A stub on an asynchronous channel: what is generated types the calls of both kinds of channel alike.
Stub = Any

_DETAILS: Mapping[str, Any] = {
    **{
        name: getattr(rpc, name)
        for name in (
            "ErrorInfo", "RequestInfo", "RetryInfo", "QuotaFailure", "BadRequest", "PreconditionFailure",
            "ResourceInfo", "Help",
        )
    },
    "LlmErrorDetail": error_pb2.LlmErrorDetail,
}  # fmt: skip

#: What the callers of the fixture `callers` send.
TEAM_A = (("authorization", "Bearer team-a-0123456789"),)
TEAM_B = (("x-api-key", "team-b-0123456789"),)

#: Most bytes of details that an error may have.
MAX_DETAILS = 6 * 1024


@dataclass(frozen=True)
class Failed:
    """The status that ended a call, as its caller sees it."""

    code: grpc.StatusCode
    message: str
    #: By the name of their type.
    details: Mapping[str, Any]
    pushback: int | None

    @property
    def reason(self) -> str:
        """Of ErrorInfo; empty for an error that the gateway did not make."""
        return self.details["ErrorInfo"].reason if "ErrorInfo" in self.details else ""

    @property
    def detail(self) -> error_pb2.LlmErrorDetail:
        found = self.details["LlmErrorDetail"]
        assert isinstance(found, error_pb2.LlmErrorDetail)
        return found

    @property
    def fields(self) -> dict[str, str]:
        """What BadRequest says, by field."""
        return {v.field: v.description for v in self.details["BadRequest"].field_violations}

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Failed:
        trailers = dict(error.trailing_metadata() or ())
        packed = trailers.get("grpc-status-details-bin", b"")
        assert isinstance(packed, bytes)
        assert len(packed) <= MAX_DETAILS
        details: dict[str, Message] = {}
        if packed:
            status = Status.FromString(packed)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for one in status.details:
                name = one.type_url.rpartition(".")[2]
                assert name not in details
                details[name] = _DETAILS[name]()
                assert one.Unpack(details[name])
            assert details["ErrorInfo"].domain == "trunkline"  # type: ignore[attr-defined]  # by its name
        pushback = trailers.get("grpc-retry-pushback-ms")
        return cls(error.code(), error.details() or "", details, None if pushback is None else int(pushback))


async def failing(call: Awaitable[Any]) -> Failed:
    """The status of a call that must fail, within the patience of a test."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await call
    except grpc.aio.AioRpcError as error:
        return Failed.of(error)
    raise AssertionError(f"the call went well: {answer}")


class Reader:
    """Reads one stream; every event is held to the rules of a stream, and so is its end."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.events: list[Event] = []
        #: When each event came.
        self.times: list[float] = []
        self.failed: Failed | None = None
        self.ended = False
        self._collector = Collector()

    @property
    def kinds(self) -> list[str]:
        return [event.WhichOneof("event") or "" for event in self.events]

    @property
    def text(self) -> str:
        return "".join(event.part_delta.text for event in self.events)

    @property
    def completion(self) -> completion_pb2.Completion:
        """What has come so far."""
        return self._collector.completion()

    @property
    def id(self) -> str:
        return self.events[0].started.completion_id

    @property
    def point(self) -> pb.StreamCompletionRequest:
        """Asks for what follows the last event."""
        return resume(self.id, len(self.events))

    def goes_on(self, call: Any) -> Reader:
        """Reads on from a call that resumes the stream."""
        self.call, self.failed, self.ended = call, None, False
        return self

    async def next(self) -> Event | None:
        """The next event; None at the end, which `failed` tells of."""
        try:
            async with asyncio.timeout(PATIENCE):
                event: Any = await self.call.read()
        except grpc.aio.AioRpcError as error:
            self.failed = Failed.of(error)
            self.ended = True
            if "LlmErrorDetail" in self.failed.details:
                assert self.failed.detail.last_sequence_number == len(self.events)
            return None
        if event is grpc.aio.EOF:
            self.ended = True
            self._collector.end()
            return None
        self._collector.add(event)
        self.events.append(event)
        self.times.append(time.monotonic())
        return self.events[-1]

    async def until(self, kind: str) -> Event:
        """Reads up to an event of this kind."""
        while (event := await self.next()) is not None:
            if event.WhichOneof("event") == kind:
                return event
        raise AssertionError(f"the stream ended without {kind}: {self.kinds} {self.failed}")

    async def rest(self) -> Reader:
        """Reads to the end."""
        while await self.next() is not None:
            pass
        return self


@dataclass
class Gateway:
    """A server and connections to it."""

    app: App
    address: str
    channel: grpc.aio.Channel
    _log: io.StringIO
    stop: asyncio.Event
    #: Serves until `stop`, then drains.
    running: asyncio.Task[None]
    #: Where calls are recorded, and the log of who delivers them.
    spool: Spool | None = None
    _delivery_log: IO[bytes] | None = None

    def __post_init__(self) -> None:
        self.completions: Stub = CompletionServiceStub(self.channel)
        self.models: Stub = ModelServiceStub(self.channel)
        self.embeddings: Stub = EmbeddingServiceStub(self.channel)
        self.traces: Stub = TraceServiceStub(self.channel)
        self.health: Stub = health_pb2_grpc.HealthStub(self.channel)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.splitlines()]

    @property
    def log(self) -> str:
        self.app.telemetry.drain()
        return self._log.getvalue()

    @property
    def delivery_lines(self) -> list[dict[str, Any]]:
        """The log of the delivery process so far."""
        assert self._delivery_log is not None
        text = os.pread(self._delivery_log.fileno(), 1 << 24, 0).decode()
        return [json.loads(line) for line in text.splitlines()]

    def calls(self, method: str = "") -> list[dict[str, Any]]:
        """The access log so far."""
        return [line for line in self.lines if line["event"] == "call" and (not method or line["method"] == method)]

    def metric(self, name: str, **labels: str) -> float:
        """A metric, summed over all that have these labels."""
        found = 0.0
        for family in self.app.telemetry.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    found += sample.value
        return found

    async def complete(self, request: pb.CreateCompletionRequest, **how: Any) -> completion_pb2.Completion:
        answer: pb.CreateCompletionResponse = await self.completions.CreateCompletion(request, **how)
        return answer.completion

    def stream(self, request: pb.StreamCompletionRequest, **how: Any) -> Reader:
        return Reader(self.completions.StreamCompletion(request, **how))

    def bytes(self, path: str) -> Any:
        """A method that takes any bytes: unary for a unary method, else a stream."""
        streamed = path.endswith("/StreamCompletion")
        kind: Any = self.channel.unary_stream if streamed else self.channel.unary_unary
        return kind(path)

    async def idle(self) -> None:
        """Returns when no call is running any more."""
        await until(lambda: self.metric("trunkline_calls_in_flight") == 0)


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Returns when something is so that has no event of its own."""
    async with asyncio.timeout(patience):
        while not condition():  # it has none
            await asyncio.sleep(0.002)


def spec(model: str = "up/up-1", *texts: str, **more: Any) -> completion_pb2.CompletionSpec:
    """What to ask: one message of the user's."""
    messages = [
        message_pb2.Message(
            role=message_pb2.ROLE_USER, parts=[message_pb2.ContentPart(text=message_pb2.Text(text=text))]
        )
        for text in texts or ("Hi",)
    ]
    return completion_pb2.CompletionSpec(model=model, messages=messages, **more)


def create(model: str = "up/up-1", *texts: str, **more: Any) -> pb.CreateCompletionRequest:
    beside = {name: more.pop(name) for name in ("options", "request_id") if name in more}
    return pb.CreateCompletionRequest(spec=spec(model, *texts, **more), **beside)


def stream(model: str = "up/up-1", *texts: str, **more: Any) -> pb.StreamCompletionRequest:
    beside = {name: more.pop(name) for name in ("options", "request_id", "stream_options") if name in more}
    return pb.StreamCompletionRequest(spec=spec(model, *texts, **more), **beside)


def resume(completion_id: str, after: int, **more: Any) -> pb.StreamCompletionRequest:
    point = pb.ResumePoint(completion_id=completion_id, after_sequence_number=after)
    return pb.StreamCompletionRequest(resume=point, **more)


def script(**how: Any) -> dict[str, str]:
    """`provider_options_json` for fake/script."""
    return {"fake": json.dumps({"script": how})}


def settings(
    upstream: Upstream | None = None, provider: Mapping[str, Any] | None = None, **more: Any
) -> config.Settings:
    """A configuration with the fake provider, and the upstream as `up`."""
    providers: dict[str, Any] = {"fake": {}}
    if upstream is not None:
        providers["up"] = {"kind": "vllm", "base_url": f"{upstream.url}/v1", **(provider or {})}
    merged: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "providers": providers,
        "local": {"enabled": False},
        "drain": {"grace": 0},
        "traces": "off",
        # Nobody's own: where a test keeps something, it says so.
        "state_dir": "/proc/trunkline",
        # Tests that are about attempts say how many there are.
        "routing": {"retry": {"max_attempts": 1}},
        **more,
    }
    return config.load(None, **merged)


@asynccontextmanager
async def gateway(
    upstream: Upstream | None = None,
    provider: Mapping[str, Any] | None = None,
    *,
    channel_options: Sequence[tuple[str, Any]] = (),
    channel_credentials: grpc.ChannelCredentials | None = None,
    host: str = "127.0.0.1",
    bugs: bool = False,
    **more: Any,
) -> AsyncIterator[Gateway]:
    """Serves while the block runs. A bug that it logged fails the block, unless `bugs`. Calls are recorded if `traces`
    and `state_dir` are given.
    """
    log = io.StringIO()
    asked = settings(upstream, provider, **more)
    delivery_log = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end
    with redirect_stderr(log):
        spool = composition.spool(asked, os.environ, stderr=delivery_log)
        app = composition.build(asked, os.environ, slot=spool.slot if spool is not None else None)
    address = f"{host}:{app.listen()}"
    # Connections of a test are its own.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), *channel_options]
    channel = (
        grpc.aio.insecure_channel(address, options)
        if channel_credentials is None
        else grpc.aio.secure_channel(address, channel_credentials, options)
    )
    stop = asyncio.Event()
    running = asyncio.create_task(app.run(stop))
    made = Gateway(app, address, channel, log, stop, running, spool, delivery_log)
    try:
        await until(lambda: running.done() or "serving" in log.getvalue())
        if spool is not None:
            await asyncio.to_thread(spool.delivery.start)
        yield made
    finally:
        await channel.close()
        stop.set()
        await asyncio.wait({running}, timeout=PATIENCE)
        if spool is not None:
            await asyncio.to_thread(spool.close)
        delivery_log.close()
    running.result()
    assert made.metric("trunkline_calls_in_flight") == 0
    found = [line["traceback"] for line in made.lines if line["event"] == "bug"]
    assert bugs or not found, found[0]

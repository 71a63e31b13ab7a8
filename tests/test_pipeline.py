"""Many calls over one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.gateway import Failed, Gateway, create, gateway, script, stream, until
from tests.upstream import PATIENCE, Exchange, chat, silent, upstream

from trunkline.collect import Collector
from trunkline.v1 import embedding_service_pb2 as embedding
from trunkline.v1alpha import pipeline_service_pb2 as pb
from trunkline.v1alpha.pipeline_service_pb2_grpc import PipelineServiceStub


class Pipeline:
    """One stream, and what came back on it by call."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.items: dict[str, list[pb.PipelineResponse]] = {}
        #: Ids in the order in which their calls ended.
        self.ended: list[str] = []

    async def send(self, name: str, **request: Any) -> None:
        await self.call.write(pb.PipelineRequest(call=pb.PipelineCall(id=name, **request)))

    async def next(self) -> pb.PipelineResponse | None:
        async with asyncio.timeout(PATIENCE):
            response = await self.call.read()
        if response is grpc.aio.EOF:
            return None
        assert isinstance(response, pb.PipelineResponse)
        assert response.id not in self.ended, "something came after the status of a call"
        self.items.setdefault(response.id, []).append(response)
        if response.HasField("status"):
            self.ended.append(response.id)
        return response

    async def status(self, name: str) -> pb.ItemStatus:
        """Reads until a call has ended."""
        while name not in self.ended:
            assert await self.next() is not None, f"the stream ended before {name}"
        return self.items[name][-1].status

    async def rest(self) -> None:
        await self.call.done_writing()
        while await self.next() is not None:
            pass


@asynccontextmanager
async def opened(gw: Gateway, **how: Any) -> AsyncIterator[Pipeline]:
    call = PipelineServiceStub(gw.channel).Pipeline(**how)
    try:
        yield Pipeline(call)
    finally:
        call.cancel()


def reason(status: pb.ItemStatus) -> str:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "trunkline"
            return info.reason
    return ""


async def test_calls_of_all_kinds_share_a_stream_and_each_ends_with_its_status() -> None:
    async with gateway() as gw, opened(gw) as pipeline:
        await pipeline.send("one", create_completion=create("fake/echo", "Hello"))
        await pipeline.send("two", stream_completion=stream("fake/echo", "Hello"))
        await pipeline.send(
            "three",
            create_embeddings=embedding.CreateEmbeddingsRequest(
                spec=embedding.EmbeddingSpec(model="fake/echo", inputs=[embedding.EmbeddingInput(text="Hello")])
            ),
        )
        await pipeline.send("four", create_completion=create("nobody/knows"))
        await pipeline.rest()
        calls = gw.calls()

    assert sorted(pipeline.ended) == ["four", "one", "three", "two"]
    assert pipeline.items["one"][0].completion.completion.choices[0].message.parts[0].text.text == "You said: Hello"
    assert [item.status.code for item in pipeline.items["one"][1:]] == [0]
    collector = Collector()
    for item in pipeline.items["two"][:-1]:
        collector.add(item.event)
    collector.end()
    assert collector.completion().choices[0].message.parts[0].text.text == "You said: Hello"
    assert len(pipeline.items["three"][0].embeddings.embeddings) == 1
    failed = pipeline.items["four"][-1].status
    assert (failed.code, reason(failed)) == (grpc.StatusCode.NOT_FOUND.value[0], "MODEL_NOT_FOUND")
    assert len(pipeline.items["four"]) == 1
    # Each is a call like any other, for those who watch the server.
    assert sorted(line["method"] for line in calls) == [
        "CreateCompletion", "CreateCompletion", "CreateEmbeddings", "Pipeline", "StreamCompletion",
    ]  # fmt: skip


async def test_a_fast_call_does_not_wait_for_a_slow_one() -> None:
    async with upstream(silent) as up, gateway(up) as gw, opened(gw) as pipeline:
        await pipeline.send("slow", create_completion=create())
        await pipeline.send("fast", create_completion=create("fake/echo"))

        assert (await pipeline.status("fast")).code == 0
        assert "slow" not in pipeline.ended


async def test_one_call_is_cancelled_and_its_provider_stops_while_the_others_go_on() -> None:
    exchanges: list[Exchange] = []

    async def keep(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await silent(exchange)

    async with upstream(keep) as up, gateway(up) as gw, opened(gw) as pipeline:
        await pipeline.send("left", create_completion=create())
        await pipeline.send("stays", create_completion=create())
        await until(lambda: len(exchanges) == 2)
        await pipeline.call.write(pb.PipelineRequest(cancel=pb.PipelineCancel(id="left")))
        status = await pipeline.status("left")
        await until(lambda: sum(exchange.closed_at is not None for exchange in exchanges) == 1)
        await pipeline.call.write(pb.PipelineRequest(cancel=pb.PipelineCancel(id="nobody")))
        await pipeline.send("later", create_completion=create("fake/echo"))

        assert (status.code, reason(status)) == (grpc.StatusCode.CANCELLED.value[0], "CANCELLED")
        assert (await pipeline.status("later")).code == 0
        assert "stays" not in pipeline.ended


async def test_a_client_that_leaves_ends_all_its_calls() -> None:
    exchanges: list[Exchange] = []

    async def keep(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await silent(exchange)

    async with upstream(keep) as up, gateway(up) as gw:
        async with opened(gw) as pipeline:
            for name in "abc":
                await pipeline.send(name, create_completion=create())
            await until(lambda: len(exchanges) == 3)
        for exchange in exchanges:
            await exchange.gone()
        await gw.idle()


async def test_the_window_holds_calls_back_until_others_have_ended() -> None:
    exchanges: list[Exchange] = []

    async def keep(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await go.wait()
        await exchange.answer(chat("done"))

    go = asyncio.Event()
    async with upstream(keep) as up, gateway(up) as gw, opened(gw) as pipeline:
        await pipeline.call.write(pb.PipelineRequest(setup=pb.PipelineSetup(window=2)))
        for name in "abcde":
            await pipeline.send(name, create_completion=create())
        await until(lambda: len(exchanges) == 2)
        assert gw.metric("trunkline_calls_in_flight", method="CreateCompletion") == 2
        go.set()
        await pipeline.rest()

    assert sorted(pipeline.ended) == list("abcde")
    assert len(exchanges) == 5


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([pb.PipelineRequest()], "action"),
        ([pb.PipelineRequest(call=pb.PipelineCall(id="", create_completion=create()))], "call.id"),
        ([pb.PipelineRequest(call=pb.PipelineCall(id="x\n", create_completion=create()))], "call.id"),
        ([pb.PipelineRequest(call=pb.PipelineCall(id="x"))], "call"),
        ([pb.PipelineRequest(setup=pb.PipelineSetup(window=0))], "setup.window"),
        ([pb.PipelineRequest(setup=pb.PipelineSetup())] * 2, "setup"),
        ([pb.PipelineRequest(call=pb.PipelineCall(id="x", create_completion=create()))] * 2, "call.id"),
    ],
    ids=["nothing", "no-id", "odd-id", "no-request", "window", "second-setup", "id-in-flight"],
)
async def test_a_message_that_names_no_call_ends_the_stream(messages: list[pb.PipelineRequest], field: str) -> None:
    async with upstream(silent) as up, gateway(up) as gw, opened(gw) as pipeline:
        for message in messages:
            await pipeline.call.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pipeline.next()
        failed = Failed.of(raised.value)

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert list(failed.fields) == [field]


async def test_bytes_that_do_not_parse_end_the_stream_with_a_reason() -> None:
    async with gateway() as gw:
        raw: Any = gw.channel.stream_stream("/trunkline.v1alpha.PipelineService/Pipeline")()
        await raw.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await raw.read()

    assert Failed.of(raised.value).reason == "INVALID_REQUEST"


async def test_the_deadline_of_the_stream_gives_each_call_its_own_reason() -> None:
    async with upstream(silent) as up, gateway(up) as gw, opened(gw, timeout=1.0) as pipeline:
        await pipeline.send("slow", create_completion=create())
        status = await pipeline.status("slow")

        assert (status.code, reason(status)) == (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "GATEWAY_TIMEOUT")


async def test_a_drain_lets_the_calls_of_a_stream_finish_and_ends_it_with_a_reason() -> None:
    async with gateway(drain={"grace": 10}) as gw, opened(gw) as pipeline:
        await pipeline.send(
            "words",
            stream_completion=stream("fake/script", provider_options_json=script(text="a b c d", word_delay=0.05)),
        )
        await pipeline.next()
        gw.stop.set()
        status = await pipeline.status("words")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pipeline.next()

    assert status.code == 0
    assert Failed.of(raised.value).reason == "SHUTTING_DOWN"


async def test_a_stranger_is_refused_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "a-key-of-a-caller-0123456789")
    async with gateway(callers=[{"name": "a", "api_key_env": "TEST_KEY"}]) as gw, opened(gw) as pipeline:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            # It may be over before the first message is written.
            await pipeline.send("one", create_completion=create("fake/echo"))
            await pipeline.next()

    assert Failed.of(raised.value).reason == "CALLER_UNAUTHENTICATED"

"""Records of calls: what is asked for them, and what comes back."""

import datetime as dt

import grpc
import pytest
from fake_gateway import Failure, FakeGateway, Silence

from trunkline import AsyncClient, NotFound, Unavailable
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline.v1alpha.trace_pb2 import Trace

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_a_record_is_read_by_the_id_of_its_call_or_by_its_name(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.GetTraceResponse(trace=Trace(name="traces/cmpl_1"), backend="sqlite"))
    async with AsyncClient(gateway.address, api_key="0123456789abcdef") as client:
        whole = await client.traces.get("cmpl_1")
        await client.traces.get("traces/cmpl_1", full=False)

    assert whole.name == "traces/cmpl_1"
    assert [call.request.name for call in gateway.calls] == ["traces/cmpl_1"] * 2
    assert [call.request.view for call in gateway.calls] == [pb.TRACE_VIEW_FULL, pb.TRACE_VIEW_BASIC]
    assert gateway.calls[0].metadata["authorization"] == "Bearer 0123456789abcdef"
    assert gateway.calls[0].time_left < 31


async def test_a_list_is_read_page_by_page_while_it_is_wanted(gateway: FakeGateway) -> None:
    first = pb.ListTracesResponse(traces=[Trace(name="traces/1"), Trace(name="traces/2")], next_page_token="next")
    gateway.answers.extend([first, pb.ListTracesResponse(traces=[Trace(name="traces/3")])])
    async with AsyncClient(gateway.address) as client:
        found = []
        async for trace in client.traces.list(page_size=2, oldest_first=True):
            found.append(trace.name)
            asked = len(gateway.calls)
            assert asked == 1 + (len(found) > 2)

    assert found == ["traces/1", "traces/2", "traces/3"]
    assert [call.request.page_token for call in gateway.calls] == ["", "next"]
    assert {(call.request.page_size, call.request.order) for call in gateway.calls} == {
        (2, pb.TRACE_ORDER_OLDEST_FIRST)
    }


async def test_a_filter_is_written_with_keywords(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        async for _ in client.traces.list(
            start_time=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
            end_time=dt.datetime(2026, 1, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            provider="openai",
            failed=False,
            labels={"team": "blue"},
            min_cost=0.0125,
            min_duration=2.5,
            error_text="quota",
        ):
            pass

    which = gateway.calls[0].request.filter
    assert (which.start_time.seconds, which.end_time.seconds) == (1767312000, 1767312000)
    assert (which.provider, which.WhichOneof("status"), which.failed) == ("openai", "failed", False)
    assert dict(which.labels) == {"team": "blue"}
    assert which.min_cost_nano_usd == 12_500_000
    assert (which.min_duration.seconds, which.min_duration.nanos) == (2, 500_000_000)
    assert which.error_text == "quota"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"providor": "x"}, "unknown option 'providor'; did you mean 'provider'?"),
        ({"start_time": "yesterday"}, "start_time: cannot be 'yesterday'"),
        ({"code": 1, "failed": True}, "code and failed: give one of them"),
        ({"min_cost": "much"}, "min_cost: cannot be 'much'"),
        ({"min_duration": [1]}, "min_duration: cannot be [1]"),
    ],
)
async def test_a_filter_that_is_none_is_told_before_the_call(options: dict, told: str, gateway: FakeGateway) -> None:  # type: ignore[type-arg]  # what it holds is wrong on purpose
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(TypeError) as raised:
            async for _ in client.traces.list(**options):
                pass

    assert str(raised.value) == told
    assert gateway.calls == []


async def test_a_tail_gives_every_message_and_ends_with_its_loop(gateway: FakeGateway) -> None:
    told = pb.TailTracesResponse(trace=Trace(name="traces/1"), dropped=3)
    gateway.answers.append([pb.TailTracesResponse(), told, Silence()])
    async with AsyncClient(gateway.address) as client:
        messages = client.traces.tail(provider="openai")
        got = [await anext(messages), await anext(messages)]
        await messages.aclose()
        call = gateway.wait_for(0)

    assert got == [pb.TailTracesResponse(), told]
    assert call.request.filter.provider == "openai"
    assert call.request.view == pb.TRACE_VIEW_BASIC


async def test_an_export_gives_pieces_to_write(gateway: FakeGateway) -> None:
    gateway.answers.append([pb.ExportTracesResponse(ndjson=b'{"a"'), pb.ExportTracesResponse(ndjson=b":1}\n", count=1)])
    async with AsyncClient(gateway.address) as client:
        written = b"".join([piece async for piece in client.traces.export()])

    assert written == b'{"a":1}\n'
    assert gateway.calls[0].request.view == pb.TRACE_VIEW_FULL


async def test_deleting_names_the_backends(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        assert list(await client.traces.delete("cmpl_1")) == ["sqlite"]


async def test_what_goes_wrong_is_an_error_of_ours(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND"))
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(NotFound):
            await client.traces.get("cmpl_1")
        gateway.answers[0] = [Failure(UNAVAILABLE, reason="STORE_UNAVAILABLE", pushback=-1)]
        with pytest.raises(Unavailable) as raised:
            async for _ in client.traces.tail():
                pass

    assert raised.value.reason == "STORE_UNAVAILABLE"


async def test_a_look_up_that_failed_for_now_is_repeated(gateway: FakeGateway) -> None:
    gateway.answers.extend([Failure(UNAVAILABLE, pushback=1), pb.GetTraceResponse(trace=Trace(name="traces/1"))])
    async with AsyncClient(gateway.address) as client:
        assert (await client.traces.get("1")).name == "traces/1"

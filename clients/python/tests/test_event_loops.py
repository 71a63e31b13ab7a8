"""What only an event loop can do to a call: cancel its task, close a stream from another one."""

import asyncio

import grpc
import pytest
from fake_gateway import PATIENCE, Failure, FakeGateway, Silence, hello_events

from trunkline import AsyncClient, Cancelled, text_of
from trunkline.v1.completion_service_pb2 import CreateCompletionResponse, StreamCompletionResponse


async def arrived(gateway: FakeGateway) -> None:
    """Returns when the gateway has its first call."""
    async with asyncio.timeout(PATIENCE):
        while not gateway.calls:  # noqa: ASYNC110  # the gateway lives in threads
            await asyncio.sleep(0.005)


async def over(gateway: FakeGateway) -> None:
    """Returns when the gateway's first call is over; the loop goes on meanwhile."""
    await asyncio.to_thread(gateway.wait_for, 0)


async def test_cancelling_the_task_of_a_unary_call_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append(Silence())
    async with AsyncClient(gateway.address) as client:
        task = asyncio.create_task(client.complete("a", model="m"))
        await arrived(gateway)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await over(gateway)


async def test_cancelling_the_task_that_reads_a_stream_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    async with AsyncClient(gateway.address) as client:
        stream = client.stream("a", model="m")
        half = asyncio.Event()

        async def read() -> None:
            async for piece in stream.text():
                assert piece == "Hello"
                half.set()

        task = asyncio.create_task(read())
        await half.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await over(gateway)


async def test_cancelling_a_task_that_is_busy_with_an_event_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    async with AsyncClient(gateway.address) as client:
        busy = asyncio.Event()

        async def read() -> None:
            async for _ in client.stream("a", model="m"):
                busy.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(read())
        await busy.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await over(gateway)


async def test_a_stream_closed_by_another_task_ends_with_cancelled(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    async with AsyncClient(gateway.address) as client:
        stream = client.stream("a", model="m")
        half = asyncio.Event()

        async def read() -> None:
            async for _ in stream.text():
                half.set()

        task = asyncio.create_task(read())
        await half.wait()
        await stream.aclose()
        with pytest.raises(Cancelled) as caught:
            await task

    assert caught.value.completion is not None
    assert text_of(caught.value.completion) == "Hello"


@pytest.mark.parametrize("streamed", [False, True])
async def test_closing_the_client_ends_its_calls_with_cancelled(gateway: FakeGateway, streamed: bool) -> None:
    gateway.answers.append(Silence())
    client = AsyncClient(gateway.address)
    call = client.stream("a", model="m").collect() if streamed else client.complete("a", model="m")
    task = asyncio.ensure_future(call)
    await arrived(gateway)
    await client.aclose()

    with pytest.raises(Cancelled):
        await task


async def test_a_timeout_of_asyncio_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:2], Silence()])
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.stream("a", model="m").collect()
        await over(gateway)


async def test_waiting_for_a_rate_limit_does_not_hold_the_loop(gateway: FakeGateway) -> None:
    limit = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=60)
    gateway.answers.extend([limit, CreateCompletionResponse()])
    async with AsyncClient(gateway.address, rate_limit_retries=1) as client:
        waiting = asyncio.create_task(client.complete("a", model="m"))
        await arrived(gateway)
        await client.complete("b", model="m")
        assert not waiting.done()
        waiting.cancel()


async def test_cancelled_streams_leave_nothing_behind(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    async with AsyncClient(gateway.address) as client:
        before = asyncio.all_tasks()
        for _ in range(20):
            async for event in client.stream("a", model="m"):
                assert isinstance(event, StreamCompletionResponse)
                break
        for index in range(20):
            await asyncio.to_thread(gateway.wait_for, index)
        assert asyncio.all_tasks() == before

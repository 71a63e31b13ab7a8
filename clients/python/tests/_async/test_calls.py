"""Unary calls: what reaches the gateway, deadlines, retries, connections."""

import math

import grpc
import pytest
from fake_gateway import Failure, FakeGateway, Silence, hello

from trunkline import (
    AsyncClient,
    Cancelled,
    InvalidRequest,
    NotFound,
    RateLimited,
    TimedOut,
    Unavailable,
    Unreachable,
    system,
    text_of,
    user,
)
from trunkline.v1.completion_pb2 import CallOptions, CompletionSpec
from trunkline.v1.completion_service_pb2 import CreateCompletionResponse
from trunkline.v1.model_service_pb2 import ListModelsResponse, Model, UnlistedProvider

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_completion_arrives_as_the_gateway_made_it(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        completion = await client.complete("Say hello.", model="fake/echo")

    assert completion == hello()
    assert text_of(completion) == "Hello there."


async def test_the_request_holds_what_the_caller_asked(gateway: FakeGateway) -> None:
    options = CallOptions(include_raw=True)
    async with AsyncClient(gateway.address) as client:
        await client.complete(
            [system("Be brief."), user("Hi")],
            model="fake/echo",
            temperature=0.5,
            request_id="mine",
            options=options,
            metadata={"X-Tenant": "blue"},
        )

    call = gateway.calls[0]
    assert [message.parts[0].text.text for message in call.request.spec.messages] == ["Be brief.", "Hi"]
    assert (call.request.spec.model, call.request.spec.params.temperature) == ("fake/echo", 0.5)
    assert (call.request.request_id, call.request.options) == ("mine", options)
    assert call.metadata["x-tenant"] == "blue"


async def test_each_call_has_a_request_id_of_its_own(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        await client.complete("a", model="m")
        await client.complete("b", model="m")

    ids = {call.request.request_id for call in gateway.calls}
    assert len(ids) == 2
    assert "" not in ids


async def test_the_key_travels_as_a_bearer_token(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_API_KEY", "from-environment\n")
    monkeypatch.setenv("TRUNKLINE_ADDRESS", gateway.address)
    async with AsyncClient() as client:
        await client.complete("a", model="m")
    async with AsyncClient(api_key="given") as client:
        await client.complete("a", model="m")

    assert [call.metadata["authorization"] for call in gateway.calls] == ["Bearer from-environment", "Bearer given"]


async def test_the_gateway_learns_which_client_calls(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        await client.complete("a", model="m")

    assert str(gateway.calls[0].metadata["user-agent"]).startswith("trunkline-python/")


async def test_calls_take_turns_over_the_connections(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address, connections=3) as client:
        for _ in range(6):
            await client.complete("a", model="m")

    peers = [call.peer for call in gateway.calls]
    assert len(set(peers)) == 3
    assert peers[:3] == peers[3:]


async def test_every_call_has_a_deadline(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        await client.complete("a", model="m")
        await client.count_tokens("a", model="m")
        await client.list_models()
        await client.complete("a", model="m", timeout=7)
        await client.complete("a", model="m", timeout=math.inf)
    async with AsyncClient(gateway.address, timeout=50) as client:
        await client.complete("a", model="m")

    # gRPC tells a call without a deadline that a hundred years are left.
    expected = [600, 600, 30, 7, 100 * 365 * 86_400, 50]
    for call, seconds in zip(gateway.calls, expected, strict=True):
        assert seconds - 5 <= call.time_left if seconds < 1e6 else call.time_left > 1e8


async def test_a_call_that_runs_out_of_time_says_so(gateway: FakeGateway) -> None:
    gateway.answers.append(Silence())
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(TimedOut) as caught:
            await client.complete("a", model="m", timeout=0.2)

    assert caught.value.reason == ""
    assert gateway.wait_for(0).method == "CreateCompletion"


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
async def test_a_timeout_that_is_none_is_refused(gateway: FakeGateway, seconds: float) -> None:
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(ValueError, match="timeout: must be more than 0"):
            await client.complete("a", model="m", timeout=seconds)


async def test_unavailable_is_tried_three_times_in_all(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(UNAVAILABLE, reason="LLM_SERVER_ERROR"))
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(Unavailable) as caught:
            await client.complete("a", model="m")

    assert caught.value.reason == "LLM_SERVER_ERROR"
    assert len(gateway.calls) == 3
    assert len({call.request.request_id for call in gateway.calls}) == 1


async def test_a_try_after_unavailable_may_succeed(gateway: FakeGateway) -> None:
    gateway.answers.extend([Failure(UNAVAILABLE, reason="SHUTTING_DOWN"), CreateCompletionResponse(completion=hello())])
    async with AsyncClient(gateway.address) as client:
        assert await client.complete("a", model="m") == hello()

    assert len(gateway.calls) == 2


async def test_a_large_request_is_tried_again_too(gateway: FakeGateway) -> None:
    gateway.answers.extend([Failure(UNAVAILABLE, reason="SHUTTING_DOWN"), CreateCompletionResponse(completion=hello())])
    async with AsyncClient(gateway.address) as client:
        await client.complete("a" * 4_000_000, model="m")

    assert len(gateway.calls) == 2


async def test_a_pushback_of_minus_one_forbids_another_try(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(UNAVAILABLE, reason="LLM_OVERLOADED", pushback=-1))
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(Unavailable):
            await client.complete("a", model="m")

    assert len(gateway.calls) == 1


async def test_a_pushback_says_how_long_to_wait(gateway: FakeGateway) -> None:
    gateway.answers.extend(
        [
            Failure(UNAVAILABLE, reason="GATEWAY_OVERLOADED", pushback=600),
            CreateCompletionResponse(completion=hello()),
        ]
    )
    async with AsyncClient(gateway.address) as client:
        await client.complete("a", model="m", timeout=30)

    first, second = gateway.calls
    assert second.at - first.at >= 0.59


async def test_other_errors_are_not_tried_again(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST"))
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(InvalidRequest):
            await client.complete("a", model="m")

    assert len(gateway.calls) == 1


async def test_a_rate_limit_is_raised_at_once_by_default(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=0.2))
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(RateLimited) as caught:
            await client.complete("a", model="m")

    assert (caught.value.reason, caught.value.retry_after) == ("LLM_RATE_LIMITED", 0.2)
    assert len(gateway.calls) == 1


async def test_a_caller_may_ask_to_wait_for_a_rate_limit(gateway: FakeGateway) -> None:
    gateway.answers.extend(
        [
            Failure(EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=0.3),
            CreateCompletionResponse(completion=hello()),
        ]
    )
    async with AsyncClient(gateway.address, rate_limit_retries=1) as client:
        assert await client.complete("a", model="m", timeout=30) == hello()

    first, second = gateway.calls
    assert second.at - first.at >= 0.29
    assert second.time_left <= 29.8


@pytest.mark.parametrize(
    "failure",
    [
        Failure(EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=60),  # after the deadline
        Failure(EXHAUSTED, reason="LLM_RATE_LIMITED"),  # no word of when
        Failure(EXHAUSTED, reason="BUDGET_EXHAUSTED", retry_after=0.01),  # waiting brings no money
    ],
)
async def test_a_rate_limit_that_waiting_does_not_cure_is_raised(gateway: FakeGateway, failure: Failure) -> None:
    gateway.answers.append(failure)
    async with AsyncClient(gateway.address, rate_limit_retries=3) as client:
        with pytest.raises(Exception, match=failure.reason):
            await client.complete("a", model="m", timeout=5)

    assert len(gateway.calls) == 1


async def test_rate_limit_tries_are_counted(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=0.01))
    async with AsyncClient(gateway.address, rate_limit_retries=5) as client:
        with pytest.raises(RateLimited):
            await client.complete("a", model="m", rate_limit_retries=2)

    assert len(gateway.calls) == 3


async def test_nobody_at_the_address_is_unreachable() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(Unreachable) as caught:
            await client.complete("a", model="m")

    assert caught.value.retryable


async def test_an_answer_that_is_too_large_for_the_client_is_named(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address, channel_options=[("grpc.max_receive_message_length", 10)]) as client:
        with pytest.raises(Exception, match="Received message larger than max") as caught:
            await client.complete("a", model="m")

    assert type(caught.value).__name__ == "InternalError"


async def test_tokens_are_counted(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        counted = await client.count_tokens(CompletionSpec(model="m", messages=[user("a b")]))

    assert counted.input_tokens == 2


async def test_a_completion_is_cancelled_by_its_id(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        await client.cancel("cmpl_7")

    assert (gateway.calls[0].method, gateway.calls[0].request.completion_id) == ("CancelCompletion", "cmpl_7")


async def test_a_call_that_another_call_cancelled_ends_with_cancelled(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(grpc.StatusCode.CANCELLED, reason="CANCELLED"))
    async with AsyncClient(gateway.address) as client:
        with pytest.raises(Cancelled):
            await client.complete("a", model="m")


async def test_all_pages_of_models_come_as_one(gateway: FakeGateway) -> None:
    down = UnlistedProvider(provider="openai", reason="LLM_CONNECTION")
    gateway.answers.extend(
        [
            ListModelsResponse(models=[Model(name="a")], next_page_token="2", unlisted_providers=[down]),
            ListModelsResponse(models=[Model(name="b")], unlisted_providers=[down]),
        ]
    )
    async with AsyncClient(gateway.address) as client:
        listed = await client.list_models("fake")

    assert [model.name for model in listed.models] == ["a", "b"]
    assert list(listed.unlisted_providers) == [down]
    assert [(call.request.provider, call.request.page_token) for call in gateway.calls] == [("fake", ""), ("fake", "2")]


async def test_one_model_is_found_by_name(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        assert (await client.get_model("fake/echo")).name == "fake/echo"


async def test_health_is_told_of_the_server_and_of_a_service(gateway: FakeGateway) -> None:
    async with AsyncClient(gateway.address) as client:
        assert await client.health() == "SERVING"
        assert await client.health("down") == "NOT_SERVING"
        with pytest.raises(NotFound, match="NOT_FOUND: not found"):
            await client.health("no.such.Service")


async def test_a_closed_client_refuses_to_call(gateway: FakeGateway) -> None:
    client = AsyncClient(gateway.address)
    await client.complete("a", model="m")
    await client.aclose()

    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.complete("a", model="m")

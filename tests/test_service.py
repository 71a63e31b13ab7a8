"""What surrounds the calls: health, reflection, lists of models, counts, the access log and the metrics."""

from __future__ import annotations

import io
import re
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.gateway import Gateway, create, failing, gateway, spec, stream, until
from tests.upstream import Exchange, chat, piece, says, silent, upstream

from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1 import embedding_service_pb2, model_service_pb2
from trunkline_server.telemetry.logs import make_access_log, make_log

SERVED = [
    "trunkline.v1.CompletionService",
    "trunkline.v1.EmbeddingService",
    "trunkline.v1.ModelService",
    "trunkline.v1alpha.ConfigService",
    "trunkline.v1alpha.PipelineService",
]
SERVING = health_pb2.HealthCheckResponse.SERVING

# -- health -----------------------------------------------------------------------------------------------------------


async def test_health_is_told_overall_and_for_each_service() -> None:
    async with gateway() as gw:
        for name in ("", *SERVED):
            answer = await gw.health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == SERVING
        failed = await failing(gw.health.Check(health_pb2.HealthCheckRequest(service="trunkline.v1.TraceService")))

    assert failed.code is grpc.StatusCode.NOT_FOUND


async def test_health_does_not_depend_on_a_provider() -> None:
    async with upstream(silent) as up, gateway(up) as gw:
        call = gw.completions.CreateCompletion(create())
        await up.next()
        assert (await gw.health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        call.cancel()


# -- reflection -------------------------------------------------------------------------------------------------------


async def asked(gw: Gateway, **question: Any) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(gw.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]))
    return await call.read()


async def test_reflection_lists_exactly_what_is_served() -> None:
    async with gateway() as gw:
        answer = await asked(gw, list_services="")

    listed = [service.name for service in answer.list_services_response.service]
    assert sorted(listed) == sorted([*SERVED, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"])


async def test_a_call_needs_nothing_but_reflection() -> None:
    pool = descriptor_pool.DescriptorPool()
    async with gateway() as gw:

        async def learn(question: dict[str, str]) -> None:
            answer = await asked(gw, **question)
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(data)
                for needed in file.dependency:
                    try:
                        pool.FindFileByName(needed)
                    except KeyError:
                        await learn({"file_by_filename": needed})
                pool.Add(file)

        await learn({"file_containing_symbol": SERVED[0]})
        method = pool.FindServiceByName(SERVED[0]).FindMethodByName("CreateCompletion")
        request = message_factory.GetMessageClass(method.input_type)()
        request.ParseFromString(create("fake/echo", "hello").SerializeToString())
        data = await gw.bytes(f"/{SERVED[0]}/{method.name}")(request.SerializeToString())
        answer: Any = message_factory.GetMessageClass(method.output_type).FromString(data)

    assert answer.completion.choices[0].message.parts[0].text.text == "You said: hello"


# -- models, tokens, embeddings ---------------------------------------------------------------------------------------


def listing(*ids: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in ids]}


async def test_models_of_all_providers_are_listed_in_pages() -> None:
    async def script(exchange: Exchange) -> None:
        assert (exchange.method, exchange.path) == ("GET", "/v1/models")
        await exchange.answer(listing("b", "a", "c"))

    models = {"fast": "up/b"}
    async with upstream(script) as up, gateway(up, models=models) as gw:
        names: list[str] = []
        token = ""
        while True:
            request = model_service_pb2.ListModelsRequest(page_size=2, page_token=token)
            page = await gw.models.ListModels(request)
            assert len(page.models) <= 2
            names += [model.name for model in page.models]
            token = page.next_page_token
            if not token:
                break
        one = (await gw.models.GetModel(model_service_pb2.GetModelRequest(name="fast"))).model
        failed = await failing(gw.models.GetModel(model_service_pb2.GetModelRequest(name="up/zzz")))

    assert "fake/echo" in names
    # By provider, and then in the provider's order.
    assert names[-3:] == ["up/b", "up/a", "up/c"]
    assert (one.name, list(one.aliases)) == ("up/b", ["fast"])
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


async def test_a_provider_that_cannot_list_hides_no_other() -> None:
    async with upstream(lambda exchange: exchange.answer({}, 401)) as up, gateway(up) as gw:
        page = await gw.models.ListModels(model_service_pb2.ListModelsRequest())

    assert [(u.provider, u.reason) for u in page.unlisted_providers] == [("up", "LLM_AUTHENTICATION")]
    assert any(model.name == "fake/echo" for model in page.models)


async def test_a_page_token_of_another_list_is_refused() -> None:
    async with gateway() as gw:
        page = await gw.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1))
        request = model_service_pb2.ListModelsRequest(provider="fake", page_token=page.next_page_token)
        failed = await failing(gw.models.ListModels(request))

    assert (failed.code, list(failed.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


async def test_tokens_are_counted_without_a_call() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        answer = await gw.completions.CountTokens(pb.CountTokensRequest(spec=spec("up/up-1", "x" * 400)))

    assert answer.input_tokens == 100
    assert up.exchanges == []


async def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    async with gateway() as gw:
        request = embedding_service_pb2.CreateEmbeddingsRequest(
            spec=embedding_service_pb2.EmbeddingSpec(
                model="fake/echo",
                inputs=[embedding_service_pb2.EmbeddingInput(text=text) for text in ("a", "b", "a")],
            )
        )
        answer = await gw.embeddings.CreateEmbeddings(request)

    assert [e.index for e in answer.embeddings] == [0, 1, 2]
    assert list(answer.embeddings[0].values) == list(answer.embeddings[2].values) != list(answer.embeddings[1].values)


# -- log and metrics --------------------------------------------------------------------------------------------------


async def test_every_call_is_one_line_however_it_ends() -> None:
    async def by_model(exchange: Exchange) -> None:
        match exchange.json["model"]:
            case "good":
                await says("one", " two")(exchange)
            case "bad":
                await exchange.answer({"error": {"message": "no"}}, 400)
            case "cut":
                await exchange.head()
                await exchange.chunk(piece("", role="assistant") + piece("one"))
                exchange.cut()
            case _:
                await exchange.silence()

    async with upstream(by_model) as up, gateway(up) as gw:
        await gw.complete(create("up/good"))
        await gw.stream(stream("up/good")).rest()
        await failing(gw.completions.CreateCompletion(create("up/bad")))
        await gw.stream(stream("up/cut")).rest()
        await failing(gw.completions.CreateCompletion(create("up/silent"), timeout=2.0))
        call = gw.completions.CreateCompletion(create("up/silent"))
        await until(lambda: len(up.exchanges) == 6)
        call.cancel()
        await gw.idle()
        await failing(gw.completions.CreateCompletion(create("nobody/x")))
        await failing(gw.completions.CreateCompletion(pb.CreateCompletionRequest()))
        await failing(gw.bytes("/trunkline.v1.CompletionService/CreateCompletion")(b"\xff"))
        await gw.models.ListModels(model_service_pb2.ListModelsRequest(provider="fake"))

    ends = [(line["method"], line["code"], line.get("reason", ""), line.get("provider", "")) for line in gw.calls()]
    assert ends == [
        ("CreateCompletion", "OK", "", "up"),
        ("StreamCompletion", "OK", "", "up"),
        ("CreateCompletion", "INVALID_ARGUMENT", "LLM_BAD_REQUEST", "up"),
        ("StreamCompletion", "UNAVAILABLE", "LLM_CONNECTION", "up"),
        ("CreateCompletion", "DEADLINE_EXCEEDED", "GATEWAY_TIMEOUT", "up"),
        ("CreateCompletion", "CANCELLED", "CANCELLED", "up"),
        ("CreateCompletion", "NOT_FOUND", "MODEL_NOT_FOUND", ""),
        ("CreateCompletion", "INVALID_ARGUMENT", "INVALID_REQUEST", ""),
        ("CreateCompletion", "INVALID_ARGUMENT", "INVALID_REQUEST", ""),
        ("ListModels", "OK", "", ""),
    ]
    good, streamed, bad = gw.calls()[:3]
    assert (good["input_tokens"], good["output_tokens"], good["upstream_status"], good["attempts"]) == (7, 3, 200, 1)
    assert streamed["events"] >= 7
    assert streamed["first_token_ms"] <= streamed["ms"]
    assert bad["upstream_status"] == 400
    assert len({line["id"] for line in gw.calls()}) == 10
    assert gw.metric("trunkline_calls_total") == 10
    assert gw.metric("trunkline_calls_total", code="OK", provider="up") == 2
    assert gw.metric("trunkline_tokens_total", provider="up", direction="input") == 14
    assert gw.metric("trunkline_attempts_total", provider="up") == 6
    assert gw.metric("trunkline_time_to_first_token_seconds_count", provider="up") == 2


async def test_calls_in_flight_are_counted_while_they_are() -> None:
    async with upstream(silent) as up, gateway(up) as gw:
        calls = [gw.completions.CreateCompletion(create()) for _ in range(3)]
        await until(lambda: gw.metric("trunkline_calls_in_flight", method="CreateCompletion") == 3)
        for call in calls:
            call.cancel()
        await gw.idle()


async def test_made_up_names_make_no_metrics() -> None:
    """Who sends a new name each time must not fill the memory."""

    async def some(exchange: Exchange) -> None:
        known = exchange.json["model"].startswith("m")
        await exchange.answer(chat() if known else {"error": {"message": "no"}}, 200 if known else 404)

    async def called(gw: Gateway, of: range) -> int:
        for n in of:
            await failing(gw.completions.CreateCompletion(create(f"no{n}/x")))
            await failing(gw.completions.CreateCompletion(create(f"up/nothing{n}")))
            await gw.complete(create(f"up/m{n}"))
        return sum(len(family.samples) for family in gw.app.telemetry.metrics.registry.collect())

    async with (
        upstream(some) as up,
        gateway(up, metrics={"port": 1, "max_values": 5}, models={"mine": "up/m9"}) as gw,
    ):
        few = await called(gw, range(10))
        many = await called(gw, range(10, 40))

        assert many == few
        assert gw.metric("trunkline_calls_total") == 120
        # Names that no provider answered for took no place; the configured one has it from the beginning.
        assert [gw.metric("trunkline_calls_total", model=f"m{n}", code="OK") for n in (0, 3, 4, 9)] == [1, 1, 0, 1]
        assert gw.metric("trunkline_calls_total", model="other", code="OK") == 35
        assert gw.metric("trunkline_calls_total", model="other", code="NOT_FOUND") == 40


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_line_cannot_be_forged_by_what_a_caller_says(form: str) -> None:
    written = io.StringIO()
    log = make_log(form=form, stream=written)
    log.info("call", request_id='x"}\n{"event":"call","code":"OK"')
    make_access_log(log, form=form, stream=written)({"request_id": 'x"}\n{"event":"call","code":"OK"'})

    assert len(written.getvalue().splitlines()) == 2


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_the_line_of_a_call_looks_like_every_other_line(level: str) -> None:
    plain, access = io.StringIO(), io.StringIO()
    make_log(level=level, stream=plain).info("call", id="cmpl_1", ms=1.25)
    make_access_log(make_log(level=level, stream=access), level=level, stream=access)({"id": "cmpl_1", "ms": 1.25})

    lines = [re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "now", stream.getvalue()) for stream in (plain, access)]
    assert lines[0] == lines[1]
    assert ('"timestamp":"now"' in lines[0]) == (level != "warning")

"""Configs and routes that operators keep by RPC, and a configuration file that is read again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf.field_mask_pb2 import FieldMask
from tests.gateway import Failed, create, failing, gateway, stream
from tests.process import connected, opened, server_process
from tests.services import or_skip, postgresql
from tests.traces.recorded import stored
from tests.upstream import PATIENCE, says, silent_midway, upstream

from trunkline.v1 import completion_pb2, config_pb2, generation_pb2
from trunkline.v1 import completion_service_pb2 as completions
from trunkline.v1alpha import config_service_pb2 as pb
from trunkline.v1alpha import route_pb2
from trunkline.v1alpha.config_service_pb2_grpc import ConfigServiceStub

Code = grpc.StatusCode


def leads(*models: str, **more: Any) -> route_pb2.Route:
    return route_pb2.Route(targets=[route_pb2.RouteTarget(model=model) for model in models], **more)


def config(**more: Any) -> config_pb2.LlmConfig:
    return config_pb2.LlmConfig(provider="fake", model="echo", **more)


@asynccontextmanager
async def operator(gw: Any) -> AsyncIterator[Any]:
    yield ConfigServiceStub(gw.channel)


async def test_a_stored_route_is_asked_for_like_any_other_name_and_goes_away_again(tmp_path: Path) -> None:
    async with gateway(state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        made = (await stub.CreateRoute(pb.CreateRouteRequest(route_id="fast", route=leads("fake/echo")))).route
        answer = await gw.complete(create("fast", "Hello"))
        listed = [route.name for route in (await stub.ListRoutes(pb.ListRoutesRequest())).routes]
        got = await stub.GetRoute(pb.GetRouteRequest(name="routes/fast"))
        await stub.DeleteRoute(pb.DeleteRouteRequest(name="routes/fast", etag=made.etag))
        gone = await failing(gw.completions.CreateCompletion(create("fast")))

    assert made.name == "routes/fast"
    assert made.source == route_pb2.CONFIG_SOURCE_STORE
    assert made.etag
    assert answer.choices[0].message.parts[0].text.text == "You said: Hello"
    assert listed == ["routes/fast"]
    assert got.route == made
    assert [(h.target, h.state, h.attempts) for h in got.health] == [("fake/echo", pb.BREAKER_STATE_CLOSED, 1)]
    assert (gone.code, gone.reason) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")


async def test_a_stored_config_carries_its_defaults_and_routes_lead_to_it(tmp_path: Path) -> None:
    async with upstream(says("Hello")) as up, gateway(up, state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        told = config_pb2.LlmConfig(
            provider="up", model="m-1", max_output_tokens=77, defaults=generation_pb2.GenerationParams(temperature=0.25)
        )
        await stub.CreateConfig(pb.CreateConfigRequest(config_id="careful", config=told))
        route = route_pb2.Route(
            targets=[route_pb2.RouteTarget(config="configs/careful")], defaults_json='{"topP": 0.5}'
        )
        await stub.CreateRoute(pb.CreateRouteRequest(route_id="named", route=route))
        await gw.complete(create("named"))
        spec = create().spec
        spec.config = "configs/careful"
        await gw.complete(completions.CreateCompletionRequest(spec=spec))
        in_use = await failing(stub.DeleteConfig(pb.DeleteConfigRequest(name="configs/careful")))
        by_route, by_config = (exchange.json for exchange in up.exchanges)

    assert (by_route["model"], by_route["temperature"], by_route["top_p"]) == ("m-1", 0.25, 0.5)
    assert (by_config["model"], by_config["temperature"]) == ("m-1", 0.25)
    assert 77 in by_config.values()
    assert (in_use.code, in_use.reason) == (Code.FAILED_PRECONDITION, "CONFIG_IN_USE")
    assert "routes/named" in in_use.message


async def test_everything_that_is_wrong_with_a_route_is_told_at_once(tmp_path: Path) -> None:
    wrong = route_pb2.Route(
        targets=[
            route_pb2.RouteTarget(model="nobody/x", weight=0),
            route_pb2.RouteTarget(config="configs/none"),
            route_pb2.RouteTarget(model="fake/echo", credential="none"),
        ],
        defaults_json='{"temperature": 9}',
    )
    async with gateway(state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        failed = await failing(stub.CreateRoute(pb.CreateRouteRequest(route_id="a b", route=wrong)))

    assert (failed.code, failed.reason) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert set(failed.fields) == {
        "route_id", "route.targets.0.model", "route.targets.0.weight", "route.targets.1.config",
        "route.targets.2.credential", "route.defaults_json.temperature",
    }  # fmt: skip


async def test_everything_that_is_wrong_with_a_config_is_told_at_once(tmp_path: Path) -> None:
    wrong = config_pb2.LlmConfig(provider="nobody", endpoint="http://here", credential="none", max_output_tokens=0)
    wrong.timeouts.idle.seconds = 5
    wrong.timeouts.total.seconds = -1
    async with gateway(state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        failed = await failing(stub.CreateConfig(pb.CreateConfigRequest(config_id="A", config=wrong)))

    assert set(failed.fields) == {
        "config_id", "config.provider", "config.model", "config.endpoint", "config.credential",
        "config.max_output_tokens", "config.timeouts.idle", "config.timeouts.total",
    }  # fmt: skip


async def test_a_dry_run_checks_and_changes_nothing(tmp_path: Path) -> None:
    async with gateway(state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        request = pb.CreateConfigRequest(config_id="c", config=config(), validate_only=True)
        made = (await stub.CreateConfig(request)).config
        missing = await failing(stub.GetConfig(pb.GetConfigRequest(name="configs/c")))
        await stub.CreateConfig(pb.CreateConfigRequest(config_id="c", config=config()))
        again = await failing(stub.CreateConfig(request))

    assert (made.name, made.etag) == ("configs/c", "")
    assert missing.reason == "NOT_FOUND"
    assert (again.code, again.reason) == (Code.ALREADY_EXISTS, "ALREADY_EXISTS")


async def test_an_update_takes_the_fields_of_its_mask_and_holds_to_the_etag(tmp_path: Path) -> None:
    async with gateway(state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        request = pb.CreateConfigRequest(config_id="c", config=config(display_name="one", labels={"a": "1"}))
        first = (await stub.CreateConfig(request)).config
        change = config_pb2.LlmConfig(name="configs/c", display_name="two", etag=first.etag)
        mask = FieldMask(paths=["display_name"])
        second = (await stub.UpdateConfig(pb.UpdateConfigRequest(config=change, update_mask=mask))).config
        stale = await failing(stub.UpdateConfig(pb.UpdateConfigRequest(config=change, update_mask=mask)))
        odd = await failing(
            stub.UpdateConfig(pb.UpdateConfigRequest(config=change, update_mask=FieldMask(paths=["nothing"])))
        )
        got = (await stub.GetConfig(pb.GetConfigRequest(name="configs/c"))).config

    assert (second.display_name, dict(second.labels), second.model) == ("two", {"a": "1"}, "echo")
    assert second.create_time == first.create_time
    assert second.etag != first.etag
    assert (stale.code, stale.reason) == (Code.ABORTED, "CONFIG_CONFLICT")
    assert list(odd.fields) == ["update_mask"]
    assert got == second


async def test_a_route_of_the_file_wins_and_is_changed_there(tmp_path: Path) -> None:
    async with gateway(state_dir=str(tmp_path), models={"fast": "fake/echo"}) as gw, operator(gw) as stub:
        exists = await failing(stub.CreateRoute(pb.CreateRouteRequest(route_id="fast", route=leads("fake/json"))))
        change = leads("fake/json", name="routes/fast")
        kept = await failing(stub.UpdateRoute(pb.UpdateRouteRequest(route=change)))
        got = (await stub.GetRoute(pb.GetRouteRequest(name="routes/fast"))).route

    assert exists.reason == "ALREADY_EXISTS"
    assert kept.reason == "CONFIG_IN_USE"
    assert got.source == route_pb2.CONFIG_SOURCE_FILE


async def test_only_operators_change_and_all_callers_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_A", "a-key-of-a-caller-0123456789")
    monkeypatch.setenv("KEY_B", "a-key-of-an-operator-0123456789")
    callers = [{"name": "a", "api_key_env": "KEY_A"}, {"name": "b", "api_key_env": "KEY_B", "operator": True}]
    async with gateway(state_dir=str(tmp_path), callers=callers) as gw, operator(gw) as stub:
        caller = [("authorization", "Bearer a-key-of-a-caller-0123456789")]
        boss = [("authorization", "Bearer a-key-of-an-operator-0123456789")]
        request = pb.CreateRouteRequest(route_id="x", route=leads("fake/echo"))
        refused = await failing(stub.CreateRoute(request, metadata=caller))
        await stub.CreateRoute(request, metadata=boss)
        read = await stub.GetRoute(pb.GetRouteRequest(name="routes/x"), metadata=caller)

    assert (refused.code, refused.reason) == (Code.PERMISSION_DENIED, "CALLER_PERMISSION_DENIED")
    assert read.route.name == "routes/x"


async def test_pages_of_configs_go_through_without_a_gap(tmp_path: Path) -> None:
    names = [f"c{number:02}" for number in range(7)]
    async with gateway(state_dir=str(tmp_path)) as gw, operator(gw) as stub:
        for name in names:
            await stub.CreateConfig(pb.CreateConfigRequest(config_id=name, config=config()))
        found, token = [], ""
        while True:
            page = await stub.ListConfigs(pb.ListConfigsRequest(page_size=3, page_token=token))
            found += [one.name for one in page.configs]
            token = page.next_page_token
            if not token:
                break
        odd = await failing(stub.ListConfigs(pb.ListConfigsRequest(page_token="strange", page_size=-1)))

    assert found == [f"configs/{name}" for name in names]
    assert set(odd.fields) == {"page_token", "page_size"}


async def test_another_server_on_the_same_store_follows_within_seconds_and_after_a_restart(tmp_path: Path) -> None:
    async with gateway(state_dir=str(tmp_path)) as one, gateway(state_dir=str(tmp_path)) as two, operator(one) as stub:
        await stub.CreateRoute(pb.CreateRouteRequest(route_id="shared", route=leads("fake/echo")))
        reasons: set[str] = set()

        async def known() -> bool:
            try:
                await two.complete(create("shared"))
            except grpc.aio.AioRpcError as error:
                reasons.add(Failed.of(error).reason)
                return False
            return True

        async with asyncio.timeout(10):
            while not await known():
                await asyncio.sleep(0.05)
    async with gateway(state_dir=str(tmp_path)) as later:
        answer = await later.complete(create("shared"))

    assert reasons <= {"MODEL_NOT_FOUND"}
    assert answer.choices[0].message.parts[0].text.text == "You said: Hi"


async def test_two_operators_at_once_lose_nothing(tmp_path: Path) -> None:
    async with gateway(state_dir=str(tmp_path)) as one, gateway(state_dir=str(tmp_path)) as two:
        stubs = [ConfigServiceStub(one.channel), ConfigServiceStub(two.channel)]
        made = await asyncio.gather(
            *(
                stubs[number % 2].CreateConfig(pb.CreateConfigRequest(config_id=f"c{number}", config=config()))
                for number in range(20)
            )
        )
        listed = await stubs[0].ListConfigs(pb.ListConfigsRequest())

    assert len(made) == len(listed.configs) == 20


async def test_configs_are_kept_in_postgresql_too(tmp_path: Path) -> None:
    with or_skip(), postgresql() as server:
        store = server.database()
        async with gateway(store=store) as one, gateway(store=store) as two, operator(one) as stub:
            made = await asyncio.gather(
                *(
                    ConfigServiceStub(gw.channel).CreateRoute(
                        pb.CreateRouteRequest(route_id=f"{name}{number}", route=leads("fake/echo"))
                    )
                    for number in range(5)
                    for name, gw in (("a", one), ("b", two))
                )
            )
            stale = await failing(stub.DeleteRoute(pb.DeleteRouteRequest(name="routes/a0", etag="other")))
            answer = await two.complete(create("a4"))
        server.stop()
        async with gateway(store=store) as without, operator(without) as stub:
            down = await failing(stub.CreateRoute(pb.CreateRouteRequest(route_id="x", route=leads("fake/echo"))))
            served = await without.complete(create("fake/echo"))

    assert len(made) == 10
    assert stale.reason == "CONFIG_CONFLICT"
    assert answer.provider == "fake"
    assert (down.code, down.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert served.provider == "fake"


# -- the file ---------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_read_again_changes_names_while_a_stream_goes_on(tmp_path: Path) -> None:
    async with (
        upstream(silent_midway) as old,
        upstream(says("new")) as new,
        server_process(
            tmp_path,
            providers={"up": {"kind": "vllm", "base_url": f"{old.url}/v1"}},
            models={"fast": "up/m"},
            state_dir=str(tmp_path / "state"),
        ) as server,
        connected(await server.address()) as stub,
    ):
        reader = opened(stub, stream("fast"))
        await reader.until("part_delta")
        file = tmp_path / "trunkline.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["providers"]["up"]["base_url"] = f"{new.url}/v1"
        settings["models"]["more"] = "up/m"
        settings["limits"] = {"max_calls": 5}
        file.write_text(yaml.safe_dump(settings))
        server.signal(signal.SIGHUP)
        line = await server.line("configuration reloaded")
        answer = await stub.CreateCompletion(create("more"))
        goes_on = not reader.call.done()
        reader.call.cancel()

    assert set(line["changed"]) == {"providers.up", "models.more"}
    assert line["need_restart"] == ["limits"]
    assert answer.completion.choices[0].message.parts[0].text.text == "new"
    assert goes_on


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_file_is_read_again_by_rpc_in_every_worker(tmp_path: Path, workers: int) -> None:
    async with server_process(
        tmp_path, workers=workers, models={"fast": "fake/echo"}, state_dir=str(tmp_path / "state")
    ) as server:
        address = await server.address()
        await server.line("serving", workers)
        file = tmp_path / "trunkline.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["models"] = {"slow": "fake/echo"}
        file.write_text(yaml.safe_dump(settings))
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = ConfigServiceStub(channel)
            dry = await stub.ReloadConfig(pb.ReloadConfigRequest(validate_only=True))
            done = await stub.ReloadConfig(pb.ReloadConfigRequest())
            await server.line("configuration reloaded", workers)
            file.write_text("models: {slow: nobody/x}\nlisten: here\n")
            wrong = await failing(stub.ReloadConfig(pb.ReloadConfigRequest()))
        async with connected(address) as calls:
            answer = await calls.CreateCompletion(create("slow"))

    assert list(dry.changed) == list(done.changed) == ["models.fast", "models.slow"]
    assert not done.need_restart
    assert wrong.reason == "INVALID_REQUEST"
    assert "here" in str(wrong.details["BadRequest"])
    assert isinstance(answer.completion, completion_pb2.Completion)


async def test_a_file_with_a_mistake_changes_nothing(tmp_path: Path) -> None:
    async with (
        server_process(tmp_path, models={"fast": "fake/echo"}, state_dir=str(tmp_path / "state")) as server,
        connected(await server.address()) as stub,
    ):
        (tmp_path / "trunkline.yaml").write_text("models: {fast: nobody/x}\nproviders: {fake: {}}\n")
        server.signal(signal.SIGHUP)
        line = await server.line("configuration not reloaded")
        answer = await stub.CreateCompletion(create("fast"))

    assert "nobody" in line["mistakes"]
    assert answer.completion.provider == "fake"


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_key_of_the_file_as_it_is_now_is_in_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    key = "Zq7Xw9-no-known-form"

    async def echoes(exchange: Any) -> None:
        sent = exchange.headers["authorization"].removeprefix("Bearer ")
        await exchange.answer({"error": {"message": f"you sent {sent}"}}, 401)

    monkeypatch.setenv("NEW_KEY", key)
    async with (
        upstream(echoes) as up,
        server_process(
            tmp_path, workers=workers, traces="sqlite:", state_dir=str(tmp_path / "state"), drain={"grace": 0}
        ) as server,
        connected(await server.address()) as stub,
    ):
        await server.line("serving", workers, 3 * PATIENCE)
        await stub.CreateCompletion(create("fake/echo"))
        file = tmp_path / "trunkline.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["providers"]["up"] = {"kind": "vllm", "base_url": f"{up.url}/v1", "api_key_env": "NEW_KEY"}
        file.write_text(yaml.safe_dump(settings))
        server.signal(signal.SIGHUP)
        await server.line("configuration reloaded", workers)
        await failing(stub.CreateCompletion(create("up/m")))
        server.signal()
        assert await server.ended() == 0

    traces = await stored("sqlite:", tmp_path / "state", full=True)
    assert [trace.provider for trace in traces] == ["fake", "up"]
    assert "you sent ***" in traces[1].attempts[0].response.body.decode()
    assert all(key.encode() not in trace.SerializeToString() for trace in traces)
    assert key not in server.text


async def test_a_file_that_cannot_be_built_changes_nothing_beside_several_workers_either(tmp_path: Path) -> None:
    async with server_process(tmp_path, workers=2, models={"fast": "fake/echo"}) as server:
        await server.line("serving", 2, 3 * PATIENCE)
        (tmp_path / "trunkline.yaml").write_text("models: {fast: nobody/x}\nproviders: {fake: {}}\n")
        server.signal(signal.SIGHUP)
        line = await server.line("configuration not reloaded")
        async with connected(await server.address()) as stub:
            answer = await stub.CreateCompletion(create("fast"))

    assert "nobody" in line["mistakes"]
    assert answer.completion.provider == "fake"

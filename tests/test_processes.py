"""The server as operators run it: start-up, workers, mistakes in the configuration, metrics over HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.gateway import Stub, create, failing, script, stream, until
from tests.process import ServerProcess, connected, opened, server_process


async def workers_of(server: ServerProcess, count: int) -> list[int]:
    """The processes that serve, once all of them do."""
    await server.line("serving", count)
    children = [child for child in psutil.Process(server.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return [child.pid for child in children]


async def answers(stub: Stub) -> str:
    answer = await stub.CreateCompletion(create("fake/echo", "hi"), timeout=10)
    return answer.completion.choices[0].message.parts[0].text.text  # type: ignore[no-any-return]


async def exposed(port: int) -> str:
    """The metrics, as a scraper reads them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def total(text: str, name: str) -> float:
    """A metric, summed over its labels."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


async def test_workers_share_the_port_and_all_answer(tmp_path: Path) -> None:
    async with server_process(tmp_path, workers=3) as server:
        address = await server.address()
        pids = await workers_of(server, 3)
        for _ in range(40):
            async with connected(address) as stub:
                assert await answers(stub) == "You said: hi"
        await server.line("call", 40)
        server.signal()
        code = await server.ended()

    assert len(pids) == 3
    assert len({line["listen"] for line in server.lines if line["event"] == "serving"}) == 1
    assert code == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_worker_that_dies_is_replaced_and_its_callers_are_told(tmp_path: Path) -> None:
    slow = stream("fake/script", provider_options_json=script(text="one two three", word_delay=0.2))
    async with server_process(tmp_path, workers=2) as server:
        address = await server.address()
        pids = await workers_of(server, 2)
        async with connected(address) as stub:
            reader = opened(stub, slow)
            await reader.until("part_delta")
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            await reader.rest()
            # The same client goes on as soon as there are workers again.
            await server.line("serving", 4)
            assert (
                await stub.CreateCompletion(create("fake/echo"), wait_for_ready=True, timeout=20)
            ).completion.choices
        replaced = await workers_of(server, 4)
        server.signal()
        assert await server.ended() == 0

    assert reader.failed is not None
    assert reader.failed.code is grpc.StatusCode.UNAVAILABLE
    assert len(replaced) == 2
    assert not set(replaced) & set(pids)
    ended = [line for line in server.lines if line["event"] == "worker ended"]
    assert Counter(line["pid"] for line in ended) == dict.fromkeys(pids, 1)


async def test_workers_drain_together(tmp_path: Path) -> None:
    slow = stream("fake/script", provider_options_json=script(text="one two three four", word_delay=0.2))
    async with server_process(tmp_path, workers=2, drain={"grace": 20}) as server:
        address = await server.address()
        await workers_of(server, 2)
        async with connected(address) as first, connected(address) as second:
            readers = [opened(first, slow), opened(second, slow)]
            for reader in readers:
                await reader.until("part_delta")
            server.signal()
            for reader in readers:
                await reader.rest()
        assert await server.ended() == 0

    assert [reader.text for reader in readers] == ["one two three four"] * 2
    assert [reader.failed for reader in readers] == [None, None]


async def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    async with server_process(tmp_path, workers=2) as server:
        pids = await workers_of(server, 2)
        server.signal(signal.SIGKILL)
        await server.process.wait()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_taken_port_is_one_clear_line(tmp_path: Path, workers: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with server_process(tmp_path, listen=f"127.0.0.1:{port}", workers=workers) as server:
            code = await server.ended()

    assert code == 2
    [line] = [line for line in server.output if line.strip()]
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert "Choose another port" in line


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 1), (1, 2), (2, 2)])
async def test_two_servers_never_share_a_port(tmp_path: Path, first: int, second: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with server_process(tmp_path / "a", workers=first) as one:
        address = await one.address()
        await one.line("serving", first)
        async with server_process(tmp_path / "b", listen=address, workers=second) as other:
            assert await other.ended() == 2
        assert "cannot listen on" in other.text


async def test_every_mistake_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    mistakes: dict[str, Any] = {
        "listen": "0.0.0.0:1",
        "workers": 0,
        "colour": "blue",
        "callers": [{"name": "a"}],
        "providers": {
            "one": {"kind": "openai", "api_key_env": "NOT_SET_ANYWHERE"},
            "two": {"kind": "openai", "base_url": "ftp://x", "timeouts": {"idle": "soon"}},
        },
        "models": {"fast": "nobody"},
        "log": {"level": "loud"},
    }
    async with server_process(tmp_path, **mistakes) as server:
        code = await server.ended()

    assert code == 2
    fields = {line.split(":")[0].strip() for line in server.output[1:]}
    assert {
        "workers", "colour", "callers.0", "providers.one", "providers.two.base_url", "providers.two.timeouts.idle",
        "models.fast", "log.level",
    } <= fields  # fmt: skip
    assert "NOT_SET_ANYWHERE" in server.text
    assert "Traceback" not in server.text


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"providers": {"x": {"kind": "nothing"}}}, "providers.x: no kind of provider 'nothing'"),
        ({"providers": {"vllm": {}}}, "providers.vllm: a provider of kind 'vllm' has no usual address"),
        ({"models": {"fast": "nobody/x"}}, "models.fast.targets.0.model: no provider 'nobody' is"),
        ({"models": {"fast": {"targets": ["fake/echo"], "defaults": {"heat": 1}}}}, "models.fast.defaults"),
        ({"listen": "0.0.0.0:0"}, "no callers are configured"),
        ({"listen": "nowhere"}, "is not HOST:PORT"),
        ({"tls": {"cert_file": "/no/cert.pem", "key_file": "/no/key.pem"}}, "/no/"),
        ({"providers": {"openai": {"api_key": "sk-written-here-000000"}}}, "write no secret in the configuration"),
    ],
)
async def test_a_mistake_names_the_setting(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    async with server_process(tmp_path, **config) as server:
        code = await server.ended()

    assert code == 2
    assert told in server.text
    assert "Traceback" not in server.text
    assert "sk-written-here" not in server.text


async def test_a_worker_with_a_mistake_stops_all(tmp_path: Path) -> None:
    tls = {"cert_file": "/no/cert.pem", "key_file": "/no/key.pem"}
    async with server_process(tmp_path, workers=2, tls=tls) as server:
        code = await server.ended()

    assert code == 2
    assert "Traceback" not in server.text


async def test_a_file_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:
        await server.address()
        path = tmp_path / "broken.yaml"
        path.write_text("listen: [unclosed")
        async with server_process(tmp_path, "--config", str(path)) as other:
            assert await other.ended() == 2
        assert "is not YAML" in other.text
        async with server_process(tmp_path, "--config", str(tmp_path / "none.yaml")) as other:
            assert await other.ended() == 2
        assert "cannot read the configuration" in other.text


@pytest.mark.parametrize("workers", [1, 2])
async def test_metrics_are_served_for_all_workers_together(tmp_path: Path, workers: int) -> None:
    port = free_port()
    async with server_process(tmp_path, workers=workers, metrics={"port": port}) as server:
        address = await server.address()
        await server.line("serving", workers)
        for _ in range(12):
            async with connected(address) as stub:
                await answers(stub)
                await failing(stub.CreateCompletion(create("fake/none")))
        await server.line("call", 24)
        text = await exposed(port)
        server.signal()
        assert await server.ended() == 0

    assert total(text, "trunkline_calls_total") == 24
    assert total(text, "trunkline_call_seconds_count") == 24
    assert total(text, "trunkline_calls_in_flight") == 0
    assert 'code="NOT_FOUND"' in text


async def test_a_taken_port_for_metrics_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with server_process(tmp_path, metrics={"port": port}) as server:
            assert await server.ended() == 2

    assert f"cannot serve metrics on 127.0.0.1:{port}" in server.text
    assert "Traceback" not in server.text


async def test_it_serves_within_seconds_and_health_says_when(tmp_path: Path) -> None:
    port = free_port()
    async with server_process(tmp_path, listen=f"127.0.0.1:{port}") as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert (await server.address()).endswith(f":{port}")


async def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    port = free_port()
    environ = {"TRUNKLINE_LISTEN": f"127.0.0.1:{port}", "TRUNKLINE_LOG__LEVEL": "info"}
    async with server_process(tmp_path, environ=environ, log={"level": "error"}) as server:
        assert await server.address() == f"127.0.0.1:{port}"

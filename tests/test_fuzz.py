"""Ten thousand broken requests and as many broken answers: no bug, no hang, no call without a proper end."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import Failed, Gateway, Reader, gateway, spec
from tests.mutations import change_message, changed_bytes, changed_json
from tests.scale import scaled
from tests.upstream import Exchange, chat, chat_events, upstream

import trunkline
from trunkline.v1 import completion_pb2, embedding_service_pb2, message_pb2, model_service_pb2
from trunkline.v1 import completion_service_pb2 as pb

COUNT = scaled(10_000, 600)
SEED = int(os.environ.get("TRUNKLINE_TEST_SEED", "1"))
SIDE_BY_SIDE = 32
#: A call that takes this long hangs, in seconds.
HANGS = 30.0

#: A provider of each dialect that reaches the upstream by its address alone.
KINDS = {
    "openai_chat": "openai",
    "anthropic_messages": "anthropic",
    "gemini": "gemini",
    "openai_responses": "openai-responses",
    "cohere_chat": "cohere",
    "ollama_chat": "ollama-native",
}

_COMPLETIONS = "/trunkline.v1.CompletionService/"


# -- requests ---------------------------------------------------------------------------------------------------------


def rich_spec(model: str) -> completion_pb2.CompletionSpec:
    """Something of everything, and valid."""
    part = message_pb2.ContentPart
    made = spec(model, "What is in this picture?")
    made.messages[0].parts.append(
        part(image=message_pb2.Media(data=b"\x89PNG\r\n\x1a\n", mime_type="image/png"))
        if "data" in message_pb2.Media.DESCRIPTOR.fields_by_name
        else part(text=message_pb2.Text(text="x"))
    )
    call = message_pb2.ToolCall(id="call_1", name="look", arguments_json='{"at":"sea"}')
    made.messages.add(role=message_pb2.ROLE_ASSISTANT).parts.extend(
        [part(reasoning=message_pb2.Reasoning(text="hm")), part(tool_call=call)]
    )
    result = message_pb2.ToolResult(tool_call_id="call_1")
    result.parts.add(text=message_pb2.Text(text="blue"))
    made.messages.add(role=message_pb2.ROLE_TOOL).parts.append(part(tool_result=result))
    made.tools.add(function=completion_pb2.FunctionTool(name="look", parameters_json_schema='{"type":"object"}'))
    made.tool_choice.mode = completion_pb2.TOOL_CHOICE_MODE_AUTO
    made.params.temperature = 0.5
    made.params.max_output_tokens = 100
    made.params.stop_sequences.append("END")
    made.labels["team"] = "a"
    made.response_format.json_schema.json_schema = '{"type":"object"}'
    return made


def requests(models: list[str]) -> list[tuple[str, Any]]:
    """A method and a request for each."""
    made: list[tuple[str, Any]] = []
    for model in models:
        warn = completion_pb2.CallOptions(on_unsupported=completion_pb2.ON_UNSUPPORTED_WARN)
        for asked in (spec(model), rich_spec(model)):
            made += [
                (_COMPLETIONS + "CreateCompletion", pb.CreateCompletionRequest(spec=asked, options=warn)),
                (_COMPLETIONS + "StreamCompletion", pb.StreamCompletionRequest(spec=asked, options=warn)),
                (_COMPLETIONS + "CountTokens", pb.CountTokensRequest(spec=asked, options=warn)),
            ]
        embedding = embedding_service_pb2.EmbeddingSpec(
            model=model, inputs=[embedding_service_pb2.EmbeddingInput(text="a")]
        )
        made.append(
            (
                "/trunkline.v1.EmbeddingService/CreateEmbeddings",
                embedding_service_pb2.CreateEmbeddingsRequest(spec=embedding),
            )
        )
    models_path = "/trunkline.v1.ModelService/"
    made += [
        (_COMPLETIONS + "CancelCompletion", pb.CancelCompletionRequest(completion_id="cmpl_1")),
        (models_path + "ListModels", model_service_pb2.ListModelsRequest(provider="fake", page_size=2)),
        (models_path + "GetModel", model_service_pb2.GetModelRequest(name="fake/echo")),
    ]
    return made


def mutated(request: Any, source: random.Random) -> bytes:
    if source.random() < 0.3:
        return changed_bytes(request.SerializeToString(), source)
    changed = type(request)()
    changed.CopyFrom(request)
    for _ in range(source.choice((1, 1, 2, 5))):
        change_message(changed, source)
    data: bytes = changed.SerializeToString()
    return data


async def end_of(gw: Gateway, path: str, data: bytes, **how: Any) -> Failed | None:
    """How a call ends; its events are held to their rules."""
    if path.endswith("/StreamCompletion"):
        method: Any = gw.channel.unary_stream(path, response_deserializer=pb.StreamCompletionResponse.FromString)
        return (await Reader(method(data, timeout=HANGS, **how)).rest()).failed
    try:
        await gw.bytes(path)(data, timeout=HANGS, **how)
    except grpc.aio.AioRpcError as error:
        return Failed.of(error)
    return None


@contextmanager
def told(story: str) -> Iterator[None]:
    """A failure inside the block tells the case that it came from."""
    try:
        yield
    except (TimeoutError, trunkline.TrunklineError) as error:
        raise AssertionError(f"{story} -> {error!r}") from error


async def side_by_side(count: int, one: Callable[[int], Any]) -> None:
    numbers = iter(range(count))

    async def take() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(take() for _ in range(SIDE_BY_SIDE)))


async def pleasant(exchange: Exchange) -> None:
    """What it says is wrong for most dialects, which is an answer as good as any."""
    if exchange.method == "POST" and b'"stream":true' in exchange.body.replace(b" ", b""):
        await exchange.events(chat_events())
    else:
        await exchange.answer(chat())


def providers(url: str, kinds: list[str]) -> dict[str, Any]:
    return {"fake": {}, **{kind: {"kind": kind, "base_url": url, "api_key_env": "FUZZ_KEY"} for kind in kinds}}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_KEY", "fuzz-key-0123456789")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_broken_requests_end_properly(measured: Callable[[str, object], None]) -> None:
    ends: Counter[str] = Counter()
    async with upstream(pleasant) as up:
        seeds = requests(["fake/echo", *(f"{kind}/m" for kind in KINDS.values())])
        async with gateway(providers=providers(up.url, list(KINDS.values()))) as gw:

            async def one(number: int) -> None:
                source = random.Random(SEED * 1_000_003 + number)
                path, request = source.choice(seeds)
                data = mutated(request, source)
                story = f"case {number} of seed {SEED}: {path} {data.hex()[:2000]}"
                with told(story):
                    failed = await end_of(gw, path, data)
                ends[failed.code.name if failed else "OK"] += 1
                if failed is None:
                    return
                story += f" -> {failed}"
                # Each error is ours, and none is a bug: what the provider answers wrong is the provider's.
                assert failed.reason, story
                assert failed.code is not grpc.StatusCode.UNKNOWN, story
                assert failed.code is not grpc.StatusCode.INTERNAL or failed.reason.startswith("LLM_"), story

            await side_by_side(COUNT, one)
            assert len(gw.calls()) == COUNT

    measured("ends", dict(ends))
    # The changes are not all of one kind.
    assert ends["OK"] > COUNT / 20
    assert ends["INVALID_ARGUMENT"] > COUNT / 20


# -- answers ----------------------------------------------------------------------------------------------------------

FIXTURES = Path(__file__).parent / "providers" / "fixtures"


def answers() -> list[tuple[str, bool, bytes]]:
    """Kind of provider, streamed or not, and a good answer."""
    made = [("openai", False, json.dumps(chat()).encode()), ("openai", True, b"".join(chat_events()))]
    for dialect, kind in KINDS.items():
        folder = FIXTURES / dialect
        made += [(kind, False, path.read_bytes()) for path in sorted(folder.glob("*.json"))]
        made += [(kind, True, path.read_bytes()) for suffix in ("sse", "ndjson") for path in folder.glob(f"*.{suffix}")]
    return made


def broken(answer: bytes, streamed: bool, source: random.Random) -> bytes:
    """The answer with changes in its bytes, or in the JSON that it holds."""
    if source.random() < 0.4:
        return changed_bytes(answer, source)
    if not streamed:
        return changed_json(json.loads(answer), source)
    lines = answer.split(b"\n")
    for _ in range(source.choice((1, 2, 4))):
        place = source.randrange(len(lines))
        prefix, mark, data = lines[place].partition(b": ")
        try:
            lines[place] = prefix + mark + changed_json(json.loads(data), source)
        except ValueError:
            if source.random() < 0.3:
                lines[place] = changed_bytes(lines[place], source)
    return b"\n".join(lines)


class Liar:
    """Answers each call with the broken answer that the call names."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[bool, bytes, random.Random]] = {}

    async def __call__(self, exchange: Exchange) -> None:
        streamed, data, source = self.answers.pop(exchange.headers["x-case"])
        status = 200 if source.random() < 0.9 else source.choice((201, 204, 206, 301, 400, 404, 429, 500, 503, 529))
        if not streamed:
            await exchange.answer(data, status)
            return
        await exchange.head(status)
        while data:
            size = source.choice((1, 10, 100, 5000))
            await exchange.chunk(data[:size])
            data = data[size:]
        match source.randrange(10):
            case 0:
                exchange.cut()
            case 1:
                exchange.reset()
            case _:
                await exchange.end()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_broken_answers_end_properly(measured: Callable[[str, object], None]) -> None:
    ends: Counter[str] = Counter()
    liar, seeds = Liar(), answers()
    kinds = sorted({kind for kind, _, _ in seeds})
    async with (
        upstream(liar) as up,
        gateway(providers=providers(up.url, kinds), forward_metadata=["x-case"]) as gw,
    ):

        async def one(number: int) -> None:
            source = random.Random(SEED * 7_000_003 + number)
            kind, streamed, answer = source.choice(seeds)
            data = broken(answer, streamed, source)
            liar.answers[str(number)] = (streamed, data, source)
            asked = spec(f"{kind}/m")
            options = completion_pb2.CallOptions(include_raw=source.random() < 0.2)
            request: Any = pb.CreateCompletionRequest(spec=asked, options=options)
            if streamed:
                request = pb.StreamCompletionRequest(spec=asked, options=options)
            path = _COMPLETIONS + ("StreamCompletion" if streamed else "CreateCompletion")
            story = f"case {number} of seed {SEED}: {kind} {path} {data[:3000]!r}"
            with told(story):
                failed = await end_of(gw, path, request.SerializeToString(), metadata=[("x-case", str(number))])
            ends[failed.code.name if failed else "OK"] += 1
            if failed is None:
                return
            story += f" -> {failed}"
            assert failed.reason.startswith("LLM_"), story
            assert failed.code is not grpc.StatusCode.UNKNOWN, story

        await side_by_side(COUNT, one)
        assert len(gw.calls()) == COUNT
        assert liar.answers == {}

    measured("ends", dict(ends))
    assert ends["OK"] > COUNT / 50
    assert ends["INTERNAL"] > COUNT / 50

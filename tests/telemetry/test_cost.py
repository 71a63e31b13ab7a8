"""Cost: what genai-prices reckons, told with every usage, and absent where it is not known."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from genai_prices import Usage as Counts
from genai_prices import data_snapshot
from tests.gateway import create, gateway, stream, until
from tests.upstream import Exchange, chat, chat_events, upstream

from trunkline.v1 import completion_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1 import embedding_service_pb2 as embedding
from trunkline_server import prices

#: 7 tokens in and 3 out of gpt-5-mini, at $0.25 and $2 a million.
COST = 7 * 250 + 3 * 2000


@pytest.fixture(autouse=True)
def _loaded() -> None:
    prices.load()


def usages() -> Iterator[completion_pb2.Usage]:
    """Small, and beyond every tier."""
    dice = random.Random(20)
    for most in (100, 150_000, 900_000):
        total = dice.randrange(1, most)
        read = dice.randrange(0, total // 2 + 1)
        yield completion_pb2.Usage(
            input_tokens=total,
            output_tokens=dice.randrange(5000),
            cache_read_input_tokens=read,
            cache_write_input_tokens=dice.randrange(0, (total - read) // 2 + 1),
        )
        yield completion_pb2.Usage(input_tokens=total, output_tokens=dice.randrange(5000))


def test_every_model_costs_what_genai_prices_says() -> None:
    now, compared = datetime.now(UTC), 0
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            for usage in usages():
                rates = prices._rates(provider.id, model.id, "", int(now.timestamp() // 60))
                found = prices._model(provider.id, model.id)
                cost = rates.cost(usage) if rates is not None else None
                if cost is None or found is None:
                    continue
                counts = {
                    name: count
                    for name, count in (
                        ("cache_read_tokens", usage.cache_read_input_tokens),
                        ("cache_write_tokens", usage.cache_write_input_tokens),
                    )
                    if count
                }
                asked = Counts(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, **counts)
                expected = found.get_prices(now).calc_price(asked)["total_price"] * 10**9  # type: ignore[attr-defined]
                assert abs(cost - float(expected)) <= 1, (provider.id, model.id, usage)
                compared += 1

    assert compared > 5000


def test_a_service_tier_has_a_price_of_its_own() -> None:
    def cost(tier: str) -> int:
        usage = completion_pb2.Usage(input_tokens=1000, output_tokens=1000)
        prices.add_cost("openai", "gpt-5-mini", usage, "gpt-5-mini", tier)
        return usage.cost_nano_usd

    assert cost("flex") < cost("") == cost("default") < cost("priority")


def test_what_has_no_price_has_no_cost() -> None:
    usage = completion_pb2.Usage(input_tokens=5, output_tokens=5)
    for kind, model in (("vllm", "my-model"), ("openai", "gpt-none"), ("nothing", "x"), ("openai", "")):
        prices.add_cost(kind, model, usage, model)

    assert not usage.HasField("cost_nano_usd")


def test_a_cost_that_the_provider_told_stays() -> None:
    usage = completion_pb2.Usage(input_tokens=5, output_tokens=5, cost_nano_usd=1)
    prices.add_cost("openai", "gpt-5-mini", usage, "gpt-5-mini")

    assert usage.cost_nano_usd == 1


def test_a_cost_takes_microseconds() -> None:
    usage = completion_pb2.Usage(input_tokens=100, output_tokens=50)
    prices.add_cost("openai", "gpt-5-mini", usage, "gpt-5-mini")
    began = time.process_time()
    for _ in range(2000):
        usage.ClearField("cost_nano_usd")
        prices.add_cost("openai", "gpt-5-mini", usage, "gpt-5-mini")

    assert (time.process_time() - began) / 2000 < 30e-6


async def script(exchange: Exchange) -> None:
    if exchange.path.endswith("/embeddings"):
        vectors = [{"index": n, "embedding": [1.0]} for n, _ in enumerate(exchange.json["input"])]
        usage = {"prompt_tokens": 100, "total_tokens": 100}
        await exchange.answer({"data": vectors, "model": "text-embedding-3-small", "usage": usage})
    elif exchange.json.get("stream"):
        await exchange.events(chat_events())
    else:
        await exchange.answer(chat(model="gpt-5-mini-2025-08-07"))


async def test_completions_streams_and_embeddings_say_what_they_cost() -> None:
    texts = [embedding.EmbeddingInput(text=text) for text in "abc"]
    spec = embedding.EmbeddingSpec(model="up/text-embedding-3-small", inputs=texts)
    async with upstream(script) as up, gateway(up, {"kind": "openai"}) as gw:
        gw.app.engine.providers["up"].embedding_batch = 2
        whole = await gw.complete(create("up/gpt-5-mini"))
        options = pb.StreamOptions(include_completion=True)
        reader = await gw.stream(stream("up/gpt-5-mini", stream_options=options)).rest()
        vectors = await gw.embeddings.CreateEmbeddings(embedding.CreateEmbeddingsRequest(spec=spec))
        lines = gw.calls()
        counted = gw.metric("trunkline_cost_usd_total", provider="up", source="reported")

    finished = reader.events[-1].finished
    assert whole.usage.cost_nano_usd == COST
    assert finished.usage.cost_nano_usd == finished.completion.usage.cost_nano_usd == COST
    assert [event.usage_updated.usage.cost_nano_usd for event in reader.events if event.HasField("usage_updated")] == [
        COST
    ]
    # Two requests, 100 tokens each, at $0.02 a million.
    assert vectors.usage.cost_nano_usd == 2 * 100 * 20
    assert [line["cost_usd"] for line in lines] == [COST / 1e9, COST / 1e9, 4000 / 1e9]
    assert counted == pytest.approx((2 * COST + 4000) / 1e9)


async def test_prices_are_loaded_beside_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "_loaded", False)
    async with upstream(script) as up, gateway(up, {"kind": "openai"}) as gw:
        await until(lambda: prices._loaded)
        assert (await gw.complete(create("up/gpt-5-mini"))).usage.cost_nano_usd == COST

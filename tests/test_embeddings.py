"""Embeddings through the public door: in order, in batches, and what of them is too long."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import grpc
import pytest
from tests.gateway import failing, gateway
from tests.upstream import Exchange, upstream

from trunkline.v1 import embedding_service_pb2 as embedding


def embeddings(*texts: str, **more: Any) -> embedding.CreateEmbeddingsRequest:
    inputs = [embedding.EmbeddingInput(text=text) for text in texts]
    return embedding.CreateEmbeddingsRequest(spec=embedding.EmbeddingSpec(model="up/e", inputs=inputs, **more))


async def test_no_input_gets_its_neighbours_vector() -> None:
    async def shifted(exchange: Exchange) -> None:
        inputs = exchange.json["input"]
        count = len(inputs) + (1 if inputs[0] == "a" else -1)
        await exchange.answer({"data": [{"index": at, "embedding": [1.0]} for at in range(count)]})

    async with upstream(shifted) as up, gateway(up) as gw:
        gw.app.engine.providers["up"].embedding_batch = 2
        failed = await failing(gw.embeddings.CreateEmbeddings(embeddings("a", "b", "c", "d")))

    assert failed.reason == "LLM_INVALID_RESPONSE"
    assert failed.detail.provider == "up"
    assert "LLM_INVALID_RESPONSE" in [attempt.reason for attempt in failed.detail.attempts]


@pytest.mark.parametrize("encoding", [embedding.EMBEDDING_ENCODING_FLOAT_LIST, embedding.EMBEDDING_ENCODING_FLOAT32_LE])
async def test_a_number_that_is_no_float32_is_no_answer(encoding: embedding.EmbeddingEncoding.ValueType) -> None:
    async def huge(exchange: Exchange) -> None:
        await exchange.answer({"data": [{"index": 0, "embedding": [1e300]}]})

    async with upstream(huge) as up, gateway(up) as gw:
        failed = await failing(gw.embeddings.CreateEmbeddings(embeddings("a", encoding=encoding)))

    assert failed.reason == "LLM_INVALID_RESPONSE"


class Vectors:
    """A provider that takes inputs of at most `longest` characters, and `most` in one request."""

    def __init__(self, longest: int, most: int) -> None:
        self._longest, self._most = longest, most
        self.asked: list[list[str]] = []
        self.side_by_side = self._now = 0

    async def __call__(self, exchange: Exchange) -> None:
        texts = exchange.json["input"]
        self.asked.append(texts)
        self._now += 1
        self.side_by_side = max(self.side_by_side, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        if any(len(text) > self._longest for text in texts):
            await exchange.answer({"error": {"message": "This model's maximum context length is 8 tokens."}}, 400)
        elif sum(map(len, texts)) > self._most:
            await exchange.answer(
                {"error": {"message": "maximum request size is 9", "code": "max_tokens_per_request"}}, 400
            )
        else:
            data = [{"index": at, "embedding": [float(text.strip("x") or 0), 0.5]} for at, text in enumerate(texts)]
            await exchange.answer({"data": data[::-1], "model": "e-1", "usage": {"prompt_tokens": len(texts)}})


async def test_batches_run_side_by_side_and_their_vectors_come_in_the_order_of_the_inputs() -> None:
    provider = Vectors(longest=100, most=1000)
    async with upstream(provider) as up, gateway(up) as gw:
        gw.app.engine.providers["up"].embedding_batch = 3
        answer = await gw.embeddings.CreateEmbeddings(embeddings(*map(str, range(10))))

    assert [list(each.values) for each in answer.embeddings] == [[float(at), 0.5] for at in range(10)]
    assert [each.index for each in answer.embeddings] == list(range(10))
    assert sorted(map(len, provider.asked)) == [1, 3, 3, 3]
    assert provider.side_by_side > 1
    assert answer.usage.input_tokens == 10


async def test_vectors_are_packed_as_float32_where_that_is_asked() -> None:
    async with upstream(Vectors(longest=100, most=1000)) as up, gateway(up) as gw:
        request = embeddings("1", "2", encoding=embedding.EMBEDDING_ENCODING_FLOAT32_LE)
        answer = await gw.embeddings.CreateEmbeddings(request)

    assert [each.float32_le for each in answer.embeddings] == [struct.pack("<2f", at, 0.5) for at in (1, 2)]
    assert not any(each.values for each in answer.embeddings)


async def test_a_batch_that_is_too_long_is_asked_for_in_parts_and_nothing_twice() -> None:
    provider = Vectors(longest=100, most=4)
    async with upstream(provider) as up, gateway(up) as gw:
        answer = await gw.embeddings.CreateEmbeddings(embeddings(*map(str, range(8))))

    assert [list(each.values) for each in answer.embeddings] == [[float(at), 0.5] for at in range(8)]
    assert list(map(len, provider.asked)) == [8, 4, 4]


async def test_an_input_that_is_too_long_is_refused_by_its_index_and_the_others_are_not_repeated() -> None:
    provider = Vectors(longest=8, most=1000)
    texts = ["1", "2", "3" + "x" * 20, "4"]
    async with upstream(provider) as up, gateway(up) as gw:
        failed = await failing(gw.embeddings.CreateEmbeddings(embeddings(*texts)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "LLM_CONTEXT_WINDOW_EXCEEDED")
    assert list(failed.fields) == ["spec.inputs[2]"]
    assert provider.asked == [texts, [texts[2]]]


async def test_an_input_that_only_looks_long_is_not_taken_for_the_one_to_blame() -> None:
    """Tokens are not bytes: the longest fits, and what does not is found among the others."""
    texts = ["1", "x" * 20, "2", "3", "4"]
    asked = []

    async def strict(exchange: Exchange) -> None:
        asked.append(exchange.json["input"])
        if "3" in asked[-1]:
            await exchange.answer({"error": {"message": "input is too long"}}, 400)
        else:
            await exchange.answer({"data": [{"embedding": [1.0]} for _ in asked[-1]]})

    async with upstream(strict) as up, gateway(up) as gw:
        failed = await failing(gw.embeddings.CreateEmbeddings(embeddings(*texts)))

    assert list(failed.fields) == ["spec.inputs[3]"]
    assert asked == [texts, [texts[1]], ["1", "2"], ["3", "4"], ["3"]]


@pytest.mark.parametrize("status", [401, 429, 500, 400])
async def test_a_batch_that_fails_for_another_reason_is_not_asked_for_again(status: int) -> None:
    async def broken(exchange: Exchange) -> None:
        await exchange.answer({"error": {"message": "no"}}, status)

    async with upstream(broken) as up, gateway(up) as gw:
        await failing(gw.embeddings.CreateEmbeddings(embeddings("a", "b", "c")))

    assert len(up.exchanges) == 1

"""Embeddings: inputs split to the provider's limits, run side by side, put together in order."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from trunkline.v1 import completion_pb2
from trunkline.v1 import embedding_service_pb2 as pb
from trunkline_server.call import Attempt, Call, Cause
from trunkline_server.engine import Engine
from trunkline_server.errors import (
    ContextWindowExceededError,
    LLMError,
    LLMInvalidResponseError,
    LLMRequestTooLargeError,
    UnsupportedParameter,
    Violation,
)
from trunkline_server.exchange import exchange, refuse_unsupported
from trunkline_server.providers.base import EmbeddingDialect, Notes, UpstreamRequest, Vectors
from trunkline_server.providers.provider import Reply
from trunkline_server.routing.attempts import Try
from trunkline_server.routing.table import Candidate

#: Requests of one call that run side by side.
SIDE_BY_SIDE = 4
#: Errors after which fewer inputs at once may fare better.
_TOO_LONG = (ContextWindowExceededError, LLMRequestTooLargeError)
#: The largest float32.
FLOAT_MAX = 3.4028235e38


@dataclass(slots=True)
class Embedder:
    """Runs embeddings on the engine's providers."""

    engine: Engine

    async def embed(
        self, call: Call, spec: pb.EmbeddingSpec, options: completion_pb2.CallOptions
    ) -> pb.CreateEmbeddingsResponse:
        """One vector per input. Raises GatewayError; a batch that fails stops the others.

        A batch that is too long for the provider is asked for in parts; an input that is too long by itself is refused
        by its index. What is tried again is what is missing; at another target all is, so that one model makes all.
        """
        kept: dict[Candidate, _Kept] = {}

        async def attempt(candidate: Candidate, cause: Cause) -> pb.CreateEmbeddingsResponse:
            return await _embedded(call, candidate, cause, spec, options, kept.setdefault(candidate, {}))

        return await self.engine.run(call, spec.model or spec.config, options, spec.labels, attempt)


#: What a target said to some inputs: their vectors, or that they are too long.
_Kept: TypeAlias = "dict[tuple[int, ...], Vectors | LLMError]"


async def _embedded(
    call: Call,
    candidate: Candidate,
    cause: Cause,
    spec: pb.EmbeddingSpec,
    options: completion_pb2.CallOptions,
    kept: _Kept,
) -> pb.CreateEmbeddingsResponse:
    """All vectors of one target: what it said before is not asked again."""
    target, dialect, provider = candidate.target, candidate.dialect, candidate.provider
    call.provider, call.model = target.provider, target.model
    if not isinstance(dialect, EmbeddingDialect) or not target.capabilities.embeddings:
        text = f"{provider.name!r} makes no embeddings here; choose a model of a provider that does"
        raise UnsupportedParameter(text, violations=[Violation("spec.model", text)])
    size = target.capabilities.embedding_batch or provider.embedding_batch
    notes = Notes()
    run = _Run(call, candidate, dialect, spec, kept)
    every = range(len(spec.inputs))
    asked = [run.request(batch, notes) for batch in (every[start : start + size] for start in every[::size])]
    refuse_unsupported(notes, options)
    batches = await _all(run, asked, cause, SIDE_BY_SIDE)
    vectors = [vector for _, vector in sorted(_numbered(batches))]
    answer = pb.CreateEmbeddingsResponse(
        id=call.id,
        provider=provider.name,
        model=batches[0].answer.model or target.model,
        warnings=notes.warnings(),
        provider_request_id=call.provider_request_id,
    )
    packed = spec.encoding == pb.EMBEDDING_ENCODING_FLOAT32_LE
    for index, vector in enumerate(vectors):
        if packed:
            answer.embeddings.add(index=index, float32_le=struct.pack(f"<{len(vector)}f", *vector))
        else:
            answer.embeddings.add(index=index, values=vector)
    usage = _summed([batch.answer.usage for batch in batches])
    if usage is not None:
        answer.usage.CopyFrom(usage)
    call.spend()
    return answer


class _Asked(NamedTuple):
    """A request, and which inputs it holds."""

    indexes: Sequence[int]
    request: UpstreamRequest


class _Batch(NamedTuple):
    """An answer, and which inputs its vectors are of."""

    indexes: Sequence[int]
    answer: Vectors


@dataclass(frozen=True, slots=True)
class _Run:
    """The requests of one call."""

    call: Call
    candidate: Candidate
    dialect: EmbeddingDialect
    spec: pb.EmbeddingSpec
    kept: _Kept

    def request(self, indexes: Sequence[int], notes: Notes) -> _Asked:
        inputs = [self.spec.inputs[index] for index in indexes]
        return _Asked(indexes, self.dialect.encode_embeddings(self.spec, inputs, self.candidate.target, notes))

    async def run(self, asked: _Asked, cause: Cause) -> list[_Batch]:
        """The vectors of these inputs, in one answer or, where they are too long together, in several."""
        try:
            return [await self._answer(asked, cause)]
        except _TOO_LONG as error:
            if len(asked.indexes) == 1:
                path = f"spec.inputs[{asked.indexes[0]}]"
                error.violations = (Violation(path, error.message),)
                raise
            parts = self._parts(asked.indexes, error)
        answers: list[_Batch] = []
        for part in parts:
            # One after the other: a part that is refused ends the call, and nothing is sent after it.
            answers += await self.run(self.request(part, Notes()), Cause.BATCH)
        return answers

    def _parts(self, indexes: Sequence[int], error: LLMError) -> list[Sequence[int]]:
        """What to ask for instead: where one input is to blame, the longest by itself first, and in any case halves."""
        parts: list[Sequence[int]] = []
        if isinstance(error, ContextWindowExceededError):
            longest = max(indexes, key=lambda index: self.spec.inputs[index].ByteSize())
            parts, indexes = [[longest]], [index for index in indexes if index != longest]
        half = (len(indexes) + 1) // 2
        return [*parts, *filter(None, (indexes[:half], indexes[half:]))]

    async def _answer(self, asked: _Asked, cause: Cause) -> _Batch:
        call, candidate, kept, place = self.call, self.candidate, self.kept, tuple(asked.indexes)
        said = kept.get(place)
        if said is None:
            async with Try(call, candidate, cause) as trying:
                try:
                    reply = await exchange(call, trying.attempt, candidate, asked.request)
                    said = self._read(reply, trying.attempt, len(asked.indexes))
                except _TOO_LONG as error:
                    kept[place] = error
                    raise
            kept[place] = said
        if isinstance(said, LLMError):
            raise said
        return _Batch(asked.indexes, said)

    def _read(self, reply: Reply, attempt: Attempt, size: int) -> Vectors:
        answer = self.dialect.decode_embeddings(reply.body)
        attempt.usage, attempt.response_model = answer.usage, answer.model
        if answer.usage is not None:
            self.candidate.cost(answer.usage, answer.model, "")
        # Counted here: one too many and one too few in the next would give each input its neighbour's vector.
        if len(answer.vectors) != size:
            raise LLMInvalidResponseError(
                f"the provider sent {len(answer.vectors)} vectors for {size} inputs", body=reply.body
            )
        if any(abs(number) > FLOAT_MAX for vector in answer.vectors for number in vector):
            raise LLMInvalidResponseError("the provider sent a number that is no float32", body=reply.body)
        return answer


async def _all(run: _Run, requests: Sequence[_Asked], cause: Cause, side_by_side: int) -> list[_Batch]:
    if len(requests) == 1:
        return await run.run(requests[0], cause)
    gate = asyncio.Semaphore(side_by_side)

    async def one(number: int, asked: _Asked) -> list[_Batch]:
        async with gate:
            return await run.run(asked, Cause.BATCH if number else cause)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number, asked)) for number, asked in enumerate(requests)]
    except BaseExceptionGroup as failed:
        # The first failure ended the others; it is the one to report.
        raise failed.exceptions[0] from None
    return [batch for task in tasks for batch in task.result()]


def _numbered(batches: Sequence[_Batch]) -> Iterator[tuple[int, list[float]]]:
    for batch in batches:
        yield from zip(batch.indexes, batch.answer.vectors, strict=True)


def _summed(usages: Sequence[completion_pb2.Usage | None]) -> completion_pb2.Usage | None:
    """Counts summed over batches; raw_json is the first one's. None if no batch reported usage."""
    reported = [usage for usage in usages if usage is not None]
    if not reported:
        return None
    total = completion_pb2.Usage()
    total.CopyFrom(reported[0])
    for usage in reported[1:]:
        if usage.HasField("input_tokens"):
            total.input_tokens += usage.input_tokens
        if usage.HasField("total_tokens"):
            total.total_tokens += usage.total_tokens
        if usage.HasField("cost_nano_usd"):
            total.cost_nano_usd += usage.cost_nano_usd
    return total

"""Embeddings: inputs split to the provider's limits, run side by side, put together in order."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.v1 import completion_pb2
from trunkline.v1 import embedding_service_pb2 as pb
from trunkline_server.admission import Gate
from trunkline_server.call import Attempt, Call, Cause
from trunkline_server.engine import Engine, refuse_unsupported
from trunkline_server.errors import LLMInvalidResponseError, UnsupportedParameter, Violation
from trunkline_server.exchange import exchange
from trunkline_server.providers.base import EmbeddingDialect, Notes, Target, UpstreamRequest, Vectors
from trunkline_server.providers.provider import Provider, Reply, Upstream

#: Requests of one call that run side by side.
SIDE_BY_SIDE = 4
#: The largest float32.
FLOAT_MAX = 3.4028235e38


@dataclass(slots=True)
class Embedder:
    """Runs embeddings on the engine's providers."""

    engine: Engine

    async def embed(
        self, call: Call, spec: pb.EmbeddingSpec, options: completion_pb2.CallOptions
    ) -> pb.CreateEmbeddingsResponse:
        """One vector per input. Raises GatewayError; a batch that fails ends the call and stops the others."""
        provider, route = self.engine.resolve(spec.model)
        dialect = provider.dialect_for(route.model)
        target = provider.target(route.model)
        call.provider, call.model = provider.name, route.model
        if not isinstance(dialect, EmbeddingDialect) or not target.capabilities.embeddings:
            text = f"{provider.name!r} makes no embeddings here; choose a model of a provider that does"
            raise UnsupportedParameter(text, violations=[Violation("spec.model", text)])
        upstream = self.engine.upstream(provider, options.credential)
        call.limit(provider.total_unary)
        inputs = list(spec.inputs)
        size = target.capabilities.embedding_batch or provider.embedding_batch
        notes = Notes()
        requests = [
            (dialect.encode_embeddings(spec, batch, target, notes), len(batch))
            for batch in (inputs[start : start + size] for start in range(0, len(inputs), size))
        ]
        refuse_unsupported(notes, options)
        gate = self.engine.admission.provider(provider.name)
        batches = await _all(
            [_Batch(gate, call, provider, upstream, target, dialect, *request) for request in requests], SIDE_BY_SIDE
        )
        vectors = [vector for batch in batches for vector in batch.vectors]
        answer = pb.CreateEmbeddingsResponse(
            id=call.id,
            provider=provider.name,
            model=batches[0].model or route.model,
            warnings=notes.warnings(),
            provider_request_id=call.provider_request_id,
        )
        packed = spec.encoding == pb.EMBEDDING_ENCODING_FLOAT32_LE
        for index, vector in enumerate(vectors):
            if packed:
                answer.embeddings.add(index=index, float32_le=struct.pack(f"<{len(vector)}f", *vector))
            else:
                answer.embeddings.add(index=index, values=vector)
        usage = _summed([batch.usage for batch in batches])
        if usage is not None:
            answer.usage.CopyFrom(usage)
            call.usage = usage
        return answer


@dataclass(frozen=True, slots=True)
class _Batch:
    gate: Gate
    call: Call
    provider: Provider
    upstream: Upstream
    target: Target
    dialect: EmbeddingDialect
    request: UpstreamRequest
    #: Inputs that the request holds.
    size: int

    async def run(self) -> Vectors:
        call, model = self.call, self.target.model
        async with self.gate.place(call):
            attempt = call.begin_attempt(self.provider.name, model, Cause.BATCH if call.attempts else Cause.FIRST)
            with call.attempting(attempt):
                reply = await exchange(call, attempt, self.upstream, self.provider.dialect_for(model), self.request)
                return self._read(reply, attempt)

    def _read(self, reply: Reply, attempt: Attempt) -> Vectors:
        answer = self.dialect.decode_embeddings(reply.body)
        attempt.usage, attempt.response_model = answer.usage, answer.model
        if answer.usage is not None:
            self.provider.price(self.target.model)(answer.usage, answer.model, "")
        # Counted here: one too many and one too few in the next would give each input its neighbour's vector.
        if len(answer.vectors) != self.size:
            raise LLMInvalidResponseError(
                f"the provider sent {len(answer.vectors)} vectors for {self.size} inputs", body=reply.body
            )
        if any(abs(number) > FLOAT_MAX for vector in answer.vectors for number in vector):
            raise LLMInvalidResponseError("the provider sent a number that is no float32", body=reply.body)
        return answer


async def _all(batches: Sequence[_Batch], side_by_side: int) -> list[Vectors]:
    if len(batches) == 1:
        return [await batches[0].run()]
    gate = asyncio.Semaphore(side_by_side)

    async def run(batch: _Batch) -> Vectors:
        async with gate:
            return await batch.run()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(batch)) for batch in batches]
    except BaseExceptionGroup as failed:
        # The first failure ended the others; it is the one to report.
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


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

"""Calls the gateway as a recording was asked, and tells what came back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from tests.fidelity import answers
from tests.fidelity.corpus import Recording
from tests.fidelity.requests import (
    anthropic_messages,
    bedrock_converse,
    cohere_chat,
    embeddings,
    gemini,
    ollama_chat,
    openai_chat,
    openai_responses,
    vertex,
)

from trunkline import TrunklineError
from trunkline.collect import Collector
from trunkline.errors import from_rpc_error
from trunkline.v1 import (
    completion_pb2,
    completion_service_pb2,
    completion_service_pb2_grpc,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    message_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)
from trunkline_server.providers import KINDS

#: Seconds that one call may take.
DEADLINE = 30.0

Converter = Callable[[Mapping[str, Any]], completion_pb2.CompletionSpec]

#: How a kind of provider's recorded requests are read; all others are Chat Completions.
CONVERTERS: Mapping[str, Converter] = {
    **{kind: openai_responses.spec_from for kind, row in KINDS.items() if row.dialect == "openai_responses"},
    "anthropic": anthropic_messages.spec_from,
    "bedrock": bedrock_converse.spec_from,
    "bedrock-invoke": bedrock_converse.invoked,
    "cohere": cohere_chat.spec_from,
    "gemini": gemini.spec_from,
    "ollama-native": ollama_chat.spec_from,
    "vertex": vertex.spec_from,
}

STRANGE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
_WARN = completion_pb2.CallOptions(on_unsupported=completion_pb2.ON_UNSUPPORTED_WARN)
_OURS = frozenset({"INVALID_REQUEST", "UNSUPPORTED_PARAMETER"})


class Caller:
    """Calls one gateway."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """`metadata`: of every call."""
        self._metadata = tuple(metadata)
        self._completions: Any = completion_service_pb2_grpc.CompletionServiceStub(channel)
        self._embeddings: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        self._models: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        #: Recordings whose own request the gateway or the converter refused: they were asked in few words.
        self.simplified = 0

    async def call(self, recording: Recording, provider: str, kind: str) -> dict[str, Any]:
        """The scorer's line for one recording."""
        ways = {
            "chat": self._chat,
            "embeddings": self._embed,
            "count_tokens": self._count,
            "models": self._list,
        }
        return await ways[recording.kind](recording, provider, kind)

    async def _chat(self, recording: Recording, provider: str, kind: str) -> dict[str, Any]:
        ask = self._stream if recording.streamed else self._create
        spec = _spec(recording, provider, kind)
        if spec is not None:
            got, reason = await ask(recording, spec)
            if reason not in _OURS:
                return got
        self.simplified += 1
        got, _ = await ask(recording, _few_words(recording, provider))
        return got

    async def _create(self, recording: Recording, spec: completion_pb2.CompletionSpec) -> tuple[dict[str, Any], str]:
        request = completion_service_pb2.CreateCompletionRequest(spec=spec, options=_WARN)
        try:
            answer = await self._completions.CreateCompletion(
                request, metadata=self._about(recording), timeout=DEADLINE
            )
        except grpc.aio.AioRpcError as failed:
            error = from_rpc_error(failed)
            return answers.of_error(error), error.reason
        return answers.of_completion(answer.completion), ""

    async def _stream(self, recording: Recording, spec: completion_pb2.CompletionSpec) -> tuple[dict[str, Any], str]:
        request = completion_service_pb2.StreamCompletionRequest(spec=spec, options=_WARN)
        collector = Collector()
        said: list[str] = []
        try:
            async for event in self._completions.StreamCompletion(
                request, metadata=self._about(recording), timeout=DEADLINE
            ):
                collector.add(event)
                said.append(collector.text(event, 0))
            return answers.of_completion(collector.end()), ""
        except grpc.aio.AioRpcError as failed:
            error = from_rpc_error(failed)
        except TrunklineError as broken:
            # A stream rule was broken, or the stream ended without its end: that counts as wrong, under its own name.
            error = broken
        return answers.of_error(error, "".join(said)), error.reason

    async def _embed(self, recording: Recording, provider: str, kind: str) -> dict[str, Any]:
        spec = embeddings.spec_from(recording.request, recording.vectors)
        got, reason = await self._vectors(recording, provider, spec)
        if reason not in _OURS:
            return got
        self.simplified += 1
        few_words = embedding_service_pb2.EmbeddingSpec(inputs=[embedding_service_pb2.EmbeddingInput(text="Hello.")])
        got, _ = await self._vectors(recording, provider, few_words)
        return got

    async def _vectors(
        self, recording: Recording, provider: str, spec: embedding_service_pb2.EmbeddingSpec
    ) -> tuple[dict[str, Any], str]:
        spec.model = f"{provider}/{recording.model}"
        request = embedding_service_pb2.CreateEmbeddingsRequest(spec=spec, options=_WARN)
        try:
            answer = await self._embeddings.CreateEmbeddings(request, metadata=self._about(recording), timeout=DEADLINE)
        except grpc.aio.AioRpcError as failed:
            error = from_rpc_error(failed)
            return answers.of_error(error), error.reason
        return answers.of_embeddings(answer), ""

    async def _count(self, recording: Recording, provider: str, kind: str) -> dict[str, Any]:
        spec = _spec(recording, provider, kind) or _few_words(recording, provider)
        request = completion_service_pb2.CountTokensRequest(spec=spec, options=_WARN)
        try:
            answer = await self._completions.CountTokens(request, metadata=self._about(recording), timeout=DEADLINE)
        except grpc.aio.AioRpcError as failed:
            return answers.of_error(from_rpc_error(failed))
        return answers.of_count(answer.input_tokens)

    async def _list(self, recording: Recording, provider: str, kind: str) -> dict[str, Any]:
        request = model_service_pb2.ListModelsRequest(provider=provider, page_size=1000)
        try:
            first = await self._models.ListModels(request, metadata=self._about(recording), timeout=DEADLINE)
            total, page = len(first.models), first
            while page.next_page_token:
                request.page_token = page.next_page_token
                page = await self._models.ListModels(request, metadata=self._about(recording), timeout=DEADLINE)
                total += len(page.models)
        except grpc.aio.AioRpcError as failed:
            return answers.of_error(from_rpc_error(failed))
        if first.unlisted_providers:
            reason = first.unlisted_providers[0].reason
            return answers.of_error(TrunklineError("the provider's models could not be listed", reason=reason))
        return answers.of_models(first, total)

    def _about(self, recording: Recording) -> tuple[tuple[str, str], ...]:
        return (*self._metadata, ("x-replay-id", recording.id))


def _spec(recording: Recording, provider: str, kind: str) -> completion_pb2.CompletionSpec | None:
    """The recorded request in the contract's words; None if there is none, or it says what the contract cannot."""
    if not isinstance(recording.request, dict):
        return None
    try:
        spec = CONVERTERS.get(kind, openai_chat.spec_from)(recording.request)
    except STRANGE:
        return None
    spec.model = f"{provider}/{recording.model}"
    return spec


def _few_words(recording: Recording, provider: str) -> completion_pb2.CompletionSpec:
    """The same model and tools, and one question."""
    spec = completion_pb2.CompletionSpec(model=f"{provider}/{recording.model}")
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "Hello."
    asked = recording.request if isinstance(recording.request, dict) else {}
    tools = asked.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        function = (tool.get("function") or tool) if isinstance(tool, dict) else {}
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and name and name not in {made.function.name for made in spec.tools}:
            schema = function.get("parameters") or function.get("input_schema")
            made = spec.tools.add()
            made.function.name = name
            made.function.parameters_json_schema = json.dumps(
                schema if isinstance(schema, dict) else {"type": "object"}
            )
    return spec

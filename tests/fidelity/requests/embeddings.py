"""A recorded request for embeddings, of any wire, as an EmbeddingSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.fidelity.requests import gemini

from trunkline.v1 import embedding_service_pb2

_TASKS = {
    "RETRIEVAL_QUERY": embedding_service_pb2.EMBEDDING_TASK_QUERY,
    "RETRIEVAL_DOCUMENT": embedding_service_pb2.EMBEDDING_TASK_DOCUMENT,
    "SEMANTIC_SIMILARITY": embedding_service_pb2.EMBEDDING_TASK_SIMILARITY,
    "CLASSIFICATION": embedding_service_pb2.EMBEDDING_TASK_CLASSIFICATION,
    "CLUSTERING": embedding_service_pb2.EMBEDDING_TASK_CLUSTERING,
    "search_query": embedding_service_pb2.EMBEDDING_TASK_QUERY,
    "search_document": embedding_service_pb2.EMBEDDING_TASK_DOCUMENT,
    "classification": embedding_service_pb2.EMBEDDING_TASK_CLASSIFICATION,
    "clustering": embedding_service_pb2.EMBEDDING_TASK_CLUSTERING,
}

#: Members that hold the length of the vectors.
_DIMENSIONS = ("dimensions", "outputDimensionality", "outputDimension", "embeddingDimension")
#: Members that hold what is to be embedded.
_INPUTS = ("input", "inputs", "texts", "prompt", "inputText")


def spec_from(request: Any, vectors: int) -> embedding_service_pb2.EmbeddingSpec:
    """What was asked. Of a request that was not kept it is known only how many `vectors` came back."""
    spec = embedding_service_pb2.EmbeddingSpec()
    asked = gemini.camel(request) if isinstance(request, dict) else {"input": ["text"] * max(vectors, 1)}
    inputs, about = _asked(asked)
    for value in inputs:
        _input(value, spec.inputs.add())
    dimensions = next((about[name] for name in _DIMENSIONS if isinstance(about.get(name), int)), None)
    if dimensions is not None:
        spec.dimensions = dimensions
    task = about.get("taskType") or about.get("inputType") or ""
    spec.task = _TASKS.get(task, embedding_service_pb2.EMBEDDING_TASK_UNSPECIFIED)
    return spec


def _asked(asked: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The inputs, and what says how to embed them."""
    if "requests" in asked:
        return [each["content"] for each in asked["requests"]], asked["requests"][0]
    if "instances" in asked:
        about = {**asked["instances"][0], **(asked.get("parameters") or {})}
        return [each["content"] for each in asked["instances"]], about
    if "singleEmbeddingParams" in asked:
        about = asked["singleEmbeddingParams"]
        return [about["text"]["value"]], about
    if "content" in asked:
        return [asked["content"]], asked
    inputs = next((asked[name] for name in _INPUTS if name in asked), "text")
    several = isinstance(inputs, list) and not all(isinstance(value, int) for value in inputs)
    return inputs if several else [inputs], asked


def _input(value: Any, made: embedding_service_pb2.EmbeddingInput) -> None:
    if isinstance(value, list):
        made.token_ids.ids.extend(value)
        return
    if isinstance(value, dict):
        part = gemini.parts_of(value)[0]
        if "inlineData" in part:
            made.media.mime_type = part["inlineData"]["mimeType"]
            made.media.data = gemini.bytes_of(part["inlineData"]["data"])
            return
        value = part.get("text")
    made.text = value if isinstance(value, str) and value else " "

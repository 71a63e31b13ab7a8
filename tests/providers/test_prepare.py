"""What is done to a spec before any dialect sees it."""

from __future__ import annotations

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline_server.providers.prepare import prepared

Params = generation_pb2.GenerationParams
Reasoning = generation_pb2.ReasoningConfig


def test_a_request_that_says_how_much_to_think_replaces_either_way_of_the_defaults() -> None:
    defaults = Params(reasoning=Reasoning(effort=generation_pb2.REASONING_EFFORT_HIGH, include=True), top_p=0.5)
    spec = completion_pb2.CompletionSpec(params=Params(reasoning=Reasoning(budget_tokens=100)))

    assert prepared(spec, defaults).params == Params(reasoning=Reasoning(budget_tokens=100, include=True), top_p=0.5)
    assert spec.params == Params(reasoning=Reasoning(budget_tokens=100))

"""A recorded request to Vertex AI, in the wire of its model's maker, as a CompletionSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fidelity.requests import anthropic_messages, gemini

from trunkline.v1 import completion_pb2


def spec_from(request: Mapping[str, Any]) -> completion_pb2.CompletionSpec:
    """All of the request that the contract has words for. A strange one raises ValueError, TypeError or KeyError."""
    convert = anthropic_messages.spec_from if "anthropic_version" in request else gemini.spec_from
    return convert(request)

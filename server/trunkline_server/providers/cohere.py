"""Cohere's own API."""

from __future__ import annotations

from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.row import ModelRule, Row

_PARAMS = (
    "max_output_tokens temperature top_p top_k frequency_penalty presence_penalty seed stop_sequences"
    " logprobs reasoning"
)
#: Models that know nothing of thinking.
_NO_THOUGHTS = frozenset({"reasoning"})
_TEXT_ONLY = {"reasoning": False, "images": False}

COHERE = Row(
    base_url="https://api.cohere.com",
    key_env="CO_API_KEY",
    capabilities=Capabilities(
        params=frozenset(_PARAMS.split()),
        choices=False,
        # It takes texts and JSON objects as such, but no PDF.
        documents=False,
        reasoning=True,
        embeddings=True,
        embedding_batch=96,
    ),
    dialect="cohere_chat",
    # What is newer than these may think and see: its own API knows best. See https://docs.cohere.com/docs/models
    models=(
        ModelRule(r"command-a-reasoning", {"images": False}),
        ModelRule(r"(command-a-vision|c4ai-aya-vision)", {"reasoning": False}, without=_NO_THOUGHTS),
        ModelRule(r"(command-r7b|command-a-(03|translate))", _TEXT_ONLY, without=_NO_THOUGHTS),
        # The older ones cannot be told whether to call a tool.
        ModelRule(r"(command-r|command-(light|nightly)|command$|c4ai-)", {**_TEXT_ONLY, "tool_choice": False},
                  without=_NO_THOUGHTS),
    ),
)  # fmt: skip

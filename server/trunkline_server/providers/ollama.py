"""Ollama's own API, beside the compatible one that it has too."""

from __future__ import annotations

from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.dialects.ollama_chat.request import LEVELS
from trunkline_server.providers.row import ModelRule, Row

_PARAMS = (
    "max_output_tokens temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty seed"
    " stop_sequences logprobs top_logprobs reasoning"
)

OLLAMA_NATIVE = Row(
    # One runs it oneself: the address is in the configuration.
    base_url="",
    key_env="",
    capabilities=Capabilities(
        params=frozenset(_PARAMS.split()),
        # Which tools are called, and how many, is the model's to choose.
        tool_choice=False,
        choices=False,
        documents=False,
        reasoning=True,
        embeddings=True,
    ),
    dialect="ollama_chat",
    models=(ModelRule(r"(?:.*/)?gpt-oss", {"quirks": {LEVELS: ("low", "medium", "high")}}),),
)

"""What each model of Google's takes: data.

See https://ai.google.dev/gemini-api/docs/models, .../thinking and .../thought-signatures
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from trunkline_server.providers.base import Capabilities

#: Parameters of GenerationParams that the wire has.
_PARAMS = frozenset({
    "frequency_penalty", "logprobs", "max_output_tokens", "n", "presence_penalty", "reasoning", "seed", "service_tier",
    "stop_sequences", "temperature", "top_k", "top_logprobs", "top_p",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes."""

    #: Most tokens that it generates; None: not known.
    max_tokens: int | None = 65_536
    #: Words for how much it thinks, least first; empty: it takes none.
    levels: tuple[str, ...] = ()
    #: Least and most tokens to think with; None: it takes none.
    budget: tuple[int, int] | None = None
    #: It can be told not to think at all.
    can_stop_thinking: bool = False
    #: Instructions apart from the conversation.
    instructions: bool = True
    tools: bool = True
    json_schema: bool = True
    #: A call in the turn that is going on must have its signature.
    signed_calls: bool = False
    #: Pictures and files in the answers of tools.
    media_results: bool = False
    #: How closely to look can be said of each picture.
    part_resolution: bool = False

    @property
    def thinks(self) -> bool:
        return bool(self.levels or self.budget)


def _third(*levels: str) -> Model:
    """A model of the third generation or later."""
    return Model(levels=levels, budget=(0, 32_768), signed_calls=True, media_results=True, part_resolution=True)


_FLASH_LEVELS = ("minimal", "low", "medium", "high")

#: First match wins.
_MODELS: tuple[tuple[re.Pattern[str], Model], ...] = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (r"gemini-.*-tts", Model(16_384, tools=False, json_schema=False)),
        (r"gemini-2\.5-flash-image", Model(32_768, tools=False, json_schema=False)),
        (r"gemini-3[\w.-]*-image", Model(32_768, levels=("high",), json_schema=False, part_resolution=True)),
        (r"gemini-3-pro", _third("low", "high")),
        (r"gemini-([3-9]|\d\d)[\w.-]*-pro|gemini-pro-latest", _third("low", "medium", "high")),
        (r"gemini-([3-9]|\d\d)", _third(*_FLASH_LEVELS)),
        (r"gemini-2\.5-flash-lite|gemini-flash-lite-latest", Model(budget=(512, 24_576), can_stop_thinking=True)),
        (r"gemini(-live)?-2\.5-flash|gemini-flash-latest", Model(budget=(1, 24_576), can_stop_thinking=True)),
        (r"gemini-2\.5-pro", Model(budget=(128, 32_768))),
        (r"gemini-(1|2\.0)", Model(8192)),
        (r"gemma-3", Model(8192, instructions=False, tools=False, json_schema=False)),
        (r"gemma", Model(None)),
    )
)  # fmt: skip

#: A model with a name of its own, such as a tuned one: what is asked is sent, its server knows best.
OTHER = Model(None, levels=_FLASH_LEVELS, budget=(0, 32_768), can_stop_thinking=True)


@functools.lru_cache(maxsize=4096)
def model_of(name: str) -> Model:
    """What the model takes, by its name at the provider."""
    name = name.rpartition("/")[2]
    return next((model for pattern, model in _MODELS if pattern.match(name)), OTHER)


@functools.lru_cache(maxsize=4096)
def capabilities(name: str) -> Capabilities:
    """What a model can be asked for through this gateway."""
    model = model_of(name)
    return Capabilities(
        params=_PARAMS,
        tools=model.tools,
        parallel_tools=model.tools,
        tool_choice=model.tools,
        json_schema=model.json_schema,
        audio=True,
        reasoning=model.thinks,
        embeddings=model is OTHER or "embedding" in name,
        embedding_batch=100,
        token_count=True,
        max_output_tokens=model.max_tokens,
    )

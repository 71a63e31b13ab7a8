"""What each family of models takes through Converse: data.

See https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trunkline_server.providers import claude
from trunkline_server.providers.base import Capabilities


@dataclass(frozen=True, slots=True)
class Family:
    """What is particular to a family of models."""

    #: Fields of Capabilities that are not those of `_USUAL`, or for Claude models not those of their own.
    can: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    #: How it is told to think: "claude" (as in Anthropic's own API), "nova" (reasoningConfig), or the name of a member
    #: of `additionalModelRequestFields` that holds the effort; empty: it cannot be told.
    thinking: str = ""
    #: The members of `additionalModelRequestFields` that hold top_k, outermost first; empty: it cannot be set.
    top_k: tuple[str, ...] = ()
    #: It takes instructions.
    system: bool = True
    #: It sees films.
    video: bool = False


_USUAL = Capabilities(logprobs=False, choices=False)

_NO_IMAGES = {"images": False}
_NO_SCHEMA = {"json_schema": False}
_FREE = {"tool_choice": False, **_NO_SCHEMA}
_CACHES = {"prompt_cache": True, **_NO_SCHEMA}
#: It talks and does nothing else.
_TALKS = {"tools": False, "parallel_tools": False, **_FREE, **_NO_IMAGES}
_THINKS = {"reasoning": True}
_NOVA_TOP_K = ("inferenceConfig", "topK")
_TOP_K = ("top_k",)

#: First match wins. Models go by ids, with a region in front or not, and by ARNs that end in one.
_FAMILIES: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"claude-(v2|instant)", Family(_TALKS, top_k=_TOP_K)),
        (r"claude", Family(thinking="claude", top_k=_TOP_K)),
        (r"nova-micro", Family(_CACHES | _NO_IMAGES, top_k=_NOVA_TOP_K)),
        (r"nova-2", Family(_CACHES | _THINKS, thinking="nova", top_k=_NOVA_TOP_K, video=True)),
        (r"nova", Family(_CACHES, top_k=_NOVA_TOP_K, video=True)),
        (r"titan", Family(_TALKS, system=False)),
        (r"mistral-7b|mixtral", Family(_TALKS, top_k=_TOP_K, system=False)),
        (r"pixtral|mistral-large-3|ministral|magistral", Family(top_k=_TOP_K)),
        (r"voxtral", Family({"audio": True, **_NO_IMAGES}, top_k=_TOP_K)),
        (r"mistral", Family(_NO_IMAGES, top_k=_TOP_K)),
        (r"llama2|llama3-(8|70)b", Family(_TALKS)),
        (r"llama3-2-(11|90)b|llama-?4", Family(_FREE)),
        (r"llama", Family(_FREE | _NO_IMAGES)),
        (r"cohere", Family(_FREE | _NO_IMAGES, top_k=("k",))),
        (r"jamba-instruct", Family(_TALKS)),
        (r"jamba", Family(_FREE | _NO_IMAGES)),
        (r"deepseek[.-]r1", Family(_TALKS | _THINKS)),
        (r"deepseek", Family(_NO_IMAGES)),
        (r"gpt-oss", Family(_NO_IMAGES | _THINKS, thinking="reasoning_effort")),
        (r"qwen3-vl", Family(_THINKS, thinking="reasoning_config")),
        (r"qwen", Family(_NO_IMAGES | _THINKS, thinking="reasoning_config")),
    )
)

#: Unknown, such as an inference profile of one's own: what is asked is sent, the provider knows best.
OTHER = Family({"prompt_cache": True, "token_count": True}, video=True)


@functools.lru_cache(maxsize=4096)
def family_of(model: str) -> Family:
    """The family by a model's id or ARN."""
    name = model.lower()
    return next((family for pattern, family in _FAMILIES if pattern.search(name)), OTHER)


@functools.lru_cache(maxsize=4096)
def capabilities(model: str) -> Capabilities:
    """What a model can be asked for through Converse."""
    family = family_of(model)
    usual = claude.capabilities(model) if family.thinking == "claude" else _USUAL
    return dataclasses.replace(usual, **family.can)  # type: ignore[arg-type]  # names of switches

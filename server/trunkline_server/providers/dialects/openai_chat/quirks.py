"""What a provider does differently from OpenAI: data that the dialect reads, never code of a provider's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from trunkline_server.providers.base import Capabilities

#: Key of `Capabilities.quirks` under which the quirks are.
KEY = "openai_chat"

#: How a provider is told how much to think.
#: effort: `reasoning_effort`. openrouter: `reasoning {effort, max_tokens, exclude}`. thinking: `thinking {type}`.
#: alibaba: `enable_thinking`, `thinking_budget`. template: `reasoning_effort`; none by `chat_template_kwargs`.
#: default: `reasoning_effort` with none or default, for models that think or do not.
ReasoningStyle = Literal["effort", "openrouter", "thinking", "alibaba", "template", "default"]

#: How thoughts of earlier turns go back, if at all: as which member of the message.
ReasoningBack = Literal["", "reasoning_content", "reasoning", "reasoning_details", "thinking"]


@dataclass(frozen=True, slots=True)
class Quirks:
    """The wire of one provider, or of some of its models. Defaults are what most compatible servers understand."""

    max_tokens: str = "max_tokens"
    #: Role on the wire of ROLE_SYSTEM and of ROLE_DEVELOPER.
    system_role: str = "system"
    developer_role: str = "system"
    #: Names of parameters where they differ.
    renamed: Mapping[str, str] = field(default_factory=dict)
    #: Parameters that the model takes at one value only, which is the default, with that value.
    fixed: Mapping[str, float] = field(default_factory=dict)
    reasoning: ReasoningStyle = "effort"
    #: Words for efforts that the provider has not, by ours.
    efforts: Mapping[str, str] = field(default_factory=lambda: {"xhigh": "high", "max": "high"})
    #: Is effort told in words too where thinking is switched on and off?
    switch_effort: bool = False
    reasoning_back: ReasoningBack = ""
    #: Member that says whether thoughts are returned. Empty: there is none.
    include: str = ""
    #: How a document is sent: as OpenAI's file part, as Mistral's document_url, as Perplexity's file_url.
    document: Literal["file", "document_url", "file_url"] = "file"
    #: May a document be given as an address?
    document_urls: bool = False
    video: bool = False
    #: Can it answer with sound?
    speech: bool = False
    #: Does it take `cache_control` marks?
    cache_control: bool = False
    #: Does it take the name of a participant?
    participants: bool = False
    #: Member for the id of the end user. Empty: there is none.
    user: str = "user"
    store: bool = False
    #: Does usage in a stream have to be asked for?
    stream_usage: bool = True
    #: Does it know `tool_choice` with allowed tools?
    allowed_tools: bool = False
    #: Does it take back a refusal as such?
    refusals: bool = False
    #: Where grammars go, by their kind: a path of members.
    grammars: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Does it want Gemini's thought signatures back?
    thought_signatures: bool = False
    #: Together counts alternatives in `logprobs` itself.
    logprobs_count: bool = False
    #: Members that every request has.
    constant: Mapping[str, Any] = field(default_factory=dict)
    #: Where it is asked; {model} stands for the model.
    chat_path: str = "/chat/completions"
    embeddings_path: str = "/embeddings"
    #: May it be asked for vectors as base64 of float32?
    base64_vectors: bool = True
    #: Member that says how long vectors are to be.
    dimensions: str = "dimensions"
    #: Words of `input_type` by EmbeddingTask. Empty: it is not told what vectors are for.
    input_types: Mapping[int, str] = field(default_factory=dict)


DEFAULT = Quirks()


def quirks_of(capabilities: Capabilities) -> Quirks:
    return capabilities.quirk(KEY, DEFAULT)


def placed(path: str, model: str) -> str:
    """The path for a model, whose name stays one step of it."""
    return path.format(model=quote(model, safe="")) if "{" in path else path

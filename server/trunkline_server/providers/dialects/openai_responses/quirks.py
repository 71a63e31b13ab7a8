"""What a provider of the Responses API does differently from OpenAI: data that the dialect reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trunkline_server.providers.base import Capabilities

#: Key of `Capabilities.quirks` under which the quirks are.
KEY = "openai_responses"


@dataclass(frozen=True, slots=True)
class Quirks:
    """The wire of one provider, or of some of its models. Defaults are what OpenAI itself understands."""

    #: What is sent as `instructions`: the first system message, or all system messages before the conversation, which
    #: is for providers that take no system messages and want instructions.
    instructions: Literal["first", "all"] = "first"
    #: Can thoughts be asked for sealed, to be sent back where the response is not kept?
    sealed: bool = True
    #: Does it take thoughts back as plain text?
    plain_thoughts: bool = False
    #: Can it be asked for a summary of its thoughts?
    summary: bool = True
    #: Does it take a budget of thoughts (`reasoning.max_tokens`)?
    budget: bool = False
    #: Words for efforts that the provider has not, by ours.
    efforts: Mapping[str, str] = field(default_factory=dict)
    #: Parameters that the model takes at one value only, which is the default, with that value.
    fixed: Mapping[str, float] = field(default_factory=dict)
    #: Does it take pictures and files in the result of a tool?
    rich_results: bool = True
    #: Does it take marks of prefixes to cache?
    cache_marks: bool = False
    allowed_tools: bool = True
    #: Does it take a limit on the calls of its own tools?
    max_tool_calls: bool = True
    #: Does it keep responses if it is asked to, or never? The latter is told so with every request.
    keeps: Literal["asked", "never"] = "asked"
    #: Does it answer with a stream only?
    streams_only: bool = False
    #: Member for the id of the end user. Empty: there is none.
    user: str = "safety_identifier"


DEFAULT = Quirks()


def quirks_of(capabilities: Capabilities) -> Quirks:
    return capabilities.quirk(KEY, DEFAULT)

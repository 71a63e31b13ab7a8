"""AWS's errors. The shared table classifies them; here is only what is particular to their shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from trunkline_server.providers import classify as shared
from trunkline_server.providers.facts import Facts, facts_of

#: Where the provider's parameters come from in CompletionSpec, without indexes: turns are merged on the way.
FIELDS: Mapping[str, str] = {
    "additionalModelRequestFields": "params",
    "additionalModelRequestFields.thinking": "params.reasoning",
    "additionalModelRequestFields.top_k": "params.top_k",
    "inferenceConfig": "params",
    "inferenceConfig.maxTokens": "params.max_output_tokens",
    "inferenceConfig.stopSequences": "params.stop_sequences",
    "inferenceConfig.temperature": "params.temperature",
    "inferenceConfig.topP": "params.top_p",
    "messages": "messages",
    "modelId": "model",
    "outputConfig": "response_format",
    "serviceTier": "params.service_tier",
    "system": "messages",
    "thinking": "params.reasoning",
    "toolConfig": "tools",
    "toolConfig.toolChoice": "tool_choice",
    "tool_choice": "tool_choice",
    "tools": "tools",
}

#: "Value '5' at 'inferenceConfig.temperature' failed ..", "#/messages/2/content/0: extraneous key ..",
#: "messages.2.content.0.document.source: Field required", "The value at messages.0.content is empty".
_PARAM = re.compile(r"(?:\bat '|#/|\bvalue at |^|: )([A-Za-z_]+(?:[./][A-Za-z0-9_]+)*)(?:'|:| (?:is|contains|must)\b)")


def is_error(value: Any) -> bool:
    """Is this what AWS says instead of an answer?"""
    if not isinstance(value, dict):
        return False
    inside = value.get("Output")
    return bool({"message", "Message", "__type", "error"} & value.keys()) or (
        isinstance(inside, dict) and "__type" in inside
    )


def _facts(value: Any) -> Facts:
    if isinstance(value, dict) and isinstance(value.get("Output"), dict):
        value = value["Output"]
    facts = facts_of(value)
    if isinstance(value, dict):
        status, said = value.get("originalStatusCode"), value.get("originalMessage")
        if facts.status is None and isinstance(status, int) and 400 <= status <= 599:
            facts.status = status
        if isinstance(said, str) and said:
            facts.inner.append(said)
            facts.message = facts.message or said
    if not facts.param:
        facts.param = _param(facts.message)
    return facts


def _param(message: str) -> str:
    """The parameter that a message blames, without indexes."""
    for match in _PARAM.finditer(message[:1000]):
        steps = [step for step in re.split(r"[./]", match.group(1)) if not step.isdigit()]
        for length in (2, 1):
            name = ".".join(steps[:length])
            if name in FIELDS:
                return name
    return ""


classify = partial(shared.classify, facts=_facts, fields=FIELDS)
error_in_answer = partial(shared.error_in_answer, facts=_facts, fields=FIELDS)

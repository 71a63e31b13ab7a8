"""Anthropic's errors. The shared table classifies them; here is only what is particular to their shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from trunkline_server.providers import classify as shared
from trunkline_server.providers.facts import Facts, facts_of

#: Where the provider's parameters come from in CompletionSpec, without indexes: turns are merged on the way.
FIELDS: Mapping[str, str] = {
    "max_tokens": "params.max_output_tokens",
    "messages": "messages",
    "metadata": "end_user_id",
    "model": "model",
    "output_config": "response_format",
    "output_config.effort": "params.reasoning.effort",
    "output_config.format": "response_format",
    "service_tier": "params.service_tier",
    "stop_sequences": "params.stop_sequences",
    "system": "messages",
    "temperature": "params.temperature",
    "thinking": "params.reasoning",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "params.top_k",
    "top_p": "params.top_p",
}

#: Messages begin with the parameter: "tools.0.custom.input_schema.type: Field required".
_PARAM = re.compile(r"\s*`?([a-z_]+(?:\.[A-Za-z0-9_]+)*)`?\s*:")


def _facts(value: Any) -> Facts:
    facts = facts_of(value)
    if not facts.param:
        match = _PARAM.match(facts.message)
        if match and match.group(1).partition(".")[0] in FIELDS:
            facts.param = match.group(1)
    return facts


classify = partial(shared.classify, facts=_facts, fields=FIELDS)
error_in_answer = partial(shared.error_in_answer, facts=_facts, fields=FIELDS)

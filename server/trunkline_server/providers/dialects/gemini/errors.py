"""Google's errors. The shared table classifies them; here is only what is particular to their shape.

See https://google.aip.dev/193
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from trunkline_server.errors import LLMContentFilterError, LLMError
from trunkline_server.providers import classify as shared
from trunkline_server.providers.dialects.gemini.wire import PromptFeedback
from trunkline_server.providers.facts import Facts, facts_of

#: Where the provider's parameters come from in CompletionSpec, by the last step of their path in snake case.
FIELDS: Mapping[str, str] = {
    "allowed_function_names": "tool_choice",
    "candidate_count": "params.n",
    "contents": "messages",
    "frequency_penalty": "params.frequency_penalty",
    "function_calling_config": "tool_choice",
    "function_declarations": "tools",
    "logprobs": "params.top_logprobs",
    "max_output_tokens": "params.max_output_tokens",
    "model": "model",
    "presence_penalty": "params.presence_penalty",
    "response_json_schema": "response_format",
    "response_logprobs": "params.logprobs",
    "response_mime_type": "response_format",
    "response_schema": "response_format",
    "seed": "params.seed",
    "service_tier": "params.service_tier",
    "stop_sequences": "params.stop_sequences",
    "system_instruction": "messages",
    "temperature": "params.temperature",
    "thinking_budget": "params.reasoning.budget_tokens",
    "thinking_config": "params.reasoning",
    "thinking_level": "params.reasoning.effort",
    "tool_config": "tool_choice",
    "tools": "tools",
    "top_k": "params.top_k",
    "top_p": "params.top_p",
}

#: Messages begin with the parameter: "* GenerateContentRequest.tools[0].function_declarations[0].name: ...".
_PARAM = re.compile(r"[\s*]*(?:GenerateContentRequest\.)?([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*):")
_INDEX = re.compile(r"\[\d+\]")

#: How likely a category must be to have been a reason to block; 3 and 4 where enums are not written as words.
_LIKELY = frozenset({"MEDIUM", "HIGH", 3, 4})


def blocked(feedback: PromptFeedback, body: bytes) -> LLMError:
    """The error for a prompt that a filter refused."""
    reason = str(feedback.block_reason or "")
    said = feedback.block_reason_message
    categories = [
        str(rating.category)
        for rating in feedback.safety_ratings or ()
        if rating.blocked or (isinstance(rating.probability, str | int) and rating.probability in _LIKELY)
    ]
    return LLMContentFilterError(
        (said if isinstance(said, str) and said else f"the provider's filter refused the prompt: {reason}")[
            : shared.MESSAGE_CHARS
        ],
        http_status=200,
        provider_code=reason[:128],
        body=body[: shared.BODY_BYTES],
        field="messages",
        metadata={"categories": ",".join(categories or [reason])[:200]},
    )


def _facts(value: Any) -> Facts:
    facts = facts_of(value)
    if not facts.param:
        match = _PARAM.match(facts.message)
        if match:
            facts.param = match.group(1)
    # The innermost step that is known says most.
    steps = _INDEX.sub("", facts.param).split(".")
    facts.param = next((step for step in reversed(steps) if step in FIELDS), facts.param)
    return facts


classify = partial(shared.classify, facts=_facts, fields=FIELDS)
error_in_answer = partial(shared.error_in_answer, facts=_facts, fields=FIELDS)

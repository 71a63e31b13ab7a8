"""What is sent to a provider is what its official client could have sent, over a matrix of what can be asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import text_format
from tests.providers import official

from trunkline.v1 import completion_pb2
from trunkline_server.providers import DIALECTS, KINDS
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.prepare import prepared

HELLO = "messages { role: ROLE_USER parts { text { text: 'Hello.' } } }"
SCHEMA = '{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}'
F = f"tools {{ function {{ name: 'f' description: 'does f' parameters_json_schema: '{SCHEMA}' }} }}"
TWO = F + " tools { function { name: 'g' } }"
CALL = """
messages { role: ROLE_USER parts { text { text: 'Go.' } } }
messages { role: ROLE_ASSISTANT parts { tool_call { id: 'call_1' name: 'f' arguments_json: '{"a": "x"}' } } }
"""
CALLS = """
messages { role: ROLE_USER parts { text { text: 'Go.' } } }
messages {
  role: ROLE_ASSISTANT
  parts { text { text: 'Both.' } }
  parts { tool_call { id: 'call_1' name: 'f' arguments_json: '{"a": "x"}' } }
  parts { tool_call { id: 'call_2' name: 'g' arguments_json: '{}' } }
}
"""
PNG = r"image { data: '\211PNG' mime_type: 'image/png' }"


def result(call: str, parts: str, more: str = "") -> str:
    return f"parts {{ tool_result {{ tool_call_id: 'call_{call}' name: 'f' {more} {parts} }} }}"


def user(*parts: str) -> str:
    return f"messages {{ role: ROLE_USER {' '.join(f'parts {{ {part} }}' for part in parts)} }}"


SAID = "parts { text { text: '4' } }"
#: What is asked, by what it shows; in protobuf's text format.
SPECS = {
    "system and developer": "messages { role: ROLE_SYSTEM parts { text { text: 'Be brief.' } } }"
    " messages { role: ROLE_DEVELOPER parts { text { text: 'In German.' } } }" + HELLO,
    "system in the middle": HELLO + "messages { role: ROLE_ASSISTANT parts { text { text: 'Hi.' } } }"
    " messages { role: ROLE_SYSTEM parts { text { text: 'Now in German.' } } }" + HELLO,
    "several parts": user("text { text: 'a' }", "text { text: 'b' }"),
    "a participant": "messages { role: ROLE_USER name: 'Ann' parts { text { text: 'Hello.' } } }",
    "an answer before": HELLO + "messages { role: ROLE_ASSISTANT parts { text { text: 'Hi.' } } }" + HELLO,
    "a refusal before": HELLO + "messages { role: ROLE_ASSISTANT parts { refusal { text: 'No.' } } }" + HELLO,
    "image bytes": user("text { text: 'See.' }", PNG),
    "image address": user("image { uri: 'https://example.org/a.png' mime_type: 'image/png' detail: MEDIA_DETAIL_LOW }"),
    "image id": user("image { file_id: 'file-1' mime_type: 'image/png' }"),
    "document bytes": user(r"document { data: '%PDF' mime_type: 'application/pdf' filename: 'a.pdf' }"),
    "document text": user("document { data: 'words' mime_type: 'text/plain' filename: 'a.txt' }"),
    "document address": user("document { uri: 'https://example.org/a.pdf' mime_type: 'application/pdf' }"),
    "document id": user("document { file_id: 'file-1' mime_type: 'application/pdf' }"),
    "audio bytes": user("audio { data: 'RIFF' mime_type: 'audio/wav' }"),
    "video bytes": user("video { data: 'film' mime_type: 'video/mp4' }"),
    "a tool": HELLO + F,
    "two tools": HELLO + TWO,
    "a strict tool": HELLO + F.replace("description:", "strict: true description:"),
    "all tools strict": HELLO + TWO + "strict_tools: true",
    "reasons for calls": HELLO + TWO + "reasoning_argument { name: 'why' }",
    "no choice of tools": HELLO + F + "tool_choice { mode: TOOL_CHOICE_MODE_NONE }",
    "free choice of tools": HELLO + F + "tool_choice { mode: TOOL_CHOICE_MODE_AUTO }",
    "any tool": HELLO + F + "tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }",
    "one tool": HELLO + TWO + "tool_choice { tool_name: 'f' }",
    "some tools": HELLO + TWO + "tool_choice { allowed { tool_names: 'f' mode: TOOL_CHOICE_MODE_REQUIRED } }",
    "one call at a time": HELLO + F + "params { parallel_tool_calls: false }",
    "one call at most": HELLO + F + "max_tool_calls: 1",
    "a result": F + CALL + f"messages {{ role: ROLE_TOOL {result('1', SAID)} }}",
    "two results": TWO + CALLS + f"messages {{ role: ROLE_TOOL {result('1', SAID)} {result('2', SAID)} }}",
    "a result that failed": F + CALL + f"messages {{ role: ROLE_TOOL {result('1', SAID, 'is_error: true')} }}",
    "a result with a picture": F + CALL + f"messages {{ role: ROLE_TOOL {result('1', SAID + f'parts {{ {PNG} }}')} }}",
    "an empty result": F + CALL + f"messages {{ role: ROLE_TOOL {result('1', '')} }}",
    "a result cut short": F + CALL + f"messages {{ role: ROLE_TOOL {result('1', SAID)} }} tool_result_max_chars: 1",
    "any JSON": HELLO + "response_format { json_object {} }",
    "a schema": HELLO + f"response_format {{ json_schema {{ name: 'r' json_schema: '{SCHEMA}' strict: true }} }}",
    "a nameless schema": HELLO + f"response_format {{ json_schema {{ json_schema: '{SCHEMA}' }} }}",
    "a length": HELLO + "params { max_output_tokens: 2000 }",
    "sampling": HELLO + "params { temperature: 0.5 top_p: 0.75 }",
    "a narrow choice": HELLO + "params { top_k: 5 min_p: 0.125 }",
    "penalties": HELLO + "params { frequency_penalty: 0.5 presence_penalty: 0.25 repetition_penalty: 1.5 }",
    "a seed": HELLO + "params { seed: 7 }",
    "stops": HELLO + "params { stop_sequences: 'END' stop_sequences: 'FIN' }",
    "biases": HELLO + "params { logit_bias { key: '7' value: -1 } }",
    "logprobs": HELLO + "params { logprobs: true top_logprobs: 2 }",
    "two choices": HELLO + "params { n: 2 }",
    "a tier": HELLO + "params { service_tier: 'auto' }",
    "brevity": HELLO + "params { verbosity: VERBOSITY_LOW }",
    **{
        f"{effort.lower()} effort": HELLO + f"params {{ reasoning {{ effort: REASONING_EFFORT_{effort} }} }}"
        for effort in ("NONE", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH", "MAX")
    },
    "a budget to think": HELLO + "params { max_output_tokens: 8000 reasoning { budget_tokens: 2000 include: true } }",
    "thoughts shown": HELLO + "params { reasoning { effort: REASONING_EFFORT_HIGH include: true } }",
    "a cached prefix": "messages { role: ROLE_USER"
    " parts { text { text: 'Long.' } cache_control { ttl: CACHE_TTL_1H } } parts { text { text: 'Hello.' } } }",
    "a cached tool": HELLO + F.replace("tools {", "tools { cache_control {}"),
    "a user": HELLO + "end_user_id: 'u-1'",
    "kept": HELLO + "store: true",
    "not kept": HELLO + "store: false",
    "more for the system": HELLO + "extra_system_text: 'Be kind.'",
    "an earlier response": HELLO + "previous_response_id: 'resp_1'",
    "sound": HELLO + "audio_output { voice: 'alloy' format: 'wav' }",
}

#: Models that differ in what they take, by kind of provider.
MODELS = {
    "openai": ("gpt-4.1", "gpt-5.2", "o3", "gpt-audio"),
    "azure": ("gpt-4.1", "gpt-5.2"),
    "openai-responses": ("gpt-4.1", "gpt-5.2", "gpt-5.6", "o3-pro"),
    "azure-responses": ("gpt-5.2",),
    "anthropic": ("claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5", "claude-3-5-haiku-20241022"),
    "gemini": ("gemini-2.5-flash", "gemini-3-pro-preview", "gemini-2.0-flash"),
    "vertex": ("gemini-2.5-pro", "gemini-3-flash"),
    "mistral": ("mistral-large-latest", "magistral-medium-latest"),
    "cohere": ("command-a-03-2025", "command-a-reasoning-08-2025", "command-a-plus-05-2026"),
    "bedrock": (
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-2-lite-v1:0", "us.amazon.nova-pro-v1:0",
        "us.meta.llama3-3-70b-instruct-v1:0", "openai.gpt-oss-120b-1:0", "mistral.mistral-large-2407-v1:0",
    ),
}  # fmt: skip

#: What the provider says by the shape of its usual request, so that asking for it changes nothing.
SILENT = {"free choice of tools", "no choice of tools", "none effort", "not kept"}


def encoded(kind: str, model: str, spec: str, *, stream: bool = False) -> tuple[dict[str, Any], Notes]:
    row, notes = KINDS[kind], Notes()
    tongue = row.tongue_of(model)
    target = Target(kind, tongue.origin or kind, model, row.capabilities_of(model))
    asked = text_format.Parse(spec, completion_pb2.CompletionSpec())
    made = DIALECTS[tongue.dialect]().encode(prepared(asked, None), target, notes, stream=stream)
    body: dict[str, Any] = json.loads(made.body)
    return body, notes


@pytest.mark.parametrize("what", SPECS)
@pytest.mark.parametrize(("kind", "model"), [(kind, model) for kind, models in MODELS.items() for model in models])
def test_a_request_is_one_that_the_official_client_could_send(kind: str, model: str, what: str):
    body, notes = encoded(kind, model, SPECS[what])

    official.TYPES[kind](body)
    plain, _ = encoded(kind, model, HELLO)
    assert body != plain or notes.unsupported or notes.foreign or what in SILENT, "what was asked went nowhere"


def test_every_official_type_has_models():
    assert MODELS.keys() == official.TYPES.keys()

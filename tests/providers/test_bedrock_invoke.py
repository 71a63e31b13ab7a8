"""InvokeModel: the models' own wires inside of AWS's, each with its own body and its own events in AWS's frames."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf import text_format
from tests.providers.bedrock_wire import chunk, event, exception
from tests.providers.wires import calls_of, parts_of

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMConnectionError, LLMNotFoundError, LLMProviderOverloaded, LLMRateLimitError
from trunkline_server.providers import ProviderOptions, build
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import CountingDialect, Notes
from trunkline_server.providers.framing import FRAMINGS
from trunkline_server.providers.provider import Provider

CLAUDE, NOVA, GPT = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "eu.amazon.nova-lite-v1:0", "openai.gpt-oss-20b-1:0"
SPEC = """
messages { role: ROLE_SYSTEM parts { text { text: "Be brief." } } }
messages { role: ROLE_USER parts { text { text: "hello" } } }
params { max_output_tokens: 9 top_k: 3 }
"""


@pytest.fixture(scope="module")
def provider() -> Provider:
    return build(ProviderOptions("cloud", "bedrock-invoke", keys={"": "ABSKkey"}, settings={"region": "eu-west-1"}))


def encoded(provider: Provider, model: str, spec: str = SPEC, *, stream: bool = False) -> Any:
    asked = text_format.Parse(spec, completion_pb2.CompletionSpec())
    notes = Notes()
    made = provider.dialect_for(model).encode(asked, provider.target(model), notes, stream=stream)
    assert notes.unsupported == []
    return made


def decoded(provider: Provider, model: str, stream: bytes) -> completion_pb2.Completion:
    dialect = provider.dialect_for(model)
    assembly = Assembly("x", model)
    framer, decoder = FRAMINGS[dialect.framing](), dialect.decoder(assembly)
    for each in [*framer.feed(stream), *framer.end()]:
        decoder.event(each)
    decoder.end()
    return assembly.completion()


def test_a_body_of_anthropics_names_its_version_and_neither_model_nor_stream(provider: Provider):
    made = encoded(provider, CLAUDE, stream=True)

    assert made.path == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
    assert made.headers == ()
    assert json.loads(made.body) == {
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "top_k": 3,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    }  # fmt: skip


def test_betas_are_members_and_the_service_tier_is_a_header(provider: Provider):
    spec = SPEC.replace("top_k: 3", 'service_tier: "flex"') + """
    messages { role: ROLE_USER parts { document { file_id: "f1" } } }
    provider_options_json { key: "cloud" value: '{"anthropic_beta": ["mine-2025-01-01"], "x": 1}' }
    """  # fmt: skip

    made = encoded(provider, CLAUDE, spec)

    body = json.loads(made.body)
    assert body["anthropic_beta"] == ["mine-2025-01-01", "files-api-2025-04-14"]
    assert body["x"] == 1
    assert made.headers == (("x-amzn-bedrock-service-tier", "flex"),)
    assert "service_tier" not in body


def test_nova_models_have_what_converse_keeps_apart_in_their_body(provider: Provider):
    body = json.loads(encoded(provider, NOVA).body)

    assert body == {
        "schemaVersion": "messages-v1", "system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": "hello"}]}],
        "inferenceConfig": {"maxTokens": 9, "topK": 3},
    }  # fmt: skip


def test_models_of_others_are_asked_as_openais_are(provider: Provider):
    made = encoded(provider, GPT, 'messages { role: ROLE_USER parts { text { text: "hello" } } }', stream=True)

    assert made.path == "/model/openai.gpt-oss-20b-1%3A0/invoke-with-response-stream"
    assert json.loads(made.body)["messages"] == [{"role": "user", "content": "hello"}]
    assert not {"model", "stream"} & json.loads(made.body).keys()


@pytest.mark.parametrize(
    ("model", "origin"), [(CLAUDE, "anthropic"), ("arn:aws:bedrock:eu-west-1::model/anthropic.claude-x", "anthropic"),
                          (NOVA, "bedrock-invoke"), (GPT, "bedrock-invoke")],
)  # fmt: skip
def test_signatures_of_claude_are_anthropics(provider: Provider, model: str, origin: str):
    assert provider.target(model).origin == origin


def test_models_whose_wire_is_nobody_elses_are_spoken_to_through_converse(provider: Provider):
    path = encoded(provider, "eu.meta.llama3-2-3b-instruct-v1:0", SPEC.replace("top_k: 3", "")).path

    assert path == "/model/eu.meta.llama3-2-3b-instruct-v1%3A0/converse"
    assert encoded(provider, "arn:aws:bedrock:eu-west-1:1:application-inference-profile/x").path.endswith("/invoke")


def test_a_stream_of_anthropics_events_is_unwrapped(provider: Provider):
    start = {"type": "message_start", "message": {"id": "msg_bdrk_1", "model": "claude-sonnet-4-5", "usage": {
        "input_tokens": 4, "cache_read_input_tokens": 9, "output_tokens": 1}}}  # fmt: skip
    pieces = {"type": "input_json_delta", "partial_json": '{"a": 1}'}
    use = {"type": "tool_use", "id": "toolu_bdrk_1", "name": "f", "input": {}}
    stream = b"".join(
        chunk(payload)
        for payload in (
            start,
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüezi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": use},
            {"type": "content_block_delta", "index": 1, "delta": pieces},
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
            {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 4}},
        )
    )  # fmt: skip

    found = decoded(provider, CLAUDE, stream)

    assert parts_of(found)[0].text.text == "Grüezi"
    assert calls_of(found) == [("toolu_bdrk_1", "f", '{"a": 1}')]
    assert (found.provider_response_id, found.usage.input_tokens, found.usage.output_tokens) == ("msg_bdrk_1", 13, 7)


def test_streams_of_others_are_unwrapped_too(provider: Provider):
    nova = b"".join(
        chunk(payload)
        for payload in (
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Hel"}, "contentBlockIndex": 0}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"contentBlockDelta": {"delta": {"text": "lo"}, "contentBlockIndex": 1}},
            {"contentBlockStop": {"contentBlockIndex": 1}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 2}}, "amazon-bedrock-invocationMetrics": {}},
        )
    )
    gpt = b"".join(
        chunk(payload)
        for payload in (
            {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hello"}}]},
            {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 3}},
        )
    )

    for model, stream in ((NOVA, nova), (GPT, gpt)):
        found = decoded(provider, model, stream)
        assert "".join(part.text.text for part in parts_of(found)) == "Hello"
        assert found.choices[0].finish_reason == completion_pb2.FINISH_REASON_STOP


def test_an_exception_among_the_frames_is_an_error(provider: Provider):
    first = chunk({"type": "message_start", "message": {"id": "m"}})

    with pytest.raises(LLMRateLimitError, match="slow down"):
        decoded(provider, CLAUDE, first + exception("throttlingException", {"message": "slow down"}))
    with pytest.raises(LLMProviderOverloaded):
        decoded(provider, CLAUDE, first + chunk({"type": "error", "error": {"type": "overloaded_error"}}))
    with pytest.raises(LLMConnectionError):
        decoded(provider, CLAUDE, first + event("chunk", {}) + event("aside", {"bytes": "e30="}))


def test_whole_answers_and_errors_are_read_as_the_model_writes_them(provider: Provider):
    dialect = provider.dialect_for(CLAUDE)
    assembly = Assembly("anthropic", CLAUDE)

    dialect.decode(b'{"id":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn"}', assembly)
    error = dialect.classify(
        400,
        {"x-amzn-errortype": "ValidationException:http://internal/", "x-amzn-requestid": "r"},
        b'{"message":"The provided model identifier is invalid."}',
    )

    assert parts_of(assembly.completion())[0].text.text == "hi"
    assert (type(error), error.request_id) == (LLMNotFoundError, "r")


def test_tokens_are_counted_over_the_body_that_would_be_sent(provider: Provider):
    dialect = provider.dialect_for(CLAUDE)
    assert isinstance(dialect, CountingDialect)
    asked = text_format.Parse(SPEC, completion_pb2.CompletionSpec())

    made = dialect.encode_count(asked, provider.target(CLAUDE), Notes())

    assert made.path == "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"
    counted = json.loads(made.body)["input"]["invokeModel"]["body"]
    assert json.loads(base64.b64decode(counted)) == json.loads(encoded(provider, CLAUDE).body)
    assert dialect.decode_count(b'{"inputTokens":18}') == 18

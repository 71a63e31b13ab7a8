"""Requests in protobuf's text format, and what is wrong with them: by field, with value and fix, all at once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rpc.requests import MODEL, USER, WELL, Create, Stream, conversation, create, invalid, is_fine, only, results

from trunkline.v1 import (
    completion_pb2,
    completion_service_pb2,
    embedding_service_pb2,
    generation_pb2,
    model_service_pb2,
)
from trunkline_server.rpc import validation
from trunkline_server.rpc.findings import Findings, Unlisted

# -- specs ------------------------------------------------------------------------------------------------------------

FULL = """
spec {
  model: "openai/gpt-5.2"
  messages { role: ROLE_SYSTEM parts { text { text: "Be brief." } cache_control { ttl: CACHE_TTL_1H } } }
  messages { role: ROLE_DEVELOPER parts { text { text: "" } } name: "app" }
  messages { role: ROLE_USER
    parts { text { text: "What is this?" } }
    parts { image { data: "\\x89PNG" mime_type: "image/png" detail: MEDIA_DETAIL_HIGH } }
    parts { image { uri: "https://example.com/a.png" } }
    parts { document { uri: "gs://bucket/a.pdf" mime_type: "application/pdf" } }
    parts { audio { file_id: "file-1" } }
    parts { video { uri: "S3://bucket/film" mime_type: "video/mp4; codecs=\\"avc1\\"" } }
    parts { opaque { type: "container_upload" json: "{\\"type\\":\\"container_upload\\"}" } } }
  messages { role: ROLE_ASSISTANT
    parts { reasoning { text: "hm" } signature: "sig" origin_provider: "openai" }
    parts { text { text: "Let me see." citations { uri: "https://a" raw_json: "{\\"a\\":1}" } } }
    parts { tool_call { id: "call_1" name: "look" arguments_json: "{\\"x\\":" } }
    parts { tool_call { id: "call_2" name: "look" arguments_json: "{}" } }
    parts { tool_call { id: "srv_1" name: "web_search" provider_executed: true } }
    parts { opaque { type: "web_search_tool_result" json: "{}" } } }
  messages { role: ROLE_TOOL
    parts { tool_result { tool_call_id: "call_2"
      parts { text { text: "b" } } parts { image { data: "x" mime_type: "image/png" } } } }
    parts { tool_result { tool_call_id: "call_1" is_error: true } } }
  messages { role: ROLE_ASSISTANT }
  messages { role: ROLE_ASSISTANT parts { refusal { text: "no" } } }
  messages { role: ROLE_USER parts { text { text: "And now?" } } }
  tools { function { name: "look" parameters_json_schema: "{\\"type\\":\\"object\\",\\"properties\\":{\\"x\\":{}}}" } }
  tools { function { name: "a.b:c-d_E9" } cache_control {} }
  tools { provider { type: "web_search_20250305" config_json: "{\\"name\\":\\"web_search\\"}" } }
  tools { provider { type: "mcp" config_json: "{\\"server_label\\":\\"shop\\"}" } }
  tool_choice { allowed { mode: TOOL_CHOICE_MODE_REQUIRED
    tool_names: "look" tool_names: "web_search" tool_names: "web_search_20250305" tool_names: "shop" } }
  response_format { json_schema { name: "answer-1" json_schema: "{\\"type\\":\\"object\\"}" strict: true } }
  params { max_output_tokens: 1 temperature: 0 top_p: 1 top_k: 0 min_p: 0.5 frequency_penalty: -2 presence_penalty: 2
    repetition_penalty: 1.1 seed: -9 stop_sequences: "END" logit_bias { key: "50256" value: -100 } logprobs: true
    top_logprobs: 20 n: 128 reasoning { effort: REASONING_EFFORT_HIGH budget_tokens: 0 } verbosity: VERBOSITY_LOW }
  labels { key: "team" value: "" }
  end_user_id: "u1"
  provider_options_json { key: "openai" value: "{\\"metadata\\":{\\"model\\":1}}" }
  tool_result_max_chars: 0
  reasoning_argument { name: "why" position: REASONING_ARGUMENT_POSITION_LAST }
  max_tool_calls: 1
  extra_system_text: ""
  audio_output { voice: "alloy" format: "mp3" }
}
request_id: "order 66/~"
options { timeout { nanos: 1 } include_raw: true capture: CAPTURE_FULL on_unsupported: ON_UNSUPPORTED_WARN
  after_first_token: AFTER_FIRST_TOKEN_FAIL credential: "openai-prod" }
"""


def test_a_request_that_uses_everything_is_fine() -> None:
    request = text_format.Parse(FULL, Create())
    before = request.SerializeToString(deterministic=True)

    assert is_fine(validation.of_create(request))
    assert is_fine(validation.of_stream(text_format.Parse(FULL, Stream())))
    assert request.SerializeToString(deterministic=True) == before


def test_an_empty_request_lacks_its_spec() -> None:
    requests: list[tuple[Any, Any]] = [
        (validation.of_create, Create()),
        (validation.of_stream, Stream()),
        (validation.of_count, completion_service_pb2.CountTokensRequest()),
        (validation.of_embeddings, embedding_service_pb2.CreateEmbeddingsRequest()),
    ]
    for of, request in requests:
        assert only(of(request)) == ("spec", "missing: say what is asked")


def test_an_empty_spec_lacks_a_model_and_messages() -> None:
    assert set(invalid(validation.of_create(text_format.Parse("spec {}", Create())))) == {"spec.model", "spec.messages"}
    assert set(invalid(validation.of_create(text_format.Parse('spec { model: "" }', Create())))) == {
        "spec.model", "spec.messages"}  # fmt: skip


#: What is added to a request that is right, the field that is wrong then, and words of the description.
SPECS = [
    ("params { max_output_tokens: 0 }", "spec.params.max_output_tokens", "0 is out of range: give at least 1"),
    ("params { max_output_tokens: -5 }", "spec.params.max_output_tokens", "-5"),
    ("params { temperature: 2.01 }", "spec.params.temperature", "2.01 is out of range: give from 0 to 2"),
    ("params { temperature: -0.01 }", "spec.params.temperature", "-0.01"),
    ("params { temperature: nan }", "spec.params.temperature", "nan"),
    ("params { temperature: inf }", "spec.params.temperature", "inf"),
    ("params { top_p: 1.1 }", "spec.params.top_p", "from 0 to 1"),
    ("params { top_k: -1 }", "spec.params.top_k", "at least 0"),
    ("params { min_p: -0.5 }", "spec.params.min_p", "from 0 to 1"),
    ("params { frequency_penalty: 2.5 }", "spec.params.frequency_penalty", "from -2 to 2"),
    ("params { presence_penalty: -inf }", "spec.params.presence_penalty", "-inf"),
    ("params { repetition_penalty: 0 }", "spec.params.repetition_penalty", "above 0"),
    ("params { repetition_penalty: inf }", "spec.params.repetition_penalty", "inf"),
    ('params { stop_sequences: "a" stop_sequences: "" }', "spec.params.stop_sequences[1]", "empty"),
    ("params {" + ' stop_sequences: "a"' * 17 + " }", "spec.params.stop_sequences", "17 stop sequences are too many"),
    ('params { logit_bias { key: "x1" value: 1 } }', 'spec.params.logit_bias["x1"]', "'x1' is no token id"),
    ('params { logit_bias { key: "-1" value: 1 } }', 'spec.params.logit_bias["-1"]', "decimal"),
    ('params { logit_bias { key: "١" value: 1 } }', 'spec.params.logit_bias["١"]', "decimal"),
    ('params { logit_bias { key: "1" value: 101 } }', 'spec.params.logit_bias["1"]', "101.0 is out of range"),
    ('params { logit_bias { key: "1" value: nan } }', 'spec.params.logit_bias["1"]', "nan"),
    ("params { top_logprobs: 21 }", "spec.params.top_logprobs", "from 0 to 20"),
    ("params { n: 0 }", "spec.params.n", "from 1 to 128"),
    ("params { n: 129 }", "spec.params.n", "129"),
    ("params { reasoning { budget_tokens: -1 } }", "spec.params.reasoning.budget_tokens", "at least 0"),
    ("params { reasoning { effort: 99 } }", "spec.params.reasoning.effort", "99 is no ReasoningEffort"),
    ("params { verbosity: 4 }", "spec.params.verbosity", "VERBOSITY_LOW"),
    ("tools {}", "spec.tools[0]", "set function or provider"),
    ("tools { function {} }", "spec.tools[0].function.name", "'' is not allowed: name the function"),
    ('tools { function { name: "a b" } }', "spec.tools[0].function.name", "'a b'"),
    ('tools { function { name: "a\\n" } }', "spec.tools[0].function.name", r"'a\n'"),
    ('tools { function { name: "%s" } }' % ("n" * 129), "spec.tools[0].function.name", "1 to 128"),
    ('tools { function { name: "f" } } tools { function { name: "f" } }',
     "spec.tools[1].function.name", "spec.tools[0] too"),
    ('tools { function { name: "f" parameters_json_schema: "{\\"a\\": [1,}" } }',
     "spec.tools[0].function.parameters_json_schema", "at line 1 column 10, at '}'"),
    ('tools { function { name: "f" parameters_json_schema: "[]" } }',
     "spec.tools[0].function.parameters_json_schema", "is JSON but no object"),
    ('tools { function { name: "f" parameters_json_schema: "{\\"a\\":NaN}" } }',
     "spec.tools[0].function.parameters_json_schema", "NaN is no number of JSON"),
    ("tools { provider {} }", "spec.tools[0].provider.type", "missing"),
    ('tools { provider { type: "t" config_json: "{" } }', "spec.tools[0].provider.config_json", "where the text ends"),
    ('tools { provider { type: "t" } cache_control { ttl: 9 } }', "spec.tools[0].cache_control.ttl", "no CacheTtl"),
    ("tool_choice {}", "spec.tool_choice", "set one of mode, tool_name and allowed"),
    ("tool_choice { mode: 9 }", "spec.tool_choice.mode", "no ToolChoiceMode"),
    ('tool_choice { tool_name: "g" } tools { function { name: "f" } }', "spec.tool_choice.tool_name",
     "no tool 'g' among spec.tools: name one of them ('f')"),
    ('tool_choice { tool_name: "g" }', "spec.tool_choice.tool_name", "(none)"),
    ("tool_choice { allowed {} }", "spec.tool_choice.allowed.tool_names", "at least one"),
    ('tool_choice { allowed { tool_names: "f" tool_names: "g" } } tools { function { name: "f" } }',
     "spec.tool_choice.allowed.tool_names[1]", "no tool 'g'"),
    ('tool_choice { allowed { tool_names: "f" mode: TOOL_CHOICE_MODE_NONE } } tools { function { name: "f" } }',
     "spec.tool_choice.allowed.mode", "use AUTO or REQUIRED"),
    ('tool_choice { allowed { tool_names: "f" mode: 8 } } tools { function { name: "f" } }',
     "spec.tool_choice.allowed.mode", "8"),
    ("response_format {}", "spec.response_format", "set one of text, json_object"),
    ("response_format { json_schema {} }", "spec.response_format.json_schema.json_schema", "missing"),
    ('response_format { json_schema { name: "a.b" json_schema: "{}" } }',
     "spec.response_format.json_schema.name", "'a.b'"),
    ('response_format { json_schema { json_schema: "true" } }',
     "spec.response_format.json_schema.json_schema", "'true' is JSON but no object"),
    ("response_format { grammar {} }", "spec.response_format.grammar", "regex, lark and ebnf"),
    ('response_format { grammar { lark: "" } }', "spec.response_format.grammar.lark", "empty"),
    ('labels { key: "" value: "x" }', 'spec.labels[""]', "use 1 to 64"),
    ('labels { key: "%s" value: "x" }' % ("k" * 65), f'spec.labels["{"k" * 60}"]', "65 characters"),
    ('labels { key: "k" value: "%s" }' % ("v" * 257), 'spec.labels["k"]', "257 characters"),
    (" ".join(f'labels {{ key: "k{n}" }}' for n in range(65)),
     "spec.labels", "65 labels are too many: send at most 64"),
    ('provider_options_json { key: "acme" value: "" }', 'spec.provider_options_json["acme"]', "no valid JSON"),
    ('provider_options_json { key: "acme" value: "[1]" }',
     'spec.provider_options_json["acme"]', "'[1]' is JSON but no object"),
    ('provider_options_json { key: "" value: "{}" }', 'spec.provider_options_json[""]', "a provider's name"),
    *(
        (f"provider_options_json {{ key: 'acme' value: '{{\"{key}\":null}}' }}",
         'spec.provider_options_json["acme"]', f"{key!r} is refused here")
        for key in ("model", "messages", "input", "contents", "stream")
    ),
    ('provider_options_json { key: "acme" value: "{\\"mod\\\\u0065l\\":1}" }', 'spec.provider_options_json["acme"]',
     "'model' is refused"),
    (" ".join(f'provider_options_json {{ key: "p{n}" value: "{{}}" }}' for n in range(65)),
     "spec.provider_options_json", "65 providers are too many"),
    ("params {" + " ".join(f'logit_bias {{ key: "{n}" value: 1 }}' for n in range(10_001)) + "}",
     "spec.params.logit_bias", "10,001 tokens are too many"),
    ('tools { function { name: "f" } } tool_choice { allowed {' + ' tool_names: "f"' * 1025 + "} }",
     "spec.tool_choice.allowed.tool_names", "1,025 names are too many"),
    ("tool_result_max_chars: -1", "spec.tool_result_max_chars", "at least 0"),
    ("reasoning_argument {}", "spec.reasoning_argument.name", "missing"),
    ('reasoning_argument { name: "r" position: 5 }', "spec.reasoning_argument.position", "5"),
    ("""reasoning_argument { name: "x" }
        tools { function { name: "f" parameters_json_schema: '{"properties":{"x":{}}}' } }""",
     "spec.reasoning_argument.name", "spec.tools[0] has an argument 'x' already"),
    ("max_tool_calls: 0", "spec.max_tool_calls", "at least 1"),
    ('previous_response_id: ""', "spec.previous_response_id", "empty"),
    ('audio_output { voice: "alloy" }', "spec.audio_output.format", "missing"),
    ('audio_output { format: "mp3" }', "spec.audio_output.voice", "missing"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "words"), SPECS, ids=lambda value: value[:60])
def test_a_fault_of_the_spec_is_named(spec: str, field: str, words: str) -> None:
    found, description = only(create(spec))

    assert found == field
    assert words in description


@pytest.mark.parametrize(
    ("count", "spec", "field"),
    [
        (1025, 'tools { function { name: "f%d" } }', "spec.tools"),
        (10_001, 'messages { role: ROLE_USER parts { text { text: "%d" } } }', "spec.messages"),
    ],
)
def test_too_many_are_counted(count: int, spec: str, field: str) -> None:
    wanted = count - (1 if field == "spec.messages" else 0)  # one message is there already

    assert is_fine(create(" ".join(spec % n for n in range(wanted - 1))))
    assert only(create(" ".join(spec % n for n in range(wanted)))) == (
        field, f"{count:,} {field[5:]} are too many: send at most {count - 1:,}")  # fmt: skip


# -- options ----------------------------------------------------------------------------------------------------------

OPTIONS = [
    ("options { timeout {} }", "options.timeout", "0 s is out of range: give more than 0"),
    ("options { timeout { seconds: -1 } }", "options.timeout", "-1 s"),
    ("options { timeout { seconds: 1 nanos: -1 } }", "options.timeout", "1 s and -1 ns are no Duration"),
    ("options { timeout { nanos: 1000000000 } }", "options.timeout", "no Duration"),
    ("options { timeout { seconds: 400000000000 } }", "options.timeout", "no Duration"),
    ("options { capture: 4 }", "options.capture", "no Capture"),
    ("options { on_unsupported: 3 }", "options.on_unsupported", "no OnUnsupported"),
    ("options { after_first_token: 4 }", "options.after_first_token", "no AfterFirstToken"),
    ('request_id: "%s"' % ("x" * 129), "request_id", "at most 128 printable ASCII"),
    ('request_id: "a\\nb"', "request_id", r"'a\nb'"),
    ('request_id: "é"', "request_id", "'é'"),
]
STREAM_OPTIONS = [
    ("stream_options { heartbeat_interval { nanos: 999999999 } }", "stream_options.heartbeat_interval", "at least 1 s"),
    ("stream_options { heartbeat_interval { seconds: -1 } }", "stream_options.heartbeat_interval", "-1 s"),
    ("stream_options { coalesce_window { seconds: 1 nanos: 1 } }", "stream_options.coalesce_window", "from 0 to 1 s"),
    ("stream_options { coalesce_window { nanos: -1 } }", "stream_options.coalesce_window", "from 0 to 1 s"),
]


@pytest.mark.parametrize(("rest", "field", "words"), OPTIONS + STREAM_OPTIONS, ids=lambda value: value[:60])
def test_a_fault_of_the_options_is_named(rest: str, field: str, words: str) -> None:
    found, description = only(validation.of_stream(text_format.Parse(f"{WELL} {rest}", Stream())))

    assert found == field
    assert words in description


@pytest.mark.parametrize(
    "rest",
    [
        "stream_options { heartbeat_interval {} coalesce_window {} include_completion: true resumable: true }",
        "stream_options { heartbeat_interval { seconds: 1 } coalesce_window { seconds: 1 } }",
        'options { timeout { nanos: 1 } } request_id: "%s"' % ("~" * 128),
    ],
)
def test_the_ends_of_a_range_are_allowed(rest: str) -> None:
    assert is_fine(validation.of_stream(text_format.Parse(f"{WELL} {rest}", Stream())))


@pytest.mark.parametrize(
    ("request_text", "fields"),
    [
        (f"spec {{ inline_config {{}} {USER} }}", ["spec.inline_config"]),
        (f"{WELL} options {{ include_raw: true }}", ["options.include_raw"]),
    ],
)  # fmt: skip
def test_what_this_server_does_not_do_is_no_fault_but_is_refused(request_text: str, fields: list[str]) -> None:
    findings = validation.of_stream(text_format.Parse(request_text, Stream()), False)

    assert not findings.invalid
    assert [found.field for found in findings.unsupported] == fields
    assert all("this server" in found.description for found in findings.unsupported)


@pytest.mark.parametrize(
    ("request_text", "fields"),
    [
        ("resume {}", ["resume.completion_id"]),
        ('resume { completion_id: "a" } options { include_raw: true } stream_options { resumable: true }',
         ["options.include_raw", "stream_options.resumable"]),
        ('resume { completion_id: "a" } options { timeout { seconds: -1 } credential: "b" } request_id: "\\n"',
         ["request_id", "options.timeout", "options.credential"]),
    ],
)  # fmt: skip
def test_a_stream_is_resumed_as_it_was_begun(request_text: str, fields: list[str]) -> None:
    findings = validation.of_stream(text_format.Parse(request_text, Stream()))

    assert sorted(found.field for found in findings.invalid) == sorted(fields)


def test_a_resumed_call_has_a_time_and_an_id_of_its_own() -> None:
    text = 'resume { completion_id: "a" after_sequence_number: 3 } options { timeout { seconds: 1 } } request_id: "b"'

    assert is_fine(validation.of_stream(text_format.Parse(f"{text} stream_options {{}}", Stream())))


def test_raw_bodies_are_refused_only_where_the_server_forbids_them() -> None:
    request = text_format.Parse(f"{WELL} options {{ include_raw: true }}", Create())

    assert is_fine(validation.of_create(request, True))
    assert [found.field for found in validation.of_create(request, False).unsupported] == ["options.include_raw"]


# -- other requests ---------------------------------------------------------------------------------------------------


def embeddings(spec: str) -> Findings:
    Request = embedding_service_pb2.CreateEmbeddingsRequest  # noqa: N806  # a class
    return validation.of_embeddings(text_format.Parse(f"spec {{ {spec} }}", Request()))


def test_embeddings_of_every_kind_of_input_are_fine() -> None:
    assert is_fine(
        embeddings(
            MODEL + ' inputs { text: "a" } inputs { token_ids { ids: 0 } } inputs { media { uri: "https://a/b.png" } }'
            ' dimensions: 1 task: EMBEDDING_TASK_QUERY encoding: EMBEDDING_ENCODING_FLOAT32_LE labels { key: "k" }'
            ' provider_options_json { key: "acme" value: "{}" } end_user_id: "u"'
        )
    )


def test_all_faults_of_an_embedding_are_named() -> None:
    faults = invalid(
        embeddings(
            'inputs { text: "" } inputs {} inputs { token_ids {} } inputs { token_ids { ids: 5 ids: -1 } } '
            'inputs { media { data: "x" } } dimensions: 0 task: 77 encoding: 9 labels { key: "" } '
            'provider_options_json { key: "acme" value: "{\\"input\\":1}" }'
        )
    )

    assert set(faults) == {
        "spec.model",
        "spec.inputs[0].text",
        "spec.inputs[1]",
        "spec.inputs[2].token_ids.ids",
        "spec.inputs[3].token_ids.ids",
        "spec.inputs[4].media.mime_type",
        "spec.dimensions",
        "spec.task",
        "spec.encoding",
        'spec.labels[""]',
        'spec.provider_options_json["acme"]',
    }
    assert set(invalid(embeddings(MODEL))) == {"spec.inputs"}
    assert "10,001 inputs" in only(embeddings(MODEL + ' inputs { text: "a" }' * 10_001))[1]
    assert [found.field for found in embeddings("inline_config {} " + 'inputs { text: "a" }').unsupported] == [
        "spec.inline_config"
    ]


def test_counting_checks_the_spec_too() -> None:
    request = completion_service_pb2.CountTokensRequest()
    text_format.Parse(f"spec {{ {USER} }} options {{ include_raw: true timeout {{}} }}", request)

    findings = validation.of_count(request, False)

    assert [found.field for found in findings.invalid] == ["spec.model", "options.timeout"]
    assert [found.field for found in findings.unsupported] == ["options.include_raw"]


def test_cancel_and_get_need_a_name() -> None:
    assert only(validation.of_cancel(completion_service_pb2.CancelCompletionRequest()))[0] == "completion_id"
    assert is_fine(validation.of_cancel(completion_service_pb2.CancelCompletionRequest(completion_id="cmpl_1")))
    assert only(validation.of_get_model(model_service_pb2.GetModelRequest()))[0] == "name"
    assert is_fine(validation.of_get_model(model_service_pb2.GetModelRequest(name="acme/x")))


@pytest.mark.parametrize(("size", "fine"), [(-1, False), (0, True), (1000, True), (1001, False)])
def test_a_page_has_at_most_a_thousand_models(size: int, fine: bool) -> None:
    findings = validation.of_list_models(model_service_pb2.ListModelsRequest(page_size=size))

    assert is_fine(findings) is fine
    assert fine or only(findings) == ("page_size", f"{size} is out of range: give from 0 to 1,000, or leave it out")


# -- all of it --------------------------------------------------------------------------------------------------------


def test_a_hundred_faults_are_listed_and_the_others_counted() -> None:
    findings = conversation(*["role: ROLE_USER"] * 350)

    assert [found.field for found in findings.invalid[:100]] == [f"spec.messages[{n}].parts" for n in range(100)]
    assert findings.invalid[100:] == [Unlisted("", "and 250 more that are not listed", 250)]


def test_a_value_is_shown_cut_and_without_secrets() -> None:
    secret = "sk-proj-abcdefghijklmnopqrstuvwxyz"

    shown = [
        only(create(f'tools {{ function {{ name: "{secret} x" }} }}'))[1],
        only(create(f'provider_options_json {{ key: "acme" value: "\\"{secret}\\"" }}'))[1],
        only(create(f'provider_options_json {{ key: "acme" value: "{secret}" }}'))[1],
        only(create(f'provider_options_json {{ key: "{secret}" value: "{{" }}'))[0],
        only(create(rest=f'request_id: "{secret} é"'))[1],
        only(create(f'labels {{ key: "{secret + "k" * 65}" }}'))[0],
        only(conversation(results(secret)))[1],
        only(create('response_format { json_schema { name: "%s" json_schema: "{}" } }' % ("n" * 100_000)))[1],
    ]

    for text in shown:
        assert secret[8:] not in text
        assert len(text) < 300


def test_json_that_only_a_lenient_parser_takes_is_judged_by_the_standard() -> None:
    def fault(text: str) -> str:
        request = Create()
        text_format.Parse(WELL, request)
        request.spec.provider_options_json["acme"] = text
        findings = validation.of_create(request)
        return findings.invalid[0].description if findings.invalid else ""

    for fine in ('{"a":"\\ud83d"}', '{"a":1e999}', '{"a":"\u2028"}', ' {"a":[{"b":null}]}\n', '{"a":1,"a":2}', "{}"):
        assert fault(fine) == ""
    for wrong in (
        "{'a':1}",
        '{"a":1,}',
        '{"a":01}',
        '{"a":Infinity}',
        '{"a":"\t"}',
        "{} x",
        '{"a":+1}',
        "\ufeff{}",
        "nul",
    ):
        assert fault(wrong).startswith("no valid JSON: ")
    assert "nested too deeply" in fault('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "at line 2 column 7, at 'x}'" in fault('{"a": 1,\n "b": x}')


#: Fields that hold nothing to be wrong with.
FREE = {
    "CompletionSpec": {"end_user_id", "extra_system_text", "store", "strict_tools"},
    "GenerationParams": {"logprobs", "parallel_tool_calls", "seed", "service_tier"},
    "EmbeddingSpec": {"end_user_id"},
    "CallOptions": {"credential", "hedge", "include_raw"},
    "StreamOptions": {"include_completion", "resumable"},
}
#: Fields that are looked at together with others.
TOGETHER = {"CompletionSpec": {"messages", "tool_choice", "reasoning_argument", "audio_output"}}


@pytest.mark.parametrize(
    ("message", "table"),
    [
        (completion_pb2.CompletionSpec, validation._SPEC),
        (generation_pb2.GenerationParams, validation._PARAMS),
        (embedding_service_pb2.EmbeddingSpec, validation._EMBEDDING_SPEC),
        (completion_pb2.CallOptions, validation._OPTIONS),
        (completion_service_pb2.StreamOptions, validation._STREAM_OPTIONS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_no_field_of_the_contract_was_forgotten(message: Any, table: Any) -> None:
    name = message.DESCRIPTOR.name

    assert set(message.DESCRIPTOR.fields_by_name) == {*table, *FREE[name], *TOGETHER.get(name, ())}


REQUESTS: list[tuple[Any, Any]] = [
    (Create, validation.of_create),
    (Stream, validation.of_stream),
    (completion_service_pb2.CountTokensRequest, validation.of_count),
    (completion_service_pb2.CancelCompletionRequest, validation.of_cancel),
    (embedding_service_pb2.CreateEmbeddingsRequest, validation.of_embeddings),
    (model_service_pb2.ListModelsRequest, validation.of_list_models),
    (model_service_pb2.GetModelRequest, validation.of_get_model),
]
WHOLE = text_format.Parse(FULL, Create()).SerializeToString()


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(REQUESTS))
def test_no_request_that_parses_makes_a_check_fail(seed: int, kind: tuple[Any, Any]) -> None:
    chance = random.Random(seed)
    data = bytearray(WHOLE)
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    message, of = kind
    try:
        request = message.FromString(bytes(data))
    except DecodeError:
        return

    findings = of(request)

    for found in (*findings.invalid, *findings.unsupported):
        assert found.description
        assert len(found.description) < 500

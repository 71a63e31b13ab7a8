"""Conversations: roles, kinds of parts, media, and the pairs of tool calls and results."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tests.rpc.requests import MODEL, WELL, Create, conversation, invalid, is_fine, only, results

from trunkline.v1 import message_pb2
from trunkline_server.rpc import validation
from trunkline_server.rpc.conversation import _KINDS
from trunkline_server.rpc.findings import Findings

MIB = 1024 * 1024

CALLS = 'role: ROLE_ASSISTANT parts { tool_call { id: "a" name: "f" } } parts { tool_call { id: "b" name: "f" } }'


SAY = 'role: ROLE_USER parts { text { text: "hi" } }'

MESSAGES = [
    ('parts { text { text: "x" } }', "spec.messages[0].role", "missing: set one of ROLE_SYSTEM"),
    ('role: 42 parts { text { text: "x" } }', "spec.messages[0].role", "42 is no Role"),
    ("role: ROLE_USER", "spec.messages[0].parts", "a user message has at least one part"),
    ("role: ROLE_SYSTEM", "spec.messages[0].parts", "a system message"),
    ("role: ROLE_TOOL", "spec.messages[0].parts", "a tool message"),
    ("role: ROLE_USER parts {}", "spec.messages[0].parts[0]", "set one of text, image"),
    ('role: ROLE_USER parts { text { text: "x" } cache_control { ttl: 7 } }',
     "spec.messages[0].parts[0].cache_control.ttl", "7 is no CacheTtl"),
    ('role: ROLE_TOOL parts { text { text: "x" } }',
     "spec.messages[0].parts[0].text", "text cannot stand in a tool message"),
    *(
        (f"role: {role} parts {{ {kind} {{}} }}", f"spec.messages[0].parts[0].{kind}", fix)
        for role in ("ROLE_SYSTEM", "ROLE_DEVELOPER", "ROLE_USER")
        for kind, fix in (
            ("tool_call", "only ROLE_ASSISTANT calls tools"),
            ("reasoning", "only ROLE_ASSISTANT thinks"),
            ("refusal", "only ROLE_ASSISTANT refuses"),
            ("tool_result", "a message of its own with ROLE_TOOL"),
        )
    ),
    ("role: ROLE_ASSISTANT parts { tool_result {} }", "spec.messages[0].parts[0].tool_result", "ROLE_TOOL"),
    ("role: ROLE_ASSISTANT parts { tool_call {} }", "spec.messages[0].parts[0].tool_call.id", "missing"),
    ('role: ROLE_ASSISTANT parts { text { citations {} citations { raw_json: "{" } } }',
     "spec.messages[0].parts[0].text.citations[1].raw_json", "no valid JSON"),
    ('role: ROLE_USER parts { opaque { json: "[1]" } }', "spec.messages[0].parts[0].opaque.json", "no object"),
    ("role: ROLE_USER parts { opaque {} }", "spec.messages[0].parts[0].opaque.json", "no valid JSON"),
    ("role: ROLE_USER parts { image {} }", "spec.messages[0].parts[0].image", "set one of data, uri and file_id"),
    ('role: ROLE_USER parts { image { data: "x" } }', "spec.messages[0].parts[0].image.mime_type", "missing"),
    ('role: ROLE_USER parts { audio { data: "" mime_type: "audio/mp3" } }',
     "spec.messages[0].parts[0].audio.data", "empty"),
    ('role: ROLE_USER parts { video { data: "x" mime_type: "mp4" } }',
     "spec.messages[0].parts[0].video.mime_type", "'mp4' is not allowed"),
    ('role: ROLE_USER parts { image { file_id: "" } }', "spec.messages[0].parts[0].image.file_id", "empty"),
    ('role: ROLE_USER parts { image { file_id: "f" detail: 9 } }',
     "spec.messages[0].parts[0].image.detail", "9 is no MediaDetail"),
    *(
        (f'role: ROLE_USER parts {{ document {{ uri: "{uri}" }} }}', "spec.messages[0].parts[0].document.uri", words)
        for uri, words in (
            ("data:application/pdf;base64,AAAA", "put the bytes, not base64, into data"),
            ("DATA:,x", "put the bytes"),
            ("file:///etc/passwd", "'file:///etc/passwd' is not an address that providers fetch"),
            ("ftp://a/b", "use https:"),
            ("https:///a", "use https:"),
            ("https://a b", "use https:"),
            ("example.com/a", "use https:"),
            ("", "use https:"),
        )
    ),
    ('role: ROLE_TOOL parts { tool_result {} }', "spec.messages[0].parts[0].tool_result.tool_call_id", "missing"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "field", "words"), MESSAGES, ids=lambda value: value[-70:])
def test_a_fault_of_a_message_is_named(message: str, field: str, words: str) -> None:
    found, description = only(conversation(message))

    assert found == field
    assert words in description


@pytest.mark.parametrize("kind", ["audio", "video", "tool_call", "tool_result", "reasoning", "refusal", "opaque"])
def test_the_result_of_a_tool_holds_text_images_and_documents(kind: str) -> None:
    parts = f"parts {{ {kind} {{}} }} parts {{ image {{}} }}"
    result = f'role: ROLE_TOOL parts {{ tool_result {{ tool_call_id: "a" {parts} }} }}'
    path = "spec.messages[1].parts[0].tool_result"

    faults = invalid(conversation('role: ROLE_ASSISTANT parts { tool_call { id: "a" } }', result))

    assert set(faults) == {f"{path}.parts[0].{kind}", f"{path}.parts[1].image"}
    assert f"{kind} cannot stand in the result of a tool" in faults[f"{path}.parts[0].{kind}"]


def test_media_may_have_20_mib_and_no_more() -> None:
    request = text_format.Parse(WELL, Create())
    image = request.spec.messages[0].parts[0].image
    image.mime_type = "image/png"

    image.data = b"x" * 20 * MIB
    assert is_fine(validation.of_create(request))
    image.data = b"x" * (20 * MIB + 1)
    assert only(validation.of_create(request)) == (
        "spec.messages[0].parts[0].image.data",
        "20,971,521 bytes are too many: send at most 20 MiB, or give a uri or file_id",
    )


RESULT = "spec.messages[{}].parts[{}].tool_result.tool_call_id"

PAIRS = [
    ("answered", [CALLS, results("a", "b")], {}),
    ("answered in another order, over two messages", [CALLS, results("b"), results("a"), SAY], {}),
    ("not answered yet", [SAY, CALLS], {}),
    ("an id again after its answer", [CALLS, results("a", "b"), CALLS, results("a", "b")], {}),
    ("orphan", [SAY, results("x")], {RESULT.format(1, 0): "no tool call with id 'x' before this result"}),
    ("result before its call", [results("a", "b"), CALLS],
     {RESULT.format(0, 0): "no tool call with id 'a'", RESULT.format(0, 1): "no tool call with id 'b'"}),
    ("not answered", [CALLS, results("a"), SAY],
     {"spec.messages[0].parts[1].tool_call": "no result for the tool call 'b' in the messages that follow"}),
    ("half answered at the end", [CALLS, results("a")], {"spec.messages[0].parts[1].tool_call": "no result for"}),
    ("a second result", [CALLS, results("a", "b", "a")], {RESULT.format(1, 2): f"{RESULT.format(1, 0)} names it too"}),
    ("two calls with one id", [CALLS.replace('"b"', '"a"'), results("a")],
     {"spec.messages[0].parts[1].tool_call.id": "'a' is the id of spec.messages[0].parts[0].tool_call too"}),
    ("run by the provider, not answered",
     ['role: ROLE_ASSISTANT parts { tool_call { id: "s" provider_executed: true } }', SAY], {}),
    ("run by the provider, answered",
     ['role: ROLE_ASSISTANT parts { tool_call { id: "s" provider_executed: true } }', results("s")],
     {RESULT.format(1, 0): "the provider runs the tool call 's' itself"}),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "faults"), [row[1:] for row in PAIRS], ids=[row[0] for row in PAIRS])
def test_tool_calls_and_results_pair(messages: list[str], faults: dict[str, str]) -> None:
    found = invalid(conversation(*messages))

    assert set(found) == set(faults)
    for field, words in faults.items():
        assert words in found[field]


def test_results_may_answer_calls_that_the_provider_keeps() -> None:
    assert is_fine(conversation(results("x"), spec='previous_response_id: "resp_1"'))


@pytest.mark.parametrize(
    "part",
    [
        'text { text: "a" }',
        'image { uri: "https://a/b" }',
        "",
        'text { text: "a" citations {} citations {} }',
    ],
)
def test_more_parts_than_anybody_sends_are_refused_and_not_looked_at(part: str) -> None:
    def findings(count: int) -> Findings:
        request = text_format.Parse(
            f"spec {{ {MODEL} messages {{ role: ROLE_ASSISTANT parts {{ {part} }} }} }}", Create()
        )
        first = request.spec.messages[0].parts[0]
        request.spec.messages[0].parts.extend([first] * (count - 1))
        return validation.of_create(request)

    assert only(findings(50_001)) == (
        "spec.messages",
        "more than 50,000 parts in all messages: send fewer, or join texts",
    )
    assert is_fine(findings(16_000)) is bool(part)


def test_parts_of_results_count_as_well() -> None:
    request = text_format.Parse(WELL, Create())
    message = request.spec.messages.add(role=message_pb2.ROLE_TOOL)
    result = message.parts.add().tool_result
    result.tool_call_id = "a"
    for _ in range(30_000):
        result.parts.add().text.text = "x"
    message.parts.append(message.parts[0])

    faults = invalid(validation.of_create(request))
    assert faults.keys() == {"spec.messages[1].parts[0].tool_result.tool_call_id", "spec.messages"}
    assert faults["spec.messages"].startswith("more than 50,000 parts")


def test_every_kind_of_part_may_stand_somewhere() -> None:
    kinds = {field.name for field in message_pb2.ContentPart.DESCRIPTOR.oneofs_by_name["kind"].fields}

    assert {kind for _, held in _KINDS.values() for kind in held} == kinds
    assert set(_KINDS) == set(message_pb2.Role.values()) - {message_pb2.ROLE_UNSPECIFIED}

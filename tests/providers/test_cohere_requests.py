"""What Cohere is asked: conversations, documents, tools, parameters; what it cannot be asked; answers going back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.providers import official
from tests.providers.wires import Wire, parts_of

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline_server.errors import LLMBadRequestError

WIRE = Wire("cohere", "command-a-plus-05-2026")
PLAIN = "command-r-08-2024"
USER = "messages { role: ROLE_USER parts { text { text: 'Hi' } } }"
TOOLS = """
tools { function { name: 'f' description: 'does f' parameters_json_schema: '{"type": "object", "properties": {}}' } }
tools { function { name: 'g' } }
"""
F = {
    "type": "function",
    "function": {"name": "f", "description": "does f", "parameters": {"type": "object", "properties": {}}},
}
G = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}


def accepted(body: dict[str, Any]) -> dict[str, Any]:
    """The body, if the official client could have sent it."""
    official.cohere(body)
    return body


# -- the conversation -------------------------------------------------------------------------------------------------


def test_a_plain_conversation_is_sent_as_strings():
    made, notes = WIRE.encoded(
        """
        messages { role: ROLE_SYSTEM parts { text { text: 'Be brief.' } } }
        messages { role: ROLE_DEVELOPER parts { text { text: 'In German.' } } }
        messages { role: ROLE_USER parts { text { text: 'Hi' } } }
        messages { role: ROLE_ASSISTANT parts { text { text: 'Hallo' } } }
        messages { role: ROLE_USER parts { text { text: 'a' } } parts { text { text: 'b' } } }
        """,
        stream=True,
    )

    assert (made.path, notes.unsupported, notes.foreign) == ("/v2/chat", [], [])
    assert accepted(json.loads(made.body)) == {
        "model": "command-a-plus-05-2026",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "In German."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hallo"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
        "stream": True,
    }


def test_pictures_are_addresses_and_bytes_as_data_addresses():
    body = WIRE.body_of("""
        messages { role: ROLE_USER
          parts { text { text: 'see' } }
          parts { image { data: 'PNG' mime_type: 'image/png' detail: MEDIA_DETAIL_LOW } }
          parts { image { uri: 'https://example.org/a.png' } } }
    """)

    assert accepted(body)["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]


def test_documents_have_a_place_and_a_number_of_their_own():
    body = WIRE.body_of("""
        messages { role: ROLE_USER
          parts { document { data: 'A lake.' mime_type: 'text/plain; charset=utf-8' filename: 'lakes.txt' } }
          parts { text { text: 'How deep?' } } }
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: 'c' name: 'lookup' arguments_json: '{}' } } }
        messages { role: ROLE_TOOL
          parts { tool_result { tool_call_id: 'c' parts { text { text: 'found' } }
            parts { document { data: '{"depth": "136 m", "url": "https://x"}' mime_type: 'application/json' } } } } }
        messages { role: ROLE_USER
          parts { document { data: '[1]' mime_type: 'application/json' } } parts { text { text: 'And?' } } }
    """)

    assert accepted(body)["documents"] == [
        {"id": "doc:0", "data": {"title": "lakes.txt", "text": "A lake."}},
        {"id": "doc:2", "data": {"text": "[1]"}},
    ]
    assert body["messages"][0] == {"role": "user", "content": "How deep?"}
    assert body["messages"][2]["content"] == [
        {"type": "text", "text": "found"},
        {"type": "document", "document": {"id": "doc:1", "data": {"depth": "136 m", "url": "https://x"}}},
    ]


def test_a_result_is_text_and_its_pictures_follow_in_a_message():
    body, noted = WIRE.noted("""
        messages { role: ROLE_USER parts { text { text: 'go' } } }
        messages { role: ROLE_ASSISTANT parts { tool_call { id: 'c' name: 'f' arguments_json: ' ' } } }
        messages { role: ROLE_TOOL
          parts { tool_result { tool_call_id: 'c' is_error: true parts { image { uri: 'https://x/a.png' } } } }
          parts { tool_result { tool_call_id: 'd' } } }
    """)

    assert accepted(body)["messages"][1:] == [
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "See the next message."},
        {"role": "tool", "tool_call_id": "d", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Returned by the tool call c:"},
                {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
            ],
        },
    ]
    assert noted == [
        "remark messages[2].parts[0].tool_result",
        "remark messages[2].parts[0].tool_result.is_error",
    ]


@pytest.mark.parametrize(
    ("part", "model", "noted"),
    [
        ("audio { data: 'x' mime_type: 'audio/wav' }", "", "dropped messages[0].parts[0]"),
        ("video { data: 'x' mime_type: 'video/mp4' }", "", "dropped messages[0].parts[0]"),
        ("image { data: 'x' mime_type: 'image/png' }", PLAIN, "dropped messages[0].parts[0]"),
        ("image { file_id: 'x' }", "", "dropped messages[0].parts[0].image.file_id"),
        ("document { data: 'x' mime_type: 'application/pdf' }", "", "dropped messages[0].parts[0].document.mime_type"),
        ("document { uri: 'https://x/a.txt' }", "", "dropped messages[0].parts[0].document"),
        (
            "opaque { type: 'x' json: '{}' } origin_provider: 'openai'",
            "",
            "foreign messages[0].parts[0]",
        ),
        (
            "image { uri: 'https://x/a.png' detail: MEDIA_DETAIL_MEDIUM }",
            "",
            "remark messages[0].parts[0].image.detail",
        ),
    ],
)
def test_what_a_message_cannot_hold_is_named(part, model, noted):
    body, found = WIRE.noted(
        f"messages {{ role: ROLE_USER parts {{ {part} }} parts {{ text {{ text: 'x' }} }} }}", model
    )

    assert found == [noted]
    accepted(body)


def test_a_name_is_remarked_on():
    assert WIRE.noted("messages { role: ROLE_USER name: 'ann' parts { text { text: 'x' } } }")[1] == [
        "remark messages[0].name"
    ]


# -- answers go back --------------------------------------------------------------------------------------------------


def replayed(answer: completion_pb2.Completion, model: str = "") -> tuple[dict[str, Any], list[str]]:
    """The assistant's message of a request that goes on from an answer."""
    spec = completion_pb2.CompletionSpec()
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "go"
    spec.messages.add().CopyFrom(answer.choices[0].message)
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "on"
    body, noted = WIRE.noted(spec, model)
    message: dict[str, Any] = accepted(body)["messages"][1]
    return message, noted


@pytest.mark.parametrize("name", ["tools.json", "cited.json"])
def test_an_answer_goes_back_as_it_came(name):
    came = json.loads(WIRE.fixture(name))["message"]
    back, noted = replayed(WIRE.answer_of(WIRE.fixture(name)))

    assert noted == []
    assert back == came


def test_a_streamed_answer_goes_back_like_a_whole_one():
    back, noted = replayed(WIRE.decoded(WIRE.events_of(WIRE.fixture("tools.sse"))).completion())

    assert noted == []
    assert back["tool_plan"] == "I will ask."
    assert [call["id"] for call in back["tool_calls"]] == ["weather_a1", "time_b2"]


def test_what_another_provider_made_stays_behind_but_its_words():
    answer = WIRE.answer_of(WIRE.fixture("cited.json"))
    for part in parts_of(answer):
        part.origin_provider = "anthropic"
    answer.choices[0].message.parts[0].signature = "sealed"

    back, noted = replayed(answer)
    assert back["content"] == [
        {"type": "thinking", "thinking": "The second document says it, and so does the tool."},
        {"type": "text", "text": "Der Zürichsee ist 136 m tief."},
    ]
    assert "citations" not in back
    assert noted == [
        "foreign messages[1].parts[0]",
        "foreign messages[1].parts[1].text.citations",
        "foreign messages[1].parts[2]",
    ]
    # A model that does not think takes no thoughts, and no others' blocks.
    back, noted = replayed(answer, PLAIN)
    assert back == {"role": "assistant", "content": "Der Zürichsee ist 136 m tief."}
    assert "remark messages[1].parts[0]" in noted


def test_a_thought_before_calls_is_a_plan_to_a_model_that_only_plans():
    spec = """
        messages { role: ROLE_USER parts { text { text: 'go' } } }
        messages { role: ROLE_ASSISTANT
          parts { reasoning { text: 'I ask f.' } origin_provider: 'deepseek' }
          parts { tool_call { id: 'c' name: 'f' arguments_json: '{}' } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: 'c' parts { text { text: '1' } } } } }
    """

    assert WIRE.body_of(spec, PLAIN)["messages"][1]["tool_plan"] == "I ask f."
    assert WIRE.body_of(spec)["messages"][1]["content"] == [{"type": "thinking", "thinking": "I ask f."}]


def test_citations_that_cohere_did_not_write_are_remarked_on():
    spec = (
        USER
        + """
        messages { role: ROLE_ASSISTANT parts { text { text: 'a' citations { uri: 'https://x' } } } }
        messages { role: ROLE_USER parts { text { text: 'b' } } }
    """
    )

    assert WIRE.noted(spec)[1] == ["remark messages[1].parts[0].text.citations"]


def test_calls_that_a_provider_ran_and_media_of_an_assistant_stay_behind():
    spec = (
        USER
        + """
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: 'c' name: 'f' arguments_json: '{}' provider_executed: true } }
          parts { audio { data: 'x' mime_type: 'audio/wav' } }
          parts { refusal { text: 'no' } }
          parts { tool_call { id: 'd' name: 'f' arguments_json: '{}' } signature: 's' origin_provider: 'gemini' } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: 'd' } } }
    """
    )

    body, noted = WIRE.noted(spec)
    assert accepted(body)["messages"][1]["content"] == "no"
    assert sorted(noted) == [
        "dropped messages[1].parts[1]",
        "foreign messages[1].parts[0]",
        "foreign messages[1].parts[3].signature",
    ]


# -- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "tools", "word"),
    [
        ("", [F, G], None),
        ("tool_choice { mode: TOOL_CHOICE_MODE_AUTO }", [F, G], None),
        ("tool_choice { mode: TOOL_CHOICE_MODE_NONE }", [F, G], "NONE"),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", [F, G], "REQUIRED"),
        ("tool_choice { tool_name: 'g' }", [G], "REQUIRED"),
        ("tool_choice { allowed { tool_names: 'f' } }", [F], None),
        ("tool_choice { allowed { tool_names: 'f' mode: TOOL_CHOICE_MODE_REQUIRED } }", [F], "REQUIRED"),
    ],
)
def test_tools_are_chosen_by_a_word_and_by_what_is_left_of_them(choice, tools, word):
    body = accepted(WIRE.body_of(USER + TOOLS + choice))

    assert (body["tools"], body.get("tool_choice")) == (tools, word)


def test_an_old_model_is_given_no_tools_rather_than_told_to_call_none():
    assert "tools" not in WIRE.body_of(USER + TOOLS + "tool_choice { mode: TOOL_CHOICE_MODE_NONE }", PLAIN)
    body, noted = WIRE.noted(USER + TOOLS + "tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", PLAIN)
    assert (body["tools"], noted) == ([F, G], ["dropped tool_choice"])


def test_the_model_is_held_to_all_schemas_or_to_none():
    strict = USER + "tools { function { name: 'f' strict: true } } tools { function { name: 'g' strict: %s } }"

    body, noted = WIRE.noted(strict % "true")
    assert (accepted(body)["strict_tools"], noted) == (True, [])
    assert all("strict" not in tool["function"] for tool in body["tools"])
    body, noted = WIRE.noted(strict % "false")
    assert (body["strict_tools"], noted) == (True, ["remark tools[1].function.strict"])
    assert "strict_tools" not in WIRE.body_of(USER + "tools { function { name: 'f' strict: false } }")


def test_strict_tools_have_strict_schemas():
    schema = '{"type":"object","properties":{"a":{"type":"string"}}}'
    body = accepted(
        WIRE.body_of(
            USER + f"strict_tools: true tools {{ function {{ name: 'f' parameters_json_schema: '{schema}' }} }}"
        )
    )

    assert body["strict_tools"] is True
    assert body["tools"][0]["function"]["parameters"]["additionalProperties"] is False


def test_an_injected_argument_is_in_the_schemas_and_in_earlier_calls():
    spec = (
        TOOLS
        + """
        reasoning_argument { name: 'why' }
        messages { role: ROLE_USER parts { text { text: 'go' } } }
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: 'c' name: 'g' arguments_json: '{"a":1}' reasoning: 'so' } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: 'c' } } }
    """
    )

    body = WIRE.body_of(spec)
    assert all("why" in tool["function"]["parameters"]["properties"] for tool in body["tools"])
    assert json.loads(body["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"why": "so", "a": 1}


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        ("params { parallel_tool_calls: false }", ["dropped params.parallel_tool_calls"]),
        ("params { parallel_tool_calls: true }", []),
        ("max_tool_calls: 1", ["dropped max_tool_calls"]),
        ("max_tool_calls: 3", ["dropped max_tool_calls"]),
    ],
)
def test_a_limit_of_calls_cannot_be_told(asked, noted):
    assert WIRE.noted(USER + TOOLS + asked)[1] == noted


# -- everything else --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("text {}", None),
        ("json_object {}", {"type": "json_object"}),
        (
            """json_schema { name: 'n' json_schema: '{"type": "object", "required": ["a"]}' strict: true }""",
            {"type": "json_object", "json_schema": {"type": "object", "required": ["a"]}},
        ),
    ],
)
def test_the_shape_of_the_answer_is_json_by_a_schema(asked, wanted):
    assert accepted(WIRE.body_of(USER + f"response_format {{ {asked} }}")).get("response_format") == wanted


def test_schemas_are_sent_byte_for_byte():
    schema = '{"type":"object", "properties":{"b":{"type":"string"} , "a":{}}}'
    made, _ = WIRE.encoded(USER + f"response_format {{ json_schema {{ json_schema: '{schema}' }} }}")

    assert schema.encode() in made.body


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ("max_output_tokens: 9 temperature: 0.5 top_p: 0.25 top_k: 7 seed: 3", {
            "max_tokens": 9, "temperature": 0.5, "p": 0.25, "k": 7, "seed": 3,
        }),
        ("frequency_penalty: 0.5 presence_penalty: 0.25 stop_sequences: 'a' stop_sequences: 'b' logprobs: true", {
            "frequency_penalty": 0.5, "presence_penalty": 0.25, "stop_sequences": ["a", "b"], "logprobs": True,
        }),
        ("n: 1", {}),
        ("reasoning { effort: REASONING_EFFORT_NONE }", {"thinking": {"type": "disabled"}}),
        ("reasoning { effort: REASONING_EFFORT_LOW }", {"thinking": {"type": "enabled", "token_budget": 1024}}),
        ("reasoning { effort: REASONING_EFFORT_HIGH include: true }", {"thinking": {"type": "enabled"}}),
        ("reasoning { budget_tokens: 300 }", {"thinking": {"type": "enabled", "token_budget": 300}}),
        ("reasoning { budget_tokens: 0 }", {"thinking": {"type": "disabled"}}),
        ("reasoning { include: true }", {}),
    ],
)  # fmt: skip
def test_parameters_have_coheres_names(params, wanted):
    body = accepted(WIRE.body_of(USER + f"params {{ {params} }}"))

    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == wanted


@pytest.mark.parametrize(
    ("asked", "model", "noted"),
    [
        ("params { n: 2 }", "", ["dropped params.n"]),
        ("params { min_p: 0.1 repetition_penalty: 1.5 }", "", [
            "dropped params.min_p", "dropped params.repetition_penalty",
        ]),
        ("params { top_logprobs: 2 }", "", ["dropped params.top_logprobs"]),
        ("params { logit_bias { key: '1' value: 2 } }", "", ["dropped params.logit_bias"]),
        ("params { service_tier: 'flex' verbosity: VERBOSITY_LOW }", "", [
            "dropped params.verbosity", "dropped params.service_tier",
        ]),
        ("params { reasoning { effort: REASONING_EFFORT_LOW } }", PLAIN, ["dropped params.reasoning"]),
        ("params { reasoning { effort: REASONING_EFFORT_LOW budget_tokens: 9 } }", "", [
            "dropped params.reasoning.effort",
        ]),
        ("params { reasoning { include: false } }", "", ["dropped params.reasoning.include"]),
        ("response_format { grammar { regex: 'a+' } }", "", ["dropped response_format.grammar"]),
        ("store: true previous_response_id: 'r' audio_output { voice: 'a' format: 'mp3' }", "", [
            "dropped previous_response_id", "dropped store", "dropped audio_output",
        ]),
        ("store: false end_user_id: 'u'", "", ["remark end_user_id"]),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named(asked, model, noted):
    body, found = WIRE.noted(USER + asked, model)

    assert found == noted
    accepted(body)


def test_options_are_merged_last():
    spec = (
        USER
        + """
        provider_options_json { key: 'cohere' value: '{"safety_mode": "NONE", "citation_options": {"mode": "OFF"}}' }
        provider_options_json { key: 'cohere-eu' value: '{"safety_mode": null}' }
        provider_options_json { key: 'openai' value: '{"x": 1}' }
    """
    )

    body = accepted(WIRE.body_of(spec))
    assert body["citation_options"] == {"mode": "OFF"}
    assert not body.keys() & {"safety_mode", "x"}


def test_a_schema_that_does_not_parse_is_a_bad_request():
    with pytest.raises(LLMBadRequestError):
        WIRE.encoded(USER + "response_format { json_schema { json_schema: '{' } }")


def test_every_effort_has_a_meaning():
    for effort in generation_pb2.ReasoningEffort.values():
        if effort:
            spec = completion_pb2.CompletionSpec()
            spec.params.reasoning.effort = effort
            assert accepted(WIRE.body_of(spec))["thinking"]["type"] in ("enabled", "disabled")


# -- embeddings and models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "wanted", "noted"),
    [
        ("inputs { text: 'a' } inputs { text: 'b' }", {"texts": ["a", "b"], "input_type": "search_document"}, []),
        ("inputs { text: 'a' } task: EMBEDDING_TASK_QUERY dimensions: 256", {
            "texts": ["a"], "input_type": "search_query", "output_dimension": 256,
        }, []),
        ("inputs { text: 'a' } task: EMBEDDING_TASK_CLASSIFICATION", {
            "texts": ["a"], "input_type": "classification",
        }, []),
        ("inputs { text: 'a' } task: EMBEDDING_TASK_SIMILARITY", {"texts": ["a"], "input_type": "clustering"}, [
            "altered task",
        ]),
        ("inputs { text: 'a' } inputs { media { data: 'PNG' mime_type: 'image/png' } }", {
            "inputs": [
                {"content": [{"type": "text", "text": "a"}]},
                {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H"}}]},
            ],
            "input_type": "search_document",
        }, []),
        ("inputs { text: 'a' } inputs { token_ids { ids: 1 } } end_user_id: 'u'", {
            "inputs": [{"content": [{"type": "text", "text": "a"}]}], "input_type": "search_document",
        }, ["dropped inputs[1]", "remark end_user_id"]),
    ],
)  # fmt: skip
def test_inputs_are_texts_or_contents_and_say_what_they_are_for(spec, wanted, noted):
    path, body, found = WIRE.vectors_body(spec, "embed-v4.0")

    assert (path, found) == ("/v2/embed", noted)
    official.cohere_embeddings(body)
    assert body == {"model": "embed-v4.0", "embedding_types": ["float"], **wanted}

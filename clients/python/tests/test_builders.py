"""Messages, parts, tools and specs in one line, and answers back."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import hello

from trunkline import (
    arguments_of,
    assistant,
    audio,
    developer,
    document,
    image,
    system,
    text,
    text_of,
    tool,
    tool_calls_of,
    tool_result,
    user,
)
from trunkline.errors import ParseError
from trunkline.spec import SpecOptions, build_spec
from trunkline.v1.completion_pb2 import (
    TOOL_CHOICE_MODE_REQUIRED,
    Completion,
    CompletionSpec,
    FunctionTool,
    Tool,
    ToolChoice,
)
from trunkline.v1.generation_pb2 import (
    REASONING_EFFORT_LOW,
    VERBOSITY_HIGH,
    GenerationParams,
    ReasoningConfig,
)
from trunkline.v1.message_pb2 import (
    MEDIA_DETAIL_HIGH,
    ROLE_ASSISTANT,
    ROLE_DEVELOPER,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    ContentPart,
    Media,
    Message,
    Reasoning,
    Text,
    ToolCall,
)

PNG = b"\x89PNG\r\n\x1a\n..."
CALL = ToolCall(id="call_1", name="get_weather", arguments_json='{"city": "Paris"}')


@pytest.mark.parametrize(
    ("built", "role"),
    [
        (user("a", text("b")), ROLE_USER),
        (system("a", text("b")), ROLE_SYSTEM),
        (developer("a", text("b")), ROLE_DEVELOPER),
        (assistant("a", text("b")), ROLE_ASSISTANT),
    ],
)
def test_a_message_takes_strings_and_parts(built: Message, role: Any) -> None:
    assert built == Message(role=role, parts=[ContentPart(text=Text(text=words)) for words in "ab"])


def test_a_user_may_have_a_name() -> None:
    assert user("a", name="Ada").name == "Ada"
    assert not user("a").HasField("name")


def test_a_tool_result_answers_its_call() -> None:
    built = tool_result(CALL, "18 degrees", image(PNG), is_error=True)
    result = built.parts[0].tool_result

    assert built.role == ROLE_TOOL
    assert (result.tool_call_id, result.name, result.is_error) == ("call_1", "get_weather", True)
    assert [part.WhichOneof("kind") for part in result.parts] == ["text", "image"]
    assert tool_result("call_2").parts[0].tool_result.tool_call_id == "call_2"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"%PDF-1.7", "application/pdf"),
        (b"ID3\x04", "audio/mpeg"),
    ],
)
def test_the_media_type_is_told_from_the_bytes(data: bytes, mime_type: str) -> None:
    assert image(data).image == Media(data=data, mime_type=mime_type)


def test_media_come_from_a_file_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    path.write_bytes(b"%PDF-")

    assert document(path).document == Media(data=b"%PDF-", mime_type="application/pdf", filename="paper.pdf")
    assert document(path, filename="x", mime_type="text/x").document.filename == "x"


def test_media_come_from_an_address_or_from_a_data_address() -> None:
    assert image("https://a/b.png", detail="high").image == Media(uri="https://a/b.png", detail=MEDIA_DETAIL_HIGH)
    encoded = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert image(encoded).image == Media(data=PNG, mime_type="image/png")
    assert audio(b"x", mime_type="audio/x").audio == Media(data=b"x", mime_type="audio/x")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: image(b"?"), "mime_type: cannot tell it from the bytes"),
        (lambda: image("cat.png"), r"write pathlib.Path\('cat.png'\)"),
        (lambda: image(PNG, detail="enormous"), "MEDIA_DETAIL_ENORMOUS"),
    ],
)
def test_media_that_cannot_be_are_refused(build: Callable[[], ContentPart], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_tool_takes_its_schema_as_it_is() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    built = tool("f", description="Does.", parameters=schema, strict=True)

    assert built == Tool(
        function=FunctionTool(name="f", description="Does.", parameters_json_schema=json.dumps(schema), strict=True)
    )
    assert tool("f", parameters="{ }").function.parameters_json_schema == "{ }"
    assert tool("f").function == FunctionTool(name="f")


def test_an_answer_gives_its_text_and_its_calls() -> None:
    answer = Completion()
    parts = answer.choices.add().message.parts
    parts.add(reasoning=Reasoning(text="hm"))
    parts.add(text=Text(text="Let me "))
    parts.add(tool_call=ToolCall(id="0", provider_executed=True))
    parts.add(text=Text(text="look."))
    parts.add(tool_call=CALL)

    for level in (answer, answer.choices[0], answer.choices[0].message):
        assert text_of(level) == "Let me look."
        assert tool_calls_of(level) == [CALL]
    assert (text_of(Completion()), tool_calls_of(Completion())) == ("", [])


def test_the_arguments_of_a_call_are_an_object() -> None:
    assert arguments_of(CALL) == {"city": "Paris"}
    assert arguments_of(ToolCall(name="f")) == {}


@pytest.mark.parametrize("words", ['{"city": "Par', "[1]", "null"])
def test_arguments_that_are_no_object_name_the_tool(words: str) -> None:
    with pytest.raises(ParseError, match="the arguments of f are not"):
        arguments_of(ToolCall(name="f", arguments_json=words))


def test_a_prompt_is_a_text_a_message_a_conversation_or_a_spec() -> None:
    said = user("Hi")
    expected = CompletionSpec(model="m", messages=[said])

    for prompt in ("Hi", said, [said], iter([said]), CompletionSpec(messages=[said])):
        assert build_spec(prompt, {"model": "m"}) == expected


def test_a_spec_that_was_given_is_not_changed() -> None:
    given = CompletionSpec(model="m", params=GenerationParams(temperature=1, stop_sequences=["a"]))
    before = CompletionSpec()
    before.CopyFrom(given)

    built = build_spec(given, {"config": "configs/c", "temperature": 0, "stop_sequences": ["b"], "labels": {"k": "v"}})

    assert given == before
    assert (built.config, built.params.temperature, list(built.params.stop_sequences)) == ("configs/c", 0, ["b"])
    assert built.labels == {"k": "v"}
    assert built.params.HasField("temperature")


def test_single_parameters_stand_over_params() -> None:
    params = GenerationParams(temperature=1, top_k=4)

    built = build_spec("a", {"temperature": 0.5, "params": params})

    assert (built.params.temperature, built.params.top_k, params.temperature) == (0.5, 4, 1)


def test_words_stand_for_choices() -> None:
    built = build_spec(
        "a", {"tool_choice": "required", "reasoning": "low", "verbosity": "high", "stop_sequences": "ab"}
    )

    assert built.tool_choice == ToolChoice(mode=TOOL_CHOICE_MODE_REQUIRED)
    assert built.params.reasoning == ReasoningConfig(effort=REASONING_EFFORT_LOW)
    assert (built.params.verbosity, list(built.params.stop_sequences)) == (VERBOSITY_HIGH, ["ab"])
    assert build_spec("a", {"tool_choice": "get_weather"}).tool_choice == ToolChoice(tool_name="get_weather")
    assert build_spec("a", {"reasoning": ReasoningConfig(budget_tokens=5)}).params.reasoning.budget_tokens == 5


def test_an_option_that_is_none_is_left_out() -> None:
    assert build_spec("a", {"temperature": None, "model": None}) == CompletionSpec(messages=[user("a")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modle": "m"}, "unknown option 'modle'; did you mean 'model'?"),
        ({"xyzzy": 1}, "unknown option 'xyzzy'$"),
        ({"temperature": "hot"}, "temperature: cannot be 'hot'"),
        ({"top_k": 2**40}, "top_k: cannot be"),
        ({"reasoning": "gigantic"}, "reasoning: cannot be 'gigantic'"),
        ({"tools": [1]}, r"tools: cannot be \[1\]"),
        ({"model": "m", "config": "configs/c"}, "model and config: a call has one target"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        build_spec("a", options)


def test_every_field_of_the_contract_is_an_option() -> None:
    fields = {*CompletionSpec.DESCRIPTOR.fields_by_name, *GenerationParams.DESCRIPTOR.fields_by_name}

    assert set(SpecOptions.__annotations__) == fields - {"messages"}


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    built = build_spec([user("Hi"), hello().choices[0].message, user("And?")], {"model": "m"})

    assert [message.role for message in built.messages] == [ROLE_USER, ROLE_ASSISTANT, ROLE_USER]

"""Typed answers, typed tools: what needs pydantic."""

import json
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from fake_gateway import FakeGateway
from pydantic import BaseModel, Field

from trunkline import AsyncClient, Client, ParseError, Violation, arguments_of, tool
from trunkline.v1.completion_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_REFUSAL, Completion
from trunkline.v1.completion_service_pb2 import CreateCompletionResponse
from trunkline.v1.message_pb2 import ContentPart, Refusal, Text, ToolCall


class City(BaseModel):
    """A city of the world.

    More about it.
    """

    name: str
    people: int = Field(description="Inhabitants")


def answered(gateway: FakeGateway, *parts: ContentPart, finish_reason: int = 1) -> Completion:
    """Lets the gateway answer so."""
    completion = Completion(id="cmpl_1")
    choice = completion.choices.add(finish_reason=finish_reason)
    choice.message.parts.extend(parts)
    gateway.answers.append(CreateCompletionResponse(completion=completion))
    return completion


def said(words: str) -> ContentPart:
    return ContentPart(text=Text(text=words))


def test_an_answer_comes_as_the_type_that_was_asked_for(gateway: FakeGateway) -> None:
    completion = answered(gateway, said('{"name": "Par'), said('is", "people": 2}'))

    with Client(gateway.address) as client:
        parsed = client.parse("Which?", City, model="m", temperature=0, strict=True)

    assert (parsed.value, parsed.completion) == (City(name="Paris", people=2), completion)
    spec = gateway.calls[0].request.spec
    asked = spec.response_format.json_schema
    assert (asked.name, asked.strict, spec.params.temperature) == ("City", True, 0)
    assert asked.description.startswith("A city of the world.")
    assert json.loads(asked.json_schema) == City.model_json_schema()


async def test_the_asynchronous_client_parses_too(gateway: FakeGateway) -> None:
    answered(gateway, said("[1, 2]"))

    async with AsyncClient(gateway.address) as client:
        parsed = await client.parse("Which?", list[int], model="m")

    assert parsed.value == [1, 2]
    assert gateway.calls[0].request.spec.response_format.json_schema.name == "list"


def test_an_answer_that_does_not_fit_says_what_and_is_kept(gateway: FakeGateway) -> None:
    completion = answered(gateway, said('{"people": "many"}'))

    with Client(gateway.address) as client, pytest.raises(ParseError, match="the answer is not a City") as caught:
        client.parse("Which?", City, model="m")

    assert [violation.field for violation in caught.value.violations] == ["name", "people"]
    assert caught.value.completion == completion


def test_an_answer_that_was_cut_off_says_so(gateway: FakeGateway) -> None:
    answered(gateway, said('{"name": "Par'), finish_reason=FINISH_REASON_LENGTH)

    with Client(gateway.address) as client, pytest.raises(ParseError, match="cut off: allow more") as caught:
        client.parse("Which?", City, model="m")

    assert isinstance(caught.value.violations[0], Violation)


def test_a_refusal_is_no_answer(gateway: FakeGateway) -> None:
    answered(gateway, ContentPart(refusal=Refusal(text="I would rather not.")), finish_reason=FINISH_REASON_REFUSAL)

    with Client(gateway.address) as client, pytest.raises(ParseError, match="declined: I would rather not"):
        client.parse("Which?", City, model="m")


@pytest.mark.parametrize("choices", [0, 1])
def test_no_text_is_no_answer(gateway: FakeGateway, choices: int) -> None:
    completion = Completion()
    if choices:
        completion.choices.add(finish_reason=FINISH_REASON_LENGTH)
    gateway.answers.append(CreateCompletionResponse(completion=completion))

    with Client(gateway.address) as client, pytest.raises(ParseError, match=r"no text \(finish reason: (LENGTH|no c)"):
        client.parse("Which?", City, model="m")


def test_a_model_is_a_tool() -> None:
    function = tool(City).function

    assert (function.name, function.description) == ("City", "A city of the world.")
    assert json.loads(function.parameters_json_schema) == City.model_json_schema()
    assert tool("f", parameters=City).function.parameters_json_schema == function.parameters_json_schema
    assert tool(City, name="g", description="").function.name == "g"


def get_weather(city: str, unit: Annotated[Literal["C", "F"], "of temperature"] = "C", *, days: int = 1) -> str:
    """Tells the weather.

    From the nearest station.
    """
    return f"{city} {unit} {days}"


def test_a_function_is_a_tool() -> None:
    function = tool(get_weather).function
    schema = json.loads(function.parameters_json_schema)

    assert (function.name, function.description) == ("get_weather", "Tells the weather.")
    assert list(schema["properties"]) == ["city", "unit", "days"]
    assert schema["properties"]["unit"]["enum"] == ["C", "F"]
    assert schema["required"] == ["city"]


def test_a_function_that_json_cannot_call_is_refused() -> None:
    def many(*args: int) -> None: ...

    def untyped(city) -> None:  # type: ignore[no-untyped-def]  # that is the point
        ...

    with pytest.raises(TypeError, match="many: parameter \\*args"):
        tool(many)
    with pytest.raises(TypeError, match="untyped: parameter 'city' has no type"):
        tool(untyped)


def test_the_arguments_of_a_call_come_as_a_type() -> None:
    call = ToolCall(name="f", arguments_json='{"name": "Paris", "people": 2}')

    assert arguments_of(call, City) == City(name="Paris", people=2)
    with pytest.raises(ParseError, match="the arguments of f do not fit") as caught:
        arguments_of(ToolCall(name="f"), City)
    assert [violation.field for violation in caught.value.violations] == ["name", "people"]


def test_without_pydantic_the_message_names_the_extra() -> None:
    probe = "import sys; sys.modules['pydantic'] = None; import trunkline; trunkline.tool(print)"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert "ImportError: this needs pydantic: pip install 'trunkline-client[pydantic]'" in run.stderr

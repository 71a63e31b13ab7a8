"""The model asks for a tool, the program runs it, the model goes on: `python examples/python/tool_call.py`."""

import os

from trunkline import Client, arguments_of, text_of, tool, tool_calls_of, tool_result, user
from trunkline.v1.completion_pb2 import FinishReason

# `tool(weather_in)` makes the same from the function's signature, with the extra `pydantic`.
GET_WEATHER = tool(
    "get_weather",
    description="Tells the weather in a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def weather_in(city: str) -> str:
    return "18 degrees"


def main() -> None:
    print("# tool_call")
    model = os.environ.get("TRUNKLINE_MODEL", "fake/tool")
    messages = [user("What is the weather in Paris?")]
    with Client() as client:
        completion = client.complete(messages, model=model, tools=[GET_WEATHER])
        while calls := tool_calls_of(completion):
            # What the model said goes back as it came: order, ids and signatures included.
            messages.append(completion.choices[0].message)
            for call in calls:
                print(f"call: {call.name} {call.arguments_json}")
                messages.append(tool_result(call, weather_in(**arguments_of(call))))
            completion = client.complete(messages, model=model, tools=[GET_WEATHER])
    print(text_of(completion))
    print("finish:", FinishReason.Name(completion.choices[0].finish_reason).removeprefix("FINISH_REASON_"))


if __name__ == "__main__":
    main()

"""A whole answer at once: `python examples/python/complete.py`."""

import os

from trunkline import Client, text_of
from trunkline.v1.completion_pb2 import FinishReason


def main() -> None:
    print("# complete")
    with Client() as client:
        completion = client.complete("Say hello.", model=os.environ.get("TRUNKLINE_MODEL", "fake/echo"))
    print(text_of(completion))
    print("finish:", FinishReason.Name(completion.choices[0].finish_reason).removeprefix("FINISH_REASON_"))
    print(f"tokens: {completion.usage.input_tokens} in, {completion.usage.output_tokens} out")


if __name__ == "__main__":
    main()

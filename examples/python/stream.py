"""The answer as it is made: `python examples/python/stream.py`."""

import asyncio
import os

from trunkline import AsyncClient
from trunkline.v1.completion_pb2 import FinishReason


async def main() -> None:
    print("# stream")
    async with AsyncClient() as client:
        async with client.stream("One two three.", model=os.environ.get("TRUNKLINE_MODEL", "fake/echo")) as stream:
            async for piece in stream.text():
                print(piece, end="", flush=True)
        completion = await stream.collect()
    print()
    print("finish:", FinishReason.Name(completion.choices[0].finish_reason).removeprefix("FINISH_REASON_"))


if __name__ == "__main__":
    asyncio.run(main())

"""Four short programs that call a gateway: `python examples/python [complete] [stream] [tool_call] [rate_limit]`.

TRUNKLINE_ADDRESS says where the gateway is; TRUNKLINE_MODEL names a model to ask instead of the fake ones, which answer
without a key. Without arguments all four run.
"""

import runpy
import sys
from pathlib import Path

from trunkline import TrunklineError

PROGRAMS = ("complete", "stream", "tool_call", "rate_limit")


def main() -> None:
    chosen = sys.argv[1:] or PROGRAMS
    unknown = [name for name in chosen if name not in PROGRAMS]
    if unknown:
        sys.exit(f"no program {unknown[0]!r}; there are: {', '.join(PROGRAMS)}")
    for name in PROGRAMS:
        if name in chosen:
            runpy.run_path(str(Path(__file__).with_name(f"{name}.py")), run_name="__main__")


if __name__ == "__main__":
    try:
        main()
    except TrunklineError as error:
        sys.exit(str(error))

"""Usage as Ollama reports it: counts beside the answer, no object of their own."""

from __future__ import annotations

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.providers.jsontext import dumps
from trunkline_server.providers.usage import Count, counted, usage_from


def usage_of(prompt: Count, answer: Count = None) -> completion_pb2.Usage | None:
    """The usage; None if nothing was counted. Its verbatim object is made of the members that there are."""
    counts = {"prompt_eval_count": prompt, "eval_count": answer}
    said = {name: count for name, count in counts.items() if count is not None}
    return usage_from(
        Raw(dumps(said)),
        completion_pb2.USAGE_SOURCE_REPORTED,
        {"input_tokens": counted(prompt), "output_tokens": counted(answer), "total_tokens": None},
    )

"""Recordings that do not come through as the scorer expects, and why that stays. docs/providers.md lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One recording."""

    recording: str
    family: str
    #: What differs, in the scorer's words.
    differs: str
    #: Why it stays. Markdown, a sentence or two.
    reason: str


KNOWN: tuple[Mismatch, ...] = (
    Mismatch(
        "077848e3105fec02",
        "openai.responses",
        "usage.output_tokens",
        "The provider reported −9 output tokens. A count below zero is no count: it is left out, and stands in"
        " `Usage.raw_json` as it came.",
    ),
    Mismatch(
        "45648dae1e6ca672",
        "bedrock.models",
        "first3",
        "The recording asks for one inference profile, whose models are named by ARNs; it is no list.",
    ),
)

#: "   1 x openai.responses: usage.output_tokens: 077848e3105fec02", as the scorer writes it.
_LINE = re.compile(r"^ +\d+ x ([\w.-]+): .*: ((?:[0-9a-f]{16} ?)+)$")


def unexplained(scored: Sequence[str]) -> list[tuple[str, str]]:
    """Family and id of each recording that the scorer's lines call wrong, and whose reason is not known here."""
    known = {mismatch.recording for mismatch in KNOWN}
    found = (match for line in scored if (match := _LINE.match(line)))
    return [(match[1], recording) for match in found for recording in match[2].split() if recording not in known]

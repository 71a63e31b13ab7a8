"""`make robustness`: adapters alone over damaged recordings raise nothing but LLMError, however bytes are chunked.

For each family: every prefix of three small recordings and 50 sampled prefixes of each other; each event dropped or
doubled in turn for 20 streams; 1,000 random mutations. Streams are fed in several chunkings, which must give the same
events and the same error.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.fidelity import corpus, targets

from trunkline_server import providers
from trunkline_server.errors import LLMError
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import CountingDialect, Dialect, EmbeddingDialect, ListingDialect
from trunkline_server.providers.framing import FRAMINGS

SMALL_RECORDINGS, SAMPLED_PREFIXES, STREAMS_BY_EVENT, MUTATIONS = 3, 50, 20, 1000

#: What a mutation writes: what parsers stumble over.
_SPLINTERS = (
    b"null", b"{}", b"[]", b'""', b"-1", b"1e999", b"true", b'"\\ud83d"', b"\x00", b"\xff\xfe", b"{", b"}", b"[",
    b'"', b",", b"\r\n\r\n", b"data: ", b"event: error\n", b"99999999999999999999", b"1" * 5000, b"\n",
)  # fmt: skip

#: Ids of tool calls that the gateway makes at random, where the provider named neither the call nor the answer.
_MADE_ID = re.compile(rb"call_[0-9a-f]{24}")

Outcome = tuple[Any, ...]


@dataclass(slots=True)
class Adapter:
    """One dialect for one model, run over bytes."""

    dialect: Dialect
    kind: str
    model: str

    def whole(self, what: str, status: int, headers: dict[str, str], body: bytes) -> Outcome:
        """What an answer becomes."""
        if not 200 <= status < 300:
            return ("error", type(self.dialect.classify(status, headers, body)))
        try:
            if what == "embeddings":
                assert isinstance(self.dialect, EmbeddingDialect)
                return ("vectors", len(self.dialect.decode_embeddings(body).vectors))
            if what == "count_tokens":
                assert isinstance(self.dialect, CountingDialect)
                return ("tokens", self.dialect.decode_count(body))
            if what == "models":
                assert isinstance(self.dialect, ListingDialect)
                return ("models", len(self.dialect.decode_models(body)))
            assembly = Assembly(self.kind, self.model)
            self.dialect.decode(body, assembly)
            assembly.require_content()
            return ("ok", assembly.completion().SerializeToString(deterministic=True))
        except LLMError as error:
            return ("error", type(error))

    def streamed(self, chunks: Sequence[bytes]) -> Outcome:
        """What a stream becomes: its events, with adjacent deltas joined, and how it ended."""
        assembly = Assembly(self.kind, self.model, emits=True, keep=True)
        framer, decoder = FRAMINGS[self.dialect.framing](), self.dialect.decoder(assembly)
        events: list[Any] = []
        ended: Any = None
        try:
            for chunk in chunks:
                for event in framer.feed(chunk):
                    decoder.event(event)
                events += assembly.events()
            for event in framer.end():
                decoder.event(event)
            decoder.end()
        except LLMError as error:
            ended = type(error)
        events += assembly.events()
        whole = _MADE_ID.sub(b"call_", assembly.completion().SerializeToString(deterministic=True))
        return ("stream", _joined(events), ended, whole)


def _joined(events: list[Any]) -> tuple[Any, ...]:
    """Deltas of one part and field that follow each other are one: what comes together is joined."""
    joined: list[Any] = []
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "part_delta":
            delta = event.part_delta
            field_name = delta.WhichOneof("delta")
            key = (kind, delta.choice_index, delta.part_index, field_name)
            value = getattr(delta, field_name) if field_name else None
            logprobs = [token.SerializeToString() for token in delta.logprobs]
            if joined and joined[-1][0] == key and isinstance(value, (str, bytes)):
                joined[-1] = (key, joined[-1][1] + value, joined[-1][2] + logprobs)
            else:
                joined.append((key, value if isinstance(value, (str, bytes)) else str(value), logprobs))
        elif kind == "usage_updated":
            # Running totals: the last before another event counts.
            if joined and joined[-1][0] == kind:
                joined.pop()
            joined.append((kind, event.SerializeToString(deterministic=True)))
        else:
            joined.append((kind, _MADE_ID.sub(b"call_", event.SerializeToString(deterministic=True))))
    return tuple((item[0], *(str(part) for part in item[1:])) for item in joined)


@dataclass(slots=True)
class Findings:
    """What went wrong, by family."""

    tried: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def attempt(self, family: str, about: str, run: Callable[[], Outcome]) -> Outcome | None:
        """Runs it; anything but an outcome is a fault."""
        self.tried[family] += 1
        try:
            return run()
        except Exception:  # noqa: BLE001  # what must not happen is what is looked for
            self.fault(family, f"{about}\n{traceback.format_exc(limit=-4)}")
            return None

    def fault(self, family: str, story: str) -> None:
        self.faults[family] += 1
        self.examples.setdefault(family, story)


def chunkings(body: bytes, draw: random.Random) -> Iterator[list[bytes]]:
    """Ways to cut a body: whole, in random pieces, and byte by byte if it is short."""
    yield [body]
    cuts = sorted(draw.randrange(len(body) + 1) for _ in range(min(12, len(body))))
    yield [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True) if start < end]
    if len(body) < 6000:
        yield [body[at : at + 1] for at in range(len(body))]


def mutated(body: bytes, draw: random.Random) -> bytes:
    """One to four random damages."""
    data = bytearray(body)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        way = draw.randrange(5)
        if way == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif way == 1:
            data[at : at + draw.randint(1, 40)] = b""
        elif way == 2:
            data[at:at] = draw.choice(_SPLINTERS)
        elif way == 3:
            data[at : at + draw.randint(1, 12)] = draw.choice(_SPLINTERS)
        else:
            other = draw.randrange(len(data) + 1)
            data[at:at] = data[min(at, other) : max(at, other)][:400]
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording as bytes."""

    id: str
    adapter: Adapter
    what: str
    status: int
    headers: dict[str, str]
    body: bytes
    pieces: list[bytes]
    streamed: bool

    def outcome(self, body: bytes) -> Outcome:
        if self.streamed:
            return self.adapter.streamed([body])
        return self.adapter.whole(self.what, self.status, self.headers, body)


def examine(family: str, samples: list[Sample], findings: Findings, seed: int) -> None:
    """Runs a family through everything."""
    draw = random.Random(f"{seed}:{family}")
    smallest = {sample.id for sample in sorted(samples, key=lambda s: len(s.body))[:SMALL_RECORDINGS]}
    by_event = 0
    for sample in samples:
        size = len(sample.body)
        every = sample.id in smallest and size <= 20_000
        ends = range(size) if every else sorted(draw.randrange(size + 1) for _ in range(SAMPLED_PREFIXES))
        for end in ends:
            findings.attempt(family, f"{sample.id} cut at {end}", partial(sample.outcome, sample.body[:end]))
        if sample.streamed:
            _same_in_all_chunkings(family, sample, sample.body, findings, draw)
            if by_event < STREAMS_BY_EVENT and len(sample.pieces) > 1:
                by_event += 1
                for at in range(len(sample.pieces)):
                    for times in (0, 2):
                        body = b"".join([*sample.pieces[:at], *([sample.pieces[at]] * times), *sample.pieces[at + 1 :]])
                        findings.attempt(family, f"{sample.id} event {at} x {times}", partial(sample.outcome, body))
    for number in range(MUTATIONS if samples else 0):
        sample = draw.choice(samples)
        body = mutated(sample.body, draw)
        findings.attempt(family, f"{sample.id} mutation {number}", partial(sample.outcome, body))
        if sample.streamed and number % 10 == 0:
            _same_in_all_chunkings(family, sample, body, findings, draw)


def _same_in_all_chunkings(family: str, sample: Sample, body: bytes, findings: Findings, draw: random.Random) -> None:
    first: Outcome | None = None
    for chunks in chunkings(body, draw):
        outcome = findings.attempt(family, f"{sample.id} chunked", partial(sample.adapter.streamed, chunks))
        if first is None:
            first = outcome
        elif outcome is not None and outcome != first:
            findings.fault(family, f"{sample.id}: {len(chunks)} chunks give other events than one")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 if anything but an LLMError was raised, 2 if it cannot run."""
    options = _options(arguments)
    folder: Path = options.corpus
    tools = (options.tools or folder.parent / "tools") / "replay.py"
    if not (folder / "recordings").exists() or not tools.exists():
        sys.stderr.write(f"robustness: there is no {folder / 'recordings'} or no {tools}\n")
        return 2
    spec = importlib.util.spec_from_file_location("replay", tools)
    assert spec is not None
    assert spec.loader is not None
    replay = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(replay)
    findings, kinds = Findings(), frozenset(providers.KINDS)
    for family in options.families.split(",") if options.families else corpus.families(folder):
        kind = targets.kind_for(family, kinds)
        if kind is None:
            continue
        began = time.monotonic()
        examine(family, list(_samples(folder, family, kind, replay.payload)), findings, options.seed)
        _say(f"{family:36s} {findings.tried[family]:7d} tried, {findings.faults[family]} faults,"
             f" {time.monotonic() - began:.0f} s")  # fmt: skip
    for family, story in findings.examples.items():
        _say(f"\n{family}: {story}")
    total, faults = findings.tried.total(), findings.faults.total()
    _say(f"robustness: {total - faults} of {total} hold (seed {options.seed})")
    return 1 if faults or not total else 0


def _samples(folder: Path, family: str, kind: str, payload: Callable[[dict[str, Any]], Any]) -> Iterator[Sample]:
    row = providers.KINDS[kind]
    for raw, recording in zip(corpus.rows(folder, family), corpus.read(folder, family), strict=True):
        body, _, sizes = payload(raw)
        if not body:
            continue
        dialect = providers.DIALECTS[row.tongue_of(recording.model).dialect if row.tongues else row.dialect]()
        pieces, at = [], 0
        for size in sizes:
            pieces.append(body[at : at + size])
            at += size
        yield Sample(
            id=recording.id,
            adapter=Adapter(dialect, kind, recording.model),
            what=recording.kind,
            status=raw["status"],
            headers={name.lower(): str(value) for name, value in (raw.get("response_headers") or {}).items()},
            body=body,
            pieces=pieces,
            streamed=bool(raw.get("streaming")) and recording.kind == "chat" and 200 <= raw["status"] < 300,
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="robustness", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with recordings/")
    parser.add_argument("--families", help="comma-separated; default: all in scope")
    parser.add_argument("--tools", type=Path, help="folder with replay.py; default: beside the corpus")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Sources of an answer: what Gemini grounded it in, and what it recited.

Passages are given in bytes of the answer's UTF-8; the contract counts code points of a text part. What else the
provider says of its search, such as the suggestions that must be shown, is passed on verbatim by `Reading`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence

from msgspec import Raw

from trunkline.v1 import message_pb2
from trunkline_server.providers.assembly import Part, clean
from trunkline_server.providers.dialects.gemini import wire
from trunkline_server.providers.jsontext import dumps, text_of

_NOWHERE = wire.Source()


class Passages:
    """The text of a choice by its parts, to find a passage in."""

    def __init__(self, parts: Sequence[tuple[Part, str]]) -> None:
        self._parts = parts
        self._whole = "".join(text for _, text in parts)
        #: First code point of each part.
        self._starts = list(itertools.accumulate((len(text) for _, text in parts), initial=0))[:-1]
        #: Bytes before each code point; empty where they are as many.
        self._bytes: list[int] = []
        if not self._whole.isascii():
            sizes = (len(character.encode("utf-8", "surrogatepass")) for character in self._whole)
            self._bytes = list(itertools.accumulate(sizes, initial=0))

    @property
    def last(self) -> Part:
        return self._parts[-1][0]

    def find(self, start: int | None, end: int | None, said: str | None = None) -> tuple[Part, int, int] | None:
        """The part that holds the passage, and where. `said` is the passage itself: it decides if the bytes do not."""
        if end is not None and end > (start or 0) >= 0:
            first, last = self._point(start or 0), self._point(end)
            if first < last and (said is None or self._whole[first:last] == said):
                return self._within(first, last)
        if said:
            first = self._whole.find(said)
            if first >= 0:
                return self._within(first, first + len(said))
        return None

    def _within(self, first: int, last: int) -> tuple[Part, int, int]:
        place = bisect.bisect_right(self._starts, first) - 1
        part, text = self._parts[place]
        start = first - self._starts[place]
        return part, start, min(last - self._starts[place], len(text))

    def _point(self, offset: int) -> int:
        """The code point at a byte; the end for one beyond it."""
        if not self._bytes:
            return min(offset, len(self._whole))
        return min(bisect.bisect_left(self._bytes, offset), len(self._whole))


def grounded(raw: Raw, passages: Passages) -> Iterator[tuple[Part, message_pb2.Citation]]:
    """A citation for each source of each passage; sources of no passage are cited as a whole."""
    grounding = wire.GROUNDING.read(bytes(raw))
    chunks = grounding.grounding_chunks or []
    used: set[int] = set()
    for support in grounding.grounding_supports or ():
        read = wire.SUPPORT.read(bytes(support))
        segment = read.segment or wire.Segment()
        found = passages.find(segment.start_index, segment.end_index, segment.text)
        for index in read.grounding_chunk_indices or ():
            if 0 <= index < len(chunks):
                used.add(index)
                citation = _citation(chunks[index], support)
                if found is not None:
                    citation.start_index, citation.end_index = found[1:]
                yield (passages.last if found is None else found[0]), citation
    for index, chunk in enumerate(chunks):
        if index not in used:
            yield passages.last, _citation(chunk)


def recited(raws: Sequence[Raw], passages: Passages) -> Iterator[tuple[Part, message_pb2.Citation]]:
    """A citation for each source that the answer recites; one that is told again is given once."""
    told: set[bytes] = set()
    for raw in raws:
        read = wire.CITATIONS.read(bytes(raw))
        for each in (*(read.citations or ()), *(read.citation_sources or ())):
            if bytes(each) in told:
                continue
            told.add(bytes(each))
            source = wire.CITATION.read(bytes(each))
            citation = message_pb2.Citation(
                title=clean(source.title or ""), uri=clean(source.uri or ""), raw_json=text_of(each)
            )
            found = passages.find(source.start_index, source.end_index)
            if found is not None:
                citation.start_index, citation.end_index = found[1:]
            yield (passages.last if found is None else found[0]), citation


def _citation(chunk: Raw, support: Raw | None = None) -> message_pb2.Citation:
    read = wire.CHUNK.read(bytes(chunk))
    source = read.web or read.retrieved_context or read.maps or _NOWHERE
    raw = {"groundingChunk": chunk} if support is None else {"groundingChunk": chunk, "groundingSupport": support}
    return message_pb2.Citation(
        title=clean(source.title or ""),
        cited_text=clean(source.text or ""),
        uri=clean(source.uri or ""),
        raw_json=dumps(raw).decode("utf-8", "replace"),
    )

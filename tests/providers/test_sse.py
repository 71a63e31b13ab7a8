"""Framing of streams: the same events whatever the chunks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers import framing
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.sse import MAX_EVENT_BYTES, SseFramer

#: Framings of lines; that of AWS has its own tests.
TEXT = ("ndjson", "sse")


def frame(chunks: Iterable[bytes], kind: str = "sse") -> list[tuple[bytes, bytes]]:
    framer = framing.FRAMINGS[kind]()
    events = [event for chunk in chunks for event in framer.feed(chunk)]
    return [(event.name, event.data) for event in (*events, *framer.end())]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'data: {"a":1}\n\ndata: {"a":2}\n\n', [(b"", b'{"a":1}'), (b"", b'{"a":2}')]),
        (b"event: ping\ndata: {}\n\ndata: x\n\n", [(b"ping", b"{}"), (b"", b"x")]),
        (b"data: x\nevent: late\n\n", [(b"late", b"x")]),
        (b"event: a\nevent: b\ndata: x\n\n", [(b"b", b"x")]),
        (b"data: x\r\n\r\ndata: y\r\n\r\n", [(b"", b"x"), (b"", b"y")]),
        (b"data: x\r\rdata: y\r\r", [(b"", b"x"), (b"", b"y")]),
        (b"data: x\r\n\ndata: y\n\r\n", [(b"", b"x"), (b"", b"y")]),
        (b"data:x\n\ndata:  y\n\ndata\n\n", [(b"", b"x"), (b"", b"y")]),
        (b"data: one\ndata: two\ndata:\ndata: four\n\n", [(b"", b"one\ntwo\n\nfour")]),
        (b": OPENROUTER PROCESSING\n\n: ping\ndata: x\n\n", [(b"", b"x")]),
        (b"id: 7\nretry: 10\nunknown: y\ndata: x\n\n", [(b"", b"x")]),
        (b"\xef\xbb\xbfdata: x\n\n", [(b"", b"x")]),
        (b" data: x\n\ndata: y\n\n", [(b"", b"x"), (b"", b"y")]),
        (b"\n\n\n\ndata: x\n\n\n\n", [(b"", b"x")]),
        (b"event: ping\n\ndata: x\n\n", [(b"", b"x")]),
        (b"data:\n\ndata: \n\nevent: e\ndata:\n\ndata: x\n\n", [(b"", b"x")]),
        (b"data: [DONE]\n\n", [(b"", b"[DONE]")]),
        (b"data: [DONE] \n\n", [(b"", b"[DONE]")]),
        (b'data: {"a":1}\n\n{"error":{"code":500}}\n\n', [(b"", b'{"a":1}'), (BARE, b'{"error":{"code":500}}')]),
        (b'data: {"a":1}\n\n{"error":1}\ndata: x\n\n', [(b"", b'{"a":1}'), (BARE, b'{"error":1}'), (b"", b"x")]),
        (b'{\n  "error": {\n    "code": 429\n  }\n}\n', [(BARE, b'{\n  "error": {\n    "code": 429\n  }\n}')]),
        (b'[{"error": 1}]', [(BARE, b'[{"error": 1}]')]),
        (b'data: {"a":"caf\xc3\xa9 \xe2\x80\xa8"}\n\n', [(b"", b'{"a":"caf\xc3\xa9 \xe2\x80\xa8"}')]),
        (b"", []),
    ],
)
def test_a_stream_has_its_events_whole_and_byte_by_byte(stream, events):
    assert frame([stream]) == events
    assert frame(stream[i : i + 1] for i in range(len(stream))) == events
    for cut in range(len(stream)):
        assert frame([stream[:cut], b"", stream[cut:]]) == events


@pytest.mark.parametrize(
    "tail", [b'data: {"a":1}', b'data: {"a":1}\n', b"data: [DONE]", b"data: [DONE] \n", b"data: 1\r"]
)
def test_a_complete_event_at_the_end_needs_no_blank_line(tail):
    data = tail.partition(b": ")[2].strip()

    assert frame([b"data: x\n\n", tail]) == [(b"", b"x"), (b"", data)]


@pytest.mark.parametrize(
    "tail", [b'data: {"a":', b'data: {"a":\n', b"event: x", b"dat", b"data: [DO", b'{"error": {', b"data: \xff"]
)
def test_an_event_that_was_cut_is_dropped(tail):
    assert frame([b"data: x\n\n", tail]) == [(b"", b"x")]


def test_a_named_event_keeps_its_name_at_the_end():
    assert frame([b'event: message_stop\ndata: {"type":"message_stop"}']) == [
        (b"message_stop", b'{"type":"message_stop"}')
    ]


def test_events_are_given_as_soon_as_they_are_complete():
    framer = SseFramer()

    assert framer.feed(b"data: x\n") == []
    assert framer.feed(b"\ndata: ") == [Event(b"", b"x")]
    assert framer.feed(b"y\n\n") == [Event(b"", b"y")]


LINES = st.sampled_from(
    [b"data: x", b'data: {"a": 1}', b"data:", b"data", b"event: e", b"event:", b": c", b":", b"id: 1", b"odd", b"", b"",
     b"", b'{"error": 1}', b"[1]", b"{", b"}", b" data: y", b"\xef\xbb\xbfdata: z", b"data: [DONE]", b"event: e"]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(
    stream=st.one_of(
        st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda rows: b"".join(line + end for line, end in rows)),
        st.lists(st.tuples(LINES, st.just(b"\n")), max_size=12).map(lambda rows: b"".join(a + b for a, b in rows)),
        st.lists(st.sampled_from([b"data: x\n\n", b"event: e\ndata: y\n\n", b"data: a\ndata: b\n\n"]), max_size=8).map(
            b"".join
        ),
        st.binary(max_size=60),
    ),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    kind=st.sampled_from(TEXT),
)
def test_any_chunking_gives_the_same_events(stream, cuts, kind):
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    chunked = frame((stream[a:b] for a, b in itertools.pairwise(bounds)), kind)

    assert chunked == frame([stream], kind)
    assert chunked == frame((stream[i : i + 1] for i in range(len(stream))), kind)


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize("piece", [65536, MAX_EVENT_BYTES + 10])
def test_an_event_without_an_end_is_refused(kind, piece):
    chunks = [b"data: " + b"x" * piece] * (MAX_EVENT_BYTES // piece + 2)

    with pytest.raises(LLMInvalidResponseError, match="more than 16777216 bytes"):
        frame(chunks, kind)


def test_an_event_of_endless_lines_is_refused():
    chunks = [b"data: " + b"x" * 60000 + b"\n"] * (MAX_EVENT_BYTES // 60000 + 2)

    with pytest.raises(LLMInvalidResponseError):
        frame(chunks)


def test_a_huge_event_in_one_chunk_is_refused_too():
    with pytest.raises(LLMInvalidResponseError):
        SseFramer().feed(b"data: x\n\ndata: " + b"x" * (MAX_EVENT_BYTES + 1) + b"\n\n")
    with pytest.raises(LLMInvalidResponseError):
        framing.NdjsonFramer().feed(b"x" * (MAX_EVENT_BYTES + 1) + b"\n")


def test_many_events_do_not_add_up_to_one_that_is_too_large():
    framer = SseFramer()
    chunk = b"data: " + b"x" * (1 << 20) + b"\ndata: y\n"

    assert sum(len(framer.feed(piece)) for _ in range(40) for piece in (chunk, b"\n", b"{}\n", b"\n")) == 80


@pytest.mark.parametrize("kind", TEXT)
def test_byte_by_byte_costs_linear_time(kind):
    def seconds(size: int) -> float:
        framer = framing.FRAMINGS[kind]()
        start = time.process_time()
        for _ in range(size):
            framer.feed(b"x")
        framer.feed(b"\n")
        return time.process_time() - start

    small = min(seconds(20_000) for _ in range(3))

    # Ten times the bytes cost some ten times the time; quadratic would be a hundred.
    assert seconds(200_000) < 40 * small


def test_ndjson_is_a_json_text_a_line():
    stream = b'{"a":1}\n\n{"b":2}\r\n  {"c":3}'

    assert frame([stream], "ndjson") == [(b"", b'{"a":1}'), (b"", b'{"b":2}'), (b"", b'{"c":3}')]
    assert frame([b'{"a":1}\n{"b":'], "ndjson") == [(b"", b'{"a":1}')]

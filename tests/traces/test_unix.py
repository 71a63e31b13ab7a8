"""`unix:`: records to sidecars that know nothing of our code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from google.protobuf import json_format
from tests.gateway import create, failing, gateway
from tests.traces.samples import record, sample
from tests.traces.sidecars import ROOT, sidecar
from tests.traces.writing import Taken, WritingContract

from trunkline.v1alpha import trace_pb2
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendError, BackendUnavailable
from trunkline_server.traces.unix import lines, sink

SCHEMA = json.loads((ROOT / "docs/trace-lines.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(params=["socat", "go", "go with ack", "example with ack"])
async def taken(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Taken]:
    kind, _, ack = request.param.partition(" with ")
    async with sidecar(kind, tmp_path) as receiver:
        backend = open_backend(f"unix:{receiver.path}{'?ack=1' if ack else ''}", tmp_path)
        made = Taken(backend, backend.sink(), receiver)
        await made.sink.open()
        try:
            yield made
        finally:
            await made.sink.aclose()


class TestWriting(WritingContract):
    """Each of its tests, with each sidecar."""

    async def test_a_record_that_is_written_again_can_be_told(self, taken: Taken):
        """The example keeps a record once: it has told."""
        again = sample()
        [name] = await taken.write(again)
        [other, _] = await taken.write(sample(), again)
        came = list(await taken.receiver.ids(2))
        assert set(came) == {name, other}


# -- lines ------------------------------------------------------------------------------------------------------------


async def test_a_connection_begins_with_hello_and_stays(tmp_path: Path) -> None:
    async with sidecar("socat", tmp_path) as receiver:
        writing = open_backend(f"unix:{receiver.path}", tmp_path).sink()
        await writing.write([record(sample())])
        await writing.write([record(sample()), record(sample())])
        await receiver.ids(3)
        await writing.aclose()
        found = receiver.lines()

    assert found[0] == {"protocol": "trunkline.traces", "version": 1, "server": "trunkline/0.1.0", "ack": False}
    assert [line["version"] for line in found] == [1] * 4
    assert [("protocol" in line) for line in found] == [True, False, False, False]


async def test_a_trace_comes_through_whole(tmp_path: Path) -> None:
    trace = sample(said="Grüße", body=bytes(range(256)), labels={"team": "a"}, otel_trace_id="ab" * 16)
    async with sidecar("socat", tmp_path) as receiver:
        writing = open_backend(f"unix:{receiver.path}", tmp_path).sink()
        await writing.write([record(trace)])
        await receiver.ids(1)
        await writing.aclose()
        [line] = receiver.records()

    assert json_format.ParseDict(line["trace"], trace_pb2.Trace()) == trace
    assert "truncated" not in line


def test_every_line_is_as_its_schema_says() -> None:
    VALIDATOR.check_schema(SCHEMA)
    written = [
        lines.hello(acks=True),
        lines.record_line(record(sample(labels={"a": "b"}, code=13, reason="INTERNAL", error="no")), lines.MOST_BYTES),
        lines.record_line(record(sample(code=None)), lines.MOST_BYTES),
        lines.record_line(record(sample(body=bytes(100_000))), lines.LEAST_BYTES),
    ]

    for line in written:
        VALIDATOR.validate(json.loads(line))
    for wrong in ({}, {"version": 2, "id": "x", "trace": {}}, {"version": 1, "id": "x", "trace": {"streamed": "yes"}}):
        assert not VALIDATOR.is_valid(wrong)


@pytest.mark.parametrize("line", [{"accept": 1}, {"ack": "a"}, {"ack": ["a", "b"]}, {"refuse": "no", "versions": [2]}])
def test_what_a_sidecar_says_is_in_the_schema(line: dict[str, Any]) -> None:
    schema = {**SCHEMA, "anyOf": [{"$ref": "#/$defs/said"}]}

    jsonschema.validate(line, schema)
    assert lines.said(json.dumps(line).encode()) is not None


def test_a_record_that_is_too_long_keeps_what_fits_and_names_what_was_cut() -> None:
    trace = sample(said="short", body=b"x" * 50_000)
    line = lines.record_line(record(trace), 20_000)
    read = json.loads(line)
    cut = json_format.ParseDict(read["trace"], trace_pb2.Trace())

    assert 10_000 < len(line) <= 20_000
    assert read["truncated"] == ["attempts[0].response.body"]
    assert cut.truncated
    assert cut.attempts[0].response.truncated
    assert trace.attempts[0].response.body.startswith(cut.attempts[0].response.body)
    assert cut.attempts[0].request.body == trace.attempts[0].request.body
    assert cut.completion_spec == trace.completion_spec
    # What was handed over is not changed.
    assert len(trace.attempts[0].response.body) == 50_000


def test_what_was_said_goes_if_it_must_and_the_rest_stays() -> None:
    read = json.loads(lines.record_line(record(sample(said="x" * 50_000, body=b"y" * 50_000)), 20_000))
    cut = json_format.ParseDict(read["trace"], trace_pb2.Trace())

    assert read["truncated"][-1] == "content"
    assert not cut.completion.choices
    assert (cut.usage.input_tokens, cut.attempts[0].upstream_status) == (12, 200)


def test_no_line_is_ever_longer_than_its_bound() -> None:
    huge = sample(
        said="x" * 90_000,
        body=b"y" * 90_000,
        labels={f"{n}": "z" * 200 for n in range(200)},
        error="e" * 90_000,
        code=2,
    )
    line = lines.record_line(record(huge), lines.LEAST_BYTES)

    assert len(line) <= lines.LEAST_BYTES
    assert json.loads(line)["trace"]["status"]["code"] == 2


# -- a sidecar's side -------------------------------------------------------------------------------------------------

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(path: Path, serve: Peer) -> AsyncIterator[None]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(guarded, path, limit=1 << 24)
    try:
        yield
    finally:
        server.close()


async def test_a_version_that_is_refused_is_told_with_those_that_are_taken(tmp_path: Path) -> None:
    async with sidecar("go", tmp_path, "-version", "2") as receiver:
        writing = open_backend(f"unix:{receiver.path}", tmp_path).sink()
        with pytest.raises(BackendUnavailable, match=r"refuses version 1 .*another version is understood.*takes 2"):
            await writing.open()
        with pytest.raises(BackendUnavailable, match="refuses version 1"):
            await writing.write([record(sample())])

        assert receiver.records() == []


async def test_a_refusal_that_comes_late_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "GRACE", 0.0)

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await reader.readline()
        writer.write(b'{"refuse": "full"}\n')
        await writer.drain()

    async with peer(tmp_path / "s", late):
        writing = open_backend(f"unix:{tmp_path}/s?ack=1", tmp_path).sink()
        with pytest.raises(BackendUnavailable, match="refuses version 1 of the protocol: full"):
            await writing.write([record(sample())])


async def test_a_batch_is_written_when_each_record_is_confirmed(tmp_path: Path) -> None:
    confirm = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        ids = [json.loads(await reader.readline())["id"] for _ in range(3)]
        writer.write(json.dumps({"ack": ids[:2], "later": "unknown members are left alone"}).encode() + b"\nno json\n")
        await confirm.wait()
        writer.write(json.dumps({"ack": ids[2]}).encode() + b"\n")
        await reader.read()

    async with peer(tmp_path / "s", slow):
        writing = open_backend(f"unix:{tmp_path}/s?ack=1", tmp_path).sink()
        waiting = {asyncio.ensure_future(writing.write([record(sample()) for _ in range(3)]))}
        done, _ = await asyncio.wait(waiting, timeout=0.4)
        assert not done
        confirm.set()
        await asyncio.gather(*waiting)
        await writing.aclose()


async def test_what_was_not_confirmed_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "PATIENCE", 0.3)

    async def forgetful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await reader.readline()

    for serve, told in ((forgetful, "did not take or confirm a batch in time"), (leaving, "hung up")):
        path = tmp_path / serve.__name__
        async with peer(path, serve):
            writing = open_backend(f"unix:{path}?ack=1", tmp_path).sink()
            with pytest.raises(BackendUnavailable, match=told):
                await writing.write([record(sample())])


async def test_a_sidecar_that_does_not_read_holds_up_one_batch_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PATIENCE", 0.3)
    leave = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no other way not to read
        await leave.wait()

    async with peer(tmp_path / "s", stuck):
        writing = open_backend(f"unix:{tmp_path}/s", tmp_path).sink()
        with pytest.raises(BackendUnavailable, match="in time"):
            await writing.write([record(sample(body=bytes(2_000_000)))])
        leave.set()


# -- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("unix:", "write unix:/PATH"),
        ("unix://host/x", "write unix:/PATH"),
        ("unix:/run/", "write unix:/PATH"),
        ("unix:/" + "x" * 120, "longer than 107 bytes"),
        ("unix:/run/s?ack=yes", "ack is 'yes'"),
        ("unix:/run/s?max_bytes=1k", "max_bytes is '1k'"),
        ("unix:/run/s?max_bytes=5", "give at least 16384"),
        ("unix:/run/s?acks=1", "no option 'acks'"),
    ],
)
def test_a_wrong_url_is_told(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=told):
        open_backend(url, tmp_path)


@pytest.mark.parametrize("url", ["unix:/run/a b.sock", "unix:///run/a%20b.sock"])
def test_a_url_names_a_path(url: str, tmp_path: Path) -> None:
    backend = open_backend(url, tmp_path)

    assert backend.path == Path("/run/a b.sock")  # type: ignore[attr-defined]  # of this one


# -- with the whole gateway -------------------------------------------------------------------------------------------


async def test_calls_of_a_gateway_reach_a_sidecar_that_was_away_at_the_time(tmp_path: Path) -> None:
    parent = ("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01")
    async with sidecar("example", tmp_path) as receiver:
        await receiver.stop()
        traces = [f"unix:{receiver.path}?ack=1"]
        async with gateway(state_dir=tmp_path / "state", traces=traces) as gw:
            answer = await gw.complete(create("fake/echo"), metadata=(parent,))
            await failing(gw.completions.CreateCompletion(create("nobody/x")))
            await receiver.start()
            ids = await receiver.ids(2)
            [whole, refused] = [line["trace"] for line in receiver.records()]

    assert ids[0] == answer.id
    assert (whole["otelTraceId"], whole["otelParentSpanId"], "otelSpanId" in whole) == ("ab" * 16, "cd" * 8, False)
    assert whole["completion"]["choices"][0]["message"]["parts"][0]["text"]["text"] == "You said: Hi"
    assert refused["status"]["reason"] == "MODEL_NOT_FOUND"
    for line in receiver.lines():
        VALIDATOR.validate(line)

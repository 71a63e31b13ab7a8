"""`otlp:`: records as spans, to a real receiver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from tests.gateway import create, gateway, until
from tests.telemetry.receiver import Collector, Receiver, calls, receiver
from tests.traces.samples import NOON, duration, record, sample, timestamp, trace_id
from tests.traces.writing import Taken, WritingContract

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendError, BackendUnavailable
from trunkline_server.traces.otlp.content import MOST_CHARACTERS
from trunkline_server.traces.otlp.sink import Refused

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(params=["", "?content=1"])
async def taken(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Taken]:
    collector = Collector()
    backend = open_backend(f"otlp://127.0.0.1:{collector.port}{request.param}", tmp_path)
    made = Taken(backend, backend.sink(), collector)
    await made.sink.open()
    try:
        yield made
    finally:
        await made.sink.aclose()
        await collector.stop()


class TestWriting(WritingContract):
    """Each of its tests, without and with what was said."""


async def exported(*traces: trace_pb2.Trace, query: str = "") -> Receiver:
    with receiver() as to:
        sink = open_backend(to.url.replace("http:", "otlp:") + query, Path()).sink()
        await sink.write([record(trace) for trace in traces])
        await sink.aclose()
    return to


def two_attempts(**facts: Any) -> trace_pb2.Trace:
    trace = sample(start_us=NOON, duration_us=900_000, **facts)
    first = trace.attempts[0]
    first.endpoint, first.reason, first.message = "https://api.openai.com/v1/chat/completions", "LLM_RATE_LIMITED", "no"
    first.upstream_status = 429
    first.duration.CopyFrom(duration(200_000))
    second = trace.attempts.add(number=2, cause=trace_pb2.ATTEMPT_CAUSE_FALLBACK, provider="anthropic", model="claude")
    second.start_time.CopyFrom(timestamp(NOON + 300_000))
    second.duration.CopyFrom(duration(500_000))
    second.time_to_first_event.CopyFrom(duration(100_000))
    second.usage.CopyFrom(trace.usage)
    return trace


async def test_a_call_is_a_span_and_each_attempt_one_below_it() -> None:
    to = await exported(two_attempts(labels={"team": "search"}))
    [call] = calls(to)
    first, second = to.below(call)

    assert [one.span.kind for one in (call, first, second)] == [2, 3, 3]
    assert [one.name for one in (call, first, second)] == ["chat gpt-5.2", "chat gpt-5.2", "chat claude"]
    assert [round(one.seconds, 6) for one in (call, first, second)] == [0.9, 0.2, 0.5]
    assert call.span.start_time_unix_nano == NOON * 1000
    said = call.attributes
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.temperature"] == 0.5
    assert said["gen_ai.response.time_to_first_chunk"] == 0.45
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (12, 34)
    assert (said["trunkline.usage.source"], said["trunkline.usage.cost_usd"]) == ("reported", 1_500 / 1e9)
    assert (said["trunkline.caller"], said["trunkline.label.team"]) == ("checkout", "search")
    assert said["rpc.response.status_code"] == "OK"
    assert (first.status, first.attributes["error.type"]) == ("ERROR", "LLM_RATE_LIMITED")
    assert first.attributes["http.response.status_code"] == 429
    assert (first.attributes["server.address"], first.attributes["server.port"]) == ("api.openai.com", 443)
    assert second.status == "UNSET"
    assert second.attributes["trunkline.attempt.cause"] == "fallback"
    assert second.attributes["gen_ai.response.time_to_first_chunk"] == 0.1
    assert call.resource["service.name"] == "trunkline"


async def test_ids_are_the_same_each_time_and_the_trace_is_named_after_the_call() -> None:
    trace = two_attempts()
    once, again = await exported(trace), await exported(trace)

    assert [(one.trace, one.id, one.parent) for one in once.spans] == [
        (one.trace, one.id, one.parent) for one in again.spans
    ]
    assert len({one.id for one in once.spans}) == 3
    assert "cmpl_" + calls(once)[0].trace == trace.name.removeprefix("traces/")


@pytest.mark.parametrize(
    ("ids", "parent", "kind"),
    [
        ({}, "", 2),
        ({"otel_trace_id": TRACE, "otel_parent_span_id": SPAN}, SPAN, 2),
        # The server's own span was exported: this one is a part of it.
        ({"otel_trace_id": TRACE, "otel_span_id": SPAN, "otel_parent_span_id": "aa" * 8}, SPAN, 1),
    ],
)
async def test_a_call_with_w3c_ids_is_where_they_say(ids: dict[str, str], parent: str, kind: int) -> None:
    to = await exported(two_attempts(**ids))
    [call] = calls(to)

    assert (call.parent, call.span.kind) == (parent, kind)
    assert {one.trace for one in to.spans} == {call.trace}
    assert (call.trace == TRACE) is bool(ids)
    assert call.id not in (SPAN, "aa" * 8)


@pytest.mark.parametrize(
    ("facts", "status", "error", "attempt"),
    [
        ({}, "UNSET", "", ""),
        ({"code": 3, "reason": "LLM_BAD_REQUEST"}, "UNSET", "", "LLM_BAD_REQUEST"),
        ({"code": 14, "reason": "LLM_CONNECTION"}, "ERROR", "LLM_CONNECTION", "LLM_CONNECTION"),
        ({"code": 1, "reason": "CANCELLED", "cancelled": True}, "UNSET", "", "CANCELLED"),
        ({"code": 4, "reason": "GATEWAY_TIMEOUT"}, "ERROR", "GATEWAY_TIMEOUT", "GATEWAY_TIMEOUT"),
        ({"code": None, "duration_us": None}, "ERROR", "INTERRUPTED", "INTERRUPTED"),
    ],
)
async def test_a_span_says_how_the_call_ended(facts: dict[str, Any], status: str, error: str, attempt: str) -> None:
    to = await exported(sample(**facts))
    [call] = calls(to)
    [below] = to.below(call)

    assert (call.status, call.attributes.get("error.type", "")) == (status, error)
    assert below.attributes.get("error.type", "") == attempt
    assert below.status == ("UNSET" if attempt in ("", "CANCELLED") else "ERROR")
    assert call.seconds >= 0


async def test_nothing_of_what_was_said_leaves_unless_it_is_asked_for() -> None:
    secret = "what the user said"
    trace = sample(said=secret, error=secret, code=13, reason="INTERNAL")
    trace.completion_spec.extra_system_text = secret
    trace.completion_spec.tools.add().function.description = secret
    trace.attempts[0].message = secret

    assert secret not in (await exported(trace)).text
    assert secret in (await exported(trace, query="?content=1")).text


async def test_content_has_the_shape_of_the_conventions() -> None:
    part, role = message_pb2.ContentPart, message_pb2
    trace = sample(said="Hi")
    spec = trace.completion_spec
    spec.messages.insert(0, message_pb2.Message(role=role.ROLE_SYSTEM, parts=[part(text=message_pb2.Text(text="Be."))]))
    call = message_pb2.ToolCall(id="c1", name="weather", arguments_json='{"city": "Paris"}')
    broken = message_pb2.ToolCall(id="c2", name="weather", arguments_json='{"city"')
    result = message_pb2.ToolResult(tool_call_id="c1", parts=[part(text=message_pb2.Text(text="rain"))])
    spec.messages.add(role=role.ROLE_ASSISTANT, parts=[part(tool_call=call), part(tool_call=broken)])
    spec.messages.add(role=role.ROLE_TOOL, parts=[part(tool_result=result)])
    spec.messages.add(
        role=role.ROLE_USER,
        parts=[
            part(image=message_pb2.Media(uri="https://x/y.png", mime_type="image/png")),
            part(document=message_pb2.Media(data=b"%PDF", mime_type="application/pdf")),
            part(opaque=message_pb2.OpaqueBlock(type="compaction", json='{"secret": 1}')),
        ],
    )
    function = completion_pb2.FunctionTool(
        name="weather", description="it", parameters_json_schema='{"type": "object"}'
    )
    spec.tools.add(function=function)
    choice = trace.completion.choices[0]
    choice.message.parts.insert(0, part(reasoning=message_pb2.Reasoning(text="Hm.")))
    choice.finish_reason = completion_pb2.FINISH_REASON_TOOL_CALLS
    [seen] = calls(await exported(trace, query="?content=1"))
    said = {name: json.loads(text) for name, text in seen.attributes.items() if str(text).startswith("[{")}

    assert said["gen_ai.system_instructions"] == [{"type": "text", "content": "Be."}]
    user, asked, answered, media = said["gen_ai.input.messages"]
    assert user == {"role": "user", "parts": [{"type": "text", "content": "Say: Hi"}]}
    assert asked["parts"] == [
        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}},
        {"type": "tool_call", "id": "c2", "name": "weather", "arguments": '{"city"'},
    ]
    assert answered == {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}]}
    assert media["parts"] == [
        {"type": "uri", "modality": "image", "mime_type": "image/png", "uri": "https://x/y.png"},
        {"type": "media", "modality": "document", "mime_type": "application/pdf", "bytes": 4},
        {"type": "compaction"},
    ]
    [output] = said["gen_ai.output.messages"]
    assert output["finish_reason"] == "tool_call"
    assert output["parts"] == [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "Hi"}]
    assert said["gen_ai.tool.definitions"] == [
        {"type": "function", "name": "weather", "description": "it", "parameters": {"type": "object"}}
    ]


async def test_content_that_is_too_long_is_cut_and_said_so() -> None:
    [seen] = calls(await exported(sample(said="x" * 2_000_000), query="?content=1"))

    assert seen.attributes["trunkline.content.truncated"] is True
    assert len(seen.attributes["gen_ai.input.messages"]) == MOST_CHARACTERS


async def test_the_parameters_that_were_asked_for_are_told() -> None:
    trace = sample()
    params = trace.completion_spec.params
    params.max_output_tokens, params.seed, params.n, params.top_k = 99, 2**40, 2, 5
    params.stop_sequences.append("END")
    params.reasoning.effort = generation_pb2.REASONING_EFFORT_HIGH
    [seen] = calls(await exported(trace))
    said = {name.removeprefix("gen_ai.request."): value for name, value in seen.attributes.items()}

    assert (said["max_tokens"], said["seed"], said["choice.count"], said["top_k"]) == (99, 2**40, 2, 5)
    assert (said["stop_sequences"], said["reasoning.level"]) == (["END"], "high")


# -- the receiver's side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (grpc.StatusCode.UNAVAILABLE, BackendUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, BackendUnavailable),
        (grpc.StatusCode.UNAUTHENTICATED, BackendUnavailable),
        (grpc.StatusCode.INVALID_ARGUMENT, Refused),
    ],
)
async def test_what_the_receiver_refuses_for_good_is_told_apart(code: grpc.StatusCode, raised: type[Exception]) -> None:
    with receiver() as to:
        to.refusing = code
        sink = open_backend(to.url.replace("http:", "otlp:"), Path()).sink()
        with pytest.raises(raised, match=f"answers {code.name}: not now"):
            await sink.write([record(sample())])
        await sink.aclose()


async def test_spans_that_the_receiver_rejects_are_told() -> None:
    with receiver() as to:
        to.rejects = 2
        sink = open_backend(to.url.replace("http:", "otlp:"), Path()).sink()
        with pytest.raises(Refused, match="rejects 2 spans: too odd"):
            await sink.write([record(sample())])
        await sink.aclose()


async def test_it_speaks_tls_and_sends_headers_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    monkeypatch.setenv("COLLECTOR_HEADERS", "x-api-key=key%20of-the-collector, x-tenant=7")
    with receiver(credentials) as to:
        url = f"otlps://{to.url.removeprefix('https://')}?ca_file={tmp_path}/ca.pem&headers_env=COLLECTOR_HEADERS"
        backend = open_backend(url, tmp_path)
        sink = backend.sink()
        await sink.write([record(sample())])
        await sink.aclose()

    assert (to.metadata[0]["x-api-key"], to.metadata[0]["x-tenant"]) == ("key of-the-collector", "7")
    assert "of-the-collector" not in to.text
    assert "of-the-collector" not in repr(vars(backend))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("otlp:", "write otlp://HOST:PORT"),
        ("otlp://:4317", "write otlp://HOST:PORT"),
        ("otlp://h:99999", "write otlp://HOST:PORT"),
        ("otlp://user:secret-word@h", "write otlp://HOST:PORT, and headers"),
        ("otlps://h/v1/traces", "write otlps://HOST:PORT"),
        ("otlp://h?content=yes", "content is 'yes'"),
        ("otlp://h?headers=a", "no option 'headers'"),
        ("otlp://h?headers_env=NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
        ("otlp://h?ca_file=/x", "ca_file is for otlps:"),
        ("otlps://h?ca_file=/no/file", "cannot read /no/file"),
    ],
)
def test_a_wrong_url_is_told(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=told) as raised:
        open_backend(url, tmp_path)

    assert "secret-word" not in str(raised.value)


def test_the_usual_port_need_not_be_written(tmp_path: Path) -> None:
    assert open_backend("otlp://collector", tmp_path)._target.address == "collector:4317"  # type: ignore[attr-defined]  # its own
    assert open_backend("otlp://[::1]", tmp_path)._target.address == "[::1]:4317"  # type: ignore[attr-defined]  # as above


def test_an_id_that_is_none_of_ours_makes_ids_too() -> None:
    from trunkline_server.traces.otlp import spans

    made = {spans.trace_id(record(sample(id=name))) for name in ("x", "cmpl_xyz", trace_id(0), trace_id(5))}

    assert len(made) == 4
    assert all(len(one) == 16 and any(one) for one in made)


# -- with the whole gateway -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spans", [False, True], ids=["alone", "below the server's spans"])
async def test_calls_of_a_gateway_are_in_the_callers_trace(tmp_path: Path, spans: bool) -> None:
    with receiver() as to:
        traces = [to.url.replace("http:", "otlp:")]
        otel = {"endpoint": to.url} if spans else {}
        async with gateway(state_dir=tmp_path / "state", traces=traces, otel=otel) as gw:
            answer = await gw.complete(create("fake/echo"), metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),))
            await until(lambda: any(seen.scope == "trunkline.traces" for seen in to.spans))

    [call] = [seen for seen in to.spans if seen.scope == "trunkline.traces" and seen.span.kind != 3]
    assert (call.trace, call.attributes["trunkline.call.id"]) == (TRACE, answer.id)
    if spans:
        [server] = to.servers
        assert (server.parent, call.parent) == (SPAN, server.id)
    else:
        assert call.parent == SPAN
    assert len({seen.id for seen in to.spans}) == len(to.spans)

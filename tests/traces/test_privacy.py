"""What a record keeps of what was said, and that no secret is in it: searched for on the disk, in every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.gateway import Gateway, create, failing, script, stream
from tests.traces.recorded import everything, found, recorded
from tests.upstream import says, upstream

from trunkline.v1 import completion_pb2, embedding_service_pb2

FULL, NO_CONTENT, OFF = (
    completion_pb2.CAPTURE_FULL,
    completion_pb2.CAPTURE_NO_CONTENT,
    completion_pb2.CAPTURE_OFF,
)
SAID = "the patient's name is Zoltan Karpathy"
#: Nothing is delivered there: all that there is lies in the spool.
NOWHERE = "sqlite:/proc/no/such/place.db"


async def _talk(server: Gateway, capture: completion_pb2.Capture.ValueType) -> None:
    """Says SAID in every way that there is."""
    options = completion_pb2.CallOptions(capture=capture)
    await server.complete(create("fake/echo", SAID, options=options, extra_system_text=SAID))
    await server.stream(stream("fake/echo", SAID, options=options)).rest()
    await failing(
        server.complete(
            create(
                "fake/script",
                SAID,
                options=options,
                provider_options_json=script(status=400, error={"message": f"not allowed: {SAID}", "code": "refused"}),
            )
        )
    )
    await failing(server.complete(create("fake/echo", SAID, options=options, params={"temperature": -9})))
    left = server.stream(
        stream(
            "fake/script",
            SAID,
            options=options,
            provider_options_json=script(text=SAID, reasoning=SAID, word_delay=0.2),
        )
    )
    await left.until("part_delta")
    left.call.cancel()
    vectors = embedding_service_pb2.CreateEmbeddingsRequest(options=options)
    vectors.spec.model = "fake/vectors"
    vectors.spec.inputs.add(text=SAID)
    await server.embeddings.CreateEmbeddings(vectors)
    await server.idle()


async def test_full_capture_keeps_what_was_said(tmp_path: Path):
    async with recorded(tmp_path, backends=[NOWHERE]) as server:
        await _talk(server, FULL)
    assert SAID.encode() in everything(tmp_path)


async def test_without_content_nothing_that_was_said_reaches_the_disk(tmp_path: Path):
    async with recorded(tmp_path, backends=[NOWHERE]) as server:
        await _talk(server, NO_CONTENT)
    held = everything(tmp_path)
    assert b"fake/echo" in held
    for word in ("patient", "Zoltan", "Karpathy"):
        assert word.encode() not in held, word


async def test_without_content_all_else_is_kept(tmp_path: Path):
    async with recorded(tmp_path, traces={"capture": "no_content"}) as server:
        await _talk(server, completion_pb2.CAPTURE_UNSPECIFIED)
        said, streamed, refused, invalid, left, vectors = await found(server, 6)
    assert {trace.capture for trace in (said, streamed, refused, invalid, left, vectors)} == {NO_CONTENT}
    assert said.completion_spec.model == "fake/echo"
    assert (said.completion.provider, said.completion.id) == ("fake", said.name.removeprefix("traces/"))
    assert said.completion.usage == said.usage
    assert not said.completion.choices
    assert said.usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert streamed.events > 3
    assert (refused.status.reason, refused.status.message) == ("LLM_BAD_REQUEST", "")
    assert refused.status.detail.provider_code == "refused"
    assert refused.attempts[0].upstream_status == 400
    assert (invalid.status.reason, invalid.completion_spec.params.temperature) == ("INVALID_REQUEST", -9)
    assert left.usage.source == completion_pb2.USAGE_SOURCE_ESTIMATED
    assert left.usage.input_tokens == -(-len(SAID) // 4)
    assert vectors.embeddings.usage == vectors.usage
    assert vectors.embedding_spec.model == "fake/vectors"
    assert not vectors.embeddings.embeddings


async def test_capture_off_keeps_only_that_there_was_a_call(tmp_path: Path):
    async with recorded(tmp_path) as server:
        options = completion_pb2.CallOptions(capture=OFF)
        asked = create("fake/echo", SAID, options=options, labels={"secret": "label"}, request_id="secret-id")
        answer = await server.complete(asked)
        [trace] = await found(server, 1)
    kept = {field.name for field, _ in trace.ListFields()}
    assert kept == {"name", "state", "method", "start_time", "caller", "status", "capture"}
    assert trace.name == f"traces/{answer.id}"
    assert SAID.encode() not in everything(tmp_path)


async def test_a_call_may_ask_for_more_than_the_servers_level(tmp_path: Path):
    async with recorded(tmp_path, traces={"capture": "off"}) as server:
        await server.complete(create("fake/echo", SAID))
        await server.complete(create("fake/echo", SAID, options=completion_pb2.CallOptions(capture=FULL)))
        bare, full = await found(server, 2)
    assert bare.capture == OFF
    assert full.completion_spec.messages[0].parts[0].text.text == SAID


# -- secrets ----------------------------------------------------------------------------------------------------------

HOUSE = "house-key-0123456789"


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("HOUSE_KEY", HOUSE)
    return {"provider": {"api_key_env": "HOUSE_KEY"}}


SECRETS = ("sk-proj-abcdefghijklmnop0123456789", "AKIAIOSFODNN7EXAMPLE", HOUSE, "ticket-4711")


async def test_secrets_are_masked_wherever_they_were_said(tmp_path: Path, house: dict[str, Any]):
    said = " and ".join(SECRETS)
    async with (
        upstream(says("It is ", said[:30], said[30:])) as up,
        recorded(tmp_path, up, **house, traces={"redact": ["ticket-[0-9]+"]}) as server,
    ):
        await server.complete(create("up/up-1", said, labels={"note": said}))
        reader = await server.stream(stream("up/up-1", said)).rest()
        assert said in reader.text  # the caller gets what the provider said
        for trace in await found(server, 2):
            told = trace.SerializeToString()
            for secret in SECRETS:
                assert secret.encode() not in told
            assert b"***" in trace.attempts[0].request.body
            assert b"***" in trace.attempts[0].response.body
            assert "***" in trace.completion.choices[0].message.parts[0].text.text
            assert "***" in trace.completion_spec.messages[0].parts[0].text.text
    held = everything(tmp_path)
    for secret in SECRETS:
        assert secret.encode() not in held, secret


async def test_what_was_masked_stays_what_it_was(tmp_path: Path):
    async with upstream(says("fine")) as up, recorded(tmp_path, up) as server:
        odd = 'grüße 世界 🎉 "quoted" \\ back\nnew'
        await server.complete(create("up/up-1", f"{odd} {SECRETS[0]}"))
        [trace] = await found(server, 1)
        [sent] = up.exchanges
    assert trace.completion_spec.messages[0].parts[0].text.text == f"{odd} sk-***"
    assert trace.attempts[0].request.body == sent.body.replace(SECRETS[0].encode(), b"sk-***")


async def test_secrets_in_errors_are_masked(tmp_path: Path, house: dict[str, Any]):
    async def refuses(exchange: Any) -> None:
        told = f"Incorrect API key provided: {HOUSE}; try {SECRETS[0]}"
        await exchange.answer({"error": {"message": told, "code": "invalid_api_key"}}, 401)

    async with upstream(refuses) as up, recorded(tmp_path, up, **house) as server:
        await failing(server.complete(create()))
        [trace] = await found(server, 1)
    told = trace.SerializeToString()
    assert HOUSE.encode() not in told
    assert SECRETS[0].encode() not in told
    assert trace.attempts[0].response.body.count(b"***") == 2
    assert "***" in trace.attempts[0].message


# -- size -------------------------------------------------------------------------------------------------------------


async def test_bodies_are_cut_to_their_limit_and_say_so(tmp_path: Path):
    async with (
        upstream(says("x" * 30_000)) as up,
        recorded(tmp_path, up, traces={"body_bytes": 20_000}) as server,
    ):
        await server.complete(create("up/up-1", "y" * 30_000))
        await server.stream(stream("up/up-1", "y")).rest()
        unary, streamed = await found(server, 2)
    for trace, request in ((unary, True), (streamed, False)):
        [attempt] = trace.attempts
        assert attempt.response.truncated
        assert attempt.request.truncated is request
        assert len(attempt.response.body) <= 20_000
        assert len(attempt.request.body) <= 20_000
        assert trace.truncated
        # The record as a whole has four times as much.
        assert trace.completion.choices[0].message.parts[0].text.text == "x" * 30_000
    assert unary.completion_spec.messages[0].parts[0].text.text.startswith("y" * 1000)


async def test_a_record_is_cut_to_its_limit_and_what_is_cut_is_what_is_longest(tmp_path: Path):
    async with (
        upstream(says("fine")) as up,
        recorded(tmp_path, up, traces={"body_bytes": 20_000}) as server,
    ):
        await server.complete(create("up/up-1", "short", "y" * 500_000))
        await server.complete(create("up/up-1", *[f"message {n}" for n in range(9000)]))
        one_long, many = await found(server, 2)
    for trace in (one_long, many):
        assert trace.truncated
        assert trace.ByteSize() <= 80_000
        assert trace.completion.choices[0].message.parts[0].text.text == "fine"
    assert [len(m.parts[0].text.text) > 10 for m in one_long.completion_spec.messages] == [False, True]
    assert many.completion_spec.messages[0].parts[0].text.text == "message 0"
    assert many.completion_spec.messages[-1].parts[0].text.text == "message 8999"
    assert many.request_bytes > 100_000


async def test_a_secret_at_a_cut_leaves_no_half(tmp_path: Path):
    secret = "sk-proj-" + "a1B2" * 20
    async with (
        upstream(says("x" * 9_900 + " " + secret + "y" * 9_000)) as up,
        recorded(tmp_path, up, traces={"body_bytes": 10_100}) as server,
    ):
        await server.complete(create("up/up-1"))
        [trace] = await found(server, 1)
    assert trace.attempts[0].response.truncated
    assert secret[:12].encode() not in trace.SerializeToString()


# -- what lies on disk meanwhile --------------------------------------------------------------------------------------


async def test_what_is_delivered_leaves_the_spool(tmp_path: Path):
    async with recorded(tmp_path) as server:
        await server.complete(create("fake/echo", SAID))
        await found(server, 1)
    assert SAID.encode() not in everything(tmp_path / "spool")


async def test_nobody_else_can_read_the_spool(tmp_path: Path):
    async with recorded(tmp_path / "state", backends=[NOWHERE]) as server:
        await server.complete(create("fake/echo", SAID))
    for path in (tmp_path / "state" / "spool").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path

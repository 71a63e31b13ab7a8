# Written by tools/unasync.py from tests/_async/test_streams.py: change that file, then `make generate`.
"""Streams: events, text, collecting, breaking off, going wrong."""

import grpc
import pytest
from fake_gateway import Failure, FakeGateway, Silence, hello, hello_events, numbered

from trunkline import (
    Cancelled,
    Client,
    RateLimited,
    StreamIncomplete,
    StreamRuleBroken,
    TrunklineError,
    Unavailable,
    text_of,
)
from trunkline.v1.completion_service_pb2 import (
    CancelCompletionResponse,
    CompletionRestarted,
    Heartbeat,
    StreamCompletionResponse,
    StreamOptions,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def left(gateway: FakeGateway) -> None:
    """Returns when the gateway's first call is over. The event loop must run meanwhile."""
    gateway.wait_for(0)


def test_the_events_come_as_they_were_sent(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        events = [event for event in client.stream("a", model="m")]

    assert events == hello_events()


def test_the_text_comes_piece_by_piece(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        assert [piece for piece in client.stream("a", model="m").text()] == ["Hello", " there."]


def begun_again(after: int) -> list[StreamCompletionResponse]:
    """A stream that begins again after so many events."""
    whole = [getattr(event, event.WhichOneof("event") or "") for event in hello_events()]
    return numbered(*whole[:after], CompletionRestarted(attempt=2), *whole[1:])


def test_a_text_that_was_given_out_does_not_begin_again(gateway: FakeGateway) -> None:
    gateway.answers.append(begun_again(4))
    with Client(gateway.address) as client:
        text = client.stream("a", model="m").text()
        assert next(text) == "Hello"
        with pytest.raises(RuntimeError, match="began again"):
            next(text)


def test_an_answer_that_begins_again_before_its_text_is_a_text(gateway: FakeGateway) -> None:
    gateway.answers.append(begun_again(2))
    with Client(gateway.address) as client:
        assert [piece for piece in client.stream("a", model="m").text()] == ["Hello", " there."]


def test_a_collected_stream_is_the_unary_completion(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        collected = client.stream("a", model="m").collect()
        unary = client.complete("a", model="m")

    assert collected == unary


def test_a_stream_that_was_read_gives_its_completion(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client, client.stream("a", model="m") as stream:
        for _ in stream.text():
            pass
        assert stream.completion == hello()
        assert stream.collect() == hello()


def test_a_stream_is_read_once(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        stream = client.stream("a", model="m")
        stream.collect()
        with pytest.raises(RuntimeError, match="read once"):
            for _ in stream:
                pass


def test_a_stream_has_the_longer_deadline(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        client.stream("a", model="m").collect()
        client.stream("a", model="m", timeout=9).collect()
    with Client(gateway.address, stream_timeout=99) as client:
        client.stream("a", model="m").collect()

    # gRPC rounds what it sends.
    assert [call.time_left for call in gateway.calls] == pytest.approx([1800, 9, 99], rel=0.02)


def test_the_request_holds_the_options_of_the_stream(gateway: FakeGateway) -> None:
    options = StreamOptions(include_completion=True)
    with Client(gateway.address) as client:
        client.stream("Hi", model="m", stream_options=options, metadata={"A": "b"}, request_id="r").collect()

    call = gateway.calls[0]
    assert call.request.stream_options == options
    assert (call.request.spec.model, call.request.request_id, call.metadata["a"]) == ("m", "r", "b")


def test_leaving_the_loop_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    with Client(gateway.address) as client:
        stream = client.stream("a", model="m")
        for event in stream:
            if event.HasField("part_delta"):
                break
        left(gateway)
        assert text_of(stream.completion) == "Hello"


def test_leaving_the_text_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    with Client(gateway.address) as client:
        for piece in client.stream("a", model="m").text():
            assert piece == "Hello"
            break
        left(gateway)


def test_leaving_the_block_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    with Client(gateway.address) as client:
        with client.stream("a", model="m") as stream:
            events = iter(stream)
            next(events)
        left(gateway)


def test_an_exception_in_the_loop_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    with Client(gateway.address) as client:
        with pytest.raises(KeyError):  # noqa: PT012  # the loop is what is tested
            with client.stream("a", model="m") as stream:
                for _ in stream:
                    raise KeyError
        left(gateway)


def test_a_stream_closed_before_it_is_read_makes_no_call(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        stream = client.stream("a", model="m")
        stream.close()
        with pytest.raises(Cancelled):
            stream.collect()

    assert gateway.calls == []


def test_a_stream_that_ends_without_finished_is_incomplete(gateway: FakeGateway) -> None:
    gateway.answers.append(hello_events()[:-1])
    with Client(gateway.address) as client:
        with pytest.raises(StreamIncomplete) as caught:
            client.stream("a", model="m").collect()

    assert caught.value.completion is not None
    assert text_of(caught.value.completion) == "Hello there."


def test_reading_the_text_alone_notices_the_missing_end_too(gateway: FakeGateway) -> None:
    gateway.answers.append(hello_events()[:5])
    with Client(gateway.address) as client:
        with pytest.raises(StreamIncomplete):
            for _ in client.stream("a", model="m").text():
                pass


def test_a_broken_rule_ends_the_call(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:2], *hello_events()[3:4], Silence()])
    with Client(gateway.address) as client:
        with pytest.raises(StreamRuleBroken, match="event number 4 after 2"):
            client.stream("a", model="m").collect()
        left(gateway)


def test_an_error_after_the_first_event_keeps_what_came(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Failure(UNAVAILABLE, reason="LLM_CONNECTION")])
    with Client(gateway.address) as client:
        with pytest.raises(Unavailable) as caught:
            client.stream("a", model="m").collect()

    assert caught.value.completion is not None
    assert text_of(caught.value.completion) == "Hello"
    assert len(gateway.calls) == 1


def test_unavailable_before_the_first_event_is_tried_again(gateway: FakeGateway) -> None:
    gateway.answers.extend([Failure(UNAVAILABLE, reason="SHUTTING_DOWN"), hello_events()])
    with Client(gateway.address) as client:
        assert client.stream("a", model="m").collect() == hello()

    assert len(gateway.calls) == 2


def test_a_pushback_of_minus_one_holds_for_streams(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(UNAVAILABLE, reason="LLM_OVERLOADED", pushback=-1))
    with Client(gateway.address) as client:
        with pytest.raises(Unavailable):
            client.stream("a", model="m").collect()

    assert len(gateway.calls) == 1


def test_a_rate_limit_before_the_first_event_can_be_waited_for(gateway: FakeGateway) -> None:
    gateway.answers.extend([Failure(EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=0.05), hello_events()])
    with Client(gateway.address, rate_limit_retries=1) as client:
        assert client.stream("a", model="m").collect() == hello()

    assert len(gateway.calls) == 2


def test_a_rate_limit_after_the_first_event_cannot(gateway: FakeGateway) -> None:
    limit = Failure(EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=0.01)
    gateway.answers.append([*hello_events()[:3], limit])
    with Client(gateway.address, rate_limit_retries=3) as client:
        with pytest.raises(RateLimited):
            client.stream("a", model="m").collect()

    assert len(gateway.calls) == 1


def test_heartbeats_are_events_and_no_text(gateway: FakeGateway) -> None:
    head, tail = hello_events()[:4], hello_events()[4:]
    for event in tail:
        event.sequence_number += 1
    gateway.answers.append([*head, *numbered(Heartbeat(), first=5), *tail])
    with Client(gateway.address) as client:
        assert [piece for piece in client.stream("a", model="m").text()] == ["Hello", " there."]


def test_many_streams_run_side_by_side(gateway: FakeGateway) -> None:
    with Client(gateway.address) as client:
        streams = [iter(client.stream("a", model="m")) for _ in range(10)]
        for stream in streams:
            assert (next(stream)).HasField("started")
        for stream in streams:
            assert len([event for event in stream]) == len(hello_events()) - 1


# -- streams that survive their connection ----------------------------------------------------------------------------

RESUMABLE = StreamOptions(resumable=True)


def resumable_events() -> list[StreamCompletionResponse]:
    """As `hello_events`, of a stream whose events are kept."""
    events = hello_events()
    events[0].started.resumable = True
    return events


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_resumable_stream_goes_on_where_its_connection_broke(gateway: FakeGateway, after: int) -> None:
    events = resumable_events()
    gateway.answers.extend([[*events[:after], Failure(UNAVAILABLE)], events[after:]])
    with Client(gateway.address) as client:
        stream = client.stream("a", model="m", stream_options=RESUMABLE)
        seen = [event for event in stream]

    assert seen == events
    first, second = gateway.calls
    assert first.request.HasField("spec")
    assert second.request.resume.completion_id == events[0].started.completion_id
    assert second.request.resume.after_sequence_number == after
    assert not second.request.HasField("stream_options")
    assert second.request.request_id == first.request.request_id


def test_a_stream_that_was_resumed_collects_to_the_same(gateway: FakeGateway) -> None:
    events = resumable_events()
    gateway.answers.extend(
        [[*events[:2], Failure(UNAVAILABLE)], Failure(UNAVAILABLE, reason="SHUTTING_DOWN"), events[2:]]
    )
    with Client(gateway.address) as client:
        completion = client.stream("a", model="m", stream_options=RESUMABLE).collect()

    assert text_of(completion) == "Hello there."


def test_a_stream_that_is_resumed_in_vain_is_given_up(gateway: FakeGateway) -> None:
    events = resumable_events()
    gateway.answers.extend([[*events[:3], Failure(UNAVAILABLE)], Failure(UNAVAILABLE, pushback=-1)])
    with Client(gateway.address) as client:
        with pytest.raises(Unavailable) as caught:
            client.stream("a", model="m", stream_options=RESUMABLE).collect()

    assert caught.value.completion is not None
    assert len(gateway.calls) == 6


@pytest.mark.parametrize(
    ("code", "reason"),
    [(UNAVAILABLE, "LLM_CONNECTION"), (UNAVAILABLE, "COMPLETION_LOST"), (grpc.StatusCode.CANCELLED, "CANCELLED")],
)
def test_a_completion_that_failed_is_not_resumed(gateway: FakeGateway, code: grpc.StatusCode, reason: str) -> None:
    gateway.answers.append([*resumable_events()[:3], Failure(code, reason=reason)])
    with Client(gateway.address) as client:
        with pytest.raises(TrunklineError) as caught:
            client.stream("a", model="m", stream_options=RESUMABLE).collect()

    assert caught.value.reason == reason
    assert [call.method for call in gateway.calls] == ["StreamCompletion"]


def test_leaving_a_resumable_stream_stops_its_completion(gateway: FakeGateway) -> None:
    events = resumable_events()
    gateway.answers.extend([[*events[:4], Silence()], CancelCompletionResponse()])
    with (
        Client(gateway.address) as client,
        client.stream("a", model="m", stream_options=RESUMABLE) as stream,
    ):
        for event in stream:
            if event.HasField("part_delta"):
                break

    assert [call.method for call in gateway.calls] == ["StreamCompletion", "CancelCompletion"]
    assert gateway.calls[1].request.completion_id == events[0].started.completion_id


def test_a_stream_that_was_read_to_its_end_is_not_cancelled(gateway: FakeGateway) -> None:
    gateway.answers.append(resumable_events())
    with (
        Client(gateway.address) as client,
        client.stream("a", model="m", stream_options=RESUMABLE) as stream,
    ):
        stream.collect()

    assert len(gateway.calls) == 1


def test_a_stream_of_another_program_is_read_from_its_start(gateway: FakeGateway) -> None:
    gateway.answers.append(resumable_events())
    with Client(gateway.address) as client:
        completion = client.resume("cmpl_7").collect()

    assert text_of(completion) == "Hello there."
    assert gateway.calls[0].request.resume.completion_id == "cmpl_7"

"""`trunkline traces`, as a person or a script runs it."""

import json
import re
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from command_line import ask, at_a_terminal, started
from fake_gateway import PATIENCE, Failure, FakeGateway, Silence
from google.protobuf.json_format import Parse, ParseDict

from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb

pytest.importorskip("typer")
pytest.importorskip("rich")

ID = "cmpl_" + "0123456789abcdef" * 2


def said(text: str) -> dict[str, Any]:
    return {"text": {"text": text}}


def record(**changes: Any) -> trace_pb2.Trace:
    """A call whose first attempt met a rate limit, and whose second answered."""
    made: dict[str, Any] = {
        "name": f"traces/{ID}",
        "state": "TRACE_STATE_FINISHED",
        "method": "StreamCompletion",
        "start_time": "2026-01-02T03:04:05.250Z",
        "caller": "checkout",
        "request_id": "order-17",
        "labels": {"team": "blue", "env": "prod"},
        "provider": "anthropic",
        "model": "claude-opus-4-5",
        "asked_model": "careful",
        "streamed": True,
        "events": 42,
        "status": {"code": 0},
        "completion_spec": {
            "model": "careful",
            "messages": [
                {"role": "ROLE_SYSTEM", "parts": [said("Be brief.")]},
                {
                    "role": "ROLE_USER",
                    "parts": [said("Weather in Paris?"), {"image": {"data": "aGVsbG8=", "mime_type": "image/png"}}],
                },
                {
                    "role": "ROLE_ASSISTANT",
                    "parts": [
                        {"reasoning": {"text": "I need the weather."}},
                        {"tool_call": {"id": "c1", "name": "get_weather", "arguments_json": '{"city": "Paris"}'}},
                    ],
                },
                {
                    "role": "ROLE_TOOL",
                    "parts": [{"tool_result": {"tool_call_id": "c1", "parts": [said("18 degrees")]}}],
                },
            ],
        },
        "completion": {
            "choices": [
                {
                    "message": {"role": "ROLE_ASSISTANT", "parts": [said("Take a coat.")]},
                    "finish_reason": "FINISH_REASON_STOP",
                    "raw_finish_reason": "end_turn",
                }
            ]
        },
        "usage": {
            "input_tokens": 1234,
            "output_tokens": 321,
            "cache_read_input_tokens": 1000,
            "source": "USAGE_SOURCE_ESTIMATED",
            "cost_nano_usd": 14_230_000,
        },
        "timing": {"total": "4.210s"},
        "attempts": [
            {
                "number": 1,
                "provider": "openai",
                "model": "gpt-5.2",
                "start_time": "2026-01-02T03:04:05.250Z",
                "duration": "1.2s",
                "reason": "LLM_RATE_LIMITED",
                "upstream_status": 429,
                "response": {"content_type": "application/json", "body": "eyJhIjpbMSwyXX0="},
            },
            {
                "number": 2,
                "cause": "ATTEMPT_CAUSE_FALLBACK",
                "provider": "anthropic",
                "model": "claude-opus-4-5",
                "start_time": "2026-01-02T03:04:06.450Z",
                "duration": "3s",
                "time_to_first_event": "1.5s",
                "upstream_status": 200,
            },
        ],
        **changes,
    }
    return ParseDict(made, trace_pb2.Trace())


def failed() -> trace_pb2.Trace:
    return record(
        status={"code": 14, "reason": "LLM_OVERLOADED", "message": "it has too much to do"}, completion={}, usage={}
    )


# -- list -------------------------------------------------------------------------------------------------------------


def test_records_come_one_a_line_with_tabs_between_their_facts(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.ListTracesResponse(traces=[record(), failed()]))
    done = ask(gateway, "traces", "list")

    assert (done.returncode, done.stderr) == (0, "")
    first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert first == [
        "2026-01-02T03:04:05.250+00:00", ID, "StreamCompletion", "checkout", "anthropic/claude-opus-4-5", "OK", "4.21",
        "1234", "321", "0.01423",
    ]  # fmt: skip
    assert second[5] == "LLM_OVERLOADED"


def test_options_are_the_filter(gateway: FakeGateway) -> None:
    done = ask(
        gateway,
        *("traces", "list", "-n", "7", "--oldest-first", "--since", "2h", "--until", "2026-01-02T03:04:05Z"),
        *("--provider", "openai", "-m", "fast", "--caller", "checkout", "--method", "CreateCompletion"),
        *("--status", "llm_rate_limited", "--label", "team=blue", "--label", "env=a=b", "--min-cost", "0.5"),
        *("--min-duration", "1.5m", "--error", "quota spent"),
    )

    assert done.returncode == 0, done.stderr
    (call,) = gateway.calls
    which = call.request.filter
    assert (call.request.page_size, call.request.order) == (7, pb.TRACE_ORDER_OLDEST_FIRST)
    assert abs(datetime.now(UTC).timestamp() - 7200 - which.start_time.seconds) < 60
    assert which.end_time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert (which.provider, which.model, which.caller, which.method) == (
        "openai", "fast", "checkout", "CreateCompletion",
    )  # fmt: skip
    assert (which.reason, dict(which.labels)) == ("LLM_RATE_LIMITED", {"team": "blue", "env": "a=b"})
    assert (which.min_cost_nano_usd, which.min_duration.seconds, which.error_text) == (5 * 10**8, 90, "quota spent")


@pytest.mark.parametrize(
    ("status", "field", "value"),
    [("ok", "failed", False), ("failed", "failed", True), ("NOT_FOUND", "code", 5), ("0", "code", 0)],
)
def test_a_status_is_asked_for_by_any_of_its_names(gateway: FakeGateway, status: str, field: str, value: Any) -> None:
    ask(gateway, "traces", "list", "--status", status)

    which = gateway.calls[0].request.filter
    assert (which.WhichOneof("status"), getattr(which, field)) == (field, value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], 'write a time ago such as "90s", "2h" or "7d", or a date and time'),
        (["--min-duration", "long"], "write seconds, or a number with s, m or h"),
        (["--label", "blue"], "'blue' is not NAME=VALUE"),
    ],
)
def test_an_option_that_cannot_be_is_told(gateway: FakeGateway, arguments: list[str], message: str) -> None:
    done = ask(gateway, "traces", "list", *arguments)

    assert done.returncode == 2
    assert message in re.sub(r"[\s│]+", " ", done.stderr)
    assert gateway.calls == []


def test_a_list_ends_at_its_limit_and_says_that_there_is_more(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.ListTracesResponse(traces=[record()] * 3, next_page_token="more"))
    done = ask(gateway, "traces", "list", "--limit", "2")

    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "note: there are more than these 2; see --limit\n"


def test_no_records_are_noted(gateway: FakeGateway) -> None:
    done = ask(gateway, "traces", "list")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "note: no records\n")


def test_json_is_one_record_a_line(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.ListTracesResponse(traces=[record(), failed()]))
    done = ask(gateway, "traces", "list", "--json")

    assert [Parse(line, trace_pb2.Trace()) for line in done.stdout.splitlines()] == [record(), failed()]
    assert json.loads(done.stdout.splitlines()[0])["asked_model"] == "careful"


@pytest.mark.parametrize("columns", [80, 100, 130, 200])
def test_at_a_terminal_records_stand_in_columns_that_fit(gateway: FakeGateway, columns: int) -> None:
    gateway.answers.append(pb.ListTracesResponse(traces=[record(), failed()]))
    head, *rows = at_a_terminal(gateway, "traces", "list", columns=columns)

    assert head.split()[:2] == ["time", "id"]
    assert len(rows) == 2
    assert max(len(line) for line in (head, *rows)) <= columns
    for row in rows:
        assert row.startswith(f"01-02 03:04:05 {ID} anthropi") or columns > 130
        assert ID in row
    assert ("$0.0142" in rows[0]) is (columns > 100)


# -- show -------------------------------------------------------------------------------------------------------------


def test_a_call_is_shown_with_all_that_happened(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.GetTraceResponse(trace=record()))
    done = ask(gateway, "traces", "show", ID)

    assert (done.returncode, done.stderr) == (0, "")
    assert gateway.calls[0].request.name == f"traces/{ID}"
    shown = done.stdout.splitlines()
    assert shown == [line.rstrip() for line in shown]
    assert shown[0] == f"{ID}  OK  StreamCompletion  4.21 s  $0.0142"
    for line in (
        "began       2026-01-02 03:04:05.250 +0000",
        "model       anthropic/claude-opus-4-5 (asked for as careful)",
        "labels      env=prod, team=blue",
        "  system     Be brief.",
        "             [image: image/png 5 bytes]",
        '             → get_weather {"city": "Paris"}',
        "             18 degrees",
        "  assistant  Take a coat.",
        "  ended: stop (end_turn)",
        "  input    1,234 tokens (1,000 from the cache)",
        "  counted  estimated",
    ):
        assert line in shown
    first, second = (line for line in shown if line.startswith(("  1 openai", "  2 anthropic")))
    assert first.endswith("1.2 s LLM_RATE_LIMITED 429")
    assert second.endswith("3 s   OK 200 (fallback)")
    # On one time line: the second attempt begins where the first one ends.
    assert first.rindex("░") + 1 == second.index("░")
    assert second.count("░") == pytest.approx(second.count("█"), abs=1)
    assert '"a": [' not in done.stdout


def test_bodies_are_shown_when_they_are_asked_for(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.GetTraceResponse(trace=record()))
    done = ask(gateway, "traces", "show", ID, "--raw")

    assert "attempt 1: response, application/json, 11 bytes" in done.stdout
    assert '"a": [' in done.stdout


def test_a_failure_is_shown_with_its_reason(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.GetTraceResponse(trace=failed()))
    shown = ask(gateway, "traces", "show", ID).stdout

    assert "LLM_OVERLOADED" in shown.splitlines()[0]
    assert "  it has too much to do" in shown
    assert "code    14" in shown


def test_a_call_that_was_cut_off_is_shown_as_such(gateway: FakeGateway) -> None:
    broken = record(state="TRACE_STATE_INTERRUPTED", completion={}, timing={})
    broken.ClearField("status")
    gateway.answers.append(pb.GetTraceResponse(trace=broken))

    assert "interrupted" in ask(gateway, "traces", "show", ID).stdout.splitlines()[0]


def test_what_was_said_has_no_power_over_the_terminal(gateway: FakeGateway) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jred\u202etfel\x9b31m\rover"
    spec = {"messages": [{"role": "ROLE_USER", "parts": [said(evil)]}]}
    status = {"code": 13, "reason": "INTERNAL", "message": evil}
    gateway.answers.append(
        pb.GetTraceResponse(trace=record(completion_spec=spec, caller=evil, labels={evil: evil}, status=status))
    )
    done = ask(gateway, "traces", "show", ID)

    assert "\\x1b[2Jred" in done.stdout
    assert not set("\x1b\x07\x9b\r\u202e") & set(done.stdout)


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_call_is_shown_within_the_terminal(gateway: FakeGateway, columns: int) -> None:
    gateway.answers.append(pb.GetTraceResponse(trace=record()))
    shown = at_a_terminal(gateway, "traces", "show", ID, "--raw", columns=columns)

    assert max(len(line) for line in shown) <= columns
    assert any("LLM_RATE_LIMITED" in line for line in shown)


def test_the_json_of_a_call_is_the_whole_record(gateway: FakeGateway) -> None:
    gateway.answers.append(pb.GetTraceResponse(trace=record()))

    assert Parse(ask(gateway, "traces", "show", ID, "--json").stdout, trace_pb2.Trace()) == record()


def test_a_call_without_a_record_is_told(gateway: FakeGateway) -> None:
    gateway.answers.append(Failure(grpc.StatusCode.NOT_FOUND, "no record of a call of yours", "NOT_FOUND"))
    done = ask(gateway, "traces", "show", ID)

    assert (done.returncode, done.stdout) == (1, "")
    assert "error: NOT_FOUND: no record of a call of yours" in done.stderr
    assert "trunkline traces list" in done.stderr


# -- tail, export, delete ---------------------------------------------------------------------------------------------


def test_calls_are_printed_as_they_end_until_it_is_interrupted(gateway: FakeGateway) -> None:
    gateway.answers.append(
        [
            pb.TailTracesResponse(),
            pb.TailTracesResponse(trace=record()),
            pb.TailTracesResponse(),
            pb.TailTracesResponse(trace=failed(), dropped=3),
            Silence(),
        ]
    )
    with started(gateway, "traces", "tail", "--provider", "anthropic") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        call = gateway.wait_for(0)
        _, err = process.communicate(timeout=PATIENCE)

    assert [line.split("\t")[5] for line in lines] == ["OK", "LLM_OVERLOADED"]
    assert err.splitlines() == [
        "note: following; Ctrl-C ends it",
        "note: lost since they came faster than they were read: 3",
        "interrupted",
    ]
    assert process.returncode == 130
    assert call.request.filter.provider == "anthropic"
    assert call.time_left > 10**6


def test_an_export_is_written_as_it_comes(gateway: FakeGateway, tmp_path: Path) -> None:
    pieces = [pb.ExportTracesResponse(ndjson=b'{"a"'), pb.ExportTracesResponse(ndjson=b":1}\n{}\n", count=2)]
    gateway.answers.append(pieces)
    printed = ask(gateway, "traces", "export", "--since", "7d")
    written = ask(gateway, "traces", "export", "--no-content", "-o", str(tmp_path / "out.ndjson"))
    nowhere = ask(gateway, "traces", "export", "-o", str(tmp_path / "no" / "out"))

    assert (printed.stdout, printed.stderr) == ('{"a":1}\n{}\n', "note: 2 records\n")
    assert (written.stdout, (tmp_path / "out.ndjson").read_bytes()) == ("", b'{"a":1}\n{}\n')
    assert [call.request.view for call in gateway.calls[:2]] == [pb.TRACE_VIEW_FULL, pb.TRACE_VIEW_BASIC]
    assert nowhere.returncode == 1
    assert "No such file or directory" in nowhere.stderr


def test_a_record_is_deleted_only_by_somebody_who_means_it(gateway: FakeGateway) -> None:
    unsure = ask(gateway, "traces", "delete", ID, stdin="n\n")
    sure = ask(gateway, "traces", "delete", ID, stdin="y\n")
    script = ask(gateway, "traces", "delete", ID, "--yes")

    assert unsure.returncode == 1
    assert [call.request.name for call in gateway.calls] == [f"traces/{ID}"] * 2
    assert (sure.stdout, script.stdout) == ("deleted from sqlite\n",) * 2


def test_a_gateway_that_keeps_no_records_is_told() -> None:
    bare = FakeGateway(traces_too=False)
    try:
        done = ask(bare, "traces", "list")
    finally:
        bare.stop()

    assert done.returncode == 1
    assert "keep records, where they can be read" in done.stderr

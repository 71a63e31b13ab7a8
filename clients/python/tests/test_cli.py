"""The command line, as a person or a script runs it."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import grpc
import pytest
from command_line import TRUNKLINE, ask, environment, run, started
from fake_gateway import PATIENCE, Failure, FakeGateway, Silence, hello, hello_events, numbered
from google.protobuf.json_format import Parse
from google.rpc import error_details_pb2 as rpc

from trunkline import __version__
from trunkline.v1.completion_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_REFUSAL, Completion
from trunkline.v1.completion_pb2 import Warning as CompletionWarning
from trunkline.v1.completion_service_pb2 import (
    AttemptStarted,
    ChoiceFinished,
    CompletionFinished,
    CompletionStarted,
    CreateCompletionResponse,
    PartDelta,
    PartFinished,
    PartStarted,
)
from trunkline.v1.message_pb2 import ROLE_ASSISTANT, ROLE_SYSTEM, ROLE_USER, ContentPart, Refusal
from trunkline.v1.model_service_pb2 import (
    CAPABILITY_STREAMING,
    CAPABILITY_TOOLS,
    ListModelsResponse,
    Model,
    UnlistedProvider,
)

pytest.importorskip("typer")
pytest.importorskip("rich")

Code = grpc.StatusCode


def test_help_says_what_there_is() -> None:
    shown = run("--help").stdout

    for word in ("complete", "chat", "models", "health", "--address", "TRUNKLINE_API_KEY", "--timeout", "130"):
        assert word in shown


def test_no_command_shows_the_help() -> None:
    shown = run()

    assert "Usage: trunkline" in shown.stdout + shown.stderr


def test_the_version_is_shown() -> None:
    assert run("--version").stdout == f"trunkline {__version__}\n"


def test_an_answer_is_printed_as_it_is_made(gateway: FakeGateway) -> None:
    done = ask(gateway, "complete", "Say hello.")

    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there.\n", "")
    assert [call.method for call in gateway.calls] == ["StreamCompletion"]


def test_the_options_reach_the_gateway(gateway: FakeGateway) -> None:
    done = run(
        *["--address", gateway.address, "--api-key", "secret", "--timeout", "9", "complete", "Say hello."],
        *["--model", "m", "--system", "Be brief.", "--max-tokens", "5", "--temperature", "0.5", "--no-stream"],
    )

    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    (call,) = gateway.calls
    spec = call.request.spec
    assert (call.method, spec.model) == ("CreateCompletion", "m")
    assert (spec.params.max_output_tokens, spec.params.temperature) == (5, 0.5)
    assert [message.role for message in spec.messages] == [ROLE_SYSTEM, ROLE_USER]
    assert call.metadata["authorization"] == "Bearer secret"
    assert call.time_left <= 9


def test_the_prompt_comes_from_standard_input(gateway: FakeGateway) -> None:
    ask(gateway, "complete", "-", stdin="from a\npipe\n")

    assert gateway.calls[0].request.spec.messages[0].parts[0].text.text == "from a\npipe\n"


@pytest.mark.parametrize("flag", ["--stream", "--no-stream"])
def test_json_is_the_whole_completion(gateway: FakeGateway, flag: str) -> None:
    done = ask(gateway, "complete", "Say hello.", "--json", flag)

    assert Parse(done.stdout, Completion()) == hello()
    assert json.loads(done.stdout)["choices"][0]["finish_reason"] == "FINISH_REASON_STOP"


def test_what_the_text_does_not_say_is_noted(gateway: FakeGateway) -> None:
    completion = hello()
    completion.choices[0].finish_reason = FINISH_REASON_LENGTH
    completion.warnings.append(CompletionWarning(field="params.top_k", message="left out"))
    gateway.answers.append(CreateCompletionResponse(completion=completion))

    done = ask(gateway, "complete", "a", "--no-stream")

    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert done.stderr.splitlines() == [
        "note: params.top_k: left out",
        "note: cut off: the most tokens were reached; see --max-tokens",
    ]


def test_a_refusal_is_a_failure(gateway: FakeGateway) -> None:
    gateway.answers.append(
        numbered(
            CompletionStarted(completion_id="cmpl_1"),
            AttemptStarted(attempt=1),
            PartStarted(part=ContentPart(refusal=Refusal())),
            PartDelta(text="I would rather not."),
            PartFinished(),
            ChoiceFinished(finish_reason=FINISH_REASON_REFUSAL),
            CompletionFinished(),
        )
    )
    done = ask(gateway, "complete", "a")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the model declined: I would rather not.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complete", "Hi"], "name one with --model or TRUNKLINE_MODEL; to list them: trunkline models"),
        (["complete", " ", "-m", "m"], "is empty; say what to ask"),
        (["complete"], "missing argument 'prompt'"),
        (["complete", "Hi", "-m", "m", "--max-tokens", "0"], "Invalid value for '--max-tokens'"),
        (["--timeout", "0", "health"], "Invalid value for '--timeout'"),
        (["--address", "nowhere", "health"], "address: 'nowhere' has no port; write host:port"),
        (["--ca-file", "nowhere.pem", "health"], "No such file or directory: 'nowhere.pem'"),
        (["--cert", "a.pem", "health"], "cert_file and key_file belong together"),
        (["--no-tls", "--ca-file", "a.pem", "health"], "--no-tls does not go with --ca-file"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_a_wrong_command_line_is_told_and_exits_with_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    told = re.sub(r"[\s│]+", " ", done.stderr)

    assert (done.returncode, done.stdout) == (2, "")
    assert message.lower() in told.lower()
    assert "Traceback" not in done.stderr


def test_nobody_at_the_address_exits_with_3() -> None:
    done = run("--address", "127.0.0.1:1", "complete", "Hi", "-m", "m")

    assert done.returncode == 3
    assert done.stderr == "error: cannot reach 127.0.0.1:1: is the server running? try: make run\n"


def test_a_server_without_tls_is_told_apart(gateway: FakeGateway) -> None:
    done = run("--address", gateway.address, "--tls", "health")

    assert done.returncode == 3
    assert "--no-tls" in done.stderr


BAD = rpc.BadRequest()
BAD.field_violations.add(field="spec.params.top_p", description="must be 0 to 1")


@pytest.mark.parametrize(
    ("failure", "exit_code", "lines"),
    [
        (
            Failure(Code.RESOURCE_EXHAUSTED, "slow down", "LLM_RATE_LIMITED", retry_after=0.25),
            4,
            ["error: LLM_RATE_LIMITED: slow down", "  try again in 0.25 s"],
        ),
        (
            Failure(Code.UNAVAILABLE, "busy", "GATEWAY_OVERLOADED", pushback=-1),
            4,
            ["error: GATEWAY_OVERLOADED: busy", "  too much to do there: try again later"],
        ),
        (
            Failure(Code.INVALID_ARGUMENT, "no", "INVALID_REQUEST", details=[BAD]),
            1,
            ["error: INVALID_REQUEST: no", "  spec.params.top_p: must be 0 to 1"],
        ),
        (
            Failure(Code.UNAUTHENTICATED, "no key", "CALLER_UNAUTHENTICATED"),
            1,
            ["error: CALLER_UNAUTHENTICATED: no key", "  give your key with --api-key or TRUNKLINE_API_KEY"],
        ),
        (
            Failure(Code.NOT_FOUND, "no model 'm'", "MODEL_NOT_FOUND"),
            1,
            ["error: MODEL_NOT_FOUND: no model 'm'", "  to see what there is: trunkline models"],
        ),
        (
            Failure(Code.FAILED_PRECONDITION, "bad key", "LLM_AUTHENTICATION"),
            1,
            [
                "error: LLM_AUTHENTICATION: bad key",
                "  your own key is fine: whoever runs the gateway must mend its key",
            ],
        ),
        (
            Failure(Code.DEADLINE_EXCEEDED, "too slow", "GATEWAY_TIMEOUT"),
            5,
            ["error: GATEWAY_TIMEOUT: too slow", "  allow more time with --timeout SECONDS"],
        ),
        (
            Failure(Code.INTERNAL, "{oops}", "INTERNAL", details=[rpc.RequestInfo(request_id="cmpl_9")]),
            1,
            ["error: INTERNAL: {oops}", "  request id: cmpl_9"],
        ),
    ],
    ids=lambda value: value.reason if isinstance(value, Failure) else None,
)
def test_an_error_says_what_to_do(gateway: FakeGateway, failure: Failure, exit_code: int, lines: list[str]) -> None:
    gateway.answers.append(failure)
    done = ask(gateway, "complete", "a")

    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.splitlines() == lines


def test_an_answer_that_breaks_off_keeps_what_was_printed(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Failure(Code.UNAVAILABLE, "cut", "LLM_CONNECTION")])
    done = ask(gateway, "complete", "a")

    assert (done.returncode, done.stdout, done.stderr) == (1, "Hello\n", "error: LLM_CONNECTION: cut\n")


def test_a_stream_without_its_end_is_a_failure(gateway: FakeGateway) -> None:
    gateway.answers.append(hello_events()[:-1])
    done = ask(gateway, "complete", "a")

    assert (done.returncode, done.stdout) == (1, "Hello there.\n")
    assert "without finished" in done.stderr


def test_the_models_come_one_a_line(gateway: FakeGateway) -> None:
    able = [CAPABILITY_STREAMING, CAPABILITY_TOOLS]
    big = Model(name="a/big", provider="a", context_window_tokens=1000, max_output_tokens=10, capabilities=able)
    down = UnlistedProvider(provider="openai", reason="LLM_CONNECTION")
    gateway.answers.append(
        ListModelsResponse(models=[big, Model(name="b/small", provider="b")], unlisted_providers=[down])
    )
    done = ask(gateway, "models", "--provider", "a")

    assert done.returncode == 0
    assert done.stdout == "a/big\ta\t1000\t10\tstreaming tools\nb/small\tb\t\t\t\n"
    assert done.stderr == "note: the models of openai are missing: LLM_CONNECTION\n"
    assert gateway.calls[0].request.provider == "a"


def test_no_models_are_noted(gateway: FakeGateway) -> None:
    gateway.answers.append(ListModelsResponse())
    done = ask(gateway, "models", "--json")

    assert (json.loads(done.stdout), done.stderr) == ({}, "note: no models: is a provider configured?\n")


@pytest.mark.parametrize(
    ("service", "exit_code", "shown"), [("", 0, "SERVING\n"), ("down", 1, "NOT_SERVING\n"), ("no.such", 1, "")]
)
def test_health_is_asked_over_the_wire(gateway: FakeGateway, service: str, exit_code: int, shown: str) -> None:
    done = ask(gateway, "health", "--service", service)

    assert (done.returncode, done.stdout) == (exit_code, shown)
    assert ("has no service 'no.such'" in done.stderr) is (service == "no.such")


def test_interrupting_an_answer_cancels_the_call_and_exits_with_130(gateway: FakeGateway) -> None:
    gateway.answers.append([*hello_events()[:4], Silence()])
    with started(gateway, "complete", "a") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == "Hello"
        process.send_signal(signal.SIGINT)
        gateway.wait_for(0)
        out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out, err) == (130, "\n", "interrupted\n")


def test_a_reader_who_has_enough_ends_the_command_quietly(gateway: FakeGateway) -> None:
    head, tail = hello_events()[:4], [PartDelta(text="and on " * 1000)] * 2000
    gateway.answers.append([*head, *numbered(*tail, first=5), Silence()])
    with started(gateway, "complete", "a") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == "Hello"
        process.stdout.close()
        gateway.wait_for(0)
        assert process.stderr is not None
        assert process.stderr.read() == ""

    assert process.returncode == 1


def test_standard_input_that_is_no_text_is_refused() -> None:
    done = subprocess.run(
        [*TRUNKLINE, "complete", "-", "-m", "m"], input=b"\xff\xfe", capture_output=True, check=False, env=environment()
    )

    assert done.returncode == 2
    assert b"is not text in UTF-8" in done.stderr


def test_a_letter_that_the_terminal_does_not_know_is_replaced(gateway: FakeGateway) -> None:
    events = hello_events()
    events[3].part_delta.text = "Hellö"
    gateway.answers.append(events)
    done = run("--address", gateway.address, "complete", "a", "-m", "m", env={"PYTHONIOENCODING": "ascii"})

    assert (done.returncode, done.stdout) == (0, "Hell? there.\n")


def test_a_chat_remembers_what_was_said(gateway: FakeGateway) -> None:
    done = ask(gateway, "chat", "--system", "Be brief.", stdin="One\n\n/nonsense\nTwo\n/clear\nThree\n/quit\nFour\n")

    assert done.returncode == 0
    assert done.stdout == "Hello there.\n" * 3
    roles = [[message.role for message in call.request.spec.messages] for call in gateway.calls]
    assert roles == [
        [ROLE_SYSTEM, ROLE_USER],
        [ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_USER],
        [ROLE_SYSTEM, ROLE_USER],
    ]
    assert "/nonsense is no command; /help lists them" in done.stderr


def test_a_chat_goes_on_after_an_error(gateway: FakeGateway) -> None:
    gateway.answers.extend([Failure(Code.INTERNAL, "oops", "INTERNAL"), hello_events()])
    done = ask(gateway, "chat", stdin="One\nTwo\n")

    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert done.stderr == "error: INTERNAL: oops\n"
    assert len(gateway.calls[1].request.spec.messages) == 1


def test_interrupting_a_chat_stops_the_answer_and_not_the_chat(gateway: FakeGateway) -> None:
    gateway.answers.extend([[*hello_events()[:4], Silence()], hello_events()])
    with started(gateway, "chat") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("One\n")
        process.stdin.flush()
        assert process.stdout.read(5) == "Hello"
        process.send_signal(signal.SIGINT)
        gateway.wait_for(0)
        out, err = process.communicate("Two\n", timeout=PATIENCE)

    assert (process.returncode, err) == (0, "note: stopped\n")
    assert out.endswith("Hello there.\n")
    said = [message.parts[0].text.text for message in gateway.calls[1].request.spec.messages]
    assert said == ["One", "Hello", "Two"]


def test_at_a_terminal_the_answer_is_rendered(gateway: FakeGateway) -> None:
    events = hello_events()
    events[3].part_delta.text = "**Hello**"
    gateway.answers.append(events)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*TRUNKLINE, "--address", gateway.address, "chat"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(TRUNKLINE_MODEL="fake/echo"),
    )
    os.close(slave)
    shown = ""

    def read_until(words: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + PATIENCE
        while words not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 4096).decode(errors="replace")

    read_until("> ")
    os.write(master, b"Hi\n")
    read_until("2 out")
    os.write(master, b"/quit\n")

    assert process.wait(PATIENCE) == 0
    os.close(master)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "fake/echo at 127.0.0.1" in shown
    assert "Hello there." in shown
    assert "**" not in shown
    assert "2 tokens in, 2 out" in shown

"""A client that knows nothing of the contract: buf asks the server for it by reflection, then calls."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo

BUF = Path(sys.executable).with_name("buf")
SERVICE = "trunkline.v1.CompletionService"
MESSAGE = {"role": "ROLE_USER", "parts": [{"text": {"text": "Say hello."}}]}
HELLO = {"spec": {"model": "fake/echo", "messages": [MESSAGE]}}


def curl(address: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `buf curl` in an empty folder: no schema but the server's own."""
    return subprocess.run(
        [BUF, "curl", "--protocol", "grpc", *arguments[:-1], f"http://{address}/{arguments[-1]}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def messages(printed: str) -> list[dict[str, Any]]:
    """The JSON values that stand one after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = printed.strip()
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        found.append(value)
        at = len(text) - len(text[end:].lstrip())
    return found


def test_reflection_lists_the_services_that_are_served(address: str, tmp_path: Path):
    ended = curl(address, "--list-services", "", folder=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert set(ended.stdout.split()) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "trunkline.v1.CompletionService",
        "trunkline.v1.EmbeddingService",
        "trunkline.v1.ModelService",
        "trunkline.v1alpha.ConfigService",
        "trunkline.v1alpha.PipelineService",
        "trunkline.v1alpha.TraceService",
    }


def test_a_completion_is_called_by_reflection_alone(address: str, tmp_path: Path):
    ended = curl(address, "--data", json.dumps(HELLO), f"{SERVICE}/CreateCompletion", folder=tmp_path)

    assert ended.returncode == 0, ended.stderr
    (answer,) = messages(ended.stdout)
    assert answer["completion"]["choices"][0]["message"]["parts"][0]["text"]["text"] == "You said: Say hello."


def test_a_stream_is_called_by_reflection_alone(address: str, tmp_path: Path):
    ended = curl(address, "--data", json.dumps(HELLO), f"{SERVICE}/StreamCompletion", folder=tmp_path)

    assert ended.returncode == 0, ended.stderr
    events = messages(ended.stdout)
    assert "".join(event["partDelta"]["text"] for event in events if "partDelta" in event) == "You said: Say hello."
    assert [event["sequenceNumber"] for event in events] == list(range(1, len(events) + 1))
    assert "started" in events[0]
    assert "finished" in events[-1]


def test_an_error_tells_its_details_by_reflection_alone(address: str, tmp_path: Path):
    asked = {"spec": {**HELLO["spec"], "model": "nobody/nothing"}}

    ended = curl(address, "--data", json.dumps(asked), f"{SERVICE}/CreateCompletion", folder=tmp_path)

    assert ended.returncode
    (error,) = messages(ended.stderr)
    assert error["code"] == "not_found"
    (info,) = (detail for detail in error["details"] if detail["type"] == "google.rpc.ErrorInfo")
    told = ErrorInfo.FromString(base64.b64decode(info["value"] + "=="))
    assert (told.reason, told.domain) == ("MODEL_NOT_FOUND", "trunkline")

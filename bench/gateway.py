"""trunkline as it is measured: one process, callers by key, validation, an access log into a file, metrics."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.processes import CannotRun, Process, free_port, wait_for_port
from bench.workload import CREATE, STREAM, Call, grpc_request
from trunkline.v1 import completion_service_pb2

PROVIDER = "upstream"
_KEY = "a-key-for-the-benchmark-only"


class Trunkline(Process):
    """A server process that answers."""

    def __init__(self, upstream: str, folder: Path, *, env: Mapping[str, str] | None = None, **more: Any) -> None:
        """`upstream`: its address; `more`: other settings. Calls are not recorded unless those say so."""
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        settings = {
            "listen": self.address,
            "callers": [{"name": "bench", "api_key_env": "BENCH_KEY"}],
            "providers": {
                PROVIDER: {"kind": "openai", "base_url": f"http://{upstream}/v1", "api_key_env": "BENCH_KEY"},
            },
            "local": {"enabled": False},
            "metrics": {"port": free_port()},
            "traces": "off",
            **more,
        }
        file = folder / "trunkline.yaml"
        file.write_text(json.dumps(settings))  # JSON is YAML
        command = [sys.executable, "-m", "trunkline_server", "serve", "--config", str(file)]
        super().__init__("trunkline", command, env={"BENCH_KEY": _KEY, **(env or {})}, log=folder / "trunkline.log")
        try:
            wait_for_port(self, port, 30)
            #: Seconds from its start to health SERVING.
            self.seconds_to_serving = self._serving() - self.began
        except BaseException:
            self.stop()
            raise

    def job(self, call: Call) -> dict[str, Any]:
        """What the callers are told to call it."""
        return {
            "protocol": "grpc",
            "address": self.address,
            "method": STREAM if call.events else CREATE,
            "metadata": [("authorization", f"Bearer {_KEY}")],
            "body": grpc_request(call, PROVIDER),
        }

    def probe(self, call: Call) -> None:
        """Raises CannotRun unless the caller gets all that the upstream says."""
        job = self.job(call)
        send: dict[str, Any] = {"metadata": job["metadata"], "timeout": 30}
        with grpc.insecure_channel(self.address) as channel:
            try:
                if call.events:
                    answers: Any = channel.unary_stream(job["method"])(job["body"], **send)
                    events = map(completion_service_pb2.StreamCompletionResponse.FromString, answers)
                    text = "".join(event.part_delta.text for event in events)
                else:
                    answer: Any = channel.unary_unary(job["method"])(job["body"], **send)
                    completion = completion_service_pb2.CreateCompletionResponse.FromString(answer).completion
                    text = completion.choices[0].message.parts[0].text.text
            except grpc.RpcError as error:
                raise CannotRun(f"trunkline does not answer: {error}") from None
        if text != call.text:
            raise CannotRun(f"trunkline's answer is not the upstream's: {text[:100]!r}")

    def _serving(self) -> float:
        with grpc.insecure_channel(self.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while True:
                self.require_running()
                try:
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
                except grpc.RpcError as error:
                    raise CannotRun(f"trunkline does not tell its health: {error}") from None
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return time.monotonic()
                time.sleep(0.002)

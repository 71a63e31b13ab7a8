"""`make bench-peers`: trunkline beside LiteLLM and Portkey, behind the same upstream in the same run.

They are installed apart from the project, below .build/, and run as lean as they can be: one process, no database, no
logs, the console off. LiteLLM does not start without a key of its own, and trunkline checks one, too; Portkey checks
none. What is measured is CPU of their processes, as in `bench.run`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from bench.gateway import Trunkline
from bench.processes import ROOT, CannotRun, Load, Process, Served, free_port, wait_for_port
from bench.report import Figure, machine, rows, table, write
from bench.run import Scenario, Size, cost, say
from bench.workload import BURSTY, CALLS, PACED, PACED_STREAMS, UNARY, Call, http_request

LITELLM, PORTKEY = "1.106.2", "1.15.2"
FOLDER = ROOT / ".build" / "peers"
_KEY = "sk-a-key-for-the-benchmark-only"

#: How many times less CPU trunkline is held to take.
LEAST: Mapping[tuple[str, str], float] = {
    ("LiteLLM", UNARY.model): 10,
    ("LiteLLM", PACED.model): 8,
    ("LiteLLM", BURSTY.model): 20,
    ("Portkey", UNARY.model): 3,
}

# Fewer calls than in `bench.run`: the peers take long. All gateways get the same.
SCENARIOS = (
    Scenario("unary call", UNARY),
    Scenario("event at a pace of 2 ms", PACED, callers=PACED_STREAMS),
    Scenario("event in a burst of 16", BURSTY, callers=8),
)
FULL = Size(rounds=3, calls=10)
QUICK = Size(rounds=1, calls=5)


class Gateway(Protocol):
    """What stands between the callers and the upstream."""

    def job(self, call: Call) -> dict[str, Any]: ...
    def probe(self, call: Call) -> None: ...


class Peer(Process):
    """A gateway that speaks OpenAI's Chat Completions."""

    def __init__(
        self,
        name: str,
        command: list[str],
        port: int,
        folder: Path,
        *,
        env: Mapping[str, str | None],
        headers: tuple[tuple[str, str], ...],
    ) -> None:
        super().__init__(name, command, env=env, log=folder / f"{name}.log", cwd=folder)
        self.headers = headers
        self.address = f"127.0.0.1:{port}"
        try:
            wait_for_port(self, port, 120)
            self.adopt_children()
        except BaseException:
            self.stop()
            raise

    def job(self, call: Call) -> dict[str, Any]:
        """What the callers are told to call it."""
        return {
            "protocol": "http",
            "address": self.address,
            "method": "/v1/chat/completions",
            "metadata": self.headers,
            "body": http_request(call),
        }

    def probe(self, call: Call) -> None:
        """Raises CannotRun unless the caller gets all that the upstream says."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            headers = {"content-type": "application/json", **dict(self.headers)}
            connection.request("POST", "/v1/chat/completions", http_request(call), headers)
            body = connection.getresponse().read().decode()
            text = _streamed(body) if call.events else json.loads(body)["choices"][0]["message"]["content"]
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            raise CannotRun(f"{self.name} does not answer: {error!r}") from None
        finally:
            connection.close()
        if text != call.text:
            raise CannotRun(f"{self.name}'s answer is not the upstream's: {body[:150]}")


def _streamed(body: str) -> str:
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for event in events for c in event.get("choices", ()))


def litellm(upstream: str, folder: Path) -> Peer:
    """LiteLLM's proxy without retries, before one upstream. Raises CannotRun."""
    to = {"api_base": f"http://{upstream}/v1", "api_key": "sk-none", "max_retries": 0}
    models = [{"model_name": name, "litellm_params": {"model": f"openai/{name}", **to}} for name in CALLS]
    return start_litellm(folder, models, {"num_retries": 0})


def start_litellm(folder: Path, models: list[dict[str, Any]], router: Mapping[str, Any]) -> Peer:
    """LiteLLM's proxy with uvicorn on uvloop, as it starts by default. Raises CannotRun."""
    venv = FOLDER / f"litellm-{LITELLM}"
    if not (venv / "bin" / "litellm").exists():
        say(f"installing LiteLLM {LITELLM}")
        _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet", "--no-input", "install"]
        _run([*pip, f"litellm[proxy]=={LITELLM}"], or_remove=venv)
    port = free_port()
    settings = {
        "model_list": models,
        "litellm_settings": {
            "telemetry": False,
            "set_verbose": False,
            "num_retries": router.get("num_retries", 0),
            "turn_off_message_logging": True,
        },
        "general_settings": {"disable_spend_logs": True, "disable_error_logs": True},
        "router_settings": dict(router),
    }
    quiet = {"version": 1, "disable_existing_loggers": True, "root": {"level": "ERROR", "handlers": []}}
    for file, content in (("litellm.yaml", settings), ("quiet.json", quiet)):
        (folder / file).write_text(json.dumps(content))
    command = [str(venv / "bin" / "litellm"), "--config", "litellm.yaml", "--log_config", "quiet.json"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    env: dict[str, str | None] = {
        "LITELLM_MASTER_KEY": _KEY,
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "DATABASE_URL": None,
        "NO_PROXY": "127.0.0.1",
    }
    return Peer("LiteLLM", command, port, folder, env=env, headers=(("authorization", f"Bearer {_KEY}"),))


def portkey(upstream: str, folder: Path) -> Peer:
    """Portkey's gateway before one upstream. Raises CannotRun."""
    return start_portkey(
        folder,
        (
            ("x-portkey-provider", "openai"),
            ("x-portkey-custom-host", f"http://{upstream}/v1"),
            ("authorization", "Bearer sk-none"),
        ),
    )


def start_portkey(folder: Path, headers: tuple[tuple[str, str], ...]) -> Peer:
    """Portkey's gateway on Node, without its console. Raises CannotRun."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CannotRun("node or npm not found")
    place = FOLDER / f"portkey-{PORTKEY}"
    program = place / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        say(f"installing Portkey {PORTKEY}")
        place.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(place)]
        _run([*install, f"@portkey-ai/gateway@{PORTKEY}"], or_remove=place)
    port = free_port()

    command = [node, str(program), f"--port={port}", "--headless"]
    return Peer("Portkey", command, port, folder, env={"NODE_ENV": "production"}, headers=headers)


PEERS: Mapping[str, Callable[[str, Path], Peer]] = {"LiteLLM": litellm, "Portkey": portkey}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round; less exact")
    parser.add_argument("--only", choices=PEERS, help="only this peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        figures, skipped = measure(QUICK if arguments.quick else FULL, [arguments.only] if arguments.only else [*PEERS])
    except CannotRun as error:
        print(f"trunkline: the benchmark cannot run: {error}", file=sys.stderr)
        return 1
    head = ("CPU of", "its own", "trunkline", "times as much", "rounds", "target", "")
    print(table(head, rows(figures)))
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})")
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if arguments.json:
        write(arguments.json, figures, skipped=skipped, seconds=round(time.monotonic() - began, 1))
    return 0


def measure(size: Size, names: list[str]) -> tuple[list[Figure], dict[str, str]]:
    """The figures, and which peers were left out and why. Raises CannotRun."""
    skipped: dict[str, str] = {}
    gateways: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="trunkline-peers-") as folder_name:
        folder = Path(folder_name)
        with Served("upstream", folder / "upstream.log") as upstream, Load(folder / "load.log") as load:
            try:
                gateways["trunkline"] = Trunkline(upstream.address, folder)
                for name in names:
                    say(f"starting {name}")
                    try:
                        gateways[name] = PEERS[name](upstream.address, folder)
                    except CannotRun as error:
                        skipped[name] = _line(error)
                return _figures(size, gateways, load, skipped), skipped
            finally:
                for gateway in gateways.values():
                    gateway.stop()


def _figures(size: Size, gateways: Mapping[str, Any], load: Load, skipped: dict[str, str]) -> list[Figure]:
    """CPU of each gateway for each kind of call, and how many times trunkline's that is."""
    found: dict[tuple[str, str], list[float]] = {}
    able = {scenario.what: _able(scenario, gateways, skipped) for scenario in SCENARIOS}
    for number in range(-1, size.rounds):
        say(f"round {number + 1} of {size.rounds}" if number >= 0 else "warming up")
        for scenario in SCENARIOS:
            job, units = scenario.job(size), scenario.units(size)
            for name in able[scenario.what]:
                gateway, to = gateways[name], gateways[name].job(scenario.call)
                spent = cost(gateway, lambda: load.run(**job, **to), units)  # noqa: B023  # called now
                if number >= 0:
                    found.setdefault((name, scenario.what), []).append(spent)
    made: list[Figure] = []
    for scenario in SCENARIOS:
        ours = found["trunkline", scenario.what]
        for name in able[scenario.what][1:]:
            theirs = found[name, scenario.what]
            ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
            least = LEAST.get((name, scenario.call.model))
            what = f"{name}, {scenario.what}"
            made.append(Figure(what, median(theirs), "us", median(ours), median(ratios), least=least, rounds=ratios))
    return made


def _able(scenario: Scenario, gateways: Mapping[str, Gateway], skipped: dict[str, str]) -> list[str]:
    """Gateways that answer this kind of call. Raises CannotRun if trunkline does not."""
    able = []
    for name, gateway in gateways.items():
        try:
            gateway.probe(scenario.call)
            able.append(name)
        except CannotRun as error:
            if name == "trunkline":
                raise
            skipped[f"{name}, {scenario.what}"] = _line(error)
    return able


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 else f"{text[:80]} ... {text[-200:]}"


def _run(command: list[str], or_remove: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=os.environ)
    if done.returncode:
        if or_remove:
            shutil.rmtree(or_remove, ignore_errors=True)
        raise CannotRun(f"it cannot be installed: {(done.stderr or done.stdout).strip()[-300:]}")


if __name__ == "__main__":
    sys.exit(main())

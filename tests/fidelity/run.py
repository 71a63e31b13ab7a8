"""`make fidelity`: replays recorded provider traffic through the running server and writes what its caller saw.

For each recording the replay upstream answers as the provider did, the server is called over gRPC as the recording was
asked, and what the caller sees goes to OUT. Nothing here knows what was expected: the scorer compares afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import yaml
from tests.fidelity import corpus, mismatches, targets
from tests.fidelity.calls import Caller
from tests.fidelity.corpus import Recording

from trunkline_server import providers

#: Calls at a time.
SIDE_BY_SIDE = 48
#: Seconds that a process may take until it answers.
START = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 below --min, 2 if it cannot run."""
    options = _options(arguments)
    folder: Path = options.corpus
    tools = (options.tools or folder.parent / "tools").resolve()
    missing = [str(path) for path in (folder / "recordings", tools / "replay.py") if not path.exists()]
    if missing:
        sys.stderr.write(f"fidelity: there is no {' and no '.join(missing)}\n")
        return 2
    chosen = options.families.split(",") if options.families else corpus.families(folder)
    kinds = frozenset(providers.KINDS)
    served = {family: kind for family in chosen if (kind := targets.kind_for(family, kinds)) is not None}
    unserved = {family: sum(1 for _ in corpus.read(folder, family)) for family in chosen if family not in served}
    with tempfile.TemporaryDirectory(prefix="trunkline-fidelity-") as scratch:
        out: Path = options.out or Path(scratch) / "got.jsonl"
        began = time.monotonic()
        written, simplified = _run(folder, tools, served, out, Path(scratch))
        seconds = time.monotonic() - began
        _say(f"called: {written} recordings of {len(served)} families in {seconds:.0f} s")
        _say(f"asked in few words, because their own request is none of the contract's: {simplified}")
        for family, count in sorted(unserved.items()):
            if count:
                _say(f"not served yet, counts as wrong: {family} ({count})")
        return _score(folder, tools, chosen, out, options.min)


def _run(folder: Path, tools: Path, served: dict[str, str], out: Path, scratch: Path) -> tuple[int, int]:
    recordings = [(recording, served[family]) for family in served for recording in corpus.read(folder, family)]
    replay_port, port = _free_port(), _free_port()
    files = [str(path) for family in served for path in (folder / "recordings").glob(f"{family}.jsonl*")]
    if not files:
        out.write_text("")
        return 0, 0
    # A provider for each listing, because the server remembers what a provider listed.
    names = {kind: kind for kind in set(served.values())}
    listings = {r.id: f"list-{index}" for index, (r, _) in enumerate(recordings) if r.kind == "models"}
    names.update({listings[r.id]: kind for r, kind in recordings if r.id in listings})
    settings = {
        "listen": f"127.0.0.1:{port}",
        "local": {"enabled": False},
        "log": {"level": "error"},
        "traces": "off",
        "forward_metadata": ["x-replay-id"],
        "providers": {
            name: {"kind": kind, "base_url": f"http://127.0.0.1:{replay_port}/v1", "api_key_env": "FIDELITY_KEY"}
            for name, kind in names.items()
        },
    }
    config = scratch / "trunkline.yaml"
    config.write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "FIDELITY_KEY": "replayed-no-secret"}
    replay = [sys.executable, str(tools / "replay.py"), *files, "--port", str(replay_port)]
    serve = [sys.executable, "-m", "trunkline_server", "serve", "--config", str(config)]
    with _running(replay, environment) as first, _running(serve, environment) as second:
        _answers_http(f"http://127.0.0.1:{replay_port}/_health", first)
        lines, simplified = asyncio.run(_call_all(recordings, listings, f"127.0.0.1:{port}", second))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(lines))
    return len(lines), simplified


async def _call_all(
    recordings: list[tuple[Recording, str]],
    listings: dict[str, str],
    address: str,
    server: subprocess.Popen[bytes],
) -> tuple[list[str], int]:
    options = [("grpc.max_receive_message_length", 256 * 1024 * 1024), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        await asyncio.wait_for(channel.channel_ready(), START)
        caller = Caller(channel)
        gate = asyncio.Semaphore(SIDE_BY_SIDE)
        broken: Counter[str] = Counter()

        async def one(recording: Recording, kind: str) -> str:
            async with gate:
                got = await caller.call(recording, listings.get(recording.id, kind), kind)
            if got.get("class") in {"INTERNAL", "UNKNOWN"}:
                broken[recording.family] += 1
            return json.dumps({"id": recording.id, "got": got}, ensure_ascii=True) + "\n"

        lines = await asyncio.gather(*(one(recording, kind) for recording, kind in recordings))
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}")
    for family, count in sorted(broken.items()):
        _say(f"faults of the gateway itself: {family} ({count})")
    return lines, caller.simplified


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _score(folder: Path, tools: Path, families: Sequence[str], out: Path, least: float) -> int:
    expected = folder / "expected.jsonl.xz"
    if not expected.exists() or not (tools / "score.py").exists():
        _say(f"not scored: there is no {expected if not expected.exists() else tools / 'score.py'}")
        return 0
    command = [sys.executable, str(tools / "score.py"), str(expected), str(out), "--show", "1000000"]
    command += ["--families", ",".join(families), "--min", str(least)]
    scored = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    *lines, last = scored.stdout.splitlines() or [""]
    unknown = mismatches.unexplained(lines)
    for line in lines:
        _say(line)
    _say(f"wrong without a reason in docs/providers.md: {len(unknown)}")
    for family, recording in unknown:
        _say(f"  {family} {recording}")
    _say(last)
    return scored.returncode


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, however that ends."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers_http(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the replay upstream does not answer on {url}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="fidelity", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with recordings/")
    parser.add_argument("--families", help="comma-separated; default: all in scope")
    parser.add_argument("--out", type=Path, help="where to write what the caller saw")
    parser.add_argument("--min", type=float, default=0.0, help="percent; exit 1 below")
    parser.add_argument("--tools", type=Path, help="folder with replay.py and score.py; default: beside the corpus")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

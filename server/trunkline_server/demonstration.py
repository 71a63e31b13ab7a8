"""Shows a first streamed answer: runs the client's own command line against the server that is starting."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

PROMPT = "Write one friendly sentence that welcomes a developer to a new tool."

#: Seconds that the server has to take connections, and the answer to come.
_START, _ANSWER = 60.0, 120.0


def beside(host: str, port: int, model: str, serve: Callable[[], int], *, page: str = "") -> int:
    """Serves, meanwhile asks `model` once over gRPC and prints the answer as it streams. Returns serve's exit code.
    `page`: where a browser can look at calls.
    """
    threading.Thread(target=_show, args=(host, port, model, page), name="demonstration", daemon=True).start()
    return serve()


def _show(host: str, port: int, model: str, page: str) -> None:
    if not _taking_connections(host, port):
        return
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    shown = f"trunkline --address {address} complete --model {model} {PROMPT!r}"
    _say(f"\n$ {shown}")
    command = [sys.executable, "-m", "trunkline.cli", "--address", address, "complete", "--model", model, "--stream"]
    try:
        ended = subprocess.run([*command, PROMPT], check=False, timeout=_ANSWER, stdin=subprocess.DEVNULL)  # noqa: S603  # ours
    except subprocess.TimeoutExpired:
        _say(f"no answer came within {_ANSWER:g} s; the server goes on")
        return
    if ended.returncode:
        _say(f"the first call failed (exit code {ended.returncode}); the server goes on")
        return
    _say(f"\ntrunkline serves on {address}; that answer was streamed over gRPC by {model}. Ctrl-C stops it.")
    _say(f"Next: .venv/bin/trunkline --address {address} chat --model {model}")
    if page:
        _say(f"The calls, this one too, and what they cost: {page}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _taking_connections(host: str, port: int) -> bool:
    until = time.monotonic() + _START
    while time.monotonic() < until:
        try:
            with socket.create_connection((host, port), timeout=1.0):
                return True
        except OSError:
            time.sleep(0.05)
    return False

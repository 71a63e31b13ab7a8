"""Runs the command line `trunkline` as a script or a person at a terminal does."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from fake_gateway import PATIENCE, FakeGateway

SCRIPT = Path(sys.executable).with_name("trunkline")
TRUNKLINE = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "trunkline.cli"]

_STYLES = re.compile(r"\x1b\[[0-9;]*m")


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "xterm", "TZ": "UTC", **changes}


def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRUNKLINE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment(**(env or {})),
    )


def ask(gateway: FakeGateway, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run("--address", gateway.address, *arguments, stdin=stdin, env={"TRUNKLINE_MODEL": "fake/echo"})


def started(gateway: FakeGateway, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TRUNKLINE, "--address", gateway.address, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TRUNKLINE_MODEL="fake/echo", PYTHONUNBUFFERED="1"),
    )


def at_a_terminal(gateway: FakeGateway, *arguments: str, columns: int) -> list[str]:
    """The lines that a terminal so wide shows, without their styles."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = environment()
    del env["COLUMNS"]
    command = [*TRUNKLINE, "--address", gateway.address, *arguments]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=env) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone with its last program
            while piece := os.read(master, 65_536):
                shown += piece
        process.wait(PATIENCE)
    os.close(master)
    return [line.rstrip() for line in _STYLES.sub("", shown.decode()).splitlines()]

"""Sidecars that are not ours: socat, a program in Go, and the example in Python; each a process of its own."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.gateway import until
from tests.upstream import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

#: How to start one: where it listens, and a file that it may write.
Command = Callable[[Path, Path], Sequence[str]]


class Sidecar:
    """A process that listens on a socket; `file` is what it made of what came."""

    def __init__(self, command: Command, folder: Path, *, prints: bool, keeps: bool = False) -> None:
        """`keeps`: what came before it went away is still in its file when it is back."""
        self._command = command
        self._prints = prints
        self._keeps = keeps
        self.folder = folder
        self.path = folder / "sidecar.sock"
        self.file = folder / "taken.ndjson"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        if not self._keeps:
            self.file.unlink(missing_ok=True)
        with self.file.open("ab") if self._prints else open(os.devnull, "wb") as stdout:  # noqa: ASYNC230, PTH123  # once
            self._process = await asyncio.create_subprocess_exec(*self._command(self.path, self.file), stdout=stdout)
        await until(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            # socat has a process for each connection.
            connections = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for connection in connections:
                connection.kill()
            psutil.wait_procs(connections, PATIENCE)
            await self._process.wait()
        self.path.unlink(missing_ok=True)

    def lines(self) -> list[dict[str, Any]]:
        """Whole lines so far, without what is no JSON."""
        if not self.file.exists():
            return []
        whole, _, _ = self.file.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def records(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "id" in line]

    async def ids(self, count: int) -> list[str]:
        await until(lambda: len(self.records()) >= count)
        return [line["id"] for line in self.records()]


def _socat(path: Path, file: Path) -> Sequence[str]:
    return ("socat", "-u", f"UNIX-LISTEN:{path},fork", f"OPEN:{file},creat,append")


def _example(path: Path, file: Path) -> Sequence[str]:
    return (sys.executable, str(ROOT / "examples/sidecar/reader.py"), str(path), str(file))


@cache
def go_program() -> Path:
    """The example in Go, compiled once for all tests of this process."""
    if shutil.which("go") is None:
        pytest.skip("go not found")
    folder = tempfile.mkdtemp(prefix="trunkline-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = Path(folder) / "sidecar"
    done = subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=ROOT / "examples/sidecar/go",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


@asynccontextmanager
async def sidecar(kind: str, folder: Path, *more: str, keeps: bool = False) -> AsyncIterator[Sidecar]:
    """Runs while the block does: "socat", "go" or "example"."""
    if kind == "socat" and shutil.which("socat") is None:
        pytest.skip("socat not found")
    command: Command = _socat if kind == "socat" else _example
    if kind == "go":
        program = go_program()

        def command(path: Path, file: Path) -> Sequence[str]:
            return (str(program), *more, str(path))

    made = Sidecar(command, folder, prints=kind == "go", keeps=keeps)
    async with asyncio.timeout(PATIENCE):
        await made.start()
    try:
        yield made
    finally:
        await made.stop()

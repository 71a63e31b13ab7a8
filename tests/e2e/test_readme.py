"""What the pages print, as they print it: `make run` in one shell, all else in another."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.conftest import PATIENCE, free_port, wait_for
from tests.e2e.test_examples import REQUIRED, ROOT

from trunkline_server.embedded import Unavailable, find

PAGES = ("README.md", "docs/configuration.md", "docs/operations.md")
#: Seconds that `make run` may take where its environment is not up to date.
SET_UP = 300.0
SAID = "You said: Say hello."


@dataclass(frozen=True)
class Running:
    """What `make run` serves."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TRUNKLINE_ADDRESS": f"127.0.0.1:{self.port}"}

    def printed(self, text: str) -> str:
        """All that it printed, as soon as `text` is in it."""
        until = time.monotonic() + PATIENCE
        while text not in (found := self.log.read_text()):
            assert self.process.poll() is None, found
            assert time.monotonic() < until, found
            time.sleep(0.05)
        return found


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Page and command; one goes on after a backslash at the end of its line.

    Those of make run everything, the tests too: `running` is one of them, and all are known to exist.
    """
    return [
        (page, command)
        for page in PAGES
        for block in code(page, "sh")
        for command in block.replace("\\\n", "").splitlines()
        if not command.startswith("make ")
    ]


def missing(*tools: str) -> None:
    """Skips the test by name where a toolchain is not there, and fails it where everything must run."""
    for tool in tools:
        if shutil.which(tool) is None:
            assert not REQUIRED, f"{tool} not found, and everything must run here"
            pytest.skip(f"{tool} not found")


def run(command: str, running: Running, folder: Path = ROOT) -> str:
    """What a shell prints for the command, at the port that the server has."""
    ended = subprocess.run(
        ["bash", "-euc", command.replace("50051", str(running.port))],
        cwd=folder,
        env=running.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`make run`, at a free port by the variable that the README names."""
    ours = ("TRUNKLINE_", "MAKE", "MFLAGS")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(ours) and not name.endswith("_API_KEY")
    }
    log, port = tmp_path_factory.mktemp("run") / "log", free_port()
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=ROOT,
            env={**kept, "PORT": str(port), "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": str(log.parent)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    made = Running(process, port, log)
    try:
        wait_for(f"127.0.0.1:{port}", process, log, SET_UP)
        yield made
    finally:
        if process.poll() is None:
            # As Ctrl-C does: the signal goes to make and to what it started.
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def test_the_first_screen_starts_and_tests():
    assert [command for block in code("README.md", "sh")[:2] for command in block.splitlines()] == [
        "make run",
        "make test",
    ]


def test_make_run_shows_an_answer_of_the_embedded_model_and_goes_on(running: Running):
    try:
        model = find()
    except Unavailable as reason:
        pytest.skip(f"embedded model: {reason}")

    printed = running.printed("Next: ")

    assert f"that answer was streamed over gRPC by local/{model.name}" in printed
    assert running.process.poll() is None


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_runs_as_printed(page: str, command: str, running: Running):
    missing(*re.findall(r"^[a-z]+", command))

    printed = run(command, running)

    assert printed.strip()
    assert SAID in printed or "Say hello." not in command or '"finished"' in printed


def test_the_first_call_in_python_runs(running: Running, tmp_path: Path):
    (program,) = code("README.md", "python")
    (tmp_path / "hello.py").write_text(program)

    assert run(f"{sys.executable} hello.py", running, tmp_path) == f"{SAID}\n"


def test_the_first_call_in_go_runs(running: Running, tmp_path: Path):
    missing("go")
    (program,) = code("README.md", "go")
    (tmp_path / "main.go").write_text(program)
    for name in ("go.mod", "go.sum"):
        text = (ROOT / "examples/go" / name).read_text()
        (tmp_path / name).write_text(text.replace("../../clients/go", str(ROOT / "clients/go")))

    assert run("go run .", running, tmp_path) == f"{SAID}\n"


def test_the_first_call_in_typescript_runs(running: Running, tmp_path: Path):
    missing("node", "npm")
    (program,) = code("README.md", "ts")
    # It names no types, so that it is JavaScript as well.
    (tmp_path / "hello.mjs").write_text(program)
    (tmp_path / "node_modules").symlink_to(ROOT / "examples/typescript/node_modules")
    run("npm run --silent build", running, ROOT / "clients/typescript")

    assert run("node hello.mjs", running, tmp_path) == f"{SAID}\n"

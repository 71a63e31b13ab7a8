"""A process of ours beside the server: told what to do on its standard input, and gone when that closes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO

#: A process that ends sooner than this after its start is started again after a delay, which grows to LONGEST.
HEALTHY, LONGEST = 10.0, 30.0


class Child:
    """Started, looked after, and stopped by one thread at a time; told by any."""

    def __init__(
        self, module: str, told: bytes, *, handles: Sequence[int] = (), stderr: IO[bytes] | None = None
    ) -> None:
        """Runs `module`, which reads the line `told`: it can hold secrets, as neither arguments nor the environment
        could.

        `handles`: what it inherits, under the same numbers. `stderr`: where its log goes; the server's own by default.
        """
        self._module = module
        self._told = told
        self._handles = tuple(handles)
        self._stderr = stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._telling = threading.Lock()
        self._began = 0.0
        self._failures = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Takes some milliseconds. Raises OSError."""
        # Not by `multiprocessing`, which would load all that the server has loaded. -P: nothing of the folder that the
        # server was started in.
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
        process = subprocess.Popen(  # noqa: S603  # ours
            [sys.executable, *flags, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=self._handles,
        )
        self._began = time.monotonic()
        with self._telling:
            self._process = process
            _write(process, self._told)

    def tell(self, told: bytes) -> None:
        """Another line in place of the first: it runs by this one from now on, also where it is started again."""
        with self._telling:
            self._told = told
            if self._process is not None:
                _write(self._process, told)

    def ended(self) -> int | None:
        """The exit code of a process that has ended, which is then started again in its time; None if all is well."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        lasted = time.monotonic() - self._began
        delay = min(LONGEST, 0.1 * 2**self._failures) if self._failures else 0.0
        if lasted < delay:
            return None
        self._failures = 0 if lasted > HEALTHY else self._failures + 1
        code = process.returncode
        self._close()
        self.start()
        return code

    def stop(self, patience: float) -> bool:
        """Lets it finish, and ends it after so many seconds. False if it had to be ended."""
        process = self._process
        if process is None:
            return True
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        finally:
            self._process = None
        return process.returncode == 0

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


def _write(process: subprocess.Popen[bytes], told: bytes) -> None:
    if process.stdin is not None:
        with suppress(OSError, ValueError):  # it is gone already, which `ended` sees
            process.stdin.write(told)
            process.stdin.flush()


def heed(told: Callable[[bytes], None]) -> asyncio.Event:
    """In the process itself, which has read its first line: hands on each further one, on the loop that runs. What it
    returns is set when the server has closed its end, or is gone.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        with suppress(RuntimeError):  # the loop has ended
            with suppress(OSError):
                for line in sys.stdin.buffer:
                    loop.call_soon_threadsafe(told, line)
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, daemon=True).start()
    return stop

"""A conversation at a terminal, or line by line from a pipe."""

import contextlib
import sys
import time

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from trunkline import Client, CompletionStream, TrunklineError, assistant, system, text_of, user
from trunkline.cli import problems
from trunkline.spec import SpecOptions
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.message_pb2 import Message

HELP = """\
/clear  forget what was said
/help   show this
/quit   end the chat (Ctrl-D too)
Ctrl-C  stop the answer"""


class Tail:
    """Markdown that grows: its last lines, as many as the terminal shows."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.pieces:
            yield Text("…", style="dim")
            return
        lines = console.render_lines(Markdown("".join(self.pieces)), options, pad=False)
        for line in lines[-max(console.height - 2, 1) :]:
            yield from line
            yield Segment.line()


class Chat:
    """Reads a line, answers it, remembers both."""

    def __init__(self, client: Client, options: SpecOptions, instructions: str | None, timeout: float | None) -> None:
        self._client = client
        self._options = options
        self._timeout = timeout
        self._console = Console(highlight=False)
        self._interactive = self._console.is_terminal and sys.stdin.isatty()
        self._instructions = [system(instructions)] if instructions else []
        self._said: list[Message] = []

    def run(self) -> None:
        """Until /quit or the end of the input. An answer that fails is told and leaves the chat open."""
        if self._interactive:
            with contextlib.suppress(ImportError):  # not on every system
                import readline  # noqa: F401  # line editing and history for input()
            self._console.print(
                f"{self._options['model']} at {self._client.address} · /help", style="dim", markup=False
            )
        while (line := self._line()) is not None:
            if not line:
                continue
            if line.startswith("/"):
                if not self._command(line):
                    return
                continue
            self._turn(line)

    def _line(self) -> str | None:
        """The next line without the white space around it; None at the end of the input."""
        while True:
            try:
                # What the terminal sends is not always text.
                return input("> " if self._interactive else "").strip().encode(errors="replace").decode()
            except EOFError:
                if self._interactive:
                    self._console.print()
                return None
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._console.print("\n/quit ends the chat", style="dim")

    def _command(self, line: str) -> bool:
        """Carries out a command; False ends the chat."""
        match line:
            case "/quit" | "/exit":
                return False
            case "/clear":
                self._said.clear()
                problems.note("forgotten")
            case "/help":
                self._console.print(HELP, markup=False)
            case _:
                problems.note(f"{line} is no command; /help lists them")
        return True

    def _turn(self, line: str) -> None:
        asked = user(line)
        stream = self._client.stream([*self._instructions, *self._said, asked], timeout=self._timeout, **self._options)
        began = time.monotonic()
        try:
            with stream:
                self._show(stream)
        except KeyboardInterrupt:
            problems.note("stopped")
            # What was said before stands, so that the next question can be about it.
            heard = text_of(stream.completion)
            self._said += [asked, assistant(heard)] if heard else []
        except TrunklineError as error:
            problems.tell(error, self._client.address)
        else:
            completion = stream.completion
            self._said += [asked, *(choice.message for choice in completion.choices[:1])]
            self._sum_up(completion, time.monotonic() - began)

    def _show(self, stream: CompletionStream) -> None:
        if not self._interactive:
            for piece in stream.text():
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
            sys.stdout.flush()
            return
        tail = Tail()
        try:
            with Live(tail, console=self._console, transient=True, refresh_per_second=8, vertical_overflow="visible"):
                for piece in stream.text():
                    tail.pieces.append(piece)
        finally:
            # The whole of it, once, so that it can be scrolled through.
            self._console.print(Markdown("".join(tail.pieces)))

    def _sum_up(self, completion: Completion, took: float) -> None:
        if not self._interactive:
            return
        usage = completion.usage
        counts = f"{usage.input_tokens} tokens in, {usage.output_tokens} out · " if completion.HasField("usage") else ""
        self._console.print(f"{counts}{took:.1f} s", style="dim", markup=False)

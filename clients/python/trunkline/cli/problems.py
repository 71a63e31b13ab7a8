"""What went wrong, told to a person: one line that says it, one that says what to do, and an exit code."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console

from trunkline import (
    AuthenticationError,
    BudgetExhausted,
    Cancelled,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProviderAuthenticationError,
    RateLimited,
    StreamIncomplete,
    TimedOut,
    TrunklineError,
    Unimplemented,
    Unreachable,
)

FAILED, USAGE, UNREACHABLE, BUSY, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 5, 130
EXIT_CODES = (
    (0, "all went well"),
    (FAILED, "the gateway or the provider refused or failed; `health`: not serving"),
    (USAGE, "the command line is wrong"),
    (UNREACHABLE, "the gateway cannot be reached, or the connection broke"),
    (BUSY, "over a rate limit or budget, or overloaded: try again later"),
    (TIMED_OUT, "the time ran out"),
    (INTERRUPTED, "interrupted"),
)

#: Advice by the class of an error; {address} is filled in.
Advice = Mapping[type[TrunklineError], str]

# Soft wrapping: a message is one line, however wide the terminal is.
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

# The first row that fits. {address} and {message} are filled in; an empty line says no more than the message.
_ADVICE: tuple[tuple[type[TrunklineError], int, str, str], ...] = (
    (Unreachable, UNREACHABLE, "cannot reach {address}: is the server running? try: make run", ""),
    (Overloaded, BUSY, "{message}", "too much to do there: try again later"),
    (RateLimited, BUSY, "{message}", "over a rate limit: try again later"),
    (BudgetExhausted, BUSY, "{message}", "your budget is spent: ask whoever runs the gateway"),
    (TimedOut, TIMED_OUT, "{message}", "allow more time with --timeout SECONDS"),
    (AuthenticationError, FAILED, "{message}", "give your key with --api-key or TRUNKLINE_API_KEY"),
    (
        ProviderAuthenticationError,
        FAILED,
        "{message}",
        "your own key is fine: whoever runs the gateway must mend its key",
    ),
    (PermissionDenied, FAILED, "{message}", "ask whoever runs the gateway, or try another model: trunkline models"),
    (NotFound, FAILED, "{message}", "to see what there is: trunkline models"),
    (Unimplemented, FAILED, "{message}", "is {address} a trunkline gateway, of a version that knows this?"),
    (StreamIncomplete, FAILED, "{message}", "run it again"),
    (InvalidRequest, FAILED, "{message}", ""),
    (Cancelled, FAILED, "{message}", ""),
    (TrunklineError, FAILED, "{message}", ""),
)


def tell(error: TrunklineError, address: str, instead: Advice | None = None) -> int:
    """Writes the error to stderr; returns the exit code for it. `instead`: what a command advises by itself."""
    code, said, advice = next(row[1:] for row in _ADVICE if isinstance(error, row[0]))
    advice = next((words for kind, words in (instead or {}).items() if isinstance(error, kind)), advice)
    if isinstance(error, Unreachable):
        said, advice = _unreachable(error, said)
    name = f"{error.reason}: " if error.reason else ""
    errors.print(f"error: {name}{said.format(address=address, message=error.message)}", style="red")
    for field, description in error.violations:
        errors.print(f"  {field}: {description}")
    if error.retry_after is not None:
        advice = f"try again in {seconds(error.retry_after)} s"
    if advice:
        errors.print(f"  {advice.format(address=address)}")
    if error.request_id:
        errors.print(f"  request id: {error.request_id}", style="dim")
    return code


def note(words: str) -> None:
    """Something that is worth knowing and no error, to stderr."""
    errors.print(f"note: {words}", style="dim")


def seconds(delay: float) -> str:
    """Up to three decimals, and no zeros at the end."""
    return f"{delay:.3f}".rstrip("0").rstrip(".")


def _unreachable(error: Unreachable, said: str) -> tuple[str, str]:
    """Tells apart: nobody there, a server there that speaks otherwise, a connection that broke."""
    words = error.message.lower()
    if error.completion is not None and error.completion.id:
        return "the connection to {address} broke before the answer was complete", "run it again"
    if any(word in words for word in ("ssl", "tls", "handshake", "certificate")):
        return "{address} does not prove who it is: {message}", "see --ca-file and --server-name, or --no-tls"
    if "refused" in words:
        return said, ""
    return said, f"gRPC says: {error.message}".replace("{", "{{").replace("}", "}}")


@contextmanager
def told(address: str, instead: Advice | None = None) -> Iterator[None]:
    """Ends the command with a line on stderr and an exit code, whatever happens inside."""
    try:
        yield
    except TrunklineError as error:
        raise typer.Exit(tell(error, address, instead)) from None
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        errors.print("interrupted")
        raise typer.Exit(INTERRUPTED) from None

"""What runs statements: a server, or the embedded engine. Both take the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from trunkline_server.traces.base import BackendError, BackendUnavailable

#: Codes of errors that no waiting mends: who we are and what we may.
_FOR_GOOD = frozenset({
    192,  # UNKNOWN_USER
    193,  # WRONG_PASSWORD
    194,  # REQUIRED_PASSWORD
    497,  # ACCESS_DENIED
    516,  # AUTHENTICATION_FAILED
})  # fmt: skip

#: Codes that tell of a record that cannot be written.
_UNFIT = frozenset({
    6,  # CANNOT_PARSE_TEXT
    27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    53,  # TYPE_MISMATCH
    69,  # ARGUMENT_OUT_OF_BOUND
    131,  # TOO_LARGE_STRING_SIZE
    321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
})  # fmt: skip


class Engine(Protocol):
    """Raises BackendUnavailable, or BackendError for good. Nothing takes longer than it is given."""

    async def open(self) -> None:
        """Of the one that writes: brings up what the others then find. Does nothing where it runs by itself."""

    async def query(
        self, statement: str, parameters: Mapping[str, Any], *, seconds: float, raw: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        """Rows. `raw`: columns that hold bytes and no text."""

    async def command(self, statement: str, parameters: Mapping[str, Any], *, seconds: float) -> None:
        """A statement that returns nothing."""

    async def insert(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]], *, seconds: float
    ) -> None:
        """Rows of these columns, by their name and type. Raises ValueError if it is the rows that cannot be written."""

    async def aclose(self) -> None: ...


def refused(code: int | None, text: str) -> BackendError | BackendUnavailable | ValueError:
    """What an error of ClickHouse's means: a mistake that stays, a record that does not fit, or a state that passes."""
    if code in _UNFIT:
        # The text shows what was to be written.
        return ValueError(f"clickhouse: does not take a record: code {code}")
    # The statement and its values come behind the first line.
    said = f"clickhouse: {text.partition(chr(10))[0][:300]}"
    return BackendError(said) if code in _FOR_GOOD else BackendUnavailable(said)

"""What is wrong with a request, collected: all of it up to a limit, then how much more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trunkline_server.errors import Violation

#: Violations that are listed one by one.
LISTED = 100


@dataclass(frozen=True, slots=True)
class Unlisted(Violation):
    """Stands last in a list of violations for those that it leaves out."""

    count: int


def unlisted(count: int) -> Unlisted:
    return Unlisted("", f"and {count:,} more that are not listed", count)


def listed(violations: Iterable[Violation], most: int = LISTED) -> tuple[list[Violation], int]:
    """The first `most` violations, and how many more there are."""
    shown: list[Violation] = []
    more = 0
    for violation in violations:
        if isinstance(violation, Unlisted):
            more += violation.count
        elif len(shown) < most:
            shown.append(violation)
        else:
            more += 1
    return shown, more


class TooMuch(Exception):
    """The request holds more parts than are worth looking at."""


class Findings:
    """Collects while a request is looked through. Empty lists: nothing is wrong."""

    __slots__ = ("_more", "_parts", "invalid", "unsupported")

    def __init__(self) -> None:
        #: Breaks the contract: INVALID_REQUEST.
        self.invalid: list[Violation] = []
        #: Keeps to the contract, but this server does not do it: UNSUPPORTED_PARAMETER.
        self.unsupported: list[Violation] = []
        self._more = 0
        self._parts = 0

    def add(self, field: str, description: str) -> None:
        if len(self.invalid) < LISTED:
            self.invalid.append(Violation(field, description))
        else:
            self._more += 1

    def refuse(self, field: str, description: str) -> None:
        self.unsupported.append(Violation(field, description))

    def count_parts(self, count: int, most: int) -> None:
        """Bounds the work that one request makes. Raises TooMuch once the request has more than `most` parts."""
        self._parts += count
        if self._parts > most:
            raise TooMuch

    def closed(self) -> Findings:
        """The findings, with the violations that were not listed counted at the end. Nothing may be added any more."""
        if self._more:
            self.invalid.append(unlisted(self._more))
        return self

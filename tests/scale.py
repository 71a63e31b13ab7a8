"""How much the large tests do: a small part on every run, all of it where FULL is set, as `make test-slow` does."""

from __future__ import annotations

import os

#: Is it the run that proves the figures?
FULL = os.environ.get("FULL", "") not in {"", "0", "false"}


def scaled(full: int, few: int) -> int:
    """What a figure is proved with, or enough to walk the same path."""
    return full if FULL else few

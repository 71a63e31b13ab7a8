"""Scenarios that need a server, or more than one call, of their own."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.stories import accounts, crowds, replays, restarts, surroundings
from tests.faults.table import Story

STORIES: Sequence[Story] = (
    *restarts.STORIES,
    *crowds.STORIES,
    *replays.STORIES,
    *accounts.STORIES,
    *surroundings.STORIES,
)

__all__ = ["STORIES"]
